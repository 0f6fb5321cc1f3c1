//! The location service (RFC 3261 §10): AoR → [`Record`], whole, in memory. Judges no request, reads no clock, speaks to
//! nobody; [`Location::apply`] is the door for what comes from elsewhere (also [`Location::apply_sought`]), and
//! [`Location::refresh`] and [`Location::apply_parcel`] are shorter ways to what it would do.
//!
//! 65 536 buckets, chosen by the top bits of a keyed hash of the AoR, each its own small table, under 256 locks. A bucket
//! is a leaf of the digest tree, so listing one touches a few dozen records and never scans what its lock guards.
//!
//! | file | what |
//! |---|---|
//! | `mod` | reading and writing one AoR; the changes that a disk has not seen yet |
//! | `stripe` | what one lock guards: records, sums, counts |
//! | `bucket` | the few dozen records of one bucket |
//! | `packed` | a record in few bytes |
//! | `dirty` | which AoRs the disk has not taken yet |
//! | `expiry` | the floor, slimming, sweeping |
//! | `memory` | what the table takes, and for whom that leaves room |
//! | `lifetimes` | the longest lifetime among what was merged: the floor stays below it |
//! | `compare` | sums, lists and items for two nodes that compare |
//! | `parcel` | whole buckets for a table that lacks them |
//! | `sought` | AoRs that are changed one after the other |
//! | [`snapshot`] | the disk; one floor up, and the only one that does I/O |

mod bucket;
mod compare;
mod dirty;
mod expiry;
mod lifetimes;
mod memory;
mod packed;
mod parcel;
pub mod snapshot;
mod sought;
mod stripe;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aorta_proto::digest::{AorHash, BUCKETS};
use aorta_proto::mutant::{Mutant, is};
use aorta_proto::{Aor, Digester, Merged, Record, Refresh};
use parking_lot::{RwLock, RwLockWriteGuard};

use dirty::DirtyStripes;
use packed::{Glossary, Packed, Scratch, Words};
use stripe::{Stripe, Tally};

pub use dirty::AorTag;
pub use expiry::{SLIM_AFTER_LAPSE_US, Swept};
pub use memory::{Budget, Room};
pub use packed::{Contact, Known, View};
pub use parcel::Parcel;
pub use sought::{SOUGHT_AT_ONCE, Sought};

/// How many locks: many more than cores, so that two threads seldom want one.
pub const STRIPES: usize = 256;

/// Records taken for the disk under one lock: so many that a processor waits for their memory once, so few that nobody else
/// waits for the lock (some 5 µs).
const TAKEN_AT_ONCE: usize = 16;

/// The table. Shared by all threads.
pub struct Location {
    digester: Digester,
    words: Arc<Words>,
    stripes: Box<[RwLock<Stripe>]>,
    /// `None` when there are no snapshots.
    dirty: Option<Arc<DirtyStripes>>,
    /// AoRs that a snapshot took and has not flushed yet.
    unflushed: AtomicU64,
    /// What has a stamp at or below this does not exist, microseconds of cluster time.
    floor_us: AtomicU64,
    lifetimes: lifetimes::Lifetimes,
    /// The bucket that the next sweep begins with.
    sweep_at: AtomicU32,
}

/// What [`Location::apply`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// The table is not what it was.
    pub changed: bool,
    /// One stamp was found with two values, which no correct cluster makes: raise an alarm.
    pub conflict: bool,
    /// How many of the entries (`cleared` counted as one) were at or below the floor, and ignored.
    pub ignored: usize,
}

/// What the table holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// AoRs of which anything is known.
    pub aors: u64,
    /// Entries that are registered; one that lapsed since the last sweep is still counted.
    pub live: u64,
    /// Entries kept as removals.
    pub gone: u64,
    /// AoRs that changed since they were last written to disk; one may count twice, as when it changes again while it is written.
    pub dirty: u64,
    /// Memory that all this takes, bytes: as the allocator rounds each piece, and within a hundredth of what it gives out;
    /// but for texts that contacts share, 2 MiB at most.
    pub bytes: u64,
}

impl Location {
    /// An empty table whose digests are keyed with the cluster's digest key. It remembers which AoRs a snapshot has not
    /// seen only if `snapshots`: without a disk that memory would never be emptied.
    #[must_use]
    pub fn new(digest_key: [u8; 16], snapshots: bool) -> Self {
        let dirty = snapshots.then(Arc::<DirtyStripes>::default);
        let words = Arc::new(Words::new(digest_key));
        Self {
            digester: Digester::new(digest_key),
            stripes: (0..STRIPES).map(|at| RwLock::new(Stripe::new(&words, dirty.as_ref(), at))).collect(),
            words,
            dirty,
            unflushed: AtomicU64::new(0),
            floor_us: AtomicU64::new(0),
            lifetimes: lifetimes::Lifetimes::default(),
            sweep_at: AtomicU32::new(0),
        }
    }

    /// Shows `read` what is known of an AoR, `None` when nothing. Lapsed entries and removals are in it: what rings is
    /// [`Record::live`].
    pub fn get<T>(&self, aor: &Aor, read: impl FnOnce(Option<&Record>) -> T) -> T {
        let hash = self.digester.aor(aor);
        Scratch::with(|scratch| {
            let known = self.stripe(hash).read().read(hash, aor.as_str(), scratch).is_some();
            read(known.then_some(&scratch.record))
        })
    }

    /// Shows `read` the contacts of an AoR, given in its canonical text, where they are kept: nothing is copied. It runs
    /// under a lock: it must be short and must not touch this table.
    pub fn look_up<T>(&self, aor: &str, read: impl FnOnce(Option<&View<'_>>) -> T) -> T {
        let hash = self.digester.aor_text(aor);
        let stripe = self.stripe(hash).read();
        read(stripe.view(hash, aor).as_ref())
    }

    /// One critical section: `judge` sees the record (an empty one if nothing is known), draws its stamp if it needs one,
    /// and `delta` shows what of its judgement is to be merged. No other write of this AoR comes between. Neither may touch
    /// this table.
    pub fn update<T>(&self, aor: &Aor, judge: impl FnOnce(&Record) -> T, delta: impl Fn(&T) -> Option<&Record>) -> T {
        self.renew_or_update(aor, None, |_, _| None, judge, delta)
    }

    /// As [`Location::update`]; but if something is only said of a contact that is known, and nothing else of its AoR is that
    /// matters, `renew` judges by that: it completes the refresh, which names the contact and what it says (when it was
    /// written is not known to who asks), or gives `None` when it cannot judge by so little, and has then done nothing. What it
    /// writes is what `delta` shows, and is the refresh that it completed.
    pub fn renew_or_update<T>(
        &self,
        aor: &Aor,
        refresh: Option<Refresh<'_>>,
        renew: impl FnOnce(&Known, &mut Refresh<'_>) -> Option<T>,
        judge: impl FnOnce(&Record) -> T,
        delta: impl Fn(&T) -> Option<&Record>,
    ) -> T {
        let hash = self.digester.aor(aor);
        let mut stripe = self.stripe(hash).write();
        Scratch::with(|scratch| {
            let found = stripe.find(hash, aor.as_str());
            if let Some((mut refresh, at)) = refresh.zip(found) {
                let (refresh, writes) = ((&mut refresh, self.floor_us()), |judged: &T| delta(judged).is_some());
                if let Some(judged) = stripe.renew(&self.digester, (hash, at), refresh, scratch, renew, writes) {
                    return judged;
                }
            }
            let at = stripe.read_settled(&self.digester, (hash, aor.as_str()), (found, self.floor_us()), scratch);
            let answer = judge(&scratch.record);
            let Some(delta) = delta(&answer) else { return answer };
            let refreshed = at.zip(Refresh::of(delta)).is_some_and(|(at, refresh)| {
                stripe.refresh(&self.digester, (hash, at), (&refresh, self.floor_us()), scratch)
            });
            if !refreshed {
                stripe.absorb(&self.digester, (hash, aor.as_str()), (at, scratch), delta);
            }
            answer
        })
    }

    /// Merges what came from elsewhere: a delta, a repair, a donor's chunk. What is at or below the floor is ignored,
    /// whoever sends it.
    pub fn apply(&self, aor: &Aor, delta: Record) -> Applied {
        self.apply_sought(&self.seek(aor.as_str()), delta)
    }

    /// [`Location::apply`] for an AoR that was sought already.
    pub fn apply_sought(&self, sought: &Sought<'_>, delta: Record) -> Applied {
        let Sought { aor, hash } = *sought;
        let mut stripe = self.stripe(hash).write();
        let applied = self.apply_locked(&mut stripe, hash, aor, delta);
        give_back(stripe);
        applied
    }

    /// As [`Location::apply`] of the same delta, which changed the table then and was no conflict, but faster: `true` when it only
    /// says of a contact that is known here that it goes on. Otherwise nothing is done.
    #[must_use]
    pub fn refresh(&self, sought: &Sought<'_>, refresh: &Refresh<'_>) -> bool {
        let Sought { aor, hash } = *sought;
        let mut stripe = self.stripe(hash).write();
        let Some(at) = stripe.find(hash, aor) else { return false };
        // Read under the lock, as in `apply_locked`.
        let floor_us = self.floor_us();
        let merge = |scratch: &mut Scratch| stripe.refresh(&self.digester, (hash, at), (refresh, floor_us), scratch);
        let refreshed = refresh.stamp.time_us > floor_us && Scratch::with(merge);
        if refreshed {
            self.lifetimes.merge(refresh.binding.granted_s);
        }
        refreshed
    }

    /// [`Location::apply`] for a record read from this node's own disk: it becomes dirty only where the disk differs from
    /// the table afterwards.
    pub fn restore(&self, aor: &Aor, mut record: Record) -> Applied {
        if is(Mutant::RemovalsSkippedAtLoad) {
            record.cleared = None;
            record.entries.retain(|entry| entry.binding().is_some());
        }
        if is(Mutant::CseqLostAtLoad) {
            let gone = record.entries.iter_mut().filter(|entry| entry.binding().is_none());
            gone.for_each(|entry| entry.cseq = 0);
        }
        let hash = self.digester.aor(aor);
        let mut stripe = self.stripe(hash).write();
        let all_from_disk = !stripe.is_unsaved(hash, aor);
        let applied = self.apply_locked(&mut stripe, hash, aor.as_str(), record);
        if all_from_disk && applied.ignored == 0 {
            stripe.clean(hash, aor.as_str());
        } else {
            stripe.soil(hash, aor);
        }
        applied
    }

    /// [`Location::restore`] of a record as [`Packed::told`] gave it, in words that the glossary explains. Returns its latest
    /// stamp, cluster time in microseconds; `None` when it is no such record.
    fn restore_told(&self, told: &[u8], glossary: (&mut Glossary, &[u8])) -> Option<u64> {
        let (aor, record) = Scratch::with(|scratch| {
            scratch.transcribe(told, glossary, &self.words)?;
            Some((Aor::from_canonical(&scratch.aor), scratch.record.clone()))
        })?;
        let latest_us = record.latest().map_or(0, |stamp| stamp.time_us);
        self.restore(&aor, record);
        Some(latest_us)
    }

    /// What the table holds now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for stripe in &self.stripes {
            let Tally { aors, live, gone, dirty, bytes } = stripe.read().tally();
            counts.aors += aors;
            counts.live += live;
            counts.gone += gone;
            counts.dirty += dirty;
            counts.bytes += bytes;
        }
        // After the stripes, from which they are taken.
        counts.dirty += self.unflushed.load(Ordering::Acquire);
        counts
    }

    /// Every AoR that changed since it was last taken, for a snapshot, what is awaited first; one may be in it twice. Whoever
    /// takes them asks [`Location::take_records`] for each, or gives them back with [`Location::put_back`] if they could not
    /// be written.
    #[must_use]
    pub fn take_dirty(&self) -> Vec<AorTag> {
        let mut dirty = Vec::new();
        for stripe in self.dirty_stripes() {
            let taken = stripe.write().take_dirty();
            dirty.extend(taken);
            // Of a table that has just come it takes milliseconds: phones go first.
            std::thread::yield_now();
        }
        dirty
    }

    /// So many of those that a snapshot took, or is about to take, are not on disk yet: they count as dirty.
    fn note_unflushed(&self, count: u64) {
        self.unflushed.store(count, Ordering::Release);
    }

    /// Somebody waits until what is known of an AoR is on disk: if it is not, it is among the next that
    /// [`Location::take_awaited`] gives.
    pub fn await_on_disk(&self, aor: &str) {
        let hash = self.digester.aor_text(aor);
        self.stripe(hash).write().await_on_disk(hash, aor);
    }

    /// Somebody waits until all that is known is on disk.
    pub fn await_all_on_disk(&self) {
        for stripe in self.dirty_stripes() {
            stripe.write().await_all_on_disk();
        }
    }

    /// As [`Location::take_dirty`], but only those that somebody waits for: a commit must not wait behind a whole table.
    #[must_use]
    pub fn take_awaited(&self) -> Vec<AorTag> {
        self.dirty_stripes().flat_map(|stripe| stripe.write().take_awaited()).collect()
    }

    /// What is known of an AoR that was taken as dirty, and of others with its tag; nothing when its latest change was taken
    /// already, or all of it was forgotten. A later change makes it dirty again.
    #[must_use]
    pub fn take_records(&self, tag: AorTag) -> Vec<(Aor, Record)> {
        let mut records = Vec::new();
        let mut stripe = self.tagged(tag).write();
        Scratch::with(|scratch| {
            stripe.take_each(tag, |packed| {
                packed.read_all(&self.words, scratch);
                records.push((Aor::from_canonical(&scratch.aor), scratch.record.clone()));
            });
        });
        records
    }

    /// As [`Location::take_records`] of the first few of these tags, as the table keeps them. They are shown to `write` under a
    /// lock: it must be short, must not touch this table, and says whether it takes another. Returns how many tags are done.
    fn take_packed(&self, tags: &[AorTag], mut write: impl FnMut(&Packed) -> bool) -> usize {
        let Some(first) = tags.first() else { return 0 };
        let mut stripe = self.tagged(*first).write();
        let beside = |tag: &&AorTag| stripe::locate(tag.bucket()).0 == stripe::locate(first.bucket()).0;
        let mut taken = tags.iter().take(TAKEN_AT_ONCE).take_while(beside).count();
        stripe::touch(tags[..taken].iter().map(|tag| (&*stripe, *tag)));
        for (at, tag) in (1..).zip(&tags[..taken]) {
            let mut goes_on = true;
            stripe.take_each(*tag, |packed| goes_on &= write(packed));
            if !goes_on {
                taken = at;
                break;
            }
        }
        give_back(stripe);
        taken
    }

    /// Makes AoRs dirty again that were taken and could not be written.
    pub fn put_back(&self, tags: &[AorTag]) {
        for tag in tags {
            self.tagged(*tag).write().put_back(*tag);
        }
    }

    /// Makes every AoR dirty: the disk lost what it had.
    fn soil_all(&self) {
        for bucket in 0..BUCKETS {
            self.stripes[stripe::locate(bucket).0].write().soil_bucket(bucket);
        }
    }

    /// From now on a record that is not taken again is unrenewed.
    fn begin_renewal(&self) {
        for stripe in &self.stripes {
            stripe.write().begin_renewal();
        }
    }

    /// Makes dirty what lies in these buckets and was not taken since [`Location::begin_renewal`].
    fn soil_unrenewed(&self, buckets: std::ops::Range<u32>) {
        for bucket in buckets {
            self.stripes[stripe::locate(bucket).0].write().soil_unrenewed(bucket);
        }
    }

    fn apply_locked(&self, stripe: &mut Stripe, hash: AorHash, aor: &str, mut delta: Record) -> Applied {
        // Read under the lock: whoever raises the floor later finds what is merged here, whoever settled this stripe
        // earlier had raised it before.
        let floor_us = self.floor_us();
        let size = |record: &Record| record.entries.len() + usize::from(record.cleared.is_some());
        let before = size(&delta);
        if !is(Mutant::FloorLetsIn) {
            delta.forget(floor_us, |_| {});
        }
        let ignored = before - size(&delta);
        if delta.is_empty() {
            return Applied { ignored, ..Applied::default() };
        }
        self.note_lifetimes(&delta);
        let Merged { changed, conflict } = Scratch::with(|scratch| {
            let found = stripe.find(hash, aor);
            let at = stripe.read_settled(&self.digester, (hash, aor), (found, floor_us), scratch);
            stripe.absorb(&self.digester, (hash, aor), (at, scratch), &delta)
        });
        if is(Mutant::ForeignUnwritten) {
            stripe.clean(hash, aor);
        }
        Applied { changed, conflict, ignored }
    }

    /// What a record grants is merged in a moment.
    fn note_lifetimes(&self, record: &Record) {
        let granted = record.entries.iter().filter_map(|entry| entry.binding());
        if let Some(longest_s) = granted.map(|binding| binding.granted_s).max() {
            self.lifetimes.merge(longest_s);
        }
    }

    fn stripe(&self, hash: AorHash) -> &RwLock<Stripe> {
        &self.stripes[stripe::locate(hash.bucket()).0]
    }

    fn tagged(&self, tag: AorTag) -> &RwLock<Stripe> {
        &self.stripes[stripe::locate(tag.bucket()).0]
    }

    /// Those in which something may be dirty.
    fn dirty_stripes(&self) -> impl Iterator<Item = &RwLock<Stripe>> {
        self.dirty.iter().flat_map(|dirty| dirty.stripes()).map(|at| &self.stripes[at])
    }

    fn load_floor(&self) -> u64 {
        self.floor_us.load(Ordering::Acquire)
    }
}

/// Unlocks a stripe for who waits for it. Whoever works through a table (an exchange, a snapshot) comes back to the same stripe
/// at once, thousands of times, and is awake: it would have the lock again before a phone's thread that waits for it has
/// woken up, for milliseconds.
fn give_back(stripe: RwLockWriteGuard<'_, Stripe>) {
    RwLockWriteGuard::unlock_fair(stripe);
}

impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Location").field("counts", &self.counts()).field("floor_us", &self.load_floor()).finish()
    }
}
