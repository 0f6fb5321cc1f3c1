//! What changed in a stripe since the disk last took it. Holds no record: it names each by a few bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aorta_proto::digest::AorHash;

use super::STRIPES;
use super::memory::taken;
use super::packed::{Packed, Unsaved};

/// Names an AoR for as long as it takes to write it: its bucket, and a piece of its hash. Seldom others of the bucket have
/// the same, and then whatever is done to one is done to all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AorTag(u32);

impl AorTag {
    pub(super) fn of(hash: AorHash) -> Self {
        Self(hash.bucket() << 16 | u32::from(hash.low() as u16))
    }

    pub(super) fn new(bucket: u32, piece: u16) -> Self {
        Self(bucket << 16 | u32::from(piece))
    }

    pub(super) fn bucket(self) -> u32 {
        self.0 >> 16
    }

    /// What tells it from others of its bucket.
    pub(super) fn piece(self) -> u16 {
        self.0 as u16
    }
}

/// Which stripes hold something for the disk, so that a commit need not lock those that do not. Marked and cleared under
/// the stripe's lock.
#[derive(Debug, Default)]
pub(super) struct DirtyStripes([AtomicU64; STRIPES / 64]);

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
        (0..STRIPES).filter(marked)
    }
}

/// AoRs for the disk to take. Bounded by the AoRs that are, and those forgotten since the last snapshot.
pub(super) struct Dirty {
    /// Those that changed, oldest change first. One that was taken as awaited meanwhile stays here until all are taken.
    changed: VecDeque<AorTag>,
    /// Those that somebody waits for; they are written ahead of the others.
    awaited: VecDeque<AorTag>,
    /// Counts how often all were taken, from 1 to 255 and round again: what was taken is asked for, or put back, before
    /// that many others were.
    turn: u8,
    /// Which renewal of the disk is under way, or was the last: every other one is alike.
    renewal: bool,
    /// Where this stripe is marked while it holds any, and which one it is.
    all: Arc<DirtyStripes>,
    stripe: usize,
}

/// Places for AoRs that a stripe keeps from one snapshot to the next: what fills a table at once needs more, and gives it back.
const CHANGED_KEPT: usize = 1024;

impl Dirty {
    pub(super) fn new(all: Arc<DirtyStripes>, stripe: usize) -> Self {
        Self { changed: VecDeque::new(), awaited: VecDeque::new(), turn: 1, renewal: false, all, stripe }
    }

    /// How many there are; one that is awaited may count twice.
    pub(super) fn len(&self) -> usize {
        self.changed.len() + self.awaited.len()
    }

    /// What it takes of memory, bytes.
    pub(super) fn taken(&self) -> u64 {
        let places = |tags: &VecDeque<AorTag>| taken(tags.capacity() * size_of::<AorTag>()) as u64;
        places(&self.changed) + places(&self.awaited)
    }

    /// A record was changed, or has to be written for another reason.
    pub(super) fn soil(&mut self, tag: AorTag, packed: &mut Packed) {
        if packed.unsaved == Unsaved::No {
            packed.unsaved = Unsaved::Yes;
        }
        if packed.turn != self.turn {
            packed.turn = self.turn;
            self.changed.push_back(tag);
            self.all.mark(self.stripe);
        }
    }

    /// The latest change of a record, by which it became dirty, is none for the disk.
    pub(super) fn clean(&mut self, tag: AorTag, packed: &mut Packed) {
        if packed.unsaved != Unsaved::No && self.changed.pop_back_if(|last| *last == tag).is_some() {
            packed.unsaved = Unsaved::No;
            packed.turn = 0;
        }
    }

    /// Somebody waits until a record is on disk.
    pub(super) fn awaits(&mut self, tag: AorTag, packed: &mut Packed) {
        if packed.unsaved == Unsaved::Yes {
            packed.unsaved = Unsaved::Awaited;
            self.awaited.push_back(tag);
            self.all.mark(self.stripe);
        }
    }

    /// Those that changed, for whoever awaits all of them.
    pub(super) fn changed(&self) -> impl ExactSizeIterator<Item = AorTag> + use<> {
        self.changed.clone().into_iter()
    }

    /// A record that was taken and could not be written. Who waits for it is not known any more, so somebody may.
    pub(super) fn put_back(&mut self, tag: AorTag, packed: &mut Packed) {
        packed.unsaved = Unsaved::Yes;
        self.awaits(tag, packed);
        self.took(packed);
    }

    /// Takes all, what is awaited first.
    pub(super) fn take(&mut self) -> VecDeque<AorTag> {
        self.turn = self.turn.wrapping_add(1).max(1);
        let mut taken = std::mem::take(&mut self.awaited);
        taken.append(&mut self.changed);
        self.changed.shrink_to(CHANGED_KEPT);
        self.all.clear(self.stripe);
        taken
    }

    /// Takes what somebody waits for.
    pub(super) fn take_awaited(&mut self) -> VecDeque<AorTag> {
        std::mem::take(&mut self.awaited)
    }

    /// Whether a record that was among those taken is to be written: not if it was taken once more since, and has not
    /// changed. From now on the next change makes it dirty.
    pub(super) fn takes(&self, packed: &mut Packed) -> bool {
        self.took(packed);
        let takes = packed.unsaved != Unsaved::No;
        if takes {
            packed.unsaved = Unsaved::No;
            packed.renewal = self.renewal;
        }
        takes
    }

    /// A record that was queued in an earlier turn is not queued any more.
    fn took(&self, packed: &mut Packed) {
        if packed.turn != self.turn {
            packed.turn = 0;
        }
    }

    /// From now on what is not taken again is unrenewed. The last renewal took everything.
    pub(super) fn begin_renewal(&mut self) {
        self.renewal = !self.renewal;
    }

    /// Whether a record was not taken since [`Dirty::begin_renewal`].
    pub(super) fn is_unrenewed(&self, packed: &Packed) -> bool {
        packed.renewal != self.renewal
    }
}
