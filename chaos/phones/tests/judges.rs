//! The SBC and the judges against doubles: sound ones pass, each planted fault fails the judge it is for.

#[allow(dead_code, reason = "each test file plants its own faults")]
mod double;

use aorta_phones::engine::Patience;
use aorta_phones::judges::{
    Elsewhere, Expect, TickPlan, Ticker, everyone_answers_for_all, register_then_unregister_elsewhere,
};
use aorta_phones::{Edge, Fleet, Household, Nodes, Pace, Sbc, Timers, Turn};
use double::{Double, Fault, Table};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A lost datagram of a double with a small buffer is soon sent again.
fn brisk() -> Patience {
    Patience { t1: Some(Duration::from_millis(100)), attempt: Duration::from_millis(600), ..Patience::sbc() }
}

async fn fleet(count: usize, edge: Option<SocketAddr>, addresses: &[SocketAddr]) -> Fleet {
    let mut fleet = Fleet::new(Household { edge, ..Household::new(3) }, count);
    fleet.load.patience = brisk();
    let report = fleet.register(600, addresses).await.expect("sockets");
    assert!(report.is_clean(), "{report}");
    fleet
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_complete_through_a_failover_and_the_dead_node_comes_back() {
    let (doubles, addresses) = Double::cluster(3).await;
    let edge = Edge::start().await.expect("a socket");
    let fleet = fleet(500, Some(edge.address()), &addresses).await;
    let nodes = Arc::new(Nodes::new(&addresses).expect("nodes"));
    let timers =
        Timers { node: Duration::from_millis(300), probe_every: Duration::from_millis(50), ..Timers::default() };
    let sbc = Sbc::start(nodes.clone(), timers).await.expect("a socket");
    let fault = async {
        for (fault, up) in [(Fault::Silent, false), (Fault::None, true), (Fault::NotReady, false), (Fault::None, true)]
        {
            doubles[1].set(fault);
            let deadline = Instant::now() + Duration::from_secs(10);
            while nodes.is_up(1) != up {
                assert!(Instant::now() < deadline, "{fault:?} is not seen");
                tokio::task::yield_now().await;
            }
        }
    };
    let calls = sbc.calls(fleet.household(), fleet.bound(), &Pace::new(200, Duration::from_secs(3)));
    let (calls, ()) = tokio::join!(calls, fault);
    assert!(calls.is_clean() && calls.tried >= 590, "{calls}");
    assert!(calls.failed_over > 0 && calls.by_node.len() == 3, "{calls}");
    assert!(calls.setup.max() < Duration::from_millis(800), "{calls}");
    assert_eq!(edge.answered(), calls.tried, "{:?}", edge.complaints());
    assert!(edge.complaints().is_empty(), "{:?}", edge.complaints());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_without_path_without_binding_and_without_nodes() {
    let (doubles, addresses) = Double::cluster(1).await;
    let edge = Edge::start().await.expect("a socket");
    let fleet = fleet(20, Some(edge.address()), &addresses).await;
    let timers = Timers { node: Duration::from_millis(200), ..Timers::default() };
    let sbc = Sbc::start(Arc::new(Nodes::new(&addresses).expect("nodes")), timers).await.expect("a socket");
    assert!(sbc.call(&fleet.phone(0)).await.completed);
    for (fault, why) in [(Fault::DropPath, "within reach"), (Fault::Deny(3), "404"), (Fault::Silent, "no node")] {
        doubles[0].set(fault);
        let call = sbc.call(&fleet.phone(0)).await;
        assert!(!call.completed && call.reason.contains(why), "{fault:?}: {call:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_of_three_with_a_table_of_its_own_is_found_out() {
    let (_doubles, mut addresses) = Double::cluster(2).await;
    let mut fleet = fleet(600, None, &addresses).await;
    let empty = Arc::new(std::sync::Mutex::new(Table::default()));
    let third = Double::start(&empty, Fault::None).await;
    addresses.push(third.address);
    for turn in [Turn::Lookup, Turn::Query] {
        let reports = everyone_answers_for_all(&mut fleet, &addresses, turn).await.expect("sockets");
        let wrong: Vec<u64> = reports.iter().map(|(_, r)| r.mismatches.count).collect();
        assert_eq!(wrong, [0, 0, 600], "{turn:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_elsewhere_passes_and_fails_as_it_should() {
    let (doubles, addresses) = Double::cluster(2).await;
    let plan = Elsewhere { count: 400, in_flight: 16, first: addresses[0], second: addresses[1] };
    let report = register_then_unregister_elsewhere(&Household::new(5), plan, &addresses).await.expect("sockets");
    assert_eq!((report.listed, report.removed, report.left), (400, 400, 0), "{report:?}");
    assert_eq!(report.gap.count(), 400);
    doubles[1].set(Fault::Keep);
    let report = register_then_unregister_elsewhere(&Household::new(6), plan, &addresses).await.expect("sockets");
    assert_eq!((report.listed, report.removed, report.left), (400, 0, 1600), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticker_tells_not_ready_from_wrong() {
    let (doubles, addresses) = Double::cluster(1).await;
    let fleet = fleet(50, None, &addresses).await;
    let mut seen = Vec::new();
    for (fault, expect) in [
        (Fault::NotReady, Expect::Bound),
        (Fault::None, Expect::Bound),
        (Fault::Deny(60), Expect::Bound),
        (Fault::Silent, Expect::Bound),
        (Fault::None, Expect::Gone(404)),
    ] {
        doubles[0].set(fault);
        let (every, longest) = (Duration::from_millis(5), Duration::from_millis(250));
        let plan = TickPlan { node: addresses[0], who: fleet.bound(), expect, every, longest };
        let ticker = Ticker::start(fleet.household(), plan).expect("loopback");
        let report = ticker.run_out().await.expect("a report");
        assert_eq!(report.sent, 50);
        seen.push((report.not_ready, report.right, report.wrong.count, report.silent));
        assert_eq!(report.first_right.is_some(), report.right > 0);
    }
    assert_eq!(seen, [(50, 0, 0, 0), (0, 50, 0, 0), (0, 49, 1, 0), (0, 0, 0, 50), (0, 0, 50, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_steady_pace_is_kept_and_silence_is_counted() {
    let (doubles, addresses) = Double::cluster(2).await;
    let mut fleet = fleet(200, None, &addresses).await;
    let nodes = Arc::new(Nodes::new(&addresses).expect("nodes"));
    let turns = [Turn::Register(600), Turn::Lookup, Turn::Query];
    let pace = Pace::new(500, Duration::from_secs(1));
    let report = fleet.steady(&turns, 0..200, &pace, &nodes).await.expect("sockets");
    assert!(report.is_clean() && (490..=510).contains(&report.stats.started), "{report}");
    doubles.iter().for_each(|d| d.set(Fault::Silent));
    fleet.load.patience = Patience::once(Duration::from_millis(100));
    let report = fleet.steady(&turns, 0..200, &pace, &nodes).await.expect("sockets");
    assert_eq!(report.stats.timed_out, report.stats.started, "{report}");
    assert_eq!(report.mismatches.count, report.stats.started, "{report}");
}
