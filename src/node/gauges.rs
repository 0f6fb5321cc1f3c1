//! The handles of the node's metrics, and what is copied into them once a second. Counts nothing on a hot path but on
//! plain atomics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aorta_proto::NodeId;
use metrics::{Counter, Gauge, Histogram};
use parking_lot::Mutex;

use crate::clock::{Now, WallEvent, wall_us};
use crate::cluster::{GossipMember, RefusalKind, Validity};
use crate::location::{Counts, Swept};
use crate::metrics::catalogue as names;
use crate::metrics::{Metrics, Tally};
use crate::replication::{ClusterView, Event, Purpose, state_name};
use crate::sip::transport::{TransportCounts, TransportMeter};
use crate::sip::uas::{Family, UasCounts};

/// Counters that hot paths add to.
#[derive(Debug, Clone, Copy)]
enum Hot {
    Published,
    Short,
}

/// How many [`Hot`] ones there are.
const HOT: usize = 2;

/// Of every so many acks one is put into the histogram: a sample costs more than all else that a release does.
const ACKS_SAMPLED: u64 = 16;

/// The handles.
pub(super) struct Gauges {
    pub(super) metrics: Arc<Metrics>,
    hot: Tally<HOT>,
    acks: AtomicU64,
    ack_latency: Histogram,
    snapshot_seconds: Histogram,
    snapshot_records: Counter,
    snapshot_failed: Counter,
    snapshot_age: Gauge,
    unsaved_age: Gauge,
    commit_seconds: Histogram,
    /// Monotonic time of the last whole snapshot, microseconds: when it was on disk, and when it began.
    snapshot_us: AtomicU64,
    snapshot_begun_us: AtomicU64,
    transports: TransportMeter,
    lapsed: Counter,
    forgotten: Counter,
    wall_clock_jumps: Counter,
    validity: Option<Validity>,
    /// What gossip shows of the others.
    members: Mutex<Vec<GossipMember>>,
    /// Members whose lag has a gauge, so that one that left is set to 0.
    lagging: Mutex<BTreeMap<String, Gauge>>,
    /// Likewise how their wall clocks stand.
    skewed: Mutex<BTreeMap<String, Gauge>>,
    /// Members that say how long their changes took.
    lags: Mutex<BTreeMap<NodeId, Histogram>>,
}

/// What the rooms say of themselves at one moment.
pub(super) struct Seen<'a> {
    pub(super) now: Now,
    /// Probes are answered 200.
    pub(super) serves: bool,
    pub(super) table: Counts,
    pub(super) cluster: ClusterView,
    pub(super) changes_received: u64,
    pub(super) answered: &'a UasCounts,
    pub(super) transports: TransportCounts,
}

impl Gauges {
    pub(super) fn new(metrics: Arc<Metrics>, validity: Option<Validity>) -> Self {
        metrics.gauge(&names::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        metrics.gauge(&names::START_TIME, &[]).set(seconds(wall_us()));
        if let Some(validity) = validity {
            metrics.gauge(&names::CERTIFICATE_NOT_AFTER, &[]).set(validity.not_after_s as f64);
        }
        Self {
            hot: Tally::new(),
            acks: AtomicU64::new(0),
            ack_latency: metrics.histogram(&names::ACK_LATENCY, &[]),
            snapshot_seconds: metrics.histogram(&names::SNAPSHOT_SECONDS, &[]),
            snapshot_records: metrics.counter(&names::SNAPSHOT_RECORDS, &[]),
            snapshot_failed: metrics.counter(&names::SNAPSHOT_FAILED, &[]),
            snapshot_age: metrics.gauge(&names::SNAPSHOT_AGE, &[]),
            unsaved_age: metrics.gauge(&names::UNSAVED_AGE, &[]),
            commit_seconds: metrics.histogram(&names::COMMIT_SECONDS, &[]),
            snapshot_us: AtomicU64::new(0),
            snapshot_begun_us: AtomicU64::new(0),
            transports: TransportMeter::new(&metrics),
            lapsed: metrics.counter(&names::ENTRIES_LAPSED, &[]),
            forgotten: metrics.counter(&names::ENTRIES_FORGOTTEN, &[]),
            wall_clock_jumps: metrics.counter(&names::WALL_CLOCK_JUMPS, &[]),
            validity,
            members: Mutex::new(Vec::new()),
            lagging: Mutex::new(BTreeMap::new()),
            skewed: Mutex::new(BTreeMap::new()),
            lags: Mutex::new(BTreeMap::new()),
            metrics,
        }
    }

    /// So many changes were published.
    pub(super) fn published(&self, changes: usize) {
        self.hot.add(Hot::Published as usize, changes as u64);
    }

    /// A reply left with fewer acks than were asked for.
    pub(super) fn short(&self) {
        self.hot.count(Hot::Short as usize);
    }

    /// A reply left so long after its change.
    pub(super) fn acked(&self, after_us: u64) {
        if self.acks.fetch_add(1, Ordering::Relaxed).is_multiple_of(ACKS_SAMPLED) {
            self.ack_latency.record(seconds(after_us));
        }
    }

    /// Changes of a peer are in this node's table, so long after they were published there.
    pub(super) fn lagged(&self, peer: &NodeId, lag_us: u64) {
        let mut lags = self.lags.lock();
        // One more for each node that was ever linked: a handful.
        if !lags.contains_key(peer) {
            let histogram = self.metrics.histogram(&names::REPLICATION_LAG, &[("peer", peer.as_str())]);
            lags.insert(peer.clone(), histogram);
        }
        if let Some(histogram) = lags.get(peer) {
            histogram.record(seconds(lag_us));
        }
    }

    /// A snapshot is whole on disk.
    pub(super) fn saved(&self, records: usize, took_us: u64, now_us: u64) {
        self.snapshot_seconds.record(seconds(took_us));
        self.snapshot_records.increment(records as u64);
        self.snapshot_us.store(now_us, Ordering::Relaxed);
        self.snapshot_begun_us.store(now_us.saturating_sub(took_us), Ordering::Relaxed);
    }

    /// A commit is on disk.
    pub(super) fn committed(&self, records: usize, took_us: u64) {
        self.commit_seconds.record(seconds(took_us));
        self.snapshot_records.increment(records as u64);
    }

    /// A snapshot could not be written.
    pub(super) fn not_saved(&self) {
        self.snapshot_failed.increment(1);
    }

    /// A sweep was made.
    pub(super) fn swept(&self, swept: Swept) {
        self.lapsed.increment(swept.slimmed as u64);
        self.forgotten.increment(swept.forgotten as u64);
    }

    /// How the others' wall clocks stand to this node's, µs.
    pub(super) fn skews(&self, skews_us: &BTreeMap<NodeId, i64>) {
        let mut skewed = self.skewed.lock();
        for gauge in skewed.values() {
            gauge.set(0.0);
        }
        for (node, skew_us) in skews_us {
            let of = |name: &String| self.metrics.gauge(&names::WALL_CLOCK_SKEW, &[("peer", name)]);
            skewed.entry(node.to_string()).or_insert_with_key(of).set(*skew_us as f64 / 1e6);
        }
    }

    /// Something turned with a wall clock.
    pub(super) fn wall_clock(&self, event: &WallEvent) {
        if matches!(event, WallEvent::Jumped { .. }) {
            self.wall_clock_jumps.increment(1);
        }
    }

    /// A link was refused.
    pub(super) fn refused(&self, kind: RefusalKind) {
        let reason = match kind {
            RefusalKind::Handshake => "handshake",
            RefusalKind::Twin => "twin",
            RefusalKind::Hello => "hello",
            RefusalKind::Protocol => "protocol",
            RefusalKind::ByPeer => "by_peer",
        };
        self.metrics.counter(&names::LINKS_REFUSED, &[("reason", reason)]).increment(1);
    }

    /// What gossip shows now.
    pub(super) fn seen(&self, members: Vec<GossipMember>) {
        *self.members.lock() = members;
    }

    /// What gossip showed last.
    pub(super) fn members(&self) -> Vec<GossipMember> {
        self.members.lock().clone()
    }

    /// Why this node's certificate is no good now, if so.
    pub(super) fn certificate_problem(&self) -> Option<String> {
        self.validity?.problem(i64::try_from(wall_us() / 1_000_000).ok()?)
    }

    /// Whether its certificate lapses within the warning time.
    pub(super) fn certificate_ends_soon(&self) -> bool {
        self.validity.is_some_and(|validity| validity.ends_soon(i64::try_from(wall_us() / 1_000_000).unwrap_or(0)))
    }

    /// Counts what happened in the cluster.
    pub(super) fn event(&self, event: &Event) {
        let add = |metric, by: u64| self.metrics.counter(metric, &[]).increment(by);
        match event {
            Event::Fenced { .. } => add(&names::FENCED, 1),
            Event::ClockMoved { by_us, .. } => add(&names::CLOCK_MOVED, by_us / 1_000_000),
            Event::Suspect { .. } => add(&names::SUSPECTED, 1),
            Event::DiskLate { .. } => add(&names::DISKS_LATE, 1),
            Event::Overflow { .. } => add(&names::OVERFLOWS, 1),
            Event::StampAhead { count, .. } => add(&names::STAMPS_AHEAD, *count),
            Event::Conflict { count, .. } => add(&names::CONFLICTS, *count),
            Event::VersionRefused { .. } => add(&names::VERSIONS_REFUSED, 1),
            Event::ExchangeFailed { purpose, .. } => self.exchange(*purpose, "failed"),
            Event::ExchangeDone { purpose, moved, .. } => {
                self.exchange(*purpose, "done");
                let moves = |metric, direction: &str, by: u64| {
                    self.metrics.counter(metric, &[("direction", direction)]).increment(by);
                };
                moves(&names::EXCHANGE_BYTES, "in", moved.bytes_in);
                moves(&names::EXCHANGE_BYTES, "out", moved.bytes_out);
                moves(&names::EXCHANGE_RECORDS, "in", moved.records_in);
                moves(&names::EXCHANGE_RECORDS, "out", moved.entries_out);
            }
            _ => {}
        }
    }

    fn exchange(&self, purpose: Purpose, result: &str) {
        let purpose = match purpose {
            Purpose::Join => "join",
            Purpose::ColdStart => "cold_start",
            Purpose::Repair => "repair",
            Purpose::Routine => "routine",
            Purpose::Drain => "drain",
        };
        self.metrics.counter(&names::EXCHANGES, &[("purpose", purpose), ("result", result)]).increment(1);
    }

    /// Copies what the rooms counted. Once a second.
    pub(super) fn copy(&self, seen: &Seen<'_>) {
        self.copy_counts(seen);
        self.transports.publish(&seen.transports);
        let Counts { aors, live, gone, dirty, bytes } = seen.table;
        let set = |metric, value: u64| self.metrics.gauge(metric, &[]).set(value as f64);
        set(&names::AORS, aors);
        set(&names::CONTACTS, live);
        set(&names::ENTRIES_GONE, gone);
        set(&names::RECORDS_DIRTY, dirty);
        set(&names::LOCATION_BYTES, bytes);
        set(&names::MEMORY_MAX, seen.cluster.memory_max_bytes);
        set(&names::NODES_FULL, seen.cluster.memory_full.len() as u64);
        let age_us = seen.now.mono_us.saturating_sub(self.snapshot_us.load(Ordering::Relaxed));
        self.snapshot_age.set(seconds(age_us));
        let oldest_us = seen.now.mono_us.saturating_sub(self.snapshot_begun_us.load(Ordering::Relaxed));
        self.unsaved_age.set(if dirty > 0 { seconds(oldest_us) } else { 0.0 });
        let ClusterView { peers, replies_waiting, outbox_bytes, .. } = &seen.cluster;
        set(&names::READY, u64::from(seen.serves));
        set(&names::MEMBERS, self.members.lock().len() as u64 + 1);
        set(&names::LINKS, peers.iter().filter(|peer| peer.linked).count() as u64);
        set(&names::SUSPECTS, peers.iter().filter(|peer| peer.suspect).count() as u64);
        set(&names::REPLIES_PENDING, *replies_waiting as u64);
        set(&names::OUTBOX_BYTES, *outbox_bytes as u64);
        set(&names::WIRE_VERSION, u64::from(seen.cluster.wire_version));
        let mut lagging = self.lagging.lock();
        for gauge in lagging.values() {
            gauge.set(0.0);
        }
        for peer in peers {
            let of = |name: &String| self.metrics.gauge(&names::PEER_LAG, &[("peer", name)]);
            lagging.entry(peer.node.to_string()).or_insert_with_key(of).set(peer.lag as f64);
            if let Some(offset_us) = peer.cluster_time_offset_us {
                let gauge = self.metrics.gauge(&names::CLUSTER_TIME_OFFSET, &[("peer", peer.node.as_str())]);
                gauge.set(offset_us as f64 / 1e6);
            }
        }
    }

    fn copy_counts(&self, seen: &Seen<'_>) {
        let [published, short] = self.hot.totals();
        let total = |metric, value: u64| self.metrics.counter(metric, &[]).absolute(value);
        total(&names::DELTAS_PUBLISHED, published);
        total(&names::REPLIES_SHORT, short);
        total(&names::DELTAS_RECEIVED, seen.changes_received);
        for (family, label, value) in seen.answered.totals() {
            let (metric, name) = match family {
                Family::Requests => (&names::SIP_REQUESTS, "method"),
                Family::Replies => (&names::SIP_REPLIES, "status"),
                Family::RegisterAccepted => (&names::REGISTER_ACCEPTED, "kind"),
                Family::RegisterRefused => (&names::REGISTER_REFUSED, "reason"),
                Family::Lookups => (&names::LOOKUPS, "result"),
                Family::Dropped => (&names::SIP_DROPPED, "reason"),
            };
            self.metrics.counter(metric, &[(name, label)]).absolute(value);
        }
    }

    /// A word for a state that nobody has said.
    pub(super) fn state_of(member: &GossipMember) -> String {
        let typed = crate::replication::Member::from_keys(member.node.clone(), &member.values);
        typed.map_or_else(|_| "unknown".to_owned(), |member| state_name(member.state).to_owned())
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
