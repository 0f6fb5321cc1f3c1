//! Every metric's name, kind, unit, labels and help text, in one list. Nothing is counted under a name that is not here,
//! and `deploy/metrics.md` is this list for people.

use super::{Kind, Metric};

/// Bucket bounds of times that an ack may take, seconds: fine around a network's delay, coarse towards the timeout.
const ACK_SECONDS: &[f64] = &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0];

/// Bucket bounds of times that work on disk may take, seconds.
const DISK_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Bucket bounds of times that a change may take to another node, seconds: fine around a network's delay, coarse towards
/// what a link that was cut brings late.
const LAG_SECONDS: &[f64] = &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0];

/// The list as `deploy/metrics.md` has it.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
        What `GET /metrics` of a node gives, in the text format of Prometheus. Labels are in braces; units are in the \
        names.\n\n| metric | kind | meaning |\n|---|---|---|\n",
    );
    for Metric { name, kind, labels, help } in ALL {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        text.push_str(&format!("| `{name}{labels}` | {kind} | {help} |\n"));
    }
    text
}

/// Bucket bounds of the time that one commit takes, seconds: from a disk with a protected cache to one that turns.
const COMMIT_SECONDS_BOUNDS: &[f64] = &[0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0];

macro_rules! catalogue {
    ($($place:ident: $kind:expr, $name:literal, [$($label:literal),*], $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $place: Metric = Metric { name: $name, kind: $kind, labels: &[$($label),*], help: $help };
        )+

        /// All of them.
        pub const ALL: &[Metric] = &[$($place),+];
    };
}

catalogue! {
    // SIP: what is heard and said.
    SIP_MESSAGES: Kind::Counter, "aorta_sip_messages_total", ["transport"],
        "SIP messages read whole, before anything was judged.";
    SIP_DROPPED: Kind::Counter, "aorta_sip_dropped_total", ["reason"],
        "Dropped without an answer: not_allowed, aged, too_large, empty, panicked, unparsable.";
    SIP_REQUESTS: Kind::Counter, "aorta_sip_requests_total", ["method"],
        "SIP requests understood, by method; methods that are not served count as other.";
    SIP_REPLIES: Kind::Counter, "aorta_sip_replies_total", ["status"],
        "SIP replies decided, by status code.";
    SIP_REPLIES_SENT: Kind::Counter, "aorta_sip_replies_sent_total", [],
        "SIP replies handed to the kernel or to a connection's queue.";
    SIP_REPLIES_FAILED: Kind::Counter, "aorta_sip_replies_failed_total", [],
        "SIP replies that could not be sent.";
    UDP_SOCKET_DROPS: Kind::Counter, "aorta_udp_socket_drops_total", [],
        "Datagrams that the kernel dropped because a SIP socket's buffer was full.";
    TCP_CONNECTIONS: Kind::Gauge, "aorta_tcp_connections", [],
        "SIP connections open over TCP.";
    TCP_ACCEPTED: Kind::Counter, "aorta_tcp_accepted_total", [],
        "SIP connections accepted over TCP.";
    TCP_REFUSED: Kind::Counter, "aorta_tcp_refused_total", [],
        "SIP connections refused because too many were open.";
    TCP_DIALLED: Kind::Counter, "aorta_tcp_dialled_total", [],
        "SIP connections opened for a reply whose own connection was gone.";
    TCP_CLOSED: Kind::Counter, "aorta_tcp_closed_total", ["reason"],
        "SIP connections that this node closed: timed_out, slow_reader, unframed, aged.";
    SLEEPS: Kind::Counter, "aorta_sleeps_total", [],
        "How often a SIP thread noticed that the process had not run for half the ack timeout.";

    // Registrar and redirect server.
    REGISTER_ACCEPTED: Kind::Counter, "aorta_register_accepted_total", ["kind"],
        "REGISTER requests accepted: changed, query, retransmission.";
    REGISTER_REFUSED: Kind::Counter, "aorta_register_refused_total", ["reason"],
        "REGISTER requests refused, by reason.";
    LOOKUPS: Kind::Counter, "aorta_lookups_total", ["result"],
        "Requests for an AoR: redirected, no_binding, not_ready, refused.";

    // Location.
    AORS: Kind::Gauge, "aorta_aors", [],
        "AoRs of which anything is known, removed contacts included.";
    CONTACTS: Kind::Gauge, "aorta_contacts", [],
        "Live contacts; lapsed ones count until the sweeper came by.";
    ENTRIES_GONE: Kind::Gauge, "aorta_entries_gone", [],
        "Contacts removed or lapsed that are still remembered, so that nothing late brings them back.";
    LOCATION_BYTES: Kind::Gauge, "aorta_location_bytes", [],
        "Memory that the table of contacts takes, what waits for the disk included; the process needs more.";
    MEMORY_MAX: Kind::Gauge, "aorta_memory_max_bytes", [],
        "memory_max_mb of this node in bytes; 0 for no limit.";
    NODES_FULL: Kind::Gauge, "aorta_nodes_memory_full", [],
        "Nodes whose table takes more than their memory_max_mb, this one included: above 0, new AoRs get 403 at every node.";
    ENTRIES_LAPSED: Kind::Counter, "aorta_entries_lapsed_total", [],
        "Contacts that lapsed and were slimmed.";
    ENTRIES_FORGOTTEN: Kind::Counter, "aorta_entries_forgotten_total", [],
        "Entries that fell below the forgetting floor.";
    CONFLICTS: Kind::Counter, "aorta_conflicts_total", [],
        "Entries met with one stamp and two values: a bug somewhere; resolved the same way on every node.";

    // Replication.
    READY: Kind::Gauge, "aorta_ready", [],
        "1 when this node serves, else 0; /readyz says why.";
    MEMBERS: Kind::Gauge, "aorta_members", [],
        "Members of the cluster that this node sees, itself included.";
    LINKS: Kind::Gauge, "aorta_links", [],
        "Members that this node is linked with.";
    SUSPECTS: Kind::Gauge, "aorta_suspects", [],
        "Linked members whose acks are not awaited for now.";
    REPLIES_PENDING: Kind::Gauge, "aorta_replies_pending", [],
        "Replies that wait for acks.";
    REPLIES_SHORT: Kind::Counter, "aorta_replies_short_total", [],
        "Replies that left with fewer acks than were asked for.";
    ACK_LATENCY: Kind::Histogram(ACK_SECONDS), "aorta_ack_latency_seconds", [],
        "Time from a change to the release of its reply.";
    OUTBOX_BYTES: Kind::Gauge, "aorta_outbox_bytes", [],
        "Encoded changes kept for members that have not acked them.";
    PEER_LAG: Kind::Gauge, "aorta_peer_lag_changes", ["peer"],
        "Changes that a member has not acked.";
    REPLICATION_LAG: Kind::Histogram(LAG_SECONDS), "aorta_replication_lag_seconds", ["peer"],
        "Time from a change's publication at a member to its being in this node's table, of the oldest change of each frame; \
        once all members speak wire version 2.";
    WIRE_VERSION: Kind::Gauge, "aorta_wire_version", [],
        "The wire version that this node writes: the highest that every member it remembers has offered to read.";
    VERSIONS_REFUSED: Kind::Counter, "aorta_wire_versions_refused_total", [],
        "Links and frames refused because this node does not read their wire version, or the other side none of its own.";
    DELTAS_PUBLISHED: Kind::Counter, "aorta_deltas_published_total", [],
        "Changes published to the other members.";
    DELTAS_RECEIVED: Kind::Counter, "aorta_deltas_received_total", [],
        "Changes received live from other members.";
    SUSPECTED: Kind::Counter, "aorta_suspected_total", [],
        "How often a member was no longer awaited because a change was unacked for too long.";
    OVERFLOWS: Kind::Counter, "aorta_overflows_total", [],
        "How often a member fell behind what is kept for it.";
    FENCED: Kind::Counter, "aorta_fenced_total", [],
        "How often this node stopped serving and rejoined: it slept, overflowed at a member, or was suspect.";
    STAMPS_AHEAD: Kind::Counter, "aorta_stamps_ahead_total", [],
        "Changes refused because their stamps were too far ahead of the cluster's time.";
    CLOCK_MOVED: Kind::Counter, "aorta_clock_moved_seconds_total", [],
        "By how much other members moved this node's cluster time forward, in moves of more than a second.";
    WALL_CLOCK_JUMPS: Kind::Counter, "aorta_wall_clock_jumps_total", [],
        "How often this node's wall clock was set by more than clock_skew_warn_s while it ran.";
    WALL_CLOCK_SKEW: Kind::Gauge, "aorta_peer_wall_clock_skew_seconds", ["peer"],
        "By how much a member's wall clock is ahead of this node's, as gossip tells.";
    CLUSTER_TIME_OFFSET: Kind::Gauge, "aorta_peer_cluster_time_offset_seconds", ["peer"],
        "Cluster time of a member minus this node's when its last frame came: less the time that the frame took, about 0.";
    EXCHANGES: Kind::Counter, "aorta_exchanges_total", ["purpose", "result"],
        "Exchanges with another member: join, cold_start, repair, routine, drain; done or failed.";
    EXCHANGE_BYTES: Kind::Counter, "aorta_exchange_bytes_total", ["direction"],
        "Bytes of frames of exchanges, in and out.";
    EXCHANGE_RECORDS: Kind::Counter, "aorta_exchange_records_total", ["direction"],
        "Records received and entries given in exchanges: what was missing.";

    // Snapshots.
    RECORDS_DIRTY: Kind::Gauge, "aorta_records_dirty", [],
        "Records that changed since they were last written to disk.";
    SNAPSHOT_SECONDS: Kind::Histogram(DISK_SECONDS), "aorta_snapshot_seconds", [],
        "Time that one snapshot of what changed took, with its rests: at most half of the interval.";
    SNAPSHOT_RECORDS: Kind::Counter, "aorta_snapshot_records_total", [],
        "Records written to disk.";
    SNAPSHOT_FAILED: Kind::Counter, "aorta_snapshot_failed_total", [],
        "Snapshots that could not be written; a full disk, mostly.";
    SNAPSHOT_AGE: Kind::Gauge, "aorta_snapshot_age_seconds", [],
        "Time since the last snapshot was whole on disk.";

    UNSAVED_AGE: Kind::Gauge, "aorta_unsaved_age_seconds", [],
        "Age that the oldest change may have that is not on this node's disk; 0 when all are.";
    COMMIT_SECONDS: Kind::Histogram(COMMIT_SECONDS_BOUNDS), "aorta_commit_seconds", [],
        "Time that one group commit took (ack = \"disk\").";
    DISKS_LATE: Kind::Counter, "aorta_disks_late_total", [],
        "How often a disk, this node's or a member's, kept a reply waiting for longer than ack_timeout_ms (ack = \"disk\").";

    // Links and process.
    CERTIFICATE_NOT_AFTER: Kind::Gauge, "aorta_certificate_not_after_seconds", [],
        "When this node's certificate lapses, seconds since 1970.";
    LINKS_REFUSED: Kind::Counter, "aorta_links_refused_total", ["reason"],
        "Links to or from other nodes that were refused, by reason.";
    BUILD_INFO: Kind::Gauge, "aorta_build_info", ["version"],
        "Always 1; the version is in the label.";
    START_TIME: Kind::Gauge, "aorta_start_time_seconds", [],
        "When this process started, seconds since 1970.";
}
