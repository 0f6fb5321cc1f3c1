//! What an operator sees of the cluster from this node. Reads, changes nothing.

use aorta_proto::frame::PeerState;
use aorta_proto::{BootId, NodeId};

use super::live::Live;
use super::membership::state_name;
use crate::clock::Now;

/// The cluster as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// This node.
    pub node: NodeId,
    /// This process.
    pub boot: BootId,
    /// joining, ready, draining, left.
    pub state: &'static str,
    /// Why it is not ready, or what is missing though it is.
    pub reason: Option<String>,
    /// Members missing since the cold start, and not heard out since.
    pub partial: Vec<NodeId>,
    /// All others, linked, shown by gossip or only remembered, by name.
    pub peers: Vec<PeerView>,
    /// Encoded changes that somebody has not acked, bytes.
    pub outbox_bytes: usize,
    /// Replies that wait for acks, or have a place to.
    pub replies_waiting: usize,
    /// What is at or below this is forgotten, µs of cluster time.
    pub floor_us: u64,
    /// What the table may take of memory before new AoRs are refused, bytes; 0 for no limit.
    pub memory_max_bytes: u64,
    /// Whose memory is full, this node's included: new AoRs are refused as long as there is one.
    pub memory_full: Vec<NodeId>,
    /// Root of the digest.
    pub root: u128,
    /// The highest wire version that this node reads.
    pub wire_version_max: u8,
    /// The one that it writes: the highest that every member in [`Self::peers`] reads.
    pub wire_version: u8,
}

/// Another node as this one sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// The node.
    pub node: NodeId,
    /// joining, ready, draining, left; "missing" when only remembered.
    pub state: &'static str,
    /// Its Live connection is up.
    pub linked: bool,
    /// Its Bulk connection is up.
    pub bulk: bool,
    /// Replies wait for its acks.
    pub awaited: bool,
    /// It did not keep up, or was dropped.
    pub suspect: bool,
    /// Changes published and not acked by it.
    pub lag: u64,
    /// Since its last frame, µs; `None` when it never was linked.
    pub silent_us: Option<u64>,
    /// Its cluster time minus this node's when its last frame came, µs: less the time that the frame took. `None` while
    /// one of the two does not know what time it is.
    pub cluster_time_offset_us: Option<i64>,
    /// The highest wire version that it reads, as far as is known.
    pub wire_version_max: u8,
    /// How long its last changes took from publication there to this node's table, µs; `None` before the first, and
    /// while not all members speak wire version 2.
    pub lag_us: Option<u64>,
}

impl<R> Live<R> {
    pub(super) fn view(&self, root: u128, now: Now) -> ClusterView {
        let known = self.peers.keys().chain(self.members.view.keys()).chain(self.members.last_known.keys());
        let known: std::collections::BTreeSet<&NodeId> = known.collect();
        ClusterView {
            node: self.settings.node.clone(),
            boot: self.settings.boot,
            state: state_name(self.is()),
            reason: self.readiness(now).reason,
            partial: self.partial.iter().cloned().collect(),
            peers: known.into_iter().map(|id| self.peer_view(id, now)).collect(),
            outbox_bytes: self.outbox.bytes(),
            replies_waiting: 0,
            floor_us: self.location.floor_us(),
            memory_max_bytes: self.budget.max_bytes(),
            memory_full: self.full().into_iter().collect(),
            root,
            wire_version_max: self.settings.wire_version_max,
            wire_version: self.version(),
        }
    }

    fn peer_view(&self, id: &NodeId, now: Now) -> PeerView {
        let peer = self.peers.get(id);
        let place = peer.and_then(|peer| peer.subscriber.as_ref());
        let linked = peer.is_some_and(|peer| peer.link.is_some());
        let by_link = peer.filter(|_| linked).map(|peer| peer.state.is);
        let by_gossip = self.members.view.get(id).map(|member| member.state);
        let parted = peer.filter(|_| !self.members.last_known.contains_key(id)).map(|_| PeerState::Left);
        PeerView {
            node: id.clone(),
            state: by_link.or(by_gossip).or(parted).map_or("missing", state_name),
            linked,
            bulk: peer.is_some_and(|peer| peer.bulk),
            awaited: place.is_some_and(|place| place.awaited),
            suspect: place.is_some_and(|place| !place.awaited),
            lag: place.map_or(0, |place| self.outbox.head() - place.acked.min(self.outbox.head())),
            cluster_time_offset_us: peer.filter(|_| linked).and_then(|peer| peer.cluster_time_offset_us),
            silent_us: peer.map(|peer| now.mono_us.saturating_sub(peer.heard_us)),
            wire_version_max: self.offer_of(id),
            lag_us: peer.and_then(|peer| peer.lag_us),
        }
    }
}
