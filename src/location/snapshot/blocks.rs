//! Records as they lie in the database: in blocks, each written once and never changed. An AoR may be in several, for each
//! save writes what changed since the one before; reading merges them, in whatever order, and what the law makes of several
//! states of a record is the latest.
//!
//! Of an AoR that was forgotten nothing is written. What older blocks hold of it lies below the floor, and so comes to
//! nothing, until they go.
//!
//! **2026-11, blocks.** A database value for each AoR cost 8 µs of processor a record, for a tree was walked and a page
//! linked for each; the price of a block of [`RECORDS_MAX`] does not grow with the table.

use aorta_proto::{Aor, Record};

use super::value::{self, ValueError};

/// Records in one block.
pub(super) const RECORDS_MAX: usize = 32;

/// A block is closed when it has grown to this, bytes: sled keeps up to nine in a page in memory, and makes a file of its own
/// of a page above 128 KiB, whose making costs more than the writing.
const BLOCK_BYTES: usize = 12 << 10;

/// What precedes an AoR and its value: their lengths, little-endian.
const AOR_LENGTH_BYTES: usize = 2;
const VALUE_LENGTH_BYTES: usize = 4;

/// A block while it is filled.
#[derive(Debug, Default)]
pub(super) struct Block {
    bytes: Vec<u8>,
    pub(super) records: usize,
}

impl Block {
    /// Adds what is known of an AoR.
    ///
    /// # Errors
    /// Whatever the codec refuses: no record that a REGISTER can make.
    pub(super) fn push(&mut self, aor: &Aor, record: &Record) -> Result<(), bincode::error::EncodeError> {
        let start = self.bytes.len();
        let name = aor.as_str().as_bytes();
        // An AoR has at most `AOR_BYTES_MAX` bytes, a record far less than 4 GiB.
        self.bytes.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.bytes.extend_from_slice(name);
        let length_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; VALUE_LENGTH_BYTES]);
        if let Err(error) = value::encode(aor, record, &mut self.bytes) {
            self.bytes.truncate(start);
            return Err(error);
        }
        let length = self.bytes.len() - length_at - VALUE_LENGTH_BYTES;
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        if let Some(place) = self.bytes.get_mut(length_at..length_at + VALUE_LENGTH_BYTES) {
            place.copy_from_slice(&length);
        }
        self.records += 1;
        Ok(())
    }

    /// Makes room for the next one.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.records = 0;
    }

    /// Whether it is to be closed.
    pub(super) fn is_full(&self) -> bool {
        self.records >= RECORDS_MAX || self.bytes.len() >= BLOCK_BYTES
    }

    /// Its bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a block held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Records, damaged ones too.
    pub(super) records: usize,
    /// Records that were damaged; the rest of a block whose lengths are damaged counts as one.
    pub(super) damaged: usize,
    /// Records of a newer aorta.
    pub(super) newer: usize,
}

impl Held {
    /// Notes a record that could not be read.
    pub(super) fn note(&mut self, error: ValueError) {
        match error {
            ValueError::Version(_) => self.newer += 1,
            ValueError::Damaged => self.damaged += 1,
        }
    }
}

/// Gives every record of a block.
pub(super) fn read(block: &[u8], mut found: impl FnMut(&Aor, Record)) -> Held {
    let mut held = Held::default();
    let mut rest = block;
    while !rest.is_empty() {
        let Some((name, value, after)) = next(rest) else {
            held.damaged += 1;
            return held;
        };
        rest = after;
        held.records += 1;
        match read_record(name, value) {
            Ok((aor, record)) => found(&aor, record),
            Err(error) => held.note(error),
        }
    }
    held
}

/// A record and the AoR that it lies under.
///
/// # Errors
/// [`ValueError`]: what was not written so, or by a newer version.
pub(super) fn read_record(name: &[u8], value: &[u8]) -> Result<(Aor, Record), ValueError> {
    let aor = Aor::from_canonical(std::str::from_utf8(name).map_err(|_| ValueError::Damaged)?);
    let record = value::decode(&aor, value)?;
    Ok((aor, record))
}

fn next(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<AOR_LENGTH_BYTES>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let (length, rest) = rest.split_first_chunk::<VALUE_LENGTH_BYTES>()?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((name, value, rest))
}
