//! From the one configuration to the settings that each room takes. Decides nothing; it is where names meet.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::SocketAddr;
use std::time::Duration;

use aorta_proto::{BootId, NodeId};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::cluster::{Identity, IdentityError, IdentityFiles};
use crate::config::{Ack, ClusterConfig, Config, SipTransport};
use crate::replication::{AckMode, Settings as ReplicationSettings};
use crate::sip::transport::{Settings as TransportSettings, TcpSettings, Transport};

/// The name of a node that runs alone and was given none.
const LONE_NODE: &str = "node";

/// What is keyed for this cluster alone: phones, which choose AoRs and Call-IDs, cannot foresee what they hash to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    /// Of the digest tree and of the table's buckets.
    pub(super) digest: [u8; 16],
    /// Of To-tags.
    pub(super) tag: [u8; 16],
}

impl Keys {
    /// The same on all nodes of a cluster: made of its id, which only certificates carry. Not of the CA: while that is
    /// being changed, nodes with the old and the new one must agree.
    pub(super) fn of_cluster(cluster_id: &str) -> Self {
        let derive = |purpose: &[u8; 16]| {
            let mut hasher = SipHasher13::new_with_key(purpose);
            hasher.write(cluster_id.as_bytes());
            hasher.finish128().as_u128().to_le_bytes()
        };
        Self { digest: derive(b"aorta digests/1\0"), tag: derive(b"aorta to-tags/1\0") }
    }

    /// For a node that has nobody to agree with.
    pub(super) fn random() -> Self {
        let random = || u128::from(random_u64()) << 64 | u128::from(random_u64());
        Self { digest: random().to_le_bytes(), tag: random().to_le_bytes() }
    }

    /// Tells two digest keys apart without giving one away.
    pub(super) fn digest_fingerprint(&self) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.digest);
        hasher.write(b"fingerprint");
        hasher.finish128().h1
    }
}

/// What a Hello says of the digest key of the cluster of this id, so that nodes with another key do not meet.
#[must_use]
pub fn digest_key_hash(cluster_id: &str) -> u64 {
    Keys::of_cluster(cluster_id).digest_fingerprint()
}

/// 64 bits that nobody can foresee: std keys its hash maps with randomness of the system.
pub(super) fn random_u64() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Reads the certificate files of a cluster's node; the name in the certificate is the node's unless one is configured.
pub(super) fn identity(cluster: &ClusterConfig, node_id: Option<&NodeId>) -> Result<Identity, IdentityError> {
    let files =
        IdentityFiles { ca: cluster.ca.clone(), certificate: cluster.certificate.clone(), key: cluster.key.clone() };
    Identity::load(&files, node_id)
}

/// Where the other nodes' operators reach the HTTP of this one, which `aorta status` asks at all of them. `None` where it
/// is on the loopback of a host of its own: there, the same address is somebody else.
pub(super) fn http_for_others(http: SocketAddr, cluster: Option<&ClusterConfig>) -> Option<SocketAddr> {
    let Some(host) = cluster.map(|cluster| cluster.advertise.ip()) else { return Some(http) };
    if http.ip().is_unspecified() {
        return Some(SocketAddr::new(host, http.port()));
    }
    (!http.ip().is_loopback() || host.is_loopback()).then_some(http)
}

/// The name of a node without a certificate.
pub(super) fn lone_node_id(config: &Config) -> anyhow::Result<NodeId> {
    Ok(config.node_id.clone().map_or_else(|| NodeId::new(LONE_NODE), Ok)?)
}

pub(super) fn transport(config: &Config) -> TransportSettings {
    let sip = &config.sip;
    let listen = sip.listen.iter().map(|listen| {
        let transport = match listen.transport {
            SipTransport::Udp => Transport::Udp,
            SipTransport::Tcp => Transport::Tcp,
        };
        (transport, listen.address)
    });
    TransportSettings {
        listen: listen.collect(),
        allow: sip.networks(),
        max_message_bytes: sip.max_message_bytes,
        max_age: Duration::from_millis(sip.max_age_ms),
        ack_timeout: Duration::from_millis(config.ack_timeout_ms),
        udp_threads: sip.threads,
        udp_buffer_bytes: sip.udp_buffer_bytes,
        tcp: TcpSettings {
            idle: Duration::from_secs(sip.tcp_idle_s),
            partial: Duration::from_secs(sip.tcp_message_s),
            connections_max: sip.tcp_connections_max,
            ..TcpSettings::default()
        },
    }
}

pub(super) fn replication(config: &Config, node: NodeId, boot: BootId, keys: &Keys) -> ReplicationSettings {
    ReplicationSettings {
        ack: match config.ack {
            Ack::All => AckMode::All,
            Ack::Disk => AckMode::Disk,
            Ack::One => AckMode::One,
            Ack::None => AckMode::None,
        },
        ack_timeout_us: config.ack_timeout_ms * 1000,
        pending_replies_max: config.pending_replies_max,
        outbox_bytes_max: config.outbox_bytes_max,
        cluster: config.cluster.is_some(),
        bootstrap_min_nodes: bootstrap_min_nodes(config),
        seed_fallback_us: config.seed_fallback_ms * 1000,
        doubt_us: config.doubt_ms * 1000,
        expires_max_s: config.expires_max_s,
        memory_max_bytes: config.memory_max_mb << 20,
        clock_ahead_max_s: config.clock_ahead_max_s,
        digest_key_hash: keys.digest_fingerprint(),
        ..ReplicationSettings::new(node, boot)
    }
}

/// `bootstrap_min_nodes`; where it is 0, a majority of the nodes that the seeds name, this one counted. It is 1 only for a
/// node without seeds, or whose one seed is itself: a node that names another must never start a cluster of its own
/// because that other is down. One DNS name stands for an unknown number of nodes: two of them must see each other.
fn bootstrap_min_nodes(config: &Config) -> usize {
    let Some(cluster) = config.cluster.as_ref().filter(|_| config.bootstrap_min_nodes == 0) else {
        return config.bootstrap_min_nodes.max(1);
    };
    let seeds: Vec<Option<SocketAddr>> = cluster.seeds.iter().map(|seed| seed.parse().ok()).collect();
    let may_be_named = seeds.iter().any(|seed| seed.is_none_or(|address| address == cluster.advertise));
    match &seeds[..] {
        [] => 1,
        [None] => 2,
        all => (all.len() + usize::from(!may_be_named)) / 2 + 1,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("/"), &[]).expect("a good configuration")
    }

    fn with_seeds(seeds: &str) -> Config {
        config(&format!(
            "[cluster]\nlisten = \"127.0.0.1:1\"\nca = \"a\"\ncertificate = \"b\"\nkey = \"c\"\nseeds = {seeds}\n"
        ))
    }

    #[test]
    fn a_majority_of_the_seeds_may_start_a_cluster() {
        let min = |seeds| bootstrap_min_nodes(&with_seeds(seeds));
        assert_eq!(min("[]"), 1);
        assert_eq!(min("[\"127.0.0.1:1\"]"), 1, "itself");
        assert_eq!(min("[\"127.0.0.1:2\"]"), 2, "another");
        assert_eq!(min("[\"127.0.0.1:1\", \"127.0.0.1:2\"]"), 2);
        assert_eq!(min("[\"127.0.0.1:1\", \"127.0.0.1:2\", \"127.0.0.1:3\"]"), 2);
        assert_eq!(min("[\"127.0.0.1:2\", \"127.0.0.1:3\"]"), 2, "two others");
        assert_eq!(min("[\"127.0.0.1:2\", \"127.0.0.1:3\", \"127.0.0.1:4\"]"), 3, "three others");
        assert_eq!(min("[\"a:1\", \"b:1\", \"c:1\", \"d:1\"]"), 3);
        assert_eq!(min("[\"aorta.default.svc:7060\"]"), 2, "a name that yields all");
        assert_eq!(bootstrap_min_nodes(&config("bootstrap_min_nodes = 5")), 5);
    }

    #[test]
    fn others_are_told_an_http_address_only_if_it_leads_here() {
        let told = |http: &str, host: &str| {
            let text = format!(
                "[cluster]\nlisten = \"{host}:7060\"\nca = \"a\"\ncertificate = \"b\"\nkey = \"c\"\nseeds = []\n"
            );
            let told = http_for_others(http.parse().expect("an address"), config(&text).cluster.as_ref());
            told.map(|address| address.to_string())
        };
        assert_eq!(told("127.0.0.1:8060", "10.0.0.11"), None, "every host has that address");
        assert_eq!(told("127.0.0.1:8060", "127.0.0.1").as_deref(), Some("127.0.0.1:8060"));
        assert_eq!(told("10.0.0.11:8060", "10.0.0.11").as_deref(), Some("10.0.0.11:8060"));
        assert_eq!(told("0.0.0.0:8060", "10.0.0.11").as_deref(), Some("10.0.0.11:8060"));
    }

    #[test]
    fn keys_are_those_of_the_cluster() {
        let (one, two) = (Keys::of_cluster("one"), Keys::of_cluster("two"));
        assert_eq!(one.digest, Keys::of_cluster("one").digest);
        assert_ne!(one.digest, two.digest);
        assert_ne!(one.digest, one.tag);
        assert_ne!(one.digest_fingerprint(), two.digest_fingerprint());
    }
}
