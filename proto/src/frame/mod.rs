//! What two nodes say: every message, its codec and its limits. Decides nothing about when a message is due.
//!
//! A frame is a header of [`HEADER_BYTES`] and a body. Header: version `u8`, kind `u8`, body length `u32`, the sender's
//! cluster time `u64` in µs (0 = not yet known), all little-endian, the same in every version. The body is bincode 2
//! (`standard`, with a limit) for all kinds but [`Frame::Deltas`] and [`Frame::Entries`], which carry changes already
//! encoded (see [`packed`]), so that a change is encoded once for all peers, and [`Frame::Records`]. Every byte must be consumed.
//!
//! A node reads every version up to its own highest and writes the highest that all members read. Version 2 adds
//! [`Frame::Deltas::waited_us`], [`Frame::AskSaved`] and [`Frame::Saved`], version 3 [`Frame::Records`]. A Hello, which says what
//! its sender reads, is of version 1 for ever.
//!
//! Frames travel on two connections ([`Class`]): what a phone waits for must not queue behind a table being copied.

mod codec;
mod messages;
pub mod packed;

pub use codec::{encode_deltas, encode_entries};
pub use messages::{Buckets, Hello, LastKnown, PeerState, RefuseReason, RejoinReason, Span, State};
pub use packed::{Lengths, Packed, append_changes, change_aor, decode_change, decode_refresh, encode_changes};

use crate::stamp::NodeId;

/// The lowest wire version that this crate reads.
pub const VERSION_MIN: u8 = 1;

/// The highest wire version that this crate reads and writes. The feature `wire-v2` makes a build of the one before.
pub const VERSION_MAX: u8 = if cfg!(feature = "wire-v2") { 2 } else { 3 };

/// The version that added [`Frame::Deltas::waited_us`].
const WAITED_SINCE: u8 = 2;

/// The version that added [`Frame::AskSaved`] and [`Frame::Saved`].
pub const SAVED_SINCE: u8 = 2;

/// The version that added [`Frame::Records`]. Who keeps records in another way than this build says [`Frame::Entries`] in version 3.
pub const RECORDS_SINCE: u8 = 3;

/// The largest frame, bytes, header included. Holds the largest single contact that a 65 535-byte SIP message can make
/// (its URI counts twice: as key and as itself) with room to spare; small enough that a frame is sent within 2 s at 1 Mbit/s.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// Bytes before the body.
pub const HEADER_BYTES: usize = 14;

/// The largest body, bytes.
const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_BYTES;

/// Which of the two connections of a link a frame travels on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Changes, acks and what a link says about itself: small, a phone may be waiting.
    Live,
    /// Exchanges: digest tree, lists, entries.
    Bulk,
}

/// Bytes that are no frame, or a frame that cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The version byte is above what the reader reads, or 0.
    #[error("frame of wire version {theirs}, this node reads {VERSION_MIN} to {ours}")]
    Version {
        /// The frame's.
        theirs: u8,
        /// The reader's highest.
        ours: u8,
    },
    /// The kind byte names no frame of this version.
    #[error("frame of unknown kind {0}")]
    Kind(u8),
    /// Longer than a frame may be, in bytes.
    #[error("frame of {0} bytes, at most {FRAME_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// Shorter than it says.
    #[error("frame is cut short")]
    Short,
    /// Bytes are left after the last field.
    #[error("{0} bytes are left over after the frame's last field")]
    Trailing(usize),
    /// The body is not what its kind says.
    #[error("frame of kind {kind} does not decode: {why}")]
    Body {
        /// The kind byte.
        kind: u8,
        /// What the codec says.
        why: String,
    },
    /// A level, bucket or count outside the tree or of a length that its question did not ask for.
    #[error("{0} is out of range")]
    Range(&'static str),
}

/// Everything one node says to another.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame<'a> {
    /// First on each connection: who speaks.
    Hello(Hello),
    /// "Send me your changes from now on, and await my acks": opens an epoch, first thing on each link and at each rejoin.
    Subscribe {
        /// The subscriber's epoch; rises at each rejoin.
        epoch: u64,
    },
    /// Answer to `Subscribe`: the changes of this epoch start here.
    Backlog {
        /// The subscriber's epoch.
        epoch: u64,
        /// Number of the next change that is sent.
        first_seq: u64,
    },
    /// Changes, in the order in which they were published.
    Deltas {
        /// The subscriber's epoch.
        epoch: u64,
        /// Number of the first change; the others follow without a gap.
        first_seq: u64,
        /// How long the oldest of them, the first, had been published at its origin, the sender, when this frame was
        /// written, µs: the header's time less this is the cluster time of its publication. `None` in version 1.
        waited_us: Option<u64>,
        /// The changes.
        changes: Packed<'a>,
    },
    /// All that was published before `Subscribe` arrived has been sent.
    Mark {
        /// The subscriber's epoch.
        epoch: u64,
    },
    /// All changes of this epoch up to `seq` are in the acker's table.
    Ack {
        /// The acker's epoch.
        epoch: u64,
        /// Number of the last change merged.
        seq: u64,
    },
    /// What the sender is and has; at link-up and at each change.
    State(State),
    /// The receiver did not keep up and must start over with a new epoch.
    Rejoin {
        /// The epoch that is over; a receiver that has moved on ignores this.
        epoch: u64,
        /// Why.
        why: RejoinReason,
    },
    /// Are you there?
    Ping {
        /// Comes back in the Pong.
        nonce: u64,
    },
    /// Here I am.
    Pong {
        /// The Ping's.
        nonce: u64,
    },
    /// An operator says that this node is gone for good: nobody waits for it any more.
    Forget {
        /// Which.
        node: NodeId,
    },
    /// Good-bye: everything the sender has, others have.
    Bye,
    /// "Tell me what of my changes is on your disk, and put it there without delay": of all changes that follow on this
    /// connection.
    AskSaved,
    /// All changes of this epoch up to `seq` are on the sender's disk.
    Saved {
        /// The sender's epoch.
        epoch: u64,
        /// Number of the last such change.
        seq: u64,
    },
    /// Opens an exchange.
    Begin {
        /// Chosen by the one who opens, unique on its side.
        id: u64,
        /// The opener's forgetting floor, µs of cluster time.
        floor_us: u64,
    },
    /// Answer to `Begin`.
    Root {
        /// The exchange.
        id: u64,
        /// The answerer's floor, µs of cluster time.
        floor_us: u64,
        /// Its digest root.
        root: u128,
    },
    /// Asks for sums of the digest tree.
    Ask {
        /// The exchange.
        id: u64,
        /// Level of the tree, 1–4.
        level: u8,
        /// Which, ascending.
        indexes: Vec<u16>,
    },
    /// Answer to `Ask`: as many sums, in its order.
    Sums {
        /// The exchange.
        id: u64,
        /// The sums.
        sums: Vec<u128>,
    },
    /// What the opener has in buckets that differ. Buckets in a span that are not listed are empty there.
    Lists {
        /// The exchange.
        id: u64,
        /// Counts the opener's questions, so that several can be under way.
        batch: u32,
        /// The buckets in question.
        spans: Vec<Span>,
        /// What the opener has in them.
        have: Vec<Buckets>,
    },
    /// Entries that the other side lacks.
    Entries {
        /// The exchange.
        id: u64,
        /// The question.
        batch: u32,
        /// Whether these are the opener's last of this batch; the answerer's last ones are followed by `Want` or `Done`.
        last: bool,
        /// Partial records.
        changes: Packed<'a>,
    },
    /// All that the answerer knows of some AoRs, of which the opener listed nothing.
    Records {
        /// The exchange.
        id: u64,
        /// The question.
        batch: u32,
        /// Records as the answerer's table keeps them, and what their words mean: nothing that this crate reads.
        records: &'a [u8],
    },
    /// Entries that the answerer lacks.
    Want {
        /// The exchange.
        id: u64,
        /// The question.
        batch: u32,
        /// Hashes of the entries.
        buckets: Vec<(u16, Vec<u64>)>,
    },
    /// The batch is settled: each side has merged what the other had.
    Done {
        /// The exchange.
        id: u64,
        /// The question.
        batch: u32,
    },
    /// The exchange cannot go on.
    Refuse {
        /// The exchange.
        id: u64,
        /// Why.
        why: RefuseReason,
    },
}

/// What a sender puts on every frame it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// The wire version to write, at most [`VERSION_MAX`]. A Hello is of version 1 whatever this says.
    pub version: u8,
    /// The sender's cluster time, µs; 0 while it has none.
    pub sent_us: u64,
}

/// The fixed part of every frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The wire version of the body.
    pub version: u8,
    /// Which frame.
    pub kind: u8,
    /// Bytes that follow.
    pub body_bytes: usize,
    /// The sender's cluster time, µs; 0 while it has none.
    pub sent_us: u64,
}

impl Header {
    /// Reads the header at the start of `bytes`, of whatever version; `None` while it is not complete.
    ///
    /// # Errors
    /// Version 0, which no node writes, or a frame longer than [`FRAME_BYTES_MAX`].
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        if bytes.first() == Some(&0) {
            return Err(FrameError::Version { theirs: 0, ours: VERSION_MAX });
        }
        let Some(&[version, kind, a, b, c, d, ref sent @ ..]) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let body_bytes = u32::from_le_bytes([a, b, c, d]) as usize;
        if body_bytes > BODY_BYTES_MAX {
            return Err(FrameError::TooLong(body_bytes.saturating_add(HEADER_BYTES)));
        }
        Ok(Some(Self { version, kind, body_bytes, sent_us: u64::from_le_bytes(*sent) }))
    }

    /// Length of the whole frame, bytes.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.body_bytes
    }

    /// Which connection such a frame belongs on.
    #[must_use]
    pub fn class(&self) -> Class {
        if self.kind < codec::kind::BEGIN { Class::Live } else { Class::Bulk }
    }
}
