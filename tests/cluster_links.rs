//! Nodes link, stay linked once, find each other by gossip, and notice who dies and who comes back. Real endpoints on
//! loopback; the rooms above only write down what they are told.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it stands")]

mod cluster;

use std::collections::BTreeSet;

use aorta_proto::frame::{Class, Frame};
use cluster::{CLASSES, CLUSTER, Ca, ENVELOPE, Node, Start, Told, frame, id, logged};

fn mesh(ca: &Ca, names: &[&str]) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for (boot, name) in names.iter().enumerate() {
        let seeds: Vec<_> = nodes.first().map(|first| first.address).into_iter().collect();
        nodes.push(Start::new(name, boot as u64 + 1, &seeds).run(ca.identity(name)));
    }
    nodes
}

fn all_linked(nodes: &[Node]) {
    for node in nodes {
        for other in nodes.iter().filter(|other| other.name != node.name) {
            node.above.until(&format!("linked with {}", other.name), |above| above.has(&other.name));
        }
    }
}

#[test]
fn two_nodes_link_and_frames_pass_in_order_both_ways_and_classes() {
    let ca = Ca::new(CLUSTER);
    let nodes = mesh(&ca, &["a", "b"]);
    all_linked(&nodes);
    let [a, b] = &nodes[..] else { panic!("two") };
    for number in 0..500 {
        for class in CLASSES {
            a.say(b, class, number);
            b.say(a, class, number);
        }
    }
    for (from, to) in [(a, b), (b, a)] {
        for class in CLASSES {
            to.above.until("500 frames", |above| above.received(&from.name, class).len() == 500);
            let expected: Vec<_> = (0..500).map(|number| frame(class, number)).collect();
            assert_eq!(to.above.received(&from.name, class), expected);
        }
        assert!(matches!(&to.above.told()[0], Told::Linked(_, _, Class::Live, hello)
            if *hello == format!("hello from {}", from.name).into_bytes()));
    }
    let classes: Vec<_> = a.cluster().links().iter().map(|link| (link.peer.clone(), link.class)).collect();
    assert_eq!(classes, [(id("b"), Class::Live), (id("b"), Class::Bulk)]);
}

#[test]
fn bulk_is_dialled_by_who_began_later_and_from_a_port_beside() {
    let ca = Ca::new(CLUSTER);
    for (first, later) in [("a", "b"), ("b", "a")] {
        let nodes = mesh(&ca, &[first, later]);
        all_linked(&nodes);
        let address = |node: &Node, class| {
            let links = node.cluster().links();
            links.iter().find(|link| link.class == class).unwrap().address
        };
        assert_eq!(address(&nodes[1], Class::Live), nodes[0].address);
        assert_eq!(address(&nodes[0], Class::Live), nodes[1].address);
        assert_eq!(address(&nodes[1], Class::Bulk), nodes[0].address);
        let from = address(&nodes[0], Class::Bulk);
        assert!(from.ip() == nodes[1].address.ip() && from.port() != nodes[1].address.port(), "{from}");
    }
}

#[test]
fn two_nodes_that_dial_each_other_at_once_end_with_one_link_a_class_and_never_had_two() {
    let ca = Ca::new(CLUSTER);
    for round in 0..5 {
        let probe = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap();
        let first = Start::new("a", round * 2 + 1, &[address]);
        drop(probe);
        let a = first.run(ca.identity("a"));
        let b = Start::new("b", round * 2 + 2, &[a.address]).at(address).run(ca.identity("b"));
        let nodes = [a, b];
        all_linked(&nodes);
        for number in 0..50 {
            nodes[0].say(&nodes[1], Class::Live, number);
            nodes[1].say(&nodes[0], Class::Bulk, number);
        }
        nodes[1].above.until("frames", |above| above.received("a", Class::Live).len() == 50);
        nodes[0].above.until("frames", |above| above.received("b", Class::Bulk).len() == 50);
        for (node, other) in [(&nodes[0], "b"), (&nodes[1], "a")] {
            for class in CLASSES {
                assert_eq!((node.above.linked(other, class), node.above.unlinked(other, class)), (1, 0));
            }
        }
    }
}

#[test]
fn three_nodes_find_each_other_by_gossip_and_see_what_each_says() {
    let ca = Ca::new(CLUSTER);
    let nodes = mesh(&ca, &["a", "b", "c"]);
    all_linked(&nodes);
    nodes[2].cluster().gossip("state", "ready").unwrap();
    nodes[2].cluster().gossip("floor", "17").unwrap();
    for node in &nodes[..2] {
        node.above.until("c is ready", |above| {
            above.members().iter().any(|member| {
                let value = |key: &str| member.values.get(key).map(String::as_str);
                member.node == id("c") && value("state") == Some("ready") && value("floor") == Some("17")
            })
        });
    }
    for node in &nodes {
        let others: BTreeSet<_> =
            nodes.iter().map(|other| id(&other.name)).filter(|other| *other != id(&node.name)).collect();
        node.above.until("the two others, linked", |above| {
            let members = above.members();
            members.iter().all(|member| member.linked)
                && members.iter().map(|member| member.node.clone()).collect::<BTreeSet<_>>() == others
        });
    }
}

#[test]
fn a_large_gossip_passes_though_no_datagram_holds_it() {
    let ca = Ca::new(CLUSTER);
    let nodes = mesh(&ca, &["a", "b"]);
    all_linked(&nodes);
    let large = "x".repeat(10_000);
    nodes[0].cluster().gossip("large", &large).unwrap();
    nodes[1].above.until("large value", |above| above.members().iter().any(|m| m.values.get("large") == Some(&large)));
    let refused = nodes[0].cluster().gossip("larger", &"x".repeat(10_000));
    assert!(refused.unwrap_err().to_string().contains("'larger'"));
}

#[test]
fn a_killed_node_is_dropped_and_linked_again_when_it_is_back_on_its_port() {
    let ca = Ca::new(CLUSTER);
    let mut nodes = mesh(&ca, &["a", "b", "c"]);
    all_linked(&nodes);
    for node in &nodes[..2] {
        node.above.until("c in gossip", |above| above.members().iter().any(|m| m.node == id("c")));
    }
    let address = nodes.pop().unwrap().kill();
    for node in &nodes {
        node.above.until("c gone", |above| above.members().iter().all(|m| m.node != id("c")));
    }
    nodes.push(Start::new("c", 100, &[]).at(address).run(ca.identity("c")));
    nodes[0].cluster().dial(vec![address]);
    all_linked(&nodes);
    for node in &nodes[..2] {
        node.above
            .until("c in gossip", |above| above.members().iter().any(|m| m.node == id("c") && m.generation == 100));
    }
}

#[test]
fn a_restarted_node_replaces_its_old_link_at_once() {
    let ca = Ca::new(CLUSTER);
    let mut nodes = mesh(&ca, &["a", "b"]);
    all_linked(&nodes);
    let address = nodes.pop().unwrap().kill();
    let before = std::time::Instant::now();
    nodes.push(Start::new("b", 100, &[nodes[0].address]).at(address).run(ca.identity("b")));
    let new_boot = |told: &Told| matches!(told, Told::Linked(_, boot, Class::Live, _) if boot.0 == 100);
    nodes[0].above.until("the new process", |above| above.told().iter().any(new_boot));
    let took = before.elapsed();
    assert!(took.as_millis() < 1500, "took {took:?}");
    all_linked(&nodes);
    // Strictly one after the other: linked, unlinked, linked.
    let live: Vec<bool> = nodes[0]
        .above
        .told()
        .iter()
        .filter_map(|told| match told {
            Told::Linked(_, _, Class::Live, _) => Some(true),
            Told::Unlinked(_, Class::Live, _) => Some(false),
            _ => None,
        })
        .collect();
    assert_eq!(live, [true, false, true]);
}

#[test]
fn a_twin_is_refused_loudly_and_the_first_stays() {
    let ca = Ca::new(CLUSTER);
    let nodes = mesh(&ca, &["a", "b"]);
    all_linked(&nodes);
    // To a, which has b; to b, whose name it is.
    let twin = Start::new("b", 100, &[nodes[0].address, nodes[1].address]).run(ca.identity("b"));
    for node in &nodes {
        let address = node.address;
        twin.above.until("refused", |above| above.refusals().iter().any(|r| r.address == address));
        node.above.until("refuses", |above| above.refusals().iter().any(|r| r.address == twin.address));
    }
    let address = format!("address={}", twin.address);
    assert_eq!(logged(&["link refused", "is its twin", "give each node its own node_id", &address]).len(), 2);
    let lines = logged(&["peer refused the link", "'b' is alive"]);
    assert_eq!(lines.len(), 2, "{lines:#?} {:#?}", twin.above.refusals());
    assert_eq!((nodes[0].above.linked("b", Class::Live), nodes[0].above.unlinked("b", Class::Live)), (1, 0));
    assert!(twin.above.linked("a", Class::Live) == 0);
}

#[test]
fn its_own_address_among_the_seeds_is_closed_silently() {
    let ca = Ca::new(CLUSTER);
    let probe = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    // Another way to write its own address, so that it is not simply left out.
    let own = std::net::SocketAddr::from(([127, 0, 0, 2], port));
    let listen = std::net::SocketAddr::from(([0, 0, 0, 0], port));
    let a = Start::new("a", 1, &[own]).at(listen).advertise(([127, 0, 0, 1], port).into()).run(ca.identity("a"));
    let b = Start::new("b", 2, &[([127, 0, 0, 1], port).into()]).run(ca.identity("b"));
    a.above.until("linked with b", |above| above.has("b"));
    b.above.until("linked with a", |above| above.has("a"));
    assert_eq!(a.above.refusals(), []);
    assert_eq!(a.above.linked("a", Class::Live), 0);
}

#[test]
fn a_seed_may_be_a_name_and_a_socket_may_serve_both_families() {
    let ca = Ca::new(CLUSTER);
    let a = Start::new("a", 1, &[]).run(ca.identity("a"));
    let mut b = Start::new("b", 2, &[]).at("[::]:0".parse().unwrap()).advertise("127.0.0.1:0".parse().unwrap());
    b.seeds = vec!["no-such-name.invalid:7060".into(), format!("localhost:{}", a.address.port())];
    let nodes = [a, b.run(ca.identity("b"))];
    all_linked(&nodes);
    nodes[0].above.until("b in gossip", |above| above.members().iter().any(|m| m.address.is_ipv4()));
    let six = ["c", "d"].map(|name| {
        let seeds: Vec<_> = nodes.iter().map(|node| node.address).collect();
        Start::new(name, 3, &seeds)
            .at("[::]:0".parse().unwrap())
            .advertise("[::1]:0".parse().unwrap())
            .run(ca.identity(name))
    });
    for node in &six {
        node.above.until("linked with a", |above| above.has("a"));
        node.above.until("each other, over IPv6", |above| above.has("c") || above.has("d"));
    }
}

#[test]
fn who_leaves_is_read_to_the_end_and_gone_from_the_view_at_once() {
    let ca = Ca::new(CLUSTER);
    let mut nodes = mesh(&ca, &["a", "b"]);
    all_linked(&nodes);
    nodes[0].above.until("b in gossip", |above| above.members().iter().any(|m| m.node == id("b")));
    let b = nodes.pop().unwrap();
    for number in 0..2000 {
        b.say(&nodes[0], Class::Live, number);
    }
    let mut bye = Vec::new();
    Frame::Bye.encode(ENVELOPE, &mut bye).unwrap();
    b.leave(&bye);
    let a = &nodes[0].above;
    a.until("unlinked", |above| above.unlinked("b", Class::Live) == 1);
    let received = a.received("b", Class::Live);
    assert_eq!(received.len(), 2001);
    assert_eq!(received.last(), Some(&bye));
    a.until("b gone", |above| above.members().is_empty());
}

#[test]
fn a_peer_that_the_rooms_above_refuse_is_told_why() {
    let ca = Ca::new(CLUSTER);
    let a = Start::new("a", 1, &[]).run(ca.identity("a"));
    a.above.refuse("another digest key");
    let b = Start::new("b", 2, &[a.address]).run(ca.identity("b"));
    b.above.until("refused", |above| above.refusals().iter().any(|r| r.why == "another digest key"));
    assert_eq!(logged(&["link refused: another digest key", &format!("address={}", b.address)]).len(), 1);
    // b heard it once the link was there, or before: either way it is not linked in the end.
    b.above.until("not linked", |above| above.linked("a", Class::Live) == above.unlinked("a", Class::Live));
}

#[test]
fn seeds_behind_which_nobody_is_linked_are_told() {
    let ca = Ca::new(CLUSTER);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap();
    let later = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (seed, seeds) = (later.local_addr().unwrap(), |above: &cluster::Above| above.seeds_unreached());
    let a = Start::new("a", 1, &[silent, seed]).run(ca.identity("a"));
    a.above.until("nobody is reached", |above| {
        seeds(above).is_some_and(|seeds| seeds == [silent.to_string(), seed.to_string()])
    });
    drop(later);
    // Among its own seeds is itself: it is there.
    let b = Start::new("b", 2, &[a.address, seed]).at(seed).run(ca.identity("b"));
    a.above.until("one is reached", |above| seeds(above).is_some_and(|seeds| seeds == [silent.to_string()]));
    b.above.until("all are reached", |above| seeds(above).is_some_and(|seeds| seeds.is_empty()));
    drop(b);
    a.above.until("it is gone", |above| seeds(above).is_some_and(|seeds| seeds.len() == 2));
}
