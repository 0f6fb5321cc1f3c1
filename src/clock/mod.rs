//! The only room that reads time. Gives cluster time and stamps; decides nothing.
//!
//! Cluster time = this node's `CLOCK_BOOTTIME` plus an offset that only grows, to match every stamp and frame received: a
//! running node never reads the wall clock except to print a Date. A hybrid clock on wall clocks would lose: a node an
//! hour behind only counts upward after adopting another's time, so a later write there would get an earlier stamp than
//! one made elsewhere during a cut.

mod wall;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aorta_proto::mutant::{Mutant, is};
use aorta_proto::{BootId, Stamp};
use rustix::time::{ClockId, clock_gettime};

pub use wall::{WallClocks, WallEvent};

/// One reading of both clocks; every pure room takes it as an argument.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Microseconds since this machine booted, suspends included. For timers: never jumps, means nothing elsewhere.
    pub mono_us: u64,
    /// Cluster time in microseconds since 1970. For stamps and lifetimes: the same on every linked node; never falls.
    pub cluster_us: u64,
}

/// This process' clock. One a node, shared by its threads.
#[derive(Debug)]
pub struct Clock {
    source: Source,
    boot: BootId,
    /// Cluster time minus `mono_us`; 0 until [`Clock::adopt`] first sets it.
    offset_us: AtomicU64,
    /// Time of the last stamp drawn.
    drawn_us: AtomicU64,
}

#[derive(Debug)]
enum Source {
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock, with a fresh boot id.
    #[must_use]
    pub fn system(boot: BootId) -> Self {
        Self::with(Source::System, boot)
    }

    /// A clock that a test or a simulator turns: `mono_us` is what it stores there.
    #[must_use]
    pub fn manual(mono_us: Arc<AtomicU64>, boot: BootId) -> Self {
        Self::with(Source::Manual(mono_us), boot)
    }

    fn with(source: Source, boot: BootId) -> Self {
        Self { source, boot, offset_us: AtomicU64::new(0), drawn_us: AtomicU64::new(0) }
    }

    /// This process' boot id.
    #[must_use]
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// Both clocks, now.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono_us = self.mono_us();
        Now { mono_us, cluster_us: mono_us + self.offset_us.load(Ordering::Acquire) }
    }

    /// Whether cluster time is known: before that no stamp may be drawn.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.offset_us.load(Ordering::Acquire) > 0
    }

    /// Moves cluster time forward to at least `cluster_us`; never backward. Who calls it has checked that the time is
    /// not too far ahead. Returns by how much it moved, microseconds.
    pub fn adopt(&self, cluster_us: u64) -> u64 {
        if self.is_set() && (is(Mutant::ClockFollowsNobody) || is(Mutant::WallClockHlc)) {
            self.drawn_us.fetch_max(if is(Mutant::WallClockHlc) { cluster_us } else { 0 }, Ordering::AcqRel);
            return 0;
        }
        let offset_us = cluster_us.saturating_sub(self.mono_us());
        let before = self.offset_us.fetch_max(offset_us, Ordering::AcqRel);
        offset_us.saturating_sub(before)
    }

    /// A stamp above every stamp this process drew and not below cluster time: unique, for the boot id is part of it.
    /// Its counter is even, which leaves the odd ones to [`Stamp::machine_made`].
    #[must_use]
    pub fn draw(&self) -> Stamp {
        let now_us = self.now().cluster_us;
        let last = self
            .drawn_us
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(now_us.max(last + 1)))
            .unwrap_or_default();
        Stamp { time_us: now_us.max(last + 1), counter: 0, boot: self.boot }
    }

    fn mono_us(&self) -> u64 {
        match &self.source {
            Source::System => boottime_us(),
            Source::Manual(mono_us) => mono_us.load(Ordering::Acquire),
        }
    }
}

/// The wall clock in microseconds since 1970: for a Date header, a snapshot's age, a cold start, and to say that it is
/// wrong; nothing else.
#[must_use]
pub fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The kernel's own wall clock, for comparison with the kernel's receive times of datagrams only: it is asked without
/// libc, so that both come from one clock.
#[must_use]
pub fn kernel_wall_us() -> u64 {
    micros(clock_gettime(ClockId::Realtime))
}

fn boottime_us() -> u64 {
    micros(clock_gettime(ClockId::Boottime))
}

fn micros(time: rustix::time::Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
    seconds * 1_000_000 + nanos / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock_at(mono: u64) -> (Arc<AtomicU64>, Clock) {
        let source = Arc::new(AtomicU64::new(mono));
        (Arc::clone(&source), Clock::manual(source, BootId(7)))
    }

    #[test]
    fn cluster_time_follows_the_greatest_time_heard_and_never_falls() {
        let (source, clock) = clock_at(1_000);
        assert!(!clock.is_set());
        assert_eq!(clock.adopt(5_000_000), 4_999_000);
        assert!(clock.is_set());
        assert_eq!(clock.adopt(4_000_000), 0);
        source.store(2_000, Ordering::Release);
        assert_eq!(clock.now(), Now { mono_us: 2_000, cluster_us: 5_001_000 });
    }

    #[test]
    fn stamps_rise_though_time_stands_still() {
        let (_source, clock) = clock_at(1_000);
        clock.adopt(5_000_000);
        let stamps: Vec<Stamp> = (0..100).map(|_| clock.draw()).collect();
        assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(stamps.windows(2).all(|pair| pair[0].machine_made() > pair[0] && pair[0].machine_made() < pair[1]));
        assert_eq!(stamps[0], Stamp { time_us: 5_000_000, counter: 0, boot: BootId(7) });
    }

    #[test]
    fn the_system_clock_runs() {
        let clock = Clock::system(BootId(1));
        let earlier = clock.now().mono_us;
        assert!(clock.now().mono_us >= earlier);
        assert!(wall_us() > 1_700_000_000_000_000);
    }
}
