//! What one lock guards: 256 buckets with their tables and sums, kept in step at every change. Takes no lock itself.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;

use aorta_proto::digest::AorHash;
use aorta_proto::mutant::{Mutant, is, is_any};
use aorta_proto::record::Change;
use aorta_proto::{Aor, ContactKey, Digester, Merged, Record, Refresh, Stamp};

use super::bucket::{Bucket, NEVER_US};
use super::dirty::{AorTag, Dirty, DirtyStripes};
use super::memory::taken;
use super::packed::{Known, Packed, Scratch, Unsaved, View, Words};

/// Buckets under one lock.
pub(super) const BUCKETS: usize = aorta_proto::digest::BUCKETS as usize / super::STRIPES;

/// 256 buckets.
pub(super) struct Stripe {
    /// None at all until something is put here: a table that holds little costs little.
    buckets: Box<[Bucket]>,
    words: Arc<Words>,
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

/// How much a stripe holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) aors: u64,
    pub(super) live: u64,
    pub(super) gone: u64,
    pub(super) dirty: u64,
    /// Memory that it takes, as the allocator rounds each piece.
    pub(super) bytes: u64,
}

impl Tally {
    /// A piece of memory took `before` bytes and takes `after`.
    fn resize(&mut self, before: u64, after: u64) {
        self.bytes = self.bytes + after - before;
    }
}

impl Stripe {
    /// `dirty` if there are snapshots, and which stripe this is.
    pub(super) fn new(words: &Arc<Words>, dirty: Option<&Arc<DirtyStripes>>, stripe: usize) -> Self {
        Self {
            buckets: Box::default(),
            words: Arc::clone(words),
            sum: 0,
            tally: Tally::default(),
            dirty: dirty.map(|all| Dirty::new(Arc::clone(all), stripe)),
            floor_us: 0,
            lapses_us: NEVER_US,
            oldest_us: NEVER_US,
        }
    }

    /// What is known of an AoR, into `scratch`: where it is, `None` when nothing is known.
    pub(super) fn read(&self, hash: AorHash, aor: &str, scratch: &mut Scratch) -> Option<usize> {
        self.read_at(hash, self.find(hash, aor), scratch)
    }

    fn read_at(&self, hash: AorHash, at: Option<usize>, scratch: &mut Scratch) -> Option<usize> {
        scratch.clear();
        let at = at?;
        self.buckets[place(hash)].records[at].read(&self.words, scratch);
        Some(at)
    }

    /// Where what is known of an AoR is in its bucket.
    pub(super) fn find(&self, hash: AorHash, aor: &str) -> Option<usize> {
        self.buckets.get(place(hash))?.find(&self.words, hash, aor)
    }

    /// [`Stripe::read`] of what was [found](Stripe::find), after what is at or below the floor was forgotten.
    pub(super) fn read_settled(
        &mut self,
        digester: &Digester,
        (hash, aor): (AorHash, &str),
        (found, floor_us): (Option<usize>, u64),
        scratch: &mut Scratch,
    ) -> Option<usize> {
        let at = self.read_at(hash, found, scratch)?;
        if !has_old(&scratch.record, floor_us) {
            return Some(at);
        }
        self.forget_bucket(digester, place(hash), floor_us);
        self.read(hash, aor, scratch)
    }

    /// What is known of an AoR, where it is.
    pub(super) fn view(&self, hash: AorHash, aor: &str) -> Option<View<'_>> {
        let at = self.find(hash, aor)?;
        Some(self.buckets[place(hash)].records[at].view(&self.words))
    }

    /// Merges a delta into the record at a place where one was [found](Stripe::find), if it only
    /// [refreshes](Scratch::refresh) a contact there. Otherwise `false`, and nothing has changed.
    pub(super) fn refresh(
        &mut self,
        digester: &Digester,
        (hash, at): (AorHash, usize),
        (refresh, floor_us): (&Refresh<'_>, u64),
        scratch: &mut Scratch,
    ) -> bool {
        if is_any() {
            // A deliberate fault lies in the long way.
            return false;
        }
        let packed = &mut self.buckets[place(hash)].records[at];
        let taken = packed.taken();
        let Some(before) = scratch.refresh(&self.words, packed, refresh, floor_us) else { return false };
        self.refreshed(digester, (hash, at), refresh, (before, taken));
        true
    }

    /// Refreshes a contact in the record at a place where one was [found](Stripe::find), as [`Scratch::renew`] does.
    pub(super) fn renew<T>(
        &mut self,
        digester: &Digester,
        (hash, at): (AorHash, usize),
        (refresh, floor_us): (&mut Refresh<'_>, u64),
        scratch: &mut Scratch,
        judge: impl FnOnce(&Known, &mut Refresh<'_>) -> Option<T>,
        writes: impl FnOnce(&T) -> bool,
    ) -> Option<T> {
        if is_any() {
            return None;
        }
        let packed = &mut self.buckets[place(hash)].records[at];
        let taken = packed.taken();
        let (judged, before) = scratch.renew((&self.words, packed), (refresh, floor_us), judge, writes)?;
        if let Some(before) = before {
            self.refreshed(digester, (hash, at), refresh, (before, taken));
        }
        Some(judged)
    }

    /// Carries a refresh into sums, counts and queues, of a contact that had another stamp before in a record that took so many
    /// bytes.
    fn refreshed(
        &mut self,
        digester: &Digester,
        (hash, at): (AorHash, usize),
        refresh: &Refresh<'_>,
        (before, taken): (Stamp, u64),
    ) {
        let Self { buckets, sum, tally, dirty, .. } = self;
        let bucket = &mut buckets[place(hash)];
        let packed = &mut bucket.records[at];
        tally.resize(taken, packed.taken());
        soil(AorTag::of(hash), packed, dirty.as_mut());
        let shift = digester.shift(hash, Some(refresh.key), Some(before), Some(refresh.stamp));
        bucket.shift(sum, shift);
        self.note(place(hash), refresh.stamp.time_us, refresh.lapses_us());
    }

    /// Something in a bucket has this stamp, and lapses then.
    fn note(&mut self, at: usize, oldest_us: u64, lapses_us: u64) {
        self.oldest_us = self.oldest_us.min(oldest_us);
        self.lapses_us = self.lapses_us.min(lapses_us);
        if let Some(bucket) = self.buckets.get_mut(at) {
            bucket.oldest_us = bucket.oldest_us.min(oldest_us);
            bucket.lapses_us = bucket.lapses_us.min(lapses_us);
        }
    }

    /// Merges a delta into an AoR's record, which was just [`Stripe::read`] from `at`.
    pub(super) fn absorb(
        &mut self,
        digester: &Digester,
        (hash, aor): (AorHash, &str),
        (at, scratch): (Option<usize>, &mut Scratch),
        delta: &Record,
    ) -> Merged {
        self.begin(hash, delta);
        let Self { buckets, sum, tally, dirty, words, .. } = self;
        let bucket = &mut buckets[place(hash)];
        let mut shift = 0;
        let merged = scratch.record.absorb(delta, |change| account(digester, hash, &change, &mut shift, tally));
        if !merged.changed {
            return merged;
        }
        bucket.shift(sum, shift);
        let at = match at {
            Some(at) => {
                let packed = &mut bucket.records[at];
                let before = packed.taken();
                scratch.pack_again(words, aor, packed);
                tally.resize(before, packed.taken());
                at
            }
            None => add(bucket, scratch.pack(words, aor, AorTag::of(hash).piece()), tally),
        };
        soil(AorTag::of(hash), &mut bucket.records[at], dirty.as_mut());
        merged
    }

    /// Puts a record that was just [transcribed](Scratch::transcribe) under an AoR of which nothing is known.
    pub(super) fn add(&mut self, digester: &Digester, hash: AorHash, scratch: &Scratch) {
        self.begin(hash, &scratch.record);
        let Self { buckets, sum, tally, dirty, .. } = self;
        let bucket = &mut buckets[place(hash)];
        let mut shift = 0;
        scratch.record.steps(|change| account(digester, hash, &change, &mut shift, tally));
        bucket.shift(sum, shift);
        let at = add(bucket, scratch.packed(AorTag::of(hash).piece()), tally);
        soil(AorTag::of(hash), &mut bucket.records[at], dirty.as_mut());
    }

    /// Before something of an AoR is merged: there are buckets, and they know when something of it is due.
    fn begin(&mut self, hash: AorHash, delta: &Record) {
        if self.buckets.is_empty() {
            self.buckets = (0..BUCKETS).map(|_| Bucket::empty()).collect();
            self.tally.resize(0, taken(size_of_val(&*self.buckets)) as u64);
        }
        self.note(place(hash), oldest(delta), first_lapse(delta));
    }

    /// Forgets what is at or below the floor in one bucket. Returns how many entries.
    pub(super) fn forget_bucket(&mut self, digester: &Digester, at: usize, floor_us: u64) -> usize {
        let Self { buckets, sum, tally, dirty, words, .. } = self;
        let Some(bucket) = buckets.get_mut(at).filter(|bucket| bucket.oldest_us <= floor_us) else { return 0 };
        let (mut forgotten, mut shift, mut oldest_us) = (0, 0, NEVER_US);
        Scratch::with(|scratch| {
            let places = bucket.places_taken();
            // From the end: the last one takes the place of one that goes.
            for at in (0..bucket.records.len()).rev() {
                bucket.records[at].read_all(words, scratch);
                if has_old(&scratch.record, floor_us) {
                    let hash = digester.aor_text(&scratch.aor);
                    let note = |change: Change<'_>| account(digester, hash, &change, &mut shift, tally);
                    forgotten += scratch.record.forget(floor_us, note);
                    let before = bucket.records[at].taken();
                    if scratch.record.is_empty() {
                        tally.aors -= 1;
                        tally.resize(before, 0);
                        bucket.remove(at);
                        continue;
                    }
                    soil(AorTag::of(hash), &mut bucket.records[at], dirty.as_mut());
                    scratch.pack_read(words, &mut bucket.records[at]);
                    tally.resize(before, bucket.records[at].taken());
                }
                oldest_us = oldest_us.min(oldest(&scratch.record));
            }
            tally.resize(places, bucket.places_taken());
        });
        bucket.oldest_us = oldest_us;
        bucket.shift(sum, shift);
        forgotten
    }

    /// Slims what lapsed at or before `lapsed_us` in one bucket. Returns how many entries. Not a change for the disk: it
    /// may keep the whole entry until it is forgotten.
    pub(super) fn slim_bucket(&mut self, digester: &Digester, at: usize, lapsed_us: u64) -> usize {
        let Self { buckets, tally, words, .. } = self;
        let Some(bucket) = buckets.get_mut(at).filter(|bucket| bucket.lapses_us <= lapsed_us) else { return 0 };
        let (mut slimmed, mut shift, mut lapses_us) = (0, 0, NEVER_US);
        Scratch::with(|scratch| {
            for packed in &mut bucket.records {
                packed.read_all(words, scratch);
                if first_lapse(&scratch.record) <= lapsed_us {
                    let hash = digester.aor_text(&scratch.aor);
                    let note = |change: Change<'_>| account(digester, hash, &change, &mut shift, tally);
                    slimmed += scratch.record.slim(lapsed_us, note);
                    let before = packed.taken();
                    scratch.pack_read(words, packed);
                    tally.resize(before, packed.taken());
                }
                lapses_us = lapses_us.min(first_lapse(&scratch.record));
            }
        });
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

    /// Shows every record of a bucket.
    pub(super) fn each(&self, at: usize, mut show: impl FnMut(&str, &Record)) {
        let Some(bucket) = self.buckets.get(at) else { return };
        Scratch::with(|scratch| {
            for packed in &bucket.records {
                packed.read_all(&self.words, scratch);
                show(&scratch.aor, &scratch.record);
            }
        });
    }

    /// Shows every record of a bucket as it is kept. Their memory comes for all of them at once, as in [`touch`].
    pub(super) fn each_packed(&self, at: usize, show: impl FnMut(&[u8])) {
        let Some(bucket) = self.buckets.get(at) else { return };
        black_box(bucket.records.iter().map(Packed::touch).fold(0, u8::wrapping_add));
        bucket.records.iter().map(Packed::told).for_each(show);
    }

    pub(super) fn bucket_sum(&self, at: usize) -> u128 {
        self.buckets.get(at).map_or(0, |bucket| bucket.sum)
    }

    pub(super) fn sum(&self) -> u128 {
        self.sum
    }

    pub(super) fn tally(&self) -> Tally {
        let queues = self.dirty.as_ref().map_or(0, Dirty::taken);
        Tally { dirty: self.dirty() as u64, bytes: self.tally.bytes + queues, ..self.tally }
    }

    /// [`Tally::bytes`] counted anew.
    #[cfg(test)]
    pub(super) fn recounted_bytes(&self) -> u64 {
        let of = |bucket: &Bucket| bucket.places_taken() + bucket.records.iter().map(Packed::taken).sum::<u64>();
        let buckets: u64 = self.buckets.iter().map(of).sum();
        let queues = self.dirty.as_ref().map_or(0, Dirty::taken);
        taken(size_of_val(&*self.buckets)) as u64 + buckets + queues
    }

    pub(super) fn dirty(&self) -> usize {
        self.dirty.as_ref().map_or(0, Dirty::len)
    }

    /// Makes what is known of an AoR dirty.
    pub(super) fn soil(&mut self, hash: AorHash, aor: &Aor) {
        let Self { buckets, words, dirty, .. } = self;
        if let Some(packed) = find_mut(buckets, words, hash, aor.as_str()) {
            soil(AorTag::of(hash), packed, dirty.as_mut());
        }
    }

    /// Somebody waits until what is known of an AoR is on disk.
    pub(super) fn await_on_disk(&mut self, hash: AorHash, aor: &str) {
        let Self { buckets, words, dirty: Some(dirty), .. } = self else { return };
        if let Some(packed) = find_mut(buckets, words, hash, aor) {
            dirty.awaits(AorTag::of(hash), packed);
        }
    }

    /// Somebody waits until everything is on disk.
    pub(super) fn await_all_on_disk(&mut self) {
        let Self { buckets, dirty: Some(dirty), .. } = self else { return };
        for tag in dirty.changed() {
            tagged(buckets, tag).for_each(|packed| dirty.awaits(tag, packed));
        }
    }

    /// Puts an AoR among the dirty ones again, for it was taken from them.
    pub(super) fn put_back(&mut self, tag: AorTag) {
        let Self { buckets, dirty: Some(dirty), .. } = self else { return };
        tagged(buckets, tag).for_each(|packed| dirty.put_back(tag, packed));
    }

    /// Makes every AoR of one bucket dirty.
    pub(super) fn soil_bucket(&mut self, bucket: u32) {
        self.soil_some(bucket, |_, _| true);
    }

    /// From now on what is not taken again is unrenewed. The last renewal took everything.
    pub(super) fn begin_renewal(&mut self) {
        self.dirty.iter_mut().for_each(Dirty::begin_renewal);
    }

    /// Makes what lies in one bucket and was not taken since [`Stripe::begin_renewal`] dirty.
    pub(super) fn soil_unrenewed(&mut self, bucket: u32) {
        self.soil_some(bucket, Dirty::is_unrenewed);
    }

    fn soil_some(&mut self, number: u32, which: impl Fn(&Dirty, &Packed) -> bool) {
        let Self { buckets, dirty: Some(dirty), .. } = self else { return };
        let Some(bucket) = buckets.get_mut(locate(number).1) else { return };
        for packed in &mut bucket.records {
            if which(dirty, packed) {
                dirty.soil(AorTag::new(number, packed.piece), packed);
            }
        }
    }

    /// Whether what is known of an AoR was changed since it was last taken for the disk.
    pub(super) fn is_unsaved(&self, hash: AorHash, aor: &Aor) -> bool {
        let at = self.find(hash, aor.as_str());
        at.is_some_and(|at| self.buckets[place(hash)].records[at].unsaved != Unsaved::No)
    }

    /// Takes the latest change of an AoR, which was not dirty before it, as seen by the disk.
    pub(super) fn clean(&mut self, hash: AorHash, aor: &str) {
        let Self { buckets, words, dirty: Some(dirty), .. } = self else { return };
        if let Some(packed) = find_mut(buckets, words, hash, aor) {
            dirty.clean(AorTag::of(hash), packed);
        }
    }

    /// Takes all that is dirty, what is awaited first.
    pub(super) fn take_dirty(&mut self) -> VecDeque<AorTag> {
        self.dirty.as_mut().map(Dirty::take).unwrap_or_default()
    }

    /// Takes what somebody waits for.
    pub(super) fn take_awaited(&mut self) -> VecDeque<AorTag> {
        self.dirty.as_mut().map(Dirty::take_awaited).unwrap_or_default()
    }

    /// Gives `write` what is known of those that were taken as dirty under a tag, for the disk: the next change makes them
    /// dirty again. Leaves out what was taken once more since it was queued, and has not changed since.
    pub(super) fn take_each(&mut self, tag: AorTag, mut write: impl FnMut(&Packed)) {
        let Self { buckets, dirty: Some(dirty), .. } = self else { return };
        for packed in tagged(buckets, tag) {
            if dirty.takes(packed) {
                write(packed);
            }
        }
    }
}

/// Looks at what tags name, for whoever takes or changes them in a moment: memory that is in no cache comes for all of them at
/// once, for no look waits for the one before.
pub(super) fn touch<'a>(tagged: impl Iterator<Item = (&'a Stripe, AorTag)> + Clone) {
    let bucket = |(stripe, tag): (&'a Stripe, AorTag)| Some((stripe.buckets.get(locate(tag.bucket()).1)?, tag.piece()));
    let buckets = || tagged.clone().filter_map(bucket);
    let records = || buckets().filter_map(|(bucket, piece)| bucket.records.iter().find(|record| record.piece == piece));
    black_box(buckets().map(|(bucket, _)| bucket.records.len()).sum::<usize>());
    black_box(buckets().filter_map(|(bucket, _)| Some(bucket.records.first()?.piece)).fold(0, u16::wrapping_add));
    black_box(records().map(Packed::touch).fold(0, u8::wrapping_add));
}

/// Which stripe a bucket is in, and where there.
pub(super) fn locate(bucket: u32) -> (usize, usize) {
    (bucket as usize / BUCKETS, bucket as usize % BUCKETS)
}

/// Where in its stripe the bucket of an AoR is.
fn place(hash: AorHash) -> usize {
    locate(hash.bucket()).1
}

fn find_mut<'a>(buckets: &'a mut [Bucket], words: &Words, hash: AorHash, aor: &str) -> Option<&'a mut Packed> {
    let bucket = buckets.get_mut(place(hash))?;
    let at = bucket.find(words, hash, aor)?;
    bucket.records.get_mut(at)
}

/// All records that a tag names, seldom more than one.
fn tagged(buckets: &mut [Bucket], tag: AorTag) -> impl Iterator<Item = &mut Packed> {
    buckets.get_mut(locate(tag.bucket()).1).into_iter().flat_map(move |bucket| bucket.tagged(tag))
}

/// Adds the record of another AoR to a bucket; where it is.
fn add(bucket: &mut Bucket, record: Packed, tally: &mut Tally) -> usize {
    let (before, taken) = (bucket.places_taken(), record.taken());
    let at = bucket.add(record);
    tally.aors += 1;
    tally.resize(before, bucket.places_taken() + taken);
    at
}

fn soil(tag: AorTag, packed: &mut Packed, dirty: Option<&mut Dirty>) {
    if let Some(dirty) = dirty {
        dirty.soil(tag, packed);
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
    let (old, new) = (before.map(|mark| mark.stamp), after.map(|mark| mark.stamp));
    if counts && old != new {
        *shift = shift.wrapping_add(digester.shift(hash, change.key.map(ContactKey::as_bytes), old, new));
    }
    if change.key.is_some() {
        let count = |wanted: bool, mark: Option<aorta_proto::record::Mark>| {
            u64::from(mark.is_some_and(|mark| mark.live == wanted))
        };
        tally.live = tally.live + count(true, after) - count(true, before);
        tally.gone = tally.gone + count(false, after) - count(false, before);
    }
}
