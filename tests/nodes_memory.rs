//! A cluster of real processes of which one has little memory: who is refused, who is not, and what an operator sees of it.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aorta::admin::ClusterView;
use aorta::cli::fleet::Fleet;
use aorta::cli::layout;

const PATIENCE: Duration = Duration::from_secs(30);
const AORTA: &str = env!("CARGO_BIN_EXE_aorta");

/// `memory_max_mb` of the second node; an empty table takes more than half of it.
const MAX_MB: u64 = 8;

/// So many phones fill it several times.
const PHONES_MAX: usize = 5000;

/// What a phone's contact takes of memory, about: so long are the parameters and the Path that it sends.
const CONTACT_BYTES: usize = 1800;

fn three(dir: &Path) -> Fleet {
    let ports = layout::free_ports(3).expect("free ports");
    let places = layout::write(dir, &ports, "snapshot_interval_ms = 200\n").expect("configurations");
    let text = std::fs::read_to_string(&places[1].config).expect("a configuration");
    std::fs::write(&places[1].config, format!("memory_max_mb = {MAX_MB}\n{text}")).expect("written");
    let mut fleet = Fleet::new(Path::new(AORTA), places);
    (0..3).for_each(|index| fleet.start(index).expect("started"));
    for index in 0..3 {
        fleet.wait_ready(index, PATIENCE).expect("ready");
    }
    fleet
}

/// Phones behind one socket.
struct Phones {
    socket: UdpSocket,
    nodes: Vec<SocketAddr>,
    sent: usize,
}

impl Phones {
    fn of(fleet: &Fleet) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { socket, nodes: fleet.nodes().iter().map(|node| node.place.sip).collect(), sent: 0 }
    }

    /// The status line of the answer to a phone's REGISTER at a node.
    fn register(&mut self, node: usize, phone: usize, expires_s: u32) -> String {
        let me = self.socket.local_addr().expect("bound");
        self.sent += 1;
        let (cseq, long) = (self.sent, "x".repeat(CONTACT_BYTES / 2));
        let request = format!(
            "REGISTER sip:localhost SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK{cseq}\r\n\
             From: <sip:p{phone}@localhost>;tag=1\r\nTo: <sip:p{phone}@localhost>\r\n\
             Call-ID: {phone}@{me}\r\nCSeq: {cseq} REGISTER\r\nContact: <sip:p{phone}@{me}>;a={long}{phone}\r\n\
             Path: <sip:{phone}{long}@192.0.2.1;lr>\r\nExpires: {expires_s}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        );
        self.socket.send_to(request.as_bytes(), self.nodes[node]).expect("sent");
        let mut answer = [0; 8192];
        let (bytes, _) = self.socket.recv_from(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer[..bytes]).lines().next().expect("a line").to_owned()
    }

    /// Registers one phone after another at the first and the third node until one is refused; how many were not.
    fn fill(&mut self) -> usize {
        for phone in 0..PHONES_MAX {
            let answer = self.register(phone % 2 * 2, phone, 3600);
            if answer != OK {
                assert_eq!(answer, REFUSED);
                return phone;
            }
        }
        panic!("{PHONES_MAX} phones were accepted");
    }

    /// Registers new phones at a node until the answer is this one.
    fn until(&mut self, node: usize, answer: &str) {
        let begun = Instant::now();
        for phone in PHONES_MAX.. {
            let said = self.register(node, phone, 3600);
            if said == OK {
                assert_eq!(self.register(node, phone, 0), OK);
            }
            if said == answer {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "node{} still answers {said}", node + 1);
        }
    }
}

const OK: &str = "SIP/2.0 200 OK";
const REFUSED: &str = "SIP/2.0 403 Location Memory Full";

fn metric(fleet: &Fleet, index: usize, name: &str) -> f64 {
    let (_, text) = fleet.nodes()[index].client().get("/metrics").expect("it answers");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
}

/// Waits until a metric of a node is as it should be.
fn until_metric(fleet: &Fleet, index: usize, name: &str, met: impl Fn(f64) -> bool) {
    let begun = Instant::now();
    while !met(metric(fleet, index, name)) {
        assert!(begun.elapsed() < PATIENCE, "node{}: {name} is {}", index + 1, metric(fleet, index, name));
        std::thread::yield_now();
    }
}

/// What each way of asking shows of the second node while it is full.
fn an_operator_sees_it(fleet: &Fleet) {
    let max_bytes = (MAX_MB << 20) as f64;
    for index in 0..3 {
        until_metric(fleet, index, "aorta_nodes_memory_full", |full| full == 1.0);
        until_metric(fleet, index, "aorta_location_bytes", |bytes| bytes >= 0.95 * max_bytes);
        let view: ClusterView = fleet.nodes()[index].client().json("/v1/cluster").expect("a view");
        assert_eq!(view.memory_full, ["node2"]);
        let (status, reason) = fleet.nodes()[index].client().get("/readyz").expect("it answers");
        assert!(status == 200 && reason.contains("memory is full at node2: AoRs"), "{reason}");
    }
    assert_eq!(metric(fleet, 1, "aorta_memory_max_bytes"), max_bytes);
    assert_eq!(metric(fleet, 0, "aorta_memory_max_bytes"), 0.0);
    until_metric(fleet, 0, "aorta_register_refused_total{reason=\"memory_full\"}", |refused| refused >= 1.0);
    let http = fleet.nodes()[0].place.http.to_string();
    let status = Command::new(AORTA).args(["status", "--http", &http]).output().expect("it runs");
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && said.contains("All 3 agree."), "{said}");
    assert!(said.contains(&format!(" of {MAX_MB} MB")) && said.contains("! node3: memory is full at node2"), "{said}");
}

#[test]
fn where_one_node_is_full_all_refuse_strangers_and_serve_whom_they_know_until_there_is_room() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut fleet = three(dir.path());
    let mut phones = Phones::of(&fleet);
    let known = phones.fill();
    until_metric(&fleet, 1, "aorta_contacts", |contacts| contacts >= known as f64);
    println!("{known} phones were accepted, in {} bytes", metric(&fleet, 1, "aorta_location_bytes"));
    for node in 0..3 {
        phones.until(node, REFUSED);
        assert_eq!(phones.register(node, known - 1, 3600), OK, "a refresh");
    }
    an_operator_sees_it(&fleet);

    // The node is gone, and with it its limit; the others may go on. It comes back, takes what it missed, and is full again.
    fleet.kill(1).expect("killed");
    phones.until(0, OK);
    fleet.start(1).expect("started");
    fleet.wait_ready(1, PATIENCE).expect("ready: merges are never refused");
    (0..3).for_each(|node| phones.until(node, REFUSED));

    // What is removed is remembered in fewer bytes.
    for phone in 0..known {
        assert_eq!(phones.register(phone % 3, phone, 0), OK);
    }
    (0..3).for_each(|node| phones.until(node, OK));
    until_metric(&fleet, 0, "aorta_nodes_memory_full", |full| full == 0.0);
    for place in fleet.nodes().iter().map(|node| &node.place) {
        let log = std::fs::read_to_string(&place.log).expect("a log");
        // Filled so fast, the second step may be the first that is seen.
        let steps = ["memory is full: AoRs of which nothing", "memory is fuller still: AoRs without a contact"];
        assert!(steps.iter().any(|step| log.contains(step)) && log.contains("memory has room again"), "{log}");
    }
}
