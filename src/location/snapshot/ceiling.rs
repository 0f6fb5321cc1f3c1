//! The time ceiling: a small file that says, flushed ahead of use, up to which cluster time this node may have drawn
//! stamps, so that after a restart it draws none twice and none below. Reads no clock: both times are arguments.
//!
//! Not in the database: it must not wait behind a long save, and must survive a damaged log and a full disk. When not even
//! this file can be written there is none: without a ceiling a node waits for a peer's clock.

use std::io;
use std::path::Path;

use super::slots::Slots;

/// How far the ceiling is ahead of cluster time when it is written, microseconds. A restart sooner than this moves
/// cluster time forward by at most this, and contacts lapse so much early; so it is within the second that lifetimes are
/// told in, and long against one flush.
pub const CEILING_LEAD_US: u64 = 1_000_000;

/// How often [`Ceiling::renew`] is to be called, microseconds: two calls may fail or wait before the lead is used up.
pub const CEILING_RENEW_US: u64 = 300_000;

/// What the disk knows of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptClock {
    /// Cluster time when this was written, microseconds.
    pub cluster_us: u64,
    /// The wall clock at the same moment, microseconds since 1970.
    pub wall_us: u64,
    /// No stamp above this was drawn, microseconds of cluster time.
    pub ceiling_us: u64,
}

impl KeptClock {
    /// What cluster time would be now, had it run on while this node was down: persisted time plus wall clock passed
    /// since (never negative). Whoever uses it also stays at or above every [`KeptClock::ceiling_us`].
    #[must_use]
    pub fn resumed_us(&self, wall_us: u64) -> u64 {
        self.cluster_us.saturating_add(wall_us.saturating_sub(self.wall_us))
    }
}

/// The file. Owned by the one thread that renews it.
#[derive(Debug)]
pub struct Ceiling {
    slots: Slots,
    ceiling_us: u64,
}

impl Ceiling {
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<KeptClock>)> {
        let (slots, numbers) = Slots::open(path)?;
        let kept = numbers.map(|[cluster_us, wall_us, ceiling_us]| KeptClock { cluster_us, wall_us, ceiling_us });
        Ok((Self { slots, ceiling_us: kept.map_or(0, |kept| kept.ceiling_us) }, kept))
    }

    /// Up to which cluster time the disk allows stamps, microseconds; 0 while it has no ceiling.
    #[must_use]
    pub fn ceiling_us(&self) -> u64 {
        self.ceiling_us
    }

    /// Writes and flushes a ceiling [`CEILING_LEAD_US`] ahead of `cluster_us`, never below the last. When it returns, the
    /// disk has it. To be called before the first stamp is drawn, when cluster time jumps past [`Ceiling::ceiling_us`],
    /// and every [`CEILING_RENEW_US`].
    ///
    /// # Errors
    /// When the disk does not take it. The file is then gone; the node may go on, and calls again.
    pub fn renew(&mut self, cluster_us: u64, wall_us: u64) -> io::Result<()> {
        let ceiling_us = cluster_us.saturating_add(CEILING_LEAD_US).max(self.ceiling_us);
        let written = self.slots.write([cluster_us, wall_us, ceiling_us]);
        self.ceiling_us = if written.is_ok() { ceiling_us } else { 0 };
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    #[test]
    fn the_latest_renewal_is_what_a_restart_finds_and_the_ceiling_never_falls() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock");
        let (mut ceiling, kept) = Ceiling::open(&path).unwrap();
        assert_eq!((ceiling.ceiling_us(), kept), (0, None));
        for (second, top) in [(1, 1), (2, 2), (9, 9), (5, 9)] {
            ceiling.renew(second * SECOND_US, 100 * second).unwrap();
            let (again, kept) = Ceiling::open(&path).unwrap();
            let ceiling_us = top * SECOND_US + CEILING_LEAD_US;
            assert_eq!(kept, Some(KeptClock { cluster_us: second * SECOND_US, wall_us: 100 * second, ceiling_us }));
            assert_eq!(again.ceiling_us(), ceiling_us);
            ceiling = again;
        }
    }

    #[test]
    fn a_disk_that_refuses_leaves_no_ceiling_that_may_be_passed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock");
        let (mut ceiling, _) = Ceiling::open(&path).unwrap();
        ceiling.renew(SECOND_US, 1).unwrap();
        ceiling.slots.refuse();
        assert!(ceiling.renew(2 * SECOND_US, 2).is_err());
        assert_eq!(ceiling.ceiling_us(), 0);
        assert_eq!(Ceiling::open(&path).unwrap().1, None);
        ceiling.renew(3 * SECOND_US, 3).unwrap();
        assert_eq!(Ceiling::open(&path).unwrap().1.unwrap().cluster_us, 3 * SECOND_US);
    }

    #[test]
    fn time_runs_on_by_the_wall_clock_but_never_back() {
        let kept = KeptClock { cluster_us: 1000, wall_us: 500, ceiling_us: 1300 };
        assert_eq!(kept.resumed_us(700), 1200);
        assert_eq!(kept.resumed_us(100), 1000);
    }
}
