//! The fleet against doubles: a sound registrar passes every judge, each planted fault fails the judge it is for.

#[allow(dead_code, reason = "each test file plants its own faults")]
mod double;

use aorta_phones::engine::Patience;
use aorta_phones::{Fleet, Household, Nodes, Report, Turn};
use double::{Double, Fault};
use std::sync::Arc;
use std::time::Duration;

fn brisk() -> Patience {
    Patience { t1: Some(Duration::from_millis(100)), attempt: Duration::from_millis(600), ..Patience::sbc() }
}

fn fleet(count: usize) -> Fleet {
    let mut fleet = Fleet::new(Household::new(11), count);
    // A double has a small receive buffer: what it drops is soon sent again.
    fleet.load.patience = brisk();
    fleet
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_registrar_passes_every_turn() {
    let (_doubles, addresses) = Double::cluster(3).await;
    let nodes = Arc::new(Nodes::new(&addresses).expect("nodes"));
    let mut fleet = fleet(3000);
    for (turn, live) in [
        (Turn::Lookup, false),
        (Turn::Register(600), true),
        (Turn::Query, true),
        (Turn::Lookup, true),
        (Turn::Register(700), true),
        (Turn::Lookup, true),
        (Turn::Unregister, false),
        (Turn::Lookup, false),
        (Turn::Register(600), true),
        (Turn::Clear, false),
        (Turn::Query, false),
    ] {
        let report = fleet.turn(turn, 0..3000, &nodes).await.expect("sockets");

        assert!(report.is_clean(), "{turn:?}: {report}");
        assert_eq!(report.stats.answered, 3000);
        assert_eq!(fleet.live_contacts() > 3000, live, "{turn:?}");
    }
}

/// Registers at sound doubles, plants the fault, runs one more turn.
async fn with_fault(fault: Fault, turn: Turn) -> Report {
    let (doubles, addresses) = Double::cluster(1).await;
    let nodes = Arc::new(Nodes::new(&addresses).expect("nodes"));
    let mut fleet = fleet(1000);
    fleet.load.patience =
        Patience { t1: Some(Duration::from_millis(100)), ..Patience::direct(Duration::from_millis(800)) };
    if matches!(fault, Fault::Forget(_)) {
        doubles[0].set(fault);
    }
    let report = fleet.turn(Turn::Register(600), 0..1000, &nodes).await.expect("sockets");
    assert!(report.is_clean(), "{report}");
    doubles[0].set(fault);
    // Silence costs its full wait: one burst of it is enough.
    let who = if fault == Fault::Silent { 0..100 } else { 0..1000 };
    fleet.turn(turn, who, &nodes).await.expect("sockets")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_seen() {
    for (fault, turn, least, most) in [
        (Fault::Forget(100), Turn::Lookup, 10, 10),
        (Fault::Deny(17), Turn::Lookup, 1, 1),
        (Fault::AlterQ, Turn::Lookup, 20, 200),
        (Fault::DropPath, Turn::Lookup, 800, 1000),
        (Fault::Keep, Turn::Unregister, 1000, 1000),
        (Fault::Keep, Turn::Clear, 1000, 1000),
        (Fault::NotReady, Turn::Query, 1000, 1000),
        (Fault::Silent, Turn::Query, 100, 100),
    ] {
        let report = with_fault(fault, turn).await;
        assert!((least..=most).contains(&report.mismatches.count), "{fault:?}: {report}");
        assert!(!report.is_clean());
    }
    let report = with_fault(Fault::NoTag, Turn::Lookup).await;
    assert_eq!((report.mismatches.count, report.stats.malformed.count), (0, 1000), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_and_a_refusing_node_are_passed_over() {
    let (doubles, addresses) = Double::cluster(3).await;
    doubles[0].set(Fault::Silent);
    doubles[1].set(Fault::NotReady);
    let mut fleet = fleet(500);
    let report = fleet.register(600, &addresses).await.expect("sockets");
    assert!(report.is_clean(), "{report}");
    assert!(report.stats.failed_over > 300 && report.stats.retransmitted > 50, "{report}");
}
