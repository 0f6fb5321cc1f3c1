//! Nodes whose acks are not awaited though they serve, or may before anybody hears of it: a reply that goes without one of
//! them is short.

#[allow(dead_code, reason = "the bench serves several tests, and none of them uses all of it")]
mod replication_bench;

use aorta::replication::{Event, Member, Settings, Start, TICK_US};
use aorta_proto::frame::Class;
use replication_bench::{Bench, EPOCH_US, id};

#[test]
fn a_joiner_that_lost_its_place_may_serve_before_it_hears_of_it() {
    let mut bench = Bench::default();
    for (name, min) in [("n1", 1), ("n2", 2)] {
        let settings = |settings: &mut Settings| {
            (settings.bootstrap_min_nodes, settings.outbox_bytes_max) = (min, 20_000);
        };
        bench.start(name, settings, Start { wall_us: EPOCH_US, ..Start::default() });
    }
    bench.pass(100_000);
    assert!(bench.is_ready("n1"));
    bench.link_all();
    bench.lose("n1", "n2", Class::Bulk);
    bench.pass(100_000);
    assert!(!bench.is_ready("n2"), "it has subscribed, and cannot make its exchange: {}", bench.reason("n2"));
    (0..500).for_each(|phone| bench.register("n1", phone));
    assert!(bench.events("n1").contains(&Event::Overflow { peer: id("n2") }));
    let released = bench.released("n1");
    assert!(released.iter().all(|(_, short)| *short), "it may have finished its exchange meanwhile: {released:?}");
}

/// A joiner that waits for a link to n3, which serves.
fn three_and_one_that_does_not_reach_the_third() -> Bench {
    let mut bench = Bench::of_three();
    bench.start("n4", |_| {}, Start { wall_us: EPOCH_US, ..Start::default() });
    bench.link_two("n4", "n1");
    bench.link_two("n4", "n2");
    bench.pass(500_000);
    assert!(bench.reason("n4").contains("waits for a link to n3"), "{}", bench.reason("n4"));
    bench
}

#[test]
fn a_joiner_may_serve_whose_young_link_broke_before_gossip_told_of_it() {
    let mut bench = three_and_one_that_does_not_reach_the_third();
    bench.hears_no_news("n3");
    bench.link_two("n4", "n3");
    ["n1", "n2", "n3"].into_iter().for_each(|peer| bench.lose("n4", peer, Class::Bulk));
    bench.pass(TICK_US);
    assert!(!bench.is_ready("n4"), "it has its Mark of n3, and cannot make its exchange");
    // Gossip loses it for a moment: it is not awaited any more. Before it hears so its link breaks.
    let others = ["n1", "n2"].map(|name| Member::from_keys(id(name), &bench.core(name).gossip()).expect("a member"));
    let effects = bench.core("n3").members(others.to_vec(), bench.now("n3"));
    bench.take("n3", effects);
    assert!(bench.events("n3").iter().any(|event| matches!(event, Event::Suspect { peer, .. } if *peer == id("n4"))));
    bench.unlink("n3", "n4");
    bench.pass(TICK_US);
    bench.register("n3", 0);
    bench.pass(TICK_US);
    assert_eq!(bench.released("n3"), [(0, true)], "it may have finished its exchange just before");
    bench.pass(1_000_000);
    bench.register("n3", 1);
    bench.pass(TICK_US);
    assert_eq!(bench.released("n3"), [(1, false)], "gossip would tell by now");
}

#[test]
fn an_exchange_lasts_only_while_all_who_serve_are_heard() {
    let mut bench = three_and_one_that_does_not_reach_the_third();
    bench.register("n3", 0);
    bench.pass(1_000);
    assert_eq!(bench.released("n3"), [(0, false)], "all who serve hold it");
    assert!(!bench.knows("n4", 0), "changes are not relayed");
    let effects = bench.core("n3").slept(1_000_000, bench.now("n3"));
    bench.take("n3", effects);
    // It does not find back, and nobody shows it any more.
    bench.unlink("n1", "n3");
    bench.unlink("n2", "n3");
    // One tick: before anything else repairs what n4 lacks.
    bench.pass(20_000);
    assert!(bench.is_ready("n4"), "nobody who serves is out of reach: {}", bench.reason("n4"));
    assert!(bench.knows("n4", 0), "it asked again for what it could not hear");
}

#[test]
fn a_reply_of_a_node_that_ceases_to_serve_is_short_while_somebody_is_not_awaited() {
    let mut bench = three_and_one_that_does_not_reach_the_third();
    bench.register("n3", 0);
    let effects = bench.core("n3").slept(1_000_000, bench.now("n3"));
    bench.take("n3", effects);
    bench.pass(1_000);
    assert_eq!(bench.released("n3"), [(0, true)], "n4 no longer waits for n3, and may have asked its donor before");
}

#[test]
fn a_node_that_serves_and_has_not_subscribed_yet_goes_without() {
    let mut bench = Bench::default();
    bench.start_with("n1", 1);
    bench.start_with("n2", 1);
    bench.pass(2_000_000);
    assert!(bench.is_ready("n1") && bench.is_ready("n2"), "each has begun without the other");
    bench.link_all();
    bench.register("n1", 0);
    assert_eq!(bench.released("n1"), [(0, true)], "n2 serves, and its Subscribe is under way");
}

#[test]
fn a_joiner_may_have_begun_to_serve_before_it_heard_that_another_does() {
    for (served_for_us, short) in [(100_000, true), (2_000_000, false)] {
        let mut bench = Bench::default();
        bench.start_with("n1", 2);
        bench.start_with("n3", 2);
        bench.link_all();
        bench.pass(served_for_us);
        assert!(bench.is_ready("n1") && bench.is_ready("n3"));
        bench.start_with("n2", 2);
        bench.link_two("n1", "n2");
        bench.register("n1", 0);
        bench.pass(1_000);
        assert_eq!(bench.released("n1"), [(0, short)], "later every joiner has heard, and waits for a Mark");
    }
}

#[test]
fn a_node_that_just_began_answers_short_while_a_peer_is_linked_with_one_that_it_does_not_know() {
    for registers_before in [false, true] {
        let mut bench = Bench::of_three();
        bench.start("n5", |_| {}, Start { wall_us: EPOCH_US, ..Start::default() });
        bench.link_two("n5", "n1");
        bench.pass(TICK_US);
        // Gossip told n4 that n5 joins, and told n5 nothing of n4 yet.
        bench.hears_no_news("n4");
        bench.hears_no_news("n5");
        bench.link_two("n5", "n2");
        bench.link_two("n5", "n3");
        bench.pass(TICK_US);
        assert!(bench.is_ready("n5"), "{}", bench.reason("n5"));
        if registers_before {
            bench.register("n5", 0);
        }
        bench.start("n4", |_| {}, Start { wall_us: EPOCH_US, ..Start::default() });
        for peer in ["n1", "n2", "n3"] {
            bench.link_two("n4", peer);
        }
        bench.pass(TICK_US);
        assert!(bench.is_ready("n4"), "it has heard of nobody else who serves: {}", bench.reason("n4"));
        if !registers_before {
            bench.register("n5", 0);
        }
        bench.pass(TICK_US);
        assert_eq!(bench.released("n5"), [(0, true)], "n4 may serve without this change: {registers_before}");
    }
}

#[test]
fn what_only_one_of_several_members_holds_is_short() {
    for members in 1..=2 {
        let mut bench = Bench::default();
        for (name, min) in [("n1", 1), ("n2", 2)].into_iter().take(members) {
            bench.start_with(name, min);
        }
        bench.pass(2_000_000);
        assert!(bench.is_ready("n1"));
        bench.link_all();
        bench.register("n1", 0);
        assert_eq!(bench.released("n1"), [(0, members > 1)], "n2 joins, and has not subscribed");
    }
}

#[test]
fn a_joiner_that_has_not_heard_that_a_node_serves_may_serve_without_its_mark() {
    let mut bench = Bench::default();
    for name in ["n1", "n2"] {
        let settings = |settings: &mut Settings| {
            (settings.bootstrap_min_nodes, settings.outbox_bytes_max) = (2, 20_000);
        };
        bench.start(name, settings, Start { wall_us: EPOCH_US, ..Start::default() });
    }
    // What n1 says first gets through, and for long nothing after it: not the Mark, nor that n1 serves.
    bench.slow.insert(id("n2"), 1);
    bench.link_all();
    bench.pass(0);
    let effects = bench.core("n1").force_ready(bench.now("n1"));
    bench.take("n1", effects);
    assert!(bench.is_ready("n1") && !bench.is_ready("n2"));
    (0..500).for_each(|phone| bench.register("n1", phone));
    assert!(bench.events("n1").contains(&Event::Overflow { peer: id("n2") }), "it has subscribed");
    let released = bench.released("n1");
    assert_eq!(released.len(), 500, "nobody else is awaited");
    assert!(released.iter().all(|(_, short)| *short), "n2 may join another node meanwhile: {released:?}");
}
