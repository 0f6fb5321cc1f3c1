//! When the next request is due. It reads no clock.

/// How requests follow one another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many are always in flight: each answer starts the next one. Measures how much a server can do.
    Closed {
        /// Requests in flight, over all targets.
        window: usize,
    },
    /// So many a second, whatever the answers do; a latency counts from the moment that the request was due. Measures what
    /// somebody meets who does not wait for others.
    Open {
        /// Requests a second.
        per_s: f64,
        /// Whether they come by chance (exponential distances), else evenly.
        poisson: bool,
    },
}

/// The moments of an open loop, nanoseconds.
#[derive(Debug)]
pub(super) struct Schedule {
    due_ns: f64,
    distance_ns: f64,
    poisson: bool,
    chance: fastrand::Rng,
}

impl Schedule {
    pub(super) fn new(per_s: f64, poisson: bool, from_ns: u64) -> Self {
        let chance = fastrand::Rng::with_seed(from_ns);
        Self { due_ns: from_ns as f64, distance_ns: 1e9 / per_s, poisson, chance }
    }

    /// The next moment, if it is not after `now_ns`; it counts as used.
    pub(super) fn due(&mut self, now_ns: u64) -> Option<u64> {
        let due_ns = self.due_ns;
        (due_ns <= now_ns as f64).then(|| {
            let share = if self.poisson { -(1.0 - self.chance.f64()).ln() } else { 1.0 };
            self.due_ns += self.distance_ns * share;
            due_ns as u64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(poisson: bool) -> Vec<u64> {
        let mut schedule = Schedule::new(1000.0, poisson, 5);
        std::iter::from_fn(|| schedule.due(10_000_000_005)).collect()
    }

    #[test]
    fn a_schedule_keeps_its_rate_evenly_or_by_chance() {
        let even = moments(false);
        assert_eq!((even.len(), even[0], even[1], even[10_000]), (10_001, 5, 1_000_005, 10_000_000_005));
        let chance = moments(true);
        assert!((9_700..10_300).contains(&chance.len()), "{}", chance.len());
        let mut gaps: Vec<u64> = chance.windows(2).map(|two| two[1] - two[0]).collect();
        gaps.sort_unstable();
        // The median of an exponential distribution is ln 2 of its mean.
        assert!((600_000..800_000).contains(&gaps[gaps.len() / 2]), "{}", gaps[gaps.len() / 2]);
    }
}
