//! Real node processes: how they start, refuse to start, are watched, and end.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use aorta::cli::fleet::Fleet;
use aorta::cli::layout::{self, Place};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longest wait for anything here; a busy machine is slow, not wrong.
const PATIENCE: Duration = Duration::from_secs(30);

const AORTA: &str = env!("CARGO_BIN_EXE_aorta");

/// Settings that keep these tests short.
const QUICK: &str = "drain_grace_s = 1\nsnapshot_interval_ms = 200\nseed_fallback_ms = 1000\n";

fn fleet(dir: &Path, nodes: usize) -> Fleet {
    let ports = layout::free_ports(nodes).expect("free ports");
    Fleet::new(Path::new(AORTA), layout::write(dir, &ports, QUICK).expect("configurations"))
}

fn place(fleet: &Fleet, index: usize) -> &Place {
    &fleet.nodes()[index].place
}

fn aorta(arguments: &[&str]) -> Output {
    Command::new(AORTA).args(arguments).output().expect("the program runs")
}

/// Starts a node that must refuse to; what it said.
fn refused(fleet: &mut Fleet, index: usize) -> String {
    fleet.start(index).expect("started");
    let status = fleet.wait_ended(index, PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(1), "{}", fleet.nodes()[index].last_words());
    fleet.nodes()[index].last_words()
}

#[test]
fn three_nodes_become_one_cluster_and_status_says_whether_they_agree() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut fleet = fleet(dir.path(), 3);
    (0..3).for_each(|index| fleet.start(index).expect("started"));
    for index in 0..3 {
        fleet.wait_ready(index, PATIENCE).expect("ready");
    }
    let http = place(&fleet, 1).http.to_string();
    let status = aorta(&["status", "--http", &http]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success(), "{said}");
    assert!(said.contains("node1") && said.contains("node3") && said.contains("All 3 agree."), "{said}");

    fleet.kill(2).expect("killed");
    let status = aorta(&["status", "--http", &http, "--within-ms", "0"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status.status.code(), Some(1), "{said}");
    assert!(said.contains("✗ node3 could not be asked"), "{said}");
}

#[test]
fn status_knows_by_gossip_what_nodes_hold_that_it_cannot_ask() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut fleet = fleet(dir.path(), 3);
    for index in [1, 2] {
        let place = place(&fleet, index);
        let text = std::fs::read_to_string(&place.config).expect("a configuration");
        let listen = format!("listen = \"{}\"", place.http);
        assert!(text.contains(&listen), "{text}");
        std::fs::write(&place.config, text.replace(&listen, "listen = \"\"")).expect("written");
    }
    (0..3).for_each(|index| fleet.start(index).expect("started"));
    fleet.wait_ready(0, PATIENCE).expect("ready");
    let patience_ms = PATIENCE.as_millis().to_string();
    let status = aorta(&["status", "--http", &place(&fleet, 0).http.to_string(), "--within-ms", &patience_ms]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && said.contains("All 3 agree."), "{said}");
    assert_eq!(said.matches("(by gossip)").count(), 2, "{said}");
}

#[test]
fn a_node_that_drains_leaves_with_exit_code_0_and_is_not_missed() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut fleet = fleet(dir.path(), 3);
    (0..3).for_each(|index| fleet.start(index).expect("started"));
    for index in 0..3 {
        fleet.wait_ready(index, PATIENCE).expect("ready");
    }
    let drain = aorta(&["drain", "--http", &place(&fleet, 0).http.to_string()]);
    assert!(drain.status.success(), "{drain:?}");
    let ended = fleet.wait_ended(0, PATIENCE).expect("it left");
    assert_eq!(ended.code(), Some(0), "{}", fleet.nodes()[0].last_words());
    let status = aorta(&["status", "--http", &place(&fleet, 1).http.to_string()]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && said.contains("All 2 agree."), "{said}");
    // SIGTERM does the same.
    fleet.signal(1, Signal::SIGTERM).expect("signalled");
    let ended = fleet.wait_ended(1, PATIENCE).expect("it left");
    assert_eq!(ended.code(), Some(0), "{}", fleet.nodes()[1].last_words());
}

#[test]
fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut fleet = fleet(dir.path(), 1);
    let sip = place(&fleet, 0).sip;
    let _taken = std::net::TcpListener::bind(sip).expect("free until now");
    let said = refused(&mut fleet, 0);
    assert!(said.contains(&sip.to_string()) && said.contains("in use"), "{said}");
}

#[test]
fn a_certificate_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut fleet = fleet(dir.path(), 1);
    let certificate = place(&fleet, 0).folder.join("node.pem");
    std::fs::write(&certificate, "no certificate").expect("spoilt");
    let said = refused(&mut fleet, 0);
    assert!(said.contains("node.pem"), "{said}");
    std::fs::remove_file(&certificate).expect("removed");
    let said = refused(&mut fleet, 0);
    assert!(said.contains("node.pem"), "{said}");
}

#[test]
fn the_data_of_another_node_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut fleet = fleet(dir.path(), 2);
    fleet.start(0).expect("started");
    let deadline = Instant::now() + PATIENCE;
    let data = place(&fleet, 0).folder.join("data");
    while fleet.nodes()[0].client().readiness().is_err() {
        assert!(Instant::now() < deadline, "{}", fleet.nodes()[0].last_words());
        std::thread::yield_now();
    }
    fleet.stop(PATIENCE);
    let config = place(&fleet, 1).config.clone();
    let text = std::fs::read_to_string(&config).expect("there");
    std::fs::write(&config, text.replace("/node2/data", "/node1/data")).expect("changed");
    let said = refused(&mut fleet, 1);
    assert!(said.contains("node1") && said.contains(&data.display().to_string()), "{said}");
}

/// `aorta dev --json` and what it prints.
struct Dev {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Dev {
    fn start(dir: &Path) -> Self {
        let ports = layout::free_ports(3).expect("free ports");
        // Its ports follow one another; where the first three are free, so are most.
        let first = ports[0];
        let mut child = Command::new(AORTA)
            .args(["dev", "--json", "--nodes", "2", "--dir"])
            .arg(dir)
            .args(["--sip-port", &first.sip.to_string(), "--http-port", &(first.sip + 100).to_string()])
            .args(["--cluster-port", &(first.sip + 200).to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let out = child.stdout.take().expect("piped");
        Self { child, lines: BufReader::new(out).lines() }
    }

    /// The next line that tells of such an event.
    fn next(&mut self, event: &str) -> serde_json::Value {
        for line in &mut self.lines {
            let line: serde_json::Value = serde_json::from_str(&line.expect("text")).expect("JSON");
            assert_ne!(line["event"], "ended", "{line}");
            if line["event"] == event {
                return line;
            }
        }
        panic!("it ended before '{event}'");
    }

    fn pids(&mut self) -> Vec<i32> {
        (0..2).map(|_| i32::try_from(self.next("started")["pid"].as_i64().expect("a pid")).expect("a pid")).collect()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn runs(pid: i32) -> bool {
    // A dead child of somebody who does not wait for it is still there, as a zombie.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim_start().starts_with('Z'))
}

fn wait_gone(pids: &[i32]) {
    let deadline = Instant::now() + PATIENCE;
    while pids.iter().any(|pid| runs(*pid)) {
        assert!(Instant::now() < deadline, "a node outlived its parent");
        std::thread::yield_now();
    }
}

#[test]
fn dev_tells_when_its_nodes_are_ready_and_stops_them_all() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut dev = Dev::start(dir.path());
    let pids = dev.pids();
    let ready = [dev.next("ready")["node"].clone(), dev.next("ready")["node"].clone()];
    assert_ne!(ready[0], ready[1]);
    let pid = i32::try_from(dev.child.id()).expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("signalled");
    dev.next("stopped");
    dev.next("stopped");
    assert!(dev.child.wait().expect("it ended").success());
    wait_gone(&pids);
}

#[test]
fn nodes_of_dev_die_with_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut dev = Dev::start(dir.path());
    let pids = dev.pids();
    dev.child.kill().expect("killed");
    wait_gone(&pids);
}
