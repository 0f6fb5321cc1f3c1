//! One link: a connection that both ends have agreed on, from its first frame to its last. Beside `endpoint` the only
//! file that names quinn.
//!
//! Frames run both ways on one stream. Gossip goes beside it, as a datagram when it fits and else as a stream of its own
//! each; so do pings, by which a silent peer is told from an idle one. Who may have a link is `switchboard`'s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use aorta_proto::frame::Header;
use bytes::Bytes;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::membership::MESSAGE_BYTES_MAX;
use super::session::Session;
use super::switchboard::Switchboard;
use super::{Class, Peers};

/// Pings a link, so that four must be lost before it counts as silent.
const PING_EVERY: Duration = Duration::from_millis(250);

/// Of a round trip so small a part passes between two writes: where it is long, what comes meanwhile goes out in one packet.
/// Else a loaded link whose delay varies by a tenth of a second has packets overtaken by so many others that they are lost
/// (see `endpoint`).
const WRITES_PER_ROUND_TRIP: u32 = 64;

/// Shorter pauses are none: timers are no finer.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// Bytes that one link is read of before the other tasks of its thread have their turn, SIP's reader among them: some hundred
/// changes, a fraction of a millisecond.
const TURN_BYTES: usize = 32 * 1024;

/// A buffer that grew beyond this for one large frame is given back.
const BUFFER_KEPT_BYTES: usize = 512 * 1024;

/// How long one gossip message may take as a stream of its own.
const GOSSIP_STREAM_WAIT: Duration = Duration::from_secs(1);

const DATAGRAM_GOSSIP: u8 = 0;
const DATAGRAM_PING: u8 = 1;
const DATAGRAM_PONG: u8 = 2;

/// Why a connection is closed, as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Close {
    /// The node leaves or stops.
    GoodBye = 0,
    /// A healthy link of this class is there.
    Duplicate = 1,
    /// The node dialled itself.
    Own = 2,
    /// A living process has the same node id.
    Twin = 3,
    /// The rooms above refuse the peer, or what it said.
    Refused = 4,
    /// A later connection takes its place.
    Replaced = 5,
    /// The peer does not speak the protocol.
    Protocol = 6,
    /// The peer took too long to greet.
    Slow = 7,
    /// A bulk connection without a live one.
    NoLive = 8,
    /// The peer said good-bye, and all of it was read.
    Done = 9,
}

impl Close {
    const ALL: [Self; 10] = [
        Self::GoodBye,
        Self::Duplicate,
        Self::Own,
        Self::Twin,
        Self::Refused,
        Self::Replaced,
        Self::Protocol,
        Self::Slow,
        Self::NoLive,
        Self::Done,
    ];

    pub(super) fn of(error: &ConnectionError) -> Option<Self> {
        let ConnectionError::ApplicationClosed(close) = error else { return None };
        Self::ALL.into_iter().find(|code| close.error_code == VarInt::from(*code as u8))
    }

    pub(super) fn close(self, connection: &Connection, why: &str) {
        connection.close(VarInt::from(self as u8), why.as_bytes());
    }
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) why: String,
    /// Said by the peer, or by this node to the peer.
    pub(super) close: Option<Close>,
    pub(super) by_peer: bool,
}

impl Ending {
    pub(super) fn ours(close: Close, why: impl Into<String>) -> Self {
        Self { why: why.into(), close: Some(close), by_peer: false }
    }

    fn lost(error: &ConnectionError) -> Self {
        let why = match error {
            ConnectionError::ApplicationClosed(close) => match Close::of(error) {
                Some(Close::GoodBye | Close::Done) => "it left".into(),
                Some(Close::Replaced) => "a later link takes its place".into(),
                _ => format!("it closed the link: {}", printable(&close.reason)),
            },
            ConnectionError::TimedOut => "nothing was heard of it".into(),
            other => other.to_string(),
        };
        Self { why, close: Close::of(error), by_peer: true }
    }
}

/// A peer's words for a log line: bounded, and nothing that moves a terminal's cursor.
pub(super) fn printable(bytes: &[u8]) -> String {
    const SHOWN_BYTES: usize = 400;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The address of a peer, IPv4 as such also on a socket of both families.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Carries frames until the link ends. The rooms above have seen `linked`; when this returns, no call of theirs runs.
pub(super) async fn run(
    session: &Arc<Session>,
    send: SendStream,
    recv: RecvStream,
    board: &Arc<Switchboard>,
) -> Ending {
    let mut tasks: JoinSet<Option<Ending>> = JoinSet::new();
    let (peers, frames) = (board.peers(), board.runtime(session.class));
    tasks.spawn_on(read_frames(Arc::clone(session), recv, Arc::clone(peers)), &frames);
    tasks.spawn_on(write_frames(Arc::clone(session), send, Arc::clone(peers)), &frames);
    tasks.spawn_on(datagrams(Arc::clone(session), Arc::clone(board)), &frames);
    if session.class == Class::Live {
        tasks.spawn(gossip_out(Arc::clone(session)));
        tasks.spawn(gossip_in(Arc::clone(session), Arc::clone(board)));
    }
    let ending = tokio::select! {
        () = session.stop.cancelled() => session.stopped_for.lock().take(),
        ending = first_ending(&mut tasks) => ending,
    };
    let ending = ending.unwrap_or_else(|| Ending::ours(Close::GoodBye, "this node stops"));
    if !ending.by_peer {
        ending.close.unwrap_or(Close::GoodBye).close(&session.connection, &ending.why);
    }
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    ending
}

/// The first task that ends the link. One that lost the connection leaves it to the reader, which still has what came
/// before.
async fn first_ending(tasks: &mut JoinSet<Option<Ending>>) -> Option<Ending> {
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(Some(ending)) => return Some(ending),
            Ok(None) => {}
            Err(error) => return Some(Ending::ours(Close::Refused, format!("fault in this node: {error}"))),
        }
    }
    None
}

/// The length of the frame at the start of `bytes`, header included; `None` while its header is not whole.
fn frame_bytes(class: Class, bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(header) = Header::read(bytes).map_err(|error| error.to_string())? else { return Ok(None) };
    if header.class() != class {
        return Err(format!("it sent a frame of kind {} on the {class:?} connection", header.kind));
    }
    Ok(Some(header.frame_bytes()))
}

async fn read_frames(session: Arc<Session>, mut recv: RecvStream, peers: Arc<dyn Peers>) -> Option<Ending> {
    let mut buffer: Vec<u8> = Vec::with_capacity(READ_BYTES);
    let mut turn_bytes = 0;
    loop {
        let chunk = match recv.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) if buffer.is_empty() => return Some(Ending::ours(Close::Done, "it left")),
            Ok(None) => return Some(Ending::ours(Close::Protocol, "it ended within a frame")),
            Err(ReadError::ConnectionLost(error)) => return Some(Ending::lost(&error)),
            Err(error) => return Some(Ending::ours(Close::Protocol, error.to_string())),
        };
        session.heard();
        buffer.extend_from_slice(&chunk.bytes);
        if let Err(ending) = deliver(&session, &mut buffer, &*peers) {
            return Some(ending);
        }
        turn_bytes += chunk.bytes.len();
        if turn_bytes < TURN_BYTES {
            tokio::task::consume_budget().await;
        } else {
            turn_bytes = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Hands over the whole frames at the start of `buffer` and takes them out of it.
fn deliver(session: &Session, buffer: &mut Vec<u8>, peers: &dyn Peers) -> Result<(), Ending> {
    let mut start = 0;
    while let Some(whole) =
        frame_bytes(session.class, &buffer[start..]).map_err(|why| Ending::ours(Close::Protocol, why))?
    {
        let Some(frame) = buffer.get(start..start + whole) else { break };
        peers.received(&session.peer, session.class, frame).map_err(|why| Ending::ours(Close::Refused, why))?;
        start += whole;
        give_way(session.class);
    }
    buffer.drain(..start);
    if buffer.capacity() > BUFFER_KEPT_BYTES && buffer.len() < READ_BYTES {
        buffer.shrink_to(READ_BYTES);
    }
    Ok(())
}

/// Between two frames of an exchange in bulk other threads go first that are ready to run: where all processors are busy, the
/// kernel would have them wait until this one's slice ends, some milliseconds, and phones with them.
fn give_way(class: Class) {
    if class == Class::Bulk {
        thread::yield_now();
    }
}

async fn write_frames(session: Arc<Session>, mut send: SendStream, peers: Arc<dyn Peers>) -> Option<Ending> {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        let farewell = session.farewell.lock().take();
        while peers.transmit(&session.peer, session.class, &mut buffer) && !buffer.is_empty() {
            send.write_all(&buffer).await.ok()?;
            buffer.clear();
            buffer.shrink_to(BUFFER_KEPT_BYTES);
            give_way(session.class);
            tokio::task::consume_budget().await;
        }
        if let Some(farewell) = farewell {
            send.write_all(&farewell).await.ok()?;
            send.finish().ok()?;
            // The stream stays until the peer has read it all and closes.
            let _ = send.stopped().await;
            return None;
        }
        let pause = session.connection.rtt() / WRITES_PER_ROUND_TRIP;
        if pause >= PAUSE_MIN {
            sleep(pause).await;
        }
        session.wake.notified().await;
    }
}

async fn datagrams(session: Arc<Session>, board: Arc<Switchboard>) -> Option<Ending> {
    let mut pulse = interval(PING_EVERY);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            received = session.connection.read_datagram() => {
                session.heard();
                datagram(&session, &board, &received.ok()?);
            }
            _ = pulse.tick() => ping(&session),
            () = session.ping.notified() => ping(&session),
        }
    }
}

fn ping(session: &Session) {
    let nonce = session.pinged.fetch_add(1, Ordering::Relaxed) + 1;
    send_ping(session, DATAGRAM_PING, &nonce.to_le_bytes());
}

fn send_ping(session: &Session, kind: u8, nonce: &[u8]) {
    let mut bytes = Vec::with_capacity(1 + nonce.len());
    bytes.push(kind);
    bytes.extend_from_slice(nonce);
    // A datagram that cannot go is a ping lost: the next one is due in a moment.
    let _ = session.connection.send_datagram(bytes.into());
}

fn datagram(session: &Session, board: &Switchboard, bytes: &Bytes) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match *kind {
        DATAGRAM_GOSSIP if session.class == Class::Live => {
            board.gossip().received(session.theirs.advertise, bytes.slice(1..));
        }
        DATAGRAM_PING if rest.len() == size_of::<u64>() => send_ping(session, DATAGRAM_PONG, rest),
        DATAGRAM_PONG => {
            if let Ok(nonce) = rest.try_into().map(u64::from_le_bytes) {
                session.ponged.send_if_modified(|last| std::mem::replace(last, nonce.max(*last)) < nonce);
            }
        }
        _ => {}
    }
}

async fn gossip_out(session: Arc<Session>) -> Option<Ending> {
    loop {
        let next = session.gossip.lock().pop_front();
        let Some(message) = next else {
            session.gossip_waits.notified().await;
            continue;
        };
        if session.connection.max_datagram_size().is_some_and(|max| message.len() < max) {
            let mut bytes = Vec::with_capacity(1 + message.len());
            bytes.push(DATAGRAM_GOSSIP);
            bytes.extend_from_slice(&message);
            let _ = session.connection.send_datagram(bytes.into());
        } else {
            // What takes too long is overtaken by the next round.
            let _ = timeout(GOSSIP_STREAM_WAIT, gossip_stream(&session.connection, &message)).await;
        }
    }
}

async fn gossip_stream(connection: &Connection, message: &[u8]) -> Option<()> {
    let mut stream = connection.open_uni().await.ok()?;
    stream.write_all(message).await.ok()?;
    stream.finish().ok()
}

async fn gossip_in(session: Arc<Session>, board: Arc<Switchboard>) -> Option<Ending> {
    loop {
        let mut stream = session.connection.accept_uni().await.ok()?;
        let read = timeout(GOSSIP_STREAM_WAIT, stream.read_to_end(MESSAGE_BYTES_MAX)).await;
        if let Ok(Ok(message)) = read {
            session.heard();
            board.gossip().received(session.theirs.advertise, message.into());
        }
    }
}
