//! §10.3 steps 6 to 8, in the order of the RFC.

use aorta::registrar::{Expires, Judged, Refusal, Write};

use crate::desk::{Desk, register, star, uris};

const A: &str = "<sip:alice@192.0.2.1:5060>";
const B: &str = "<sip:alice@192.0.2.2:5060>";

#[test]
fn a_query_lists_the_contacts_and_writes_nothing() {
    let mut desk = Desk::default();
    let query = register("x", 1, &[]);
    assert!(desk.ok(&query).is_empty());
    desk.ok(&register("x", 5, &[A]));
    let Judged::Accepted { write, bindings } = desk.judge(&query) else { panic!("refused") };
    assert_eq!(write, Write::Nothing);
    assert_eq!(uris(&bindings), ["sip:alice@192.0.2.1:5060"]);
    assert_eq!(desk.drawn(), 1);
}

#[test]
fn star_needs_an_expires_header_of_zero() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 1, &[A]));
    for expires in [Expires::Absent, Expires::Malformed, Expires::Seconds(60)] {
        let request = crate::desk::Register { expires, ..star("x", 2) };
        assert_eq!(desk.refused(&request), Refusal::StarNeedsExpiresZero);
    }
    assert_eq!(desk.uris().len(), 1);
}

#[test]
fn star_removes_all_contacts_of_all_call_ids() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 1, &[A]));
    desk.ok(&register("y", 1, &[B]));
    assert!(desk.ok(&star("z", 1)).is_empty());
    assert!(desk.uris().is_empty());
    assert_eq!(desk.ok(&register("z", 2, &[A])).len(), 1);
}

#[test]
fn star_with_a_cseq_that_is_not_higher_removes_nothing_at_all() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 7, &[A]));
    desk.ok(&register("y", 1, &[B]));
    assert_eq!(desk.refused(&star("x", 6)), Refusal::OldCSeq);
    assert_eq!(desk.refused(&star("x", 7)), Refusal::ReusedCSeq);
    assert_eq!(desk.uris().len(), 2);
}

#[test]
fn the_contact_parameter_beats_the_header_which_beats_the_default() {
    let mut desk = Desk::default();
    let header = |expires, contact| crate::desk::Register { expires, ..register("x", 1, &[contact]) };
    for (expires, contact, granted_s) in [
        (Expires::Absent, "<sip:a@b>", 3600),
        (Expires::Seconds(600), "<sip:a@b>", 600),
        (Expires::Seconds(600), "<sip:a@b>;expires=120", 120),
        (Expires::Malformed, "<sip:a@b>", 3600),
        (Expires::Seconds(600), "<sip:a@b>;expires=soon", 3600),
        (Expires::Malformed, "<sip:a@b>;expires=120", 120),
        (Expires::Absent, "<sip:a@b>;expires=4294967295", 7200),
        (Expires::Absent, "<sip:a@b>;expires=99999999999999999999", 7200),
    ] {
        desk.record = aorta_proto::Record::default();
        let bindings = desk.ok(&header(expires, contact));
        assert_eq!(
            (bindings[0].remaining_s, bindings[0].binding.granted_s),
            (granted_s, granted_s),
            "{expires:?} {contact}"
        );
    }
}

#[test]
fn an_interval_is_too_brief_only_above_zero_below_the_least_and_below_an_hour() {
    let mut desk = Desk::default();
    let too_brief = Refusal::TooBrief { expires_min_s: 60 };
    assert_eq!(desk.refused(&register("x", 1, &["<sip:a@b>;expires=59"])), too_brief);
    assert_eq!(desk.refused(&register("x", 1, &["<sip:a@b>;expires=1"])), too_brief);
    assert_eq!((too_brief.status(), too_brief.phrase()), (423, "Interval Too Brief"));
    desk.ok(&register("x", 1, &["<sip:a@b>;expires=60"]));
    desk.ok(&register("x", 2, &["<sip:a@b>;expires=0"]));
    desk.limits.expires_min_s = 5000;
    assert_eq!(desk.refused(&register("x", 3, &["<sip:a@b>;expires=3599"])), Refusal::TooBrief { expires_min_s: 5000 });
    assert_eq!(desk.ok(&register("x", 3, &["<sip:a@b>;expires=3600"]))[0].remaining_s, 3600);
}

#[test]
fn one_contact_that_is_refused_refuses_the_whole_request() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 5, &[A]));
    assert_eq!(desk.refused(&register("x", 4, &[B, A])), Refusal::OldCSeq);
    assert!(matches!(desk.refused(&register("x", 6, &[A, "<sip:c@d>;expires=5"])), Refusal::TooBrief { .. }));
    assert_eq!(desk.uris(), ["sip:alice@192.0.2.1:5060"]);
}

#[test]
fn contacts_are_found_by_the_uri_comparison_of_the_rfc() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 1, &["<sip:%61lice@HOST.example.com;transport=TCP>"]));
    let bindings = desk.ok(&register("x", 2, &["<sip:alice@host.Example.com;transport=tcp>"]));
    assert_eq!(uris(&bindings), ["sip:alice@host.Example.com;transport=tcp"]);
    assert_eq!(desk.ok(&register("x", 3, &["<sip:Alice@host.example.com;transport=tcp>"])).len(), 2);
}

#[test]
fn another_call_id_updates_and_removes_whatever_its_cseq() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 90, &[A]));
    assert_eq!(desk.ok(&register("y", 1, &["<sip:alice@192.0.2.1:5060>;q=0.3"]))[0].binding.q, Some(300));
    assert!(desk.ok(&register("z", 1, &["<sip:alice@192.0.2.1:5060>;expires=0"])).is_empty());
}

#[test]
fn the_same_call_id_updates_and_removes_only_with_a_higher_cseq() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 5, &[A]));
    desk.ok(&register("x", 6, &["<sip:alice@192.0.2.1:5060>;q=0.3"]));
    assert_eq!(desk.refused(&register("x", 5, &[A])), Refusal::OldCSeq);
    assert_eq!(desk.refused(&register("x", 6, &["<sip:alice@192.0.2.1:5060>;expires=0"])), Refusal::ReusedCSeq);
    assert_eq!((Refusal::OldCSeq.status(), Refusal::ReusedCSeq.status()), (400, 400));
    assert!(desk.ok(&register("x", 7, &["<sip:alice@192.0.2.1:5060>;expires=0"])).is_empty());
}

#[test]
fn several_contacts_are_added_refreshed_and_removed_at_once() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 1, &[A, B]));
    let mixed = ["<sip:alice@192.0.2.1:5060>;expires=0", B, "<sip:alice@192.0.2.3:5060>;q=0.1"];
    let bindings = desk.ok(&register("x", 2, &mixed));
    assert_eq!(uris(&bindings), ["sip:alice@192.0.2.2:5060", "sip:alice@192.0.2.3:5060"]);
    let stamps: Vec<_> = desk.record.entries.iter().map(|entry| entry.stamp).collect();
    assert!(stamps.windows(2).all(|pair| pair[0] == pair[1]), "one request, one stamp: {stamps:?}");
}

#[test]
fn a_200_lists_every_contact_with_the_seconds_that_it_has_left() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 1, &["<sip:alice@192.0.2.1:5060>;expires=100"]));
    desk.pass(40);
    let bindings = desk.ok(&register("y", 1, &["<sip:alice@192.0.2.2:5060>;expires=100;q=0.5;x=\"a;b\""]));
    assert_eq!(bindings.iter().map(|listed| listed.remaining_s).collect::<Vec<_>>(), [61, 100]);
    assert_eq!(bindings[1].binding.params(), b";q=0.5;x=\"a;b\"");
    desk.pass(60);
    assert_eq!(desk.uris().len(), 2);
    desk.pass(1);
    assert_eq!(desk.uris(), ["sip:alice@192.0.2.2:5060"]);
}

#[test]
fn two_contacts_of_one_request_may_not_be_one() {
    let mut desk = Desk::default();
    for twice in [
        ["<sip:a@B>", "<sip:a@b>;q=0.1"],
        ["<sip:a@b>;+sip.instance=\"<urn:x:1>\";reg-id=1", "<sip:c@d>;+sip.instance=\"<urn:x:1>\";reg-id=1"],
        ["<sip:a@b>;+sip.instance=\"<urn:x:1>\";reg-id=1", "<sip:a@b>"],
    ] {
        assert_eq!(desk.refused(&register("x", 1, &twice)), Refusal::SameContactTwice, "{twice:?}");
    }
    let flows = ["<sip:a@b>;+sip.instance=\"<urn:x:1>\";reg-id=1", "<sip:a@b>;+sip.instance=\"<urn:x:1>\";reg-id=2"];
    assert_eq!(desk.ok(&register("x", 1, &flows)).len(), 2);
}
