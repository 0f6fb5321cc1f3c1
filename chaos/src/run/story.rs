//! What was seen in one run of a scenario: facts and times, as the JSON report holds them. It judges nothing.
//!
//! Times are seconds since the load began; latencies are milliseconds from the moment that a request was due.

use serde::{Deserialize, Serialize};

/// Looks are this far apart, seconds.
pub const LOOK_S: f64 = 0.25;

/// One run of a scenario.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Story {
    /// The scenario's name.
    pub scenario: String,
    /// What happens in it.
    pub about: String,
    /// Rows of the README's table of faults that it answers.
    pub answers: Vec<u8>,
    /// What all its randomness came from.
    pub seed: u64,
    /// Phones of the crowd.
    pub phones: usize,
    /// Requests due per second.
    pub requests_per_s: u32,
    /// Nodes by name, those added later included.
    pub nodes: Vec<String>,
    /// A look at everybody every quarter of a second.
    pub samples: Vec<Sample>,
    /// What was done, and when.
    pub bands: Vec<Band>,
    /// What followed each heal.
    pub heals: Vec<Heal>,
    /// What the phones were told, in sum.
    pub totals: Totals,
    /// What the phones complain about: each a sentence with its time.
    pub complaints: Vec<Complaint>,
    /// Latencies of 200s to REGISTER without a fault.
    pub calm: Quantiles,
    /// The same under faults.
    pub under_faults: Quantiles,
    /// Anti-entropy of a node without load, bytes per second; from quiet cycles.
    pub idle_bytes_per_s: Option<f64>,
    /// Nodes that ended without being told to, or wrote of a panic: in their own words.
    pub accidents: Vec<String>,
    /// What else a reader may want to know.
    pub notes: Vec<String>,
    /// How long it took from beginning to end, everything included.
    pub took_s: f64,
}

/// One look at everybody.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// When.
    pub at_s: f64,
    /// Nodes that say they are ready.
    pub ready: usize,
    /// Nodes that are meant to be members at this time.
    pub members: usize,
    /// Phones certainly registered.
    pub registered: u64,
    /// Fewest live contacts that a ready node holds.
    pub served_least: Option<u64>,
    /// Most live contacts that a ready node holds.
    pub served_most: Option<u64>,
    /// Bindings that a ready node denied though they were certain, so far.
    pub lost: u64,
    /// Bindings served though they were certainly gone, so far.
    pub ghosts: u64,
    /// Answers that no registrar may give, so far.
    pub wrong: u64,
    /// REGISTERs answered 200 by every node asked, so far.
    pub full: u64,
    /// Those that went out short, so far.
    pub short: u64,
    /// Requests answered otherwise, 5xx included, so far.
    pub refused: u64,
    /// Requests that nobody answered, so far.
    pub unanswered: u64,
    /// Calls completed so far.
    pub calls: u64,
    /// 200s since the last look: median.
    pub p50_ms: Option<f64>,
    /// 200s since the last look: 99 of 100 took no longer.
    pub p99_ms: Option<f64>,
    /// Bytes of exchanges that all nodes have sent so far.
    pub repair_bytes: u64,
    /// Records and entries that they have sent in them.
    pub repair_records: u64,
    /// Memory of the largest node, MiB.
    pub rss_mib: u64,
    /// Members that some node counts as suspect.
    pub suspects: u64,
}

/// A fault from its beginning to its end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Band {
    /// What was done, to whom.
    pub label: String,
    /// When it began.
    pub from_s: f64,
    /// When it was healed.
    pub until_s: f64,
    /// From its beginning until one of those that go on no longer awaited the acks of one that it met.
    pub suspect_s: Option<f64>,
    /// From its beginning until all that go on had dropped all that it met from their membership.
    pub dropped_s: Option<f64>,
    /// Nodes that all answered phones could not hear one another: each side answers what it knows.
    pub is_split: bool,
    /// Moments within it at which something begins anew: the second 200 of a flapping link, the next node of a roll.
    pub again_s: Vec<f64>,
}

/// What followed a heal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heal {
    /// The fault that was healed.
    pub of: String,
    /// When.
    pub at_s: f64,
    /// From then until all nodes were ready.
    pub ready_s: Option<f64>,
    /// From then until all nodes were ready and held the same.
    pub converged_s: Option<f64>,
    /// Requests that changed something while the fault lasted: the difference that a cut makes.
    pub changed: u64,
    /// Bytes of exchanges of all nodes from the heal to the end of the rest after it.
    pub repair_bytes: u64,
    /// Records and entries in them.
    pub repair_records: u64,
    /// What nodes said when they did not converge.
    pub disagreement: String,
}

/// What the phones were told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Requests that were due.
    pub due: u64,
    /// REGISTERs answered 200 by every node asked.
    pub full: u64,
    /// Those that went out short.
    pub short: u64,
    /// Requests answered otherwise.
    pub refused: u64,
    /// Requests that nobody answered.
    pub unanswered: u64,
    /// Attempts that failed over to another node.
    pub failovers: u64,
    /// Calls tried.
    pub calls_tried: u64,
    /// Calls that reached the right phone.
    pub calls_completed: u64,
    /// Answers asked for at the end, phone by phone at every node.
    pub judged: u64,
    /// Those that could not be judged, for what the phone was told leaves both open.
    pub open: u64,
    /// Answers of one side of a cut that did not know what the other had acknowledged meanwhile: no node can.
    pub across_cuts: u64,
    /// Bindings denied though certain, at any time and at the end.
    pub lost: u64,
    /// Of these, bindings of which the last 200 was short.
    pub lost_short: u64,
    /// Bindings served though gone, at any time and at the end.
    pub ghosts: u64,
    /// Answers that no registrar may give, at any time and at the end.
    pub wrong: u64,
}

/// One thing that must not be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Complaint {
    /// When.
    pub at_s: f64,
    /// What.
    pub text: String,
}

/// Latencies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quantiles {
    /// How many.
    pub count: u64,
    /// Median.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
}

impl Story {
    /// When it ended.
    #[must_use]
    pub fn end_s(&self) -> f64 {
        let samples = self.samples.last().map_or(0.0, |sample| sample.at_s);
        self.bands.iter().map(|band| band.until_s).fold(samples, f64::max)
    }

    /// When the nodes had got over a fault: healed it and hold the same, a look later.
    #[must_use]
    pub fn over_s(&self, band: &Band) -> f64 {
        let heal = self.heals.iter().find(|heal| heal.at_s >= band.until_s);
        band.until_s + heal.and_then(|heal| heal.converged_s).unwrap_or_default() + LOOK_S
    }

    /// Whether nodes that all answer phones could not hear one another then, or have not yet got over it.
    #[must_use]
    pub fn in_a_split(&self, at_s: f64) -> bool {
        self.bands.iter().any(|band| band.is_split && (band.from_s..=self.over_s(band)).contains(&at_s))
    }

    /// Memory of the largest node at its peak, MiB.
    #[must_use]
    pub fn rss_mib(&self) -> u64 {
        self.samples.iter().map(|sample| sample.rss_mib).max().unwrap_or_default()
    }
}
