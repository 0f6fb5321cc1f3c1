//! The outbox: every change this node published and some peer has not acked yet, encoded once for all of them.
//! Each peer is a place in it (see [`super::slot`]); this file knows no peers.

use std::collections::VecDeque;

/// Numbered changes, oldest first, bounded in bytes.
#[derive(Debug)]
pub(super) struct Outbox {
    changes: VecDeque<Change>,
    /// Number of the newest change; the first one is 1.
    head: u64,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Change {
    encoded: Box<[u8]>,
    published_us: u64,
}

/// What the queue costs beside the encoded bytes of a change.
const CHANGE_OVERHEAD_BYTES: usize = 32;

impl Outbox {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { changes: VecDeque::new(), head: 0, bytes: 0, bytes_max }
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
    pub(super) fn push(&mut self, encoded: Box<[u8]>, now_us: u64) -> u64 {
        self.head += 1;
        self.bytes += encoded.len() + CHANGE_OVERHEAD_BYTES;
        self.changes.push_back(Change { encoded, published_us: now_us });
        while self.bytes > self.bytes_max && self.changes.len() > 1 {
            self.drop_oldest();
        }
        self.head
    }

    /// Drops everything before number `seq`.
    pub(super) fn trim(&mut self, seq: u64) {
        while self.front() < seq && !self.changes.is_empty() {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(change) = self.changes.pop_front() {
            self.bytes -= change.encoded.len() + CHANGE_OVERHEAD_BYTES;
        }
    }

    /// The changes from number `seq` on.
    pub(super) fn from(&self, seq: u64) -> impl Iterator<Item = &[u8]> {
        let skip = usize::try_from(seq.saturating_sub(self.front())).unwrap_or(usize::MAX);
        self.changes.range(skip.min(self.changes.len())..).map(|change| &*change.encoded)
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
            assert_eq!(outbox.push([n].into(), u64::from(n) * 10), u64::from(n));
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
            outbox.push([0; 100].into(), 0);
            assert!(outbox.bytes() <= 1000);
        }
        assert_eq!(outbox.front(), 100 - 6);
    }
}
