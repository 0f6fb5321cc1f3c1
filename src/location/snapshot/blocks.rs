//! Records as they lie in the database: in blocks, each written once and never changed. An AoR may be in several, for each
//! save writes what changed since the one before; reading merges them, in whatever order, and what the law makes of several
//! states of a record is the latest.
//!
//! Of an AoR that was forgotten nothing is written. What older blocks hold of it lies below the floor, and so comes to
//! nothing, until they go.
//!
//! A block is `length of a name (2) · name · length of a value (4) · value`, several times or once. What is written has one
//! value without a name, and in it (`value`) a row of packed records (`packed::row`) with the glossary of their words: a block
//! is read by itself, whatever became of others.
//!
//! **2026-11, blocks.** A database value for each AoR cost 8 µs of processor a record, for a tree was walked and a page
//! linked for each; the price of a block of [`RECORDS_MAX`] does not grow with the table.
//!
//! **2026-11, packed records.** To write a record as in a frame it was unpacked under its lock, encoded, and checked by itself:
//! half of the 1.8 µs that it cost. As the table keeps it, it is copied. What its words mean could lie in the database once,
//! and a block name it: that would save the walk over each record, and make every block worthless without something that was
//! written elsewhere, at another time. An aorta that does not know them leaves such blocks where they are, and takes what
//! they held from its peers.

use aorta_proto::{Aor, Record};

use super::super::packed::{Explained, Glossary, Packed, Words, row};
use super::value::{self, SEAL_BYTES, Sealed, ValueError};

/// Records in one block.
pub(super) const RECORDS_MAX: usize = 64;

/// A block is closed when it has grown to this, bytes: sled keeps up to nine in a page in memory, and makes a file of its own
/// of a page above 128 KiB, whose making costs more than the writing.
const BLOCK_BYTES: usize = 12 << 10;

/// Bytes of the lengths of a name and of a value, little-endian.
const NAME_LENGTH_BYTES: usize = 2;
const VALUE_LENGTH_BYTES: usize = 4;

/// What precedes the records.
const HEAD_BYTES: usize = NAME_LENGTH_BYTES + VALUE_LENGTH_BYTES + SEAL_BYTES;

/// A block while it is filled.
#[derive(Default)]
pub(super) struct Block {
    /// Its head is empty until it is closed.
    bytes: Vec<u8>,
    explained: Explained,
    /// So much of it is explained.
    explained_to: usize,
    /// Explained or not.
    pub(super) records: usize,
}

impl Block {
    /// Adds what is known of an AoR: one copy, for the table is locked meanwhile. Returns whether there is room for another.
    pub(super) fn push(&mut self, packed: &Packed) -> bool {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&[0; HEAD_BYTES]);
            self.explained_to = HEAD_BYTES;
        }
        row::push(packed.told(), &mut self.bytes);
        self.records += 1;
        !self.is_full()
    }

    /// Explains the words of what was added since it was last asked. Returns how many records that is.
    pub(super) fn explain(&mut self, words: &Words) -> usize {
        let mut added = 0;
        while let Some((record, after)) = self.bytes.get(self.explained_to..).and_then(row::next) {
            let end = self.bytes.len() - after.len();
            match self.explained.add(record, words) {
                Some(()) => {
                    added += 1;
                    self.explained_to = end;
                }
                None => {
                    tracing::error!("a record could not be read for the snapshot: peers have it");
                    self.bytes.drain(self.explained_to..end);
                    self.records -= 1;
                }
            }
        }
        added
    }

    /// Whether it is to be closed.
    pub(super) fn is_full(&self) -> bool {
        self.records >= RECORDS_MAX || self.bytes.len() + self.explained.as_bytes().len() >= BLOCK_BYTES
    }

    /// Its bytes, once everything in it is explained. Nothing can be added any more until it is cleared.
    pub(super) fn close(&mut self) -> &[u8] {
        row::end(self.explained.as_bytes(), &mut self.bytes);
        if let Some((head, value)) = self.bytes.split_at_mut_checked(HEAD_BYTES - SEAL_BYTES) {
            let length = u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes();
            head[NAME_LENGTH_BYTES..].copy_from_slice(&length);
            value::seal_packed(value);
        }
        &self.bytes
    }

    /// Makes room for the next one.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.explained.clear();
        self.records = 0;
    }
}

/// What a block held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Records, damaged ones too.
    pub(super) records: usize,
    /// Values and records that were damaged; the rest of a block whose lengths are damaged counts as one.
    pub(super) damaged: usize,
    /// Values of a newer aorta.
    pub(super) newer: usize,
}

impl Held {
    /// Notes a value that could not be read.
    pub(super) fn note(&mut self, error: ValueError) {
        match error {
            ValueError::Version(_) => self.newer += 1,
            ValueError::Damaged => self.damaged += 1,
        }
    }
}

/// A record in a block.
pub(super) enum Found<'a> {
    /// As an earlier aorta wrote it.
    Record(Aor, Record),
    /// As the table of a process kept it, with what its words mean.
    Packed(&'a [u8], (&'a mut Glossary, &'a [u8])),
}

/// Gives every record of a block to `found`, which says whether it was one. `glossary` is memory that is used again.
pub(super) fn read(block: &[u8], glossary: &mut Glossary, mut found: impl FnMut(Found<'_>) -> bool) -> Held {
    let mut held = Held::default();
    let mut rest = block;
    while !rest.is_empty() {
        let Some((name, value, after)) = next(rest) else {
            held.damaged += 1;
            return held;
        };
        rest = after;
        match value::unseal(name, value) {
            Ok(Sealed::Packed(body)) => read_packed(body, glossary, &mut held, &mut found),
            Ok(Sealed::Record(record)) => {
                held.records += 1;
                let aor = std::str::from_utf8(name).map(Aor::from_canonical);
                let was_one = aor.is_ok_and(|aor| found(Found::Record(aor, record)));
                held.damaged += usize::from(!was_one);
            }
            Err(error) => {
                held.records += 1;
                held.note(error);
            }
        }
    }
    held
}

fn read_packed(body: &[u8], glossary: &mut Glossary, held: &mut Held, found: &mut impl FnMut(Found<'_>) -> bool) {
    let whole = row::read(body, glossary, |record, glossary| {
        held.records += 1;
        held.damaged += usize::from(!found(Found::Packed(record, glossary)));
    });
    held.damaged += usize::from(whole.is_none());
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
    let (length, rest) = bytes.split_first_chunk::<NAME_LENGTH_BYTES>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let (length, rest) = rest.split_first_chunk::<VALUE_LENGTH_BYTES>()?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((name, value, rest))
}
