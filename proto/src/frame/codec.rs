//! Frames to bytes and back. What each kind means is in [`super::Frame`].

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::messages::{self, Buckets, Span};
use super::packed;
use super::{
    BODY_BYTES_MAX, Envelope, FRAME_BYTES_MAX, Frame, FrameError, HEADER_BYTES, Header, RECORDS_SINCE, SAVED_SINCE,
    WAITED_SINCE,
};

pub(super) type Codec = Configuration<LittleEndian, Varint, Limit<BODY_BYTES_MAX>>;

pub(super) fn codec() -> Codec {
    bincode::config::standard().with_limit::<BODY_BYTES_MAX>()
}

/// Kind bytes; those from `BEGIN` on travel in [`super::Class::Bulk`].
pub(super) mod kind {
    pub(in crate::frame) const HELLO: u8 = 1;
    pub(in crate::frame) const SUBSCRIBE: u8 = 2;
    pub(in crate::frame) const BACKLOG: u8 = 3;
    pub(in crate::frame) const DELTAS: u8 = 4;
    pub(in crate::frame) const MARK: u8 = 5;
    pub(in crate::frame) const ACK: u8 = 6;
    pub(in crate::frame) const STATE: u8 = 7;
    pub(in crate::frame) const REJOIN: u8 = 8;
    pub(in crate::frame) const PING: u8 = 9;
    pub(in crate::frame) const PONG: u8 = 10;
    pub(in crate::frame) const FORGET: u8 = 11;
    pub(in crate::frame) const BYE: u8 = 12;
    pub(in crate::frame) const ASK_SAVED: u8 = 13;
    pub(in crate::frame) const SAVED: u8 = 14;
    pub(in crate::frame) const BEGIN: u8 = 32;
    pub(in crate::frame) const ROOT: u8 = 33;
    pub(in crate::frame) const ASK: u8 = 34;
    pub(in crate::frame) const SUMS: u8 = 35;
    pub(in crate::frame) const LISTS: u8 = 36;
    pub(in crate::frame) const ENTRIES: u8 = 37;
    pub(in crate::frame) const WANT: u8 = 38;
    pub(in crate::frame) const DONE: u8 = 39;
    pub(in crate::frame) const REFUSE: u8 = 40;
    pub(in crate::frame) const RECORDS: u8 = 41;
}

/// Who does not know yet what the other side reads says Hello in this version.
const HELLO_VERSION: u8 = 1;

/// A sum travels as its 16 bytes: as a varint it would cost 17.
type SumBytes = [u8; 16];

impl<'a> Frame<'a> {
    /// Reads one whole frame of a version up to `version_max`: header, body and nothing after it.
    ///
    /// # Errors
    /// Whatever is not exactly one frame of such a version; no input panics.
    pub fn decode(bytes: &'a [u8], version_max: u8) -> Result<(Header, Self), FrameError> {
        let header = Header::read(bytes)?.ok_or(FrameError::Short)?;
        if header.version > version_max {
            return Err(FrameError::Version { theirs: header.version, ours: version_max });
        }
        let body = bytes.get(HEADER_BYTES..).ok_or(FrameError::Short)?;
        if body.len() < header.body_bytes {
            return Err(FrameError::Short);
        }
        if body.len() > header.body_bytes {
            return Err(FrameError::Trailing(body.len() - header.body_bytes));
        }
        Ok((header, Self::decode_body(header, body)?))
    }

    fn decode_body(header: Header, body: &'a [u8]) -> Result<Self, FrameError> {
        let kind = header.kind;
        Ok(match kind {
            kind::HELLO => Frame::Hello(read(kind, body)?),
            kind::SUBSCRIBE => Frame::Subscribe { epoch: read(kind, body)? },
            kind::BACKLOG => {
                let (epoch, first_seq) = read(kind, body)?;
                Frame::Backlog { epoch, first_seq }
            }
            kind::DELTAS => {
                if header.version < WAITED_SINCE {
                    let ((epoch, first_seq), changes) = packed::split(kind, body)?;
                    return Ok(Frame::Deltas { epoch, first_seq, waited_us: None, changes });
                }
                let ((epoch, first_seq, waited_us), changes) = packed::split(kind, body)?;
                Frame::Deltas { epoch, first_seq, waited_us: Some(waited_us), changes }
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
            kind::ASK_SAVED | kind::SAVED if header.version < SAVED_SINCE => return Err(FrameError::Kind(kind)),
            kind::ASK_SAVED if body.is_empty() => Frame::AskSaved,
            kind::BYE | kind::ASK_SAVED => return Err(FrameError::Trailing(body.len())),
            kind::SAVED => {
                let (epoch, seq) = read(kind, body)?;
                Frame::Saved { epoch, seq }
            }
            kind::RECORDS if header.version < RECORDS_SINCE => return Err(FrameError::Kind(kind)),
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
            kind::RECORDS => {
                let ((id, batch), records) = packed::headed(kind, body)?;
                Frame::Records { id, batch, records }
            }
            other => return Err(FrameError::Kind(other)),
        })
    }

    /// Appends this frame to `out`; of its fields, those that the version to write has. On an error `out` is as it was.
    ///
    /// # Errors
    /// When it would be longer than [`FRAME_BYTES_MAX`].
    pub fn encode(&self, envelope: Envelope, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let start = out.len();
        let written = match self {
            Frame::Hello(hello) => write(kind::HELLO, hello, envelope, out),
            Frame::Subscribe { epoch } => write(kind::SUBSCRIBE, epoch, envelope, out),
            Frame::Backlog { epoch, first_seq } => write(kind::BACKLOG, &(epoch, first_seq), envelope, out),
            Frame::Deltas { epoch, first_seq, changes, .. } if envelope.version < WAITED_SINCE => {
                write_with(kind::DELTAS, &(epoch, first_seq), changes.as_bytes(), envelope, out)
            }
            Frame::Deltas { epoch, first_seq, waited_us, changes } => {
                let head = (epoch, first_seq, waited_us.unwrap_or_default());
                write_with(kind::DELTAS, &head, changes.as_bytes(), envelope, out)
            }
            Frame::Mark { epoch } => write(kind::MARK, epoch, envelope, out),
            Frame::Ack { epoch, seq } => write(kind::ACK, &(epoch, seq), envelope, out),
            Frame::State(state) => write(kind::STATE, state, envelope, out),
            Frame::Rejoin { epoch, why } => write(kind::REJOIN, &(epoch, why), envelope, out),
            Frame::Ping { nonce } => write(kind::PING, nonce, envelope, out),
            Frame::Pong { nonce } => write(kind::PONG, nonce, envelope, out),
            Frame::Forget { node } => write(kind::FORGET, node, envelope, out),
            Frame::Bye => {
                begin(kind::BYE, envelope, out);
                finish(start, out)
            }
            Frame::AskSaved if envelope.version < SAVED_SINCE => Err(FrameError::Kind(kind::ASK_SAVED)),
            Frame::Saved { .. } if envelope.version < SAVED_SINCE => Err(FrameError::Kind(kind::SAVED)),
            Frame::AskSaved => {
                begin(kind::ASK_SAVED, envelope, out);
                finish(start, out)
            }
            Frame::Saved { epoch, seq } => write(kind::SAVED, &(epoch, seq), envelope, out),
            Frame::Begin { id, floor_us } => write(kind::BEGIN, &(id, floor_us), envelope, out),
            Frame::Root { id, floor_us, root } => write(kind::ROOT, &(id, floor_us, root.to_le_bytes()), envelope, out),
            Frame::Ask { id, level, indexes } => write(kind::ASK, &(id, level, indexes), envelope, out),
            Frame::Sums { id, sums } => {
                let sums: Vec<SumBytes> = sums.iter().map(|sum| sum.to_le_bytes()).collect();
                write(kind::SUMS, &(id, sums), envelope, out)
            }
            Frame::Lists { id, batch, spans, have } => write(kind::LISTS, &(id, batch, spans, have), envelope, out),
            Frame::Entries { id, batch, last, changes } => {
                write_with(kind::ENTRIES, &(id, batch, last), changes.as_bytes(), envelope, out)
            }
            Frame::Want { id, batch, buckets } => write(kind::WANT, &(id, batch, buckets), envelope, out),
            Frame::Done { id, batch } => write(kind::DONE, &(id, batch), envelope, out),
            Frame::Refuse { id, why } => write(kind::REFUSE, &(id, why), envelope, out),
            Frame::Records { .. } if envelope.version < RECORDS_SINCE => Err(FrameError::Kind(kind::RECORDS)),
            Frame::Records { id, batch, records } => write_with(kind::RECORDS, &(id, batch), records, envelope, out),
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
    waited_us: u64,
    changes: impl Iterator<Item = &'c [u8]>,
    bytes_max: usize,
    envelope: Envelope,
    out: &mut Vec<u8>,
) -> usize {
    if envelope.version < WAITED_SINCE {
        return encode_many(kind::DELTAS, &(epoch, first_seq), changes, bytes_max, envelope, out);
    }
    encode_many(kind::DELTAS, &(epoch, first_seq, waited_us), changes, bytes_max, envelope, out)
}

/// Appends a [`Frame::Entries`] in the same way.
pub fn encode_entries<'c>(
    head: (u64, u32, bool),
    changes: impl Iterator<Item = &'c [u8]>,
    bytes_max: usize,
    envelope: Envelope,
    out: &mut Vec<u8>,
) -> usize {
    encode_many(kind::ENTRIES, &head, changes, bytes_max, envelope, out)
}

fn encode_many<'c, H: Serialize>(
    kind: u8,
    head: &H,
    changes: impl Iterator<Item = &'c [u8]>,
    bytes_max: usize,
    envelope: Envelope,
    out: &mut Vec<u8>,
) -> usize {
    let start = out.len();
    begin(kind, envelope, out);
    // A few integers: far below the limit, so this cannot fail; an empty body would be refused by the other side.
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

fn begin(kind: u8, envelope: Envelope, out: &mut Vec<u8>) {
    let version = if kind == kind::HELLO { HELLO_VERSION } else { envelope.version };
    out.extend_from_slice(&[version, kind, 0, 0, 0, 0]);
    out.extend_from_slice(&envelope.sent_us.to_le_bytes());
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

fn write<T: Serialize>(kind: u8, body: &T, envelope: Envelope, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    begin(kind, envelope, out);
    bincode::serde::encode_into_std_write(body, out, codec())
        .map_err(|error| FrameError::Body { kind, why: error.to_string() })?;
    finish(start, out)
}

/// A head, and bytes that are what they are.
fn write_with<H: Serialize>(
    kind: u8,
    head: &H,
    rest: &[u8],
    envelope: Envelope,
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    let start = out.len();
    begin(kind, envelope, out);
    bincode::serde::encode_into_std_write(head, out, codec())
        .map_err(|error| FrameError::Body { kind, why: error.to_string() })?;
    out.extend_from_slice(rest);
    finish(start, out)
}
