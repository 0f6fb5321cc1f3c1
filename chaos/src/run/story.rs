//! What was seen in one run of a scenario: facts and times, as the JSON report holds them. It judges nothing.
//!
//! Times are seconds since the load began; latencies are milliseconds from the moment that a request was due.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Looks are this far apart, seconds.
pub const LOOK_S: f64 = 0.25;

/// A processor that the hypervisor had for so long within a look stood still, milliseconds: nodes that were held up for 150 take
/// themselves for asleep, and there may be less to it than the kernel counts in ticks.
const STANDSTILL_MS: u64 = 100;

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
    /// Members that some ready node does not count, the most.
    pub uncounted: u64,
    /// Time that the hypervisor took of one of this machine's processors since the last look, the most, milliseconds.
    pub taken_ms: u64,
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
    /// Contacts looked at around the end of their time.
    pub lapses: Lapses,
    /// How often nodes lost confidence in one another.
    pub flaps: Flaps,
}

/// Contacts that nobody refreshed, looked at around the end of their time by the phones' own monotonic clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lapses {
    /// Looks a moment before the end.
    pub before: u64,
    /// Of these, not served any more.
    pub early: u64,
    /// Looks a second after the end.
    pub after: u64,
    /// Of these, still served.
    pub late: u64,
}

/// How often nodes lost confidence in one another, or in themselves, under load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flaps {
    /// A node became suspect to another.
    pub suspected: u64,
    /// A node fenced itself off and rejoined.
    pub fenced: u64,
    /// A live link ended.
    pub unlinked: u64,
    /// A ready node was seen to count fewer members than there are.
    pub dropped: u64,
}

impl Totals {
    /// What an operator asks first, a cell each: in full, short, lost, ghosts, calls.
    #[must_use]
    pub fn cells(&self) -> [String; 5] {
        let Self { full, short, lost, ghosts, calls_completed, calls_tried, .. } = self;
        let calls = format!("{calls_completed} of {calls_tried}");
        [full.to_string(), short.to_string(), lost.to_string(), ghosts.to_string(), calls]
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [full, short, lost, ghosts, calls] = self.cells();
        write!(f, "{full} acknowledged in full, {short} short · lost {lost} · ghosts {ghosts} · calls {calls}")
    }
}

impl fmt::Display for Lapses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { before, early, after, late } = self;
        write!(
            f,
            "live contacts expired early: {early} of {before} looked at a moment before their end; served beyond their time \
             + 1 s: {late} of {after} looked at then"
        )
    }
}

impl Flaps {
    /// All of them.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.suspected + self.fenced + self.unlinked + self.dropped
    }
}

impl fmt::Display for Flaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { suspected, fenced, unlinked, dropped } = self;
        write!(f, "{suspected} suspected, {fenced} fenced, {unlinked} links ended, {dropped} dropped from membership")
    }
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

    /// The longest convergence after a heal, seconds.
    #[must_use]
    pub fn slowest_s(&self) -> f64 {
        self.heals.iter().filter_map(|heal| heal.converged_s).fold(0.0, f64::max)
    }

    /// Whether nodes that all answer phones could not hear one another then, or have not yet got over it.
    #[must_use]
    pub fn in_a_split(&self, at_s: f64) -> bool {
        self.bands.iter().any(|band| band.is_split && (band.from_s..=self.over_s(band)).contains(&at_s))
    }

    /// When the machine stood still: looks before which the hypervisor had one of its processors for so long that whoever was
    /// on it slept, as nodes see it.
    pub fn standstills_s(&self) -> impl Iterator<Item = f64> {
        self.samples.iter().filter(|sample| sample.taken_ms >= STANDSTILL_MS).map(|sample| sample.at_s)
    }

    /// Memory of the largest node at its peak, MiB.
    #[must_use]
    pub fn rss_mib(&self) -> u64 {
        self.samples.iter().map(|sample| sample.rss_mib).max().unwrap_or_default()
    }
}
