//! Metrics: one [`catalogue`] of names, units and help texts, and the recorder that Prometheus reads. Measures nothing
//! itself.
//!
//! A node has one [`Metrics`]; there is no global one, so that several nodes fit into one process. Rooms ask for a handle
//! once and keep it. A handle costs 10 ns, and 180 ns when four threads share it, so hot paths count on a [`Tally`] or on
//! their own and publish totals each second with [`metrics::Counter::absolute`].

pub mod catalogue;
mod tally;

use std::fmt;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use tally::Tally;

/// One metric, as the catalogue has it. Units are in the name, as Prometheus wants them: `_seconds`, `_bytes`, `_total`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its name in Prometheus.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels; every handle names them all.
    pub labels: &'static [&'static str],
    /// One sentence for people.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// A distribution, with the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// One node's metrics.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

const METADATA: Metadata<'static> = Metadata::new("aorta", Level::INFO, None);

impl Metrics {
    /// With everything in the catalogue described and nothing counted.
    #[must_use]
    pub fn new() -> Self {
        let mut builder = PrometheusBuilder::new();
        for metric in catalogue::ALL {
            if let Kind::Histogram(bounds) = metric.kind {
                let name = Matcher::Full(metric.name.to_owned());
                // Refused only for an empty list of bounds, which a test rules out.
                builder = builder.set_buckets_for_metric(name, bounds).unwrap_or_default();
            }
        }
        let recorder = builder.build_recorder();
        for metric in catalogue::ALL {
            let (name, help) = (KeyName::from(metric.name), metric.help.into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
            }
        }
        Self { handle: recorder.handle(), recorder }
    }

    /// The handle of a counter; it shows as 0 from now on.
    pub fn counter(&self, metric: &Metric, labels: &[(&'static str, &str)]) -> Counter {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        self.recorder.register_counter(&key(metric, labels), &METADATA)
    }

    /// The handle of a gauge.
    pub fn gauge(&self, metric: &Metric, labels: &[(&'static str, &str)]) -> Gauge {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        self.recorder.register_gauge(&key(metric, labels), &METADATA)
    }

    /// The handle of a histogram. Samples wait in memory until [`Metrics::upkeep`].
    pub fn histogram(&self, metric: &Metric, labels: &[(&'static str, &str)]) -> Histogram {
        debug_assert!(matches!(metric.kind, Kind::Histogram(_)), "{}", metric.name);
        self.recorder.register_histogram(&key(metric, labels), &METADATA)
    }

    /// All that was counted, in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Sorts samples into buckets. To be called every 5 s; else each waits in memory for somebody to render.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn key(metric: &Metric, labels: &[(&'static str, &str)]) -> Key {
    debug_assert!(metric.labels.iter().eq(labels.iter().map(|(name, _)| name)), "labels of {}", metric.name);
    let labels: Vec<Label> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(metric.name, labels)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_catalogue_keeps_the_customs_of_prometheus() {
        let mut names = HashSet::new();
        for metric in catalogue::ALL {
            let name = metric.name;
            assert!(names.insert(name), "{name} twice");
            assert!(name.starts_with("aorta") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}: _total is for counters");
            assert!(metric.help.ends_with('.') && metric.help.len() > 20, "{name} needs a sentence");
            if let Kind::Histogram(bounds) = metric.kind {
                assert!(name.ends_with("_seconds") && bounds.is_sorted() && !bounds.is_empty(), "{name}");
            }
        }
    }

    #[test]
    fn the_document_is_the_catalogue() {
        let document = include_str!("../../deploy/metrics.md");
        let wanted = catalogue::document();
        assert!(document == wanted, "deploy/metrics.md must be:\n{wanted}");
    }

    #[test]
    fn what_is_counted_is_rendered_with_help_and_labels() {
        let metrics = Metrics::new();
        metrics.counter(&catalogue::REGISTER_REFUSED, &[("reason", "old_cseq")]).absolute(3);
        metrics.gauge(&catalogue::CONTACTS, &[]).set(7.0);
        let latency = metrics.histogram(&catalogue::ACK_LATENCY, &[]);
        latency.record(0.0015);
        latency.record(9.0);
        metrics.upkeep();
        let text = metrics.render();
        for line in [
            "# HELP aorta_register_refused_total REGISTER requests refused, by reason.",
            "# TYPE aorta_register_refused_total counter",
            "_register_refused_total{reason=\"old_cseq\"} 3",
            "_contacts 7",
            "_ack_latency_seconds_bucket{le=\"0.001\"} 0",
            "_ack_latency_seconds_bucket{le=\"0.002\"} 1",
            "_ack_latency_seconds_bucket{le=\"+Inf\"} 2",
        ] {
            let wanted = |found: &str| found == line || found.strip_prefix("aorta") == Some(line);
            assert!(text.lines().any(wanted), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn two_nodes_in_one_process_count_apart() {
        let (one, two) = (Metrics::new(), Metrics::new());
        one.gauge(&catalogue::CONTACTS, &[]).set(1.0);
        two.gauge(&catalogue::CONTACTS, &[]).set(2.0);
        let line = |value| format!("{} {value}\n", catalogue::CONTACTS.name);
        assert!(one.render().contains(&line(1)) && two.render().contains(&line(2)));
    }
}
