//! What two nodes say: every message, its codec and its limits. Decides nothing about when a message is due.
//!
//! A frame is a header of [`HEADER_BYTES`] and a body. Header: version `u8`, kind `u8`, body length `u32`, the sender's
//! cluster time `u64` in µs (0 = not yet known), all little-endian. The body is bincode 2 (`standard`, with a limit) for
//! all kinds but [`Frame::Deltas`] and [`Frame::Entries`], which carry changes already encoded (see [`packed`]), so that
//! a change is encoded once for all peers. Every byte must be consumed.
//!
//! Frames travel on two connections ([`Class`]): what a phone waits for must not queue behind a table being copied.

mod messages;
pub mod packed;

pub use messages::{Buckets, Hello, LastKnown, PeerState, RefuseReason, RejoinReason, Span, State};
pub use packed::{Packed, decode_change, encode_changes};

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::stamp::NodeId;

/// The wire version this crate speaks and the only one it reads.
pub const VERSION: u8 = 1;

/// The largest frame, bytes, header included. Holds the largest single contact that a 65 535-byte SIP message can make
/// (its URI counts twice: as key and as itself) with room to spare; small enough that a frame is sent within 2 s at 1 Mbit/s.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// Bytes before the body.
pub const HEADER_BYTES: usize = 14;

/// The largest body, bytes.
const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_BYTES;

pub(crate) type Codec = Configuration<LittleEndian, Varint, Limit<BODY_BYTES_MAX>>;

pub(crate) fn codec() -> Codec {
    bincode::config::standard().with_limit::<BODY_BYTES_MAX>()
}

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
    /// The version byte is not ours.
    #[error("frame of version {0}, this node speaks {VERSION}")]
    Version(u8),
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

/// The fixed part of every frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which frame.
    pub kind: u8,
    /// Bytes that follow.
    pub body_bytes: usize,
    /// The sender's cluster time, µs; 0 while it has none.
    pub sent_us: u64,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` while it is not complete.
    ///
    /// # Errors
    /// Another version, or a frame longer than [`FRAME_BYTES_MAX`].
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some(&version) = bytes.first() else { return Ok(None) };
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let Some(&[_, kind, a, b, c, d, ref sent @ ..]) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let body_bytes = u32::from_le_bytes([a, b, c, d]) as usize;
        if body_bytes > BODY_BYTES_MAX {
            return Err(FrameError::TooLong(body_bytes.saturating_add(HEADER_BYTES)));
        }
        Ok(Some(Self { kind, body_bytes, sent_us: u64::from_le_bytes(*sent) }))
    }

    /// Length of the whole frame, bytes.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.body_bytes
    }

    /// Which connection such a frame belongs on.
    #[must_use]
    pub fn class(&self) -> Class {
        if self.kind < kind::BEGIN { Class::Live } else { Class::Bulk }
    }
}

/// Kind bytes; those from `BEGIN` on travel in [`Class::Bulk`].
mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const SUBSCRIBE: u8 = 2;
    pub(super) const BACKLOG: u8 = 3;
    pub(super) const DELTAS: u8 = 4;
    pub(super) const MARK: u8 = 5;
    pub(super) const ACK: u8 = 6;
    pub(super) const STATE: u8 = 7;
    pub(super) const REJOIN: u8 = 8;
    pub(super) const PING: u8 = 9;
    pub(super) const PONG: u8 = 10;
    pub(super) const FORGET: u8 = 11;
    pub(super) const BYE: u8 = 12;
    pub(super) const BEGIN: u8 = 32;
    pub(super) const ROOT: u8 = 33;
    pub(super) const ASK: u8 = 34;
    pub(super) const SUMS: u8 = 35;
    pub(super) const LISTS: u8 = 36;
    pub(super) const ENTRIES: u8 = 37;
    pub(super) const WANT: u8 = 38;
    pub(super) const DONE: u8 = 39;
    pub(super) const REFUSE: u8 = 40;
}

/// A sum travels as its 16 bytes: as a varint it would cost 17.
type SumBytes = [u8; 16];

impl<'a> Frame<'a> {
    /// Reads one whole frame: header, body and nothing after it.
    ///
    /// # Errors
    /// Whatever is not exactly one frame of this version; no input panics.
    pub fn decode(bytes: &'a [u8]) -> Result<(Header, Self), FrameError> {
        let header = Header::read(bytes)?.ok_or(FrameError::Short)?;
        let body = bytes.get(HEADER_BYTES..).ok_or(FrameError::Short)?;
        if body.len() < header.body_bytes {
            return Err(FrameError::Short);
        }
        if body.len() > header.body_bytes {
            return Err(FrameError::Trailing(body.len() - header.body_bytes));
        }
        Ok((header, Self::decode_body(header.kind, body)?))
    }

    fn decode_body(kind: u8, body: &'a [u8]) -> Result<Self, FrameError> {
        Ok(match kind {
            kind::HELLO => Frame::Hello(read(kind, body)?),
            kind::SUBSCRIBE => Frame::Subscribe { epoch: read(kind, body)? },
            kind::BACKLOG => {
                let (epoch, first_seq) = read(kind, body)?;
                Frame::Backlog { epoch, first_seq }
            }
            kind::DELTAS => {
                let ((epoch, first_seq), changes) = packed::split(kind, body)?;
                Frame::Deltas { epoch, first_seq, changes }
            }
            kind::MARK => Frame::Mark { epoch: read(kind, body)? },
            kind::ACK => {
                let (epoch, seq) = read(kind, body)?;
                Frame::Ack { epoch, seq }
            }
            kind::STATE => Frame::State(read(kind, body)?),
            kind::REJOIN => {
                let (epoch, why) = read(kind, body)?;
                Frame::Rejoin { epoch, why }
            }
            kind::PING => Frame::Ping { nonce: read(kind, body)? },
            kind::PONG => Frame::Pong { nonce: read(kind, body)? },
            kind::FORGET => Frame::Forget { node: read(kind, body)? },
            kind::BYE if body.is_empty() => Frame::Bye,
            kind::BYE => return Err(FrameError::Trailing(body.len())),
            _ => return Self::decode_bulk(kind, body),
        })
    }

    fn decode_bulk(kind: u8, body: &'a [u8]) -> Result<Self, FrameError> {
        Ok(match kind {
            kind::BEGIN => {
                let (id, floor_us) = read(kind, body)?;
                Frame::Begin { id, floor_us }
            }
            kind::ROOT => {
                let (id, floor_us, root): (u64, u64, SumBytes) = read(kind, body)?;
                Frame::Root { id, floor_us, root: u128::from_le_bytes(root) }
            }
            kind::ASK => {
                let (id, level, indexes): (u64, u8, Vec<u16>) = read(kind, body)?;
                messages::check_indexes(level, &indexes)?;
                Frame::Ask { id, level, indexes }
            }
            kind::SUMS => {
                let (id, sums): (u64, Vec<SumBytes>) = read(kind, body)?;
                Frame::Sums { id, sums: sums.into_iter().map(u128::from_le_bytes).collect() }
            }
            kind::LISTS => {
                let (id, batch, spans, have): (u64, u32, Vec<Span>, Vec<Buckets>) = read(kind, body)?;
                messages::check_lists(&spans, &have)?;
                Frame::Lists { id, batch, spans, have }
            }
            kind::ENTRIES => {
                let ((id, batch, last), changes) = packed::split(kind, body)?;
                Frame::Entries { id, batch, last, changes }
            }
            kind::WANT => {
                let (id, batch, buckets) = read(kind, body)?;
                Frame::Want { id, batch, buckets }
            }
            kind::DONE => {
                let (id, batch) = read(kind, body)?;
                Frame::Done { id, batch }
            }
            kind::REFUSE => {
                let (id, why) = read(kind, body)?;
                Frame::Refuse { id, why }
            }
            other => return Err(FrameError::Kind(other)),
        })
    }

    /// Appends this frame to `out`. `sent_us` is the sender's cluster time, 0 while it has none. On an error `out` is as
    /// it was.
    ///
    /// # Errors
    /// When it would be longer than [`FRAME_BYTES_MAX`].
    pub fn encode(&self, sent_us: u64, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let start = out.len();
        let written = match self {
            Frame::Hello(hello) => write(kind::HELLO, hello, sent_us, out),
            Frame::Subscribe { epoch } => write(kind::SUBSCRIBE, epoch, sent_us, out),
            Frame::Backlog { epoch, first_seq } => write(kind::BACKLOG, &(epoch, first_seq), sent_us, out),
            Frame::Deltas { epoch, first_seq, changes } => {
                write_packed(kind::DELTAS, &(epoch, first_seq), changes, sent_us, out)
            }
            Frame::Mark { epoch } => write(kind::MARK, epoch, sent_us, out),
            Frame::Ack { epoch, seq } => write(kind::ACK, &(epoch, seq), sent_us, out),
            Frame::State(state) => write(kind::STATE, state, sent_us, out),
            Frame::Rejoin { epoch, why } => write(kind::REJOIN, &(epoch, why), sent_us, out),
            Frame::Ping { nonce } => write(kind::PING, nonce, sent_us, out),
            Frame::Pong { nonce } => write(kind::PONG, nonce, sent_us, out),
            Frame::Forget { node } => write(kind::FORGET, node, sent_us, out),
            Frame::Bye => {
                begin(kind::BYE, sent_us, out);
                finish(start, out)
            }
            Frame::Begin { id, floor_us } => write(kind::BEGIN, &(id, floor_us), sent_us, out),
            Frame::Root { id, floor_us, root } => write(kind::ROOT, &(id, floor_us, root.to_le_bytes()), sent_us, out),
            Frame::Ask { id, level, indexes } => write(kind::ASK, &(id, level, indexes), sent_us, out),
            Frame::Sums { id, sums } => {
                let sums: Vec<SumBytes> = sums.iter().map(|sum| sum.to_le_bytes()).collect();
                write(kind::SUMS, &(id, sums), sent_us, out)
            }
            Frame::Lists { id, batch, spans, have } => write(kind::LISTS, &(id, batch, spans, have), sent_us, out),
            Frame::Entries { id, batch, last, changes } => {
                write_packed(kind::ENTRIES, &(id, batch, last), changes, sent_us, out)
            }
            Frame::Want { id, batch, buckets } => write(kind::WANT, &(id, batch, buckets), sent_us, out),
            Frame::Done { id, batch } => write(kind::DONE, &(id, batch), sent_us, out),
            Frame::Refuse { id, why } => write(kind::REFUSE, &(id, why), sent_us, out),
        };
        if written.is_err() {
            out.truncate(start);
        }
        written
    }
}

/// Appends a [`Frame::Deltas`] made of changes that are already encoded, without gathering them first. Takes as many as
/// fit in `bytes_max` (one at least) and says how many that were.
pub fn encode_deltas<'c>(
    epoch: u64,
    first_seq: u64,
    changes: impl Iterator<Item = &'c [u8]>,
    bytes_max: usize,
    sent_us: u64,
    out: &mut Vec<u8>,
) -> usize {
    encode_many(kind::DELTAS, &(epoch, first_seq), changes, bytes_max, sent_us, out)
}

/// Appends a [`Frame::Entries`] in the same way.
pub fn encode_entries<'c>(
    head: (u64, u32, bool),
    changes: impl Iterator<Item = &'c [u8]>,
    bytes_max: usize,
    sent_us: u64,
    out: &mut Vec<u8>,
) -> usize {
    encode_many(kind::ENTRIES, &head, changes, bytes_max, sent_us, out)
}

fn encode_many<'c, H: Serialize>(
    kind: u8,
    head: &H,
    changes: impl Iterator<Item = &'c [u8]>,
    bytes_max: usize,
    sent_us: u64,
    out: &mut Vec<u8>,
) -> usize {
    let start = out.len();
    begin(kind, sent_us, out);
    // Three integers: far below the limit, so this cannot fail; an empty body would be refused by the other side.
    let _ = bincode::serde::encode_into_std_write(head, out, codec());
    let mut taken = 0;
    for change in changes {
        let bytes = out.len() - start + packed::LENGTH_BYTES + change.len();
        if taken > 0 && bytes > bytes_max.min(FRAME_BYTES_MAX) {
            break;
        }
        packed::push(change, out);
        taken += 1;
    }
    let _ = finish(start, out);
    taken
}

fn read<T: DeserializeOwned>(kind: u8, body: &[u8]) -> Result<T, FrameError> {
    let (value, used) = bincode::serde::decode_from_slice(body, codec())
        .map_err(|error| FrameError::Body { kind, why: error.to_string() })?;
    if used == body.len() { Ok(value) } else { Err(FrameError::Trailing(body.len() - used)) }
}

fn begin(kind: u8, sent_us: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[VERSION, kind, 0, 0, 0, 0]);
    out.extend_from_slice(&sent_us.to_le_bytes());
}

/// Fills in the body length.
fn finish(start: usize, out: &mut [u8]) -> Result<(), FrameError> {
    let body_bytes = out.len() - start - HEADER_BYTES;
    let length = u32::try_from(body_bytes).ok().filter(|_| body_bytes <= BODY_BYTES_MAX);
    let length = length.ok_or(FrameError::TooLong(body_bytes + HEADER_BYTES))?;
    if let Some(field) = out.get_mut(start + 2..start + 6) {
        field.copy_from_slice(&length.to_le_bytes());
    }
    Ok(())
}

fn write<T: Serialize>(kind: u8, body: &T, sent_us: u64, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    begin(kind, sent_us, out);
    bincode::serde::encode_into_std_write(body, out, codec())
        .map_err(|error| FrameError::Body { kind, why: error.to_string() })?;
    finish(start, out)
}

fn write_packed<H: Serialize>(
    kind: u8,
    head: &H,
    changes: &Packed<'_>,
    sent_us: u64,
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    let start = out.len();
    begin(kind, sent_us, out);
    bincode::serde::encode_into_std_write(head, out, codec())
        .map_err(|error| FrameError::Body { kind, why: error.to_string() })?;
    out.extend_from_slice(changes.as_bytes());
    finish(start, out)
}
