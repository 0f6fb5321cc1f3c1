//! Who is alive and what each says of itself: chitchat inside this room's links. The only file that names chitchat.
//!
//! chitchat authenticates nobody and asserts on what it is sent, so it runs only between nodes whose certificates were
//! verified, and it is watched: when it panics it is started again with the next generation. Its messages wait in
//! bounded queues where the oldest goes first, for the next round says more.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aorta_proto::NodeId;
use aorta_proto::frame::Class;
use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, ChitchatMessage, Deserializable, FailureDetectorConfig, NodeState,
    Serializable, spawn_chitchat,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::GossipMember;
use super::identity::Bearer;
use super::switchboard::Switchboard;

/// The longest gossip message, bytes: chitchat's own limit, which is that of a UDP datagram, and a few to spare.
pub(super) const MESSAGE_BYTES_MAX: usize = 66_000;

/// A round of gossip: a change reaches every node in about two. Measured: a dead node is dropped in 0.8 to 1.4 s.
const GOSSIP_EVERY: Duration = Duration::from_millis(200);

/// Suspicion above which a node counts as dead, in mean intervals without a heartbeat.
const PHI: f64 = 8.0;

/// Heartbeats remembered a node.
const HEARTBEATS: usize = 1000;

/// A longer gap between heartbeats is no sample of its rhythm.
const GAP_MAX: Duration = Duration::from_secs(2);

/// How long the dead and the deleted are remembered, so that they do not come back from a node that was cut off.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// Gossip messages that wait to be read; beyond it they are dropped.
const INBOX_MAX: usize = 256;

/// Members shown at most, and good-byes remembered.
const MEMBERS_MAX: usize = 1024;

/// How long chitchat rests after it failed.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

type Inbox = mpsc::Receiver<(SocketAddr, Bytes)>;

/// What the links and the membership share.
pub(super) struct Gossip {
    inbox: mpsc::Sender<(SocketAddr, Bytes)>,
    own: Mutex<BTreeMap<String, String>>,
    own_changed: Notify,
    addresses: Mutex<Vec<SocketAddr>>,
    left: Mutex<BTreeMap<NodeId, u64>>,
}

impl Gossip {
    pub(super) fn new(own: BTreeMap<String, String>) -> (Self, Inbox) {
        let (inbox, messages) = mpsc::channel(INBOX_MAX);
        let (own_changed, addresses, left) = (Notify::new(), Mutex::default(), Mutex::default());
        (Self { inbox, own: Mutex::new(own), own_changed, addresses, left }, messages)
    }

    /// What this node says of itself from now on.
    pub(super) fn set(&self, own: BTreeMap<String, String>) {
        *self.own.lock() = own;
        self.own_changed.notify_one();
    }

    /// A message from the peer that others dial at `from`. One too many is dropped: gossip repeats itself.
    pub(super) fn received(&self, from: SocketAddr, message: Bytes) {
        let _ = self.inbox.try_send((from, message));
    }

    /// Addresses of the members that gossip shows alive.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.lock().clone()
    }

    /// A peer said good-bye: gossip may call it alive for another second.
    pub(super) fn left(&self, peer: &NodeId, generation: u64) {
        let mut left = self.left.lock();
        if left.len() >= MEMBERS_MAX {
            left.pop_first();
        }
        left.insert(peer.clone(), generation);
    }
}

/// The task that runs chitchat and tells what it finds.
pub(super) struct Membership {
    bearer: Bearer,
    generation: u64,
    board: Arc<Switchboard>,
    told: Option<Vec<GossipMember>>,
}

impl Membership {
    pub(super) fn new(bearer: Bearer, generation: u64, board: Arc<Switchboard>) -> Self {
        Self { bearer, generation, board, told: None }
    }

    /// Gossips until it is stopped; starts chitchat again whenever it fails.
    pub(super) async fn run(mut self, inbox: Inbox) {
        let inbox = Arc::new(tokio::sync::Mutex::new(inbox));
        loop {
            let transport = InLinks { inbox: Arc::clone(&inbox), board: Arc::clone(&self.board) };
            let own: Vec<_> = self.board.gossip().own.lock().clone().into_iter().collect();
            match spawn_chitchat(self.config(), own, &transport).await {
                Ok(chitchat) => {
                    let chitchat = Running(chitchat);
                    let why = self.follow(&chitchat.0).await;
                    tracing::warn!(why, "gossip failed and is started again");
                }
                Err(error) => tracing::warn!(%error, "gossip does not start; it is tried again"),
            }
            self.generation += 1;
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    fn config(&self) -> ChitchatConfig {
        let node: Arc<str> = self.bearer.node.as_str().into();
        let chitchat_id = ChitchatId::new(node, self.generation, self.board.advertise());
        let failure_detector_config = FailureDetectorConfig::new(PHI, HEARTBEATS, GAP_MAX, GOSSIP_EVERY, REMEMBERED);
        ChitchatConfig {
            chitchat_id,
            cluster_id: self.bearer.cluster.clone(),
            gossip_interval: GOSSIP_EVERY,
            listen_addr: self.board.advertise(),
            seed_nodes: Vec::new(),
            failure_detector_config,
            marked_for_deletion_grace_period: REMEMBERED,
            catchup_callback: None,
            extra_liveness_predicate: None,
        }
    }

    /// Tells each change until chitchat ends; returns why it did.
    async fn follow(&mut self, handle: &ChitchatHandle) -> String {
        let chitchat = handle.chitchat();
        let mut live = chitchat.lock().await.live_nodes_watcher();
        let mut links = self.board.changes();
        let mut greeted: Vec<SocketAddr> = Vec::new();
        let ended = handle.termination_watcher();
        tokio::pin!(ended);
        loop {
            let linked: Vec<SocketAddr> = self.linked().into_keys().collect();
            for new in linked.iter().filter(|address| !greeted.contains(address)) {
                // A failure means that chitchat has ended, which is seen below.
                let _ = handle.gossip(*new);
            }
            greeted = linked;
            let view = self.view(&live.borrow_and_update());
            self.tell(view);
            tokio::select! {
                result = &mut ended => return result.err().map_or_else(|| "it ended".into(), |error| error.to_string()),
                changed = live.changed() => if changed.is_err() { return "it is gone".into() },
                _ = links.changed() => {}
                () = self.board.gossip().own_changed.notified() => {
                    let own = self.board.gossip().own.lock().clone();
                    let mut chitchat = chitchat.lock().await;
                    let state = chitchat.self_node_state();
                    for (key, value) in own {
                        if state.get(&key) != Some(value.as_str()) {
                            state.set(key, value);
                        }
                    }
                }
            }
        }
    }

    /// The nodes with a live link, by the address that they advertise.
    fn linked(&self) -> BTreeMap<SocketAddr, NodeId> {
        let live =
            self.board.sessions().into_iter().filter(|session| session.class == Class::Live && session.is_open());
        live.map(|session| (session.theirs.advertise, session.peer.clone())).collect()
    }

    /// The living, each once, at its latest start, without this node and without those that said good-bye.
    fn view(&self, live: &BTreeMap<ChitchatId, NodeState>) -> Vec<GossipMember> {
        let linked = self.linked();
        let left = self.board.gossip().left.lock().clone();
        let mut members: BTreeMap<NodeId, GossipMember> = BTreeMap::new();
        for (id, state) in live.iter().take(MEMBERS_MAX) {
            let Ok(node) = NodeId::new(&id.node_id) else { continue };
            let gone = left.get(&node).is_some_and(|generation| id.generation_id <= *generation);
            if node == self.bearer.node || gone {
                continue;
            }
            if members.get(&node).is_some_and(|known| known.generation > id.generation_id) {
                continue;
            }
            let values = state.key_values().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            let linked = linked.values().any(|peer| *peer == node);
            let (generation, address) = (id.generation_id, id.gossip_advertise_addr);
            members.insert(node.clone(), GossipMember { node, generation, address, linked, values });
        }
        members.into_values().collect()
    }

    fn tell(&mut self, view: Vec<GossipMember>) {
        if self.told.as_ref() == Some(&view) {
            return;
        }
        *self.board.gossip().addresses.lock() = view.iter().map(|member| member.address).collect();
        self.told = Some(view.clone());
        self.board.peers().members(view);
    }
}

/// A running chitchat; dropping it stops it.
struct Running(ChitchatHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The network as chitchat sees it.
struct InLinks {
    inbox: Arc<tokio::sync::Mutex<Inbox>>,
    board: Arc<Switchboard>,
}

/// What an async method of a boxed trait returns.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = anyhow::Result<T>> + Send + 'a>>;

impl Transport for InLinks {
    fn open<'a, 'b>(&'a self, _listen: SocketAddr) -> Boxed<'b, Box<dyn Socket>>
    where
        'a: 'b,
        Self: 'b,
    {
        let socket = InLinks { inbox: Arc::clone(&self.inbox), board: Arc::clone(&self.board) };
        Box::pin(async move { Ok(Box::new(socket) as Box<dyn Socket>) })
    }
}

impl Socket for InLinks {
    fn send<'a, 'b>(&'a mut self, to: SocketAddr, message: ChitchatMessage) -> Boxed<'b, ()>
    where
        'a: 'b,
        Self: 'b,
    {
        let sessions = self.board.sessions();
        let link = sessions.iter().find(|s| s.class == Class::Live && s.theirs.advertise == to && s.is_open());
        if let Some(link) = link {
            link.push_gossip(message.serialize_to_vec().into());
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn recv<'a, 'b>(&'a mut self) -> Boxed<'b, (SocketAddr, ChitchatMessage)>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let mut inbox = self.inbox.lock().await;
            loop {
                let Some((from, bytes)) = inbox.recv().await else { return std::future::pending().await };
                let mut rest = &bytes[..];
                match ChitchatMessage::deserialize(&mut rest) {
                    Ok(message) if rest.is_empty() => return Ok((from, message)),
                    Ok(_) => tracing::debug!(%from, "gossip message with bytes left over"),
                    Err(error) => tracing::debug!(%from, %error, "gossip message does not decode"),
                }
            }
        })
    }
}
