//! Notices that the process slept: stopped, suspended, or starved of its processor. Reads no clock.
//!
//! A reader looks at its tick each time its wait ends, and its waits are short ([`TICK_MS`]). Two looks further apart
//! than half the ack timeout mean that the process did not run: it was asleep while it waited, or inside one handling,
//! which takes microseconds when awake. Peers may by then have stopped awaiting this node's acks, so what it answers
//! next must not rest on what it knew before.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The longest wait of a reader between two looks at its tick, milliseconds.
pub(super) const TICK_MS: u64 = 25;

/// One thread's tick.
#[derive(Debug)]
pub(super) struct Tick {
    last_us: u64,
    limit_us: u64,
}

impl Tick {
    /// A tick that started at `now_us` and calls a gap of `limit_us` or more a sleep.
    pub(super) fn new(now_us: u64, limit_us: u64) -> Self {
        Self { last_us: now_us, limit_us }
    }

    /// The gap since the last beat, microseconds, if it was a sleep.
    pub(super) fn beat(&mut self, now_us: u64) -> Option<u64> {
        let gap_us = now_us.saturating_sub(self.last_us);
        self.last_us = now_us;
        (gap_us >= self.limit_us).then_some(gap_us)
    }
}

/// A tick shared by the tasks of one runtime: a timer beats it, and every task asks before it trusts what it read.
#[derive(Debug)]
pub(super) struct SharedTick {
    last_us: AtomicU64,
    limit_us: u64,
    woke_us: AtomicU64,
    telling: Mutex<()>,
}

impl SharedTick {
    pub(super) fn new(now_us: u64, limit_us: u64) -> Self {
        let last_us = AtomicU64::new(now_us);
        Self { last_us, limit_us, woke_us: AtomicU64::new(0), telling: Mutex::new(()) }
    }

    /// The timer's beat; `tell` hears of a sleep before anybody else goes on.
    pub(super) fn beat(&self, now_us: u64, tell: impl FnOnce(u64)) {
        self.look(now_us, tell);
        self.last_us.fetch_max(now_us, Ordering::Release);
    }

    /// A task's look: a gap is told once, and no task passes here before it has been told.
    pub(super) fn look(&self, now_us: u64, tell: impl FnOnce(u64)) {
        if !self.is_gap(now_us) {
            return;
        }
        let _only_one = self.telling.lock();
        if self.is_gap(now_us) {
            tell(now_us.saturating_sub(self.last_us.load(Ordering::Acquire)));
            self.woke_us.store(now_us, Ordering::Release);
            self.last_us.fetch_max(now_us, Ordering::Release);
        }
    }

    /// When the last sleep was noticed, microseconds of the same clock; 0 if none was.
    pub(super) fn woke_us(&self) -> u64 {
        self.woke_us.load(Ordering::Acquire)
    }

    fn is_gap(&self, now_us: u64) -> bool {
        now_us.saturating_sub(self.last_us.load(Ordering::Acquire)) >= self.limit_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_at_the_limit_is_a_sleep_and_is_told_once() {
        let mut tick = Tick::new(1_000, 150_000);
        assert_eq!(tick.beat(26_000), None);
        assert_eq!(tick.beat(175_999), None);
        assert_eq!(tick.beat(325_999), Some(150_000));
        assert_eq!(tick.beat(326_000), None);
    }

    #[test]
    fn of_many_tasks_the_first_to_look_tells_the_sleep() {
        let tick = SharedTick::new(1_000, 150_000);
        let mut told = Vec::new();
        tick.beat(26_000, |gap| told.push(gap));
        tick.look(30_000, |gap| told.push(gap));
        assert_eq!((told.as_slice(), tick.woke_us()), (&[][..], 0));
        tick.look(226_000, |gap| told.push(gap));
        tick.look(226_001, |gap| told.push(gap));
        tick.beat(226_002, |gap| told.push(gap));
        assert_eq!((told.as_slice(), tick.woke_us()), (&[200_000][..], 226_000));
    }
}
