//! Whose memory counts: one node's that is full makes all of them refuse, for as long as it is a member. Whole cores without
//! sockets.

#[allow(dead_code, reason = "the bench serves several tests, and none of them uses all of it")]
mod replication_bench;

use aorta::location::Room;
use aorta::replication::{Event, Start};
use replication_bench::{Bench, EPOCH_US, id};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const MAX_BYTES: u64 = 1_000_000;

/// Three that are ready, of which n2 has a limit.
fn three() -> Bench {
    let mut bench = Bench::default();
    for name in NODES {
        let start = Start { wall_us: EPOCH_US, ..Start::default() };
        let max_bytes = if name == "n2" { MAX_BYTES } else { 0 };
        bench.start(name, |set| (set.bootstrap_min_nodes, set.memory_max_bytes) = (2, max_bytes), start);
    }
    bench.link_all();
    bench.pass(2_000_000);
    bench
}

/// The table of n2 takes so much, and everybody has heard of it.
fn fill(bench: &mut Bench, bytes: u64) {
    let effects = bench.core("n2").memory(bytes, bench.now("n2"));
    bench.take("n2", effects);
    bench.pass(100_000);
}

fn rooms(bench: &Bench) -> [Room; 3] {
    NODES.map(|name| bench.core(name).serving().room)
}

#[test]
fn what_one_has_no_room_for_nobody_accepts() {
    let mut bench = three();
    assert_eq!(rooms(&bench), [Room::ForAll; 3]);
    let own = bench.core("n2").memory(MAX_BYTES, bench.now("n2"));
    assert!(own.gossip_changed, "the others are told");
    assert_eq!(bench.core("n2").serving().room, Room::ForKnown, "at once");
    bench.take("n2", own);
    bench.pass(100_000);
    assert_eq!(rooms(&bench), [Room::ForKnown; 3]);
    assert!(NODES.iter().all(|name| bench.is_ready(name)), "they serve all else");
    fill(&mut bench, MAX_BYTES * 12 / 10);
    assert_eq!(rooms(&bench), [Room::ForRegistered; 3]);
    fill(&mut bench, MAX_BYTES / 2);
    assert_eq!(rooms(&bench), [Room::ForAll; 3]);
}

#[test]
fn each_turn_is_told_once_with_the_names_of_who_is_full() {
    let mut bench = three();
    NODES.iter().for_each(|name| drop(bench.events(name)));
    for bytes in [MAX_BYTES, MAX_BYTES + 1, MAX_BYTES, 0, 0] {
        fill(&mut bench, bytes);
        let shown = if bytes == 0 { vec![] } else { vec![id("n2")] };
        assert!(NODES.iter().all(|name| bench.view(name).memory_full == shown));
    }
    for name in NODES {
        let of_room = |event: &Event| matches!(event, Event::Room { .. });
        let told: Vec<Event> = bench.events(name).into_iter().filter(of_room).collect();
        let full = Event::Room { room: Room::ForKnown, full: vec![id("n2")] };
        assert_eq!(told, [full, Event::Room { room: Room::ForAll, full: vec![] }], "{name}");
    }
    assert_eq!(bench.reason("n1"), "");
    fill(&mut bench, MAX_BYTES);
    assert_eq!(bench.reason("n1"), "memory is full at n2: AoRs of which nothing is known get 403");
}

#[test]
fn merges_go_on_at_a_node_that_is_full_and_their_replies_are_whole() {
    let mut bench = three();
    fill(&mut bench, 2 * MAX_BYTES);
    bench.register("n1", 7);
    bench.pass(1_000);
    assert_eq!(bench.released("n1"), [(7, false)]);
    assert!(bench.knows("n2", 7));
}

#[test]
fn who_joins_counts_before_it_serves_and_learns_who_is_full() {
    let mut bench = three();
    let start = Start { wall_us: EPOCH_US, ..Start::default() };
    bench.start("n4", |settings| settings.memory_max_bytes = MAX_BYTES, start);
    bench.link_two("n1", "n4");
    let effects = bench.core("n4").memory(MAX_BYTES, bench.now("n4"));
    bench.take("n4", effects);
    bench.pass(100_000);
    assert!(!bench.is_ready("n4"), "{}", bench.reason("n4"));
    assert_eq!(rooms(&bench), [Room::ForKnown; 3], "it is to hold what they accept now");
    let effects = bench.core("n4").memory(0, bench.now("n4"));
    bench.take("n4", effects);
    fill(&mut bench, MAX_BYTES);
    bench.link_two("n2", "n4");
    bench.link_two("n3", "n4");
    bench.pass(2_000_000);
    assert!(bench.is_ready("n4"), "{}", bench.reason("n4"));
    assert_eq!(bench.core("n4").serving().room, Room::ForKnown);
}

#[test]
fn a_member_that_is_gone_counts_no_more_and_counts_again_when_it_is_back() {
    let mut bench = three();
    fill(&mut bench, MAX_BYTES);
    bench.unlink("n1", "n2");
    bench.unlink("n2", "n3");
    bench.pass(100_000);
    assert_eq!(rooms(&bench), [Room::ForAll, Room::ForKnown, Room::ForAll], "each side of a cut by its own");
    bench.link_all();
    bench.pass(2_000_000);
    assert_eq!(rooms(&bench), [Room::ForKnown; 3]);
    let effects = bench.core("n2").drain(0, 5_000_000, bench.now("n2"));
    bench.take("n2", effects);
    bench.pass(1_000_000);
    let effects = bench.core("n2").leave(bench.now("n2"));
    bench.take("n2", effects);
    bench.pass(1_000_000);
    assert_eq!((rooms(&bench)[0], rooms(&bench)[2]), (Room::ForAll, Room::ForAll), "it said good-bye");
}

#[test]
fn a_suspect_counts() {
    let mut bench = three();
    fill(&mut bench, MAX_BYTES);
    bench.stall(400_000);
    bench.register("n1", 0);
    bench.stall(400_000);
    let suspect = |event: &Event| matches!(event, Event::Suspect { peer, .. } if *peer == id("n2"));
    assert!(bench.events("n1").iter().any(suspect));
    assert_eq!(bench.core("n1").serving().room, Room::ForKnown);
}
