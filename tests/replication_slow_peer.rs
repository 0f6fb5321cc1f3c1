//! A peer that is linked and takes next to nothing costs the others a bounded outbox and no reply, and has everything soon
//! after it takes again. Whole cores without sockets; that a link itself holds little is `cluster_links`' to show.

mod replication_bench;

use aorta::replication::{Event, Settings, Start};
use replication_bench::{Bench, EPOCH_US, id};

/// `outbox_bytes_max` here: some three hundred changes.
const OUTBOX_BYTES: usize = 32 * 1024;
const TICK_US: u64 = 20_000;
/// Changes between two ticks: 2500 a second.
const PER_TICK: u32 = 50;
/// `ack_timeout_ms`, as it is by default.
const ACK_TIMEOUT_US: u64 = 300_000;

/// Three nodes that are ready.
fn three() -> Bench {
    let mut bench = Bench::default();
    for name in ["n1", "n2", "n3"] {
        let settings = |settings: &mut Settings| {
            (settings.bootstrap_min_nodes, settings.outbox_bytes_max) = (2, OUTBOX_BYTES);
        };
        bench.start(name, settings, Start { wall_us: EPOCH_US, ..Start::default() });
    }
    bench.link_all();
    bench.pass(2_000_000);
    bench
}

/// Load at n1 for so many ticks while n3 is reached by so few bytes a second; how many changes that were.
fn load(bench: &mut Bench, ticks: u32, per_second: u64) -> u32 {
    bench.slow.insert(id("n3"), per_second);
    for phone in 0..ticks * PER_TICK {
        bench.register("n1", phone);
        let view = bench.view("n1");
        assert!(view.outbox_bytes <= OUTBOX_BYTES, "{} bytes", view.outbox_bytes);
        // n2 acks within a tick: what waits, waits for n3, and no longer than until it is suspect.
        let longest = u64::from(PER_TICK) * (ACK_TIMEOUT_US / TICK_US + 3);
        assert!(view.replies_waiting as u64 <= longest, "{} replies wait", view.replies_waiting);
        if phone % PER_TICK == PER_TICK - 1 {
            bench.pass(TICK_US);
        }
    }
    // Whoever waits for it waits no longer than until it is suspect.
    bench.pass(ACK_TIMEOUT_US + 2 * TICK_US);
    ticks * PER_TICK
}

/// It takes again as fast as anybody, and holds all of it.
fn takes_again(bench: &mut Bench, changes: u32) {
    bench.slow.clear();
    bench.pass(3_000_000);
    assert!(bench.is_ready("n3"), "{}", bench.reason("n3"));
    assert!((0..changes).all(|phone| bench.knows("n3", phone) && bench.knows("n2", phone)));
    assert_eq!(bench.view("n1").root, bench.view("n3").root);
    bench.released("n1");
    bench.register("n1", changes);
    bench.pass(TICK_US);
    assert_eq!(bench.released("n1"), [(changes, false)], "it is awaited again");
}

#[test]
fn a_peer_that_reads_nothing_is_given_up_within_bounds_and_repaired_when_it_reads() {
    let mut bench = three();
    bench.events("n1");
    let changes = load(&mut bench, 100, 1);
    let events = bench.events("n1");
    let count = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
    assert!(count(|event| matches!(event, Event::Overflow { .. })) > 0, "{events:?}");
    assert!(bench.is_ready("n1") && bench.is_ready("n2"), "the others serve");
    let released = bench.released("n1");
    assert_eq!(released.len(), changes as usize, "nobody waits for it for ever");
    takes_again(&mut bench, changes);
}

#[test]
fn a_peer_behind_a_narrow_path_costs_no_more() {
    let mut bench = three();
    let changes = load(&mut bench, 200, 125_000 / 8);
    assert!(bench.is_ready("n1") && bench.is_ready("n2"), "the others serve");
    assert_eq!(bench.released("n1").len(), changes as usize);
    takes_again(&mut bench, changes);
}
