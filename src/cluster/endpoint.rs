//! The QUIC endpoint of a node: binds, dials, accepts, and greets until a connection is a link or is closed. Beside it a
//! socket from which bulk is dialled. With `link` the only file that names quinn.
//!
//! **2026-11, bulk beside what is live.** A joiner gets a whole table in a second. On the socket and the thread of the live
//! links its packets took a third of that thread, and each delta waited behind those that had come before it. Who dials first
//! for bulk therefore does so from another port, and at both ends the drivers of such connections run elsewhere
//! ([`drivers`]). Refused: a second port to listen on, which every firewall would have to learn.

mod congestion;
mod drivers;
mod greet;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use aorta_proto::NodeId;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, Connection, EndpointConfig, IdleTimeout, Incoming, MtuDiscoveryConfig,
    ServerConfig, TransportConfig, VarInt,
};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use congestion::Congestion;
use drivers::{Drivers, class_of, driven_on, first_id_for_bulk};
use greet::{Link, greet_accepted, greet_dialled, name, refused, settle};

use super::admission::Refused;
use super::identity::Identity;
use super::link::{Close, canonical};
use super::refusals::{Refusal, RefusalKind};
use super::switchboard::Switchboard;
use super::verify::tls;
use super::{Class, ClusterError};

/// A connection, for files that do not name its crate.
pub(super) type Wire = Connection;

/// A connection from which nothing came for this long is dead: four pings a second and gossip were lost one after another.
/// A dead node is so given up within 2 s, as membership does; until then its link keeps readiness, repair and
/// `aorta forget` waiting.
const IDLE: Duration = Duration::from_millis(1500);

/// QUIC's own sign of life, for connections whose tasks are still greeting.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A connection attempt, handshake and greeting, ends after this. A ping of a suspected twin fits in several times.
const GREETING_WAIT: Duration = Duration::from_secs(3);

/// Connections that greet at once; beyond it new ones are turned away, to dial again.
const GREETING_MAX: usize = 128;

/// Bytes that are kept of a connection before it is taken, and of all such: handshakes, not yet told from garbage.
const EARLY_BYTES: u64 = 64 * 1024;
const EARLY_BYTES_TOTAL: u64 = 4 * 1024 * 1024;

/// First guess of a round trip: a lost first packet is sent again after three of these, before the dial is raced.
const ROUND_TRIP_GUESS: Duration = Duration::from_millis(100);

/// Later packets may overtake one by so many, and by so much of a round trip, before it counts as lost. Where delays vary,
/// QUIC's usual 3 packets and 9/8 take most of what merely comes later for lost, and send less and less because of it. What
/// really is lost is missed a round trip later for it, which between nodes is next to nothing. One that is overtaken by 128
/// is lost: quinn's receiver remembers no more numbers, and takes it for one that it has.
const OVERTAKEN_BY_PACKETS: u32 = 128;
const OVERTAKEN_FOR_ROUND_TRIPS: f32 = 2.0;

/// Unread bytes that a peer may have on its way to this node, a stream and a connection.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 3 * 1024 * 1024;

/// Written bytes that wait for the peer's acks. Small, so that what a slow peer lacks waits in the shared log instead.
const SEND_WINDOW_BYTES: u64 = 1024 * 1024;

/// Gossip messages on streams of their own that a peer may have under way.
const GOSSIP_STREAMS_MAX: u32 = 16;

/// Datagrams that wait to be read or sent, bytes; beyond it quinn drops the oldest.
const DATAGRAMS_BYTES: usize = 128 * 1024;

/// Packets that quinn gives the system in one piece (UDP_SEGMENT), and bytes that one takes in a piece, with IPv4. Of a larger
/// one the system says EMSGSIZE, quinn takes that for a probe that was too long, and all of it is lost without a word: what
/// waits for a link after a pause is sent again, in one piece again, and for seconds little of it arrives.
const PACKETS_IN_ONE_PIECE: u16 = 10;
const PIECE_BYTES_MAX: u16 = u16::MAX - 20 - 8;
const _: () = assert!(PACKET_BYTES_MAX <= PIECE_BYTES_MAX / PACKETS_IN_ONE_PIECE);

/// The largest packet that is tried on a path, bytes. A packet costs much the same whatever it carries, so a joiner's first
/// milliseconds are better spent on few probes than on its last bytes: with four halvings between QUIC's least (1200) and this
/// one, and then this one itself, a path that takes all of it is known after five, and an Ethernet of 1500 bytes, of which
/// both IPv4 and IPv6 leave a packet more than 1451, is known to take those.
const PACKET_BYTES_MAX: u16 = 1200 + 16 * PROBE_STEP_BYTES;

/// A path is known when a probe is nearer than this to the one before, bytes.
const PROBE_STEP_BYTES: u16 = 252;

/// Packets that a peer may take before it acknowledges them as packets (QUIC's own acks, not those that replies wait for),
/// unless they ride along with what it says anyway. Without this it would be every second one.
const PACKETS_UNACKED_MAX: u32 = 10;

/// It waits no longer than this for them. Where packets are lost, little may be under way ([`congestion`]): with QUIC's usual 25 ms
/// all that waits for room would wait that long.
const UNACKED_FOR_MAX: Duration = Duration::from_millis(2);

/// The socket buffers asked of the system, bytes; what it grants is enough to start with.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// How a dial ended, for the dialler to remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dialled {
    /// This node's link was taken, and has ended since; or there is one already.
    Peer(NodeId),
    /// It was this node itself.
    Own,
    /// Refused by one of the two.
    Refused,
    /// Nobody answered, or not to the end.
    Lost,
}

/// The endpoint and what it dials with.
pub(super) struct Endpoint {
    quinn: quinn::Endpoint,
    /// Listens to nobody; bulk is dialled from here.
    aside: quinn::Endpoint,
    live: ClientConfig,
    bulk: ClientConfig,
    local: SocketAddr,
}

impl Endpoint {
    /// Takes the port. Connections for bulk are driven on `beside`.
    pub(super) fn bind(listen: SocketAddr, identity: &Identity, beside: &Handle) -> Result<Self, ClusterError> {
        let tls = tls(identity).map_err(|error| ClusterError::Tls(error.to_string()))?;
        let transport = Arc::new(transport());
        let crypto = QuicServerConfig::try_from(tls.server).map_err(|error| ClusterError::Tls(error.to_string()))?;
        let mut server = ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(Arc::clone(&transport)).migration(false);
        server
            .max_incoming(GREETING_MAX)
            .incoming_buffer_size(EARLY_BYTES)
            .incoming_buffer_size_total(EARLY_BYTES_TOTAL);
        let crypto = QuicClientConfig::try_from(tls.client).map_err(|error| ClusterError::Tls(error.to_string()))?;
        let mut live = ClientConfig::new(Arc::new(crypto));
        live.transport_config(transport);
        let mut bulk = live.clone();
        bulk.initial_dst_cid_provider(Arc::new(first_id_for_bulk));
        let refuse = |problem| ClusterError::Listen { listen, problem };
        let drivers = Arc::new(Drivers { bulk: beside.clone() });
        let mut endpoint = EndpointConfig::default();
        // Fails only above what UDP can carry.
        let _ = endpoint.max_udp_payload_size(PACKET_BYTES_MAX);
        let mut beside_listen = listen;
        beside_listen.set_port(0);
        let open = |at, server| {
            let (endpoint, drivers) = (endpoint.clone(), Arc::<Drivers>::clone(&drivers));
            quinn::Endpoint::new(endpoint, server, socket(at)?, drivers)
        };
        let quinn = open(listen, Some(server)).map_err(refuse)?;
        let aside = driven_on(beside, || open(beside_listen, None)).map_err(refuse)?;
        let local = quinn.local_addr().map_err(refuse)?;
        Ok(Self { quinn, aside, live, bulk, local })
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Takes connections until the endpoint is closed.
    pub(super) async fn accept_all(self: Arc<Self>, board: Arc<Switchboard>) {
        let places = Arc::new(Semaphore::new(GREETING_MAX));
        while let Some(incoming) = self.quinn.accept().await {
            if places.available_permits() < GREETING_MAX / 2 && incoming.may_retry() {
                // Under load, who dials first shows that it can be reached where it says it is.
                let _ = incoming.retry();
                continue;
            }
            match Arc::clone(&places).try_acquire_owned() {
                Ok(place) if !board.is_leaving() => {
                    let greeted = accept(incoming, Arc::clone(&board));
                    let board = Arc::clone(&board);
                    Arc::clone(&board).spawn_link(async move {
                        let opened = board.unless_stopped(greeted).await;
                        drop(place);
                        if let Some(link) = opened {
                            link.run(board).await;
                        }
                    });
                }
                _ => incoming.refuse(),
            }
        }
    }

    /// Dials `address`, from `aside` or from where this node listens; returns once it is linked, or not. A link goes on in a
    /// task of its own.
    pub(super) async fn dial(
        &self,
        address: SocketAddr,
        class: Class,
        aside: bool,
        board: &Arc<Switchboard>,
    ) -> Dialled {
        let from = if aside { &self.aside } else { &self.quinn };
        let config = match class {
            Class::Live => &self.live,
            Class::Bulk => &self.bulk,
        };
        let dial = || from.connect_with(config.clone(), address, "aorta");
        let Ok(connecting) = driven_on(&board.runtime(class), dial) else { return Dialled::Lost };
        let connection = match timeout(GREETING_WAIT, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return judged(board, address, None, refused(&error)),
            Err(_) => return Dialled::Lost,
        };
        let peer = name(&connection);
        let result = settle(&connection, greet_dialled(&connection, class, board), board).await;
        match result {
            Ok(link) => {
                let dialled = peer.map_or(Dialled::Lost, Dialled::Peer);
                board.spawn_link(link.run(Arc::clone(board)));
                dialled
            }
            Err(refused) => {
                close(&connection, &refused);
                judged(board, address, peer, refused)
            }
        }
    }

    /// Closes all connections and waits until the peers were told.
    pub(super) async fn close(&self) {
        self.abandon();
        let idle = async { tokio::join!(self.quinn.wait_idle(), self.aside.wait_idle()) };
        let _ = timeout(Duration::from_millis(500), idle).await;
    }

    /// Closes all connections.
    pub(super) fn abandon(&self) {
        for endpoint in [&self.quinn, &self.aside] {
            endpoint.close(VarInt::from(Close::GoodBye as u8), b"this node stops");
        }
    }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut paths = MtuDiscoveryConfig::default();
    paths.upper_bound(PACKET_BYTES_MAX).minimum_change(PROBE_STEP_BYTES);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(PACKETS_UNACKED_MAX)).max_ack_delay(Some(UNACKED_FOR_MAX));
    transport
        .mtu_discovery_config(Some(paths))
        .ack_frequency_config(Some(acks))
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(ROUND_TRIP_GUESS)
        .packet_threshold(OVERTAKEN_BY_PACKETS)
        .time_threshold(OVERTAKEN_FOR_ROUND_TRIPS)
        .congestion_controller_factory(Arc::new(Congestion::new()))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(GOSSIP_STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAMS_BYTES))
        .datagram_send_buffer_size(DATAGRAMS_BYTES);
    transport
}

fn socket(listen: SocketAddr) -> std::io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    if listen.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

fn close(connection: &Connection, refused: &Refused) {
    match refused {
        Refused::Quietly(code) => code.close(connection, ""),
        Refused::Loudly(_, code, why) => code.close(connection, why),
        Refused::Lost(_) | Refused::Ended => Close::GoodBye.close(connection, ""),
    }
}

/// Says what is to be said of a connection that became no link.
fn judged(board: &Switchboard, address: SocketAddr, peer: Option<NodeId>, refused: Refused) -> Dialled {
    match refused {
        Refused::Quietly(Close::Own) => Dialled::Own,
        Refused::Quietly(Close::Duplicate) => peer.map_or(Dialled::Lost, Dialled::Peer),
        Refused::Quietly(_) | Refused::Ended => Dialled::Lost,
        Refused::Loudly(kind, _, why) => {
            board.refuse(&Refusal { address: canonical(address), peer, kind, why });
            Dialled::Refused
        }
        Refused::Lost(why) => {
            tracing::debug!(%address, why, "no link");
            Dialled::Lost
        }
    }
}

/// What a refusal in the handshake of a connection that this node accepted means: nothing about this node, for who dialled
/// has not shown yet who it is.
fn stranger(refused: Refused) -> Refused {
    match refused {
        Refused::Loudly(RefusalKind::ByPeer, close, why) => Refused::Loudly(
            RefusalKind::Handshake,
            close,
            format!("a stranger does not take this node's certificate; {why}"),
        ),
        other => other,
    }
}

async fn accept(incoming: Incoming, board: Arc<Switchboard>) -> Option<Link> {
    let address = incoming.remote_address();
    let runtime = board.runtime(class_of(&incoming));
    let handshake = async { driven_on(&runtime, || incoming.accept())?.await };
    let connection = match timeout(GREETING_WAIT, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            judged(&board, address, None, stranger(refused(&error)));
            return None;
        }
        Err(_) => return None,
    };
    let result = settle(&connection, greet_accepted(&connection, &board), &board).await;
    result
        .map_err(|refused| {
            close(&connection, &refused);
            judged(&board, address, name(&connection), refused);
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::certificate::{AUTHORITY_DAYS, Authority, NODE_DAYS};
    use super::super::identity::IdentityFiles;
    use super::*;
    use crate::clock;

    /// What waits for a link after a moment: more than the system takes in one piece, and less than a socket has room for.
    const WAITING_BYTES: usize = 128 * 1024;
    /// How often.
    const ROUNDS: usize = 64;
    /// Two pieces: where processors are busy one may be taken for lost though it only comes later.
    const TAKEN_FOR_LOST_MAX: u64 = 2 * PACKETS_IN_ONE_PIECE as u64;

    fn endpoint(name: &str, authority: &Authority, trusted: &str, now_s: i64, folder: &Path) -> Endpoint {
        let node = NodeId::new(name).unwrap();
        let issued = authority.issue(&node, now_s, NODE_DAYS).unwrap();
        let put = |what: &str, text: &str| {
            let file = folder.join(format!("{name}.{what}"));
            std::fs::write(&file, text).unwrap();
            file
        };
        let (ca, certificate, key) = (put("ca", trusted), put("pem", &issued.certificate), put("key", &issued.key));
        let identity = Identity::load(&IdentityFiles { ca, certificate, key }, Some(&node)).unwrap();
        Endpoint::bind("127.0.0.1:0".parse().unwrap(), &identity, &Handle::current()).unwrap()
    }

    /// Of one cluster.
    fn two_ends() -> (Endpoint, Endpoint) {
        let now_s = i64::try_from(clock::wall_us() / 1_000_000).unwrap();
        let ca = Authority::create("blue", now_s, AUTHORITY_DAYS).unwrap();
        let authority = Authority::load(&ca.certificate, &ca.key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let end = |name| endpoint(name, &authority, &ca.certificate, now_s, folder.path());
        (end("a"), end("b"))
    }

    #[tokio::test]
    async fn what_waits_for_a_link_leaves_in_pieces_that_the_system_takes() {
        let (one, two) = two_ends();
        let dialled = one.quinn.connect_with(one.live.clone(), two.local(), "aorta").unwrap();
        let accepted = async { two.quinn.accept().await.unwrap().await };
        let (dialled, accepted) = tokio::join!(dialled, accepted);
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        let (mut send, _) = dialled.open_bi().await.unwrap();
        let (waiting, mut came) = (vec![7; WAITING_BYTES], vec![0; WAITING_BYTES]);
        send.write_all(&waiting).await.unwrap();
        let (_, mut receive) = accepted.accept_bi().await.unwrap();
        for _ in 0..ROUNDS {
            receive.read_exact(&mut came).await.unwrap();
            assert_eq!(came, waiting);
            send.write_all(&waiting).await.unwrap();
        }
        let path = dialled.stats().path;
        assert!(path.lost_packets <= TAKEN_FOR_LOST_MAX && path.black_holes_detected == 0, "{path:?}");
    }

    #[tokio::test]
    async fn a_path_that_takes_all_is_known_after_five_probes() {
        let (one, two) = two_ends();
        let dialled = one.quinn.connect_with(one.live.clone(), two.local(), "aorta").unwrap();
        let accepted = async { two.quinn.accept().await.unwrap().await };
        let (dialled, accepted) = tokio::join!(dialled, accepted);
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        let known = |path: quinn::PathStats| path.current_mtu == PACKET_BYTES_MAX;
        let search = async {
            while !known(dialled.stats().path) {
                dialled.send_datagram("?".into()).unwrap();
                accepted.read_datagram().await.unwrap();
                accepted.send_datagram("!".into()).unwrap();
                dialled.read_datagram().await.unwrap();
            }
        };
        timeout(Duration::from_secs(20), search).await.unwrap();
        let path = dialled.stats().path;
        assert_eq!(path.sent_plpmtud_probes - path.lost_plpmtud_probes, 5, "{path:?}");
    }

    #[tokio::test]
    async fn who_is_dialled_sees_what_for() {
        let (one, two) = two_ends();
        let mut under_way = Vec::new();
        for (config, class) in [(&one.live, Class::Live), (&one.bulk, Class::Bulk)] {
            let dialled = one.aside.connect_with(config.clone(), two.local(), "aorta").unwrap();
            let accepted = two.quinn.accept().await.unwrap();
            assert_eq!(class_of(&accepted), class);
            under_way.push((dialled, accepted));
        }
    }
}
