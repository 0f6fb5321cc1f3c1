//! How long entries are remembered where members grant different lifetimes. Whole cores without sockets.

#[allow(dead_code, reason = "the bench serves several tests, and none of them uses all of it")]
mod replication_bench;

use aorta::replication::{Settings, Start};
use aorta_proto::record::horizon_us;
use replication_bench::{Bench, EPOCH_US, id};

const AHEAD_S: u32 = 5;
const SECOND_US: u64 = 1_000_000;

fn grants(expires_max_s: u32) -> impl FnOnce(&mut Settings) {
    move |settings| {
        (settings.bootstrap_min_nodes, settings.clock_ahead_max_s) = (2, AHEAD_S);
        settings.expires_max_s = expires_max_s;
    }
}

/// n1 grants 200 s, two others 10 s.
fn three() -> Bench {
    let mut bench = Bench::default();
    for (name, expires_max_s) in [("n1", 200), ("n2", 10), ("n3", 10)] {
        bench.start(name, grants(expires_max_s), Start { wall_us: EPOCH_US, ..Start::default() });
    }
    bench.link_all();
    bench.pass(2 * SECOND_US);
    bench
}

fn horizon(bench: &Bench, name: &str) -> u64 {
    bench.core(name).horizon_us(bench.now(name))
}

/// n1 granted 200 s to phone 0 a moment ago, and has left by the book.
fn two_that_one_has_left() -> Bench {
    let mut bench = three();
    bench.grant("n1", 0, 200);
    bench.pass(SECOND_US);
    let effects = bench.core("n1").drain(0, 5 * SECOND_US, bench.now("n1"));
    bench.take("n1", effects);
    bench.pass(SECOND_US);
    let effects = bench.core("n1").leave(bench.now("n1"));
    bench.take("n1", effects);
    bench.pass(SECOND_US);
    assert!(bench.core("n1").said_good_bye());
    bench.unlink("n1", "n2");
    bench.unlink("n1", "n3");
    bench.kill("n1");
    bench
}

#[test]
fn what_a_member_grants_is_remembered_however_long_it_is_not_heard() {
    let mut bench = three();
    let longest_us = horizon_us(200, AHEAD_S);
    bench.unheard.insert(id("n2"));
    bench.unlink("n1", "n2");
    bench.unlink("n2", "n3");
    bench.pass(longest_us);
    bench.register("n1", 0);
    bench.pass(90 * SECOND_US);
    assert_eq!(horizon(&bench, "n2"), longest_us, "n1 may go on where n2 does not hear it");
    bench.unheard.clear();
    bench.link_all();
    bench.pass(2 * SECOND_US);
    assert!(["n1", "n2", "n3"].iter().all(|name| bench.knows(name, 0)), "for another ten seconds it may ring");
}

#[test]
fn what_a_member_that_left_had_granted_rings_on() {
    let mut bench = two_that_one_has_left();
    bench.pass(190 * SECOND_US);
    for name in ["n2", "n3"] {
        assert!(bench.knows(name, 0), "for another few seconds it may ring");
    }
    bench.pass(200 * SECOND_US + horizon_us(200, AHEAD_S));
    for name in ["n2", "n3"] {
        assert_eq!(horizon(&bench, name), horizon_us(10, AHEAD_S), "nobody grants so much, and nothing has it");
    }
}

#[test]
fn who_joins_later_remembers_as_long() {
    let mut bench = two_that_one_has_left();
    bench.start("n4", grants(10), Start { wall_us: EPOCH_US, ..Start::default() });
    bench.link_two("n4", "n2");
    bench.link_two("n4", "n3");
    bench.pass(2 * SECOND_US);
    assert!(bench.is_ready("n4"), "{}", bench.reason("n4"));
    assert_eq!(horizon(&bench, "n4"), horizon_us(200, AHEAD_S), "it holds a contact that lives so long");
    bench.pass(180 * SECOND_US);
    for name in ["n2", "n3", "n4"] {
        assert!(bench.knows(name, 0), "for another few seconds it may ring");
    }
}
