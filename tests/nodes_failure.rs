//! A node dies without a word: how soon the others know, and what their phones feel of it. Real processes on loopback.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aorta::admin::ClusterView;
use aorta::cli::fleet::Fleet;
use aorta::cli::layout;

const PATIENCE: Duration = Duration::from_secs(30);
/// `ack_timeout_ms`, as it is by default.
const ACK_TIMEOUT: Duration = Duration::from_millis(300);
/// A machine that does other things as well may be late by so much.
const LATE: Duration = Duration::from_millis(300);
/// What a silent node is dropped within.
const DROPPED_WITHIN: Duration = Duration::from_secs(2);

fn three(dir: &Path) -> Fleet {
    let ports = layout::free_ports(3).expect("free ports");
    let places = layout::write(dir, &ports, "snapshot_interval_ms = 200\n").expect("configurations");
    let mut fleet = Fleet::new(Path::new(env!("CARGO_BIN_EXE_aorta")), places);
    (0..3).for_each(|index| fleet.start(index).expect("started"));
    for index in 0..3 {
        fleet.wait_ready(index, PATIENCE).expect("ready");
    }
    fleet
}

/// Waits until a node no longer counts another as there; how long that took.
fn dropped(fleet: &Fleet, index: usize, name: &str) -> Duration {
    let begun = Instant::now();
    loop {
        let view: ClusterView = fleet.nodes()[index].client().json("/v1/cluster").expect("a view");
        let peer = view.members.iter().find(|peer| peer.node == name).expect("it is remembered");
        if !peer.linked && !peer.present {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < PATIENCE, "{name} is there: {peer:?}");
        std::thread::yield_now();
    }
}

#[test]
fn a_node_that_died_idle_is_dropped_within_two_seconds_and_can_be_forgotten() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut fleet = three(dir.path());
    let name = fleet.nodes()[2].place.name.clone();
    fleet.kill(2).expect("killed");
    let killed = Instant::now();
    for index in 0..2 {
        dropped(&fleet, index, &name);
        println!("node{} dropped it {:?} after its death", index + 1, killed.elapsed());
        assert!(killed.elapsed() < DROPPED_WITHIN + LATE, "{:?}", killed.elapsed());
    }
    // A node that comes now has nobody to wait for.
    fleet.kill(1).expect("killed");
    fleet.start(1).expect("started");
    let ready = fleet.wait_ready(1, PATIENCE).expect("ready");
    println!("another node is ready {ready:?} after its start");
    assert!(ready < DROPPED_WITHIN + LATE, "{ready:?}");
    fleet.nodes()[0].client().post(&format!("/v1/forget/{name}")).expect("forgotten");
}

#[test]
fn a_joiner_does_not_wait_longer_for_one_that_dies_meanwhile() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut fleet = three(dir.path());
    fleet.kill(1).expect("killed");
    fleet.start(1).expect("started");
    fleet.kill(2).expect("killed");
    let ready = fleet.wait_ready(1, PATIENCE).expect("ready");
    println!("ready {ready:?} after another died");
    assert!(ready < DROPPED_WITHIN + LATE, "{ready:?}");
}

/// What one request took, and when it was sent.
type Answered = (Instant, Duration);

/// Registers one phone after another at a node until told to stop; every answer must be 200.
fn register(node: SocketAddr, who: usize, stop: &AtomicBool, answers: &AtomicUsize) -> Vec<Answered> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.connect(node).expect("loopback");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let me = socket.local_addr().expect("bound");
    let mut took = Vec::new();
    let mut answer = [0; 2048];
    for number in 0.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let request = format!(
            "REGISTER sip:localhost SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK{who}x{number}\r\n\
             From: <sip:p{who}x{number}@localhost>;tag=1\r\nTo: <sip:p{who}x{number}@localhost>\r\n\
             Call-ID: {who}x{number}@{me}\r\nCSeq: 1 REGISTER\r\nContact: <sip:p@{me}>\r\nExpires: 600\r\n\
             Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        );
        let sent = Instant::now();
        socket.send(request.as_bytes()).expect("sent");
        let bytes = socket.recv(&mut answer).expect("an answer");
        took.push((sent, sent.elapsed()));
        let head = String::from_utf8_lossy(&answer[..bytes.min(60)]).into_owned();
        assert!(head.starts_with("SIP/2.0 200"), "{head}");
        answers.fetch_add(1, Ordering::AcqRel);
    }
    took
}

fn wait_for(what: &str, met: impl Fn() -> bool) {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::yield_now();
    }
}

fn quantile(mut took: Vec<Duration>, p: f64) -> Duration {
    took.sort_unstable();
    let last = took.len().saturating_sub(1);
    took.get((last as f64 * p) as usize).copied().unwrap_or_default()
}

#[test]
fn under_load_one_ack_timeout_is_all_that_a_death_costs() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut fleet = three(dir.path());
    let (stop, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let node = fleet.nodes()[0].place.sip;
    let (took, killed) = std::thread::scope(|scope| {
        let phones: Vec<_> = (0..4)
            .map(|who| {
                scope.spawn({
                    let (stop, answers) = (&stop, &answers);
                    move || register(node, who, stop, answers)
                })
            })
            .collect();
        wait_for("2000 answers", || answers.load(Ordering::Acquire) > 2000);
        fleet.kill(2).expect("killed");
        let killed = Instant::now();
        // Beyond the moment in which its link ends as well.
        wait_for("its end is history", || killed.elapsed() > 2 * DROPPED_WITHIN);
        stop.store(true, Ordering::Release);
        let took: Vec<Answered> =
            phones.into_iter().flat_map(|phone| phone.join().expect("all were answered")).collect();
        (took, killed)
    });
    let of = |from: Instant, until: Instant| {
        let sent = took.iter().filter(move |(sent, _)| *sent >= from && *sent < until);
        sent.map(|(_, took)| *took).collect::<Vec<_>>()
    };
    let begun = took.iter().map(|(sent, _)| *sent).min().expect("some");
    let end = killed + 10 * PATIENCE;
    let suspected = killed + ACK_TIMEOUT + LATE;
    let before = of(begun, killed);
    let (during, after) = (of(killed - LATE, suspected), of(suspected, end));
    let longest = during.iter().max().copied().unwrap_or_default();
    println!(
        "before: {} answers, p99 {:?}; the longest while it died {longest:?}; after: {} answers, p99 {:?}, longest {:?}",
        before.len(),
        quantile(before.clone(), 0.99),
        after.len(),
        quantile(after.clone(), 0.99),
        quantile(after.clone(), 1.0)
    );
    assert!(longest < ACK_TIMEOUT + LATE, "{longest:?}");
    assert!(quantile(after.clone(), 0.99) < ACK_TIMEOUT / 3, "{:?}", quantile(after, 0.99));
}
