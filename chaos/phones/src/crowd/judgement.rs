//! What every node says about every phone once the load is off, beside what the phones were told.

use std::net::SocketAddr;

use super::tally::{Observation, Told};
use crate::stats::Counted;

/// Findings kept in full; beyond that they are only counted.
pub const FINDINGS_MAX: usize = 10_000;

/// What is wrong with a node's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A binding that was acknowledged is not served.
    Missing,
    /// One is served that was removed, replaced, or lapsed more than a second ago.
    Ghost,
    /// Something that no phone sent, or not so.
    Wrong,
    /// The node did not say: silence, or a 5xx.
    Unanswered,
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What kind.
    pub fault: Fault,
    /// Who, about whom, and what the phone was told.
    pub seen: Observation,
}

/// The word of all nodes about all phones.
#[derive(Debug, Clone, Default)]
pub struct Judgement {
    /// Questions asked: AoRs times nodes.
    pub asked: u64,
    /// Answers that were right.
    pub right: u64,
    /// Phones that are surely registered.
    pub bound: u64,
    /// Phones of which that is not known, times nodes: nothing is expected of them.
    pub unsure: u64,
    /// Everything wrong, the first [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// Those beyond.
    pub more: u64,
    /// Excused ones are no longer among the findings.
    pub excused: u64,
}

impl Judgement {
    /// Findings of this kind.
    #[must_use]
    pub fn count(&self, fault: Fault) -> u64 {
        self.findings.iter().filter(|finding| finding.fault == fault).count() as u64
    }

    /// Nothing is wrong that was not excused.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.more == 0
    }

    /// Takes out what is no fault, given what the phone was told last: such as a binding whose only holder's disk is gone.
    #[must_use]
    pub fn excused(mut self, excuse: impl Fn(&Finding, Option<&Told>) -> bool) -> Self {
        let before = self.findings.len();
        self.findings.retain(|finding| !excuse(finding, finding.seen.told.as_ref()));
        self.excused += (before - self.findings.len()) as u64;
        self
    }

    /// The first findings at each node.
    #[must_use]
    pub fn examples(&self, node: SocketAddr) -> Counted<&Finding> {
        let mut examples = Counted::default();
        self.findings.iter().filter(|finding| finding.seen.node == node).for_each(|finding| examples.add(finding));
        examples
    }

    /// Adds what was asked elsewhere.
    pub fn merge(&mut self, other: Judgement) {
        self.asked += other.asked;
        self.right += other.right;
        self.bound += other.bound;
        self.unsure += other.unsure;
        self.more += other.more;
        self.excused += other.excused;
        let room = FINDINGS_MAX - self.findings.len();
        self.more += other.findings.len().saturating_sub(room) as u64;
        self.findings.extend(other.findings.into_iter().take(room));
    }
}
