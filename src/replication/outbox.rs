//! The outbox: every change this node published and some peer has not acked yet, encoded once for all of them.
//! Each peer is a place in it (see [`super::slot`]); this file knows no peers.
//!
//! Changes lie one behind the other in blocks of memory that are used again: in the steady state none is allocated, and what
//! one thread published another need not free.

use std::collections::VecDeque;

/// Numbered changes, oldest first, bounded in bytes.
#[derive(Debug)]
pub(super) struct Outbox {
    changes: VecDeque<Change>,
    blocks: VecDeque<Vec<u8>>,
    /// Number of the first block.
    first_block: u64,
    /// Empty blocks for the next changes.
    spare: Vec<Vec<u8>>,
    /// Number of the newest change; the first one is 1.
    head: u64,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Change {
    /// Number of the block in which it lies whole.
    block: u64,
    start: usize,
    length: usize,
    published_us: u64,
}

/// What the queue costs beside the encoded bytes of a change.
const CHANGE_OVERHEAD_BYTES: usize = 32;

/// Room in a block, bytes; a larger change has one for itself.
const BLOCK_BYTES: usize = 64 << 10;

/// A full block gives back room that is more than this, bytes, and is not used again: so blocks take an eighth more than what
/// is in them, at most.
const LEFT_OVER_BYTES_MAX: usize = BLOCK_BYTES / 8;

/// Empty blocks that are kept: what a peer leaves unacknowledged for a moment under load.
const SPARE_BLOCKS_MAX: usize = 16;

impl Outbox {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            changes: VecDeque::new(),
            blocks: VecDeque::new(),
            first_block: 0,
            spare: Vec::new(),
            head: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// Number of the newest change; 0 before the first.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Number of the oldest change that is kept; `head + 1` when none is.
    pub(super) fn front(&self) -> u64 {
        self.head + 1 - self.changes.len() as u64
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a change and gives its number. What falls off the old end to make room is lost to whoever had not got it.
    pub(super) fn push(&mut self, encoded: &[u8], now_us: u64) -> u64 {
        self.head += 1;
        self.bytes += encoded.len() + CHANGE_OVERHEAD_BYTES;
        let change = self.put(encoded, now_us);
        self.changes.push_back(change);
        while self.bytes > self.bytes_max && self.changes.len() > 1 {
            self.drop_oldest();
        }
        self.head
    }

    fn put(&mut self, encoded: &[u8], published_us: u64) -> Change {
        let has_room = |block: &Vec<u8>| block.capacity() - block.len() >= encoded.len();
        if !self.blocks.back().is_some_and(has_room) {
            if let Some(full) = self.blocks.back_mut()
                && full.capacity() - full.len() > LEFT_OVER_BYTES_MAX
            {
                full.shrink_to_fit();
            }
            let spare = if encoded.len() <= BLOCK_BYTES { self.spare.pop() } else { None };
            self.blocks.push_back(spare.unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES.max(encoded.len()))));
        }
        let block = self.first_block + self.blocks.len() as u64 - 1;
        let mut start = 0;
        if let Some(last) = self.blocks.back_mut() {
            start = last.len();
            last.extend_from_slice(encoded);
        }
        Change { block, start, length: encoded.len(), published_us }
    }

    /// Drops everything before number `seq`.
    pub(super) fn trim(&mut self, seq: u64) {
        while self.front() < seq && !self.changes.is_empty() {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(change) = self.changes.pop_front() {
            self.bytes -= change.length + CHANGE_OVERHEAD_BYTES;
        }
        let after_last = self.first_block + self.blocks.len() as u64;
        let in_use = self.changes.front().map_or(after_last, |change| change.block);
        while self.first_block < in_use
            && let Some(mut block) = self.blocks.pop_front()
        {
            self.first_block += 1;
            block.clear();
            if block.capacity() == BLOCK_BYTES && self.spare.len() < SPARE_BLOCKS_MAX {
                self.spare.push(block);
            }
        }
    }

    /// The changes from number `seq` on.
    pub(super) fn from(&self, seq: u64) -> impl Iterator<Item = &[u8]> {
        let skip = usize::try_from(seq.saturating_sub(self.front())).unwrap_or(usize::MAX);
        self.changes.range(skip.min(self.changes.len())..).map(|change| self.encoded(change))
    }

    fn encoded(&self, change: &Change) -> &[u8] {
        let block = usize::try_from(change.block - self.first_block).ok().and_then(|at| self.blocks.get(at));
        block.and_then(|block| block.get(change.start..change.start + change.length)).unwrap_or_default()
    }

    /// When change `seq` was published, if it is kept.
    pub(super) fn published_us(&self, seq: u64) -> Option<u64> {
        let index = usize::try_from(seq.checked_sub(self.front())?).ok()?;
        self.changes.get(index).map(|change| change.published_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_with_their_changes_while_the_old_end_goes() {
        let mut outbox = Outbox::new(1 << 20);
        assert_eq!((outbox.head(), outbox.front()), (0, 1));
        for n in 1..=5u8 {
            assert_eq!(outbox.push(&[n], u64::from(n) * 10), u64::from(n));
        }
        outbox.trim(3);
        assert_eq!(outbox.front(), 3);
        assert_eq!(outbox.from(4).map(|change| change[0]).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(outbox.from(1).map(|change| change[0]).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(outbox.published_us(2), None);
        assert_eq!(outbox.published_us(5), Some(50));
        assert_eq!(outbox.from(6).count(), 0);
        outbox.trim(100);
        assert_eq!((outbox.head(), outbox.front(), outbox.bytes()), (5, 6, 0));
    }

    #[test]
    fn it_never_holds_more_than_its_bound() {
        let mut outbox = Outbox::new(1000);
        for _ in 0..100 {
            outbox.push(&[0; 100], 0);
            assert!(outbox.bytes() <= 1000);
        }
        assert_eq!(outbox.front(), 100 - 6);
    }

    #[test]
    fn changes_of_any_size_come_back_while_blocks_are_used_again() {
        let mut outbox = Outbox::new(64 << 20);
        let change = |n: u64| vec![n as u8; 1 + (n as usize * 7_919) % (BLOCK_BYTES + 10_000)];
        for n in 1..=200 {
            outbox.push(&change(n), 0);
            if n % 5 == 0 {
                outbox.trim(n - 8.min(n - 1));
            }
            let kept = outbox.front()..=n;
            assert!(outbox.from(1).eq(kept.map(change)), "{n}");
        }
        outbox.trim(201);
        assert_eq!((outbox.from(1).count(), outbox.bytes(), outbox.blocks.len()), (0, 0, 0));
        assert!((1..=SPARE_BLOCKS_MAX).contains(&outbox.spare.len()));
        assert!(outbox.spare.iter().all(|block| block.is_empty() && block.capacity() == BLOCK_BYTES));
        let at = outbox.spare.last().map(|block| block.as_ptr());
        outbox.push(&[7], 0);
        assert_eq!(outbox.blocks.back().map(|block| block.as_ptr()), at);
    }

    #[test]
    fn blocks_take_little_more_than_what_is_in_them() {
        let bytes_max = 4 << 20;
        for change in [300, 33 << 10, 48 << 10, 63 << 10, 65 << 10] {
            let mut outbox = Outbox::new(bytes_max);
            for _ in 0..2 * bytes_max / change {
                outbox.push(&vec![0; change], 0);
                let taken: usize = outbox.blocks.iter().map(Vec::capacity).sum();
                assert!(taken <= outbox.bytes() / 8 * 9 + 2 * BLOCK_BYTES, "{taken} for {}", outbox.bytes());
            }
        }
    }
}
