//! Nodes that leave: what only they held, and who hears of it. Whole cores without sockets; that a process drains on a
//! signal is `nodes_processes`' to show.

#[allow(dead_code, reason = "the bench serves several tests, and none of them uses all of it")]
mod replication_bench;

use aorta::replication::{Event, Start};
use aorta_proto::frame::LastKnown;
use replication_bench::{Bench, EPOCH_US, id};

/// n3 gives away what only it holds.
fn drain_third(bench: &mut Bench) {
    let effects = bench.core("n3").drain(0, 5_000_000, bench.now("n3"));
    bench.take("n3", effects);
    bench.pass(600_000);
}

/// n3 says good-bye to whom it is linked with.
fn third_leaves(bench: &mut Bench) {
    let effects = bench.core("n3").leave(bench.now("n3"));
    bench.take("n3", effects);
    bench.pass(10_000);
}

#[test]
fn a_drain_that_finds_nobody_says_what_only_this_node_holds() {
    let mut bench = Bench::of_three();
    (0..10).for_each(|phone| bench.register("n1", phone));
    bench.pass(10_000);
    for other in ["n2", "n3"] {
        bench.unlink("n1", other);
    }
    bench.write("n1", 11);
    let effects = bench.core("n1").drain(0, 1_000_000, bench.now("n1"));
    bench.take("n1", effects);
    bench.pass(2_000_000);
    assert!(bench.events("n1").contains(&Event::DrainTimeout { only_here: 11 }));
}

#[test]
fn a_drain_gives_away_what_only_this_node_holds() {
    let mut bench = Bench::of_three();
    bench.write("n3", 5);
    let effects = bench.core("n3").drain(500_000, 5_000_000, bench.now("n3"));
    bench.take("n3", effects);
    let serving = bench.core("n3").serving();
    assert!(serving.requests && !serving.options, "grace: probes see it, calls go on");
    bench.pass(600_000);
    assert!(!bench.core("n3").serving().requests);
    assert!(bench.events("n3").contains(&Event::Drained));
    assert!(bench.knows("n1", 5), "its heir");
    third_leaves(&mut bench);
    assert!(bench.core("n3").said_good_bye());
    bench.kill("n3");
    assert!(bench.core("n1").last_known().iter().all(|known| known.node != id("n3")), "nobody waits for it");
    bench.register("n1", 6);
    bench.pass(10_000);
    assert_eq!(bench.released("n1"), [(6, false)]);
}

#[test]
fn a_good_bye_reaches_those_who_have_no_link_to_who_leaves() {
    let mut bench = Bench::of_three();
    bench.unlink("n1", "n3");
    bench.pass(10_000);
    drain_third(&mut bench);
    // From here on gossip is no help.
    bench.hears_no_news("n1");
    third_leaves(&mut bench);
    for name in ["n1", "n2"] {
        assert!(bench.core(name).last_known().iter().all(|known| known.node != id("n3")), "{name} waits for it");
    }
}

#[test]
fn a_good_bye_is_told_again_when_gossip_shows_it_too() {
    let mut bench = Bench::of_three();
    bench.unlink("n1", "n3");
    bench.pass(10_000);
    // Gossip is late: it shows that n3 serves.
    bench.hears_no_news("n1");
    drain_third(&mut bench);
    third_leaves(&mut bench);
    let remembers = |bench: &Bench| bench.core("n1").last_known().iter().any(|known| known.node == id("n3"));
    assert!(remembers(&bench), "it may be the next process that gossip shows");
    bench.kill("n3");
    bench.hears_again("n1");
    bench.pass(100_000);
    assert!(!remembers(&bench), "it waits for it");
}

#[test]
fn a_good_bye_reaches_who_was_away() {
    let mut bench = Bench::of_three();
    drain_third(&mut bench);
    third_leaves(&mut bench);
    bench.kill("n3");
    let known = |name| LastKnown { node: id(name), expires_max_s: 7200, seen_us: EPOCH_US };
    let start = Start { wall_us: EPOCH_US, last_known: vec![known("n1"), known("n3")], ..Start::default() };
    bench.start("n4", |settings| settings.bootstrap_min_nodes = 2, start);
    bench.link_two("n1", "n4");
    bench.pass(10_000);
    let last_known = bench.core("n4").last_known();
    assert!(last_known.iter().any(|known| known.node == id("n1")), "{last_known:?}");
    assert!(last_known.iter().all(|known| known.node != id("n3")), "it waits for it");
}
