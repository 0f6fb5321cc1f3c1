//! What an experiment found: figures by name, and whether they may be believed. Of several runs the median counts. It
//! measures nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::load::Latencies;
use super::measure::Row;
use super::size::Size;

/// One run of one experiment on one kind of servers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Values by name, each with its unit in the name.
    pub figures: BTreeMap<String, f64>,
    /// Why they must not be believed; nothing if they may.
    pub void: Vec<String>,
}

impl Finding {
    /// With one more figure.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: f64) -> Self {
        self.figures.insert(name.to_owned(), value);
        self
    }

    /// With latencies whose names begin so.
    #[must_use]
    pub(super) fn latencies(self, prefix: &str, latencies: &Latencies) -> Self {
        let Latencies { p50_ms, p90_ms, p99_ms, p999_ms, max_ms } = *latencies;
        let name = |quantile: &str| format!("{prefix}{quantile}");
        self.with(&name("p50_ms"), p50_ms)
            .with(&name("p90_ms"), p90_ms)
            .with(&name("p99_ms"), p99_ms)
            .with(&name("p999_ms"), p999_ms)
            .with(&name("max_ms"), max_ms)
    }

    /// A value; `None` when the experiment has none of this name.
    #[must_use]
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.get(name).copied()
    }

    /// Figure by figure the median of those runs that may be believed, or of all when none may.
    #[must_use]
    pub fn median(runs: &[Self]) -> Self {
        let sound: Vec<&Self> = runs.iter().filter(|run| run.void.is_empty()).collect();
        let void = if sound.is_empty() { runs.iter().flat_map(|run| run.void.clone()).collect() } else { Vec::new() };
        let counted = if sound.is_empty() { runs.iter().collect() } else { sound };
        let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (name, value) in counted.iter().flat_map(|run| &run.figures) {
            values.entry(name.clone()).or_default().push(*value);
        }
        let figures = values.into_iter().filter_map(|(name, values)| Some((name, middle(values)?))).collect();
        Self { figures, void }
    }
}

/// The median; `None` of nothing.
pub(super) fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    let upper = *values.get(half)?;
    Some(if values.len().is_multiple_of(2) { f64::midpoint(values[half - 1], upper) } else { upper })
}

impl From<Row> for Finding {
    fn from(row: Row) -> Self {
        let figures = Self { void: row.void.clone(), ..Self::default() }
            .with("per_s", row.per_s)
            .with("cpu_us", row.cpu_us)
            .with("busy_us", row.busy_us)
            .with("again", row.retransmitted as f64)
            .with("refused", row.refused as f64)
            .with("lost", row.lost as f64)
            .with("unanswered", row.unanswered as f64)
            .with("dropped", row.dropped as f64)
            .with("ceiling_per_s", row.ceiling_per_s)
            .with("node_mib", row.node_mib);
        figures.latencies("", &row.latencies)
    }
}

impl From<Size> for Finding {
    fn from(size: Size) -> Self {
        Self { void: size.void.clone(), ..Self::default() }
            .with("contacts", size.contacts.into())
            .with("empty_mib", size.empty_mib)
            .with("joined_bytes", size.joined_bytes)
            .with("restarted_bytes", size.restarted_bytes)
            .with("grown_bytes", size.grown_bytes)
            .with("join_s", size.join_s)
            .with("join_loaded_s", size.join_loaded_s)
            .with("join_p99_rise", size.joining.p99_rise(&size.calm))
            .with("join_p99_of_whole", size.joining.p99_rise(&size.whole))
            .with("join_failed", size.join_failed as f64)
            .with("restart_s", size.restart_s)
            .with("fill_per_s", size.fill_per_s)
            .latencies("whole_", &size.whole)
            .latencies("calm_", &size.calm)
            .latencies("joining_", &size.joining)
            .latencies("after_join_", &size.after_join)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_the_runs_that_may_be_believed() {
        let run = |value, void: &[&str]| {
            let void = void.iter().map(|why| (*why).to_owned()).collect();
            Finding { void, ..Finding::default() }.with("cpu_us", value)
        };
        let runs = [run(3.0, &[]), run(90.0, &["busy"]), run(1.0, &[]), run(2.0, &[])];
        let median = Finding::median(&runs);
        assert_eq!((median.figure("cpu_us"), median.void.len()), (Some(2.0), 0));
        assert_eq!(Finding::median(&[run(1.0, &[]), run(2.0, &[])]).figure("cpu_us"), Some(1.5));
        let median = Finding::median(&[run(5.0, &["busy"]), run(7.0, &["busy too"])]);
        assert_eq!((median.figure("cpu_us"), median.void.len()), (Some(6.0), 2), "shown, and said to be void");
        assert_eq!(Finding::median(&[]).figure("cpu_us"), None);
    }
}
