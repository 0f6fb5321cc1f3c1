//! TCP: who is let in, how many, and the connection that a reply takes (RFC 3261 §18.2.2). What is read and written on a
//! connection is in `connection`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::Service;
use super::admission::{Admission, Seat};
use super::connection::{Connection, Written, within};
use super::counts::{Sheet, TransportCounts, count};
use super::settings::Settings;
use super::tick::{TICK_MS, Tick};
use crate::clock::Clock;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Replies whose own connection is gone and that wait for a new one; more are lost.
const DIALS_MAX: usize = 64;

/// How long a new connection for a reply may take: the client of a reply that old has sent its request again.
const DIAL: Duration = Duration::from_secs(2);

/// How long accepting rests when the system has no file descriptor to give.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// All that TCP connections share.
pub(super) struct Tcp {
    pub(super) settings: Arc<Settings>,
    pub(super) service: Arc<dyn Service>,
    pub(super) sheet: Sheet,
    clock: Arc<Clock>,
    runtime: Handle,
    admission: Arc<Admission>,
    dials: Arc<Semaphore>,
    tick: Arc<Tick>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tcp").field("open", &self.admission.taken()).finish_non_exhaustive()
    }
}

/// A listening socket; port 0 takes any.
pub(super) fn listen(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait until the old connections' last packets are forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Tcp {
    pub(super) fn new(
        settings: Arc<Settings>,
        service: Arc<dyn Service>,
        clock: Arc<Clock>,
        tick: Arc<Tick>,
        runtime: &Handle,
    ) -> Arc<Self> {
        Arc::new(Self {
            admission: Admission::new(settings.tcp.connections_max, settings.tcp.connections_per_source_max),
            settings,
            service,
            sheet: Sheet::default(),
            clock,
            runtime: runtime.clone(),
            dials: Arc::new(Semaphore::new(DIALS_MAX)),
            tick,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Accepts connections from all of `listeners` until stopped.
    pub(super) fn accept_from(self: &Arc<Self>, listeners: Vec<std::net::TcpListener>) -> io::Result<()> {
        let _in_runtime = self.runtime.enter();
        if !listeners.is_empty() {
            self.tasks.spawn(Arc::clone(self).beat());
        }
        for listener in listeners {
            self.tasks.spawn(Arc::clone(self).accept(TcpListener::from_std(listener)?));
        }
        Ok(())
    }

    async fn beat(self: Arc<Self>) {
        let mut beats = interval(Duration::from_millis(TICK_MS));
        beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while self.stop.run_until_cancelled(beats.tick()).await.is_some() {
            self.beat_at(self.clock.now().mono_us);
        }
    }

    fn beat_at(&self, now_us: u64) {
        self.tick.beat(now_us, |gap_us| {
            count(&self.sheet.sleeps);
            self.service.slept(gap_us);
        });
    }

    /// Whether what is read now may have come while the process slept: within `max_age` of waking nobody can tell.
    pub(super) fn may_have_waited(&self) -> bool {
        let now_us = self.clock.now().mono_us;
        self.beat_at(now_us);
        within(now_us, self.tick.woke_us(), self.settings.max_age)
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        while let Some(accepted) = self.stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) => {
                    warn!(%error, "TCP connection not accepted");
                    sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        if !self.settings.allows(peer.ip()) {
            return count(&self.sheet.dropped_not_allowed);
        }
        let Some(seat) = self.admission.seat(peer.ip()) else {
            debug!(%peer, "TCP connection refused: too many");
            return count(&self.sheet.tcp_refused);
        };
        count(&self.sheet.tcp_accepted);
        self.serve(stream, peer, seat, None);
    }

    fn serve(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, seat: Seat, first: Option<Vec<u8>>) {
        let Ok(connection) = Connection::new(stream, peer, self.stop.child_token()) else { return };
        if let Some(reply) = first {
            self.count_reply(&connection.write(&reply));
        }
        let tcp = Arc::clone(self);
        let task = async move {
            connection.run(tcp).await;
            drop(seat);
        };
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// Sends a reply on the connection of its request, or on a new one to the source at the sent-by port.
    pub(super) fn reply(self: &Arc<Self>, connection: &Connection, reply: &[u8], sent_by_port: u16) {
        let written = connection.write(reply);
        if written == Written::Gone && !self.stop.is_cancelled() {
            return self.dial(connection, reply.to_vec(), sent_by_port);
        }
        self.count_reply(&written);
    }

    fn count_reply(&self, written: &Written) {
        match written {
            Written::Taken => count(&self.sheet.replies_sent),
            Written::Gone => count(&self.sheet.replies_failed),
            Written::TooSlow => {
                count(&self.sheet.replies_failed);
                count(&self.sheet.tcp_slow_reader);
            }
        }
    }

    fn dial(self: &Arc<Self>, from: &Connection, reply: Vec<u8>, port: u16) {
        let mut to = from.peer;
        to.set_port(port);
        let permit = Arc::clone(&self.dials).try_acquire_owned();
        let (Ok(permit), Some(seat)) = (permit, self.admission.seat(to.ip())) else {
            return count(&self.sheet.replies_failed);
        };
        let mut source = from.local;
        source.set_port(0);
        let tcp = Arc::clone(self);
        let task = async move {
            let _permit = permit;
            match timeout(DIAL, connect(source, to)).await {
                Ok(Ok(stream)) => {
                    count(&tcp.sheet.tcp_dialled);
                    tcp.serve(stream, to, seat, Some(reply));
                }
                failed => {
                    debug!(%to, ?failed, "no connection for a reply");
                    count(&tcp.sheet.replies_failed);
                }
            }
        };
        self.tasks.spawn_on(task, &self.runtime);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Stops accepting and tells every connection to end.
    pub(super) fn cancel(&self) {
        self.stop.cancel();
    }

    /// Stops and waits for every connection's end, which takes little more than a second at worst.
    pub(super) async fn stop(&self) {
        self.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(super) fn add_to(&self, totals: &mut TransportCounts) {
        self.sheet.add_to(totals);
        totals.tcp_open += self.admission.taken() as u64;
    }
}

async fn connect(source: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(source)?;
    socket.connect(to).await
}
