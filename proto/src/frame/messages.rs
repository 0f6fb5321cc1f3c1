//! The bodies that have more than a field or two.

use serde::{Deserialize, Serialize};

use super::FrameError;
use crate::digest::{self, LEAF_LEVEL, Listed};
use crate::stamp::{BootId, NodeId};

/// Who speaks on this connection, and what it starts with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The node; also in its certificate, and the two must agree.
    pub node: NodeId,
    /// The process.
    pub boot: BootId,
    /// The lowest wire version it reads.
    pub version_min: u8,
    /// The highest wire version it writes.
    pub version_max: u8,
    /// Fingerprint of the digest key: two nodes with different keys could never agree that they agree.
    pub digest_key_hash: u64,
    /// Its state now.
    pub state: State,
    /// What its disk says the cluster time is now (persisted cluster time plus the wall-clock time passed since), µs.
    pub clock_guess_us: Option<u64>,
    /// Cluster time that it may have used before it stopped, µs: the cluster must not fall below it.
    pub clock_ceiling_us: Option<u64>,
}

/// What a node is and has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where it is in its life.
    pub is: PeerState,
    /// The longest lifetime it grants, seconds; all forget by the largest.
    pub expires_max_s: u32,
    /// It lost more than half of the members, and has not caught up with the others since.
    pub cut_off: bool,
    /// Whom it is linked with: nodes that see each other may start a cluster together.
    pub links: Vec<NodeId>,
    /// Members that were missing when the cluster last started from disks, and are still: an AoR unknown here may be theirs.
    pub missing: Vec<NodeId>,
    /// Members that it remembers.
    pub last_known: Vec<LastKnown>,
}

/// A member as others remember it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastKnown {
    /// The node.
    pub node: NodeId,
    /// The longest lifetime it granted, seconds.
    pub expires_max_s: u32,
    /// Cluster time at which it was last linked somewhere, µs.
    pub seen_us: u64,
}

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PeerState {
    /// Not in sync (any more): serves nobody, receives everything.
    Joining,
    /// In sync: serves.
    Ready,
    /// In sync, about to leave.
    Draining,
    /// Gone, with nothing that others lack.
    Left,
}

impl PeerState {
    /// Whether it holds what all that serve have answered for.
    #[must_use]
    pub fn is_in_sync(self) -> bool {
        matches!(self, Self::Ready | Self::Draining)
    }
}

/// Why a subscriber must start over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RejoinReason {
    /// It left changes unacked for too long.
    Suspect,
    /// It fell so far behind that changes it lacks are no longer kept.
    Overflow,
}

/// Why an exchange cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefuseReason {
    /// More exchanges are under way than the answerer allows.
    Busy,
    /// A floor or an answer that makes no sense.
    Nonsense,
    /// The answerer does not know this exchange (any more).
    Unknown,
}

/// Buckets in question: `first`, and `more` after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first bucket.
    pub first: u16,
    /// How many follow it.
    pub more: u16,
}

/// What one bucket holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buckets {
    /// The bucket.
    pub bucket: u16,
    /// Its entries.
    pub items: Vec<Listed>,
}

pub(super) fn check_indexes(level: u8, indexes: &[u16]) -> Result<(), FrameError> {
    debug_assert_eq!(LEAF_LEVEL, 4, "indexes travel as u16");
    let end = digest::width(level).ok_or(FrameError::Range("level of the digest tree"))?;
    let fits = indexes.iter().all(|&index| u32::from(index) < end);
    let ascending = indexes.windows(2).all(|pair| pair.first() < pair.last());
    if fits && ascending { Ok(()) } else { Err(FrameError::Range("index in the digest tree")) }
}

/// Spans ascend without overlap and end inside the tree; listed buckets ascend and lie in a span.
pub(super) fn check_lists(spans: &[Span], have: &[Buckets]) -> Result<(), FrameError> {
    let mut after = 0u32;
    for span in spans {
        let first = u32::from(span.first);
        let end = first + u32::from(span.more) + 1;
        if first < after || end > digest::BUCKETS {
            return Err(FrameError::Range("span of buckets"));
        }
        after = end;
    }
    let mut spans = spans.iter();
    let mut span = spans.next();
    let mut last = None;
    for listed in have {
        if last.is_some_and(|last| last >= listed.bucket) {
            return Err(FrameError::Range("order of listed buckets"));
        }
        last = Some(listed.bucket);
        while span.is_some_and(|span| u32::from(span.first) + u32::from(span.more) < u32::from(listed.bucket)) {
            span = spans.next();
        }
        if span.is_none_or(|span| span.first > listed.bucket) {
            return Err(FrameError::Range("listed bucket"));
        }
    }
    Ok(())
}
