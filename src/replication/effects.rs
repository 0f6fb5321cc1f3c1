//! What the caller must do after it told replication something. Nothing here acts by itself.

use aorta_proto::NodeId;
use aorta_proto::frame::Class;

use crate::location::Room;

/// Everything a call brought about. Dropping it loses replies and leaves links asleep.
#[must_use = "replies and wake-ups are in here"]
#[derive(Debug)]
pub struct Effects<R> {
    /// Links whose writer should pull again.
    pub wake: Vec<(NodeId, Class)>,
    /// Replies that may go out.
    pub released: Vec<Released<R>>,
    /// What happened, for logs and metrics.
    pub events: Vec<Event>,
    /// How long changes took from their publication at a peer to this table, µs: the oldest of each frame.
    pub lags: Vec<(NodeId, u64)>,
    /// What gossip says about this node changed: see [`super::Replication::gossip`].
    pub gossip_changed: bool,
    /// The members to remember on disk changed: see [`super::Replication::last_known`].
    pub last_known_changed: bool,
    /// Somebody waits for a commit: see [`super::Replication::begin_commit`]. Said once for each commit that is begun.
    pub commit_due: bool,
}

impl<R> Default for Effects<R> {
    fn default() -> Self {
        Self {
            wake: Vec::new(),
            released: Vec::new(),
            events: Vec::new(),
            lags: Vec::new(),
            gossip_changed: false,
            last_known_changed: false,
            commit_due: false,
        }
    }
}

impl<R> Effects<R> {
    /// Adds what a later call brought about.
    pub fn append(&mut self, mut later: Self) {
        self.wake.append(&mut later.wake);
        self.released.append(&mut later.released);
        self.events.append(&mut later.events);
        self.lags.append(&mut later.lags);
        self.gossip_changed |= later.gossip_changed;
        self.last_known_changed |= later.last_known_changed;
        self.commit_due |= later.commit_due;
    }
}

/// A reply that may go out.
#[derive(Debug, PartialEq, Eq)]
pub struct Released<R> {
    /// What was handed to `publish`.
    pub reply: R,
    /// Fewer nodes hold the change than were asked to.
    pub short: bool,
    /// Nodes that had acked when it was released.
    pub got: usize,
    /// Nodes in the ack set when it was published.
    pub asked: usize,
}

/// Why an exchange is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// To become ready.
    Join,
    /// To gather what the nodes of a cold start hold.
    ColdStart,
    /// Something is known to be amiss: one look.
    Repair,
    /// Routine: two looks.
    Routine,
    /// To leave nothing behind that others lack.
    Drain,
}

/// What an exchange moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes of frames received.
    pub bytes_in: u64,
    /// Bytes of frames sent.
    pub bytes_out: u64,
    /// Partial records received.
    pub records_in: u64,
    /// Entries that the other side asked for.
    pub entries_out: u64,
    /// Buckets that differed.
    pub buckets: u64,
}

/// What happened, in words an operator knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This node serves from now on.
    Ready,
    /// This node stopped serving and rejoins.
    Fenced {
        /// Why.
        why: String,
    },
    /// Cluster time was set for the first time, µs.
    ClockSet {
        /// To what.
        cluster_us: u64,
    },
    /// Cluster time was moved forward by more than a second, µs.
    ClockMoved {
        /// Who said so.
        peer: NodeId,
        /// By how much.
        by_us: u64,
    },
    /// A peer left a change unacked for too long, or was dropped from membership.
    Suspect {
        /// Which.
        peer: NodeId,
        /// Why.
        why: &'static str,
    },
    /// A suspect acked everything and is awaited again.
    Trusted {
        /// Which.
        peer: NodeId,
    },
    /// A disk did not have a change in time that a reply waited for, this node's or a peer's: replies leave short.
    DiskLate {
        /// Whose.
        node: NodeId,
    },
    /// That disk has caught up; replies wait for it again.
    DiskCaughtUp {
        /// Whose.
        node: NodeId,
    },
    /// A peer fell behind what is kept for it.
    Overflow {
        /// Which.
        peer: NodeId,
    },
    /// A peer said good-bye, or an operator forgot it.
    Parted {
        /// Which.
        peer: NodeId,
    },
    /// An exchange ended well.
    ExchangeDone {
        /// With whom.
        peer: NodeId,
        /// What for.
        purpose: Purpose,
        /// What it moved.
        moved: Moved,
    },
    /// An exchange broke off; another donor is tried.
    ExchangeFailed {
        /// With whom.
        peer: NodeId,
        /// What for.
        purpose: Purpose,
        /// Why.
        why: String,
    },
    /// Changes whose stamps lie too far ahead were refused.
    StampAhead {
        /// Who sent them.
        peer: NodeId,
        /// How many.
        count: u64,
    },
    /// Two values under one stamp: a bug somewhere, resolved the same way everywhere.
    Conflict {
        /// Who sent the other value.
        peer: NodeId,
        /// How many.
        count: u64,
    },
    /// A peer speaks no wire version that this node speaks, or sent a frame of one that this node does not read.
    VersionRefused {
        /// Which.
        peer: NodeId,
        /// Both sides' versions, in words.
        why: String,
    },
    /// The memory of the nodes has room for other AoRs than before.
    Room {
        /// For which.
        room: Room,
        /// Whose memory is full, this node's included.
        full: Vec<NodeId>,
    },
    /// A change is larger than a frame and was not published.
    TooLarge {
        /// Bytes.
        bytes: usize,
    },
    /// Draining is over: nothing is left that others lack. Say good-bye with [`super::Replication::leave`].
    Drained,
    /// Draining did not finish in time.
    DrainTimeout {
        /// Entries that, as far as known, only this node holds.
        only_here: u64,
    },
}
