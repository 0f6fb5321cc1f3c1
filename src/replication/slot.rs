//! Places for replies that wait for acks: taken before anything is written, so that what is accepted can be answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A place in the line of waiting replies; free again when dropped.
#[derive(Debug)]
pub struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All places.
#[derive(Debug)]
pub(super) struct Slots {
    taken: Arc<AtomicUsize>,
    max: usize,
}

impl Slots {
    pub(super) fn new(max: usize) -> Self {
        Self { taken: Arc::default(), max }
    }

    /// Takes a place; `None` when all are taken.
    pub(super) fn take(&self) -> Option<Slot> {
        let grown = |taken: usize| (taken < self.max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, grown).ok()?;
        Some(Slot(Arc::clone(&self.taken)))
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }
}
