//! TCP: whole messages out of any stream, every bound, and the connection a reply takes.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use aorta::sip::message::{Framing, Message, ParseError, Reply, Unfolded, ViaTarget};
use aorta::sip::transport::{Bound, ReplyPath, Settings, Transport};

use crate::rig::{Act, DEADLINE, Event, RPORT, Rig, read_exactly, read_to_close, sip};

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

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("bound");
    let settings = Settings { listen: vec![(Transport::Tcp, addr)], ..Settings::default() };
    let error = Bound::bind(settings).expect_err("taken").to_string();
    assert!(error.contains(&format!("tcp:{addr}")) && error.contains("in use"), "{error}");
}
