//! Changes in a row, each already encoded: a length `u32` (little-endian) and that many bytes of (AoR, partial record).
//! The framing is checked when the frame is read; each change is decoded only when it is asked for.

use std::cell::RefCell;

use bincode::error::DecodeError;
use serde::de::DeserializeOwned;
use smallvec::{SmallVec, smallvec};

use super::codec::codec;
use super::{BODY_BYTES_MAX, FrameError};
use crate::aor::{AOR_BYTES_MAX, Aor};
use crate::record::{Cleared, Record, Refresh};

/// Bytes of the length before each change.
pub(super) const LENGTH_BYTES: usize = 4;

/// The largest encoded change, bytes: it must fit in a frame beside the other fields.
pub const CHANGE_BYTES_MAX: usize = BODY_BYTES_MAX - 64;

/// Encoded changes, borrowed from a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Packed<'a> {
    /// Checks that `bytes` are whole changes.
    ///
    /// # Errors
    /// A length that points beyond the end, or an empty change.
    pub fn new(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let mut count = 0;
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = next(rest).ok_or(FrameError::Short)?.1;
            count += 1;
        }
        Ok(Self { bytes, count })
    }

    /// How many changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each change, still encoded.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let (change, after) = next(rest)?;
            rest = after;
            Some(change)
        })
    }

    pub(super) fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

fn next(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 { None } else { rest.split_at_checked(length) }
}

/// Appends one encoded change.
pub fn push(change: &[u8], out: &mut Vec<u8>) {
    // A change is at most CHANGE_BYTES_MAX long, see `append_change`.
    let length = u32::try_from(change.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(change);
}

/// A record whose encoding is longer than this travels as several changes, bytes: a frame then holds one of them and
/// something else, and a link is never busy for long with one.
const CHANGE_BYTES_SOFT: usize = 48 * 1024;

/// The lengths of a record's changes, one behind the other: one, mostly.
pub type Lengths = SmallVec<[usize; 1]>;

/// Appends a record's encoding to `out`: as one change, or split at entries into several where it would be large: merging is
/// the same.
///
/// # Errors
/// When a single entry is longer than [`CHANGE_BYTES_MAX`]; nothing is appended then.
pub fn append_changes(aor: &Aor, record: &Record, out: &mut Vec<u8>) -> Result<Lengths, FrameError> {
    append_text_changes(aor.as_str(), record, out)
}

fn append_text_changes(aor: &str, record: &Record, out: &mut Vec<u8>) -> Result<Lengths, FrameError> {
    let start = out.len();
    let appended = if record.encoded_bytes_max() <= CHANGE_BYTES_SOFT {
        append_change(aor, record, out).map(|length| smallvec![length])
    } else {
        record.split(CHANGE_BYTES_SOFT).iter().map(|part| append_change(aor, part, out)).collect()
    };
    if appended.is_err() {
        out.truncate(start);
    }
    appended
}

fn append_change(aor: &str, record: &Record, out: &mut Vec<u8>) -> Result<usize, FrameError> {
    let length = bincode::serde::encode_into_std_write((aor, record), out, codec())
        .map_err(|error| FrameError::Body { kind: 0, why: error.to_string() })?;
    if length <= CHANGE_BYTES_MAX { Ok(length) } else { Err(FrameError::TooLong(length)) }
}

/// A record's encoding as [`append_changes`] has it, each change by itself; the AoR is given in its canonical text.
///
/// # Errors
/// As [`append_changes`].
pub fn encode_changes(aor: &str, record: &Record) -> Result<Vec<Box<[u8]>>, FrameError> {
    ENCODED.with_borrow_mut(|bytes| {
        bytes.clear();
        bytes.shrink_to(2 * CHANGE_BYTES_SOFT);
        let lengths = append_text_changes(aor, record, bytes)?;
        Ok(each(&mut bytes.as_slice(), &lengths).map(Box::from).collect())
    })
}

/// Takes changes of these lengths off, one behind the other.
pub fn each<'a>(bytes: &mut &'a [u8], lengths: &[usize]) -> impl Iterator<Item = &'a [u8]> {
    lengths.iter().map_while(|length| bytes.split_off(..*length))
}

thread_local! {
    /// Where changes are encoded before their length is known.
    static ENCODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Decodes one change: the canonical text of its AoR, where it lies, and what is said of it.
///
/// # Errors
/// Whatever is not exactly one change, or an AoR that is empty or longer than [`AOR_BYTES_MAX`].
pub fn decode_change(bytes: &[u8]) -> Result<(&str, Record), FrameError> {
    let (aor, used) = decode_aor(bytes)?;
    let rest = bytes.get(used..).unwrap_or_default();
    let (record, used) = bincode::serde::decode_from_slice(rest, codec()).map_err(no_change)?;
    if used != rest.len() {
        return Err(FrameError::Trailing(rest.len() - used));
    }
    Ok((aor, record))
}

/// Whose change it is: no more of it is read.
///
/// # Errors
/// As [`decode_change`], of what it begins with.
pub fn change_aor(bytes: &[u8]) -> Result<&str, FrameError> {
    decode_aor(bytes).map(|(aor, _)| aor)
}

/// The AoR that a change begins with, and how many bytes that takes.
fn decode_aor(bytes: &[u8]) -> Result<(&str, usize), FrameError> {
    let (aor, used): (&str, usize) = bincode::serde::borrow_decode_from_slice(bytes, codec()).map_err(no_change)?;
    if (1..=AOR_BYTES_MAX).contains(&aor.len()) { Ok((aor, used)) } else { Err(FrameError::Range("length of an AoR")) }
}

#[expect(clippy::needless_pass_by_value, reason = "as an error is mapped")]
fn no_change(error: DecodeError) -> FrameError {
    FrameError::Body { kind: 0, why: error.to_string() }
}

/// Reads a change that is a [`Refresh`] of an AoR, where it lies; `None` for any other, and for what [`decode_change`] refuses.
#[must_use]
pub fn decode_refresh(bytes: &[u8]) -> Option<(&str, Refresh<'_>)> {
    let (aor, used) = decode_aor(bytes).ok()?;
    let rest = bytes.get(used..)?;
    // What was cleared, how many entries; then the one.
    let ((None, 1), used): ((Option<Cleared>, u64), usize) =
        bincode::serde::borrow_decode_from_slice(rest, codec()).ok()?
    else {
        return None;
    };
    let rest = rest.get(used..)?;
    let (refresh, used) = bincode::serde::borrow_decode_from_slice(rest, codec()).ok()?;
    (used == rest.len()).then_some((aor, refresh))
}

/// Splits a body into its head and the changes after it.
pub(super) fn split<H: DeserializeOwned>(kind: u8, body: &[u8]) -> Result<(H, Packed<'_>), FrameError> {
    let (head, rest) = headed(kind, body)?;
    Ok((head, Packed::new(rest)?))
}

/// Splits a body into its head and what comes after it.
pub(super) fn headed<H: DeserializeOwned>(kind: u8, body: &[u8]) -> Result<(H, &[u8]), FrameError> {
    let (head, used) = bincode::serde::decode_from_slice(body, codec())
        .map_err(|error| FrameError::Body { kind, why: error.to_string() })?;
    Ok((head, body.get(used..).unwrap_or_default()))
}
