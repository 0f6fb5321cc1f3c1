//! Replication between whole cores on perfect links, without sockets or tasks: what single rules of the design say, each in
//! the words of its paragraph. What happens when everything goes wrong at once is the simulator's (`aorta-chaos sim`).

mod replication_ack_disk;
#[allow(dead_code, reason = "the bench serves several tests, and none of them uses all of it")]
mod replication_bench;

use aorta::replication::{AckMode, Event, Linked, Purpose, Settings, Start, TICK_US};
use aorta_proto::frame::{Class, Envelope, Frame, LastKnown, VERSION_MAX, VERSION_MIN};
use replication_bench::{Bench, EPOCH_US, id};

#[test]
fn a_node_without_a_cluster_serves_at_once() {
    let mut bench = Bench::default();
    bench.start("n1", |settings| settings.cluster = false, Start { wall_us: EPOCH_US, ..Start::default() });
    bench.pass(100_000);
    assert!(bench.is_ready("n1"));
    assert!(bench.cluster_us("n1") >= EPOCH_US, "by the wall clock");
    bench.register("n1", 0);
    assert_eq!(bench.released("n1"), [(0, false)], "nobody is missing, so nothing is short");
}

#[test]
fn a_reply_waits_for_everybody_and_a_lost_link_releases_nothing() {
    let mut bench = Bench::of_three();
    bench.register("n1", 0);
    assert!(bench.released("n1").is_empty(), "before any frame went");
    bench.pass(1_000);
    assert_eq!(bench.released("n1"), [(0, false)]);
    assert!(bench.knows("n2", 0) && bench.knows("n3", 0));

    bench.unlink("n1", "n3");
    bench.register("n1", 1);
    bench.pass(200_000);
    assert!(bench.released("n1").is_empty(), "n2 acked; n3 may live and serve");
    bench.pass(200_000);
    assert_eq!(bench.released("n1"), [(1, true)], "n3 is suspect after the ack timeout");
    assert!(bench.events("n1").iter().any(|event| matches!(event, Event::Suspect { peer, .. } if *peer == id("n3"))));
}

#[test]
fn changes_that_come_together_are_merged_one_by_one() {
    let mut bench = Bench::of_three();
    let root = |bench: &Bench, name: &str| bench.view(name).root;
    // New phones, then refreshes of each and of some of them twice, and a phone between them that is new.
    for round in 0..3 {
        for phone in (0..40).chain(0..20 * round) {
            bench.grant("n1", phone, 600);
        }
        bench.grant("n1", 100 + round, 600);
        bench.pass(1_000);
        assert_eq!([root(&bench, "n2"), root(&bench, "n3")], [root(&bench, "n1"); 2], "round {round}");
    }
    assert!((0..40).chain(100..103).all(|phone| bench.knows("n2", phone)));
}

#[test]
fn a_node_that_everybody_was_silent_to_for_a_moment_doubts_no_longer_than_that() {
    let mut bench = Bench::of_three();
    bench.register("n1", 0);
    bench.stall(400_000);
    assert!(bench.reason("n1").starts_with("in doubt"), "nobody acked: {}", bench.reason("n1"));
    bench.pass(1_000_000);
    assert_eq!(bench.reason("n1"), "", "both acked, and one was asked what it had missed");
    assert!(bench.core("n1").serving().denies_unknown);
}

#[test]
fn a_joiner_that_gossip_shows_nobody_yet_awaits_those_whom_its_donor_is_linked_with() {
    let mut bench = Bench::of_three();
    bench.unheard.insert(id("n4"));
    bench.start("n4", |_| {}, Start { wall_us: EPOCH_US, ..Start::default() });
    bench.link_two("n4", "n1");
    bench.pass(500_000);
    assert!(!bench.is_ready("n4"), "n2 and n3 serve, and do not hold what n4 would answer for");
    assert!(bench.reason("n4").contains("waits for a link to n2"), "{}", bench.reason("n4"));
    bench.link_two("n4", "n2");
    bench.link_two("n4", "n3");
    bench.pass(500_000);
    assert!(bench.is_ready("n4"), "{}", bench.reason("n4"));
    bench.register("n4", 0);
    bench.pass(1_000);
    assert_eq!(bench.released("n4"), [(0, false)]);
    assert!(bench.knows("n2", 0) && bench.knows("n3", 0));
}

#[test]
fn ack_one_and_none_wait_for_less() {
    let mut bench = Bench::default();
    for (name, ack) in [("n1", AckMode::One), ("n2", AckMode::None), ("n3", AckMode::All)] {
        let start = Start { wall_us: EPOCH_US, ..Start::default() };
        bench.start(name, |settings| (settings.ack, settings.bootstrap_min_nodes) = (ack, 2), start);
    }
    bench.link_all();
    bench.pass(2_000_000);
    bench.unlink("n1", "n3");
    bench.register("n1", 0);
    bench.register("n2", 1);
    assert_eq!(bench.released("n2"), [(1, false)]);
    bench.pass(10_000);
    assert_eq!(bench.released("n1"), [(0, false)], "n2 holds it");
}

#[test]
fn waiting_replies_are_bounded_before_anything_is_written() {
    let bench = Bench::of_three();
    let places: Vec<_> = (0..65_536).map(|_| bench.core("n1").reserve()).collect();
    assert!(places.iter().all(Option::is_some));
    assert!(bench.core("n1").reserve().is_none());
    drop(places);
    assert!(bench.core("n1").reserve().is_some());
}

#[test]
fn a_minority_does_not_start_a_cluster() {
    let mut bench = Bench::default();
    bench.start_with("n1", 2);
    bench.pass(60_000_000);
    assert!(!bench.is_ready("n1"));
    assert!(bench.reason("n1").contains("1 of at least 2"), "{}", bench.reason("n1"));
    let effects = bench.core("n1").force_ready(bench.now("n1"));
    bench.take("n1", effects);
    assert!(bench.is_ready("n1"), "unless an operator says so");
}

#[test]
fn those_who_start_wait_for_a_seed_that_is_not_reached_but_not_for_ever() {
    let mut bench = Bench::default();
    for name in ["n1", "n2"] {
        let start = Start { wall_us: EPOCH_US, seeds_unreached: vec!["192.0.2.3:7060".into()], ..Start::default() };
        bench.start(name, |settings| settings.bootstrap_min_nodes = 2, start);
    }
    bench.pass(10_000_000);
    bench.link_all();
    bench.pass(2_900_000);
    for name in ["n1", "n2"] {
        assert!(!bench.is_ready(name), "the third may be a moment behind the second");
        assert!(bench.reason(name).contains("waits for seed 192.0.2.3:7060"), "{}", bench.reason(name));
    }
    bench.pass(500_000);
    assert!(bench.is_ready("n1") && bench.is_ready("n2"), "{}", bench.reason("n1"));
}

#[test]
fn a_joiner_that_gossip_shows_nobody_yet_waits_to_hear_of_a_member_that_its_donor_is_not_linked_with() {
    for greets in [false, true] {
        let mut bench = Bench::default();
        bench.start_with("n1", 2);
        bench.start_with("n3", 2);
        bench.link_all();
        bench.pass(2_000_000);
        assert!(bench.is_ready("n1") && bench.is_ready("n3"));
        bench.unlink("n1", "n3");
        bench.start_with("n4", 2);
        bench.unheard.insert(id("n4"));
        bench.link_two("n4", "n3");
        if greets {
            // Of its two connections only the one on which nothing is said is left.
            bench.link_two("n4", "n1");
            bench.lose("n1", "n4", Class::Live);
        }
        bench.pass(2 * TICK_US);
        assert!(!bench.is_ready("n4") && bench.is_ready("n1"));
        let waits = if greets { "waits for a link to n1" } else { "waits to hear of n1" };
        assert!(bench.reason("n4").contains(waits), "{}", bench.reason("n4"));
        bench.pass(1_000_000);
        assert_eq!(bench.is_ready("n4"), !greets, "gossip would have told: {}", bench.reason("n4"));
    }
}

#[test]
fn empty_disks_that_meet_each_other_before_the_node_that_serves_join_it() {
    let mut bench = Bench::of_three();
    for name in ["n1", "n2"] {
        bench.unlink(name, "n3");
    }
    bench.unlink("n1", "n2");
    bench.register("n3", 7);
    for name in ["n1", "n2"] {
        bench.kill(name);
        let start = Start { wall_us: EPOCH_US * 2, seeds_unreached: vec!["n3's".into()], ..Start::default() };
        let boot = if name == "n1" { 11 } else { 12 };
        bench.start(name, |settings| (settings.bootstrap_min_nodes, settings.boot.0) = (2, boot), start);
    }
    bench.link_two("n1", "n2");
    bench.pass(600_000);
    for name in ["n1", "n2"] {
        bench.link_two(name, "n3");
        let effects = bench.core(name).seeds_unreached(Vec::new(), bench.now(name));
        bench.take(name, effects);
    }
    bench.pass(1_000_000);
    for name in ["n1", "n2"] {
        assert!(bench.is_ready(name) && bench.knows(name, 7), "{}", bench.reason(name));
        assert!(bench.cluster_us(name).abs_diff(bench.cluster_us("n3")) < 10_000, "its clock");
        assert!(bench.cluster_us(name) < EPOCH_US + 3_600_000_000, "not their own");
    }
}

#[test]
fn the_start_clock_is_the_median_and_never_below_a_ceiling() {
    let hour_us = 3_600_000_000;
    let guesses = [EPOCH_US - hour_us, EPOCH_US, EPOCH_US + hour_us];
    for (ceiling_us, expected_us) in [(EPOCH_US - 1, EPOCH_US), (EPOCH_US + 9_000_000, EPOCH_US + 9_000_000)] {
        let mut bench = Bench::default();
        for (name, guess_us) in ["n1", "n2", "n3"].into_iter().zip(guesses) {
            let start = Start {
                wall_us: EPOCH_US * 2,
                clock_guess_us: Some(guess_us),
                clock_ceiling_us: Some(ceiling_us),
                ..Start::default()
            };
            bench.start(name, |settings| settings.bootstrap_min_nodes = 3, start);
        }
        bench.link_all();
        bench.pass(500_000);
        let off_us = bench.cluster_us("n1").abs_diff(expected_us);
        assert!(bench.is_ready("n3") && off_us < 1_000_000, "{off_us} µs off");
        assert!(bench.cluster_us("n1").abs_diff(bench.cluster_us("n3")) < 10_000, "one clock");
    }
}

#[test]
fn a_disk_too_far_ahead_keeps_its_node_out_and_says_why() {
    let mut bench = Bench::of_three();
    let start = Start { wall_us: EPOCH_US, clock_ceiling_us: Some(EPOCH_US * 2), ..Start::default() };
    bench.start("n4", |settings| settings.bootstrap_min_nodes = 2, start);
    let hello = bench.core("n1").hello(bench.now("n1"));
    let (linked, effects) = bench.core("n4").linked(&id("n1"), Class::Live, &hello, bench.now("n4"));
    bench.take("n4", effects);
    assert!(matches!(linked, Linked::Refused(why) if why.contains("ahead")));
    bench.pass(1_000_000);
    assert!(!bench.is_ready("n4") && bench.reason("n4").contains("disk"), "{}", bench.reason("n4"));
}

#[test]
fn without_a_missing_member_the_start_is_partial_until_it_is_back_or_forgotten() {
    for forgotten in [true, false] {
        let mut bench = Bench::default();
        let known = |name| LastKnown { node: id(name), expires_max_s: 7200, seen_us: EPOCH_US };
        let last_known = vec![known("n1"), known("n2"), known("n3")];
        let start = Start { wall_us: EPOCH_US, last_known, ..Start::default() };
        for name in ["n1", "n2"] {
            bench.start(name, |settings| settings.bootstrap_min_nodes = 2, start.clone());
        }
        bench.link_all();
        bench.pass(2_000_000);
        assert!(!bench.is_ready("n1"), "waits for n3");
        bench.pass(2_000_000);
        for name in ["n1", "n2"] {
            assert!(bench.is_ready(name) && !bench.core(name).serving().denies_unknown, "{}", bench.reason(name));
            assert!(bench.reason(name).contains("partial: without n3"));
        }
        if forgotten {
            let effects = bench.core("n2").forget(&id("n3"), bench.now("n2"));
            bench.take("n2", effects);
        } else {
            bench.start("n3", |settings| settings.bootstrap_min_nodes = 2, start.clone());
            bench.write("n3", 77);
            bench.link_all();
        }
        bench.pass(1_000_000);
        for name in ["n1", "n2"] {
            assert!(bench.core(name).serving().denies_unknown, "{}", bench.reason(name));
            assert_eq!(bench.knows(name, 77), !forgotten);
        }
    }
}

#[test]
fn a_twin_is_refused_while_the_first_answers_and_replaces_it_when_it_does_not() {
    let mut bench = Bench::of_three();
    let mut twin = Bench::default();
    twin.start("n3", |settings| settings.boot.0 = 999, Start { wall_us: EPOCH_US, ..Start::default() });
    let hello = twin.core("n3").hello(twin.now("n3"));
    let claim = |bench: &mut Bench| {
        let (linked, effects) = bench.core("n1").linked(&id("n3"), Class::Live, &hello, bench.now("n1"));
        bench.take("n1", effects);
        linked
    };
    assert!(matches!(claim(&mut bench), Linked::AskAgain { .. }));
    bench.pass(300_000);
    assert!(matches!(claim(&mut bench), Linked::Refused(why) if why.starts_with("twin")));
    bench.kill("n3");
    assert!(matches!(claim(&mut bench), Linked::AskAgain { .. }));
    bench.pass(300_000);
    assert_eq!(claim(&mut bench), Linked::Accepted);
}

#[test]
fn a_process_that_comes_after_a_good_bye_keeps_what_it_said_on_one_connection_when_the_old_other_ends() {
    let mut bench = Bench::of_three();
    let effects = bench.core("n3").leave(bench.now("n3"));
    bench.take("n3", effects);
    bench.pass(100_000);
    bench.kill("n3");
    bench.pass(1_500_000);
    let mut later = Bench::default();
    let older = |settings: &mut Settings| (settings.boot.0, settings.wire_version_max) = (999, VERSION_MIN);
    later.start("n3", older, Start { wall_us: EPOCH_US, ..Start::default() });
    let hello = later.core("n3").hello(later.now("n3"));
    let (linked, effects) = bench.core("n1").linked(&id("n3"), Class::Bulk, &hello, bench.now("n1"));
    bench.take("n1", effects);
    assert_eq!((linked, bench.view("n1").wire_version), (Linked::Accepted, VERSION_MIN));
    let effects = bench.core("n1").unlinked(&id("n3"), Class::Live, bench.now("n1"));
    bench.take("n1", effects);
    assert_eq!(bench.view("n1").wire_version, VERSION_MIN, "its Bulk connection is up, and it says Hello there once");
    let effects = bench.core("n1").unlinked(&id("n3"), Class::Bulk, bench.now("n1"));
    bench.take("n1", effects);
    assert_eq!(bench.view("n1").wire_version, VERSION_MIN, "it was heard, and said no good-bye: it may come again");
    let effects = bench.core("n1").forget(&id("n3"), bench.now("n1"));
    bench.take("n1", effects);
    assert_eq!(bench.view("n1").wire_version, VERSION_MAX);
}

#[test]
fn a_joiner_asks_again_when_one_that_served_without_a_link_to_it_serves_no_longer() {
    let mut bench = Bench::of_three();
    bench.start("n4", |_| {}, Start { wall_us: EPOCH_US, ..Start::default() });
    bench.link_two("n4", "n1");
    bench.link_two("n4", "n2");
    bench.pass(1_000_000);
    assert!(bench.reason("n4").contains("waits for a link to n3"), "{}", bench.reason("n4"));
    bench.register("n3", 7);
    bench.pass(100_000);
    assert!(bench.knows("n1", 7) && bench.knows("n2", 7) && !bench.knows("n4", 7), "n4 exchanged before");
    for name in ["n1", "n2"] {
        bench.unlink(name, "n3");
    }
    for _ in 0..2_000 {
        if bench.is_ready("n4") {
            break;
        }
        bench.pass(1_000);
    }
    assert!(bench.is_ready("n4") && bench.knows("n4", 7), "{}", bench.reason("n4"));
}

#[test]
fn ones_own_address_and_strangers_are_not_linked() {
    let mut bench = Bench::of_three();
    let own = bench.core("n1").hello(bench.now("n1"));
    let (linked, effects) = bench.core("n1").linked(&id("n1"), Class::Live, &own, bench.now("n1"));
    bench.take("n1", effects);
    assert_eq!(linked, Linked::Myself);
    let mut other = Bench::default();
    other.start("n9", |settings| (settings.digest_key_hash, settings.boot.0) = (1, 999), Start::default());
    let hello = other.core("n9").hello(other.now("n9"));
    let (linked, effects) = bench.core("n1").linked(&id("n9"), Class::Live, &hello, bench.now("n1"));
    bench.take("n1", effects);
    assert!(matches!(linked, Linked::Refused(why) if why.contains("another cluster")));
    let (linked, effects) = bench.core("n1").linked(&id("n8"), Class::Live, &hello, bench.now("n1"));
    bench.take("n1", effects);
    assert!(matches!(linked, Linked::Refused(why) if why.contains("certificate")));
}

#[test]
fn a_peer_that_falls_behind_the_outbox_starts_over_and_has_everything() {
    let mut bench = Bench::default();
    for name in ["n1", "n2"] {
        let settings = |settings: &mut Settings| {
            (settings.bootstrap_min_nodes, settings.outbox_bytes_max) = (2, 20_000);
        };
        bench.start(name, settings, Start { wall_us: EPOCH_US, ..Start::default() });
    }
    bench.link_all();
    bench.pass(1_000_000);
    (0..500).for_each(|phone| bench.register("n1", phone));
    assert!(bench.view("n1").outbox_bytes <= 20_000);
    assert!(bench.events("n1").contains(&Event::Overflow { peer: id("n2") }));
    let released = bench.released("n1");
    assert!(!released.is_empty() && released.iter().all(|(_, short)| *short), "n2 holds none of these: {released:?}");
    bench.pass(1_000_000);
    assert!((0..500).all(|phone| bench.knows("n2", phone)));
    assert!(bench.is_ready("n2"));
    bench.register("n1", 500);
    bench.released("n1");
    bench.pass(10_000);
    assert_eq!(bench.released("n1"), [(500, false)], "it is awaited again");
}

#[test]
fn what_only_a_rejoining_node_holds_is_soon_everywhere() {
    let mut bench = Bench::of_three();
    bench.write("n1", 7);
    let effects = bench.core("n1").slept(1_000_000, bench.now("n1"));
    bench.take("n1", effects);
    // Before a routine exchange could have done it: its two looks are a second apart.
    bench.pass(900_000);
    assert!(bench.is_ready("n1") && bench.knows("n2", 7) && bench.knows("n3", 7));
}

#[test]
fn an_idle_cluster_exchanges_only_roots_and_a_repair_costs_what_differs() {
    let mut bench = Bench::of_three();
    for phone in 0..20_000 {
        for name in ["n1", "n2", "n3"] {
            bench.write(name, phone);
        }
    }
    bench.pass(3_000_000);
    for name in ["n1", "n2", "n3"] {
        bench.events(name);
    }
    bench.bytes = 0;
    bench.pass(10_000_000);
    assert!(bench.bytes / 10 / 3 < 2000, "{} bytes a second and node", bench.bytes / 10 / 3);
    for name in ["n1", "n2", "n3"] {
        let idle = bench.events(name).into_iter().all(|event| match event {
            Event::ExchangeDone { purpose, moved, .. } => purpose == Purpose::Routine && moved.buckets == 0,
            _ => true,
        });
        assert!(idle, "{name}");
    }
    (20_000..20_010).for_each(|phone| bench.write("n1", phone));
    bench.bytes = 0;
    bench.pass(6_000_000);
    assert!((20_000..20_010).all(|phone| bench.knows("n2", phone) && bench.knows("n3", phone)));
    assert!(bench.bytes < 64 * 1024, "{} bytes for 10 of 20 000", bench.bytes);
}

#[test]
fn frames_that_no_correct_peer_sends_close_the_link() {
    let bench = Bench::of_three();
    let says = |frame: Frame<'_>, class| {
        let mut bytes = Vec::new();
        frame.encode(Envelope { version: VERSION_MAX, sent_us: 0 }, &mut bytes).expect("fits");
        bench.core("n1").received(&id("n2"), class, &bytes, bench.now("n1")).map(|_| ()).is_err()
    };
    assert!(says(Frame::Ack { epoch: 1, seq: 1 << 40 }, Class::Live), "acks what was never sent");
    assert!(says(Frame::Mark { epoch: 1 }, Class::Bulk), "on the wrong connection");
    assert!(says(Frame::Begin { id: 1, floor_us: u64::MAX }, Class::Bulk), "would forget everything");
    assert!(says(Frame::Backlog { epoch: 1, first_seq: 0 }, Class::Live));
    let ahead_us = bench.cluster_us("n1") + 7_200_000_000;
    let mut bytes = Vec::new();
    Frame::Ping { nonce: 1 }.encode(Envelope { version: VERSION_MAX, sent_us: ahead_us }, &mut bytes).expect("fits");
    let refused = bench.core("n1").received(&id("n2"), Class::Live, &bytes, bench.now("n1"));
    assert!(refused.is_err_and(|why| why.contains("ahead")), "two hours ahead");
    assert!(bench.core("n1").received(&id("n2"), Class::Live, &[0xff; 64], bench.now("n1")).is_err());
}
