//! A rolling upgrade on real links and under load: three members of a wire version become members of the next one by one, and one
//! is rolled back. Nothing acknowledged is lost, and the new version is written only while all members read it.

mod member;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aorta::cluster::certificate::{AUTHORITY_DAYS, Authority, NODE_DAYS};
use aorta::cluster::{Identity, IdentityFiles};
use aorta_proto::frame::LastKnown;
use aorta_proto::{Aor, NodeId};
use member::{Build, Core, Running};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);
const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// Waits until it is so.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        // A look costs a lock of the node; phones want it as well.
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn certificates(dir: &TempDir) -> Vec<IdentityFiles> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs() as i64;
    let ca = Authority::create("blue", now_s, AUTHORITY_DAYS).expect("a CA");
    let authority = Authority::load(&ca.certificate, &ca.key).expect("a CA");
    let issue = |name: &str| {
        let id = NodeId::new(name).expect("a node id");
        let issued = authority.issue(&id, now_s, NODE_DAYS).expect("issued");
        let at = |part: &str| dir.path().join(format!("{name}.{part}"));
        let files = IdentityFiles { ca: at("ca"), certificate: at("pem"), key: at("key") };
        std::fs::write(&files.ca, &ca.certificate).expect("written");
        std::fs::write(&files.certificate, issued.certificate).expect("written");
        std::fs::write(&files.key, issued.key).expect("written");
        files
    };
    NAMES.iter().map(|name| issue(name)).collect()
}

/// Three places for members, and who is there now.
struct Trio {
    certificates: Vec<IdentityFiles>,
    members: [Option<Running>; 3],
    addresses: Vec<SocketAddr>,
    boots: u64,
    /// The members that phones may ask.
    cores: Arc<Mutex<Vec<Arc<Core>>>>,
}

impl Trio {
    fn start(&mut self, place: usize, wire_version_max: u8, last_known: Vec<LastKnown>) {
        self.boots += 1;
        let listen = self.addresses.get(place).copied().unwrap_or(([127, 0, 0, 1], 0).into());
        let running = Build {
            identity: Identity::load(&self.certificates[place], None).expect("an identity"),
            wire_version_max,
            boot: self.boots,
            listen,
            seeds: self.addresses.clone(),
            last_known,
        }
        .run();
        if place == self.addresses.len() {
            self.addresses.push(running.address);
        }
        self.members[place] = Some(running);
        self.tell_phones();
    }

    fn tell_phones(&self) {
        *self.cores.lock().expect("no panic") = self.cores().collect();
    }

    fn cores(&self) -> impl Iterator<Item = Arc<Core>> {
        self.members.iter().flatten().map(|running| Arc::clone(&running.core))
    }

    fn all_serve(&self) {
        for core in self.cores() {
            until("serves", || core.replication.serving().requests);
            assert!(core.reason().contains("ready: true"), "{}", core.reason());
        }
    }

    /// Another build takes a place.
    fn replace(&mut self, place: usize, wire_version_max: u8, in_order: bool) {
        let running = self.members[place].take().expect("it runs");
        self.tell_phones();
        let last_known = if in_order { running.leave() } else { running.kill() };
        self.start(place, wire_version_max, last_known);
        self.all_serve();
    }

    /// Waits until all write this version and changes written that way have come from and to everybody.
    fn all_write(&self, version: u8) {
        for core in self.cores() {
            until("writes the version", || core.writes() == version);
            core.take_lags();
            until("lag is measured since version 2", || core.shows_lag() == (version >= 2));
        }
    }
}

/// Phones that register one after the other, each at another node, until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Acknowledged>,
}

#[derive(Default)]
struct Acknowledged {
    /// AoRs whose writer was told that all hold them.
    full: Vec<Aor>,
    short: usize,
}

impl Load {
    fn begin(cores: &Arc<Mutex<Vec<Arc<Core>>>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (cores, stopped) = (Arc::clone(cores), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut told = Acknowledged::default();
            for phone in 0usize.. {
                if stopped.load(Ordering::Acquire) {
                    break;
                }
                let aor = Aor::from_canonical(&format!("u{phone}@example.com"));
                let core = {
                    let cores = cores.lock().expect("no panic");
                    Arc::clone(&cores[phone % cores.len()])
                };
                let (reply, answer) = mpsc::sync_channel(1);
                core.write(&aor, reply);
                drop(core);
                match answer.recv_timeout(DEADLINE) {
                    Ok(released) if released.short => told.short += 1,
                    Ok(_) => told.full.push(aor),
                    // It does not serve now, or was killed with the answer.
                    Err(_) => {}
                }
            }
            told
        });
        Self { stop, thread }
    }

    fn end(self) -> Acknowledged {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("phones")
    }
}

#[test]
fn three_nodes_of_version_1_are_upgraded_under_load_and_one_is_rolled_back() {
    are_upgraded(1, 2);
}

#[test]
fn three_nodes_of_version_2_are_upgraded_under_load_and_one_is_rolled_back() {
    are_upgraded(2, 3);
}

fn are_upgraded(from: u8, to: u8) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut trio = Trio {
        certificates: certificates(&dir),
        members: [None, None, None],
        addresses: Vec::new(),
        boots: 0,
        cores: Arc::default(),
    };
    (0..3).for_each(|place| trio.start(place, from, Vec::new()));
    trio.all_serve();
    let load = Load::begin(&trio.cores);
    trio.all_write(from);
    trio.replace(0, to, true);
    trio.all_write(from);
    trio.replace(1, to, false);
    trio.all_write(from);
    trio.replace(2, to, true);
    trio.all_write(to);
    // Filled by what members of the new version say to each other.
    trio.replace(0, to, false);
    trio.all_write(to);
    for core in trio.cores() {
        until("lags are measured", || core.take_lags().into_iter().any(|lag_us| lag_us < 1_000_000));
    }
    trio.replace(1, from, false);
    trio.all_write(from);
    let told = load.end();
    println!("{} acknowledged in full, {} short", told.full.len(), told.short);
    assert!(told.full.len() > 100, "the load was one");
    let roots = || trio.cores().map(|core| core.location.root()).collect::<Vec<_>>();
    until("all hold the same", || roots().windows(2).all(|pair| pair[0] == pair[1]));
    for core in trio.cores() {
        let lost = told.full.iter().filter(|aor| !core.location.get(aor, |record| record.is_some()));
        assert_eq!(lost.count(), 0, "acknowledged and lost");
    }
}
