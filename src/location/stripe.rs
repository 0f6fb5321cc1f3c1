//! What one lock guards: 256 buckets with their tables and sums, kept in step at every change. Takes no lock itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aorta_proto::digest::AorHash;
use aorta_proto::mutant::{Mutant, is};
use aorta_proto::record::Change;
use aorta_proto::{Aor, Digester, Merged, Record};
use hashbrown::HashTable;

/// Buckets under one lock.
pub(super) const BUCKETS: usize = aorta_proto::digest::BUCKETS as usize / super::STRIPES;

/// No deadline: nothing in the bucket will lapse.
pub(super) const NEVER_US: u64 = u64::MAX;

/// 256 buckets.
pub(super) struct Stripe {
    /// None at all until something is put here: a table that holds little costs little.
    buckets: Box<[Bucket]>,
    /// The sum of all its buckets.
    sum: u128,
    tally: Tally,
    /// `None` when there are no snapshots.
    dirty: Option<Dirty>,
    /// The floor down to which everything was forgotten, microseconds.
    pub(super) floor_us: u64,
    /// The least of its buckets' own: whoever has nothing to do here need not look at each. May be too early, never too late.
    lapses_us: u64,
    oldest_us: u64,
}

/// One leaf of the digest tree.
struct Bucket {
    table: HashTable<Stored>,
    sum: u128,
    /// Nothing in it lapses before this, cluster time in microseconds. May be too early, never too late.
    lapses_us: u64,
    /// No stamp in it is before this. May be too early, never too late.
    oldest_us: u64,
}

impl Bucket {
    fn empty() -> Self {
        Self { table: HashTable::new(), sum: 0, lapses_us: NEVER_US, oldest_us: NEVER_US }
    }
}

struct Stored {
    hash: AorHash,
    aor: Aor,
    record: Record,
    unsaved: Unsaved,
    /// It is in [`Dirty::changed`] if this is [`Dirty::turn`].
    queued: u32,
}

/// Whether a record differs from what was last taken of it for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsaved {
    No,
    Yes,
    /// Yes, and somebody waits until it is on disk: it is in [`Dirty::awaited`].
    Awaited,
}

/// Which stripes hold something for the disk, so that a commit need not lock those that do not. Marked and cleared under
/// the stripe's lock.
#[derive(Debug, Default)]
pub(super) struct DirtyStripes([AtomicU64; super::STRIPES / 64]);

impl DirtyStripes {
    fn mark(&self, stripe: usize) {
        self.0[stripe / 64].fetch_or(1 << (stripe % 64), Ordering::Release);
    }

    fn clear(&self, stripe: usize) {
        self.0[stripe / 64].fetch_and(!(1 << (stripe % 64)), Ordering::Release);
    }

    /// Those that were marked before this is asked.
    pub(super) fn stripes(&self) -> impl Iterator<Item = usize> {
        let marked = |at: &usize| self.0[at / 64].load(Ordering::Acquire) >> (at % 64) & 1 == 1;
        (0..super::STRIPES).filter(marked)
    }
}

/// AoRs for the disk to take. Bounded by the AoRs that are, and those forgotten since the last snapshot.
struct Dirty {
    /// Those that changed, oldest change first. One that was taken as awaited meanwhile stays here until all are taken.
    changed: VecDeque<Aor>,
    /// Those that somebody waits for; they are written ahead of the others.
    awaited: VecDeque<Aor>,
    /// Counts how often all were taken, from 1; at once a second, for a hundred years.
    turn: u32,
    /// What it was when a renewal of the disk began.
    renewal: u32,
    /// Where this stripe is marked while it holds any, and which one it is.
    all: Arc<DirtyStripes>,
    stripe: usize,
}

impl Dirty {
    fn new(all: Arc<DirtyStripes>, stripe: usize) -> Self {
        Self { changed: VecDeque::new(), awaited: VecDeque::new(), turn: 1, renewal: 1, all, stripe }
    }

    fn changes(&mut self, aor: Aor) {
        self.changed.push_back(aor);
        self.all.mark(self.stripe);
    }

    fn awaits(&mut self, aor: Aor) {
        self.awaited.push_back(aor);
        self.all.mark(self.stripe);
    }
}

/// How much a stripe holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) aors: u64,
    pub(super) live: u64,
    pub(super) gone: u64,
    pub(super) dirty: u64,
}

impl Stripe {
    /// `dirty` if there are snapshots, and which stripe this is.
    pub(super) fn new(dirty: Option<&Arc<DirtyStripes>>, stripe: usize) -> Self {
        Self {
            buckets: Box::default(),
            sum: 0,
            tally: Tally::default(),
            dirty: dirty.map(|all| Dirty::new(Arc::clone(all), stripe)),
            floor_us: 0,
            lapses_us: NEVER_US,
            oldest_us: NEVER_US,
        }
    }

    pub(super) fn get(&self, hash: AorHash, aor: &Aor) -> Option<&Record> {
        let bucket = self.buckets.get(place(hash))?;
        bucket.table.find(hash.low(), |stored| stored.aor == *aor).map(|stored| &stored.record)
    }

    /// Merges a delta into an AoR's record.
    pub(super) fn absorb(&mut self, digester: &Digester, hash: AorHash, aor: &Aor, delta: Record) -> Merged {
        let (oldest_us, lapses_us) = (oldest(&delta), first_lapse(&delta));
        self.oldest_us = self.oldest_us.min(oldest_us);
        self.lapses_us = self.lapses_us.min(lapses_us);
        let Self { buckets, sum, tally, dirty, .. } = self;
        if buckets.is_empty() {
            *buckets = (0..BUCKETS).map(|_| Bucket::empty()).collect();
        }
        let bucket = &mut buckets[place(hash)];
        bucket.oldest_us = bucket.oldest_us.min(oldest_us);
        bucket.lapses_us = bucket.lapses_us.min(lapses_us);
        let (stored, is_new) = match bucket.table.find_entry(hash.low(), |stored| stored.aor == *aor) {
            Ok(found) => (found.into_mut(), false),
            Err(_) if delta.is_empty() => return Merged::default(),
            Err(_) => {
                let stored = Stored { hash, aor: aor.clone(), record: Record::EMPTY, unsaved: Unsaved::No, queued: 0 };
                let slot = bucket.table.insert_unique(hash.low(), stored, |stored| stored.hash.low());
                (slot.into_mut(), true)
            }
        };
        tally.aors += u64::from(is_new);
        let mut shift = 0;
        let merged = stored.record.absorb(delta, |change| account(digester, hash, &change, &mut shift, tally));
        bucket.sum = bucket.sum.wrapping_add(shift);
        *sum = sum.wrapping_add(shift);
        if merged.changed {
            soil(stored, dirty.as_mut());
        }
        merged
    }

    /// Forgets what is at or below the floor in one AoR's record.
    pub(super) fn forget_in(&mut self, digester: &Digester, hash: AorHash, aor: &Aor, floor_us: u64) {
        let Some(bucket) = self.buckets.get(place(hash)) else { return };
        if bucket.oldest_us <= floor_us && self.get(hash, aor).is_some_and(|record| has_old(record, floor_us)) {
            self.forget_bucket(digester, place(hash), floor_us);
        }
    }

    /// Forgets what is at or below the floor in one bucket. Returns how many entries.
    pub(super) fn forget_bucket(&mut self, digester: &Digester, at: usize, floor_us: u64) -> usize {
        let Self { buckets, sum, tally, dirty, .. } = self;
        let Some(bucket) = buckets.get_mut(at).filter(|bucket| bucket.oldest_us <= floor_us) else { return 0 };
        let (mut forgotten, mut shift, mut oldest_us) = (0, 0, NEVER_US);
        bucket.table.retain(|stored| {
            if !has_old(&stored.record, floor_us) {
                oldest_us = oldest_us.min(oldest(&stored.record));
                return true;
            }
            let hash = stored.hash;
            forgotten += stored.record.forget(floor_us, |change| account(digester, hash, &change, &mut shift, tally));
            soil(stored, dirty.as_mut());
            oldest_us = oldest_us.min(oldest(&stored.record));
            let stays = !stored.record.is_empty();
            tally.aors -= u64::from(!stays);
            stays
        });
        bucket.oldest_us = oldest_us;
        bucket.sum = bucket.sum.wrapping_add(shift);
        *sum = sum.wrapping_add(shift);
        forgotten
    }

    /// Slims what lapsed at or before `lapsed_us` in one bucket. Returns how many entries. Not a change for the disk: it
    /// may keep the whole entry until it is forgotten.
    pub(super) fn slim_bucket(&mut self, digester: &Digester, at: usize, lapsed_us: u64) -> usize {
        let Self { buckets, tally, .. } = self;
        let Some(bucket) = buckets.get_mut(at).filter(|bucket| bucket.lapses_us <= lapsed_us) else { return 0 };
        let (mut slimmed, mut shift, mut lapses_us) = (0, 0, NEVER_US);
        for stored in bucket.table.iter_mut() {
            let hash = stored.hash;
            slimmed += stored.record.slim(lapsed_us, |change| account(digester, hash, &change, &mut shift, tally));
            lapses_us = lapses_us.min(first_lapse(&stored.record));
        }
        debug_assert_eq!(shift, 0, "slimming keeps every stamp");
        bucket.lapses_us = lapses_us;
        slimmed
    }

    /// Whether anything may be at or below the floor, or have lapsed.
    pub(super) fn has_due(&self, floor_us: u64, lapsed_us: u64) -> bool {
        self.oldest_us <= floor_us || self.lapses_us <= lapsed_us
    }

    /// Looks anew when the first of its buckets has something due.
    pub(super) fn note_due(&mut self) {
        self.oldest_us = self.buckets.iter().map(|bucket| bucket.oldest_us).min().unwrap_or(NEVER_US);
        self.lapses_us = self.buckets.iter().map(|bucket| bucket.lapses_us).min().unwrap_or(NEVER_US);
    }

    pub(super) fn records(&self, at: usize) -> impl Iterator<Item = (AorHash, &Aor, &Record)> {
        let bucket = self.buckets.get(at).into_iter();
        bucket.flat_map(|bucket| &bucket.table).map(|stored| (stored.hash, &stored.aor, &stored.record))
    }

    pub(super) fn bucket_sum(&self, at: usize) -> u128 {
        self.buckets.get(at).map_or(0, |bucket| bucket.sum)
    }

    pub(super) fn sum(&self) -> u128 {
        self.sum
    }

    pub(super) fn tally(&self) -> Tally {
        Tally { dirty: self.dirty() as u64, ..self.tally }
    }

    pub(super) fn dirty(&self) -> usize {
        self.dirty.as_ref().map_or(0, |dirty| dirty.changed.len() + dirty.awaited.len())
    }

    /// Makes an AoR dirty; one that is not in the table is to be deleted.
    pub(super) fn soil(&mut self, hash: AorHash, aor: &Aor) {
        let Self { buckets, dirty, .. } = self;
        match find_mut(buckets, hash, aor) {
            Some(stored) => soil(stored, dirty.as_mut()),
            None => dirty.iter_mut().for_each(|dirty| dirty.changes(aor.clone())),
        }
    }

    /// Somebody waits until what is known of an AoR is on disk.
    pub(super) fn await_on_disk(&mut self, hash: AorHash, aor: &Aor) {
        let Self { buckets, dirty, .. } = self;
        let Some(dirty) = dirty else { return };
        if let Some(stored) = find_mut(buckets, hash, aor).filter(|stored| stored.unsaved == Unsaved::Yes) {
            stored.unsaved = Unsaved::Awaited;
            dirty.awaits(aor.clone());
        }
    }

    /// Somebody waits until everything is on disk.
    pub(super) fn await_all_on_disk(&mut self, digester: &Digester) {
        let Self { buckets, dirty, .. } = self;
        let Some(Dirty { changed, awaited, .. }) = dirty else { return };
        for aor in changed.iter() {
            let stored = find_mut(buckets, digester.aor(aor), aor);
            if let Some(stored) = stored.filter(|stored| stored.unsaved == Unsaved::Yes) {
                stored.unsaved = Unsaved::Awaited;
                awaited.push_back(aor.clone());
            }
        }
    }

    /// Puts an AoR among the dirty ones again, for it was taken from them. Who waits for it is not known any more, so
    /// somebody may.
    pub(super) fn put_back(&mut self, hash: AorHash, aor: &Aor) {
        let Self { buckets, dirty, .. } = self;
        let Some(dirty) = dirty else { return };
        dirty.awaits(aor.clone());
        if let Some(stored) = find_mut(buckets, hash, aor) {
            stored.unsaved = Unsaved::Awaited;
        }
    }

    /// Makes every AoR dirty.
    pub(super) fn soil_all(&mut self) {
        let Self { buckets, dirty, .. } = self;
        for stored in buckets.iter_mut().flat_map(|bucket| bucket.table.iter_mut()) {
            soil(stored, dirty.as_mut());
        }
    }

    /// From now on what is not taken again is unrenewed.
    pub(super) fn begin_renewal(&mut self) {
        self.dirty.iter_mut().for_each(|dirty| dirty.renewal = dirty.turn);
    }

    /// Makes what lies in one bucket and was not taken since [`Stripe::begin_renewal`] dirty.
    pub(super) fn soil_unrenewed(&mut self, at: usize) {
        let Self { buckets, dirty: Some(dirty), .. } = self else { return };
        for stored in buckets.get_mut(at).into_iter().flat_map(|bucket| bucket.table.iter_mut()) {
            // Of the same turn, and clean: taken as awaited, perhaps before.
            let taken_before = stored.queued == dirty.renewal && stored.unsaved == Unsaved::No;
            if stored.queued < dirty.renewal || taken_before {
                soil(stored, Some(dirty));
            }
        }
    }

    /// Whether what is known of an AoR was changed since it was last taken for the disk.
    pub(super) fn is_unsaved(&self, hash: AorHash, aor: &Aor) -> bool {
        let bucket = self.buckets.get(place(hash));
        let stored = bucket.and_then(|bucket| bucket.table.find(hash.low(), |stored| stored.aor == *aor));
        stored.is_some_and(|stored| stored.unsaved != Unsaved::No)
    }

    /// Takes the latest change of an AoR as seen by the disk.
    pub(super) fn clean(&mut self, hash: AorHash, aor: &Aor) {
        let Self { buckets, dirty, .. } = self;
        let Some(dirty) = dirty else { return };
        if dirty.changed.pop_back_if(|last| *last == *aor).is_some()
            && let Some(stored) = find_mut(buckets, hash, aor)
        {
            (stored.unsaved, stored.queued) = (Unsaved::No, 0);
        }
    }

    /// Takes all that is dirty, what is awaited first.
    pub(super) fn take_dirty(&mut self) -> VecDeque<Aor> {
        let Some(dirty) = &mut self.dirty else { return VecDeque::new() };
        dirty.turn = dirty.turn.wrapping_add(1).max(1);
        let mut taken = std::mem::take(&mut dirty.awaited);
        taken.append(&mut dirty.changed);
        dirty.all.clear(dirty.stripe);
        taken
    }

    /// Takes what somebody waits for.
    pub(super) fn take_awaited(&mut self) -> VecDeque<Aor> {
        self.dirty.as_mut().map(|dirty| std::mem::take(&mut dirty.awaited)).unwrap_or_default()
    }

    /// Shows what is known of an AoR that was taken as dirty to `write`, for the disk: the next change makes it dirty again.
    /// `None` when it was taken once more since it was queued, and has not changed since.
    pub(super) fn take_with<T>(&mut self, hash: AorHash, aor: &Aor, write: impl FnOnce(&Record) -> T) -> Option<T> {
        let Some(stored) = find_mut(&mut self.buckets, hash, aor) else { return Some(write(&Record::EMPTY)) };
        let unsaved = std::mem::replace(&mut stored.unsaved, Unsaved::No);
        (unsaved != Unsaved::No).then(|| write(&stored.record))
    }
}

/// Where in its stripe the bucket of an AoR is.
fn place(hash: AorHash) -> usize {
    hash.bucket() as usize % BUCKETS
}

fn find_mut<'a>(buckets: &'a mut [Bucket], hash: AorHash, aor: &Aor) -> Option<&'a mut Stored> {
    buckets.get_mut(place(hash))?.table.find_mut(hash.low(), |stored| stored.aor == *aor)
}

fn soil(stored: &mut Stored, dirty: Option<&mut Dirty>) {
    let Some(dirty) = dirty else { return };
    if stored.unsaved == Unsaved::No {
        stored.unsaved = Unsaved::Yes;
    }
    if std::mem::replace(&mut stored.queued, dirty.turn) != dirty.turn {
        dirty.changes(stored.aor.clone());
    }
}

fn oldest(record: &Record) -> u64 {
    record.oldest().map_or(NEVER_US, |stamp| stamp.time_us)
}

fn has_old(record: &Record, floor_us: u64) -> bool {
    oldest(record) <= floor_us
}

fn first_lapse(record: &Record) -> u64 {
    record.entries.iter().filter_map(aorta_proto::Entry::lapses_us).min().unwrap_or(NEVER_US)
}

/// Carries one change of a record into the sum and the tally.
fn account(digester: &Digester, hash: AorHash, change: &Change<'_>, shift: &mut u128, tally: &mut Tally) {
    let (before, after) = (change.before, change.after);
    let counts = change.key.is_some() || !is(Mutant::DigestWithoutCleared);
    if counts && before.map(|mark| mark.stamp) != after.map(|mark| mark.stamp) {
        let term = |mark: aorta_proto::record::Mark| digester.term(hash, change.key, mark.stamp);
        *shift = shift.wrapping_sub(before.map_or(0, term)).wrapping_add(after.map_or(0, term));
    }
    if change.key.is_some() {
        let count = |wanted: bool, mark: Option<aorta_proto::record::Mark>| {
            u64::from(mark.is_some_and(|mark| mark.live == wanted))
        };
        tally.live = tally.live + count(true, after) - count(true, before);
        tally.gone = tally.gone + count(false, after) - count(false, before);
    }
}
