//! What a reader may see of a record: contacts that ring now, and pieces that fit a frame. Changes nothing.

use smallvec::SmallVec;

use crate::binding::Binding;
use crate::mutant::{Mutant, is};
use crate::record::{Entry, Record, Value};

/// What is shown of a record: few entries, mostly.
pub type Shown<'a> = SmallVec<[&'a Entry; 8]>;

impl Record {
    /// The contacts that may ring at `now_us` (cluster time): not lapsed, not below `cleared`, not shadowed.
    ///
    /// Of an instance key and a URI key with one URI only the later stamp counts, and a later removal hides an earlier
    /// live one: firmware that begins to send `reg-id`, or an operator who removes by URI, means the same phone. Two
    /// instance keys with one URI are two phones behind one address (RFC 5626 §3.1). A later one that lapsed hides as
    /// well: slimming it must change nothing.
    pub fn live(&self, now_us: u64) -> impl Iterator<Item = &Entry> {
        let grace_us = if is(Mutant::LapsedRings) { 5_000_000 } else { 0 };
        let lives = move |entry: &Entry| entry.lapses_us().is_some_and(|lapses_us| lapses_us + grace_us > now_us);
        let cleared = self.cleared.map(|cleared| cleared.stamp);
        let below = move |entry: &Entry| cleared.is_some_and(|stamp| entry.stamp < stamp);
        self.entries.iter().filter(move |entry| lives(entry) && !below(entry) && !self.is_shadowed(entry))
    }

    /// [`Record::live`] limited to `contacts_max` winners, those that registered first (ties: by key), in that order. The
    /// limit is a view, for a merge that enforced it would depend on the order of merges.
    #[must_use]
    pub fn shown(&self, now_us: u64, contacts_max: usize) -> Shown<'_> {
        let mut shown: Shown<'_> = self.live(now_us).collect();
        let since = |entry: &Entry| match is(Mutant::LimitByLastRefresh) {
            true => Some(entry.stamp),
            false => entry.binding().map(|binding| binding.first),
        };
        shown.sort_by_key(|entry| (since(entry), &entry.key));
        shown.truncate(contacts_max);
        shown
    }

    /// Whether an entry of the other kind of key with the same URI and a later stamp hides this one.
    #[must_use]
    pub fn is_shadowed(&self, entry: &Entry) -> bool {
        let kind = entry.key.is_instance();
        let hides = |other: &Entry| {
            other.uri_hash == entry.uri_hash && other.stamp > entry.stamp && other.key.is_instance() != kind
        };
        self.entries.len() > 1 && !is(Mutant::TwinsBothShown) && self.entries.iter().any(hides)
    }

    /// Cuts it between entries into records of at most `bytes_max` encoded bytes (one entry that is larger travels alone);
    /// merged again, in any order, they are this record.
    #[must_use]
    pub fn split(self, bytes_max: usize) -> Vec<Self> {
        let mut pieces = Vec::new();
        let mut piece = Self { cleared: self.cleared, entries: Vec::new() };
        let mut bytes = RECORD_BYTES;
        for entry in self.entries {
            let more = entry.encoded_bytes_max();
            if bytes + more > bytes_max && !piece.is_empty() {
                pieces.push(std::mem::take(&mut piece));
                bytes = RECORD_BYTES;
            }
            bytes += more;
            piece.entries.push(entry);
        }
        if !piece.is_empty() {
            pieces.push(piece);
        }
        pieces
    }

    /// An upper bound of its size in the codec of frames and snapshots, bytes.
    #[must_use]
    pub fn encoded_bytes_max(&self) -> usize {
        RECORD_BYTES + self.entries.iter().map(Entry::encoded_bytes_max).sum::<usize>()
    }
}

/// The codec writes integers in 1 to 9 bytes; a u64 takes at most this many.
const U64_BYTES: usize = 9;
/// A u32, a length or a count.
const U32_BYTES: usize = 5;
const STAMP_BYTES: usize = U64_BYTES + U32_BYTES + U64_BYTES;
/// A record without entries.
const RECORD_BYTES: usize = 1 + STAMP_BYTES + U64_BYTES + U32_BYTES + U32_BYTES;

impl Entry {
    /// An upper bound of its size in the codec of frames and snapshots, bytes.
    #[must_use]
    pub fn encoded_bytes_max(&self) -> usize {
        let fixed = U32_BYTES + STAMP_BYTES + U64_BYTES + U32_BYTES + U64_BYTES + 1;
        let value = match &self.value {
            Value::Gone => 0,
            Value::Live(binding) => binding_bytes_max(binding),
        };
        fixed + self.key.as_bytes().len() + value
    }
}

fn binding_bytes_max(binding: &Binding) -> usize {
    let texts = binding.texts().map(|text| U32_BYTES + text.len()).sum::<usize>();
    let node = U32_BYTES + binding.accepted_by.as_str().len();
    STAMP_BYTES + U32_BYTES + 1 + U32_BYTES + U32_BYTES + texts + node
}
