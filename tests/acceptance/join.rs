//! An empty node joins: from its first moment it says 503 or the right thing, and it is soon ready. A node that reaches
//! nobody says nothing but 503.

use crate::cluster::{Cluster, SOON, await_state, clean, figure};
use aorta_phones::engine::Patience;
use aorta_phones::judges::{Expect, TickPlan, Ticker};
use aorta_phones::{Fleet, Household};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_fourth_empty_node_is_soon_ready_and_never_denies() {
    let mut cluster = Cluster::started(3, "");
    let mut fleet = Fleet::new(Household::new(41), figure(20_000, 100_000));
    clean("register", &fleet.register(3600, &cluster.sips(3)).await.expect("sockets"));
    let fourth = cluster.lay_out(1);
    let plan = TickPlan {
        node: cluster.sip(fourth),
        who: fleet.bound(),
        expect: Expect::Bound,
        every: EVERY,
        longest: Duration::from_secs(30),
    };
    let ticker = Ticker::start(fleet.household(), plan).expect("loopback");
    let begun = Instant::now();
    cluster.start(fourth);
    cluster.ready(fourth, Duration::from_secs(10));
    let ready = begun.elapsed();
    cluster.all_right(&mut fleet, &cluster.sips(4)).await;
    let said = ticker.stop().await.expect("a report");
    println!("ready after {ready:?}: {said:?}");
    assert!(said.wrong.is_empty() && said.right > 0, "{said:?}");
    assert!(ready < Duration::from_secs(3), "ready after {ready:?}");
    cluster.agree(Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_reaches_nobody_never_says_anything_but_503() {
    let mut cluster = Cluster::started(2, "seed_fallback_ms = 1000");
    let mut fleet = Fleet::new(Household::new(42), 500);
    clean("register", &fleet.register(3600, &cluster.sips(2)).await.expect("sockets"));
    let lonely = cluster.lay_out(1);
    // A firewall that drops: ports that are open, and nobody who answers.
    let walls: Vec<UdpSocket> = (0..2).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a port")).collect();
    let wall = |n: usize| walls[n].local_addr().expect("an address").to_string();
    let file = cluster.place(lonely).config.clone();
    let mut text = std::fs::read_to_string(&file).expect("its configuration");
    for other in 0..2 {
        text = text.replace(&cluster.place(other).cluster.to_string(), &wall(other));
    }
    std::fs::write(&file, text).expect("its configuration");
    let seconds = figure(6, 40);
    let plan = TickPlan {
        node: cluster.sip(lonely),
        who: fleet.bound(),
        expect: Expect::Bound,
        every: EVERY,
        longest: Duration::from_secs(seconds),
    };
    let ticker = Ticker::start(fleet.household(), plan).expect("loopback");
    cluster.start(lonely);
    // It takes nothing either: a 200 that nobody else knows of would be worth nothing.
    let mut callers = Fleet::new(Household::new(43), 200);
    callers.load.patience = Patience::direct(Duration::from_secs(2));
    await_state("it answers", SOON, || cluster.client(lonely).readiness().is_ok());
    let report = callers.register(60, &[cluster.sip(lonely)]).await.expect("sockets");
    assert_eq!(report.stats.status(503), 200, "{report}");
    let said = ticker.run_out().await.expect("a report");
    println!("{said:?}");
    assert_eq!((said.right, said.wrong.count), (0, 0), "{said:?}");
    assert!(said.not_ready > said.sent / 2, "{said:?}");
    let reason = cluster.client(lonely).readiness().expect("it answers").expect_err("it is not ready");
    assert!(!reason.is_empty());
    cluster.all_right(&mut fleet, &cluster.sips(2)).await;
}
