//! What a run of load amounts to: counts, latencies, complaints. It decides nothing; judges do.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Examples kept of anything that is counted, so that a run that goes wrong everywhere stays small.
pub const EXAMPLES_MAX: usize = 20;

/// Sub-buckets per power of two: quantiles are within 1/32 of the truth.
const SUB: u64 = 32;
/// Powers of two above the first `SUB` microseconds: up to hours.
const OCTAVES: usize = 32;

/// Latencies in microseconds, log-linear, of fixed size.
#[derive(Clone)]
pub struct Latency {
    buckets: Vec<u64>,
    count: u64,
    max_us: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Latency { buckets: vec![0; SUB as usize * (OCTAVES + 1)], count: 0, max_us: 0 }
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:?} p99 {:?} max {:?} of {}", self.quantile(0.5), self.quantile(0.99), self.max(), self.count)
    }
}

impl Latency {
    fn slot(us: u64) -> usize {
        if us < SUB {
            return us as usize;
        }
        let octave = us.ilog2() - SUB.ilog2();
        let slot = SUB * u64::from(octave + 1) + ((us >> octave) - SUB);
        (slot as usize).min(SUB as usize * (OCTAVES + 1) - 1)
    }

    fn upper_us(slot: u64) -> u64 {
        if slot < SUB {
            return slot;
        }
        let octave = slot / SUB - 1;
        ((slot % SUB + SUB + 1) << octave) - 1
    }

    /// Adds one.
    pub fn add(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.buckets[Self::slot(us)] += 1;
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    /// The latency that a share `p` (0 to 1) of all did not exceed; zero when there is none.
    #[must_use]
    pub fn quantile(&self, p: f64) -> Duration {
        let rank = ((self.count as f64 * p).ceil() as u64).max(1);
        let mut seen = 0;
        for (slot, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return Duration::from_micros(Self::upper_us(slot as u64).min(self.max_us));
            }
        }
        Duration::ZERO
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max_us)
    }

    /// Those that were added since an earlier copy was made. The longest of them is known as well as any quantile.
    #[must_use]
    pub fn since(&self, earlier: &Latency) -> Latency {
        let buckets: Vec<u64> = self.buckets.iter().zip(&earlier.buckets).map(|(now, then)| now - then).collect();
        let last = buckets.iter().rposition(|n| *n > 0);
        let max_us = last.map_or(0, |slot| Self::upper_us(slot as u64).min(self.max_us));
        Latency { buckets, count: self.count - earlier.count, max_us }
    }

    /// How many were added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds those of another.
    pub fn merge(&mut self, other: &Latency) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max_us = self.max_us.max(other.max_us);
    }
}

/// Something counted, with its first few examples.
#[derive(Debug, Clone)]
pub struct Counted<T> {
    /// How many in all.
    pub count: u64,
    /// The first of them, at most [`EXAMPLES_MAX`].
    pub examples: Vec<T>,
}

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Counted { count: 0, examples: Vec::new() }
    }
}

impl<T> Counted<T> {
    /// Counts one and keeps it if it is among the first.
    pub fn add(&mut self, example: T) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example);
        }
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: Counted<T>) {
        self.count += other.count;
        let room = EXAMPLES_MAX - self.examples.len();
        self.examples.extend(other.examples.into_iter().take(room));
    }

    /// Nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// What one run of requests amounts to.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Requests started.
    pub started: u64,
    /// Requests that ended with a final reply, whatever its status.
    pub answered: u64,
    /// Requests that ended without any final reply.
    pub timed_out: u64,
    /// Datagrams sent again (RFC 3261 §17.1.2.2, timer E).
    pub retransmitted: u64,
    /// Times a request was given to another node after a timeout or a 5xx.
    pub failed_over: u64,
    /// Replies to nothing that is waited for: late, repeated or misdirected ones.
    pub stray: u64,
    /// Final replies by status.
    pub by_status: BTreeMap<u16, u64>,
    /// From the first send (open loop: from the due time) to the final reply.
    pub latency: Latency,
    /// Replies that break RFC 3261: unreadable, or not an answer to what was sent.
    pub malformed: Counted<String>,
    /// Wall time of the run.
    pub elapsed: Duration,
}

impl Stats {
    /// Adds the counts of another run that went on at the same time.
    pub fn merge(&mut self, other: Stats) {
        self.started += other.started;
        self.answered += other.answered;
        self.timed_out += other.timed_out;
        self.retransmitted += other.retransmitted;
        self.failed_over += other.failed_over;
        self.stray += other.stray;
        for (status, n) in other.by_status {
            *self.by_status.entry(status).or_default() += n;
        }
        self.latency.merge(&other.latency);
        self.malformed.merge(other.malformed);
        self.elapsed = self.elapsed.max(other.elapsed);
    }

    /// Final replies with this status.
    #[must_use]
    pub fn status(&self, status: u16) -> u64 {
        self.by_status.get(&status).copied().unwrap_or_default()
    }

    /// Final replies per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64().max(1e-6)
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} answered in {:.2?} ({:.0}/s), p50 {:?}, p99 {:?}, max {:?}, {} retransmitted, {} failed over, {} timed out, by status {:?}",
            self.answered,
            self.elapsed,
            self.per_second(),
            self.latency.quantile(0.5),
            self.latency.quantile(0.99),
            self.latency.max(),
            self.retransmitted,
            self.failed_over,
            self.timed_out,
            self.by_status
        )?;
        if let Some(first) = self.malformed.examples.first() {
            write!(f, ", {} malformed, as: {first}", self.malformed.count)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Latency;
    use std::time::Duration;

    #[test]
    fn quantiles_are_within_a_thirty_second() {
        let mut latency = Latency::default();
        for us in 1..=100_000 {
            latency.add(Duration::from_micros(us));
        }
        for (p, us) in [(0.5, 50_000.0), (0.99, 99_000.0), (1.0, 100_000.0)] {
            let got = latency.quantile(p).as_micros() as f64;
            assert!((got / us - 1.0).abs() < 0.04, "p{p}: {got}");
        }
        assert_eq!(Latency::default().quantile(0.5), Duration::ZERO);
    }
}
