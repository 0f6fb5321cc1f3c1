//! CSeq within a Call-ID: retransmissions, late ones, and what a removal remembers.

use aorta::registrar::{Expires, Judged, Refusal, Write};

use crate::desk::{Desk, Register, register, star};

const A: &str = "<sip:alice@192.0.2.1:5060>;q=0.5";
const GONE_A: &str = "<sip:alice@192.0.2.1:5060>;expires=0";
const B: &str = "<sip:alice@192.0.2.2:5060>";

/// What a retransmission publishes; asserts that it drew no stamp and lists what is live.
fn again(desk: &mut Desk, request: &Register<'_>) -> aorta_proto::Record {
    let drawn = desk.drawn();
    let live = desk.uris().len();
    let Judged::Accepted { write: Write::Again(record), bindings } = desk.judge(request) else { panic!("not again") };
    assert_eq!((desk.drawn(), bindings.len()), (drawn, live));
    record
}

#[test]
fn a_retransmission_is_published_again_under_its_own_stamp() {
    let mut desk = Desk::default();
    let request = Register { path: vec!["<sip:edge;lr>"], ..register("x", 1, &[A, B]) };
    desk.ok(&request);
    desk.ok(&register("y", 1, &["<sip:alice@192.0.2.9>"]));
    desk.pass(20);
    let record = again(&mut desk, &request);
    assert_eq!(record.entries.len(), 2);
    assert!(record.entries.iter().all(|entry| desk.record.entry(&entry.key) == Some(entry)));
}

#[test]
fn any_node_knows_a_retransmission() {
    let mut one = Desk::new(1);
    let mut two = Desk::new(2);
    one.ok(&register("x", 1, &[A]));
    two.record.merge(&one.record);
    assert_eq!(again(&mut two, &register("x", 1, &[A])), one.record);
}

#[test]
fn other_contents_under_one_cseq_are_refused() {
    let mut desk = Desk::default();
    let first = Register { path: vec!["<sip:edge;lr>"], ..register("x", 1, &[A, B]) };
    desk.ok(&first);
    let others: [Register<'_>; 9] = [
        Register { contacts: vec![A], ..first.clone() },
        Register { contacts: vec![A, B, "<sip:alice@192.0.2.3>"], ..first.clone() },
        Register { contacts: vec!["<sip:alice@192.0.2.3>"], ..first.clone() },
        Register { contacts: vec!["<sip:alice@192.0.2.1:5060>;q=0.4", B], ..first.clone() },
        Register { contacts: vec!["<sip:%61lice@192.0.2.1:5060>;q=0.5", B], ..first.clone() },
        Register { contacts: vec![A, "<sip:alice@192.0.2.2:5060>;expires=0"], ..first.clone() },
        Register { expires: Expires::Seconds(60), ..first.clone() },
        Register { path: vec!["<sip:other;lr>"], ..first.clone() },
        star("x", 1),
    ];
    for (index, other) in others.iter().enumerate() {
        assert_eq!(desk.refused(other), Refusal::ReusedCSeq, "{index}");
    }
    assert_eq!(desk.drawn(), 1);
}

#[test]
fn the_order_of_contacts_and_where_the_lifetime_stands_are_no_contents() {
    let mut desk = Desk::default();
    desk.ok(&Register { expires: Expires::Seconds(600), ..register("x", 1, &[A, B]) });
    let same = ["<sip:alice@192.0.2.2:5060>;expires=600", "<sip:alice@192.0.2.1:5060>;expires=600;q=0.5"];
    again(&mut desk, &register("x", 1, &same));
}

#[test]
fn a_removal_sent_again_is_a_retransmission() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 1, &[A]));
    desk.ok(&register("x", 2, &[GONE_A]));
    assert_eq!(again(&mut desk, &register("x", 2, &[GONE_A])).entries, desk.record.entries);
    assert_eq!(desk.refused(&register("x", 2, &[A])), Refusal::ReusedCSeq);
}

#[test]
fn a_star_sent_again_is_a_retransmission() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 1, &[A]));
    desk.ok(&star("x", 2));
    desk.ok(&register("y", 1, &[B]));
    let record = again(&mut desk, &star("x", 2));
    assert_eq!((record.cleared, record.entries.len()), (desk.record.cleared, 1), "and its trail");
    assert_eq!(desk.uris().len(), 1);
    desk.ok(&register("x", 3, &[A]));
    assert_eq!(desk.refused(&star("x", 2)), Refusal::OldCSeq);
}

#[test]
fn a_late_register_cannot_undo_a_removal() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 5, &[A]));
    desk.ok(&register("x", 6, &[GONE_A]));
    assert_eq!(desk.refused(&register("x", 5, &[A])), Refusal::OldCSeq);
    assert_eq!(desk.refused(&register("x", 6, &[A])), Refusal::ReusedCSeq);
    assert_eq!(desk.ok(&register("x", 7, &[A])).len(), 1);
}

#[test]
fn a_removal_of_a_contact_never_seen_is_remembered() {
    let mut desk = Desk::default();
    assert!(desk.ok(&register("x", 6, &[GONE_A])).is_empty());
    assert_eq!(desk.record.entries.len(), 1);
    assert_eq!(desk.refused(&register("x", 5, &[A])), Refusal::OldCSeq);
}

#[test]
fn a_late_register_cannot_undo_a_star_that_never_saw_its_contact() {
    let mut desk = Desk::default();
    desk.ok(&star("x", 6));
    assert_eq!(desk.refused(&register("x", 5, &[A])), Refusal::OldCSeq);
    assert_eq!(desk.refused(&register("x", 6, &[A])), Refusal::ReusedCSeq);
    assert_eq!(desk.refused(&star("x", 5)), Refusal::OldCSeq);
    assert_eq!(desk.ok(&register("x", 7, &[A])).len(), 1);
}

#[test]
fn a_late_register_cannot_undo_a_star_that_did() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 5, &[A]));
    desk.ok(&star("y", 1));
    assert_eq!(desk.refused(&register("x", 5, &[A])), Refusal::ReusedCSeq);
    assert_eq!(desk.refused(&register("x", 4, &[A])), Refusal::OldCSeq);
}

#[test]
fn a_lapsed_contact_remembers_its_cseq_whether_swept_or_not() {
    for slim in [false, true] {
        let mut desk = Desk::default();
        desk.ok(&register("x", 5, &["<sip:alice@192.0.2.1:5060>;q=0.5;expires=60"]));
        let first = desk.record.entries[0].stamp;
        desk.pass(61);
        if slim {
            let lapsed_us = desk.now_us;
            assert_eq!(desk.record.slim(lapsed_us, |_| {}), 1);
        }
        let late = "<sip:alice@192.0.2.1:5060>;q=0.5;expires=60";
        assert_eq!(desk.refused(&register("x", 5, &[late])), Refusal::ReusedCSeq);
        assert_eq!(desk.refused(&register("x", 4, &[late])), Refusal::OldCSeq);
        let bindings = desk.ok(&register("x", 6, &[late]));
        assert!(bindings[0].binding.first > first, "registered anew");
    }
}

#[test]
fn a_refresh_keeps_the_first_registration() {
    let mut desk = Desk::default();
    let first = desk.ok(&register("x", 1, &[A]))[0].binding.first;
    desk.pass(100);
    assert_eq!(desk.ok(&register("x", 2, &[A]))[0].binding.first, first);
    desk.ok(&register("x", 3, &[GONE_A]));
    assert!(desk.ok(&register("x", 4, &[A]))[0].binding.first > first);
}

#[test]
fn old_and_new_contacts_may_not_share_a_cseq() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 5, &[A]));
    assert_eq!(desk.refused(&register("x", 5, &[A, B])), Refusal::ReusedCSeq);
    assert_eq!(desk.refused(&register("x", 5, &[B])), Refusal::ReusedCSeq);
    assert_eq!(desk.ok(&register("x", 6, &[A, B])).len(), 2);
}

#[test]
fn a_lower_cseq_on_a_contact_never_seen_is_a_new_binding() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 5, &[A]));
    assert_eq!(desk.ok(&register("x", 1, &[B])).len(), 2);
}

#[test]
fn a_clock_that_is_behind_writes_nothing() {
    let mut ahead = Desk::new(2);
    ahead.pass(10);
    ahead.ok(&register("x", 1, &[A]));
    let mut desk = Desk::new(1);
    desk.record.merge(&ahead.record);
    assert_eq!(desk.refused(&register("x", 2, &[A])), Refusal::StampBehind);
    assert_eq!(desk.refused(&star("x", 2)), Refusal::StampBehind);
    assert_eq!(Refusal::StampBehind.status(), 503);
}

#[test]
fn a_star_is_remembered_beyond_the_star_of_another_phone() {
    let (mut one, mut two) = (Desk::new(1), Desk::new(2));
    one.ok(&register("x", 1, &[A]));
    one.ok(&star("x", 2));
    one.pass(1);
    one.ok(&star("y", 1));
    one.pass(1);
    one.ok(&register("z", 1, &[B]));
    let published = again(&mut one, &star("x", 2));
    assert_eq!(one.uris(), [uri_of(B)]);
    assert_eq!(one.refused(&register("x", 1, &[A])), Refusal::OldCSeq);
    assert_eq!(one.refused(&register("x", 2, &[A])), Refusal::ReusedCSeq);
    // Who has nothing but what is published again shows nothing of what the first removed.
    two.ok(&register("x", 1, &[A]));
    two.record.merge(&published);
    two.pass(2);
    assert_eq!(two.uris(), [""; 0]);
}

fn uri_of(contact: &str) -> &str {
    contact.trim_start_matches('<').split('>').next().unwrap_or_default()
}
