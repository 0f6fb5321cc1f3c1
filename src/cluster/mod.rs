//! Peers on the wire: who they are, how they are reached, how frames get to them. Frames are opaque bytes here.
//!
//! One QUIC endpoint a node plays both roles; a second one only dials for bulk. Between two nodes there are two connections,
//! [`Class::Live`] (deltas, acks, gossip) and [`Class::Bulk`] (donor and anti-entropy), for bulk among deltas would cost
//! these a millisecond. What is said in frames, and when, is `replication`'s; this room pulls them when it can write
//! ([`Peers::transmit`]) and hands over what it read ([`Peers::received`]).
//!
//! [`identity`] and [`certificate`] names in certificates, and issuing them · `verify` who is let in · `greeting` the
//! first bytes of a link · `endpoint` and `link` (the only files that name quinn) · `session` a link as the others see it
//! · `admission` from a connection to a link · `switchboard` which links stay · `dialer` whom to dial · `membership` (the
//! only file that names chitchat) · [`refusals`] saying a refusal once.
//!
//! # Decisions
//! * 2026-11: of two connections that two nodes dial at once, the node with the smaller id takes one and closes the other
//!   *before* a frame passes. Refused: letting both live until the survivor carried a frame each way, for then the upper
//!   rooms see two sessions and a hand-over. So a session is one connection, and frames of a replaced one are said again
//!   by the cursor that [`Peers::linked`] restarts.

mod admission;
pub mod certificate;
mod dialer;
mod endpoint;
mod greeting;
pub mod identity;
mod link;
mod membership;
pub mod refusals;
mod session;
mod switchboard;
mod verify;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use aorta_proto::frame::Class;
use aorta_proto::{BootId, NodeId};
use parking_lot::Mutex;
use tokio::runtime::Handle;

pub use identity::{Identity, IdentityError, IdentityFiles, Validity};
pub use refusals::{Refusal, RefusalKind};

use dialer::Dialer;
use endpoint::Endpoint;
use membership::{Gossip, Membership};
use switchboard::Switchboard;

/// What this node is in the cluster and where it finds others.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// `cluster.listen`: the UDP address of the endpoint. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// `cluster.advertise`: where others dial this node. `None` is the address listened on, which then is no wildcard;
    /// port 0 the port listened on.
    pub advertise: Option<SocketAddr>,
    /// `cluster.seeds`: `host:port` each; a name may yield many addresses and is asked again every few seconds.
    pub seeds: Vec<String>,
    /// Where the last-known members were. [`Cluster::dial`] replaces them.
    pub last_known: Vec<SocketAddr>,
    /// This process.
    pub boot: BootId,
    /// Rises with every start of this node, by more than 1000: microseconds of the wall clock, or of cluster time.
    pub generation: u64,
    /// What this node says of itself from the first gossip on.
    pub gossip: BTreeMap<String, String>,
    /// Where links of [`Class::Bulk`] are driven, read and written; everything else runs where [`Cluster::start`] is polled.
    pub bulk: Handle,
}

/// A member that gossip shows alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GossipMember {
    /// Which node.
    pub node: NodeId,
    /// Which start of it.
    pub generation: u64,
    /// Where it is dialled.
    pub address: SocketAddr,
    /// Whether this node has a live link with it.
    pub linked: bool,
    /// What it says of itself.
    pub values: BTreeMap<String, String>,
}

/// A link as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    /// With whom.
    pub peer: NodeId,
    /// Which process of it.
    pub boot: BootId,
    /// For what.
    pub class: Class,
    /// Where it is.
    pub address: SocketAddr,
    /// How long it has been linked.
    pub age: Duration,
    /// Since when nothing was heard.
    pub silent: Duration,
    /// The round trip as QUIC measures it.
    pub round_trip: Duration,
}

/// The rooms above, as this one sees them. Every call is short and does not block; for one peer and class, `linked`
/// comes first, then `received` and `transmit` from two threads, then `unlinked`, and never two sessions at once.
pub trait Peers: Send + Sync + 'static {
    /// The Hello frame: to `to`, or to a peer that this node answers.
    fn hello(&self, to: &NodeId) -> Vec<u8>;

    /// A link is there. Whatever was said on an earlier one of this class may be lost: say it again.
    ///
    /// # Errors
    /// Refuses the peer, with the reason and the way out: it is logged once and told to the peer.
    fn linked(&self, peer: &NodeId, boot: BootId, class: Class, hello: &[u8]) -> Result<(), String>;

    /// The link has ended. Frames that it brought before have been handed over.
    fn unlinked(&self, peer: &NodeId, class: Class, why: &str);

    /// One whole frame, header included.
    ///
    /// # Errors
    /// Closes the link, with the reason.
    fn received(&self, peer: &NodeId, class: Class, frame: &[u8]) -> Result<(), String>;

    /// Appends whole frames, if there is anything to say now; called again as soon as they are written, and else after
    /// [`Cluster::wake`]. Returns whether it appended.
    fn transmit(&self, peer: &NodeId, class: Class, buf: &mut Vec<u8>) -> bool;

    /// The seeds behind which nobody is linked, this node left out: `address:port` each, or the seed itself while it does
    /// not resolve; at each change.
    fn seeds_unreached(&self, seeds: Vec<String>);

    /// The members that gossip shows alive, without this node, by node id; at each change.
    fn members(&self, view: Vec<GossipMember>);

    /// A peer was refused, or refused this node. The log line is written. Told each time, also where no line is due.
    fn refused(&self, refusal: &Refusal) {
        let _ = refusal;
    }
}

/// Why the cluster endpoint did not start.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The UDP socket could not be had.
    #[error("cluster.listen = \"{listen}\": {problem}; give a free UDP port of an address of this machine")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        problem: std::io::Error,
    },
    /// Nobody could dial the address.
    #[error("cluster.listen = \"{0}\" is a wildcard: set cluster.advertise to the address that the other nodes dial")]
    Advertise(SocketAddr),
    /// rustls does not take the certificates.
    #[error("the certificates cannot be used for TLS: {0}")]
    Tls(String),
    /// A key or value that gossip cannot carry.
    #[error(
        "gossip carries keys and values of {} bytes in all at most, and '{key}' would make it {bytes}",
        GOSSIP_BYTES_MAX
    )]
    Gossip {
        /// The key.
        key: String,
        /// All keys and values with it, bytes.
        bytes: usize,
    },
}

/// All keys and values that a node may gossip, bytes. What does not fit one message of 65 507 bytes would block every
/// later key of this node, and the digest of all members shares that message.
pub const GOSSIP_BYTES_MAX: usize = 16 * 1024;

/// How long [`Cluster::close`] waits for the peers to read what was said last.
pub const GOOD_BYE_WAIT: Duration = Duration::from_secs(1);

/// This node's place in the cluster: its endpoint, links and gossip. Dropping it drops all links without a good-bye.
pub struct Cluster {
    board: Arc<Switchboard>,
    endpoint: Arc<Endpoint>,
    gossip: Arc<Gossip>,
    identity: Identity,
    own: Mutex<BTreeMap<String, String>>,
}

impl Cluster {
    /// Binds the endpoint and starts to listen, dial and gossip, on the Tokio runtime that polls this.
    ///
    /// # Errors
    /// When the port cannot be had, the address cannot be advertised or the certificates cannot be used.
    pub async fn start(
        settings: ClusterSettings,
        identity: Identity,
        peers: Arc<dyn Peers>,
    ) -> Result<Self, ClusterError> {
        let endpoint = Arc::new(Endpoint::bind(settings.listen, &identity, &settings.bulk)?);
        let mut advertise = settings.advertise.unwrap_or(endpoint.local());
        if advertise.port() == 0 {
            advertise.set_port(endpoint.local().port());
        }
        if advertise.ip().is_unspecified() {
            return Err(ClusterError::Advertise(advertise));
        }
        check_gossip(&settings.gossip, "")?;
        let (gossip, inbox) = Gossip::new(settings.gossip.clone());
        let gossip = Arc::new(gossip);
        let board = Arc::new(Switchboard::new(&settings, advertise, &identity.bearer.node, peers, Arc::clone(&gossip)));
        board.spawn(Arc::clone(&endpoint).accept_all(Arc::clone(&board)));
        board.spawn(Arc::clone(&board).answer_calls());
        board.spawn(Dialer::new(settings.seeds, Arc::clone(&board), Arc::clone(&endpoint)).run());
        let membership = Membership::new(identity.bearer.clone(), settings.generation, Arc::clone(&board));
        board.spawn(membership.run(inbox));
        let (address, node) = (endpoint.local(), &identity.bearer.node);
        tracing::info!(%address, %advertise, %node, "cluster endpoint listens");
        Ok(Self { board, endpoint, gossip, identity, own: Mutex::new(settings.gossip) })
    }

    /// Where the endpoint listens.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.endpoint.local()
    }

    /// Says that there is something to transmit to `peer`. Cheap; from any thread; nothing if it is not linked.
    pub fn wake(&self, peer: &NodeId, class: Class) {
        self.board.wake(peer, class);
    }

    /// Gossips `key` = `value`, in place of an earlier value.
    ///
    /// # Errors
    /// When all keys and values would exceed [`GOSSIP_BYTES_MAX`].
    pub fn gossip(&self, key: &str, value: &str) -> Result<(), ClusterError> {
        let mut own = self.own.lock();
        let before = own.insert(key.to_owned(), value.to_owned());
        if let Err(error) = check_gossip(&own, key) {
            match before {
                Some(before) => own.insert(key.to_owned(), before),
                None => own.remove(key),
            };
            return Err(error);
        }
        if before.as_deref() != Some(value) {
            self.gossip.set(own.clone());
        }
        Ok(())
    }

    /// Where the last-known members are: dialled, beside seeds and gossip, until each is linked. Replaces the list.
    pub fn dial(&self, addresses: Vec<SocketAddr>) {
        self.board.set_last_known(addresses);
    }

    /// Ends the links with `peer`, for the reason that the peer and the log are given.
    pub fn unlink(&self, peer: &NodeId, why: &str) {
        self.board.unlink(peer, why);
    }

    /// All links, by node id and class.
    #[must_use]
    pub fn links(&self) -> Vec<LinkView> {
        self.board.views()
    }

    /// This node's name in the cluster, and from when until when its certificate is good.
    #[must_use]
    pub fn certificate(&self) -> &Identity {
        &self.identity
    }

    /// Transmits to each peer what is left, then the frame `good_bye` (none if empty), waits until they have read it, at
    /// most [`GOOD_BYE_WAIT`], and closes. Nothing is linked, dialled or gossiped any more.
    pub async fn close(&self, good_bye: &[u8]) {
        self.board.leave(good_bye, GOOD_BYE_WAIT).await;
        self.endpoint.close().await;
        self.board.stopped(GOOD_BYE_WAIT).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.board.stop();
        self.endpoint.abandon();
    }
}

fn check_gossip(values: &BTreeMap<String, String>, key: &str) -> Result<(), ClusterError> {
    let bytes = values.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > GOSSIP_BYTES_MAX { Err(ClusterError::Gossip { key: key.to_owned(), bytes }) } else { Ok(()) }
}
