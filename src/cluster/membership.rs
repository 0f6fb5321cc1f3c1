//! Who is alive and what each says of itself: chitchat inside this room's links. The only file that names chitchat.
//!
//! chitchat authenticates nobody and asserts on what it is sent, so it runs only between nodes whose certificates were
//! verified, and it is watched: when it panics it is started again with the next generation. Its messages wait in
//! bounded queues where the oldest goes first, for the next round says more.

use std::collections::{BTreeMap, HashMap};
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
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};

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

/// How long the dead are remembered, and half of it also gossiped. Each start of a node is a member of its own here, and
/// all of them share one message: a node that restarts for ever must not fill it.
const REMEMBERED: Duration = Duration::from_secs(120);

/// Gossip messages that wait to be read; beyond it they are dropped.
const INBOX_MAX: usize = 256;

/// Members and their earlier starts that gossip may carry: about 100 bytes each in a message of 65 507. Also the number
/// of good-byes remembered.
const MEMBERS_MAX: usize = 512;

/// How long a good-bye hides a node: longer than gossip takes to drop it, and not much, for the clock that its next
/// generation comes from may have been set back.
const LEFT_REMEMBERED: Duration = Duration::from_secs(5);

/// After gossip was started again, the members that it showed are kept until it has found them anew.
const FOUND_AGAIN: Duration = Duration::from_secs(2);

/// Generations that one process may use up by starting chitchat again.
const RESTARTS_MAX: u64 = 1000;

/// How long chitchat rests after it failed.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

type Inbox = mpsc::Receiver<(SocketAddr, Bytes)>;

/// What the links and the membership share.
pub(super) struct Gossip {
    inbox: mpsc::Sender<(SocketAddr, Bytes)>,
    own: Mutex<BTreeMap<String, String>>,
    own_changed: Notify,
    addresses: Mutex<Vec<SocketAddr>>,
    left: Mutex<BTreeMap<NodeId, (u64, Instant)>>,
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
        left.insert(peer.clone(), (generation, Instant::now()));
    }

    /// Whether this start of a node said good-bye a moment ago.
    fn has_left(&self, node: &NodeId, generation: u64) -> bool {
        let left = self.left.lock();
        left.get(node)
            .is_some_and(|(last, at)| at.elapsed() < LEFT_REMEMBERED && generation <= last.saturating_add(RESTARTS_MAX))
    }
}

/// The task that runs chitchat and tells what it finds.
pub(super) struct Membership {
    bearer: Bearer,
    generation: u64,
    board: Arc<Switchboard>,
}

impl Membership {
    pub(super) fn new(bearer: Bearer, generation: u64, board: Arc<Switchboard>) -> Self {
        Self { bearer, generation, board }
    }

    /// Gossips until it is stopped; starts chitchat again whenever it fails. It may panic in its own task and in the one
    /// that asks it.
    pub(super) async fn run(mut self, inbox: Inbox) {
        let inbox = Arc::new(tokio::sync::Mutex::new(inbox));
        let told = Arc::new(Mutex::new(Vec::new()));
        loop {
            let teller =
                Teller { node: self.bearer.node.clone(), board: Arc::clone(&self.board), told: Arc::clone(&told) };
            let transport =
                InLinks { inbox: Arc::clone(&inbox), board: Arc::clone(&self.board), door: Door::default() };
            let own: Vec<_> = self.board.gossip().own.lock().clone().into_iter().collect();
            match spawn_chitchat(self.config(), own, &transport).await {
                Ok(chitchat) => {
                    let mut watched = JoinSet::new();
                    watched.spawn(async move { teller.follow(&Running(chitchat).0).await });
                    let why = match watched.join_next().await {
                        Some(Ok(why)) => why,
                        // The runtime is on its way down, and everything with it.
                        Some(Err(error)) if error.is_cancelled() => return,
                        Some(Err(error)) => error.to_string(),
                        None => String::new(),
                    };
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
}

/// Tells the rooms above what a running chitchat finds.
struct Teller {
    node: NodeId,
    board: Arc<Switchboard>,
    told: Arc<Mutex<Vec<GossipMember>>>,
}

impl Teller {
    /// Tells each change until chitchat ends; returns why it did.
    async fn follow(&self, handle: &ChitchatHandle) -> String {
        let before = self.told.lock().clone();
        let keep_until = Instant::now() + FOUND_AGAIN;
        let mut look = interval_at(keep_until, FOUND_AGAIN);
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
            let kept = if Instant::now() < keep_until { &before[..] } else { &[] };
            let view = self.view(&live.borrow_and_update(), kept);
            self.tell(view);
            tokio::select! {
                result = &mut ended => return result.err().map_or_else(|| "it ended".into(), |error| error.to_string()),
                changed = live.changed() => if changed.is_err() { return "it is gone".into() },
                _ = links.changed() => {}
                _ = look.tick() => {}
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
    fn view(&self, live: &BTreeMap<ChitchatId, NodeState>, kept: &[GossipMember]) -> Vec<GossipMember> {
        let linked = self.linked();
        let kept = kept.iter().filter(|member| linked.values().any(|peer| *peer == member.node));
        let mut members: BTreeMap<NodeId, GossipMember> =
            kept.map(|member| (member.node.clone(), member.clone())).collect();
        for (id, state) in live.iter().take(MEMBERS_MAX) {
            let Ok(node) = NodeId::new(&id.node_id) else { continue };
            let gone = self.board.gossip().has_left(&node, id.generation_id);
            if node == self.node || gone {
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

    fn tell(&self, view: Vec<GossipMember>) {
        let mut told = self.told.lock();
        if *told == view {
            return;
        }
        *self.board.gossip().addresses.lock() = view.iter().map(|member| member.address).collect();
        told.clone_from(&view);
        drop(told);
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
    door: Door,
}

/// What is let in.
#[derive(Default)]
struct Door {
    /// Nodes named in messages that were let in, by their bytes there, and when last.
    seen: HashMap<Vec<u8>, Instant>,
}

impl Door {
    /// Decodes a message; refuses one that would make the digest of all members outgrow a message, for then chitchat
    /// could not answer anybody.
    fn admit(&mut self, bytes: &[u8], now: Instant) -> anyhow::Result<ChitchatMessage> {
        let named = named(bytes)?;
        if named.iter().any(|name| !self.seen.contains_key(*name)) {
            self.seen.retain(|_, at| now.duration_since(*at) < REMEMBERED);
            let new = named.iter().filter(|name| !self.seen.contains_key(**name)).count();
            anyhow::ensure!(self.seen.len() + new <= MEMBERS_MAX, "it names more than {MEMBERS_MAX} starts of nodes");
        }
        for name in named {
            self.seen.insert(name.to_vec(), now);
        }
        let mut rest = bytes;
        let message = ChitchatMessage::deserialize(&mut rest)?;
        anyhow::ensure!(rest.is_empty(), "it has bytes left over");
        Ok(message)
    }
}

/// The nodes in the digest of a message, each as its bytes there, which are node id, generation and address.
fn named(message: &[u8]) -> anyhow::Result<Vec<&[u8]>> {
    const HEAD_BYTES: usize = 4;
    const KIND_WITH_DIGEST: std::ops::RangeInclusive<u8> = 0..=1;
    const VERSIONS_BYTES: usize = 3 * 8;
    let cut = || anyhow::anyhow!("it is cut short");
    let kind = *message.get(HEAD_BYTES - 1).ok_or_else(cut)?;
    if !KIND_WITH_DIGEST.contains(&kind) {
        return Ok(Vec::new());
    }
    let (count, mut rest) = message[HEAD_BYTES..].split_first_chunk::<2>().ok_or_else(cut)?;
    let mut named = Vec::new();
    for _ in 0..u16::from_le_bytes(*count) {
        let (length, id) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
        let id_bytes = usize::from(u16::from_le_bytes(*length));
        let id = id.get(..id_bytes).ok_or_else(cut)?;
        NodeId::new(std::str::from_utf8(id)?)?;
        let ip = 2 + id_bytes + 8;
        let ip_bytes = if *rest.get(ip).ok_or_else(cut)? == 4 { 4 } else { 16 };
        let whole = ip + 1 + ip_bytes + 2;
        named.push(rest.get(..whole).ok_or_else(cut)?);
        rest = rest.get(whole + VERSIONS_BYTES..).ok_or_else(cut)?;
    }
    Ok(named)
}

/// What an async method of a boxed trait returns.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = anyhow::Result<T>> + Send + 'a>>;

impl Transport for InLinks {
    fn open<'a, 'b>(&'a self, _listen: SocketAddr) -> Boxed<'b, Box<dyn Socket>>
    where
        'a: 'b,
        Self: 'b,
    {
        let socket = InLinks { inbox: Arc::clone(&self.inbox), board: Arc::clone(&self.board), door: Door::default() };
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
            let inbox = Arc::clone(&self.inbox);
            let mut inbox = inbox.lock().await;
            loop {
                let Some((from, bytes)) = inbox.recv().await else { return std::future::pending().await };
                match self.door.admit(&bytes, Instant::now()) {
                    Ok(message) => return Ok((from, message)),
                    Err(error) => tracing::debug!(%from, %error, "gossip message refused"),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Syn of the cluster "blue" that names these starts of nodes.
    fn syn(named: &[(String, u64)]) -> Vec<u8> {
        let text = |out: &mut Vec<u8>, text: &str| {
            out.extend_from_slice(&u16::try_from(text.len()).unwrap().to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        };
        let mut out = 45_139u16.to_le_bytes().to_vec();
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&u16::try_from(named.len()).unwrap().to_le_bytes());
        for (node, generation) in named {
            text(&mut out, node);
            out.extend_from_slice(&generation.to_le_bytes());
            out.extend_from_slice(&[4, 127, 0, 0, 1, 9, 9]);
            out.extend_from_slice(&[1; 24]);
        }
        text(&mut out, "blue");
        out
    }

    fn starts(range: std::ops::Range<usize>) -> Vec<(String, u64)> {
        range.map(|n| (format!("node-{n}"), n as u64)).collect()
    }

    #[test]
    fn a_message_that_names_too_many_nodes_is_refused_until_some_are_forgotten() {
        let (mut door, now) = (Door::default(), Instant::now());
        assert!(door.admit(&syn(&starts(0..MEMBERS_MAX)), now).is_ok());
        assert!(door.admit(&syn(&starts(MEMBERS_MAX..MEMBERS_MAX + 1)), now).is_err());
        assert!(door.admit(&syn(&starts(0..3)), now + REMEMBERED).is_ok());
        assert!(door.admit(&syn(&starts(MEMBERS_MAX..MEMBERS_MAX + 1)), now + REMEMBERED).is_ok());
        assert_eq!(door.seen.len(), 4);
    }

    #[test]
    fn nodes_without_a_good_name_are_refused() {
        let mut door = Door::default();
        for name in ["", "UPPER", &"x".repeat(65)] {
            assert!(door.admit(&syn(&[(name.to_owned(), 1)]), Instant::now()).is_err(), "{name}");
        }
    }

    #[test]
    fn cut_and_garbled_messages_are_refused() {
        let whole = syn(&starts(0..3));
        let mut door = Door::default();
        for length in 0..whole.len() {
            assert!(door.admit(&whole[..length], Instant::now()).is_err(), "{length} bytes");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            let _ = door.admit(&bytes, Instant::now());
        }
        assert!(door.admit(&[&whole[..], &[0]].concat(), Instant::now()).is_err());
    }
}
