//! A run, written down: what a seed chose, so that a failing one can be cut down and kept as a file. Runs nothing.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::faults::{self, Fault};

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
    /// What happens, one after another; after each the world must settle.
    pub steps: Vec<Step>,
    /// If given, only these requests are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<BTreeSet<u64>>,
    /// If given, the fault in the code under test that the run is to find.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<String>,
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
    /// What one node sends to another takes long, but not longer than acks are waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sluggish: Option<(usize, usize)>,
    /// Somebody sets a wall clock while it goes wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jump: Option<Jump>,
}

/// A wall clock that jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jump {
    /// Whose.
    pub node: usize,
    /// By how much, µs.
    pub by_us: i64,
}

/// Requests of a step are fewer than this.
pub(super) const REQUESTS_PER_STEP: u64 = 1_000_000;

/// No machine's oscillator is worse than this, parts per million.
const DRIFT_PPM: i64 = 2_000;

const HOUR_US: i64 = 3_600_000_000;

impl Plan {
    /// What a seed chooses.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let nodes = rng.usize(3..=5);
        let steps = (1..=rng.u64(2..=5)).map(|number| step(number, nodes, &mut rng)).collect();
        Self { seed, nodes, aors: 12, steps, only: None, mutant: None }
    }
}

/// Two nodes.
fn two_of(nodes: usize, rng: &mut fastrand::Rng) -> (usize, usize) {
    let one = rng.usize(..nodes);
    (one, (one + rng.usize(1..nodes)) % nodes)
}

fn step(number: u64, nodes: usize, rng: &mut fastrand::Rng) -> Step {
    let drifts = rng.u8(..) < 128;
    let drift = |rng: &mut fastrand::Rng| if drifts { rng.i64(-DRIFT_PPM..=DRIFT_PPM) } else { 0 };
    Step {
        number,
        seed: rng.u64(..),
        load_us: rng.u64(500_000..2_000_000),
        fault: faults::choose(rng, nodes),
        lasts_us: rng.u64(100_000..6_000_000),
        drift_ppm: (0..nodes).map(|_| drift(rng)).collect(),
        sluggish: (rng.u8(..) < 96).then(|| two_of(nodes, rng)),
        jump: (rng.u8(..) < 80).then(|| Jump { node: rng.usize(..nodes), by_us: rng.i64(-HOUR_US..HOUR_US) }),
    }
}
