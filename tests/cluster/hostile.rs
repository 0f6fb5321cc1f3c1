//! Peers with a good certificate and bad manners: each loses its own link, and nobody else notices.

use aorta_proto::frame::{Class, FRAME_BYTES_MAX, HEADER_BYTES, VERSION_MIN};
use bytes::Bytes;

use super::raw::{Raw, Shows, greeting};
use super::{CLUSTER, Ca, Node, Start, frame, logged};

/// Two good nodes that are linked, and their CA.
fn good() -> (Ca, Node, Node) {
    let ca = Ca::new(CLUSTER);
    let a = Start::new("a", 1, &[]).run(ca.identity("a"));
    let b = Start::new("b", 2, &[a.address]).run(ca.identity("b"));
    a.above.until("linked", |above| above.has("b"));
    b.above.until("linked", |above| above.has("a"));
    (ca, a, b)
}

/// Frames still pass between the good ones, on the links that they had.
fn unharmed(a: &Node, b: &Node) {
    let before = b.above.received("a", Class::Live).len();
    a.say(b, Class::Live, 7);
    b.above.until("a frame", |above| above.received("a", Class::Live).len() == before + 1);
    assert_eq!((a.above.linked("b", Class::Live), a.above.unlinked("b", Class::Live)), (1, 0));
}

#[test]
fn garbage_instead_of_a_greeting() {
    let (ca, a, b) = good();
    let raw = Raw::new(&ca, Shows::Node("z"));
    for (bytes, expected) in [
        (vec![0xff; 100], "did not greet as an Aorta node"),
        (greeting(9, 1, 0), "a class that this version lacks"),
        (greeting(1, 1, u32::MAX), "announces a Hello of 4294967295 bytes"),
    ] {
        let mut open = raw.dial(a.address);
        raw.runtime.block_on(open.send.write_all(&bytes)).unwrap();
        let said = open.closed(&raw);
        assert!(said.contains(expected), "{said}");
    }
    // Three in a moment, one line.
    assert_eq!(logged(&["link refused", &format!("address={}", raw.address())]).len(), 1);
    unharmed(&a, &b);
}

#[test]
fn frames_that_lie_end_the_link() {
    let (ca, a, b) = good();
    let raw = Raw::new(&ca, Shows::Node("z"));
    let mut long = vec![VERSION_MIN, 4];
    long.extend_from_slice(&u32::MAX.to_le_bytes());
    long.extend_from_slice(&[0; 8]);
    let misplaced = frame(Class::Bulk, 1);
    for (boot, bytes, expected) in [
        (1, long, "at most".to_owned()),
        (2, vec![0; HEADER_BYTES], "of wire version 0".to_owned()),
        (3, misplaced, "on the Live connection".to_owned()),
    ] {
        let mut open = raw.link(a.address, boot);
        a.above.until("linked", |above| above.linked("z", Class::Live) == boot as usize);
        raw.runtime.block_on(open.send.write_all(&bytes)).unwrap();
        let said = open.closed(&raw);
        assert!(said.contains(&expected), "{said}");
        a.above.until("unlinked", |above| above.unlinked("z", Class::Live) == boot as usize);
    }
    unharmed(&a, &b);
}

#[test]
fn a_frame_that_never_ends_holds_only_its_own_link() {
    let (ca, a, b) = good();
    let raw = Raw::new(&ca, Shows::Node("z"));
    let mut open = raw.link(a.address, 1);
    let mut head = vec![VERSION_MIN, 4];
    head.extend_from_slice(&u32::try_from(FRAME_BYTES_MAX - HEADER_BYTES).unwrap().to_le_bytes());
    head.extend_from_slice(&[0; 8]);
    raw.runtime.block_on(open.send.write_all(&head)).unwrap();
    raw.runtime.block_on(open.send.write_all(&[0; 1000])).unwrap();
    unharmed(&a, &b);
    assert_eq!(a.above.unlinked("z", Class::Live), 0);
    raw.runtime.block_on(async { open.send.finish() }).unwrap();
    assert!(open.closed(&raw).contains("ended within a frame"));
}

#[test]
fn a_flood_of_datagrams_and_streams_is_dropped() {
    let (ca, a, b) = good();
    let raw = Raw::new(&ca, Shows::Node("z"));
    let open = raw.link(a.address, 1);
    raw.runtime.block_on(async {
        for round in 0..20_000u32 {
            let mut bytes = vec![(round % 5) as u8];
            bytes.extend_from_slice(&round.to_le_bytes().repeat(100));
            let _ = open.connection.send_datagram(Bytes::from(bytes));
        }
        for _ in 0..8 {
            let mut stream = open.connection.open_uni().await.unwrap();
            stream.write_all(&[7; 1000]).await.unwrap();
            // Neither finished nor reset: these must not hold up the gossip of others.
            std::mem::forget(stream);
        }
    });
    unharmed(&a, &b);
    b.cluster().gossip("after", "the flood").unwrap();
    a.above.until("gossip", |above| above.members().iter().any(|m| m.values.contains_key("after")));
}

#[test]
fn gossip_that_makes_chitchat_panic_costs_a_restart_of_it() {
    let (ca, a, b) = good();
    a.above.until("b in gossip", |above| above.members().iter().any(|m| m.node.as_str() == "b"));
    let raw = Raw::new(&ca, Shows::Node("z"));
    let open = raw.link(a.address, 1);
    let mut bytes = vec![0];
    bytes.extend_from_slice(&super::poison::message("a", 1, a.address));
    raw.runtime.block_on(async { open.connection.send_datagram(Bytes::from(bytes)).unwrap() });
    b.above.until("the poison passed on", |above| above.members().iter().any(|m| m.values.contains_key("key")));
    a.cluster().gossip("after", "the panic").unwrap();
    b.above.until("a's next start", |above| {
        above.members().iter().any(|m| m.generation == 2 && m.values.contains_key("after"))
    });
    let lines = logged(&["gossip failed and is started again"]);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    b.cluster().gossip("after", "the panic").unwrap();
    a.above.until("gossip", |above| above.members().iter().any(|m| m.values.contains_key("after")));
    unharmed(&a, &b);
}
