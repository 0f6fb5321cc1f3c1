//! A node that slept knows of the others what was so before. Whole cores without sockets; that a process notices its
//! sleep is `sip_transport`'s to show, and that sleepers deny nobody and serve no ghosts is the acceptance test's.

#[allow(dead_code, reason = "the bench serves several tests, and none of them uses all of it")]
mod replication_bench;

use aorta::replication::{Start, TICK_US};
use aorta_proto::frame::{Class, LastKnown};
use replication_bench::{Bench, EPOCH_US, id};

/// Shorter than `ack_timeout_ms` as it is by default.
const NAP_US: u64 = 200_000;
/// Long enough for others to give a node up and start the cluster without it.
const SLEEP_US: u64 = 5_000_000;

/// n1 serves; n2 has just met it.
fn one_that_serves_and_one_that_joins() -> Bench {
    let mut bench = Bench::default();
    [("n1", 1), ("n2", 2)].into_iter().for_each(|(name, min)| bench.start_with(name, min));
    bench.pass(100_000);
    bench.link_all();
    assert!(bench.is_ready("n1") && !bench.is_ready("n2"));
    bench
}

fn sleep(bench: &mut Bench, name: &str, gap_us: u64) {
    let effects = bench.core(name).slept(gap_us, bench.now(name));
    bench.take(name, effects);
}

#[test]
fn the_only_one_that_served_asks_those_that_may_have_begun_without_it() {
    let mut bench = one_that_serves_and_one_that_joins();
    sleep(&mut bench, "n1", SLEEP_US);
    assert!(!bench.is_ready("n1"), "n2 may have started the cluster and answered in full");
    bench.pass(1_000_000);
    assert!(bench.is_ready("n1") && bench.is_ready("n2"), "{} {}", bench.reason("n1"), bench.reason("n2"));
}

#[test]
fn the_only_one_that_serves_goes_on_after_a_nap() {
    let mut bench = one_that_serves_and_one_that_joins();
    sleep(&mut bench, "n1", NAP_US);
    assert!(bench.is_ready("n1"), "nobody gave it up: {}", bench.reason("n1"));
}

#[test]
fn who_has_no_others_goes_on_however_long_it_slept() {
    let mut bench = Bench::default();
    bench.start_with("n1", 1);
    bench.pass(100_000);
    sleep(&mut bench, "n1", SLEEP_US);
    assert!(bench.is_ready("n1"), "{}", bench.reason("n1"));
}

#[test]
fn who_slept_for_longer_than_it_is_waited_for_waits_for_the_others_itself() {
    let mut bench = one_that_serves_and_one_that_joins();
    bench.unlink("n1", "n2");
    sleep(&mut bench, "n1", SLEEP_US);
    assert!(!bench.is_ready("n1"), "n2 may have started the cluster without it");
    bench.pass(SLEEP_US);
    assert!(bench.is_ready("n1"), "nobody is there: {}", bench.reason("n1"));
}

#[test]
fn who_slept_while_it_waited_for_a_member_waits_anew() {
    let mut bench = Bench::default();
    let known = LastKnown { node: id("n2"), expires_max_s: 7200, seen_us: EPOCH_US };
    let start = Start { wall_us: EPOCH_US, last_known: vec![known], ..Start::default() };
    bench.start("n1", |settings| settings.bootstrap_min_nodes = 1, start);
    bench.pass(100_000);
    assert!(!bench.is_ready("n1"), "waits for n2");
    bench.stop_all(SLEEP_US);
    sleep(&mut bench, "n1", SLEEP_US);
    bench.pass(100_000);
    assert!(!bench.is_ready("n1"), "n2 was not silent, n1 heard nobody");
    bench.pass(SLEEP_US);
    assert!(bench.is_ready("n1"), "{}", bench.reason("n1"));
}

#[test]
fn who_slept_starts_no_cluster_with_one_that_it_has_not_heard_since() {
    let mut bench = Bench::default();
    [("n1", 3), ("n2", 4), ("n3", 4)].into_iter().for_each(|(name, min)| bench.start_with(name, min));
    bench.link_two("n1", "n2");
    bench.link_two("n2", "n3");
    bench.lose("n2", "n3", Class::Bulk);
    bench.pass(100_000);
    bench.hears_no_news("n1");
    // What n2 says next gets through to n1, and for long nothing after it: not that it serves.
    bench.slow.insert(id("n1"), 1);
    bench.pass(500_000);
    let effects = bench.core("n2").force_ready(bench.now("n2"));
    bench.take("n2", effects);
    sleep(&mut bench, "n1", SLEEP_US);
    bench.link_two("n1", "n3");
    bench.pass(TICK_US);
    assert!(bench.is_ready("n2") && !bench.is_ready("n1") && !bench.is_ready("n3"));
    let reason = bench.reason("n1");
    assert!(reason.contains("waits to hear from n2"), "n2 may serve meanwhile, as it does: {reason}");
    bench.slow.clear();
    bench.pass(1_000_000);
    assert!(bench.is_ready("n1"), "{}", bench.reason("n1"));
}
