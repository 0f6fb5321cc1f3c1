//! Records as they lie in the database: in blocks under rising numbers, each AoR where it was written last. A block is
//! never changed. Of an AoR that is in several the latest counts; when most of what lies there was written again, all is
//! written anew and the old blocks go.
//!
//! **2026-11, blocks.** A database value for each AoR cost 8 µs of processor a record, for a tree was walked and a page
//! linked for each; a block of [`RECORDS_MAX`] costs 2 to 3 µs a record, and its price does not
//! grow with the table. What would change our mind: a table so large, with so few changes, that writing all of it anew
//! is what costs.

use std::collections::{BTreeSet, HashSet};

use aorta_proto::{Aor, Record};

use super::value::{self, ValueError};

/// Records in one block.
pub(super) const RECORDS_MAX: usize = 32;

/// A block is closed when it has grown to this, bytes: sled keeps up to 16 in a page, and makes a file of its own of a page
/// above 128 KiB, whose making costs more than the writing.
const BLOCK_BYTES: usize = 12 << 10;

/// All is written anew when more records lie in the blocks than so many times the AoRs that are.
const COPIES_MAX: usize = 3;

/// So many may lie there in any case.
const RECORDS_SLACK: usize = 65_536;

/// What precedes an AoR and its value: their lengths, little-endian.
const AOR_LENGTH_BYTES: usize = 2;
const VALUE_LENGTH_BYTES: usize = 4;

/// What is known of the blocks without reading them.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// The number of the next block.
    pub(super) next: u64,
    /// Records that lie in blocks, every copy counted; a lower bound after a restart that found damage.
    pub(super) records: usize,
    /// Blocks with records of a newer aorta: they stay.
    newer: BTreeSet<u64>,
    /// Something there is damaged, or lies as an earlier aorta wrote it: all is to be written anew.
    outworn: bool,
    /// With no more records than this it is not tried again: the disk may have no room for it.
    put_off: usize,
}

impl Shelf {
    /// Whether all is to be written anew, of a table of `aors`.
    pub(super) fn is_outworn(&self, aors: u64) -> bool {
        let aors = usize::try_from(aors).unwrap_or(usize::MAX);
        let most = aors.saturating_mul(COPIES_MAX).saturating_add(RECORDS_SLACK);
        (self.outworn || self.records > most) && self.records >= self.put_off
    }

    /// Writing all anew failed: it waits until as much again has been written as would double the blocks.
    pub(super) fn put_off(&mut self) {
        self.put_off = self.records.saturating_mul(2);
    }

    /// Everything is in blocks from `number` on; which blocks can go.
    pub(super) fn renewed<'a>(
        &'a mut self,
        number: u64,
        records: usize,
        blocks: impl Iterator<Item = u64> + 'a,
    ) -> impl Iterator<Item = u64> + 'a {
        (self.records, self.outworn, self.put_off) = (records, false, 0);
        blocks.take_while(move |block| *block < number).filter(|block| !self.newer.contains(block))
    }
}

/// What was put into a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// What is known of an AoR.
    Record,
    /// That nothing is.
    Removal,
}

/// A block while it is filled.
#[derive(Debug, Default)]
pub(super) struct Block {
    bytes: Vec<u8>,
    pub(super) records: usize,
}

impl Block {
    /// Adds what is known of an AoR; an empty record says that nothing is.
    ///
    /// # Errors
    /// Whatever the codec refuses: no record that a REGISTER can make.
    pub(super) fn push(&mut self, aor: &Aor, record: &Record) -> Result<Pushed, bincode::error::EncodeError> {
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
        Ok(if record.is_empty() { Pushed::Removal } else { Pushed::Record })
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

/// Reads blocks, the latest first.
#[derive(Debug, Default)]
pub(super) struct Reader {
    seen: HashSet<Aor, foldhash::fast::RandomState>,
    /// Records that were damaged; the rest of a block whose lengths are damaged counts as one.
    pub(super) damaged: usize,
    /// Records of a newer aorta.
    pub(super) newer: usize,
}

impl Reader {
    /// Gives every record of the block that no later block has.
    pub(super) fn read(&mut self, shelf: &mut Shelf, number: u64, bytes: &[u8], mut found: impl FnMut(&Aor, Record)) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some((name, value, after)) = next(rest) else {
                self.damaged += 1;
                shelf.outworn = true;
                return;
            };
            rest = after;
            shelf.records += 1;
            self.read_record(shelf, Some(number), name, value, &mut found);
        }
    }

    /// Gives a record that an earlier aorta wrote under its AoR, unless it is in a block.
    pub(super) fn read_former(
        &mut self,
        shelf: &mut Shelf,
        name: &[u8],
        value: &[u8],
        found: impl FnMut(&Aor, Record),
    ) {
        shelf.outworn = true;
        self.read_record(shelf, None, name, value, found);
    }

    fn read_record(
        &mut self,
        shelf: &mut Shelf,
        block: Option<u64>,
        name: &[u8],
        value: &[u8],
        mut found: impl FnMut(&Aor, Record),
    ) {
        let aor = std::str::from_utf8(name).map(Aor::from_canonical);
        if aor.as_ref().is_ok_and(|aor| self.seen.contains(aor)) {
            return;
        }
        match aor.map_err(|_| ValueError::Damaged).map(|aor| (value::decode(&aor, value), aor)) {
            Ok((Ok(record), aor)) => {
                if !record.is_empty() {
                    found(&aor, record);
                }
                self.seen.insert(aor);
            }
            Ok((Err(ValueError::Version(_)), aor)) => {
                self.newer += 1;
                shelf.newer.extend(block);
                self.seen.insert(aor);
            }
            Ok((Err(ValueError::Damaged), _)) | Err(_) => {
                self.damaged += 1;
                shelf.outworn = true;
            }
        }
    }
}

fn next(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<AOR_LENGTH_BYTES>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let (length, rest) = rest.split_first_chunk::<VALUE_LENGTH_BYTES>()?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((name, value, rest))
}
