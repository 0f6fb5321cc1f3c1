//! What a reader may see of a record: contacts that ring now, and pieces that fit a frame. Changes nothing.

use std::cmp::Reverse;

use smallvec::SmallVec;

use crate::binding::Binding;
use crate::mutant::{Mutant, is};
use crate::record::{Entry, Record, Value};
use crate::stamp::Stamp;

/// What is shown of a record: few entries, mostly.
pub type Shown<'a, E = Entry> = SmallVec<[&'a E; 8]>;

/// What of an entry decides whether it is shown, in whatever form it is kept.
pub trait Standing {
    /// [`Entry::stamp`]
    fn stamp(&self) -> Stamp;

    /// [`Entry::uri_hash`]
    fn uri_hash(&self) -> u64;

    /// [`crate::ContactKey::is_instance`]
    fn is_instance(&self) -> bool;

    /// [`Binding::first`] and [`Binding::granted_s`]; `None` when it is gone.
    fn granted(&self) -> Option<(Stamp, u32)>;

    /// Cluster time at which the binding lapses, microseconds: a function of the entry alone, the same on every node.
    /// `None` when it is gone.
    fn lapses_us(&self) -> Option<u64> {
        let (first, granted_s) = self.granted()?;
        Some(lapses_us(self.stamp(), first, granted_s))
    }
}

/// [`Standing::lapses_us`] of a binding with this stamp, microseconds of cluster time.
#[must_use]
pub fn lapses_us(stamp: Stamp, first: Stamp, granted_s: u32) -> u64 {
    let since = if is(Mutant::LapseFromFirst) { first } else { stamp };
    since.time_us.saturating_add(u64::from(granted_s) * 1_000_000)
}

impl Standing for Entry {
    fn stamp(&self) -> Stamp {
        self.stamp
    }

    fn uri_hash(&self) -> u64 {
        self.uri_hash
    }

    fn is_instance(&self) -> bool {
        self.key.is_instance()
    }

    fn granted(&self) -> Option<(Stamp, u32)> {
        self.binding().map(|binding| (binding.first, binding.granted_s))
    }
}

/// [`Record::live`] of entries in any form, with the stamp of the record's `cleared`.
pub fn live<E: Standing>(entries: &[E], cleared: Option<Stamp>, now_us: u64) -> impl Iterator<Item = &E> {
    let grace_us = if is(Mutant::LapsedRings) { 5_000_000 } else { 0 };
    let lives = move |entry: &E| entry.lapses_us().is_some_and(|lapses_us| lapses_us + grace_us > now_us);
    let below = move |entry: &E| cleared.is_some_and(|stamp| entry.stamp() < stamp);
    entries.iter().filter(move |entry| lives(entry) && !below(entry) && !is_shadowed(entries, *entry))
}

/// [`Record::shown`] of entries in any form, sorted by key, with the stamp of the record's `cleared`.
#[must_use]
pub fn shown<E: Standing>(entries: &[E], cleared: Option<Stamp>, now_us: u64, contacts_max: usize) -> Shown<'_, E> {
    let mut shown: Shown<'_, E> = live(entries, cleared, now_us).collect();
    let since = |entry: &E| match is(Mutant::LimitByLastRefresh) {
        true => Some(entry.stamp()),
        false => entry.granted().map(|(first, _)| first),
    };
    // Stable: of two that have the same stamps as well the one with the lesser key.
    shown.sort_by_key(|entry| (since(entry), Reverse(entry.stamp())));
    shown.truncate(contacts_max);
    shown
}

fn is_shadowed<E: Standing>(entries: &[E], entry: &E) -> bool {
    let kind = entry.is_instance();
    let hides = |other: &E| {
        other.uri_hash() == entry.uri_hash() && other.stamp() > entry.stamp() && other.is_instance() != kind
    };
    entries.len() > 1 && !is(Mutant::TwinsBothShown) && entries.iter().any(hides)
}

impl Record {
    /// The contacts that may ring at `now_us` (cluster time): not lapsed, not below `cleared`, not shadowed.
    ///
    /// Of an instance key and a URI key with one URI only the later stamp counts, and a later removal hides an earlier
    /// live one: firmware that begins to send `reg-id`, or an operator who removes by URI, means the same phone. Two
    /// instance keys with one URI are two phones behind one address (RFC 5626 §3.1). A later one that lapsed hides as
    /// well: slimming it must change nothing.
    pub fn live(&self, now_us: u64) -> impl Iterator<Item = &Entry> {
        live(&self.entries, self.cleared.map(|cleared| cleared.stamp), now_us)
    }

    /// [`Record::live`] limited to `contacts_max` winners, those that registered first, in that order. The limit is a view,
    /// for a merge that enforced it would depend on the order of merges.
    ///
    /// Contacts that registered first at the same time are what one phone became at two nodes that did not hear each
    /// other: the later stamp says where it is.
    #[must_use]
    pub fn shown(&self, now_us: u64, contacts_max: usize) -> Shown<'_> {
        shown(&self.entries, self.cleared.map(|cleared| cleared.stamp), now_us, contacts_max)
    }

    /// Whether an entry of the other kind of key with the same URI and a later stamp hides this one.
    #[must_use]
    pub fn is_shadowed(&self, entry: &Entry) -> bool {
        is_shadowed(&self.entries, entry)
    }

    /// Cuts it between entries into records of at most `bytes_max` encoded bytes (one entry that is larger travels alone);
    /// merged again, in any order, they are this record.
    #[must_use]
    pub fn split(&self, bytes_max: usize) -> Vec<Self> {
        let mut pieces = Vec::new();
        let mut piece = Self::of(self.cleared, []);
        let mut bytes = RECORD_BYTES;
        for entry in &self.entries {
            let more = entry.encoded_bytes_max();
            if bytes + more > bytes_max && !piece.is_empty() {
                pieces.push(std::mem::take(&mut piece));
                bytes = RECORD_BYTES;
            }
            bytes += more;
            piece.entries.push(entry.clone());
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
