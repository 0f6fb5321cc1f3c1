//! A transport on loopback with a service that tells the test what it hears. Judges nothing.

use std::io::Read;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use aorta::clock::Clock;
use aorta::sip::message::ViaTarget;
use aorta::sip::transport::{Batch, Bound, Flow, ReplyPath, Service, Settings, Transport, TransportCounts, Transports};
use aorta_proto::BootId;
use parking_lot::Mutex;

/// Nothing on loopback takes so long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const RPORT: ViaTarget = ViaTarget { rport: true, port: None, maddr: None };

#[derive(Debug)]
pub(crate) enum Event {
    Message { bytes: Vec<u8>, flow: Flow, thread: ThreadId, reply: ReplyPath },
    Slept(u64),
}

pub(crate) type Act = Box<dyn Fn(&[u8], &ReplyPath) + Send + Sync>;

pub(crate) type Foresee = Box<dyn Fn(&[&[u8]]) + Send + Sync>;

/// Messages that it foresees together.
pub(crate) const TOGETHER: usize = 16;

/// Tells the test what it hears, after having acted on it.
pub(crate) struct Ear {
    events: Mutex<mpsc::Sender<Event>>,
    foresee: Foresee,
    act: Act,
}

impl Service for Ear {
    fn handle(&self, batch: Batch<'_>) {
        batch.for_each((TOGETHER, &self.foresee), |message, flow, reply| {
            (self.act)(message, &reply);
            let event = Event::Message { bytes: message.to_vec(), flow: *flow, thread: thread::current().id(), reply };
            // The test may be over.
            let _gone = self.events.lock().send(event);
        });
    }

    fn slept(&self, gap_us: u64) {
        let _gone = self.events.lock().send(Event::Slept(gap_us));
    }
}

pub(crate) struct Rig {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) transports: Transports,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) time_us: Arc<AtomicU64>,
}

impl Rig {
    pub(crate) fn new(listen: &[(Transport, &str)], change: impl FnOnce(&mut Settings), act: Act) -> Self {
        Self::foreseeing(listen, change, (Box::new(|_| ()), act))
    }

    pub(crate) fn foreseeing(
        listen: &[(Transport, &str)],
        change: impl FnOnce(&mut Settings),
        (foresee, act): (Foresee, Act),
    ) -> Self {
        let listen = listen.iter().map(|(transport, addr)| (*transport, addr.parse().expect("an address"))).collect();
        let mut settings = Settings { listen, udp_threads: 2, max_age: DEADLINE, ..Settings::default() };
        change(&mut settings);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("one");
        let time_us = Arc::new(AtomicU64::new(1_000_000));
        let clock = Arc::new(Clock::manual(Arc::clone(&time_us), BootId(1)));
        let (sender, events) = mpsc::channel();
        let ear = Arc::new(Ear { events: Mutex::new(sender), foresee, act });
        let bound = Bound::bind(settings).expect("free ports");
        let transports = bound.start(ear, clock, runtime.handle(), runtime.handle()).expect("threads");
        Self { runtime, transports, events, time_us }
    }

    /// Echoes each message back, by rport.
    pub(crate) fn echo(transport: Transport, change: impl FnOnce(&mut Settings)) -> Self {
        Self::new(&[(transport, "127.0.0.1:0")], change, Box::new(|bytes, reply| reply.send(bytes, &RPORT)))
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.transports.addresses()[0].1
    }

    pub(crate) fn event(&self) -> Event {
        self.events.recv_timeout(DEADLINE).expect("something is heard")
    }

    pub(crate) fn message(&self) -> (Vec<u8>, Flow, ThreadId, ReplyPath) {
        match self.event() {
            Event::Message { bytes, flow, thread, reply } => (bytes, flow, thread, reply),
            slept => panic!("{slept:?}"),
        }
    }

    pub(crate) fn until(&self, what: &str, holds: impl Fn(&TransportCounts) -> bool) {
        let begun = Instant::now();
        while !holds(&self.transports.counts()) {
            assert!(begun.elapsed() < DEADLINE, "{what}: {:?}", self.transports.counts());
            thread::yield_now();
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr()).expect("accepted");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream
    }
}

pub(crate) fn phone(addr: &str) -> UdpSocket {
    let socket = UdpSocket::bind(addr).expect("a port");
    socket.set_read_timeout(Some(DEADLINE)).expect("set");
    socket
}

pub(crate) fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 65_536];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram in time");
    (buffer[..len].to_vec(), from)
}

pub(crate) fn sip(body: &str) -> Vec<u8> {
    format!("OPTIONS sip:a SIP/2.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

pub(crate) fn read_exactly(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).expect("bytes in time");
    bytes
}

/// Reads to the other side's close, a reset included.
pub(crate) fn read_to_close(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    bytes
}
