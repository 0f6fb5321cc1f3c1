//! Nodes of one test: real processes in a folder of their own, on free ports, gone when the test ends.

use aorta::cli::client::Client;
use aorta::cli::fleet::Fleet as Processes;
use aorta::cli::layout::{self, Place, Ports};
use aorta_phones::judges::everyone_answers_for_all;
use aorta_phones::{Fleet, Report, Turn};
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Time between two looks at a state that is awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Longest wait for a node that has nothing unusual to do.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// `scaled` as a rule, `full` when the figures of the issue are asked for.
pub(crate) fn figure<T>(scaled: T, full: T) -> T {
    if std::env::var("AORTA_ACCEPTANCE").is_ok_and(|v| v == "full") { full } else { scaled }
}

/// The program under test; `AORTA_ACCEPTANCE_PROGRAM` names another build, such as one that must fail.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("AORTA_ACCEPTANCE_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_aorta").into(), PathBuf::from)
}

/// The nodes of one test; each a fleet of its own, so that each may run another program.
pub(crate) struct Cluster {
    pub(crate) folder: TempDir,
    ports: Vec<Ports>,
    extra: String,
    nodes: Vec<Processes>,
}

impl Cluster {
    /// Lays out `count` nodes without starting them; `extra` is TOML without a section for all of them.
    pub(crate) fn laid_out(count: usize, extra: &str) -> Cluster {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cluster = Cluster { folder, ports: Vec::new(), extra: extra.to_owned(), nodes: Vec::new() };
        cluster.lay_out(count);
        cluster
    }

    /// Starts `count` nodes and waits until all are ready and of one mind.
    pub(crate) fn started(count: usize, extra: &str) -> Cluster {
        let mut cluster = Cluster::laid_out(count, extra);
        cluster.start_all();
        cluster.agree(SOON);
        cluster
    }

    /// Lays out `more` nodes beside those that are there; returns the place of the first of them.
    pub(crate) fn lay_out(&mut self, more: usize) -> usize {
        let first = self.ports.len();
        self.ports.extend(layout::free_ports(more).expect("free ports"));
        let places =
            layout::write(self.folder.path(), &self.ports, &self.extra).expect("certificates and configurations");
        for place in places.into_iter().skip(first) {
            self.nodes.push(Processes::new(&program(), vec![place]));
        }
        first
    }

    /// Makes a node run by this program from its next start on.
    pub(crate) fn run_by(&mut self, node: usize, program: &Path) {
        let place = self.place(node).clone();
        self.nodes[node] = Processes::new(program, vec![place]);
    }

    pub(crate) fn place(&self, node: usize) -> &Place {
        &self.nodes[node].nodes()[0].place
    }

    pub(crate) fn client(&self, node: usize) -> Client {
        self.nodes[node].nodes()[0].client()
    }

    pub(crate) fn sip(&self, node: usize) -> SocketAddr {
        self.place(node).sip
    }

    /// SIP addresses of the first `count` nodes.
    pub(crate) fn sips(&self, count: usize) -> Vec<SocketAddr> {
        (0..count).map(|n| self.sip(n)).collect()
    }

    pub(crate) fn start(&mut self, node: usize) {
        self.nodes[node].start(0).expect("a process");
    }

    pub(crate) fn start_all(&mut self) {
        (0..self.nodes.len()).for_each(|n| self.start(n));
        (0..self.nodes.len()).for_each(|n| _ = self.ready(n, SOON));
    }

    /// Waits until a node says that it is ready; how long that took.
    pub(crate) fn ready(&mut self, node: usize, within: Duration) -> Duration {
        self.nodes[node].wait_ready(0, within).unwrap_or_else(|why| panic!("{why:#}"))
    }

    /// As `kill -9` does.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].kill(0).expect("killed");
    }

    /// Of a node that runs.
    pub(crate) fn pid(&self, node: usize) -> u32 {
        self.nodes[node].nodes()[0].pid().expect("it runs")
    }

    pub(crate) fn signal(&mut self, node: usize, signal: Signal) {
        self.nodes[node].signal(0, signal).expect("a running node");
    }

    pub(crate) fn ended(&mut self, node: usize, within: Duration) -> ExitStatus {
        self.nodes[node].wait_ended(0, within).unwrap_or_else(|why| panic!("{why:#}"))
    }

    /// What the node wrote so far.
    pub(crate) fn log(&self, node: usize) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.place(node).log).unwrap_or_default()).into_owned()
    }

    /// Waits until `aorta status` says that all nodes agree; how long that took.
    pub(crate) fn agree(&self, within: Duration) -> Duration {
        let begun = Instant::now();
        let status = Command::new(program())
            .args(["status", "--http", &self.place(0).http.to_string(), "--within-ms", &within.as_millis().to_string()])
            .output()
            .expect("aorta status runs");
        let said = String::from_utf8_lossy(&status.stdout).into_owned() + &String::from_utf8_lossy(&status.stderr);
        assert!(status.status.success(), "no agreement within {within:?}:\n{said}\n{}", self.last_words());
        begun.elapsed()
    }

    /// The last lines of every node.
    pub(crate) fn last_words(&self) -> String {
        self.nodes.iter().map(|n| format!("--- {}\n{}\n", n.nodes()[0].place.name, n.nodes()[0].last_words())).collect()
    }

    /// `aorta dump` of a node, sorted.
    pub(crate) fn dump(&self, node: usize) -> Vec<String> {
        let http = self.place(node).http.to_string();
        let output = Command::new(program()).args(["dump", "--http", &http]).output().expect("aorta dump runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    }

    /// Every one of these nodes, asked by INVITE and by query, says of every phone exactly what it was told.
    pub(crate) async fn all_right(&self, fleet: &mut Fleet, nodes: &[SocketAddr]) {
        for turn in [Turn::Lookup, Turn::Query] {
            for (node, report) in everyone_answers_for_all(fleet, nodes, turn).await.expect("sockets") {
                println!("{turn:?} at {node}: {report}");
                assert!(report.is_clean(), "{turn:?} at {node}: {report}\n{}", self.last_words());
            }
        }
    }
}

/// Says what a sweep found, and that it found nothing wrong.
pub(crate) fn clean(what: &str, report: &Report) {
    println!("{what}: {report}");
    assert!(report.is_clean(), "{what}: {report}");
}

/// Waits until `state` holds, looking again and again.
pub(crate) fn await_state(what: &str, within: Duration, mut state: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !state() {
        assert!(begun.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
    begun.elapsed()
}
