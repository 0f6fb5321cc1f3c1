//! What a scenario file says: how large the cluster and the crowd are, what is done to them, and what must hold. Strict: a
//! key that nobody knows is an error that names the nearest. It does nothing.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::fault::Fault;

/// Shortest time that a fault lasts, seconds: long enough that every timeout of a node falls into it.
pub const LASTS_MIN_S: f64 = 5.0;
/// Fewest fault cycles of a scenario.
pub const CYCLES_MIN: usize = 3;
/// Fewest phones of a scenario.
pub const PHONES_MIN: usize = 10_000;
/// Least load of a scenario, requests per second.
pub const REQUESTS_MIN: u32 = 2_000;

/// Most nodes that a scenario may come to have.
pub const NODES_MAX: usize = 12;

/// One scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The file's name without its ending.
    #[serde(skip_deserializing)]
    pub name: String,
    /// One sentence: what happens.
    pub about: String,
    /// Rows of the README's table of faults that it answers.
    #[serde(default)]
    pub answers: Vec<u8>,
    /// Nodes at the beginning.
    #[serde(default = "defaults::nodes")]
    pub nodes: usize,
    /// Phones of the crowd.
    #[serde(default = "defaults::phones")]
    pub phones: usize,
    /// Requests due per second, open loop.
    #[serde(default = "defaults::requests_per_s")]
    pub requests_per_s: u32,
    /// Calls due per second, open loop.
    #[serde(default = "defaults::calls_per_s")]
    pub calls_per_s: u32,
    /// What calls go through.
    #[serde(default)]
    pub sbc: Sbc,
    /// TOML without a section that goes into every node's configuration.
    #[serde(default)]
    pub node_config: String,
    /// By how much each node's wall clock is off from the start, seconds; missing ones are right.
    #[serde(default)]
    pub clock_offsets_s: Vec<i64>,
    /// Size of each node's disk, MiB; not bounded when it is missing.
    pub disk_mib: Option<u64>,
    /// Which build each node starts with.
    #[serde(default)]
    pub build: Build,
    /// Takes so long that it is only run when it is named; `all` leaves it out.
    #[serde(default)]
    pub long: bool,
    /// Load before the first fault, seconds.
    #[serde(default = "defaults::warm_up_s")]
    pub warm_up_s: f64,
    /// What must hold.
    #[serde(default)]
    pub bounds: Bounds,
    /// What is done, in this order.
    pub cycle: Vec<Cycle>,
}

/// What the crowd's calls go through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sbc {
    /// The small one of the phones.
    #[default]
    Small,
    /// A Kamailio with the configuration of `deploy/sbc`.
    Kamailio,
}

/// Which program a node runs at the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Build {
    /// The one under test.
    #[default]
    Current,
    /// One that speaks the previous version of the peer protocol.
    Previous,
}

/// A fault, or several at once, that lasts for some time and is then healed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cycle {
    /// How often it is done, the nodes taking turns.
    #[serde(default = "defaults::times")]
    pub times: usize,
    /// How long it lasts, seconds.
    pub lasts_s: f64,
    /// Load after convergence before the next, seconds.
    #[serde(default = "defaults::rest_s")]
    pub rest_s: f64,
    /// Nodes that all answer phones may hear one another too late: links slower than acks are awaited. So it is in cuts.
    #[serde(default)]
    pub apart: bool,
    /// What is done at its beginning, and undone at its end.
    pub faults: Vec<Fault>,
}

impl Cycle {
    /// Whether one node may not know in time what another has acknowledged.
    #[must_use]
    pub fn splits(&self) -> bool {
        self.apart || self.faults.iter().any(Fault::splits)
    }
}

/// What must hold, where a scenario may differ from the promises; the promises themselves have no key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// From the heal until all nodes are ready and hold the same, seconds.
    pub converge_s: f64,
    /// 200s may be short for this long after a fault began, and after it ended, seconds.
    pub short_after_fault_s: f64,
    /// Why 200s may be short until the nodes have got over the fault; empty: they may not.
    pub short_while_it_lasts: String,
    /// Share of calls to phones certainly registered that must complete, percent, nodes that are all dead apart.
    pub calls_completed_percent: f64,
    /// Share of the requests due that must have been answered, percent: a run with less load proves less.
    pub answered_percent: f64,
    /// Bytes that repairs may cost after any heal, all nodes together; not bounded when it is missing.
    pub repair_bytes_max: Option<u64>,
    /// Anti-entropy of a node without load, bytes per second; not bounded when it is missing.
    pub idle_bytes_per_s_max: Option<f64>,
    /// Memory of any node at its peak, MiB.
    pub rss_mib_max: u64,
    /// Contacts that must have been looked at just before the end of their time, and just after it.
    pub lapses_min: u64,
    /// How often nodes may become suspect, fence themselves, end a link or drop a member; not bounded when it is missing.
    pub flaps_max: Option<u64>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            converge_s: 2.0,
            short_after_fault_s: 2.5,
            short_while_it_lasts: String::new(),
            calls_completed_percent: 99.0,
            answered_percent: 95.0,
            repair_bytes_max: None,
            idle_bytes_per_s_max: None,
            rss_mib_max: 1_024,
            lapses_min: 0,
            flaps_max: None,
        }
    }
}

mod defaults {
    pub(super) fn nodes() -> usize {
        3
    }
    pub(super) fn phones() -> usize {
        super::PHONES_MIN
    }
    pub(super) fn requests_per_s() -> u32 {
        super::REQUESTS_MIN
    }
    pub(super) fn calls_per_s() -> u32 {
        100
    }
    pub(super) fn warm_up_s() -> f64 {
        2.0
    }
    pub(super) fn times() -> usize {
        1
    }
    pub(super) fn rest_s() -> f64 {
        1.5
    }
}

impl Scenario {
    /// Reads a scenario; `name` is its file's.
    ///
    /// # Errors
    /// Names the line, the key and the nearest known one; or the bound that is not met.
    pub fn parse(name: &str, text: &str) -> anyhow::Result<Self> {
        let parsed: Result<Self, toml::de::Error> = toml::from_str(text);
        let mut scenario = parsed.map_err(|error| {
            let hint = nearest(error.message()).map(|name| format!("did you mean `{name}`?")).unwrap_or_default();
            anyhow::anyhow!("scenario {name}: {error}{hint}")
        })?;
        scenario.name = name.to_owned();
        scenario.check().with_context(|| format!("scenario {name}"))?;
        Ok(scenario)
    }

    /// Reads a scenario file.
    ///
    /// # Errors
    /// As [`Scenario::parse`], or when it cannot be read.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let name = file.file_stem().map_or_else(|| "scenario".into(), |stem| stem.to_string_lossy());
        Self::parse(&name, &text)
    }

    fn check(&self) -> anyhow::Result<()> {
        let Self { nodes, phones, requests_per_s, .. } = self;
        ensure!((1..=9).contains(nodes), "nodes = {nodes}: 1 to 9");
        ensure!(self.nodes_at_most() <= NODES_MAX, "{} nodes in the end, at most {NODES_MAX}", self.nodes_at_most());
        ensure!(*phones >= PHONES_MIN, "phones = {phones}: at least {PHONES_MIN}");
        ensure!(*requests_per_s >= REQUESTS_MIN, "requests_per_s = {requests_per_s}: at least {REQUESTS_MIN}");
        ensure!(self.clock_offsets_s.len() <= *nodes, "clock_offsets_s names more nodes than there are");
        ensure!(self.cycles().count() >= CYCLES_MIN, "{} cycles, at least {CYCLES_MIN}", self.cycles().count());
        ensure!(
            (0.0..=100.0).contains(&self.bounds.calls_completed_percent),
            "bounds.calls_completed_percent: 0 to 100"
        );
        ensure!((0.0..=100.0).contains(&self.bounds.answered_percent), "bounds.answered_percent: 0 to 100");
        for cycle in &self.cycle {
            ensure!(cycle.lasts_s >= LASTS_MIN_S, "cycle.lasts_s = {}: at least {LASTS_MIN_S}", cycle.lasts_s);
            ensure!(!cycle.faults.is_empty(), "a cycle without faults");
            for fault in &cycle.faults {
                fault.check(self)?;
            }
        }
        Ok(())
    }

    /// Every cycle as often as it is done, each with its turn: 0, 1, 2, …
    pub fn cycles(&self) -> impl Iterator<Item = (usize, &Cycle)> {
        self.cycle.iter().flat_map(|cycle| std::iter::repeat_n(cycle, cycle.times)).enumerate()
    }

    /// Nodes when all that are added are there.
    #[must_use]
    pub fn nodes_at_most(&self) -> usize {
        let added = |cycle: &Cycle| cycle.faults.iter().map(Fault::adds).sum::<usize>();
        self.nodes + self.cycles().map(|(_, cycle)| added(cycle)).sum::<usize>()
    }

    /// Whether nodes that all answer phones cannot hear one another at some time. What a phone then does at one side within
    /// a network's delay after something at the other has no order: clocks of nodes agree no better.
    #[must_use]
    pub fn splits(&self) -> bool {
        self.cycle.iter().any(Cycle::splits)
    }

    /// Whether it needs network namespaces.
    #[must_use]
    pub fn needs_network(&self) -> bool {
        self.sbc == Sbc::Kamailio || self.cycle.iter().flat_map(|cycle| &cycle.faults).any(Fault::needs_network)
    }
}

/// The known name nearest to the unknown one in serde's message: "unknown field `x`, expected one of `a`, `b`".
fn nearest(message: &str) -> Option<&str> {
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next().filter(|_| message.starts_with("unknown "))?;
    names.min_by_key(|name| strsim::damerau_levenshtein(unknown, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str =
        "about = \"x\"\n[[cycle]]\ntimes = 3\nlasts_s = 5\nfaults = [{ do = \"kill\", who = \"turn\" }]\n";

    fn complaint(text: &str) -> String {
        format!("{:#}", Scenario::parse("sample", text).expect_err("a mistake"))
    }

    #[test]
    fn a_small_file_is_enough() {
        let scenario = Scenario::parse("sample", SOUND).expect("sound");
        assert_eq!((scenario.name.as_str(), scenario.nodes, scenario.phones), ("sample", 3, 10_000));
        assert_eq!(scenario.cycles().map(|(turn, _)| turn).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn an_unknown_key_names_line_and_nearest() {
        let said = complaint(&format!("phonez = 10\n{SOUND}"));
        assert!(said.contains("line 1") && said.contains("did you mean `phones`?"), "{said}");
        let said = complaint(&SOUND.replace("lasts_s", "last_s"));
        assert!(said.contains("did you mean `lasts_s`?"), "{said}");
        let said = complaint(&SOUND.replace("\"kill\"", "\"kil\""));
        assert!(said.contains("did you mean `kill`?"), "{said}");
        let said = complaint(&SOUND.replace("who", "whom"));
        assert!(said.contains("did you mean `who`?"), "{said}");
    }

    #[test]
    fn a_scenario_too_small_to_prove_anything_is_refused() {
        assert!(complaint(&SOUND.replace("times = 3", "times = 2")).contains("2 cycles, at least 3"));
        assert!(complaint(&SOUND.replace("lasts_s = 5", "lasts_s = 4.9")).contains("at least 5"));
        assert!(complaint(&format!("phones = 9999\n{SOUND}")).contains("at least 10000"));
        assert!(complaint(&format!("requests_per_s = 1999\n{SOUND}")).contains("at least 2000"));
        assert!(complaint(&SOUND.replace("turn", "node9")).contains("node9"));
    }
}
