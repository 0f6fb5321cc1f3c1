//! A phone that gains or loses its `reg-id` where the nodes it asks do not hear each other: what rings once they do is what
//! would ring had they heard each other all along.

use aorta::registrar::{Judged, Which, Write, remove};
use aorta::sip::message::Contact;
use aorta_proto::{BootId, Record, Stamp};
use proptest::prelude::*;

use crate::desk::{Desk, Register, register, star};

const PLAIN: &str = "<sip:alice@192.0.2.1:5060>";
const FLOW: &str = "<sip:alice@192.0.2.1:5060>;+sip.instance=\"<urn:uuid:1>\";reg-id=1";
const MOVED: &str = "<sip:alice@192.0.2.1:6000>;+sip.instance=\"<urn:uuid:1>\";reg-id=1";
const GONE_FLOW: &str = "<sip:alice@192.0.2.1:5060>;+sip.instance=\"<urn:uuid:1>\";reg-id=1;expires=0";
/// Another phone, behind the same address.
const SECOND: &str = "<sip:alice@192.0.2.1:5060>;+sip.instance=\"<urn:uuid:2>\";reg-id=1";

/// Requests with Call-IDs of their own, one a second, each at the node with this number.
fn asked(nodes: &mut [Desk], requests: &[(usize, &str)]) {
    for (node, contact) in requests {
        nodes.iter_mut().for_each(|node| node.pass(1));
        let call_id = format!("call at {}", nodes[*node].now_us);
        nodes[*node].ok(&register(&call_id, 1, &[contact]));
    }
}

/// Nodes that have not heard of each other.
fn apart(count: u64) -> Vec<Desk> {
    (1..=count).map(Desk::new).collect()
}

/// What rings once they have, in the order of URIs.
fn together(nodes: &[Desk]) -> Vec<String> {
    let mut all = Desk::new(99);
    all.now_us = nodes.iter().map(|node| node.now_us).max().expect("a node");
    for node in nodes {
        all.record.merge(&node.record);
    }
    sorted(all.uris())
}

fn sorted(mut uris: Vec<String>) -> Vec<String> {
    uris.sort();
    uris
}

#[test]
fn a_contact_that_gained_a_reg_id_elsewhere_and_left_does_not_come_back() {
    for (requests, rings) in [
        // It moves where it gained the reg-id.
        (vec![(0, PLAIN), (1, FLOW), (1, MOVED)], vec!["sip:alice@192.0.2.1:6000"]),
        // It moves where its first contact is known, and its reg-id is not.
        (vec![(0, PLAIN), (1, FLOW), (0, MOVED)], vec!["sip:alice@192.0.2.1:6000"]),
        // It moves where nothing is known of it.
        (vec![(0, PLAIN), (1, FLOW), (2, MOVED)], vec!["sip:alice@192.0.2.1:6000"]),
        (vec![(0, PLAIN), (1, FLOW), (1, GONE_FLOW)], vec![]),
        (vec![(0, PLAIN), (1, FLOW), (1, GONE_FLOW), (2, MOVED)], vec!["sip:alice@192.0.2.1:6000"]),
        (vec![(0, PLAIN), (1, GONE_FLOW), (1, MOVED)], vec!["sip:alice@192.0.2.1:6000"]),
        // It loses the reg-id for a while in between.
        (vec![(0, FLOW), (1, PLAIN), (0, FLOW), (2, MOVED)], vec!["sip:alice@192.0.2.1:6000"]),
    ] {
        let mut nodes = apart(3);
        asked(&mut nodes, &requests);
        assert_eq!(together(&nodes), rings, "{requests:?}");
    }
}

#[test]
fn a_contact_that_is_later_than_the_flow_at_its_uri_stays_when_the_flow_moves() {
    for third in 0..3 {
        let mut nodes = apart(3);
        asked(&mut nodes, &[(0, FLOW), (1, PLAIN), (third, MOVED)]);
        assert_eq!(together(&nodes).len(), 2, "it moves at node {third}");
    }
}

#[test]
fn a_contact_ends_only_the_flow_that_is_at_its_uri() {
    let mut nodes = apart(2);
    asked(&mut nodes, &[(0, FLOW)]);
    let known = nodes[0].record.clone();
    nodes[1].record.merge(&known);
    // Node 1 still believes it where it was.
    asked(&mut nodes, &[(0, MOVED), (1, PLAIN)]);
    assert_eq!(together(&nodes).len(), 2);
}

#[test]
fn an_operator_removes_a_uri_and_not_a_flow_that_has_left_it() {
    let mut nodes = apart(2);
    asked(&mut nodes, &[(0, FLOW)]);
    let known = nodes[0].record.clone();
    nodes[1].record.merge(&known);
    asked(&mut nodes, &[(0, MOVED)]);
    let contact = Contact::parse(PLAIN.as_bytes()).expect("a Contact");
    let which = Which::Uri { key: contact.key(), uri_hash: contact.uri_hash() };
    let desk = &mut nodes[1];
    let stamp = Stamp { time_us: desk.now_us + 10, counter: 0, boot: BootId(9) };
    let removed = remove(&which, &desk.record, desk.now_us, &desk.limits, stamp);
    assert_eq!(removed.live, 1);
    desk.record.merge(&removed.delta.expect("a delta"));
    assert!(desk.uris().is_empty());
    assert_eq!(together(&nodes), ["sip:alice@192.0.2.1:6000"]);
}

#[test]
fn a_flow_that_leaves_takes_no_other_along() {
    let mut nodes = apart(1);
    asked(&mut nodes, &[(0, PLAIN), (0, FLOW), (0, SECOND), (0, MOVED)]);
    assert_eq!(together(&nodes), ["sip:alice@192.0.2.1:5060", "sip:alice@192.0.2.1:6000"]);
}

#[test]
fn a_retransmission_ends_again_what_it_superseded() {
    for then in [FLOW, GONE_FLOW] {
        let mut nodes = apart(3);
        asked(&mut nodes, &[(0, PLAIN)]);
        let known = nodes[0].record.clone();
        nodes[1].record.merge(&known);
        let request = register("y", 1, &[then]);
        nodes[1].pass(1);
        nodes[1].ok(&request);
        nodes[1].pass(1);
        // Another phone at that address says the same of it, later.
        nodes[1].ok(&register("z", 1, &[SECOND]));
        nodes[1].ok(&register("z", 2, &["<sip:bob@192.0.2.2>;+sip.instance=\"<urn:uuid:2>\";reg-id=1"]));
        let Judged::Accepted { write: Write::Again(again), .. } = nodes[1].judge(&request) else {
            panic!("not again: {then}");
        };
        nodes.remove(1);
        nodes[0].record.merge(&again);
        asked(&mut nodes, &[(1, "<sip:carol@192.0.2.3>"), (1, "<sip:dan@192.0.2.4>"), (1, MOVED)]);
        assert!(!together(&nodes).contains(&"sip:alice@192.0.2.1:5060".to_owned()), "{then}");
    }
}

#[test]
fn a_late_register_of_a_contact_that_gained_a_reg_id_is_refused_where_the_flow_was() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 6, &[FLOW]));
    desk.ok(&register("x", 7, &[MOVED]));
    desk.refused(&register("x", 5, &[PLAIN]));
    desk.refused(&register("x", 6, &[PLAIN]));
}

#[test]
fn a_flow_that_stays_is_refreshed_with_one_entry() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 1, &[FLOW]));
    let entries = |judged: Judged| match judged {
        Judged::Accepted { write: Write::New(delta), .. } => delta.entries.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(entries(desk.judge(&register("x", 2, &[FLOW]))), 1);
    assert_eq!(entries(desk.judge(&register("x", 4, &[FLOW]))), 2, "it asked for something in between");
    assert_eq!(entries(desk.judge(&register("y", 5, &[FLOW]))), 2);
}

#[test]
fn a_flow_that_wanders_leaves_room_for_contacts() {
    let mut desk = Desk::default();
    desk.limits.entries_per_aor_max = 16;
    for cseq in 1..100 {
        let contact = format!("<sip:alice@192.0.2.1:{}>;+sip.instance=\"<urn:uuid:1>\";reg-id=1", 1000 + cseq);
        assert_eq!(desk.ok(&register("x", cseq, &[&contact])).len(), 1);
    }
    assert_eq!(desk.record.entries.len(), 8);
    for other in 0..8 {
        let contact = format!("<sip:alice@192.0.2.{other}>");
        desk.ok(&register(&format!("y{other}"), 1, &[&contact]));
    }
}

/// What a phone asks for, and where.
#[derive(Debug, Clone)]
struct Step {
    node: usize,
    port: u16,
    flow: bool,
    gone: bool,
    star: bool,
    /// Which nodes hear of it at once, as bits.
    heard: u8,
}

const NODES: usize = 3;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..NODES, 0..3u16, any::<bool>(), 0..4u8, 0..12u8, 0..1u8 << NODES);
    let step = step.prop_map(|(node, port, flow, gone, star, heard)| Step {
        node,
        port,
        flow,
        gone: gone == 0,
        star: star == 0,
        heard,
    });
    prop::collection::vec(step, 1..16)
}

impl Step {
    fn contact(&self) -> String {
        let flow = if self.flow { ";+sip.instance=\"<urn:uuid:1>\";reg-id=1" } else { "" };
        let gone = if self.gone { ";expires=0" } else { "" };
        format!("<sip:alice@192.0.2.1:{}>{flow}{gone}", 5060 + self.port)
    }
}

/// Asks at a node; the change.
fn ask(desk: &mut Desk, request: &Register<'_>) -> Record {
    match desk.judge(request) {
        Judged::Accepted { write, .. } => write.published().unwrap_or_default(),
        Judged::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn what_rings_in_the_end_does_not_depend_on_who_had_heard_what(steps in steps(), reboots in any::<bool>()) {
        let (mut nodes, mut knows_all) = (apart(NODES as u64), Desk::new(77));
        for (index, step) in steps.iter().enumerate() {
            nodes.iter_mut().chain([&mut knows_all]).for_each(|node| node.pass(1));
            let (boot, cseq) = if reboots { (index, 1) } else { (0, index as u32 + 1) };
            let (call_id, contact) = (format!("call{boot}"), step.contact());
            let request = if step.star { star(&call_id, cseq) } else { register(&call_id, cseq, &[&contact]) };
            ask(&mut knows_all, &request);
            let delta = ask(&mut nodes[step.node], &request);
            let hear = nodes.iter_mut().enumerate().filter(|(node, _)| step.heard >> node & 1 == 1);
            for (_, node) in hear {
                node.record.merge(&delta);
            }
        }
        prop_assert_eq!(together(&nodes), sorted(knows_all.uris()));
    }
}
