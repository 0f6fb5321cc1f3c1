//! Notices that the process slept: stopped, suspended, or starved of its processors. Reads no clock.
//!
//! Every reader beats the tick each time its wait ends, and waits are short ([`TICK_MS`]). When nobody beat it for half
//! the ack timeout, the process did not run: it was asleep while it waited, or inside handlings, which take microseconds
//! when awake. (Where one reader is alone, what the links do on its thread counts, too.) Peers may by then have stopped awaiting
//! this node's acks, so what it answers next must not rest on what it knew before.
//!
//! **2026-11, one tick for all readers.** A tick of each thread's own would take one thread that was kept waiting by a
//! busy machine for a sleep, though the others ran and acks flowed; a node would leave service because it is busy. What a
//! single late thread may hold is one message, as late as if the network had been slow. Refused for that.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The longest wait of a reader between two looks at its tick, milliseconds.
pub(super) const TICK_MS: u64 = 25;

/// The same.
pub(super) const TICK: Duration = Duration::from_millis(TICK_MS);

/// A beat this soon after the last one is not written down, microseconds: threads would quarrel for the cache line.
const FINE_US: u64 = 1000;

/// The tick of all readers.
#[derive(Debug)]
pub(super) struct Tick {
    last_us: AtomicU64,
    limit_us: u64,
    woke_us: AtomicU64,
    telling: Mutex<()>,
}

impl Tick {
    /// A tick that was last beaten at `now_us`, and calls a gap of `limit_us` or more a sleep.
    pub(super) fn new(now_us: u64, limit_us: u64) -> Self {
        let last_us = AtomicU64::new(now_us);
        Self { last_us, limit_us, woke_us: AtomicU64::new(0), telling: Mutex::new(()) }
    }

    /// A reader is awake at `now_us`. After a gap, `tell` hears of the sleep, once; nobody passes here before it has.
    pub(super) fn beat(&self, now_us: u64, tell: impl FnOnce(u64)) {
        let gap_us = self.gap_us(now_us);
        if gap_us >= self.limit_us {
            let _only_one = self.telling.lock();
            let gap_us = self.gap_us(now_us);
            if gap_us >= self.limit_us {
                tell(gap_us);
                self.woke_us.store(now_us, Ordering::Release);
                self.last_us.fetch_max(now_us, Ordering::Release);
            }
        } else if gap_us >= FINE_US {
            self.last_us.fetch_max(now_us, Ordering::Release);
        }
    }

    /// When the last sleep was noticed, microseconds of the same clock; 0 if none was.
    pub(super) fn woke_us(&self) -> u64 {
        self.woke_us.load(Ordering::Acquire)
    }

    fn gap_us(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.last_us.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_at_the_limit_is_a_sleep_and_is_told_once() {
        let tick = Tick::new(1_000, 150_000);
        let mut told = Vec::new();
        for now_us in [26_000, 175_999, 176_500, 324_000] {
            tick.beat(now_us, |gap_us| told.push(gap_us));
        }
        assert_eq!((told.as_slice(), tick.woke_us()), (&[][..], 0));
        for now_us in [474_000, 474_001, 470_000, 500_000] {
            tick.beat(now_us, |gap_us| told.push(gap_us));
        }
        assert_eq!((told.as_slice(), tick.woke_us()), (&[150_000][..], 474_000));
    }

    #[test]
    fn nobody_passes_before_the_sleep_has_been_told() {
        let tick = Tick::new(1_000, 150_000);
        let told = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    tick.beat(900_000, |gap_us| {
                        std::thread::yield_now();
                        told.fetch_add(gap_us, Ordering::AcqRel);
                    });
                    assert_eq!(told.load(Ordering::Acquire), 899_000);
                });
            }
        });
    }
}
