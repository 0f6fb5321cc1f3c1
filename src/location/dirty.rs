//! AoRs for the disk to take, of one stripe, and which stripes have any. Knows no record but by the state that it keeps.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aorta_proto::Aor;

use super::memory::taken;
use super::packed::Packed;

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
pub(super) struct Dirty {
    /// Those that changed, oldest change first. One that was taken as awaited meanwhile stays here until all are taken.
    changed: VecDeque<Aor>,
    /// Those that somebody waits for; they are written ahead of the others.
    awaited: VecDeque<Aor>,
    /// What the texts of both take of memory, bytes.
    texts_taken: u64,
    /// Counts how often all were taken, from 1 to 255 and round again: what was taken is asked for, or put back, before
    /// that many others were.
    pub(super) turn: u8,
    /// Which renewal of the disk is under way, or was the last: every other one is alike.
    pub(super) renewal: bool,
    /// Where this stripe is marked while it holds any, and which one it is.
    all: Arc<DirtyStripes>,
    stripe: usize,
}

/// Places for AoRs that a stripe keeps from one snapshot to the next: what fills a table at once needs more, and gives it back.
const CHANGED_KEPT: usize = 256;

impl Dirty {
    pub(super) fn new(all: Arc<DirtyStripes>, stripe: usize) -> Self {
        let (changed, awaited) = (VecDeque::new(), VecDeque::new());
        Self { changed, awaited, texts_taken: 0, turn: 1, renewal: false, all, stripe }
    }

    pub(super) fn len(&self) -> usize {
        self.changed.len() + self.awaited.len()
    }

    /// What it takes of memory, bytes.
    pub(super) fn taken(&self) -> u64 {
        let places = |aors: &VecDeque<Aor>| taken(aors.capacity() * size_of::<Aor>()) as u64;
        self.texts_taken + places(&self.changed) + places(&self.awaited)
    }

    /// [`Dirty::taken`] counted anew.
    #[cfg(test)]
    pub(super) fn recounted_bytes(&self) -> u64 {
        let texts: u64 = self.changed.iter().chain(&self.awaited).map(text_taken).sum();
        self.taken() - self.texts_taken + texts
    }

    pub(super) fn changes(&mut self, aor: Aor) {
        self.texts_taken += text_taken(&aor);
        self.changed.push_back(aor);
        self.all.mark(self.stripe);
    }

    /// A record that was queued in an earlier turn is not queued any more.
    pub(super) fn took(&self, packed: &mut Packed) {
        if packed.turn() != self.turn {
            packed.set_turn(0);
        }
    }

    pub(super) fn awaits(&mut self, aor: Aor) {
        self.texts_taken += text_taken(&aor);
        self.awaited.push_back(aor);
        self.all.mark(self.stripe);
    }

    /// Somebody waits for those that changed and are `wanted`.
    pub(super) fn await_some(&mut self, mut wanted: impl FnMut(&Aor) -> bool) {
        for aor in self.changed.iter().filter(|aor| wanted(aor)) {
            self.texts_taken += text_taken(aor);
            self.awaited.push_back(aor.clone());
        }
    }

    /// Takes the latest change back, if it is of this AoR; whether it was.
    pub(super) fn take_back(&mut self, aor: &Aor) -> bool {
        let Some(last) = self.changed.pop_back_if(|last| *last == *aor) else { return false };
        self.texts_taken -= text_taken(&last);
        true
    }

    /// Takes all, what is awaited first.
    pub(super) fn take(&mut self) -> VecDeque<Aor> {
        self.turn = self.turn.wrapping_add(1).max(1);
        let mut taken = std::mem::take(&mut self.awaited);
        taken.append(&mut self.changed);
        self.changed.shrink_to(CHANGED_KEPT);
        self.texts_taken = 0;
        self.all.clear(self.stripe);
        taken
    }

    /// Takes what somebody waits for.
    pub(super) fn take_awaited(&mut self) -> VecDeque<Aor> {
        let awaited = std::mem::take(&mut self.awaited);
        self.texts_taken -= awaited.iter().map(text_taken).sum::<u64>();
        awaited
    }
}

/// What the text of an AoR takes of memory, bytes: with the two counts of who shares it. One that is shared counts each time.
fn text_taken(aor: &Aor) -> u64 {
    taken((2 * size_of::<usize>() + aor.as_str().len()).next_multiple_of(align_of::<usize>())) as u64
}
