//! `ack = "disk"` while the disk of one node takes nothing: no 200 lies about it, nobody is fenced, an operator can read
//! whose disk it is, and it heals by itself when there is room again.

use crate::cluster::{Cluster, SOON, await_state, clean, program};
use aorta_phones::{Fleet, Household};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The largest file that the node may write at first, bytes: its log, and a database of some thousand records.
const FILE_BYTES_MAX: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_makes_replies_short_and_nothing_else() {
    let mut cluster = Cluster::laid_out(3, "ack = \"disk\"\nack_timeout_ms = 1000\nsnapshot_interval_ms = 200");
    let narrow = wrapper(cluster.folder.path());
    cluster.run_by(1, &narrow);
    cluster.start_all();
    let nodes = cluster.sips(3);
    let mut fleet = Fleet::new(Household::new(81), 6000);
    clean("register", &fleet.register(3600, &nodes).await.expect("sockets"));
    let short = |cluster: &Cluster| (0..3).map(|node| metric(cluster, node, "aorta_replies_short_total")).sum::<u64>();
    await_state("replies that left short are counted", SOON, || short(&cluster) > 0);
    for node in [0, 2] {
        await_state("the others name the disk", SOON, || reason(&cluster, node).contains("the disk of node2"));
    }
    await_state("it names its error", SOON, || reason(&cluster, 1).contains("cannot write to its disk"));
    let said = cluster.log(1).matches("the snapshot cannot be written").count();
    assert_eq!(said, 1, "said once, not at each try");
    // The node serves from memory, and what it was told while its disk was full too.
    cluster.all_right(&mut fleet, &nodes).await;
    for node in 0..3 {
        let log = cluster.log(node);
        assert!(!log.contains("did not keep up"), "a late disk accuses nobody:\n{log}");
        assert!(!log.contains("sled::"), "what the database has to say is said once:\n{log}");
    }

    let pid = cluster.pid(1).to_string();
    let free = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status().expect("prlimit runs");
    assert!(free.success());
    await_state("there is room again", SOON, || (0..3).all(|node| reason(&cluster, node).is_empty()));
    // Each node learns that with the next reply that waits for that disk.
    clean("refresh", &fleet.register(3600, &nodes).await.expect("sockets"));
    await_state("all is committed", SOON, || metric(&cluster, 1, "aorta_records_dirty") == 0);
    (0..3).for_each(|node| cluster.kill(node));
    cluster.start_all();
    cluster.all_right(&mut fleet, &nodes).await;
}

/// What is said of a node that is ready.
fn reason(cluster: &Cluster, node: usize) -> String {
    let view = cluster.client(node).get("/v1/cluster").expect("a view").1;
    let view: serde_json::Value = serde_json::from_str(&view).expect("JSON");
    assert_eq!(view["ready"], true, "{view}");
    view["reason"].as_str().unwrap_or_default().to_owned()
}

fn metric(cluster: &Cluster, node: usize, name: &str) -> u64 {
    let (_, text) = cluster.client(node).get("/metrics").expect("metrics");
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0, |value| value.parse::<f64>().expect("a number") as u64)
}

/// A program that runs `aorta` where no file may grow above the limit, and trying to is an error rather than a signal.
fn wrapper(folder: &Path) -> PathBuf {
    let script = folder.join("narrow.sh");
    // A `ulimit` block is 512 bytes.
    let blocks = FILE_BYTES_MAX / 512;
    let text = format!("#!/bin/sh\ntrap '' XFSZ\nulimit -S -f {blocks}\nexec {} \"$@\"\n", program().display());
    std::fs::write(&script, text).expect("a script");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("executable");
    script
}
