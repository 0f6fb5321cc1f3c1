//! The longest lifetime among the contacts that came from elsewhere: who granted it may be no member any more, or grant
//! less since it was started again, and the contact lives on. Names no member and keeps no list; two windows are enough.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aorta_proto::mutant::{Mutant, is};
use aorta_proto::record::horizon_us;

/// What was merged in this window and in the one before. A window lasts at least as long as the longest lifetime in
/// both, so a contact counts from its merge until it has lapsed.
#[derive(Debug, Default)]
pub(super) struct Lifetimes {
    now_s: AtomicU32,
    before_s: AtomicU32,
    /// When the window began, cluster time in microseconds; 0 before the first.
    since_us: AtomicU64,
}

impl Lifetimes {
    /// A record is merged, whose contacts were granted so much at most. Almost always one comparison.
    pub(super) fn merge(&self, longest_s: u32) {
        if is(Mutant::MergedLifetimesIgnored) {
            return;
        }
        if longest_s > self.now_s.load(Ordering::Relaxed) {
            self.now_s.fetch_max(longest_s, Ordering::AcqRel);
        }
    }

    /// How long entries are remembered at a cluster time, µs, where members grant at most `granted_max_s` now. Called by
    /// one thread at a time.
    pub(super) fn horizon_us(&self, granted_max_s: u32, clock_ahead_max_s: u32, cluster_us: u64) -> u64 {
        let both_s = self.now_s.load(Ordering::Acquire).max(self.before_s.load(Ordering::Acquire));
        let horizon_us = horizon_us(both_s.max(granted_max_s), clock_ahead_max_s);
        if cluster_us.saturating_sub(self.since_us.load(Ordering::Acquire)) > horizon_us {
            self.since_us.store(cluster_us, Ordering::Release);
            self.before_s.store(self.now_s.swap(0, Ordering::AcqRel), Ordering::Release);
        }
        horizon_us
    }
}

#[cfg(test)]
mod tests {
    use aorta_proto::Record;

    use super::super::Location;
    use super::super::tests::{aor, entry};
    use super::*;

    const SECOND_US: u64 = 1_000_000;
    const START_US: u64 = 1_700_000_000 * SECOND_US;

    fn merged(granted_s: &[u32]) -> Lifetimes {
        let lifetimes = Lifetimes::default();
        assert_eq!(lifetimes.horizon_us(10, 5, START_US), horizon_us(10, 5));
        let longest_s = granted_s.iter().copied().max().unwrap_or(0);
        lifetimes.now_s.store(longest_s, Ordering::Release);
        lifetimes
    }

    #[test]
    fn a_lifetime_counts_until_it_has_run_and_not_for_ever() {
        let lifetimes = merged(&[100, 40]);
        let mut at_us = START_US;
        while lifetimes.horizon_us(10, 5, at_us) == horizon_us(100, 5) {
            at_us += SECOND_US;
            assert!(at_us < START_US + 1000 * SECOND_US, "counts for ever");
        }
        assert!(at_us > START_US + horizon_us(100, 5), "counted for {} s only", (at_us - START_US) / SECOND_US);
        assert_eq!(lifetimes.horizon_us(10, 5, START_US + 1000 * SECOND_US), horizon_us(10, 5));
    }

    #[test]
    fn what_comes_from_disk_counts_though_less_is_granted_now() {
        let location = Location::new([7; 16], false);
        let record = Record::from(entry(1, START_US / SECOND_US, Some(100)));
        location.restore(&aor(1), record);
        assert_eq!(location.horizon_us(10, 5, START_US), horizon_us(100, 5));
    }

    #[test]
    fn what_is_granted_now_counts_at_least() {
        assert_eq!(merged(&[5]).horizon_us(10, 5, START_US + 1), horizon_us(10, 5));
    }
}
