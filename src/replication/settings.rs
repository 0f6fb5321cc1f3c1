//! What replication is told at start: bounds and times from the configuration, and what the disk remembers.

use aorta_proto::frame::{LastKnown, VERSION_MAX};
use aorta_proto::{BootId, NodeId};

/// How many acks a reply waits for (`ack`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckMode {
    /// One from every node of the ack set.
    All,
    /// One from any of them.
    One,
    /// None: the change is published and the reply leaves at once.
    None,
    /// One from every node of the ack set, each after it wrote the change to its disk; this node does so too.
    Disk,
}

/// Bounds and times. All times in microseconds unless the name says otherwise.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// This process.
    pub boot: BootId,
    /// `ack`.
    pub ack: AckMode,
    /// `ack_timeout_ms`: a peer that leaves one change unacked for so long is suspect.
    pub ack_timeout_us: u64,
    /// `pending_replies_max`: replies that may wait for acks at a time.
    pub pending_replies_max: usize,
    /// `outbox_bytes_max`: encoded changes kept for peers that have not acked them.
    pub outbox_bytes_max: usize,
    /// Whether there is a cluster to be a part of (`cluster.listen` or `cluster.seeds` is given).
    pub cluster: bool,
    /// `bootstrap_min_nodes`: nodes that must see each other for a start without a ready node. The caller resolves the
    /// default (a majority of the listed seeds, 1 without seeds).
    pub bootstrap_min_nodes: usize,
    /// `seed_fallback_ms`: a seed that is not reached, or a last-known member that is silent, for so long is started
    /// without.
    pub seed_fallback_us: u64,
    /// `doubt_ms`: how long a node that lost most members denies nothing.
    pub doubt_us: u64,
    /// `expires_max_s`: the longest lifetime this node grants, seconds.
    pub expires_max_s: u32,
    /// `clock_ahead_max_s`: a stamp further ahead than this is refused, seconds.
    pub clock_ahead_max_s: u32,
    /// Time between two looks at a peer's digest in an idle cluster.
    pub anti_entropy_interval_us: u64,
    /// `memory_max_mb`, here in bytes: what the table may take before new AoRs are refused; 0 for no limit.
    pub memory_max_bytes: u64,
    /// Fingerprint of the digest key: peers with another key are refused.
    pub digest_key_hash: u64,
    /// The highest wire version that this node reads and writes, at most [`VERSION_MAX`]: lower ones are for tests.
    pub wire_version_max: u8,
}

impl Settings {
    /// The defaults of a node of a cluster.
    #[must_use]
    pub fn new(node: NodeId, boot: BootId) -> Self {
        Self {
            node,
            boot,
            ack: AckMode::All,
            ack_timeout_us: 300_000,
            pending_replies_max: 65_536,
            outbox_bytes_max: 64 << 20,
            cluster: true,
            bootstrap_min_nodes: 1,
            seed_fallback_us: 3_000_000,
            doubt_us: 30_000_000,
            expires_max_s: 7200,
            clock_ahead_max_s: 3600,
            anti_entropy_interval_us: 2_000_000,
            memory_max_bytes: 0,
            digest_key_hash: 0,
            wire_version_max: VERSION_MAX,
        }
    }

    pub(crate) fn clock_ahead_max_us(&self) -> u64 {
        u64::from(self.clock_ahead_max_s) * 1_000_000
    }
}

/// What this process starts with.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// The wall clock now, µs since 1970: the cluster's time if nothing is persisted anywhere.
    pub wall_us: u64,
    /// Persisted cluster time plus the wall-clock time passed since (≥ 0), µs, if the disk holds one.
    pub clock_guess_us: Option<u64>,
    /// Cluster time that may have been used before, µs.
    pub clock_ceiling_us: Option<u64>,
    /// The ceiling could not be kept up (full disk): only a peer may say what time it is.
    pub clock_only_from_peers: bool,
    /// Members remembered from before, see [`super::Replication::last_known`].
    pub last_known: Vec<LastKnown>,
    /// What is configured as `cluster.seeds`, this node itself left out: nothing is reached yet. See
    /// [`super::Replication::seeds_unreached`].
    pub seeds_unreached: Vec<String>,
}
