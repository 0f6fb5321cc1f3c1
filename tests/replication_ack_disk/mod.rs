//! `ack = "disk"` between whole cores: what a reply waits for, and what becomes of it when a disk does not keep up. The disk
//! itself is the bench's, which takes what is awaited or nothing; the real one is in `location::snapshot` and
//! `acceptance::power`.

use crate::replication_bench::{Bench, EPOCH_US, id};
use aorta::replication::{AckMode, Event, Start};
use aorta_proto::BootId;

const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// Three nodes that are ready; those of `disk` with `ack = "disk"`.
fn three(disk: &[&str]) -> Bench {
    let mut bench = Bench::default();
    for name in NAMES {
        let ack = if disk.contains(&name) { AckMode::Disk } else { AckMode::All };
        let start = Start { wall_us: EPOCH_US, ..Start::default() };
        bench.start(name, |settings| (settings.ack, settings.bootstrap_min_nodes) = (ack, 2), start);
    }
    bench.link_all();
    bench.pass(2_000_000);
    assert!(NAMES.iter().all(|name| bench.is_ready(name)), "{:?}", NAMES.map(|name| bench.reason(name)));
    bench
}

#[test]
fn a_reply_waits_for_every_disk() {
    let mut bench = three(&NAMES);
    bench.full.extend(NAMES.map(id));
    bench.register("n1", 0);
    bench.pass(20_000);
    assert!(bench.knows("n2", 0) && bench.knows("n3", 0) && !bench.has_on_disk("n1", 0));
    for name in NAMES {
        assert!(bench.released("n1").is_empty(), "not yet on the disk of {name}");
        bench.full.remove(&id(name));
        bench.pass(20_000);
        assert!(bench.has_on_disk(name, 0));
    }
    assert_eq!(bench.released("n1"), [(0, false)]);
}

#[test]
fn who_answers_decides_and_the_others_commit_whatever_their_own_ack_is() {
    let mut bench = three(&["n1"]);
    bench.register("n1", 0);
    bench.pass(1_000);
    assert_eq!(bench.released("n1"), [(0, false)]);
    assert!(NAMES.iter().all(|name| bench.has_on_disk(name, 0)));
    bench.full.extend(NAMES.map(id));
    bench.register("n2", 1);
    bench.pass(1_000);
    assert_eq!(bench.released("n2"), [(1, false)], "it waits for no disk");
}

#[test]
fn what_came_before_the_question_is_on_disk_before_it_is_answered() {
    let mut bench = three(&["n1"]);
    // n2 tells of a change, and n3 has it from there; nobody awaits it on disk.
    bench.register("n2", 7);
    bench.pass(1_000);
    assert!(bench.knows("n1", 7) && !bench.has_on_disk("n1", 7) && !bench.has_on_disk("n3", 7));
    // A phone repeats at n1 what n2 answered: the same entry, published again under its own stamp.
    bench.repeat("n1", 7);
    bench.pass(1_000);
    assert_eq!(bench.released("n1"), [(7, false)]);
    assert!(NAMES.iter().all(|name| bench.has_on_disk(name, 7)), "a retransmission awaits the disks too");
    // So after a link was lost and came back.
    bench.unlink("n1", "n3");
    bench.register("n1", 8);
    bench.pass(50_000);
    assert!(bench.released("n1").is_empty());
    bench.link_two("n1", "n3");
    bench.pass(50_000);
    assert_eq!(bench.released("n1"), [(8, false)]);
    assert!(bench.has_on_disk("n3", 8));
}

#[test]
fn a_disk_that_takes_nothing_makes_replies_short_and_nobody_suspect() {
    for late in ["n1", "n2"] {
        let mut bench = three(&NAMES);
        bench.events("n1");
        bench.full.insert(id(late));
        bench.register("n1", 0);
        bench.pass(280_000);
        assert!(bench.released("n1").is_empty(), "{late}: it may still come");
        bench.pass(100_000);
        assert_eq!(bench.released("n1"), [(0, true)], "{late}: after the ack timeout");
        assert!(bench.reason("n1").contains(&format!("the disk of {late}")), "{}", bench.reason("n1"));
        // The next ones do not wait for it, and say so.
        bench.register("n1", 1);
        bench.pass(1_000);
        assert_eq!(bench.released("n1"), [(1, true)], "{late}");
        bench.pass(2_000_000);
        assert!(NAMES.iter().all(|name| bench.is_ready(name)), "a late disk serves as well as any");
        let events = bench.events("n1");
        let said: Vec<_> = events.iter().filter(|event| !matches!(event, Event::ExchangeDone { .. })).collect();
        assert_eq!(said, [&Event::DiskLate { node: id(late) }], "said once");
        // There is room again.
        bench.full.clear();
        bench.pass(20_000);
        assert_eq!(bench.reason("n1"), "");
        assert!(bench.events("n1").contains(&Event::DiskCaughtUp { node: id(late) }));
        bench.register("n1", 2);
        bench.pass(1_000);
        assert_eq!(bench.released("n1"), [(2, false)], "{late}");
        assert!(NAMES.iter().all(|name| (0..3).all(|phone| bench.has_on_disk(name, phone))));
    }
}

#[test]
fn a_node_alone_waits_for_its_own_disk() {
    let mut bench = Bench::default();
    let start = Start { wall_us: EPOCH_US, ..Start::default() };
    bench.start("n1", |settings| (settings.ack, settings.cluster) = (AckMode::Disk, false), start);
    bench.pass(100_000);
    bench.full.insert(id("n1"));
    bench.register("n1", 0);
    bench.pass(20_000);
    assert!(bench.released("n1").is_empty());
    bench.full.clear();
    bench.pass(20_000);
    assert_eq!(bench.released("n1"), [(0, false)]);
    assert!(bench.has_on_disk("n1", 0));
}

#[test]
fn who_rejoins_between_its_ack_and_its_commit_is_waited_for_and_who_dies_is_not() {
    let mut bench = three(&NAMES);
    bench.full.insert(id("n3"));
    bench.register("n1", 0);
    bench.pass(20_000);
    let effects = bench.core("n3").slept(0, bench.now("n3"));
    bench.take("n3", effects);
    bench.pass(100_000);
    assert!(bench.released("n1").is_empty(), "its new epoch says nothing yet of its disk");
    bench.full.clear();
    bench.pass(20_000);
    assert_eq!(bench.released("n1"), [(0, false)]);
    assert!(bench.has_on_disk("n3", 0));

    bench.full.insert(id("n3"));
    bench.register("n1", 1);
    bench.pass(20_000);
    bench.unlink("n1", "n3");
    bench.unlink("n2", "n3");
    bench.kill("n3");
    bench.start("n3", |settings| settings.boot = BootId(33), Start { wall_us: EPOCH_US, ..Start::default() });
    bench.link_all();
    bench.pass(20_000);
    assert_eq!(bench.released("n1"), [(1, true)], "another process: what the one before had merged is gone with it");
}
