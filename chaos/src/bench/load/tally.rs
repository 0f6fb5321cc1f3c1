//! What a load met: counts and latencies. It judges nothing.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency told apart, microseconds: above every retransmission's end.
const LATENCY_MAX_US: u64 = 60_000_000;
/// Digits of a latency that are kept.
const DIGITS: u8 = 3;

/// Since the last look.
#[derive(Clone)]
pub struct Tally {
    /// Requests sent for the first time.
    pub sent: u64,
    /// Answers as expected.
    pub answered: u64,
    /// Other final answers, and the last of them.
    pub refused: u64,
    /// The status of the last one refused.
    pub last_refused: u16,
    /// Requests sent again for want of an answer.
    pub retransmitted: u64,
    /// Requests given up.
    pub lost: u64,
    /// Requests that have been sent again at least once and have no answer yet; the latencies have the time so far of each.
    pub unanswered: u64,
    /// Requests that were due and found no room: the load could not keep its pace.
    pub overrun: u64,
    /// Times from sending (closed loop) or from being due (open loop) to the answer, tenths of microseconds.
    latencies: Histogram<u64>,
    /// How long that was.
    pub span: Duration,
    /// How much of it the load's thread had its processor.
    pub on_processor: f64,
}

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// Half are at most this.
    pub p50_ms: f64,
    /// Nine of ten.
    pub p90_ms: f64,
    /// All but one of a hundred.
    pub p99_ms: f64,
    /// All but one of a thousand.
    pub p999_ms: f64,
    /// All.
    pub max_ms: f64,
}

impl Latencies {
    /// How many times the p99 of these was that of `calm`.
    #[must_use]
    pub fn p99_rise(&self, calm: &Self) -> f64 {
        self.p99_ms / calm.p99_ms.max(0.001)
    }
}

impl Tally {
    /// Nothing yet.
    ///
    /// # Errors
    /// Never, but the histogram's crate has one for bounds that are none.
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            sent: 0,
            answered: 0,
            refused: 0,
            last_refused: 0,
            retransmitted: 0,
            lost: 0,
            unanswered: 0,
            overrun: 0,
            latencies: Histogram::new_with_bounds(1, LATENCY_MAX_US * 10, DIGITS)?,
            span: Duration::ZERO,
            on_processor: 0.0,
        })
    }

    /// Counts a latency. Allocates nothing.
    pub(super) fn latency(&mut self, ns: u64) {
        self.latencies.saturating_record(ns / 100);
    }

    /// Requests that came to nothing, or have not come to anything yet.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.refused + self.lost + self.unanswered + self.overrun
    }

    /// Answers a second.
    #[must_use]
    pub fn per_s(&self) -> f64 {
        self.answered as f64 / self.span.as_secs_f64().max(1e-9)
    }

    /// The latencies' quantiles.
    #[must_use]
    pub fn latencies(&self) -> Latencies {
        let quantile = |share| self.latencies.value_at_quantile(share) as f64 / 10_000.0;
        Latencies {
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: self.latencies.max() as f64 / 10_000.0,
        }
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts =
            (self.sent, self.answered, self.refused, self.retransmitted, self.lost, self.unanswered, self.overrun);
        f.debug_struct("Tally").field("counts", &counts).field("latencies", &self.latencies()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_counted() -> anyhow::Result<()> {
        let mut tally = Tally::new()?;
        (1..=1000).for_each(|us| tally.latency(us * 1000));
        (tally.answered, tally.span) = (1000, Duration::from_millis(500));
        let Latencies { p50_ms, p99_ms, max_ms, .. } = tally.latencies();
        assert!((p50_ms - 0.5).abs() < 0.001 && (p99_ms - 0.99).abs() < 0.001 && (max_ms - 1.0).abs() < 0.001);
        assert!((tally.per_s() - 2000.0).abs() < 1.0);
        tally.latency(u64::MAX);
        assert!(tally.latencies().max_ms >= 60_000.0, "what is longer than all counts as the longest");
        Ok(())
    }
}
