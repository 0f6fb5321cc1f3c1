//! A node drains and leaves, another is killed, under calls and registrations: no call fails, no request times out.

use crate::cluster::{Cluster, SOON, await_state, clean};
use aorta_phones::{Calls, Edge, Fleet, Household, Nodes, Pace, Report, Sbc, Timers, Turn};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Longest that the load goes on, whatever happens.
const LONGEST: Duration = Duration::from_secs(40);

struct Scene {
    cluster: Cluster,
    fleet: Fleet,
    sbc: Sbc,
    edge: Edge,
}

async fn scene(extra: &str) -> Scene {
    let cluster = Cluster::started(3, extra);
    let edge = Edge::start().await.expect("a socket");
    let mut fleet = Fleet::new(Household { edge: Some(edge.address()), ..Household::new(71) }, 5000);
    clean("register", &fleet.register(3600, &cluster.sips(3)).await.expect("sockets"));
    let nodes = Arc::new(Nodes::new(&cluster.sips(3)).expect("nodes"));
    let sbc = Sbc::start(nodes, Timers::default()).await.expect("a socket");
    Scene { cluster, fleet, sbc, edge }
}

/// 50 calls and 450 refreshes and lookups a second, until `event` is over; the load goes only to nodes that the SBC's
/// probes find well.
async fn under_load(scene: &mut Scene, event: impl FnOnce(&mut Cluster, &Nodes) + Send + 'static) -> (Calls, Report) {
    let nodes = scene.sbc.nodes().clone();
    let calls = Pace::new(50, LONGEST);
    let requests = Pace { per_second: 450, ..calls.clone() };
    let calling = tokio::spawn(scene.sbc.calls(scene.fleet.household(), scene.fleet.bound(), &calls));
    let turns = [Turn::Register(3600), Turn::Lookup];
    let everyone = 0..scene.fleet.len();
    let load = scene.fleet.steady(&turns, everyone, &requests, &nodes);
    let cluster = &mut scene.cluster;
    let events = async {
        tokio::task::block_in_place(|| event(cluster, &nodes));
        calls.stop.store(true, Ordering::Relaxed);
    };
    // The nodes' processes belong to this thread: the events happen on it, the load on the others.
    let (report, ()) = tokio::join!(load, events);
    let calls = calling.await.expect("the calls ended");
    println!("{calls}");
    let report = report.expect("sockets");
    println!("{report}");
    assert!(scene.edge.complaints().is_empty(), "{:?}", scene.edge.complaints());
    (calls, report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_node_drains_under_load_and_nobody_notices() {
    let mut scene = scene("drain_grace_s = 2").await;
    let (calls, report) = under_load(&mut scene, |cluster, nodes| {
        let begun = Instant::now();
        cluster.client(0).post("/v1/drain").expect("it drains");
        let status = cluster.ended(0, LONGEST);
        println!("left after {:?}", begun.elapsed());
        assert!(status.success(), "{status:?}\n{}", cluster.last_words());
        assert!(!nodes.is_up(0), "its OPTIONS were answered 503 in time");
    })
    .await;
    assert!(calls.is_clean(), "{calls}");
    clean("load", &report);
    let left = scene.cluster.sips(3)[1..].to_vec();
    scene.cluster.all_right(&mut scene.fleet, &left).await;
}

/// INVITEs that a node has counted.
fn invites(cluster: &Cluster, node: usize) -> u64 {
    let (_, text) = cluster.client(node).get("/metrics").expect("metrics");
    let line = text.lines().find(|l| l.starts_with("aorta_sip_requests_total") && l.contains("method=\"invite\""));
    line.and_then(|l| l.rsplit(' ').next()).map_or(0, |n| n.parse().expect("a count"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_node_is_killed_and_comes_back_under_load_and_every_call_completes() {
    let mut scene = scene("").await;
    let (calls, report) = under_load(&mut scene, |cluster, nodes| {
        let begun = Instant::now();
        cluster.kill(0);
        await_state("the SBC sees it", SOON, || !nodes.is_up(0));
        cluster.start(0);
        cluster.ready(0, SOON);
        // The SBC gives it calls again: its own count of them rises.
        let before = invites(cluster, 0);
        await_state("it gets calls again", Duration::from_secs(10), || invites(cluster, 0) > before);
        println!("back after {:?}", begun.elapsed());
    })
    .await;
    assert!(calls.is_clean(), "{calls}");
    assert!(
        calls.failed_over > 0 && calls.setup.max() < Timers::default().node + Duration::from_millis(500),
        "{calls}"
    );
    clean("load", &report);
    let all = scene.cluster.sips(3);
    scene.cluster.all_right(&mut scene.fleet, &all).await;
    scene.cluster.agree(Duration::from_secs(5));
}
