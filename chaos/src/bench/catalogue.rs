//! The experiments by name: what is asked, how fast, from where. It measures nothing.

use std::time::Duration;

use anyhow::bail;

use super::Options;
use super::load::{Mix, Pace};
use super::measure::Plan;

/// Something that is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Experiment {
    /// A load on a cluster.
    Load(Load),
    /// Delays of single requests.
    Lag,
    /// Memory that each contact adds.
    Memory,
    /// Memory, join and restart.
    Size,
    /// What phones notice of snapshots.
    Snapshot,
}

impl Experiment {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Load(load) => load.name,
            Self::Lag => "lag",
            Self::Memory => "memory",
            Self::Size => "size",
            Self::Snapshot => "snapshot",
        }
    }

    fn about(&self) -> &'static str {
        match self {
            Self::Load(load) => load.about,
            Self::Lag => "200 of a phone alone, and from it until the other nodes know",
            Self::Memory => "memory that each of --contacts adds to a node",
            Self::Size => "memory of a contact, join and restart, at --contacts; ours only",
            Self::Snapshot => "p99 with and without snapshots at 20 000 refreshes/s, memory over --updates; ours only",
        }
    }
}

/// A load of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    mix: Mix,
    pace: Pace,
    one_node: bool,
    one_source: bool,
}

/// Ports that requests come from, where it is not one SBC.
const SOURCES: usize = 16;

const fn closed(window: usize) -> Pace {
    Pace::Closed { window }
}

const fn open(per_s: f64) -> Pace {
    Pace::Open { per_s, poisson: false }
}

const fn load(name: &'static str, about: &'static str, mix: Mix, pace: Pace) -> Load {
    Load { name, about, mix, pace, one_node: false, one_source: false }
}

/// A day of an office: mostly refreshes, some calls, few newcomers.
const MIXED: Mix = Mix { new: 1, refresh: 79, query: 5, lookup: 15 };

/// All loads.
const LOADS: [Load; 10] = [
    load("refresh", "refreshes spread over all nodes, closed loop", Mix::REFRESH, closed(256)),
    Load {
        one_source: true,
        ..load("refresh-sbc", "the same, all from one address and port", Mix::REFRESH, closed(256))
    },
    load("new", "new registrations spread over all nodes, closed loop", Mix::NEW, closed(256)),
    load("refresh-open", "refreshes spread over all nodes, 4000 a second, open loop", Mix::REFRESH, open(4000.0)),
    Load { one_node: true, ..load("lookup", "INVITE → 302 at one node, closed loop", Mix::LOOKUP, closed(128)) },
    Load {
        one_node: true,
        ..load("query", "REGISTER without Contact at one node, closed loop", Mix::QUERY, closed(128))
    },
    load("mixed", "79 refreshes, 15 calls, 5 queries, 1 new phone of 100, closed loop", MIXED, closed(256)),
    Load {
        one_node: true,
        ..load("refresh-one", "refreshes at one node, 3000 a second, open loop", Mix::REFRESH, open(3000.0))
    },
    Load {
        one_node: true,
        ..load("new-one", "new registrations at one node, 3000 a second, open loop", Mix::NEW, open(3000.0))
    },
    load("refresh-64", "refreshes spread over all nodes, closed loop of 64", Mix::REFRESH, closed(64)),
];

/// All experiments.
pub(super) fn all() -> impl Iterator<Item = Experiment> {
    let others = [Experiment::Lag, Experiment::Memory, Experiment::Size, Experiment::Snapshot];
    LOADS.into_iter().map(Experiment::Load).chain(others)
}

/// The one of this name.
///
/// # Errors
/// When there is none, with the nearest.
pub(super) fn named(name: &str) -> anyhow::Result<Experiment> {
    if let Some(found) = all().find(|experiment| experiment.name() == name) {
        return Ok(found);
    }
    let nearest = all().min_by_key(|experiment| strsim::damerau_levenshtein(name, experiment.name()));
    let hint = nearest.map(|experiment| format!("; did you mean {}?", experiment.name())).unwrap_or_default();
    bail!("there is no experiment {name}{hint} --list names all")
}

impl Load {
    /// What is done, with what the command line changed.
    pub(super) fn plan(&self, options: &Options) -> Plan {
        let pace = match (self.pace, options.window, options.rate) {
            (_, _, Some(per_s)) => Pace::Open { per_s, poisson: options.poisson },
            (_, Some(window), None) => Pace::Closed { window },
            (Pace::Open { per_s, .. }, None, None) => Pace::Open { per_s, poisson: options.poisson },
            (pace, None, None) => pace,
        };
        Plan {
            mix: self.mix,
            pace,
            one_node: self.one_node,
            sources: options.sources.unwrap_or(if self.one_source { 1 } else { SOURCES }),
            phones: options.phones,
            warm_up: Duration::from_secs_f64(options.warm_up_s),
            lasts: Duration::from_secs_f64(options.seconds),
            ack: !options.no_ack,
            segments: !options.no_segments,
        }
    }

    /// Whether phones come that nobody knows.
    pub(super) fn brings_new(&self) -> bool {
        self.mix.new > 0
    }
}

/// Names and sentences, a line each.
pub(super) fn list() -> String {
    all().map(|experiment| format!("{:<14} {}", experiment.name(), experiment.about())).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_an_unknown_one_gets_the_nearest() {
        let names: BTreeSet<_> = all().map(|experiment| experiment.name()).collect();
        assert_eq!(names.len(), all().count());
        let said = named("refesh").expect_err("unknown").to_string();
        assert!(said.contains("did you mean refresh?"), "{said}");
    }
}
