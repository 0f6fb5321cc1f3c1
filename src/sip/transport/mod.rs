//! SIP transports: UDP and TCP sockets, who may talk on them, and the way back for a reply (RFC 3261 §18, RFC 3581).
//!
//! Every complete message is given to the [`Service`] on the thread that read it, with its [`Flow`] and a [`ReplyPath`]
//! that can be used then or later, from any thread. Nothing here understands a message beyond where it ends.
//!
//! Messages from outside [`Settings::allow`] are dropped in silence. So is a datagram that waited in its socket longer
//! than [`Settings::max_age`]: answered now, a REGISTER from before this process slept would beat what happened meanwhile.
//! A `maddr` in a Via is ignored, though §18.2.2 would have replies sent there: it would let one allowed peer aim replies
//! at anybody.

mod admission;
mod connection;
mod counts;
mod framer;
mod tcp;
mod tick;
mod udp;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ipnet::IpNet;
use tracing::{error, trace, warn};

use self::connection::Connection;
pub use self::counts::TransportCounts;
use self::counts::{Sheet, count};
use self::tcp::Tcp;
use self::tick::{TICK_MS, Tick};
use self::udp::UdpPort;
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
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        })
    }
}

/// Who is told of messages.
pub trait Service: Send + Sync + 'static {
    /// One whole message, on the thread that read it: to be quick and never to wait, for nothing else is read meanwhile.
    fn handle(&self, message: &[u8], flow: &Flow, reply: ReplyPath);

    /// A reader noticed that the process slept for `gap_us`; told before the next message is handled by that reader.
    /// Several readers may tell of the same sleep.
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

/// What the top Via says of the way back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ViaTarget {
    /// The Via has `rport` (RFC 3581): reply to the source port.
    pub rport: bool,
    /// The port of its sent-by, if it names one.
    pub port: Option<u16>,
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
        match &self.0 {
            Way::Udp { desk, peer, local } => {
                let port = if via.rport { peer.port() } else { via.port.unwrap_or(DEFAULT_PORT) };
                let mut to = *peer;
                to.set_port(port);
                match desk.port.send(reply, to, *local) {
                    Ok(()) => count(&desk.sheet.replies_sent),
                    Err(error) => {
                        trace!(%to, %error, "reply not sent");
                        count(&desk.sheet.replies_failed);
                    }
                }
            }
            Way::Tcp { connection, tcp } => tcp.reply(connection, reply, via.port.unwrap_or(DEFAULT_PORT)),
        }
    }
}

/// How the transports are to be run. Built from the configuration by who starts them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `sip.listen`; port 0 takes any.
    pub listen: Vec<(Transport, SocketAddr)>,
    /// `sip.allow`: source networks that are served.
    pub allow: Vec<IpNet>,
    /// `sip.max_message_bytes`: of one message, headers and body.
    pub max_message_bytes: usize,
    /// `sip.max_age_ms`: datagrams that waited longer are dropped.
    pub max_age: Duration,
    /// `ack_timeout_ms`: half of it without a beat of a reader means that the process slept.
    pub ack_timeout: Duration,
    /// Reading threads for each UDP address.
    pub udp_threads: usize,
    /// TCP's own bounds.
    pub tcp: TcpSettings,
}

/// Bounds of TCP.
#[derive(Debug, Clone)]
pub struct TcpSettings {
    /// A connection on which no message was completed for so long is closed.
    pub idle: Duration,
    /// A message must be complete so long after its first byte, or the connection is closed.
    pub partial: Duration,
    /// Connections in all, accepted and dialled.
    pub connections_max: usize,
    /// Connections of one source address.
    pub connections_per_source_max: usize,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(600),
            partial: Duration::from_secs(10),
            connections_max: 16_384,
            connections_per_source_max: 1_024,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            allow: loopback(),
            max_message_bytes: 65_535,
            max_age: Duration::from_millis(500),
            ack_timeout: Duration::from_millis(300),
            udp_threads: thread::available_parallelism().map_or(1, usize::from),
            tcp: TcpSettings::default(),
        }
    }
}

impl Settings {
    fn allows(&self, peer: IpAddr) -> bool {
        self.allow.iter().any(|net| net.contains(&peer))
    }

    fn sleep_limit_us(&self) -> u64 {
        // Below two ticks an idle reader's own wait would be called a sleep.
        micros(self.ack_timeout / 2).max(2 * TICK_MS * 1000)
    }
}

/// The networks that are allowed when no other is named: 127.0.0.0/8 and ::1.
fn loopback() -> Vec<IpNet> {
    let nets = [(IpAddr::from([127, 0, 0, 0]), 8), (IpAddr::from(std::net::Ipv6Addr::LOCALHOST), 128)];
    nets.into_iter().filter_map(|(addr, bits)| IpNet::new(addr, bits).ok()).collect()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A listen address that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for SIP on {transport}:{addr}: {cause}")]
pub struct BindError {
    transport: Transport,
    addr: SocketAddr,
    #[source]
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
                Transport::Udp => UdpPort::bind(addr).map(|port| Port::Udp(Arc::new(port))),
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

    /// Starts to read: threads of their own for UDP, tasks on the given runtime for TCP.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start<S: Service>(
        self,
        service: Arc<S>,
        clock: Arc<Clock>,
        runtime: &tokio::runtime::Handle,
    ) -> io::Result<Transports> {
        let addresses = self.addresses();
        let settings = Arc::new(self.settings);
        let service: Arc<dyn Service> = service;
        let tcp = Tcp::new(Arc::clone(&settings), Arc::clone(&service), Arc::clone(&clock), runtime);
        let stop = Arc::new(AtomicBool::new(false));
        let mut started =
            Transports { addresses, stop, desks: Vec::new(), ports: Vec::new(), readers: Vec::new(), tcp };
        let mut listeners = Vec::new();
        for (_, port) in self.ports {
            match port {
                Port::Udp(port) => {
                    started.ports.push(Arc::clone(&port));
                    for _ in 0..settings.udp_threads.max(1) {
                        started.read(&port, &settings, &service, &clock)?;
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
    readers: Vec<JoinHandle<()>>,
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

    /// Stops reading and accepting, joins the reading threads, lets connections write what is queued for at most a second
    /// and closes them. Replies over UDP can still be sent through a [`ReplyPath`] that somebody keeps.
    pub async fn stop(mut self) {
        self.stop.store(true, Ordering::Release);
        self.tcp.stop().await;
        let readers = std::mem::take(&mut self.readers);
        let joined = tokio::task::spawn_blocking(move || readers.into_iter().try_for_each(JoinHandle::join));
        if !matches!(joined.await, Ok(Ok(()))) {
            error!("a SIP reading thread ended in a panic");
        }
    }

    fn read(
        &mut self,
        port: &Arc<UdpPort>,
        settings: &Arc<Settings>,
        service: &Arc<dyn Service>,
        clock: &Arc<Clock>,
    ) -> io::Result<()> {
        let desk = Arc::new(Desk { port: Arc::clone(port), sheet: Sheet::default() });
        let reader = Reader {
            desk: Arc::clone(&desk),
            settings: Arc::clone(settings),
            service: Arc::clone(service),
            clock: Arc::clone(clock),
            stop: Arc::clone(&self.stop),
        };
        let name = format!("sip-udp-{}", self.readers.len());
        self.desks.push(desk);
        self.readers.push(thread::Builder::new().name(name).spawn(move || reader.run())?);
        Ok(())
    }
}

impl Drop for Transports {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.tcp.cancel();
    }
}

/// One reader's own things: its reply paths hold them too, so that threads do not count references on one cache line.
#[derive(Debug)]
struct Desk {
    port: Arc<UdpPort>,
    sheet: Sheet,
}

/// One thread that reads a UDP socket.
struct Reader {
    desk: Arc<Desk>,
    settings: Arc<Settings>,
    service: Arc<dyn Service>,
    clock: Arc<Clock>,
    stop: Arc<AtomicBool>,
}

impl Reader {
    fn run(self) {
        let mut buffer = vec![0; udp::DATAGRAM_BYTES_MAX];
        let mut control = udp::control_space();
        let mut tick = Tick::new(self.clock.now().mono_us, self.settings.sleep_limit_us());
        while !self.stop.load(Ordering::Acquire) {
            let received = self.desk.port.receive(&mut buffer, &mut control);
            if let Some(gap_us) = tick.beat(self.clock.now().mono_us) {
                count(&self.desk.sheet.sleeps);
                self.service.slept(gap_us);
            }
            match received {
                Ok(Some(datagram)) => self.judge(&buffer[..datagram.len], &datagram),
                Ok(None) => {}
                Err(error) => {
                    // Such as ENOMEM: the socket is still there, so is the next datagram.
                    warn!(listen = %self.desk.port.local(), %error, "UDP receive failed");
                    thread::sleep(Duration::from_millis(TICK_MS));
                }
            }
        }
    }

    fn judge(&self, message: &[u8], datagram: &udp::Datagram) {
        let sheet = &self.desk.sheet;
        if !self.settings.allows(datagram.peer.ip()) {
            return count(&sheet.dropped_not_allowed);
        }
        if datagram.age_us > micros(self.settings.max_age) {
            return count(&sheet.dropped_aged);
        }
        if message.len() > self.settings.max_message_bytes {
            return count(&sheet.dropped_too_large);
        }
        if message.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return count(&sheet.dropped_empty);
        }
        count(&sheet.udp_messages);
        let flow = Flow {
            transport: Transport::Udp,
            peer: datagram.peer,
            local: datagram.local,
            received_age_us: datagram.age_us,
        };
        let way = Way::Udp { desk: Arc::clone(&self.desk), peer: datagram.peer, local: datagram.local.ip() };
        let handled = catch_unwind(AssertUnwindSafe(|| self.service.handle(message, &flow, ReplyPath(way))));
        if handled.is_err() {
            count(&sheet.dropped_panicked);
            error!(bytes = message.len(), "a message made its handling panic; it was dropped");
        }
    }
}

/// The answer to a message whose end could not be told, if its header can be answered.
fn rejection(_head: &[u8], _flow: &Flow, _status: u16, _reason: &str) -> Option<Vec<u8>> {
    None
}
