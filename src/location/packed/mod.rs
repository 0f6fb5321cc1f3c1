//! What is known of an AoR as the table keeps it: one piece of memory, in which texts that many contacts share are numbers of
//! [`Words`], and what one entry has in common with the one before it is said once. Judges and merges nothing: [`Scratch`]
//! holds the [`Record`] that is meant.
//!
//! Disks and links have it as it is ([`Packed::told`], in a `row`), with a [`Glossary`] that says what its numbers mean: what
//! changes here is a new version there (`snapshot::value`, `aorta_proto::frame`). What does not read as it was written, which
//! only a fault of this file could bring about, reads as empty; what others wrote is walked over before it is read.
//!
//! `domain · user · entries (and whether cleared) · [cleared] · entry…`, an entry: `flags · stamp · Call-ID
//! hash · CSeq · URI hash · [binding] · key`. Numbers have seven bits a byte, the lowest first; times and CSeqs are told as
//! the difference to the entry before.
//!
//! **2026-11.** A record of structs with strings cost 1200 bytes a contact, most of it headers, padding and texts that all
//! phones of a make share; this costs 233 with its place in the table (`tests/memory_per_contact.rs`). Refused: a compressor
//! (a microsecond for each change at each node).

mod glossary;
mod reader;
mod refresh;
pub(super) mod row;
#[cfg(test)]
mod tests;
mod urn;
mod view;
mod walk;
mod words;
mod writer;

use std::cell::Cell;

use aorta_proto::{Binding, BindingParts, ContactKey, Entry, NodeId, Record, Stamp, Value};
use smallvec::SmallVec;

use reader::{Bound, Head, Key, Reader};
use view::PARAMS_BYTES;
use words::Kind;
use writer::Writer;

use super::memory;

pub(super) use glossary::{Explained, Glossary};
pub use refresh::Known;
pub use view::{Contact, View};
pub(super) use words::Words;

/// Whether a record differs from what was last taken of it for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsaved {
    No,
    Yes,
    /// Yes, and somebody waits until it is on disk: it is in `Dirty::awaited`.
    Awaited,
}

/// A record with its AoR, and what the table must know of it without reading it.
pub(super) struct Packed {
    told: Box<[u8]>,
    /// A piece of its AoR's hash: whoever looks for one reads few others.
    pub(super) piece: u16,
    pub(super) unsaved: Unsaved,
    /// In which renewal of the disk it was taken last: every other one is alike.
    pub(super) renewal: bool,
    /// The turn of `Dirty` in which it was last put among those that changed; 0 for none.
    pub(super) turn: u8,
}

/// Flags of an entry.
const LIVE: u8 = 1;
const SAME_STAMP: u8 = 1 << 1;
const SAME_CALL_ID: u8 = 1 << 2;
const SAME_URI: u8 = 1 << 3;
/// A binding whose `first` is the entry's stamp.
const FIRST: u8 = 1 << 4;
/// Where the key is: two bits.
const KEY_SHIFT: u32 = 6;
/// It follows.
const KEY_HERE: u8 = 0;
/// That of the URI, as the phone wrote it.
const KEY_IS_URI: u8 = 1;
/// The value of one of the parameters; the reg-id, and where it is, follow.
const KEY_IS_INSTANCE: u8 = 2;
/// That of the trail at the URI.
const KEY_IS_TRAIL: u8 = 3;

/// Bytes that memory comes in.
const CACHE_LINE_BYTES: usize = 64;

/// Bytes that a thread keeps for its next record.
const KEPT_BYTES_MAX: usize = 16 << 10;

/// A record out of the table, and memory that is used again and again: in the steady state reading allocates nothing.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) record: Record,
    pub(super) aor: String,
    /// Room for a text.
    text: Vec<u8>,
    bytes: Vec<u8>,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Scratch {
    /// Lends this thread's.
    pub(super) fn with<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        let mut scratch = SCRATCH.take().unwrap_or_default();
        let worked = work(&mut scratch);
        scratch.clear();
        scratch.bytes.clear();
        scratch.bytes.shrink_to(KEPT_BYTES_MAX);
        SCRATCH.set(Some(scratch));
        worked
    }

    /// Nothing is known.
    pub(super) fn clear(&mut self) {
        self.record.cleared = None;
        self.record.entries.clear();
    }

    /// Packs the record under this AoR, with the piece of whose hash it is to be found.
    pub(super) fn pack(&mut self, words: &Words, aor: &str, piece: u16) -> Packed {
        self.write(words, aor);
        self.packed(piece)
    }

    /// What was [packed](Scratch::pack) or [transcribed](Scratch::transcribe) just now, for a table.
    pub(super) fn packed(&self, piece: u16) -> Packed {
        let told = self.bytes.as_slice().into();
        Packed { told, piece, unsaved: Unsaved::No, renewal: false, turn: 0 }
    }

    /// Packs the record where it was before.
    pub(super) fn pack_again(&mut self, words: &Words, aor: &str, packed: &mut Packed) {
        self.write(words, aor);
        self.put(packed);
    }

    fn put(&self, packed: &mut Packed) {
        if packed.told.len() == self.bytes.len() {
            packed.told.copy_from_slice(&self.bytes);
        } else {
            packed.told = self.bytes.as_slice().into();
        }
    }

    /// Reads what [`Packed::told`] gave of this table, and whose it is.
    pub(super) fn read_told(&mut self, told: &[u8], words: &Words) {
        self.read_all(Reader::at(told, words), words);
    }

    /// Packs the record where it was read from with [`Packed::read_all`].
    pub(super) fn pack_read(&mut self, words: &Words, packed: &mut Packed) {
        let aor = std::mem::take(&mut self.aor);
        self.pack_again(words, &aor, packed);
        self.aor = aor;
    }

    fn write(&mut self, words: &Words, aor: &str) {
        self.bytes.clear();
        let (user, domain) = aor.split_at(aor.rfind('@').unwrap_or(aor.len()));
        let mut writer = Writer::new(&mut self.bytes, words, &mut self.text);
        writer.text(Kind::Domain, domain.as_bytes());
        writer.bytes(user.as_bytes());
        writer.record(&self.record);
    }

    fn read_all(&mut self, mut reader: Reader<'_>, words: &Words) {
        self.aor.clear();
        for part in reader.aor() {
            self.aor.push_str(std::str::from_utf8(part).unwrap_or_default());
        }
        self.unpack(reader, words);
    }

    fn unpack(&mut self, mut reader: Reader<'_>, words: &Words) {
        self.clear();
        let (cleared, count) = reader.cleared();
        self.record.cleared = cleared;
        let mut previous = Previous::NONE;
        for _ in 0..count {
            let head = reader.head(&previous);
            previous = head.told;
            let entry = self.entry(&head, &mut reader, words);
            self.record.entries.push(entry);
        }
    }

    fn entry(&mut self, head: &Head, reader: &mut Reader<'_>, words: &Words) -> Entry {
        let Previous { stamp, call_id_hash, cseq, uri_hash } = head.told;
        let mut params = SmallVec::<[u8; PARAMS_BYTES]>::new();
        let bound = head.granted.map(|granted| (granted, reader.bound()));
        bound.iter().for_each(|(_, bound)| bound.params.spell(Kind::Params, words, &mut params));
        let key = match reader.key(head) {
            Key::Trail => ContactKey::trail(uri_hash),
            Key::Uri => ContactKey::uri(bound.as_ref().map_or(&[], |(_, bound)| bound.uri)),
            Key::Instance { reg_id, start, length } => {
                let end = start.saturating_add(length);
                ContactKey::instance(params.get(start..end).unwrap_or_default(), reg_id)
            }
            Key::Here(phrase) => {
                let mut key = SmallVec::<[u8; PARAMS_BYTES]>::new();
                phrase.spell(Kind::Key, words, &mut key);
                ContactKey::from_bytes(&key)
            }
        };
        let value = bound.and_then(|((first, granted_s), bound)| {
            let node = std::str::from_utf8(bound.accepted_by.of(Kind::Node, words)).ok()?;
            let accepted_by = &NodeId::known(node).ok()?;
            let path: SmallVec<[&[u8]; 4]> = Reader::at(bound.path, words).path().collect();
            let user_agent = bound.user_agent.of(Kind::UserAgent, words);
            let source = bound.source.of(Kind::Source, words);
            let Bound { q, uri, call_id, .. } = bound;
            let (params, path) = (&params[..], &path[..]);
            let parts =
                BindingParts { first, granted_s, uri, params, q, path, call_id, user_agent, source, accepted_by };
            Some(Value::Live(Binding::shared(&parts)))
        });
        Entry { key, stamp, call_id_hash, cseq, uri_hash, value: value.unwrap_or(Value::Gone) }
    }
}

impl Packed {
    /// Whether this is the record of that AoR.
    pub(super) fn is_of(&self, words: &Words, aor: &str) -> bool {
        let [user, domain] = Reader::new(self, words).aor();
        aor.len() == user.len() + domain.len() && aor.as_bytes().starts_with(user) && aor.as_bytes().ends_with(domain)
    }

    /// What is known, where it is.
    pub(super) fn view<'a>(&'a self, words: &'a Words) -> View<'a> {
        let mut reader = Reader::new(self, words);
        _ = reader.aor();
        View::new(reader, words)
    }

    /// What is known, into `scratch`.
    pub(super) fn read(&self, words: &Words, scratch: &mut Scratch) {
        let mut reader = Reader::new(self, words);
        _ = reader.aor();
        scratch.unpack(reader, words);
    }

    /// As [`Packed::read`], and whose it is.
    pub(super) fn read_all(&self, words: &Words, scratch: &mut Scratch) {
        scratch.read_all(Reader::new(self, words), words);
    }

    /// The record: the words in it are numbers of this process.
    pub(super) fn told(&self) -> &[u8] {
        &self.told
    }

    /// Looks at each line of a processor's cache that it is in.
    pub(super) fn touch(&self) -> u8 {
        self.told.iter().step_by(CACHE_LINE_BYTES).fold(0, |seen, byte| seen.wrapping_add(*byte))
    }

    /// What it takes of memory, bytes; its place in a bucket not counted.
    pub(in crate::location) fn taken(&self) -> u64 {
        memory::taken(self.told.len()) as u64
    }
}

/// What an entry is told against: the one before it.
#[derive(Clone, Copy)]
struct Previous {
    stamp: Stamp,
    call_id_hash: u64,
    cseq: u32,
    uri_hash: u64,
}

impl Previous {
    const NONE: Self = Self { stamp: Stamp::ZERO, call_id_hash: 0, cseq: 0, uri_hash: 0 };

    fn of(entry: &Entry) -> Self {
        Self { stamp: entry.stamp, call_id_hash: entry.call_id_hash, cseq: entry.cseq, uri_hash: entry.uri_hash }
    }
}
