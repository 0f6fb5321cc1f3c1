//! Phones that remember, at real node processes that are killed and come back: the judge of longer runs, in half a minute.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use aorta::cli::fleet::Fleet;
use aorta::cli::layout;
use aorta_phones::crowd::{Crowd, CrowdPlan};

/// Longest wait for anything here; a busy machine is slow, not wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// Phones that ask for a second or two are let lapse.
const QUICK: &str = "drain_grace_s = 1\nsnapshot_interval_ms = 200\nseed_fallback_ms = 1000\nexpires_min_s = 1\n";

fn fleet(dir: &Path, nodes: usize) -> Fleet {
    let ports = layout::free_ports(nodes).expect("free ports");
    let places = layout::write(dir, &ports, QUICK).expect("configurations");
    for place in &places {
        let text = std::fs::read_to_string(&place.config).expect("a configuration");
        std::fs::write(&place.config, text.replace("[sip]\n", "[sip]\nack_header = true\n")).expect("written");
    }
    let mut fleet = Fleet::new(Path::new(env!("CARGO_BIN_EXE_aorta")), places);
    (0..nodes).for_each(|node| fleet.start(node).expect("started"));
    for node in 0..nodes {
        fleet.wait_ready(node, PATIENCE).expect("ready");
    }
    fleet
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_crowd_was_told_is_lost_while_nodes_are_killed() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut fleet = fleet(dir.path(), 3);
    let nodes: Vec<SocketAddr> = fleet.nodes().iter().map(|node| node.place.sip).collect();
    let mut plan = CrowdPlan::new(1000, 42);
    (plan.per_second, plan.calls_per_second) = (500, 100);
    (plan.short_lived_percent, plan.short_expires_s) = (10, 2);
    let mut crowd = Crowd::new(plan).await.expect("a crowd");
    let filled = crowd.fill(&nodes).await.expect("sockets");
    assert_eq!((filled.full, filled.short, filled.wrong.count), (1000, 0, 0), "{filled:?}");
    let running = crowd.start(&nodes).await.expect("sockets");
    for node in [0, 2] {
        let before = running.tally();
        fleet.kill(node).expect("killed");
        running.until("passed over", PATIENCE, |_| !running.is_up(nodes[node])).await.expect("in time");
        running.until("served by the others", PATIENCE, |now| now.full > before.full + 1000).await.expect("in time");
        fleet.start(node).expect("started");
        fleet.wait_ready(node, PATIENCE).expect("ready");
        running.until("back", PATIENCE, |_| running.is_up(nodes[node])).await.expect("in time");
        let back = running.tally();
        running
            .until("at work", PATIENCE, |now| now.full > back.full + 500 && now.calls > back.calls + 100)
            .await
            .expect("in time");
    }
    let mut crowd = running.stop().await.expect("sockets");
    let tally = crowd.tally();
    assert!(tally.failovers > 0 && tally.short > 0 && tally.partial == 0, "who was killed was awaited: {tally:?}");
    assert_eq!((tally.lost.count, tally.ghosts.count), (0, 0), "{:?} {:?}", tally.lost, tally.ghosts);
    assert_eq!(tally.wrong.count, 0, "{:?}", tally.wrong);
    assert_eq!(tally.calls_completed, tally.calls, "{:?}", tally.calls_failed);
    assert!(crowd.malformed().is_empty() && crowd.edge().complaints().is_empty(), "{:?}", crowd.malformed());
    let judgement = crowd.judge(&nodes).await.expect("sockets");
    assert!(judgement.is_clean() && judgement.bound > 3 * 500, "{judgement:?}");
}
