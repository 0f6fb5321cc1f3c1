//! A run, written down: what a seed chose, so that a failing one can be cut down and kept as a file. Runs nothing.

use std::collections::BTreeSet;

use aorta::replication::AckMode;
use serde::{Deserialize, Serialize};

use super::cuts::FLOOR_STEP_US;
use super::faults::{self, Fault};
use super::versions;

/// Everything that makes a run what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Where it came from, and what delays and phones are drawn from.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// AoRs, two phones each.
    pub aors: usize,
    /// Limits of the cluster and pace of the phones.
    #[serde(default)]
    pub limits: Limits,
    /// What happens, one after another; after each the world must settle.
    pub steps: Vec<Step>,
    /// If given, only these requests are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<BTreeSet<u64>>,
    /// If given, the fault in the code under test that the run is to find.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<String>,
}

/// What the nodes are configured with, where it is not the default, and how fast requests come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Encoded changes kept for peers that have not acked them, bytes.
    pub outbox_bytes_max: usize,
    /// Replies that may wait for acks at a node.
    pub pending_replies_max: usize,
    /// Live contacts of an AoR.
    pub max_contacts_per_aor: usize,
    /// The longest lifetime granted, seconds.
    pub expires_max_s: u32,
    /// A stamp further ahead is refused, seconds.
    pub clock_ahead_max_s: u32,
    /// Requests come this far apart on average, µs.
    pub request_every_us: u64,
    /// The first node grants so much more, seconds: all remember by it.
    #[serde(default)]
    pub expires_more_s: u32,
    /// `ack`.
    #[serde(default)]
    pub ack: Ack,
    /// Bytes under way to a node before who writes to it has to wait.
    #[serde(default = "wide")]
    pub window_bytes: usize,
    /// What phones do most.
    #[serde(default)]
    pub habit: Habit,
    /// Their contacts have `q` and `Path`, others in each request.
    #[serde(default)]
    pub dresses: bool,
}

/// What phones do most.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Habit {
    /// Of everything a little.
    #[default]
    Mixed,
    /// They move, and gain and lose their `reg-id`, again and again.
    Wander,
    /// They refresh as late as their lifetime lets them.
    Rest,
}

fn wide() -> usize {
    256 << 10
}

/// Whose acks a reply waits for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ack {
    /// All.
    #[default]
    All,
    /// Any.
    One,
    /// Nobody's.
    None,
    /// All, once it is on their disks: when all nodes die under load, what was answered in full is there.
    Disk,
}

impl Ack {
    /// Whether a full answer says that every node knows.
    pub(super) fn is_all(self) -> bool {
        matches!(self, Self::All | Self::Disk)
    }

    fn choose(seed: u64) -> Self {
        match seed % 24 {
            0 | 6 | 12 | 18 => Self::Disk,
            7 => Self::One,
            13 => Self::None,
            _ => Self::All,
        }
    }
}

impl From<Ack> for AckMode {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::All => Self::All,
            Ack::One => Self::One,
            Ack::None => Self::None,
            Ack::Disk => Self::Disk,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            outbox_bytes_max: 64 << 20,
            pending_replies_max: 65_536,
            max_contacts_per_aor: 10,
            expires_max_s: 7200,
            clock_ahead_max_s: 3600,
            request_every_us: 5_000,
            expires_more_s: 0,
            ack: Ack::All,
            window_bytes: wide(),
            habit: Habit::Mixed,
            dresses: false,
        }
    }
}

impl Limits {
    /// The longest lifetime that a node grants, seconds.
    pub(super) fn grants_s(&self, node: usize) -> u32 {
        self.expires_max_s + if node == 0 { self.expires_more_s } else { 0 }
    }

    /// How long an entry is remembered, µs.
    pub(super) fn horizon_us(&self) -> u64 {
        aorta_proto::record::horizon_us(self.grants_s(0), self.clock_ahead_max_s)
    }

    /// The same where the member that grants most has left.
    pub(super) fn least_horizon_us(&self) -> u64 {
        aorta_proto::record::horizon_us(self.expires_max_s, self.clock_ahead_max_s)
    }

    /// Whether contacts that the first node granted live longer than what the others grant is remembered.
    pub(super) fn outlive(&self) -> bool {
        u64::from(self.grants_s(0)) * 1_000_000 > self.least_horizon_us() + FLOOR_STEP_US
    }

    /// Whether entries are forgotten within a run.
    pub(super) fn forget(&self) -> bool {
        self.horizon_us() < FORGETS_BELOW_US
    }

    fn choose(rng: &mut fastrand::Rng) -> Self {
        let request_every_us = [2_500, 5_000, 5_000, 10_000][rng.usize(..4)];
        let mut limits = Self { request_every_us, dresses: rng.bool(), ..Self::default() };
        if rng.u8(..) < 64 {
            limits.outbox_bytes_max = rng.usize(1..=16) << 10;
        }
        if rng.u8(..) < 48 {
            (limits.window_bytes, limits.outbox_bytes_max) = (rng.usize(1..=4) << 10, rng.usize(1..=3) << 10);
        }
        if rng.u8(..) < 64 {
            limits.pending_replies_max = rng.usize(2..=16);
        }
        if rng.u8(..) < 64 {
            limits.max_contacts_per_aor = rng.usize(1..=3);
        }
        if rng.u8(..) < 64 {
            limits.habit = Habit::Wander;
        }
        if rng.u8(..) < 24 {
            (limits.expires_max_s, limits.clock_ahead_max_s) = (10, 5);
            limits.expires_more_s = [0, 10, 90, 90][rng.usize(..4)];
            limits.request_every_us = 40_000;
            // What is as old as a lifetime allows is what may be forgotten too early.
            limits.habit = if rng.u8(..) < 192 { Habit::Rest } else { Habit::Mixed };
        }
        limits
    }
}

/// Load, then a fault under load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its place in the story that the seed told; numbers of its requests begin with it.
    pub number: u64,
    /// What its delays are drawn from.
    pub seed: u64,
    /// How long there is load before anything goes wrong, µs.
    pub load_us: u64,
    /// What goes wrong.
    pub fault: Fault,
    /// For how long, µs.
    pub lasts_us: u64,
    /// How far each node's oscillator is off from now on, parts per million.
    #[serde(default)]
    pub drift_ppm: Vec<i64>,
    /// What one node sends to another, or to all if both are the same, takes long, but not longer than acks are waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sluggish: Option<(usize, usize)>,
    /// Somebody sets a wall clock while it goes wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jump: Option<Jump>,
    /// The highest wire version of the build that each node's next start takes.
    #[serde(default)]
    pub wire_versions: Vec<u8>,
}

/// A wall clock that jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jump {
    /// Whose.
    pub node: usize,
    /// By how much, µs.
    pub by_us: i64,
    /// All others' as well: whoever sets the time for all of them was wrong.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// Requests of a step are fewer than this.
pub(super) const REQUESTS_PER_STEP: u64 = 1_000_000;

/// How many nodes, each as likely as the next.
const NODES: [usize; 10] = [3, 3, 3, 3, 4, 4, 4, 5, 6, 7];

/// No machine's oscillator is worse than this, parts per million.
const DRIFT_PPM: i64 = 2_000;

const HOUR_US: i64 = 3_600_000_000;

/// With a horizon below this entries are forgotten within a run, µs.
const FORGETS_BELOW_US: u64 = 200_000_000;

impl Plan {
    /// What a seed chooses.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let nodes = NODES[rng.usize(..NODES.len())];
        let limits = Limits { ack: Ack::choose(seed), ..Limits::choose(&mut rng) };
        let mut steps: Vec<Step> = (1..=rng.u64(2..=4)).map(|number| step(number, nodes, &limits, &mut rng)).collect();
        if limits.ack == Ack::Disk {
            // Older builds have no words for disks: every reply would be short.
            steps.iter_mut().for_each(|step| step.wire_versions.clear());
        }
        Self { seed, nodes, aors: rng.usize(6..=24), limits, steps, only: None, mutant: None }
    }
}

/// From one node to another, or to all.
fn sluggish(nodes: usize, rng: &mut fastrand::Rng) -> (usize, usize) {
    let one = rng.usize(..nodes);
    (one, if rng.bool() { one } else { (one + rng.usize(1..nodes)) % nodes })
}

fn step(number: u64, nodes: usize, limits: &Limits, rng: &mut fastrand::Rng) -> Step {
    let drifts = rng.u8(..) < 128;
    let fault = faults::choose(rng, nodes, limits);
    // In a long cut worse ones would drift further apart than the judges allow for.
    let worst_ppm = match fault {
        Fault::LongAlone(_) => DRIFT_PPM / 50,
        _ if limits.forget() => DRIFT_PPM / 10,
        _ => DRIFT_PPM,
    };
    let drift = |rng: &mut fastrand::Rng| if drifts { rng.i64(-worst_ppm..=worst_ppm) } else { 0 };
    let forgets = limits.forget() && (fault == Fault::Rest || rng.u8(..) < 128);
    Step {
        number,
        seed: rng.u64(..),
        load_us: rng.u64(500_000..2_000_000),
        fault,
        // Long enough that what was written before is forgotten when it is over.
        lasts_us: if forgets { limits.horizon_us() + 12_000_000 } else { rng.u64(100_000..6_000_000) },
        drift_ppm: (0..nodes).map(|_| drift(rng)).collect(),
        sluggish: (rng.u8(..) < 112).then(|| sluggish(nodes, rng)),
        jump: (rng.u8(..) < if fault.is_of_all() { 160 } else { 80 }).then(|| jump(nodes, rng)),
        wire_versions: versions::choose(rng, nodes),
    }
}

/// All wall clocks together jump only back: where they all say that an hour has passed, an hour has passed.
fn jump(nodes: usize, rng: &mut fastrand::Rng) -> Jump {
    let (node, by_us, all) = (rng.usize(..nodes), rng.i64(-HOUR_US..HOUR_US), rng.bool());
    Jump { node, by_us: if all { -by_us.abs() } else { by_us }, all }
}
