//! SIP transports: UDP and TCP sockets, who may talk on them, and the way back for a reply (RFC 3261 §18, RFC 3581).
//!
//! Every complete message is given to the [`Service`] on the thread that read it, with its [`Flow`] and a [`ReplyPath`]
//! that can be used then or later, from any thread. What one system call read is given as one [`Batch`], and [`Replies`]
//! leave together: under load a message so costs a fraction of a call, alone it waits for no other. Nothing here
//! understands a message beyond where it ends.
//!
//! Messages from outside [`Settings::allow`] are dropped in silence. So is a datagram that waited in its socket longer
//! than [`Settings::max_age`]: answered now, a REGISTER from before this process slept would beat what happened meanwhile.
//! A `maddr` in a Via is followed only into those networks: an allowed peer must not aim replies at anybody else.

mod admission;
mod batch;
mod connection;
mod counts;
mod meter;
mod reader;
mod replies;
mod settings;
mod tcp;
mod tick;
mod udp;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tracing::error;

pub use self::batch::Batch;
use self::connection::Connection;
use self::counts::Sheet;
pub use self::counts::TransportCounts;
pub use self::meter::TransportMeter;
use self::reader::{Brought, Desk, Reader};
pub use self::replies::Replies;
pub use self::settings::{Settings, TcpSettings};
use self::tcp::Tcp;
use self::tick::Tick;
use self::udp::UdpPort;
use super::message::ViaTarget;
use crate::clock::Clock;

/// What carries a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
}

impl Transport {
    /// As a Via names it, in upper case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }

    /// As a URI names it (RFC 3261 §19.1.1), in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who is told of messages.
pub trait Service: Send + Sync + 'static {
    /// Whole messages that were read at once, on the thread that read them: to be quick and never to wait, for nothing else
    /// is read there meanwhile, and where links run no link is served. Over TCP also the head of a message whose end cannot be
    /// told, which [`super::message::Message::parse`] refuses.
    fn handle(&self, batch: Batch<'_>);

    /// The process slept for `gap_us`: told once, before any message read since is handled.
    fn slept(&self, gap_us: u64);
}

/// Where a message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// What carried it.
    pub transport: Transport,
    /// Its source.
    pub peer: SocketAddr,
    /// The address and port of this node that it was sent to.
    pub local: SocketAddr,
    /// How long it waited to be read, microseconds; 0 for TCP.
    pub received_age_us: u64,
}

/// The port of a sent-by that names none (RFC 3261 §18.2.2), UDP and TCP.
const DEFAULT_PORT: u16 = 5060;

/// The way back for the reply to one message. Cheap to make and to keep; usable from any thread.
#[derive(Debug, Clone)]
pub struct ReplyPath(Way);

#[derive(Debug, Clone)]
enum Way {
    Udp { desk: Arc<Desk>, peer: SocketAddr, local: IpAddr },
    Tcp { connection: Arc<Connection>, tcp: Arc<Tcp> },
}

impl ReplyPath {
    /// Sends a whole reply. UDP: from the address that the request came to, to its source address, at the source port if
    /// the Via has `rport`, else at its sent-by port. TCP: on the request's connection, or if that is gone on a new one to
    /// the source address at the sent-by port. A reply that cannot be sent is counted and lost, as on any network.
    pub fn send(&self, reply: &[u8], via: &ViaTarget) {
        let mut replies = Replies::default();
        replies.push(self, reply.to_vec(), via);
        replies.send();
    }
}

/// Where a reply over UDP goes: to `maddr` if it may, else to the source address; at the source port if the Via has
/// `rport` and no `maddr` counts (RFC 3581 §4), else at the sent-by port.
fn destination(peer: SocketAddr, via: &ViaTarget, may: impl Fn(IpAddr) -> bool) -> SocketAddr {
    let sent_by_port = via.port.unwrap_or(DEFAULT_PORT);
    match via.maddr {
        Some(maddr) if maddr.is_ipv4() == peer.is_ipv4() && may(maddr) => SocketAddr::new(maddr, sent_by_port),
        _ => {
            let mut to = peer;
            if !via.rport {
                to.set_port(sent_by_port);
            }
            to
        }
    }
}

/// A listen address that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for SIP on {transport}:{addr}: {cause}")]
pub struct BindError {
    transport: Transport,
    addr: SocketAddr,
    // Not a source as well: whoever prints the whole chain would say it twice.
    cause: io::Error,
}

/// All sockets bound, none read yet.
#[derive(Debug)]
pub struct Bound {
    settings: Settings,
    ports: Vec<(Transport, Port)>,
}

#[derive(Debug)]
enum Port {
    Udp(Arc<UdpPort>),
    Tcp(std::net::TcpListener),
}

impl Bound {
    /// Binds every address of `settings.listen`, or none.
    ///
    /// # Errors
    /// The first address that could not be bound, and why.
    pub fn bind(settings: Settings) -> Result<Self, BindError> {
        let mut ports = Vec::with_capacity(settings.listen.len());
        for &(transport, addr) in &settings.listen {
            let port = match transport {
                Transport::Udp => UdpPort::bind(addr, settings.udp_buffer_bytes).map(|port| Port::Udp(Arc::new(port))),
                Transport::Tcp => tcp::listen(addr).map(Port::Tcp),
            };
            ports.push((transport, port.map_err(|cause| BindError { transport, addr, cause })?));
        }
        Ok(Self { settings, ports })
    }

    /// The addresses bound, in the order of `settings.listen`, with the ports taken for port 0.
    #[must_use]
    pub fn addresses(&self) -> Vec<(Transport, SocketAddr)> {
        let address = |port: &Port| match port {
            Port::Udp(port) => port.local(),
            Port::Tcp(listener) => listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0))),
        };
        self.ports.iter().map(|(transport, port)| (*transport, address(port))).collect()
    }

    /// Starts to read: for each UDP address a task on `sockets`, which is best a runtime of one thread, and threads that join in
    /// under load; for TCP tasks on `runtime`.
    ///
    /// # Errors
    /// The system has no thread to give, or cannot watch a socket.
    pub fn start<S: Service>(
        self,
        service: Arc<S>,
        clock: Arc<Clock>,
        sockets: &Handle,
        runtime: &Handle,
    ) -> io::Result<Transports> {
        let addresses = self.addresses();
        let settings = Arc::new(self.settings);
        let service: Arc<dyn Service> = service;
        let tick = Arc::new(Tick::new(clock.now().mono_us, settings.sleep_limit_us()));
        let (shared, told) = (Arc::clone(&settings), Arc::clone(&service));
        let tcp = Tcp::new(shared, told, Arc::clone(&clock), Arc::clone(&tick), runtime);
        let stop = Arc::new(AtomicBool::new(false));
        let (first, others) = (JoinSet::new(), Vec::new());
        let mut started = Transports { addresses, stop, desks: Vec::new(), ports: Vec::new(), first, others, tcp };
        let mut listeners = Vec::new();
        for (_, port) in self.ports {
            match port {
                Port::Udp(port) => {
                    started.ports.push(Arc::clone(&port));
                    let call = Arc::default();
                    for place in 0..settings.readers_per_port() {
                        let desk =
                            Desk { port: Arc::clone(&port), sheet: Sheet::default(), settings: Arc::clone(&settings) };
                        let reader = Reader {
                            desk: Arc::new(desk),
                            service: Arc::clone(&service),
                            clock: Arc::clone(&clock),
                            tick: Arc::clone(&tick),
                            call: Arc::clone(&call),
                            brought: Brought::default(),
                        };
                        started.read(reader, (place == 0).then_some(sockets))?;
                    }
                }
                Port::Tcp(listener) => listeners.push(listener),
            }
        }
        started.tcp.accept_from(listeners)?;
        Ok(started)
    }
}

/// The transports, running. Dropped, they stop without waiting; see [`Transports::stop`].
#[derive(Debug)]
pub struct Transports {
    addresses: Vec<(Transport, SocketAddr)>,
    stop: Arc<AtomicBool>,
    desks: Vec<Arc<Desk>>,
    ports: Vec<Arc<UdpPort>>,
    first: JoinSet<()>,
    others: Vec<JoinHandle<()>>,
    tcp: Arc<Tcp>,
}

impl Transports {
    /// The addresses bound, in the order of `settings.listen`.
    #[must_use]
    pub fn addresses(&self) -> &[(Transport, SocketAddr)] {
        &self.addresses
    }

    /// Totals since the start.
    #[must_use]
    pub fn counts(&self) -> TransportCounts {
        let mut totals = TransportCounts::default();
        for desk in &self.desks {
            desk.sheet.add_to(&mut totals);
        }
        self.tcp.add_to(&mut totals);
        totals.udp_socket_drops += self.ports.iter().map(|port| port.kernel_drops()).sum::<u64>();
        totals
    }

    /// Stops reading and accepting, ends those who read, lets connections write what is queued for at most a second
    /// and closes them. Replies over UDP can still be sent through a [`ReplyPath`] that somebody keeps.
    pub async fn stop(mut self) {
        self.stop.store(true, Ordering::Release);
        self.first.abort_all();
        while let Some(ended) = self.first.join_next().await {
            if ended.is_err_and(|error| error.is_panic()) {
                error!("the task that reads SIP ended in a panic");
            }
        }
        self.tcp.stop().await;
        let others = std::mem::take(&mut self.others);
        let joined = tokio::task::spawn_blocking(move || others.into_iter().try_for_each(JoinHandle::join));
        if !matches!(joined.await, Ok(Ok(()))) {
            error!("a SIP reading thread ended in a panic");
        }
    }

    /// Starts a reader: on `sockets`, or else on a thread of its own.
    fn read(&mut self, reader: Reader, sockets: Option<&Handle>) -> io::Result<()> {
        self.desks.push(Arc::clone(&reader.desk));
        if let Some(sockets) = sockets {
            let watched = {
                let _there = sockets.enter();
                reader.desk.port.watched()?
            };
            self.first.spawn_on(reader.read_first(watched), sockets);
        } else {
            let (name, stop) = (format!("sip-udp-{}", self.others.len()), Arc::clone(&self.stop));
            self.others.push(thread::Builder::new().name(name).spawn(move || reader.read_when_called(&stop))?);
        }
        Ok(())
    }
}

impl Drop for Transports {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.tcp.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_go_where_the_rfcs_send_them() {
        let peer: SocketAddr = "192.0.2.1:40000".parse().expect("an address");
        let ours = |maddr: IpAddr| maddr == IpAddr::from([192, 0, 2, 9]);
        let to = |rport, port, maddr: Option<&str>| {
            let maddr = maddr.map(|maddr| maddr.parse().expect("an address"));
            destination(peer, &ViaTarget { rport, port, maddr }, ours).to_string()
        };
        assert_eq!(to(true, Some(5070), None), "192.0.2.1:40000");
        assert_eq!(to(false, Some(5070), None), "192.0.2.1:5070");
        assert_eq!(to(false, None, None), "192.0.2.1:5060");
        assert_eq!(to(true, None, Some("192.0.2.9")), "192.0.2.9:5060");
        assert_eq!(to(true, Some(5070), Some("192.0.2.9")), "192.0.2.9:5070");
        assert_eq!(
            to(true, Some(5070), Some("198.51.100.7")),
            "192.0.2.1:40000",
            "a maddr beyond the networks allowed"
        );
        assert_eq!(to(false, None, Some("2001:db8::1")), "192.0.2.1:5060");
    }
}
