//! Which contacts are one: instance keys, URI keys, and a phone that has both.

use aorta::registrar::{Refusal, Which, remove};
use aorta::sip::message::Contact;
use aorta_proto::{BootId, Stamp};

use crate::desk::{Desk, register, star, uris};

const PLAIN: &str = "<sip:alice@192.0.2.1:5060>";
const FLOW: &str = "<sip:alice@192.0.2.1:5060>;+sip.instance=\"<urn:uuid:1>\";reg-id=1";
const MOVED: &str = "<sip:alice@192.0.2.1:6000>;+sip.instance=\"<urn:uuid:1>\";reg-id=1";
const GONE_FLOW: &str = "<sip:alice@192.0.2.1:5060>;+sip.instance=\"<urn:uuid:1>\";reg-id=1;expires=0";
/// Another phone, behind the same address.
const SECOND: &str = "<sip:alice@192.0.2.1:5060>;+sip.instance=\"<urn:uuid:2>\";reg-id=1";
const GONE_PLAIN: &str = "<sip:alice@192.0.2.1:5060>;expires=0";

#[test]
fn an_instance_keeps_its_binding_when_its_uri_changes() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 1, &[FLOW]));
    assert_eq!(uris(&desk.ok(&register("y", 1, &[MOVED]))), ["sip:alice@192.0.2.1:6000"]);
}

#[test]
fn firmware_that_begins_to_send_an_instance_is_still_one_phone() {
    let mut desk = Desk::default();
    let first = desk.ok(&register("x", 9, &[PLAIN]))[0].binding.first;
    let bindings = desk.ok(&register("y", 1, &[FLOW]));
    assert_eq!((bindings.len(), bindings[0].binding.first), (1, first));
    assert_eq!(desk.refused(&register("x", 9, &[PLAIN])), Refusal::ReusedCSeq, "late, from before the change");
    assert_eq!(desk.ok(&register("y", 2, &[MOVED])).len(), 1, "the old one does not come back");
}

#[test]
fn a_late_register_of_the_other_kind_of_key_is_late_too() {
    for (live, late) in [(FLOW, PLAIN), (PLAIN, FLOW)] {
        let mut desk = Desk::default();
        desk.ok(&register("x", 10, &[live]));
        assert_eq!(desk.refused(&register("x", 9, &[late])), Refusal::OldCSeq);
        assert_eq!(desk.refused(&register("x", 10, &[late])), Refusal::ReusedCSeq);
        assert_eq!(desk.ok(&register("x", 11, &[late])).len(), 1);
    }
}

#[test]
fn firmware_that_ceases_to_send_an_instance_is_still_one_phone() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 9, &[FLOW]));
    assert_eq!(desk.ok(&register("y", 1, &[PLAIN])).len(), 1);
    assert_eq!(desk.refused(&register("x", 9, &[FLOW])), Refusal::ReusedCSeq);
    assert!(desk.ok(&register("y", 2, &[GONE_PLAIN])).is_empty());
}

#[test]
fn a_removal_removes_whatever_it_matches() {
    for (live, removal) in [(PLAIN, GONE_FLOW), (FLOW, GONE_PLAIN)] {
        let mut desk = Desk::default();
        desk.ok(&register("x", 1, &[live]));
        assert!(desk.ok(&register("y", 1, &[removal])).is_empty());
        assert!(desk.record.live(desk.now_us).next().is_none() && desk.record.entries.len() >= 2);
    }
}

#[test]
fn what_a_removed_instance_hid_stays_hidden_when_the_instance_moves() {
    let mut desk = Desk::default();
    let mut other = Desk::new(2);
    desk.ok(&register("x", 1, &[PLAIN]));
    other.pass(1);
    other.ok(&register("y", 1, &[GONE_FLOW]));
    desk.record.merge(&other.record);
    assert!(desk.uris().is_empty(), "merged, the later removal hides the earlier contact");
    desk.pass(2);
    assert_eq!(uris(&desk.ok(&register("y", 2, &[MOVED]))), ["sip:alice@192.0.2.1:6000"]);
}

#[test]
fn two_instances_at_one_uri_are_two_phones() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 1, &[FLOW]));
    assert_eq!(desk.ok(&register("y", 1, &[SECOND])).len(), 2);
    assert_eq!(desk.ok(&register("x", 2, &[GONE_FLOW])).len(), 1);
    assert!(desk.ok(&register("z", 1, &[GONE_PLAIN])).is_empty());
}

#[test]
fn an_operator_removes_by_uri_or_all_and_late_ones_stay_refused() {
    let stamp = |desk: &Desk| Stamp { time_us: desk.now_us + 1_000_000, counter: 0, boot: BootId(9) };
    let mut desk = Desk::default();
    desk.ok(&register("x", 5, &[FLOW]));
    let contact = Contact::parse(PLAIN.as_bytes()).expect("a Contact");
    let which = Which::Uri { key: contact.key(), uri_hash: contact.uri_hash() };
    let removed = remove(&which, &desk.record, desk.now_us, &desk.limits, stamp(&desk));
    assert_eq!(removed.live, 1);
    desk.record.merge(&removed.delta.expect("a delta"));
    desk.pass(2);
    assert!(desk.uris().is_empty());
    assert_eq!(desk.refused(&register("x", 5, &[FLOW])), Refusal::ReusedCSeq);
    assert_eq!(desk.ok(&register("x", 6, &[FLOW])).len(), 1);

    desk.ok(&star("x", 7));
    desk.ok(&register("y", 1, &[FLOW]));
    let removed = remove(&Which::All, &desk.record, desk.now_us, &desk.limits, stamp(&desk));
    assert_eq!(removed.live, 1);
    desk.record.merge(&removed.delta.expect("a delta"));
    desk.pass(2);
    assert!(desk.uris().is_empty());
    assert_eq!(desk.refused(&register("y", 1, &[FLOW])), Refusal::ReusedCSeq);
    assert_eq!(desk.refused(&register("x", 7, &["<sip:new@b>"])), Refusal::ReusedCSeq, "the star is remembered");
}
