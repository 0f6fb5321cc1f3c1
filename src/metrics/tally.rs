//! Plain counters for hot paths: an addition costs a few nanoseconds on any number of threads, because threads add on
//! cache lines of their own. Who publishes them adds the lines up, once a second.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Cache lines to add on: more threads than this share some, which costs time and no count.
const LINES: usize = 16;

/// `N` counters that only rise. Which counter means what is the owner's affair, mostly an enum's discriminant.
#[derive(Debug)]
pub struct Tally<const N: usize> {
    lines: Box<[Line<N>]>,
}

#[derive(Debug)]
#[repr(align(128))]
struct Line<const N: usize>([AtomicU64; N]);

thread_local! {
    static LINE: Cell<usize> = const { Cell::new(usize::MAX) };
}

impl<const N: usize> Tally<N> {
    /// All at 0.
    #[must_use]
    pub fn new() -> Self {
        Self { lines: (0..LINES).map(|_| Line(std::array::from_fn(|_| AtomicU64::new(0)))).collect() }
    }

    /// Adds 1 to the counter at `place`; a place of `N` or more counts nowhere.
    pub fn count(&self, place: usize) {
        self.add(place, 1);
    }

    /// Adds `by` to the counter at `place`.
    pub fn add(&self, place: usize, by: u64) {
        debug_assert!(place < N, "no counter {place}");
        if let Some(counter) = self.lines[line()].0.get(place) {
            counter.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// All counters, added up. What is added meanwhile may be in it or not.
    #[must_use]
    pub fn totals(&self) -> [u64; N] {
        std::array::from_fn(|place| self.lines.iter().map(|line| line.0[place].load(Ordering::Relaxed)).sum())
    }
}

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// This thread's line.
fn line() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    LINE.with(|line| {
        if line.get() == usize::MAX {
            line.set(NEXT.fetch_add(1, Ordering::Relaxed) % LINES);
        }
        line.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_addition_is_lost_between_threads() {
        let tally = Tally::<3>::new();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| (0..1000).for_each(|turn| tally.count(turn % 2)));
            }
        });
        tally.add(2, 7);
        assert_eq!(tally.totals(), [10_000, 10_000, 7]);
    }
}
