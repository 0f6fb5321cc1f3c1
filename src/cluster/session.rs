//! A link as the rest of this room sees it: with whom, how healthy, and the levers that wake, ping and end it. The bytes
//! run in `link`; which sessions there are is `switchboard`'s.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aorta_proto::frame::Class;
use aorta_proto::{BootId, NodeId};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::LinkView;
use super::endpoint::Wire;
use super::greeting::Greeting;
use super::link::{Close, Ending, canonical};

/// A link from which nothing was heard for this long is silent: it is raced by fresh dials.
pub(super) const SILENT: Duration = Duration::from_secs(1);

/// A process whose link does not answer a ping for this long is gone: a newcomer with its node id is no twin.
const PONG_WAIT: Duration = Duration::from_millis(300);

/// Gossip messages that wait for one link; beyond it the oldest goes, for the newest says more.
const GOSSIP_WAITING_MAX: usize = 16;

/// An agreed connection with one peer for one class.
pub(super) struct Session {
    pub(super) peer: NodeId,
    pub(super) class: Class,
    /// What the peer greeted with.
    pub(super) theirs: Greeting,
    /// Where the peer can be dialled for the other class.
    pub(super) dial: SocketAddr,
    /// Of two sessions the later one.
    pub(super) turn: u64,
    pub(super) connection: Wire,
    started: Instant,
    /// Milliseconds after `started` when something was heard last.
    heard_ms: AtomicU64,
    /// The rooms above know of it.
    open: AtomicBool,
    pub(super) wake: Notify,
    /// Somebody wants it woken: see [`super::switchboard::Switchboard::wake`].
    called: AtomicBool,
    pub(super) gossip: Mutex<VecDeque<Bytes>>,
    pub(super) gossip_waits: Notify,
    pub(super) pinged: AtomicU64,
    pub(super) ping: Notify,
    pub(super) ponged: watch::Sender<u64>,
    pub(super) farewell: Mutex<Option<Vec<u8>>>,
    pub(super) stop: CancellationToken,
    pub(super) stopped_for: Mutex<Option<Ending>>,
    ended: CancellationToken,
}

impl Session {
    pub(super) fn new(
        peer: NodeId,
        theirs: Greeting,
        dialled: bool,
        turn: u64,
        connection: Wire,
        stop: CancellationToken,
    ) -> Self {
        let dial = if dialled { canonical(connection.remote_address()) } else { theirs.advertise };
        Self {
            peer,
            class: theirs.class,
            theirs,
            dial,
            turn,
            connection,
            started: Instant::now(),
            heard_ms: AtomicU64::new(0),
            open: AtomicBool::new(false),
            wake: Notify::new(),
            called: AtomicBool::new(false),
            gossip: Mutex::default(),
            gossip_waits: Notify::new(),
            pinged: AtomicU64::new(0),
            ping: Notify::new(),
            ponged: watch::Sender::new(0),
            farewell: Mutex::new(None),
            stop,
            stopped_for: Mutex::new(None),
            ended: CancellationToken::new(),
        }
    }

    pub(super) fn boot(&self) -> BootId {
        self.theirs.boot
    }

    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn silent(&self) -> Duration {
        self.age().saturating_sub(Duration::from_millis(self.heard_ms.load(Ordering::Relaxed)))
    }

    /// Neither silent nor on its way out.
    pub(super) fn is_healthy(&self) -> bool {
        self.silent() < SILENT && !self.stop.is_cancelled()
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    pub(super) fn set_open(&self) {
        self.open.store(true, Ordering::Release);
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Has it woken by the next [`Session::wake_if_called`].
    pub(super) fn call(&self) {
        self.called.store(true, Ordering::Release);
    }

    pub(super) fn wake_if_called(&self) {
        if self.called.swap(false, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Ends it; [`Session::ended`] waits until it has.
    pub(super) fn end(&self, close: Close, why: &str) {
        self.stopped_for.lock().get_or_insert_with(|| Ending::ours(close, why));
        self.stop.cancel();
    }

    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Marks it ended: nothing of it reaches the rooms above any more.
    pub(super) fn set_ended(&self) {
        self.ended.cancel();
    }

    /// Writes what is left, then `good_bye`, and waits until the peer has read all and closes.
    pub(super) async fn leave(&self, good_bye: &[u8]) {
        *self.farewell.lock() = Some(good_bye.to_vec());
        self.wake.notify_one();
        self.ended().await;
    }

    /// Whether the peer answers a ping sent now: what it said before, and waits to be read, is no sign of life.
    pub(super) async fn answers(&self) -> bool {
        let mut ponged = self.ponged.subscribe();
        let asked = self.pinged.fetch_add(1, Ordering::Relaxed) + 1;
        self.ping.notify_one();
        let answered = timeout(PONG_WAIT, ponged.wait_for(|pong| *pong >= asked)).await;
        matches!(answered, Ok(Ok(_)))
    }

    /// Puts a gossip message in the queue.
    pub(super) fn push_gossip(&self, message: Bytes) {
        let mut waiting = self.gossip.lock();
        if waiting.len() >= GOSSIP_WAITING_MAX {
            waiting.pop_front();
        }
        waiting.push_back(message);
        drop(waiting);
        self.gossip_waits.notify_one();
    }

    pub(super) fn view(&self) -> LinkView {
        LinkView {
            peer: self.peer.clone(),
            boot: self.boot(),
            class: self.class,
            address: canonical(self.connection.remote_address()),
            age: self.age(),
            silent: self.silent(),
            round_trip: self.connection.rtt(),
        }
    }

    /// Something came from the peer just now.
    pub(super) fn heard(&self) {
        let now = u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(now, Ordering::Relaxed);
    }
}
