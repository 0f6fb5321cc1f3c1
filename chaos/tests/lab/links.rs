//! Numbered datagrams from the phones' home to a node's, and what the link makes of them.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aorta_chaos::lab::{End, Lab, LinkProfile, NodePlan};
use tempfile::TempDir;

use crate::lab;

/// A quiet time after which nothing more is on its way.
const QUIET: Duration = Duration::from_millis(500);

/// Bytes of IPv4 and UDP headers.
const HEADERS: u64 = 28;

const FORTH: (End, End) = (End::Phones, End::Node(0));

struct Bench {
    lab: Lab,
    here: UdpSocket,
    there: UdpSocket,
    _folder: TempDir,
}

/// A datagram that arrived.
struct Arrival {
    number: u32,
    after: Duration,
}

impl Bench {
    fn new(seed: u64) -> Option<Self> {
        let (lab, folder) = lab(seed, PathBuf::new(), "")?;
        lab.add(NodePlan::default()).expect("a node");
        let bind = |end: End| UdpSocket::bind((end.address(), 0)).expect("a socket");
        let here = lab.phones().enter(|| bind(FORTH.0)).expect("inside");
        let there = lab.enter(0, || bind(FORTH.1)).expect("inside");
        here.connect(there.local_addr().expect("bound")).expect("connected");
        there.connect(here.local_addr().expect("bound")).expect("connected");
        there.set_read_timeout(Some(QUIET)).expect("set");
        Some(Self { lab, here, there, _folder: folder })
    }

    fn set(&self, profile: &LinkProfile) {
        self.lab.network().expect("links").set(FORTH.0, FORTH.1, profile);
    }

    /// Sends so many datagrams of so many bytes; those that arrived, in their order.
    fn send(&self, count: u32, bytes: usize) -> Vec<Arrival> {
        let begun = Instant::now();
        let arrivals = std::thread::scope(|scope| {
            let receiver = scope.spawn(|| self.receive(begun));
            let mut packet = vec![0; bytes];
            for number in 0..count {
                packet[..4].copy_from_slice(&number.to_be_bytes());
                packet[4..12].copy_from_slice(&micros(begun.elapsed()).to_be_bytes());
                self.here.send(&packet).expect("sent");
            }
            receiver.join().expect("received")
        });
        let traffic = self.lab.network().expect("links").traffic(FORTH.0, FORTH.1);
        println!("{} arrived of {count}; {traffic:?}", arrivals.len());
        arrivals
    }

    fn receive(&self, begun: Instant) -> Vec<Arrival> {
        let mut packet = [0; 2000];
        let mut arrivals = Vec::new();
        while let Ok(length) = self.there.recv(&mut packet) {
            assert!(length >= 12);
            let number = u32::from_be_bytes(packet[..4].try_into().expect("four bytes"));
            let sent_us = u64::from_be_bytes(packet[4..12].try_into().expect("eight bytes"));
            arrivals.push(Arrival { number, after: begun.elapsed() - Duration::from_micros(sent_us) });
        }
        arrivals
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("short")
}

/// How many arrived after one that was sent later.
fn overtaken(arrivals: &[Arrival]) -> usize {
    let mut latest = 0;
    let is_late = |arrival: &&Arrival| {
        latest = latest.max(arrival.number);
        arrival.number < latest
    };
    arrivals.iter().filter(is_late).count()
}

#[test]
fn a_plain_link_delivers_all_once_and_in_order_and_counts_it() {
    let Some(bench) = Bench::new(1) else { return };
    let arrivals = bench.send(100, 500);
    assert!(arrivals.iter().map(|arrival| arrival.number).eq(0..100));
    let traffic = bench.lab.network().expect("links").traffic(FORTH.0, FORTH.1);
    assert_eq!((traffic.packets, traffic.bytes), (100, 100 * (500 + HEADERS)));
    assert_eq!(bench.lab.network().expect("links").traffic(FORTH.1, FORTH.0).packets, 0);
}

#[test]
fn a_cut_is_one_way_and_heals() {
    let Some(bench) = Bench::new(2) else { return };
    bench.set(&LinkProfile::CUT);
    assert_eq!(bench.send(100, 100).len(), 0);
    bench.there.send(b"back").expect("sent");
    let mut packet = [0; 10];
    bench.here.set_read_timeout(Some(crate::SOON)).expect("set");
    assert_eq!(bench.here.recv(&mut packet).expect("the other direction"), 4);
    bench.lab.network().expect("links").heal();
    assert_eq!(bench.send(100, 100).len(), 100);
    assert_eq!(bench.lab.network().expect("links").traffic(FORTH.0, FORTH.1).cut, 100);
}

#[test]
fn loss_and_duplicates_are_their_shares_and_the_seed_decides_which() {
    let numbers = |seed: u64| -> Option<Vec<u32>> {
        let bench = Bench::new(seed)?;
        bench.set(&LinkProfile { loss: 0.2, duplicate: 0.1, ..LinkProfile::PLAIN });
        let arrivals = bench.send(100, 100);
        Some(arrivals.iter().map(|arrival| arrival.number).collect())
    };
    let Some(first) = numbers(3) else { return };
    assert_eq!(numbers(3).as_ref(), Some(&first), "the same seed, another fate");
    assert_ne!(numbers(4).as_ref(), Some(&first), "another seed, the same fate");
    let mut once = first.clone();
    once.dedup();
    assert!((70..=90).contains(&once.len()), "{} of 100 arrived", once.len());
    assert!((2..=18).contains(&(first.len() - once.len())), "{} came twice", first.len() - once.len());
}

#[test]
fn a_delay_is_held_with_its_jitter() {
    let Some(bench) = Bench::new(5) else { return };
    let (delay, jitter) = (Duration::from_millis(100), Duration::from_millis(50));
    bench.set(&LinkProfile { delay, jitter, ..LinkProfile::PLAIN });
    let arrivals = bench.send(200, 100);
    assert_eq!(arrivals.len(), 200);
    let mut after: Vec<Duration> = arrivals.iter().map(|arrival| arrival.after).collect();
    after.sort_unstable();
    // Never early; late only as the processor was busy.
    assert!(after[0] >= delay - jitter, "{:?}", after[0]);
    assert!(after[100] >= Duration::from_millis(85) && after[100] < Duration::from_millis(300), "{:?}", after[100]);
    assert!(overtaken(&arrivals) > 50, "jitter lets packets overtake one another");
}

#[test]
fn some_are_overtaken() {
    let Some(bench) = Bench::new(6) else { return };
    bench.set(&LinkProfile { reorder: 0.2, ..LinkProfile::PLAIN });
    let arrivals = bench.send(200, 100);
    assert_eq!(arrivals.len(), 200);
    assert!((15..=70).contains(&overtaken(&arrivals)), "{} were overtaken", overtaken(&arrivals));
}

#[test]
fn a_narrow_link_takes_its_time_and_its_queue_is_bounded() {
    let Some(bench) = Bench::new(7) else { return };
    let narrow = LinkProfile { bandwidth_bits_s: Some(1_000_000), queue_bytes: 20_000, ..LinkProfile::PLAIN };
    bench.set(&narrow);
    let arrivals = bench.send(50, 1000 - usize::try_from(HEADERS).expect("few"));
    // A thousand bytes take 8 ms, so the burst is over before the third has left: twenty wait, the rest is dropped.
    assert!((20..=40).contains(&arrivals.len()), "{} arrived", arrivals.len());
    let last = arrivals.last().expect("some").after;
    assert!(last > Duration::from_millis(130), "{last:?}");
    let traffic = bench.lab.network().expect("links").traffic(FORTH.0, FORTH.1);
    assert_eq!(traffic.overflowed + arrivals.len() as u64, 50);
}

#[test]
fn the_switch_is_cheap() {
    let Some(bench) = Bench::new(8) else { return };
    let before = switch_time();
    let passed_before = passed(&bench);
    std::thread::scope(|scope| {
        scope.spawn(|| bench.receive(Instant::now()));
        let until = Instant::now() + Duration::from_secs(2);
        let packet = [0; 600];
        while Instant::now() < until {
            for _ in 0..100 {
                bench.here.send(&packet).expect("sent");
            }
        }
    });
    let packets = passed(&bench) - passed_before;
    let spent = switch_time() - before;
    let rate = packets as f64 / spent.as_secs_f64();
    println!("{packets} packets of 628 bytes in {spent:?} of the switch: {rate:.0} a second of one core");
    assert!(rate > 20_000.0, "a switch that slow would be the bottleneck of every run: {rate:.0} a second");
}

fn passed(bench: &Bench) -> u64 {
    bench.lab.network().expect("links").traffic(FORTH.0, FORTH.1).packets
}

/// Processor time of all threads of this process that are called so.
fn switch_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads").flatten().map(|task| task.path());
    let named = |path: &PathBuf| std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "switch");
    let nanos = tasks.filter(named).filter_map(|path| {
        let spent = std::fs::read_to_string(path.join("schedstat")).ok()?;
        spent.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}
