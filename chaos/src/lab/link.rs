//! What becomes of one packet on one direction of one link. Pure: it is told the time and holds no packet.

use std::time::Duration;

use fastrand::Rng;

use super::network::{LinkProfile, Traffic};

/// How much longer than others a packet takes that they are to overtake.
const OVERTAKEN_BY: Duration = Duration::from_millis(20);

/// Packets in flight on one direction at most: 20 s of a delay at a thousand packets a second.
const HELD_MAX: u32 = 20_000;

/// One direction: its profile, its random decisions, what passed.
#[derive(Debug)]
pub(super) struct Link {
    profile: LinkProfile,
    rng: Rng,
    /// When the last byte that was let through has left, microseconds.
    busy_until_us: u64,
    /// Packets on their way.
    held: u32,
    traffic: Traffic,
}

/// When a packet arrives, and its copy if it has one; microseconds, 0 for at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Lost,
    Arrives(u64),
    Twice(u64, u64),
}

impl Link {
    pub(super) fn new(seed: u64) -> Self {
        let profile = LinkProfile::PLAIN;
        Self { profile, rng: Rng::with_seed(seed), busy_until_us: 0, held: 0, traffic: Traffic::default() }
    }

    pub(super) fn set(&mut self, profile: LinkProfile) {
        self.profile = profile;
        self.busy_until_us = 0;
    }

    pub(super) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Decides over a packet. The n-th packet of a link draws the n-th number, whatever the profiles were before.
    pub(super) fn judge(&mut self, bytes: usize, now_us: u64) -> Fate {
        let draw = self.rng.u64(..);
        self.traffic.packets += 1;
        self.traffic.bytes += bytes as u64;
        if self.profile.cut {
            self.traffic.cut += 1;
            return Fate::Lost;
        }
        if self.profile.is_plain() {
            return Fate::Arrives(0);
        }
        let mut own = Rng::with_seed(draw);
        if own.f64() < self.profile.loss {
            self.traffic.lost += 1;
            return Fate::Lost;
        }
        let Some(left_us) = self.transmitted(bytes, now_us).filter(|_| self.held < HELD_MAX) else {
            self.traffic.overflowed += 1;
            return Fate::Lost;
        };
        let first = self.arrival(left_us, now_us, &mut own);
        if own.f64() < self.profile.duplicate {
            self.traffic.duplicated += 1;
            return Fate::Twice(first, self.arrival(left_us, now_us, &mut own));
        }
        Fate::Arrives(first)
    }

    /// A packet that was on its way begins (+) or ends it.
    pub(super) fn hold(&mut self) {
        self.held += 1;
    }

    pub(super) fn release(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    /// A packet could not be handed over.
    pub(super) fn refused(&mut self) {
        self.traffic.refused += 1;
    }

    /// When the packet's last byte has left, at this bandwidth; `None` when the queue before it is full.
    fn transmitted(&mut self, bytes: usize, now_us: u64) -> Option<u64> {
        let Some(bits_s) = self.profile.bandwidth_bits_s else { return Some(now_us) };
        let bits_s = bits_s.max(1);
        let begins_us = self.busy_until_us.max(now_us);
        let queued_bytes = u128::from(begins_us - now_us) * u128::from(bits_s) / 8_000_000;
        if queued_bytes + bytes as u128 > u128::from(self.profile.queue_bytes) {
            return None;
        }
        let takes_us = bytes as u128 * 8_000_000 / u128::from(bits_s);
        self.busy_until_us = begins_us.saturating_add(u64::try_from(takes_us).unwrap_or(u64::MAX));
        Some(self.busy_until_us)
    }

    fn arrival(&self, left_us: u64, now_us: u64, own: &mut Rng) -> u64 {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 4);
        let (delay, jitter) = (micros(self.profile.delay), micros(self.profile.jitter));
        let mut arrives = left_us + (delay + own.u64(0..=2 * jitter)).saturating_sub(jitter);
        if own.f64() < self.profile.reorder {
            arrives += micros(OVERTAKEN_BY);
        }
        if arrives <= now_us { 0 } else { arrives }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(profile: &LinkProfile, seed: u64, packets: u64) -> Vec<Fate> {
        let mut link = Link::new(seed);
        link.set(profile.clone());
        (0..packets).map(|n| link.judge(1000, n * 1000)).collect()
    }

    #[test]
    fn the_same_seed_decides_the_same_and_another_does_not() {
        let profile = LinkProfile { loss: 0.3, duplicate: 0.3, reorder: 0.3, ..LinkProfile::PLAIN };
        assert_eq!(fates(&profile, 1, 1000), fates(&profile, 1, 1000));
        assert_ne!(fates(&profile, 1, 1000), fates(&profile, 2, 1000));
    }

    #[test]
    fn a_plain_link_passes_at_once_and_a_cut_one_nothing() {
        assert!(fates(&LinkProfile::PLAIN, 3, 100).iter().all(|fate| *fate == Fate::Arrives(0)));
        assert!(fates(&LinkProfile::CUT, 3, 100).iter().all(|fate| *fate == Fate::Lost));
    }

    #[test]
    fn shares_are_what_was_asked() {
        let profile = LinkProfile { loss: 0.1, duplicate: 0.2, ..LinkProfile::PLAIN };
        let fates = fates(&profile, 4, 10_000);
        let count = |is: fn(&Fate) -> bool| fates.iter().filter(|fate| is(fate)).count();
        assert!((900..1100).contains(&count(|fate| *fate == Fate::Lost)));
        assert!((1650..1950).contains(&count(|fate| matches!(fate, Fate::Twice(..)))));
    }

    #[test]
    fn a_delay_lies_within_its_jitter() {
        let (delay, jitter) = (Duration::from_millis(200), Duration::from_millis(100));
        let profile = LinkProfile { delay, jitter, ..LinkProfile::PLAIN };
        let delays: Vec<u64> = (0u64..).zip(fates(&profile, 5, 1000)).map(|(n, fate)| delay_us(fate, n)).collect();
        assert!(delays.iter().all(|delay| (100_000..=300_000).contains(delay)));
        let mean = delays.iter().sum::<u64>() / 1000;
        assert!((190_000..210_000).contains(&mean), "{mean}");
    }

    fn delay_us(fate: Fate, n: u64) -> u64 {
        match fate {
            Fate::Arrives(at) => at - n * 1000,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_narrow_link_takes_its_time_and_drops_what_its_queue_cannot_hold() {
        let mut link = Link::new(6);
        link.set(LinkProfile { bandwidth_bits_s: Some(1_000_000), queue_bytes: 10_000, ..LinkProfile::PLAIN });
        let fates: Vec<Fate> = (0..12).map(|_| link.judge(1000, 0)).collect();
        // A thousand bytes take eight milliseconds; ten of them fill the queue.
        assert_eq!(fates[..3], [Fate::Arrives(8000), Fate::Arrives(16_000), Fate::Arrives(24_000)]);
        assert_eq!(fates[10..], [Fate::Lost, Fate::Lost]);
        assert_eq!(link.traffic().overflowed, 2);
        assert_eq!(link.judge(1000, 80_000), Fate::Arrives(88_000));
    }
}
