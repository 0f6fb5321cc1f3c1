//! Of nodes that accuse each other some give way, and one stays: whoever goes against the order of ids goes on a promise.
//! Whole cores without sockets; that nobody is ever left without one that serves is judged by the simulator, too.

#[allow(dead_code, reason = "the bench serves several tests, and none of them uses all of it")]
mod replication_bench;

use aorta::replication::Event;
use replication_bench::{Bench, id};

const TICK_US: u64 = 20_000;
/// `ack_timeout_ms`, as it is by default.
const ACK_TIMEOUT_US: u64 = 300_000;
/// For so long an accusation stands before a promise.
const STANDS_US: u64 = 500_000;

fn fenced(bench: &mut Bench, name: &str) -> bool {
    bench.events(name).iter().any(|event| matches!(event, Event::Fenced { .. }))
}

/// For whom a node stays, as gossip tells it.
fn stays_for(bench: &Bench, name: &str) -> String {
    bench.core(name).gossip()["stays_for"].clone()
}

/// n3 has changes, and nothing of them reaches n1, which has none.
fn n1_hears_nothing() -> Bench {
    let mut bench = Bench::of_three();
    bench.slow.insert(id("n1"), 1);
    bench.register("n3", 1);
    // The first bytes take the path for ever.
    bench.pass(TICK_US);
    bench.register("n3", 2);
    for name in ["n1", "n2", "n3"] {
        bench.events(name);
    }
    bench
}

#[test]
fn of_three_that_accuse_each_other_the_smallest_stays() {
    let mut bench = Bench::of_three();
    for (phone, name) in ["n1", "n2", "n3"].into_iter().enumerate() {
        bench.register(name, phone as u32);
    }
    bench.stall(ACK_TIMEOUT_US + TICK_US);
    for name in ["n1", "n2", "n3"] {
        assert_eq!(bench.view(name).peers.iter().filter(|peer| peer.suspect).count(), 2, "{name} accuses both");
    }
    for _ in 0..50 {
        bench.pass(TICK_US);
        assert!(bench.is_ready("n1"), "{}", bench.reason("n1"));
    }
    assert!(!fenced(&mut bench, "n1") && fenced(&mut bench, "n3"));
    for name in ["n1", "n2", "n3"] {
        assert_eq!(bench.reason(name), "", "{name} is in sync, and doubts nothing");
        assert!((0..3).all(|phone| bench.knows(name, phone)), "{name}");
    }
}

#[test]
fn an_accuser_with_a_greater_id_promises_to_stay_before_the_accused_gives_way() {
    let mut bench = n1_hears_nothing();
    bench.pass(ACK_TIMEOUT_US + TICK_US);
    assert!(bench.is_ready("n1") && stays_for(&bench, "n3").is_empty(), "n1 may be about to accuse n3");
    bench.pass(STANDS_US - 4 * TICK_US);
    assert!(bench.is_ready("n1") && stays_for(&bench, "n3").is_empty());
    bench.pass(6 * TICK_US);
    assert!(stays_for(&bench, "n3").starts_with("n1@"), "{:?}", bench.core("n3").gossip());
    assert!(fenced(&mut bench, "n1"), "{}", bench.reason("n1"));
    assert!(bench.is_ready("n2") && bench.is_ready("n3"));
}

#[test]
fn who_promised_stays_though_a_smaller_one_accuses_it_until_the_promise_is_over() {
    let mut bench = n1_hears_nothing();
    bench.pass(ACK_TIMEOUT_US + STANDS_US + 4 * TICK_US);
    assert!(fenced(&mut bench, "n1"), "{}", bench.reason("n1"));
    bench.slow.insert(id("n3"), 1);
    bench.register("n2", 3);
    bench.pass(TICK_US);
    bench.register("n2", 4);
    bench.pass(3_000_000);
    let accused = bench.view("n2").peers.iter().any(|peer| peer.node == id("n3") && peer.suspect);
    assert!(accused && bench.is_ready("n3"), "{}", bench.reason("n3"));
    bench.pass(1_500_000);
    assert!(fenced(&mut bench, "n3") && bench.is_ready("n2"), "{}", bench.reason("n3"));
}

#[test]
fn a_suspect_that_stayed_and_has_all_is_trusted_though_nobody_says_anything() {
    let mut bench = n1_hears_nothing();
    bench.pass(ACK_TIMEOUT_US + 2 * TICK_US);
    assert!(bench.view("n3").peers.iter().any(|peer| peer.suspect));
    bench.slow.clear();
    bench.pass(5 * TICK_US);
    assert!(bench.view("n3").peers.iter().all(|peer| !peer.suspect), "{:?}", bench.view("n3").peers);
    assert!(!fenced(&mut bench, "n1") && bench.knows("n1", 2));
}
