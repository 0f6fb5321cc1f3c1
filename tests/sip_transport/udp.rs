//! UDP: which thread hears, who is heard, where replies go and come from, and what a sleep does.

use std::collections::HashSet;
use std::hint;
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use aorta::sip::message::ViaTarget;
use aorta::sip::transport::{Settings, Transport};
use parking_lot::Mutex;

use crate::rig::{Act, DEADLINE, Event, Foresee, RPORT, Rig, TOGETHER, phone, receive};

#[test]
fn one_source_address_is_spread_over_all_threads() {
    const THREADS: usize = 4;
    // Each thread is held with its first datagram, until all are.
    let all_held = Barrier::new(THREADS);
    let (held, holds) = mpsc::channel();
    let held = Mutex::new(held);
    let act: Act = Box::new(move |_, _| {
        // The test may be over.
        let _gone = held.lock().send(thread::current().id());
        all_held.wait();
    });
    let rig = Rig::new(&[(Transport::Udp, "127.0.0.1:0")], |settings| settings.udp_threads = THREADS, act);
    let sbc = phone("127.0.0.1:0");
    for round in 0..10u8 {
        let mut threads = HashSet::new();
        for _ in 0..THREADS {
            // What comes while some readers are held is heard by another.
            sbc.send_to(&[b'x', round], rig.addr()).expect("sent");
            threads.insert(holds.recv_timeout(DEADLINE).expect("a reader is free"));
        }
        for _ in 0..THREADS {
            let (_, flow, _, _) = rig.message();
            assert_eq!(flow.peer, sbc.local_addr().expect("bound"));
        }
        assert_eq!(threads.len(), THREADS);
    }
}

#[test]
fn the_first_reader_needs_no_thread_of_its_own() {
    let (name, names) = mpsc::channel();
    let name = Mutex::new(name);
    let act: Act = Box::new(move |_, _| {
        // The test may be over.
        let _gone = name.lock().send(thread::current().name().map(str::to_owned));
    });
    let rig = Rig::new(&[(Transport::Udp, "127.0.0.1:0")], |settings| settings.udp_threads = 1, act);
    let phone = phone("127.0.0.1:0");
    for _ in 0..10 {
        phone.send_to(b"hello", rig.addr()).expect("sent");
        let name = names.recv_timeout(DEADLINE).expect("heard").expect("a name");
        assert!(name.starts_with("tokio-"), "{name}");
    }
}

#[test]
fn who_reads_stops_under_more_load_than_is_read() {
    let slow: Act = Box::new(|_, _| {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(200) {
            hint::spin_loop();
        }
    });
    let Rig { runtime, transports, events, .. } = Rig::new(&[(Transport::Udp, "127.0.0.1:0")], |_| {}, slow);
    let (phone, addr, flooding) = (phone("127.0.0.1:0"), transports.addresses()[0].1, AtomicBool::new(true));
    thread::scope(|scope| {
        scope.spawn(|| {
            while flooding.load(Ordering::Acquire) {
                // A full buffer is what is wanted.
                let _full = phone.send_to(b"more", addr);
            }
        });
        for _ in 0..1000 {
            events.recv_timeout(DEADLINE).expect("it is read");
        }
        let stopped = runtime.block_on(async { tokio::time::timeout(DEADLINE, transports.stop()).await });
        flooding.store(false, Ordering::Release);
        stopped.expect("it stops");
    });
}

#[test]
fn a_burst_is_answered_to_the_last() {
    const BURST: usize = 200;
    let rig = Rig::echo(Transport::Udp, |settings| settings.udp_threads = 1);
    let (one, two) = (phone("127.0.0.1:0"), phone("127.0.0.2:0"));
    for number in 0..BURST {
        let text = number.to_string();
        one.send_to(text.as_bytes(), rig.addr()).expect("sent");
        two.send_to(text.as_bytes(), rig.addr()).expect("sent");
    }
    for phone in [&one, &two] {
        for number in 0..BURST {
            assert_eq!(receive(phone), (number.to_string().into_bytes(), rig.addr()));
        }
    }
    rig.until("all are counted", |counts| counts.replies_sent == 2 * BURST as u64);
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
    rig.until("it is counted", |counts| counts.replies_sent == 1);
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
fn what_waits_is_foreseen_in_small_numbers_and_handled_whatever_comes_of_it() {
    let (seen, (go, waits)) = (Arc::new(Mutex::new(Vec::new())), mpsc::channel());
    let waits = Mutex::new(waits);
    let foresee: Foresee = Box::new({
        let seen = Arc::clone(&seen);
        move |messages| {
            seen.lock().push(messages.iter().map(|message| message.to_vec()).collect::<Vec<_>>());
            assert!(!messages.contains(&&b"bad"[..]));
        }
    });
    let act: Act = Box::new(move |bytes, _| {
        if bytes == b"first" {
            waits.lock().recv_timeout(DEADLINE).expect("all were sent");
        }
    });
    let listen = [(Transport::Udp, "127.0.0.1:0")];
    let rig = Rig::foreseeing(&listen, |settings| settings.udp_threads = 1, (foresee, act));
    let phone = phone("127.0.0.1:0");
    let names: Vec<Vec<u8>> = (0..40).map(|n| if n == 20 { b"bad".to_vec() } else { format!("{n}").into() }).collect();
    for bytes in iter::once(&b"first".to_vec()).chain(&names) {
        phone.send_to(bytes, rig.addr()).expect("sent");
    }
    go.send(()).expect("it waits");
    assert_eq!(rig.message().0, b"first");
    let handled: Vec<Vec<u8>> = names.iter().map(|_| rig.message().0).collect();
    assert_eq!(handled, names);
    let seen = seen.lock();
    assert!(seen.iter().all(|together| (2..=TOGETHER).contains(&together.len())), "{seen:?}");
    assert!(seen.iter().flatten().any(|bytes| bytes == b"bad"), "{seen:?}");
    assert!(seen.iter().flatten().is_sorted_by_key(|bytes| names.iter().position(|name| name == bytes)), "{seen:?}");
    assert_eq!(rig.transports.counts().dropped_panicked, 0, "of the message itself nothing panicked");
}
