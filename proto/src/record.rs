//! An AoR's contacts and the merge law: how two copies become one, the same one everywhere, in whatever order they meet.
//!
//! A delta is a small `Record`: whoever knows how to merge a copy knows how to merge a change. Nothing here reads a clock,
//! enforces a limit or judges a REGISTER; `proto/README.md` has the proofs. What a reader may see of a record is in
//! [`crate::view`].

use std::cmp::Ordering;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::binding::{Binding, ContactKey, Told, instance_and_reg_id, is_of_uri};
use crate::mutant::{Mutant, is};
use crate::spare::{Each, Vecs};
use crate::stamp::Stamp;
use crate::view::{Standing, lapses_us};

/// All that is known of one AoR: what was cleared by `Contact: *`, and one last-writer-wins entry a key.
/// Normal form: entries sorted by key, one a key; an entry below `cleared` is [`Value::Gone`]. What [`Record::merge`] and
/// the codec make is in normal form; what is built by hand becomes so when it is merged.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Unchecked")]
pub struct Record {
    /// The latest `Contact: *`; the greater stamp wins.
    pub cleared: Option<Cleared>,
    /// Live and dead contacts.
    pub entries: Vec<Entry>,
}

/// A record as it came from a peer or a disk, its normal form not yet known.
#[derive(Deserialize)]
struct Unchecked {
    cleared: Option<Cleared>,
    #[serde(deserialize_with = "read_entries")]
    entries: Vec<Entry>,
}

fn read_entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
    deserializer.deserialize_seq(Each::into(ENTRIES.with(Vecs::take)))
}

thread_local! {
    static ENTRIES: Vecs<Entry> = const { Vecs::new() };
}

impl Clone for Record {
    fn clone(&self) -> Self {
        Self::of(self.cleared, self.entries.iter().cloned())
    }
}

/// Its memory is that of the next one on this thread.
impl Drop for Record {
    fn drop(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        // A thread that ends keeps nothing.
        let _ = ENTRIES.try_with(|spare| spare.keep(entries));
    }
}

impl From<Unchecked> for Record {
    fn from(unchecked: Unchecked) -> Self {
        let as_it_came = Self { cleared: unchecked.cleared, entries: unchecked.entries };
        if as_it_came.is_normal() {
            return as_it_came;
        }
        let mut record = Self::EMPTY;
        record.merge(&as_it_came);
        record
    }
}

/// A `Contact: *` with Expires 0 (RFC 3261 §10.2.2): every entry with a lower stamp is gone, seen here or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cleared {
    /// When.
    pub stamp: Stamp,
    /// Hash of the request's Call-ID.
    pub call_id_hash: u64,
    /// The request's CSeq number.
    pub cseq: u32,
}

/// The latest that is known of one contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which contact.
    pub key: ContactKey,
    /// When it was written; the greater stamp wins.
    pub stamp: Stamp,
    /// Hash of the Call-ID of the REGISTER that wrote it.
    pub call_id_hash: u64,
    /// CSeq number of that REGISTER.
    pub cseq: u32,
    /// Hash of the canonical Contact URI: an instance key and a URI key with the same URI are one phone.
    pub uri_hash: u64,
    /// What it says.
    pub value: Value,
}

/// A contact that may ring, or the memory of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Value {
    /// Removed, or lapsed and slimmed: enough is kept that a late REGISTER cannot bring it back.
    Gone,
    /// Registered; live until stamp + granted.
    Live(#[serde(deserialize_with = "Binding::deserialize_shared")] Arc<Binding>),
}

/// A delta of one registered contact and nothing else, where it lies: nearly every change is one, and says of a contact that is
/// known nothing new but that it goes on. Whoever keeps records may take that over without making a [`Record`] of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Refresh<'a> {
    /// [`ContactKey::as_bytes`]
    pub key: &'a [u8],
    /// [`Entry::stamp`]
    pub stamp: Stamp,
    /// [`Entry::call_id_hash`]
    pub call_id_hash: u64,
    /// [`Entry::cseq`]
    pub cseq: u32,
    /// [`Entry::uri_hash`]
    pub uri_hash: u64,
    /// [`Value::Live`]
    #[serde(borrow, deserialize_with = "read_live")]
    pub binding: Told<'a>,
}

fn read_live<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Told<'a>, D::Error> {
    /// [`Value`], where it lies.
    #[derive(Deserialize)]
    #[serde(rename = "Value")]
    #[expect(clippy::large_enum_variant, reason = "taken apart at once")]
    enum Lying<'a> {
        Gone,
        Live(#[serde(borrow)] Told<'a>),
    }
    match Lying::deserialize(deserializer)? {
        Lying::Live(told) => Ok(told),
        Lying::Gone => Err(D::Error::custom("gone")),
    }
}

impl<'a> Refresh<'a> {
    /// Of a delta; `None` of one that says anything else.
    #[must_use]
    pub fn of(delta: &'a Record) -> Option<Self> {
        let ([entry], None) = (&*delta.entries, delta.cleared) else { return None };
        let &Entry { ref key, stamp, call_id_hash, cseq, uri_hash, .. } = entry;
        let binding = entry.binding()?.told();
        Some(Self { key: key.as_bytes(), stamp, call_id_hash, cseq, uri_hash, binding })
    }

    /// [`ContactKey::instance_and_reg_id`]
    #[must_use]
    pub fn instance_and_reg_id(&self) -> Option<(&[u8], u32)> {
        instance_and_reg_id(self.key)
    }

    /// [`ContactKey::is_of_uri`]
    #[must_use]
    pub fn is_of_uri(&self, canonical: &[u8]) -> bool {
        is_of_uri(self.key, canonical)
    }

    /// [`Entry::lapses_us`]
    #[must_use]
    pub fn lapses_us(&self) -> u64 {
        lapses_us(self.stamp, self.binding.first, self.binding.granted_s)
    }
}

/// What a merge did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// The record is not what it was.
    pub changed: bool,
    /// One stamp was found with two values, which no correct cluster makes: raise an alarm.
    pub conflict: bool,
}

/// One step of a record from one state to the next, for whoever keeps sums over records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// Which entry; `None` for [`Record::cleared`].
    pub key: Option<&'a ContactKey>,
    /// What was there.
    pub before: Option<Mark>,
    /// What is there now.
    pub after: Option<Mark>,
}

/// What sums count of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its stamp.
    pub stamp: Stamp,
    /// Whether its value is [`Value::Live`].
    pub live: bool,
}

impl Entry {
    /// The binding, unless it is gone. Whether it has lapsed is another question: [`Entry::lapses_us`].
    #[must_use]
    pub fn binding(&self) -> Option<&Arc<Binding>> {
        match &self.value {
            Value::Live(binding) => Some(binding),
            Value::Gone => None,
        }
    }

    /// Cluster time at which the binding lapses, microseconds: a function of the entry alone, the same on every node.
    /// `None` when it is gone.
    #[must_use]
    pub fn lapses_us(&self) -> Option<u64> {
        Standing::lapses_us(self)
    }

    /// The same entry as a removal that remembers its Call-ID and CSeq, under `stamp`.
    #[must_use]
    pub fn gone_at(&self, stamp: Stamp) -> Self {
        Self { stamp, value: Value::Gone, ..self.clone() }
    }

    fn mark(&self) -> Mark {
        Mark { stamp: self.stamp, live: self.binding().is_some() }
    }

    /// The one order of two entries of one key. Stamps decide. What follows matters only between equal stamps: there a
    /// live one beats a gone one, which is the same entry slimmed; anything else is a conflict, and is resolved so that
    /// slimming and clearing, which may have happened on one side only, cannot change who wins: first what a removal
    /// keeps, then the later lapse, then the rest.
    fn order(&self, other: &Self) -> Ordering {
        if is(Mutant::MergeByCseq) && self.call_id_hash == other.call_id_hash && self.cseq != other.cseq {
            return self.cseq.cmp(&other.cseq);
        }
        self.stamp
            .cmp(&other.stamp)
            .then_with(|| self.remembered().cmp(&other.remembered()))
            .then_with(|| self.lapses_us().cmp(&other.lapses_us()))
            .then_with(|| self.value.cmp(&other.value))
    }

    fn remembered(&self) -> (u64, u32, u64) {
        (self.call_id_hash, self.cseq, self.uri_hash)
    }

    fn conflicts(&self, other: &Self) -> bool {
        if self.stamp != other.stamp {
            return false;
        }
        let two_values = matches!((&self.value, &other.value), (Value::Live(one), Value::Live(two)) if one != two);
        two_values || self.remembered() != other.remembered()
    }
}

impl Record {
    /// Nothing known.
    pub const EMPTY: Self = Self { cleared: None, entries: Vec::new() };

    /// What was cleared, and these entries, in memory that was made before.
    #[must_use]
    pub fn of(cleared: Option<Cleared>, entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut record = Self { cleared, entries: ENTRIES.with(Vecs::take) };
        record.entries.extend(entries);
        record
    }

    /// Nothing known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cleared.is_none() && self.entries.is_empty()
    }

    /// The entry of a key, live or dead.
    #[must_use]
    pub fn entry(&self, key: &ContactKey) -> Option<&Entry> {
        self.position(key).ok().and_then(|at| self.entries.get(at))
    }

    /// The greatest stamp in it: what a clock must have reached. `None` when empty.
    #[must_use]
    pub fn latest(&self) -> Option<Stamp> {
        let cleared = self.cleared.map(|cleared| cleared.stamp);
        self.entries.iter().map(|entry| entry.stamp).chain(cleared).max()
    }

    /// The smallest stamp in it. `None` when empty.
    #[must_use]
    pub fn oldest(&self) -> Option<Stamp> {
        let cleared = self.cleared.map(|cleared| cleared.stamp);
        self.entries.iter().map(|entry| entry.stamp).chain(cleared).min()
    }

    /// Tells `note` every step from nothing to this record, which must be [normal](Record::is_normal).
    pub fn steps(&self, mut note: impl FnMut(Change<'_>)) {
        if let Some(cleared) = &self.cleared {
            note(Change { key: None, before: None, after: Some(cleared.mark()) });
        }
        self.entries
            .iter()
            .for_each(|entry| note(Change { key: Some(&entry.key), before: None, after: Some(entry.mark()) }));
    }

    /// Merges another copy, or a delta, into this one.
    pub fn merge(&mut self, other: &Self) -> Merged {
        self.absorb(other, |_| {})
    }

    /// [`Record::merge`] that tells `note` every step. `other` need not be in normal form.
    pub fn absorb(&mut self, other: &Self, mut note: impl FnMut(Change<'_>)) -> Merged {
        let mut merged = Merged::default();
        if let Some(cleared) = other.cleared {
            self.absorb_cleared(cleared, &mut merged, &mut note);
        }
        for entry in &other.entries {
            self.absorb_entry(entry, &mut merged, &mut note);
        }
        merged
    }

    /// Drops what is at or below the floor, as if it had never been (design: forgetting). Returns how many entries.
    pub fn forget(&mut self, floor_us: u64, mut note: impl FnMut(Change<'_>)) -> usize {
        let old = |cleared: &mut Cleared| cleared.stamp.time_us <= floor_us && !is(Mutant::RemovalLastsAsItsBinding);
        if let Some(cleared) = self.cleared.take_if(old) {
            note(Change { key: None, before: Some(cleared.mark()), after: None });
        }
        let before = self.entries.len();
        self.entries.retain(|entry| {
            let lasts_us = u64::from(entry.stamp.counter / 2) * 1_000_000;
            let stays = entry.stamp.time_us > floor_us
                || (is(Mutant::ForgetByLocalTimer) && entry.binding().is_some())
                || (is(Mutant::RemovalLastsAsItsBinding)
                    && (entry.binding().is_some() || entry.stamp.time_us + lasts_us > floor_us));
            if !stays {
                note(Change { key: Some(&entry.key), before: Some(entry.mark()), after: None });
            }
            stays
        });
        before - self.entries.len()
    }

    /// Slims what lapsed at or before `lapsed_us` to a removal under its own stamp. Returns how many. The stamps, and so
    /// the digest, stay as they are.
    pub fn slim(&mut self, lapsed_us: u64, mut note: impl FnMut(Change<'_>)) -> usize {
        let mut slimmed = 0;
        for entry in &mut self.entries {
            if entry.lapses_us().is_some_and(|lapses_us| lapses_us <= lapsed_us) {
                bury(entry, &mut note);
                slimmed += 1;
            }
        }
        slimmed
    }

    fn absorb_cleared(&mut self, cleared: Cleared, merged: &mut Merged, note: &mut impl FnMut(Change<'_>)) {
        let before = self.cleared;
        merged.conflict |= before.is_some_and(|before| before.stamp == cleared.stamp && before != cleared);
        if before >= Some(cleared) {
            return;
        }
        merged.changed = true;
        self.cleared = Some(cleared);
        note(Change { key: None, before: before.as_ref().map(Cleared::mark), after: Some(cleared.mark()) });
        let below = |entry: &Entry| entry.stamp < cleared.stamp || is(Mutant::StarBuriesLater);
        for entry in self.entries.iter_mut().filter(|entry| below(entry) && entry.value != Value::Gone) {
            bury(entry, note);
        }
    }

    fn absorb_entry(&mut self, entry: &Entry, merged: &mut Merged, note: &mut impl FnMut(Change<'_>)) {
        if self.cleared.is_some_and(|cleared| entry.stamp < cleared.stamp) && entry.value != Value::Gone {
            return self.absorb_entry(&entry.gone_at(entry.stamp), merged, note);
        }
        let after = Some(entry.mark());
        match self.position(&entry.key) {
            Err(at) => {
                merged.changed = true;
                note(Change { key: Some(&entry.key), before: None, after });
                self.entries.insert(at, entry.clone());
            }
            Ok(at) => {
                let Some(mine) = self.entries.get_mut(at) else { return };
                merged.conflict |= mine.conflicts(entry);
                if entry.order(mine) == Ordering::Greater {
                    merged.changed = true;
                    note(Change { key: Some(&entry.key), before: Some(mine.mark()), after });
                    let keeps = is(Mutant::RefreshKeepsValue) && mine.binding().and(entry.binding()).is_some();
                    let kept = keeps.then(|| mine.value.clone());
                    mine.clone_from(entry);
                    kept.into_iter().for_each(|kept| mine.value = kept);
                }
            }
        }
    }

    fn position(&self, key: &ContactKey) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.key.cmp(key))
    }

    /// Whether it is in normal form.
    #[must_use]
    pub fn is_normal(&self) -> bool {
        let sorted = self.entries.is_sorted_by(|one, two| one.key < two.key);
        let buried = |entry: &Entry, at: Stamp| entry.stamp >= at || entry.value == Value::Gone;
        sorted && self.cleared.is_none_or(|cleared| self.entries.iter().all(|entry| buried(entry, cleared.stamp)))
    }
}

impl From<Entry> for Record {
    fn from(entry: Entry) -> Self {
        Self::of(None, [entry])
    }
}

impl Cleared {
    fn mark(&self) -> Mark {
        Mark { stamp: self.stamp, live: false }
    }
}

fn bury(entry: &mut Entry, note: &mut impl FnMut(Change<'_>)) {
    let before = entry.mark();
    entry.value = Value::Gone;
    if is(Mutant::BuriedWithoutCseq) {
        entry.cseq = 0;
    }
    note(Change { key: Some(&entry.key), before: Some(before), after: Some(entry.mark()) });
}

/// The floor moves in steps of this many microseconds, so that linked nodes, whose clocks differ by a network delay,
/// nearly always have the same.
pub const FLOOR_STEP_US: u64 = 10_000_000;

/// Added to the forgetting horizon, seconds: frames that were under way, and the floor's own steps.
pub const HORIZON_MARGIN_S: u64 = 60;

/// How long an entry is remembered after its stamp, microseconds. `expires_max_s` is the largest lifetime that any member
/// grants, also one that is not heard.
#[must_use]
pub fn horizon_us(expires_max_s: u32, clock_ahead_max_s: u32) -> u64 {
    let expires_max_s = if is(Mutant::ForgetsLiving) { expires_max_s / 8 } else { expires_max_s };
    (u64::from(expires_max_s) + u64::from(clock_ahead_max_s) + HORIZON_MARGIN_S) * 1_000_000
}

/// The forgetting floor at a cluster time: whatever has a stamp at or below it does not exist, on any node.
#[must_use]
pub fn floor_us(cluster_us: u64, horizon_us: u64) -> u64 {
    let exact = cluster_us.saturating_sub(horizon_us);
    exact - exact % FLOOR_STEP_US
}
