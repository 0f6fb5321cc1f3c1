//! Wall clocks that are wrong, or are set while a node runs: it is said who is off, and nothing else comes of it. Real
//! processes under libfaketime.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aorta::cli::fleet::Fleet;
use aorta::cli::layout;

const PATIENCE: Duration = Duration::from_secs(30);
const AORTA: &str = env!("CARGO_BIN_EXE_aorta");

/// Debian's libfaketime, by architecture.
const LIBRARIES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];

/// An environment in which wall clocks are off by what stands in a file, and monotonic ones are right.
fn wall_clock_from(file: &Path, library: &str) -> Vec<(String, String)> {
    let variables = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", file.to_str().expect("a path")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_NO_CACHE", "1"),
    ];
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

/// Waits until what HTTP says at `path` of a node contains this.
fn says(fleet: &Fleet, index: usize, path: &str, what: &str) {
    let begun = Instant::now();
    loop {
        let (_, body) = fleet.nodes()[index].client().get(path).expect("it answers");
        if body.contains(what) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "node{} does not say '{what}': {body}", index + 1);
        std::thread::yield_now();
    }
}

#[test]
fn who_is_off_is_named_and_a_jump_is_counted_and_everybody_serves_on() {
    let Some(library) = LIBRARIES.into_iter().find(|library| Path::new(library).exists()) else {
        println!("SKIPPED: libfaketime is not installed");
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let ports = layout::free_ports(3).expect("free ports");
    let places = layout::write(dir.path(), &ports, "clock_skew_warn_s = 2\n").expect("configurations");
    let mut fleet = Fleet::new(Path::new(AORTA), places);
    let offset = dir.path().join("offset");
    std::fs::write(&offset, "-3600").expect("written");
    fleet.set_environment(1, wall_clock_from(&offset, library));
    (0..3).for_each(|index| fleet.start(index).expect("started"));
    for index in 0..3 {
        fleet.wait_ready(index, PATIENCE).expect("ready");
    }
    says(&fleet, 0, "/readyz", "node2's wall clock is 3600.");
    says(&fleet, 1, "/readyz", "this node's wall clock is 3600.");
    says(&fleet, 2, "/metrics", "aorta_peer_wall_clock_skew_seconds{peer=\"node2\"} -3");
    let http = fleet.nodes()[0].place.http.to_string();
    let status = Command::new(AORTA).args(["status", "--http", &http]).output().expect("it runs");
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && said.contains("All 3 agree."), "{said}");
    assert!(said.contains("! node1 says: node2's wall clock is"), "{said}");
    // Somebody sets it right.
    says(&fleet, 1, "/metrics", "aorta_wall_clock_jumps_total 0");
    std::fs::write(&offset, "+0").expect("written");
    says(&fleet, 1, "/metrics", "aorta_wall_clock_jumps_total 1");
    let begun = Instant::now();
    for index in 0..3 {
        while fleet.nodes()[index].client().get("/readyz").expect("it answers").1.contains("wall clock") {
            assert!(begun.elapsed() < PATIENCE, "{}", fleet.nodes()[index].last_words());
            std::thread::yield_now();
        }
        let log = std::fs::read_to_string(&fleet.nodes()[index].place.log).expect("a log");
        let warned = log.lines().filter(|line| line.contains("WARN") && line.contains("wall clock is")).count();
        assert_eq!(warned, 1, "once a turn, not once a second: {log}");
        assert!(!log.contains("rejoins"), "nobody stopped serving: {log}");
    }
}
