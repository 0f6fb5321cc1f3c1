//! A node stopped with SIGSTOP while phones come, refresh and go: when it wakes it denies nobody and serves no ghost.

use crate::cluster::{Cluster, clean, figure};
use aorta_phones::engine::Patience;
use aorta_phones::judges::{Expect, TickPlan, Ticker};
use aorta_phones::{Fleet, Household, Nodes, Turn};
use nix::sys::signal::Signal;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Phones of each kind: added, refreshed, removed.
const EACH: usize = 1000;
const EVERY: Duration = Duration::from_millis(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_slept_denies_nobody_and_serves_no_ghost() {
    let mut cluster = Cluster::started(3, "");
    let sips = cluster.sips(3);
    let nodes = Arc::new(Nodes::new(&sips).expect("nodes"));
    let mut fleet = Fleet::new(Household::new(61), 3 * EACH);
    clean("register", &fleet.turn(Turn::Register(3600), EACH..3 * EACH, &nodes).await.expect("sockets"));
    cluster.signal(2, Signal::SIGSTOP);
    let asleep = Instant::now();
    // Each change goes to the sleeper first; only after its silence elsewhere.
    fleet.load.first = Some(2);
    fleet.load.patience = Patience { t1: None, attempt: Duration::from_millis(150), ..Patience::sbc() };
    fleet.load.window = 100;
    clean("add", &fleet.turn(Turn::Register(3600), 0..EACH, &nodes).await.expect("sockets"));
    clean("refresh", &fleet.turn(Turn::Register(3500), EACH..2 * EACH, &nodes).await.expect("sockets"));
    clean("remove", &fleet.turn(Turn::Unregister, 2 * EACH..3 * EACH, &nodes).await.expect("sockets"));
    let sleep = Duration::from_secs(figure(8, 20));
    tokio::time::sleep(sleep.saturating_sub(asleep.elapsed())).await;
    let plan = |range: std::ops::Range<usize>, expect| TickPlan {
        node: sips[2],
        who: range.collect(),
        expect,
        every: EVERY,
        longest: Duration::from_secs(figure(3, 10)),
    };
    let here = Ticker::start(fleet.household(), plan(0..2 * EACH, Expect::Bound)).expect("loopback");
    let gone = Ticker::start(fleet.household(), plan(2 * EACH..3 * EACH, Expect::Gone(404))).expect("loopback");
    cluster.signal(2, Signal::SIGCONT);
    let agreed = cluster.agree(Duration::from_secs(5));
    println!("agreed {agreed:?} after it woke");
    fleet.load = aorta_phones::Load::default();
    cluster.all_right(&mut fleet, &sips).await;
    for (what, ticker) in [("here", here), ("gone", gone)] {
        let said = ticker.run_out().await.expect("a report");
        println!("{what}: {said:?}");
        assert!(said.wrong.is_empty() && said.right > 0, "{what}: {said:?}");
    }
}
