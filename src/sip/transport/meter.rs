//! Publishes what the transports count under the names of the catalogue. Counts nothing itself.

use metrics::{Counter, Gauge};

use super::TransportCounts;
use crate::metrics::{Metric, Metrics, catalogue};

/// Handles of the transports' metrics; all show as 0 from the start.
#[derive(Debug)]
pub struct TransportMeter {
    counters: Vec<(Counter, Read)>,
    open: Gauge,
}

type Read = fn(&TransportCounts) -> u64;

/// Metric, its label if it has one, and where the count is.
type Line = (Metric, Option<(&'static str, &'static str)>, Read);

const COUNTERS: &[Line] = &[
    (catalogue::SIP_MESSAGES, Some(("transport", "udp")), |counts| counts.udp_messages),
    (catalogue::SIP_MESSAGES, Some(("transport", "tcp")), |counts| counts.tcp_messages),
    (catalogue::SIP_DROPPED, Some(("reason", "not_allowed")), |counts| counts.dropped_not_allowed),
    (catalogue::SIP_DROPPED, Some(("reason", "aged")), |counts| counts.dropped_aged),
    (catalogue::SIP_DROPPED, Some(("reason", "too_large")), |counts| counts.dropped_too_large),
    (catalogue::SIP_DROPPED, Some(("reason", "empty")), |counts| counts.dropped_empty),
    (catalogue::SIP_DROPPED, Some(("reason", "panicked")), |counts| counts.dropped_panicked),
    (catalogue::SIP_REPLIES_SENT, None, |counts| counts.replies_sent),
    (catalogue::SIP_REPLIES_FAILED, None, |counts| counts.replies_failed),
    (catalogue::UDP_SOCKET_DROPS, None, |counts| counts.udp_socket_drops),
    (catalogue::TCP_ACCEPTED, None, |counts| counts.tcp_accepted),
    (catalogue::TCP_REFUSED, None, |counts| counts.tcp_refused),
    (catalogue::TCP_DIALLED, None, |counts| counts.tcp_dialled),
    (catalogue::TCP_CLOSED, Some(("reason", "timed_out")), |counts| counts.tcp_timed_out),
    (catalogue::TCP_CLOSED, Some(("reason", "slow_reader")), |counts| counts.tcp_slow_reader),
    (catalogue::TCP_CLOSED, Some(("reason", "unframed")), |counts| counts.tcp_unframed),
    (catalogue::TCP_CLOSED, Some(("reason", "aged")), |counts| counts.tcp_aged),
    (catalogue::SLEEPS, None, |counts| counts.sleeps),
];

impl TransportMeter {
    /// Takes its handles.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let handle = |(metric, label, read): &Line| (metrics.counter(metric, label.as_slice()), *read);
        let counters = COUNTERS.iter().map(handle).collect();
        Self { counters, open: metrics.gauge(&catalogue::TCP_CONNECTIONS, &[]) }
    }

    /// Publishes `counts`, which are [`super::Transports::counts`]; to be called once a second.
    pub fn publish(&self, counts: &TransportCounts) {
        for (counter, read) in &self.counters {
            counter.absolute(read(counts));
        }
        // Far below 2^52 connections.
        self.open.set(counts.tcp_open as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_appear_under_their_names() {
        let metrics = Metrics::new();
        let meter = TransportMeter::new(&metrics);
        assert!(metrics.render().contains("aorta_sip_dropped_total{reason=\"aged\"} 0\n"));
        let counts = TransportCounts { dropped_aged: 3, tcp_open: 2, udp_messages: 9, ..TransportCounts::default() };
        meter.publish(&counts);
        let text = metrics.render();
        for line in [
            "aorta_sip_dropped_total{reason=\"aged\"} 3\n",
            "aorta_tcp_connections 2\n",
            "aorta_sip_messages_total{transport=\"udp\"} 9\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
