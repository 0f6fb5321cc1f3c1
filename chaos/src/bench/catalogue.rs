//! The rows by name: what is asked, how fast, from where. It measures nothing.

use std::time::Duration;

use anyhow::bail;

use super::Options;
use super::load::{Mix, Pace};
use super::measure::Plan;

/// A row of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Entry {
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

const fn entry(name: &'static str, about: &'static str, mix: Mix, pace: Pace) -> Entry {
    Entry { name, about, mix, pace, one_node: false, one_source: false }
}

/// A day of an office: mostly refreshes, some calls, few newcomers.
const MIXED: Mix = Mix { new: 1, refresh: 79, query: 5, lookup: 15 };

/// All rows.
pub(super) const ALL: [Entry; 10] = [
    entry("refresh", "refreshes spread over all nodes, closed loop", Mix::REFRESH, closed(256)),
    Entry {
        one_source: true,
        ..entry("refresh-sbc", "the same, all from one address and port", Mix::REFRESH, closed(256))
    },
    entry("new", "new registrations spread over all nodes, closed loop", Mix::NEW, closed(256)),
    entry("refresh-open", "refreshes spread over all nodes, 4000 a second, open loop", Mix::REFRESH, open(4000.0)),
    Entry { one_node: true, ..entry("lookup", "INVITE → 302 at one node, closed loop", Mix::LOOKUP, closed(128)) },
    Entry {
        one_node: true,
        ..entry("query", "REGISTER without Contact at one node, closed loop", Mix::QUERY, closed(128))
    },
    entry("mixed", "79 refreshes, 15 calls, 5 queries, 1 new phone of 100, closed loop", MIXED, closed(256)),
    Entry {
        one_node: true,
        ..entry("refresh-one", "refreshes at one node, 3000 a second, open loop", Mix::REFRESH, open(3000.0))
    },
    Entry {
        one_node: true,
        ..entry("new-one", "new registrations at one node, 3000 a second, open loop", Mix::NEW, open(3000.0))
    },
    entry("refresh-64", "refreshes spread over all nodes, closed loop of 64", Mix::REFRESH, closed(64)),
];

/// The rows of these names, in the order of the names.
///
/// # Errors
/// When a name is unknown.
pub(super) fn chosen(names: &[String]) -> anyhow::Result<Vec<Entry>> {
    names.iter().map(|name| named(name)).collect()
}

fn named(name: &str) -> anyhow::Result<Entry> {
    if let Some(entry) = ALL.iter().find(|entry| entry.name == name) {
        return Ok(*entry);
    }
    let nearest = ALL.iter().min_by_key(|entry| strsim::damerau_levenshtein(name, entry.name));
    let hint = nearest.map(|entry| format!("; did you mean {}?", entry.name)).unwrap_or_default();
    bail!("there is no row {name}{hint} --list names all")
}

impl Entry {
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
    ALL.iter().map(|entry| format!("{:<14} {}", entry.name, entry.about)).collect::<Vec<_>>().join("\n")
}
