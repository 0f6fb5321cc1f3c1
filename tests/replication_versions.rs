//! Wire versions between whole cores on perfect links: what is written to whom while members of two versions, and of one
//! that does not exist yet, come and go. Bytes of single frames are `proto/tests/wire_vectors`'s.

#[allow(dead_code, reason = "the bench serves several tests, and none of them uses all of it")]
mod replication_bench;

use aorta::replication::{Event, Linked, Settings, Start};
use aorta_proto::BootId;
use aorta_proto::frame::{Class, Envelope, Frame, Hello, LastKnown, PeerState, State, VERSION_MAX};
use replication_bench::{Bench, EPOCH_US, id};

const NAMES: [&str; 3] = ["n1", "n2", "n3"];

fn speaks(version: u8) -> impl FnOnce(&mut Settings) {
    move |settings| (settings.wire_version_max, settings.bootstrap_min_nodes) = (version, 2)
}

fn empty() -> Start {
    Start { wall_us: EPOCH_US, ..Start::default() }
}

fn cluster_of(versions: [u8; 3]) -> Bench {
    let mut bench = Bench::default();
    for (name, version) in NAMES.into_iter().zip(versions) {
        bench.start(name, speaks(version), empty());
    }
    bench.link_all();
    bench.pass(2_000_000);
    NAMES.iter().for_each(|name| assert!(bench.is_ready(name), "{name}: {}", bench.reason(name)));
    bench
}

/// Another build takes a node's place, with what its disk remembers.
fn replace(bench: &mut Bench, name: &str, version: u8, boot: u64) {
    stop(bench, name);
    restart(bench, name, version, boot);
    bench.pass(1_000_000);
    assert!(bench.is_ready(name), "{name}: {}", bench.reason(name));
}

fn stop(bench: &mut Bench, name: &str) {
    for other in NAMES.iter().filter(|other| **other != name) {
        bench.unlink(name, other);
    }
    bench.kill(name);
}

fn restart(bench: &mut Bench, name: &str, version: u8, boot: u64) {
    let known = |name| LastKnown { node: id(name), expires_max_s: 7200, seen_us: EPOCH_US };
    let last_known = NAMES.into_iter().filter(|other| *other != name).map(known).collect();
    let settle = |settings: &mut Settings| {
        speaks(version)(settings);
        settings.boot = BootId(boot);
    };
    bench.start(name, settle, Start { last_known, ..empty() });
    bench.link_all();
}

fn written(bench: &Bench, names: &[&str]) -> Vec<u8> {
    names.iter().map(|name| bench.view(name).wire_version).collect()
}

/// What n2 measured of n1's last changes, µs.
fn lag_us(bench: &mut Bench, phone: u32) -> Option<u64> {
    bench.register("n1", phone);
    bench.pass(40_000);
    assert!(bench.knows("n2", phone) && bench.knows("n3", phone));
    bench.view("n2").peers.iter().find(|peer| peer.node == id("n1")).and_then(|peer| peer.lag_us)
}

#[test]
fn the_new_version_is_written_once_the_last_member_offers_it_and_until_one_offers_less() {
    let mut bench = cluster_of([1, 1, 1]);
    assert_eq!((written(&bench, &NAMES), lag_us(&mut bench, 0)), (vec![1, 1, 1], None));
    replace(&mut bench, "n1", 2, 11);
    assert_eq!((written(&bench, &NAMES), lag_us(&mut bench, 1)), (vec![1, 1, 1], None));
    replace(&mut bench, "n2", 2, 12);
    assert_eq!((written(&bench, &NAMES), lag_us(&mut bench, 2)), (vec![1, 1, 1], None));
    replace(&mut bench, "n3", 2, 13);
    assert_eq!(written(&bench, &NAMES), [2, 2, 2]);
    assert!(lag_us(&mut bench, 3).is_some());
    replace(&mut bench, "n2", 1, 14);
    assert_eq!((written(&bench, &NAMES), lag_us(&mut bench, 4)), (vec![1, 1, 1], None), "rolled back");
    assert!((0..5).all(|phone| NAMES.iter().all(|name| bench.knows(name, phone))));
}

#[test]
fn a_member_that_was_down_during_the_upgrade_may_come_back_as_it_was() {
    for comes_back in [true, false] {
        let mut bench = cluster_of([1, 1, 1]);
        stop(&mut bench, "n3");
        bench.pass(1_000_000);
        replace_two(&mut bench);
        assert_eq!(written(&bench, &NAMES[..2]), [1, 1], "n3 is remembered as it was");
        if comes_back {
            restart(&mut bench, "n3", 1, 21);
            bench.pass(1_000_000);
            assert!(bench.is_ready("n3"), "{}", bench.reason("n3"));
            assert_eq!(lag_us(&mut bench, 0), None);
        } else {
            let effects = bench.core("n1").forget(&id("n3"), bench.now("n1"));
            bench.take("n1", effects);
            bench.pass(100_000);
            assert_eq!(written(&bench, &NAMES[..2]), [2, 2], "an operator says that it will not come back");
        }
    }
}

fn replace_two(bench: &mut Bench) {
    for (name, other, boot) in [("n1", "n2", 11), ("n2", "n1", 12)] {
        bench.unlink(name, other);
        bench.kill(name);
        restart(bench, name, 2, boot);
        // The first of them waits for n3 as long as a start without it takes.
        bench.pass(4_000_000);
        assert!(bench.is_ready(name), "{name}: {}", bench.reason(name));
    }
}

#[test]
fn a_member_that_is_down_and_had_offered_the_new_version_holds_nobody_back() {
    let mut bench = cluster_of([2, 2, 2]);
    stop(&mut bench, "n3");
    bench.pass(1_000_000);
    assert_eq!(written(&bench, &NAMES[..2]), [2, 2]);
    bench.unlink("n1", "n2");
    bench.kill("n1");
    restart(&mut bench, "n1", 2, 11);
    assert_eq!(bench.view("n1").wire_version, 1, "its disk says who, not what they read");
    bench.pass(1_000_000);
    assert_eq!(written(&bench, &NAMES[..2]), [2, 2], "n2 writes version 2, so all that it remembers offered it");
}

/// The Hello of a node of which only this is known.
fn hello_of(name: &str, boot: u64, versions: (u8, u8)) -> Vec<u8> {
    let state = State {
        is: PeerState::Ready,
        expires_max_s: 7200,
        cut_off: false,
        links: Vec::new(),
        missing: Vec::new(),
        last_known: Vec::new(),
    };
    let hello = Hello {
        node: id(name),
        boot: BootId(boot),
        version_min: versions.0,
        version_max: versions.1,
        digest_key_hash: 0,
        state,
        clock_guess_us: None,
        clock_ceiling_us: None,
    };
    let mut bytes = Vec::new();
    Frame::Hello(hello).encode(Envelope { version: VERSION_MAX, sent_us: 0 }, &mut bytes).expect("fits");
    bytes
}

fn link(bench: &mut Bench, hello: &[u8]) -> Linked {
    let (linked, effects) = bench.core("n1").linked(&id("n4"), Class::Live, hello, bench.now("n1"));
    bench.take("n1", effects);
    linked
}

#[test]
fn a_peer_of_the_version_after_next_is_written_ours_and_its_own_frames_are_refused() {
    let mut bench = cluster_of([2, 2, 2]);
    assert_eq!(link(&mut bench, &hello_of("n4", 99, (1, 3))), Linked::Accepted);
    assert_eq!(written(&bench, &NAMES), [2, 2, 2], "it reads version 2 as well");
    let mut bytes = Vec::new();
    assert!(bench.core("n1").transmit(&id("n4"), Class::Live, &mut bytes, bench.now("n1")));
    assert_eq!(bytes[0], 2);
    // Changes of version 3 have a field behind the last one of version 2.
    let mut next = Vec::new();
    let changes = aorta_proto::frame::Packed::new(&[]).expect("none");
    let deltas = Frame::Deltas { epoch: 1, first_seq: 1, waited_us: Some(1), changes };
    deltas.encode(Envelope { version: 2, sent_us: 0 }, &mut next).expect("fits");
    next[0] = 3;
    next.push(9);
    next[2] += 1;
    let refused = bench.core("n1").received(&id("n4"), Class::Live, &next, bench.now("n1")).map(drop);
    assert_eq!(refused, Err("frame of wire version 3, this node reads 1 to 2".to_owned()));
    bench.pass(20_000);
    assert!(
        bench.events("n1").iter().any(|event| matches!(event, Event::VersionRefused { peer, .. } if *peer == id("n4")))
    );
}

#[test]
fn a_peer_without_a_version_in_common_is_refused_where_an_operator_sees_it() {
    let mut bench = cluster_of([2, 2, 2]);
    let why = "speaks wire versions 3 to 4, this node 1 to 2: upgrade n1, release by release";
    assert_eq!(link(&mut bench, &hello_of("n4", 99, (3, 4))), Linked::Refused(why.to_owned()));
    assert!(bench.is_ready("n1"), "and it serves all the same");
    assert_eq!(bench.reason("n1"), format!("refused: n4: {why}"));
    let refused = Event::VersionRefused { peer: id("n4"), why: why.to_owned() };
    assert!(bench.events("n1").contains(&refused));
    bench.pass(4_000_000);
    assert_eq!(bench.reason("n1"), "", "it has given up");
    let older = link(&mut bench, &hello_of("n4", 99, (0, 0)));
    assert!(matches!(older, Linked::Refused(why) if why.contains("upgrade n4")));
}
