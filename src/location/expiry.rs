//! What time does to the table: contacts lapse and are slimmed, and whatever is below the floor never was. The time is
//! an argument. Readers never wait for any of this: what lapsed is not shown, swept or not.

use std::sync::atomic::Ordering;

use aorta_proto::digest::BUCKETS;
use aorta_proto::mutant::{Mutant, is};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::stripe::{self, Stripe};
use super::{Location, STRIPES};
use crate::clock::Now;

/// A contact is slimmed this long after it lapsed, microseconds. Linked nodes' clocks differ by a network delay; a copy
/// that one of them may still show is so whole on all of them, and two dumps taken together agree.
pub const SLIM_AFTER_LAPSE_US: u64 = 5_000_000;

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Contacts found lapsed, now kept as removals.
    pub slimmed: usize,
    /// Entries that fell below the floor. Only those found by this sweep: comparing and writing forget as well.
    pub forgotten: usize,
}

impl Location {
    /// Raises the floor: what has a stamp at or below it does not exist from now on, in every sum, list and record that
    /// this table gives out. A lower one than before changes nothing. `floor_us` comes from
    /// [`aorta_proto::record::floor_us`].
    pub fn set_floor(&self, floor_us: u64) {
        self.floor_us.fetch_max(floor_us, Ordering::AcqRel);
    }

    /// How long entries are remembered at a cluster time, µs: by the longest lifetime that members grant now, or that
    /// something merged here within it has. One that granted more may be no member any more, or have been started again to
    /// grant less; what it granted lives on. See [`aorta_proto::record::horizon_us`].
    #[must_use]
    pub fn horizon_us(&self, granted_max_s: u32, clock_ahead_max_s: u32, cluster_us: u64) -> u64 {
        self.lifetimes.horizon_us(granted_max_s, clock_ahead_max_s, cluster_us)
    }

    /// The floor, microseconds of cluster time.
    #[must_use]
    pub fn floor_us(&self) -> u64 {
        self.load_floor()
    }

    /// Slims and forgets in the next `buckets` of [`aorta_proto::digest::BUCKETS`], taking up where the last sweep ended.
    /// A stripe in which nothing is due costs a comparison.
    pub fn sweep(&self, now: Now, buckets: u32) -> Swept {
        let lapsed_us = now.cluster_us.saturating_sub(SLIM_AFTER_LAPSE_US);
        let first = self.sweep_at.fetch_add(buckets, Ordering::Relaxed);
        let timers = is(Mutant::ForgetByLocalTimer) || is(Mutant::RemovalLastsAsItsBinding);
        let floor_us = if timers { lapsed_us } else { self.floor_us() };
        let mut swept = Swept::default();
        let mut done = 0;
        while done < buckets.min(BUCKETS) {
            let bucket = first.wrapping_add(done) % BUCKETS;
            let (at, place) = stripe::locate(bucket);
            let here = (stripe::BUCKETS - place).min((buckets.min(BUCKETS) - done) as usize);
            done += here as u32;
            if !self.stripes[at].read().has_due(floor_us, lapsed_us) {
                continue;
            }
            let mut stripe = self.stripes[at].write();
            for place in place..place + here {
                swept.forgotten += stripe.forget_bucket(&self.digester, place, floor_us);
                swept.slimmed += stripe.slim_bucket(&self.digester, place, lapsed_us);
            }
            stripe.note_due();
        }
        swept
    }

    /// A stripe in which nothing is at or below the floor, for whoever compares: two nodes with one floor must have one
    /// digest, whether or not their sweepers came by.
    pub(super) fn settled(&self, at: usize) -> RwLockReadGuard<'_, Stripe> {
        debug_assert!(at < STRIPES);
        let lock: &RwLock<Stripe> = &self.stripes[at];
        let floor_us = self.floor_us();
        let stripe = lock.read();
        if stripe.floor_us >= floor_us {
            return stripe;
        }
        drop(stripe);
        let mut stripe = lock.write();
        if stripe.has_due(floor_us, 0) {
            for place in 0..stripe::BUCKETS {
                stripe.forget_bucket(&self.digester, place, floor_us);
            }
            stripe.note_due();
        }
        stripe.floor_us = stripe.floor_us.max(floor_us);
        RwLockWriteGuard::downgrade(stripe)
    }
}
