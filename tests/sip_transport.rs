//! The SIP transports on real loopback sockets: who is heard, on which thread, and where replies go.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use aorta::clock::Clock;
use aorta::sip::message::{Framing, Message, ParseError, Reply, Unfolded, ViaTarget};
use aorta::sip::transport::{Bound, Flow, ReplyPath, Service, Settings, Transport, TransportCounts, Transports};
use aorta_proto::BootId;
use parking_lot::Mutex;

/// Nothing on loopback takes so long.
const DEADLINE: Duration = Duration::from_secs(20);

const RPORT: ViaTarget = ViaTarget { rport: true, port: None, maddr: None };

#[derive(Debug)]
enum Event {
    Message { bytes: Vec<u8>, flow: Flow, thread: ThreadId, reply: ReplyPath },
    Slept(u64),
}

type Act = Box<dyn Fn(&[u8], &ReplyPath) + Send + Sync>;

/// Tells the test what it hears, after having acted on it.
struct Ear {
    events: Mutex<mpsc::Sender<Event>>,
    act: Act,
}

impl Service for Ear {
    fn handle(&self, message: &[u8], flow: &Flow, reply: ReplyPath) {
        (self.act)(message, &reply);
        let event = Event::Message { bytes: message.to_vec(), flow: *flow, thread: thread::current().id(), reply };
        // The test may be over.
        let _gone = self.events.lock().send(event);
    }

    fn slept(&self, gap_us: u64) {
        let _gone = self.events.lock().send(Event::Slept(gap_us));
    }
}

struct Rig {
    runtime: tokio::runtime::Runtime,
    transports: Transports,
    events: mpsc::Receiver<Event>,
    time_us: Arc<AtomicU64>,
}

impl Rig {
    fn new(listen: &[(Transport, &str)], change: impl FnOnce(&mut Settings), act: Act) -> Self {
        let listen = listen.iter().map(|(transport, addr)| (*transport, addr.parse().expect("an address"))).collect();
        let mut settings = Settings { listen, udp_threads: 2, max_age: DEADLINE, ..Settings::default() };
        change(&mut settings);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("one");
        let time_us = Arc::new(AtomicU64::new(1_000_000));
        let clock = Arc::new(Clock::manual(Arc::clone(&time_us), BootId(1)));
        let (sender, events) = mpsc::channel();
        let ear = Arc::new(Ear { events: Mutex::new(sender), act });
        let bound = Bound::bind(settings).expect("free ports");
        let transports = bound.start(ear, clock, runtime.handle()).expect("threads");
        Self { runtime, transports, events, time_us }
    }

    /// Echoes each message back, by rport.
    fn echo(transport: Transport, change: impl FnOnce(&mut Settings)) -> Self {
        Self::new(&[(transport, "127.0.0.1:0")], change, Box::new(|bytes, reply| reply.send(bytes, &RPORT)))
    }

    fn addr(&self) -> SocketAddr {
        self.transports.addresses()[0].1
    }

    fn event(&self) -> Event {
        self.events.recv_timeout(DEADLINE).expect("something is heard")
    }

    fn message(&self) -> (Vec<u8>, Flow, ThreadId, ReplyPath) {
        match self.event() {
            Event::Message { bytes, flow, thread, reply } => (bytes, flow, thread, reply),
            slept => panic!("{slept:?}"),
        }
    }

    fn until(&self, what: &str, holds: impl Fn(&TransportCounts) -> bool) {
        let begun = Instant::now();
        while !holds(&self.transports.counts()) {
            assert!(begun.elapsed() < DEADLINE, "{what}: {:?}", self.transports.counts());
            thread::yield_now();
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr()).expect("accepted");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream
    }
}

fn phone(addr: &str) -> UdpSocket {
    let socket = UdpSocket::bind(addr).expect("a port");
    socket.set_read_timeout(Some(DEADLINE)).expect("set");
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 65_536];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram in time");
    (buffer[..len].to_vec(), from)
}

fn sip(body: &str) -> Vec<u8> {
    format!("OPTIONS sip:a SIP/2.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn read_exactly(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).expect("bytes in time");
    bytes
}

/// Reads to the other side's close, a reset included.
fn read_to_close(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    bytes
}

#[test]
fn one_source_address_is_spread_over_all_threads() {
    const THREADS: usize = 4;
    // Nobody gets past the barrier before four threads hold a datagram each.
    let barrier = Barrier::new(THREADS);
    let act: Act = Box::new(move |_, _| {
        barrier.wait();
    });
    let rig = Rig::new(&[(Transport::Udp, "127.0.0.1:0")], |settings| settings.udp_threads = THREADS, act);
    let sbc = phone("127.0.0.1:0");
    for round in 0..10u8 {
        let mut threads = HashSet::new();
        for _ in 0..THREADS {
            sbc.send_to(&[b'x', round], rig.addr()).expect("sent");
        }
        for _ in 0..THREADS {
            let (_, flow, thread, _) = rig.message();
            assert_eq!(flow.peer, sbc.local_addr().expect("bound"));
            threads.insert(thread);
        }
        assert_eq!(threads.len(), THREADS);
    }
}

#[test]
fn replies_leave_from_the_address_that_was_asked() {
    let act: Act = Box::new(|bytes, reply| reply.send(bytes, &RPORT));
    let rig = Rig::new(&[(Transport::Udp, "0.0.0.0:0")], |_| {}, act);
    for asked in ["127.0.0.1", "127.0.0.2", "127.3.4.5"] {
        let asked = SocketAddr::new(asked.parse().expect("an address"), rig.addr().port());
        let phone = phone("127.0.0.1:0");
        phone.send_to(b"hello", asked).expect("sent");
        assert_eq!(receive(&phone), (b"hello".to_vec(), asked));
        assert_eq!(rig.message().1.local, asked);
    }
}

#[test]
fn ipv6_is_served_beside_ipv4_on_one_port() {
    let act: Act = Box::new(|bytes, reply| reply.send(bytes, &RPORT));
    let first = Rig::new(&[(Transport::Udp, "[::]:0")], |_| {}, act);
    let port = first.addr().port();
    // That [::] left the port free for IPv4 is the point; were it taken by chance, this would say so.
    let act: Act = Box::new(|bytes, reply| reply.send(bytes, &RPORT));
    let second = Rig::new(&[(Transport::Udp, &format!("0.0.0.0:{port}"))], |_| {}, act);
    let (six, four) = (phone("[::1]:0"), phone("127.0.0.1:0"));
    six.send_to(b"six", (IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1u16]), port)).expect("sent");
    four.send_to(b"four", (IpAddr::from([127, 0, 0, 1]), port)).expect("sent");
    assert_eq!(receive(&six), (b"six".to_vec(), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))));
    assert_eq!(receive(&four), (b"four".to_vec(), SocketAddr::from(([127, 0, 0, 1], port))));
    assert!(first.message().1.local.is_ipv6());
    assert!(second.message().1.local.is_ipv4());
}

#[test]
fn without_rport_replies_go_to_the_sent_by_port() {
    let listener = phone("127.0.0.1:0");
    let via = ViaTarget { rport: false, port: Some(listener.local_addr().expect("bound").port()), maddr: None };
    let act: Act = Box::new(move |bytes, reply| reply.send(bytes, &via));
    let rig = Rig::new(&[(Transport::Udp, "127.0.0.1:0")], |_| {}, act);
    let sender = phone("127.0.0.1:0");
    sender.send_to(b"hello", rig.addr()).expect("sent");
    assert_eq!(receive(&listener), (b"hello".to_vec(), rig.addr()));
    assert_eq!(rig.transports.counts().replies_sent, 1);
}

#[test]
fn a_reply_can_wait_and_leave_from_another_thread() {
    let rig = Rig::new(&[(Transport::Udp, "127.0.0.1:0")], |_| {}, Box::new(|_, _| {}));
    let phone = phone("127.0.0.1:0");
    phone.send_to(b"hello", rig.addr()).expect("sent");
    let (bytes, _, _, reply) = rig.message();
    thread::spawn(move || reply.send(&bytes, &RPORT)).join().expect("sent");
    assert_eq!(receive(&phone), (b"hello".to_vec(), rig.addr()));
}

#[test]
fn strangers_and_keep_alives_are_dropped_in_silence() {
    let only_two = |settings: &mut Settings| settings.allow = vec!["127.0.0.2/32".parse().expect("a network")];
    let rig = Rig::echo(Transport::Udp, only_two);
    let (stranger, friend) = (phone("127.0.0.1:0"), phone("127.0.0.2:0"));
    stranger.send_to(b"hello", rig.addr()).expect("sent");
    for empty in [&b"\r\n\r\n"[..], b"\0\0\0\0", b""] {
        friend.send_to(empty, rig.addr()).expect("sent");
    }
    friend.send_to(b"friend", rig.addr()).expect("sent");
    assert_eq!(rig.message().0, b"friend");
    rig.until("all are counted", |counts| {
        (counts.dropped_not_allowed, counts.dropped_empty, counts.udp_messages) == (1, 3, 1)
    });
    assert_eq!(rig.transports.counts().replies_sent, 1);
}

#[test]
fn datagrams_that_waited_too_long_are_dropped() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let act: Act = Box::new(move |bytes, _| {
        if bytes == b"block" {
            released.lock().recv_timeout(DEADLINE).expect("released");
        }
    });
    let brief = |settings: &mut Settings| (settings.udp_threads, settings.max_age) = (1, Duration::from_millis(100));
    let rig = Rig::new(&[(Transport::Udp, "127.0.0.1:0")], brief, act);
    let phone = phone("127.0.0.1:0");
    for bytes in [&b"block"[..], b"waited 1", b"waited 2"] {
        phone.send_to(bytes, rig.addr()).expect("sent");
    }
    assert!(rig.events.recv_timeout(Duration::from_millis(150)).is_err(), "the only reader is held");
    release.send(()).expect("held");
    assert_eq!(rig.message().0, b"block");
    rig.until("both are dropped", |counts| counts.dropped_aged == 2);
    phone.send_to(b"fresh", rig.addr()).expect("sent");
    let (bytes, flow, ..) = rig.message();
    assert_eq!(bytes, b"fresh");
    assert!(flow.received_age_us < 100_000);
}

#[test]
fn a_sleep_is_told_before_the_next_message_is_handled() {
    let rig = Rig::new(&[(Transport::Udp, "127.0.0.1:0")], |settings| settings.udp_threads = 1, Box::new(|_, _| {}));
    let phone = phone("127.0.0.1:0");
    phone.send_to(b"awake", rig.addr()).expect("sent");
    assert_eq!(rig.message().0, b"awake");
    rig.time_us.fetch_add(149_000, Ordering::AcqRel);
    phone.send_to(b"busy", rig.addr()).expect("sent");
    assert_eq!(rig.message().0, b"busy", "a gap below half the ack timeout is no sleep");
    rig.time_us.fetch_add(20_000_000, Ordering::AcqRel);
    phone.send_to(b"woken", rig.addr()).expect("sent");
    match rig.event() {
        Event::Slept(gap_us) => assert!((20_000_000..20_149_001).contains(&gap_us), "{gap_us}"),
        message => panic!("{message:?}"),
    }
    assert_eq!(rig.message().0, b"woken");
    assert_eq!(rig.transports.counts().sleeps, 1);
}

#[test]
fn a_panic_costs_one_message_and_no_reader() {
    let act: Act = Box::new(|bytes, _| assert_ne!(bytes, b"bad"));
    let rig = Rig::new(&[(Transport::Udp, "127.0.0.1:0")], |settings| settings.udp_threads = 1, act);
    let phone = phone("127.0.0.1:0");
    phone.send_to(b"bad", rig.addr()).expect("sent");
    phone.send_to(b"good", rig.addr()).expect("sent");
    assert_eq!(rig.message().0, b"good");
    assert_eq!(rig.transports.counts().dropped_panicked, 1);
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("bound");
    let settings = Settings { listen: vec![(Transport::Tcp, addr)], ..Settings::default() };
    let error = Bound::bind(settings).expect_err("taken").to_string();
    assert!(error.contains(&format!("tcp:{addr}")) && error.contains("in use"), "{error}");
}

#[test]
fn tcp_gives_whole_messages_however_the_stream_is_cut() {
    let rig = Rig::echo(Transport::Tcp, |_| {});
    let mut stream = rig.connect();
    stream.set_nodelay(true).expect("set");
    let all = [sip(""), sip("one"), b"\r\n".to_vec(), sip("two")].concat();
    stream.write_all(&all).expect("sent");
    for wanted in ["", "one", "two"] {
        assert_eq!(rig.message().0, sip(wanted), "pipelined");
    }
    let message = sip("cut");
    for cut in 1..message.len() {
        stream.write_all(&message[..cut]).expect("sent");
        thread::yield_now();
        stream.write_all(&message[cut..]).expect("sent");
        assert_eq!(rig.message().0, message);
    }
    let echoed = [sip(""), sip("one"), sip("two")].concat();
    assert_eq!(read_exactly(&mut stream, echoed.len()), echoed);
}

#[test]
fn tcp_answers_a_ping() {
    let rig = Rig::echo(Transport::Tcp, |_| {});
    let mut stream = rig.connect();
    stream.write_all(b"\r\n\r\n").expect("sent");
    assert_eq!(read_exactly(&mut stream, 2), b"\r\n");
}

/// Answers what cannot be parsed, as the node does.
fn refuse(bytes: &[u8], path: &ReplyPath) {
    let text = Unfolded::new(bytes);
    if let Err(ParseError { fault, request: Some(request) }) = Message::parse(&text, Framing::Stream) {
        let peer = SocketAddr::from(([127, 0, 0, 1], 5060));
        path.send(&Reply::to(&request, peer, fault.status, fault.reason, "tag").finish(), &request.via.target());
    }
}

#[test]
fn tcp_answers_and_ends_what_cannot_be_framed() {
    let small = |settings: &mut Settings| settings.max_message_bytes = 4096;
    let rig = Rig::new(&[(Transport::Tcp, "127.0.0.1:0")], small, Box::new(refuse));
    let head = "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
        To: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n";
    for wrong in
        ["", "l: -3\r\n", "l: 3x\r\n", "l: 1\r\nContent-Length: 2\r\n", "l: 99999999999999999999\r\n", "l: 5000\r\n"]
    {
        let mut stream = rig.connect();
        write!(stream, "{head}{wrong}\r\nwhatever follows").expect("sent");
        let answer = String::from_utf8(read_to_close(&mut stream)).expect("text");
        assert!(answer.starts_with("SIP/2.0 4") && answer.ends_with("\r\n\r\n"), "{wrong:?}: {answer:?}");
    }
    for endless in [vec![b'x'; 8192], [head.as_bytes(), &[b'x'; 8192]].concat()] {
        let mut stream = rig.connect();
        stream.write_all(&endless).expect("sent");
        assert_eq!(read_to_close(&mut stream), b"");
    }
    rig.until("all are counted", |counts| counts.tcp_unframed == 8 && counts.tcp_open == 0);
}

#[test]
fn tcp_ends_the_idle_and_the_never_ending() {
    let brief = |settings: &mut Settings| settings.tcp.partial = Duration::from_millis(50);
    let rig = Rig::echo(Transport::Tcp, brief);
    let (mut slow, mut idle) = (rig.connect(), rig.connect());
    slow.write_all(b"OPTIONS sip:a SI").expect("sent");
    assert_eq!(read_to_close(&mut slow), b"");
    idle.write_all(&sip("still here")).expect("sent");
    assert_eq!(rig.message().0, sip("still here"), "an idle connection is not a partial message");

    let rig = Rig::echo(Transport::Tcp, |settings| settings.tcp.idle = Duration::from_millis(50));
    assert_eq!(read_to_close(&mut rig.connect()), b"");
    rig.until("it is counted", |counts| counts.tcp_timed_out == 1 && counts.tcp_open == 0);
}

#[test]
fn tcp_lets_in_only_whom_it_may_and_no_more_than_it_can() {
    let rig = Rig::echo(Transport::Tcp, |settings| settings.tcp.connections_per_source_max = 2);
    let (_first, second) = (rig.connect(), rig.connect());
    assert_eq!(read_to_close(&mut rig.connect()), b"");
    rig.until("it is counted", |counts| (counts.tcp_refused, counts.tcp_open) == (1, 2));
    drop(second);
    rig.until("a seat is free", |counts| counts.tcp_open == 1);
    let mut third = rig.connect();
    third.write_all(&sip("in")).expect("sent");
    assert_eq!(rig.message().0, sip("in"));

    let strangers = Rig::echo(Transport::Tcp, |settings| settings.allow = Vec::new());
    assert_eq!(read_to_close(&mut strangers.connect()), b"");
    strangers.until("it is counted", |counts| (counts.dropped_not_allowed, counts.tcp_accepted) == (1, 0));
}

#[test]
fn tcp_ends_a_peer_that_does_not_read_its_replies() {
    let reply = vec![b'r'; 60_000];
    let act: Act = Box::new(move |_, path| path.send(&reply, &RPORT));
    let rig = Rig::new(&[(Transport::Tcp, "127.0.0.1:0")], |_| {}, act);
    let mut stream = rig.connect();
    stream.set_write_timeout(Some(DEADLINE)).expect("set");
    let many = sip("").repeat(1000);
    // The connection may be closed before all is written.
    while rig.transports.counts().tcp_slow_reader == 0 && stream.write_all(&many).is_ok() {}
    rig.until("it is closed", |counts| (counts.tcp_slow_reader, counts.tcp_open) == (1, 0));
}

#[test]
fn a_tcp_reply_whose_connection_is_gone_takes_a_new_one() {
    let rig = Rig::new(&[(Transport::Tcp, "127.0.0.1:0")], |_| {}, Box::new(|_, _| {}));
    let agent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let via = ViaTarget { rport: true, port: Some(agent.local_addr().expect("bound").port()), maddr: None };
    let mut stream = rig.connect();
    stream.write_all(&sip("ask")).expect("sent");
    let (bytes, _, _, reply) = rig.message();
    drop(stream);
    rig.until("the connection is gone", |counts| counts.tcp_open == 0);
    reply.send(&bytes, &via);
    let (mut stream, from) = agent.accept().expect("dialled");
    assert_eq!(from.ip(), rig.addr().ip());
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    assert_eq!(read_exactly(&mut stream, bytes.len()), sip("ask"));
    stream.write_all(&sip("more")).expect("sent");
    assert_eq!(rig.message().0, sip("more"), "the new connection serves like any other");
    assert_eq!(rig.transports.counts().tcp_dialled, 1);
}

#[test]
fn tcp_bytes_that_may_have_waited_through_a_sleep_end_the_connection() {
    let rig = Rig::echo(Transport::Tcp, |settings| settings.max_age = Duration::from_millis(100));
    let mut stream = rig.connect();
    stream.write_all(&sip("awake")).expect("sent");
    assert_eq!(rig.message().0, sip("awake"));
    rig.time_us.fetch_add(300_000, Ordering::AcqRel);
    stream.write_all(&sip("waited")).expect("sent");
    assert!(matches!(rig.event(), Event::Slept(_)));
    assert_eq!(read_to_close(&mut stream), sip("awake"));
    assert_eq!(rig.transports.counts().tcp_aged, 1);
    // Time beyond `max_age` passes, awake.
    rig.time_us.fetch_add(140_000, Ordering::AcqRel);
    let mut later = rig.connect();
    later.write_all(&sip("later")).expect("sent");
    assert_eq!(rig.message().0, sip("later"));
}

#[test]
fn stopping_joins_the_readers_and_flushes_connections() {
    let both = [(Transport::Udp, "127.0.0.1:0"), (Transport::Tcp, "127.0.0.1:0")];
    let rig = Rig::new(&both, |_| {}, Box::new(|bytes, reply| reply.send(bytes, &RPORT)));
    let tcp = rig.transports.addresses()[1].1;
    let mut stream = TcpStream::connect(tcp).expect("accepted");
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    stream.write_all(&sip("last")).expect("sent");
    let (.., reply) = rig.message();
    let Rig { runtime, transports, events, .. } = rig;
    let reader = thread::spawn(move || read_to_close(&mut stream));
    runtime.block_on(transports.stop());
    assert_eq!(reader.join().expect("read"), sip("last"));
    drop(reply);
    let heard = events.recv_timeout(DEADLINE);
    assert!(matches!(heard, Err(mpsc::RecvTimeoutError::Disconnected)), "a holder of the service is left: {heard:?}");
    assert!(TcpStream::connect(tcp).is_err(), "nobody listens any more");
}
