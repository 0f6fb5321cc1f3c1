//! Limits: on contacts that ring, on entries remembered, on bytes. They refuse, they never drop.

use aorta::config::bounds::{CONTACT_PARAMS_BYTES_MAX, CONTACT_URI_BYTES_MAX, PATH_BYTES_MAX};
use aorta::location::Room;
use aorta::registrar::{Judged, Refusal, Write};

use crate::desk::{Desk, Register, register, star, uris};

#[test]
fn one_contact_too_many_is_refused_and_a_replacement_is_not() {
    let mut desk = Desk::default();
    desk.limits.max_contacts_per_aor = 2;
    desk.ok(&register("x", 1, &["<sip:a@b>", "<sip:c@d>"]));
    let refusal = desk.refused(&register("x", 2, &["<sip:e@f>"]));
    assert_eq!((refusal.status(), refusal), (403, Refusal::TooManyContacts));
    assert_eq!(desk.refused(&register("y", 1, &["<sip:g@h>", "<sip:a@b>"])), Refusal::TooManyContacts);
    assert_eq!(uris(&desk.ok(&register("x", 2, &["<sip:e@f>", "<sip:a@b>;expires=0"]))), ["sip:c@d", "sip:e@f"]);
    desk.ok(&register("x", 3, &["<sip:c@d>", "<sip:e@f>"]));
}

#[test]
fn more_contacts_than_allowed_in_one_request_are_refused() {
    let mut desk = Desk::default();
    desk.limits.max_contacts_per_aor = 1;
    assert_eq!(desk.refused(&register("x", 1, &["<sip:a@b>", "<sip:c@d>"])), Refusal::TooManyContacts);
    desk.limits.entries_per_aor_max = 1;
    assert_eq!(desk.refused(&register("x", 1, &["<sip:a@b>", "<sip:c@d>"])), Refusal::TooManyEntries);
}

#[test]
fn a_contact_that_a_merge_hid_is_refused_not_refreshed() {
    let mut desk = Desk::default();
    let mut other = Desk::new(2);
    desk.limits.max_contacts_per_aor = 1;
    other.pass(1);
    desk.ok(&register("x", 1, &["<sip:a@b>"]));
    other.ok(&register("y", 1, &["<sip:c@d>"]));
    desk.record.merge(&other.record);
    desk.pass(2);
    assert_eq!(desk.uris(), ["sip:a@b"]);
    assert_eq!(desk.refused(&register("y", 1, &["<sip:c@d>"])), Refusal::TooManyContacts, "nor by a retransmission");
    assert_eq!(desk.refused(&register("y", 2, &["<sip:c@d>"])), Refusal::TooManyContacts);
    desk.ok(&register("x", 2, &["<sip:a@b>"]));
    desk.ok(&register("x", 3, &["<sip:a@b>;expires=0"]));
    assert_eq!(desk.uris(), ["sip:c@d"]);
    desk.ok(&register("y", 2, &["<sip:c@d>"]));
}

#[test]
fn a_phone_that_became_two_keeps_its_place_where_it_is() {
    let mut desk = Desk::default();
    let mut other = Desk::new(2);
    desk.limits.max_contacts_per_aor = 1;
    other.limits.max_contacts_per_aor = 1;
    let flow = |port: u16| format!("<sip:a@b:{port}>;reg-id=1;+sip.instance=\"<urn:uuid:1>\"");
    desk.ok(&register("x", 1, &[&flow(5060)]));
    other.record.merge(&desk.record);
    other.pass(1);
    other.ok(&register("y", 1, &["<sip:a@b:5060>"]));
    desk.pass(2);
    desk.ok(&register("y", 2, &[&flow(5063)]));
    desk.record.merge(&other.record);
    assert_eq!(desk.uris(), ["sip:a@b:5063"]);
    desk.pass(1);
    desk.ok(&register("z", 1, &["<sip:a@b:5063>"]));
    assert_eq!(desk.uris(), ["sip:a@b:5063"]);
}

#[test]
fn contacts_of_one_request_keep_their_places_whichever_is_refreshed() {
    let mut desk = Desk::default();
    let mut other = Desk::new(2);
    desk.ok(&register("x", 1, &["<sip:z@b>", "<sip:a@b>"]));
    other.pass(1);
    other.ok(&register("y", 1, &["<sip:c@d>"]));
    desk.record.merge(&other.record);
    desk.limits.max_contacts_per_aor = 1;
    desk.pass(2);
    assert_eq!(desk.refused(&register("x", 2, &["<sip:a@b>"])), Refusal::TooManyContacts);
    assert_eq!(desk.uris(), ["sip:z@b"]);
}

#[test]
fn a_full_record_takes_no_new_contact_but_refreshes_and_removes() {
    let mut desk = Desk::default();
    desk.limits.entries_per_aor_max = 2;
    desk.ok(&register("x", 1, &["<sip:a@b>", "<sip:c@d>"]));
    desk.ok(&register("x", 2, &["<sip:c@d>;expires=0"]));
    let refusal = desk.refused(&register("x", 3, &["<sip:e@f>"]));
    assert_eq!((refusal.status(), refusal), (403, Refusal::TooManyEntries));
    desk.ok(&register("x", 3, &["<sip:a@b>", "<sip:c@d>"]));
    assert_eq!(uris(&desk.ok(&register("x", 4, &["<sip:c@d>;expires=0"]))), ["sip:a@b"]);
}

#[test]
fn a_full_record_writes_nothing_for_the_removal_of_a_contact_never_seen() {
    let mut desk = Desk::default();
    desk.limits.entries_per_aor_max = 1;
    desk.ok(&register("x", 1, &["<sip:a@b>"]));
    let Judged::Accepted { write, bindings } = desk.judge(&register("x", 2, &["<sip:c@d>;expires=0"])) else {
        panic!("refused");
    };
    assert_eq!((write, bindings.len()), (Write::Nothing, 1));
    assert_eq!(desk.drawn(), 1);
    let mixed = register("x", 3, &["<sip:c@d>;expires=0", "<sip:a@b>"]);
    assert_eq!(desk.ok(&mixed).len(), 1);
    assert_eq!(desk.record.entries.len(), 1);
    let Judged::Accepted { write: Write::Again(_), .. } = desk.judge(&mixed) else { panic!("not again") };
}

#[test]
fn new_contacts_have_room_before_removals_of_unseen_ones() {
    let mut desk = Desk::default();
    desk.limits.entries_per_aor_max = 1;
    assert_eq!(desk.ok(&register("x", 1, &["<sip:c@d>;expires=0", "<sip:a@b>"])).len(), 1);
    assert_eq!(desk.record.entries.len(), 1);
}

#[test]
fn what_a_merge_brought_beyond_the_limit_is_still_refreshed() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 1, &["<sip:a@b>", "<sip:c@d>", "<sip:e@f>"]));
    desk.limits.entries_per_aor_max = 2;
    assert_eq!(desk.ok(&register("x", 2, &["<sip:a@b>"])).len(), 3);
}

/// One that has a contact, one that unregistered, one that nobody knows.
fn three_phones() -> [Desk; 3] {
    let mut desks = [Desk::default(), Desk::default(), Desk::default()];
    desks[0].ok(&register("x", 1, &["<sip:a@b>"]));
    desks[1].ok(&register("x", 1, &["<sip:a@b>"]));
    desks[1].ok(&register("x", 2, &["<sip:a@b>;expires=0"]));
    desks
}

#[test]
fn while_memory_is_full_only_an_aor_of_which_nothing_is_known_is_refused() {
    let [mut registered, mut removed, mut unknown] = three_phones();
    for desk in [&mut registered, &mut removed, &mut unknown] {
        desk.limits.room = Room::ForKnown;
    }
    let refusal = unknown.refused(&register("x", 1, &["<sip:a@b>"]));
    assert_eq!((refusal.status(), refusal.phrase()), (403, "Location Memory Full"));
    assert_eq!(unknown.refused(&register("x", 2, &["<sip:a@b>", "<sip:c@d>;expires=0"])), Refusal::MemoryFull);
    assert_eq!(unknown.drawn(), 0);
    assert_eq!(uris(&registered.ok(&register("x", 1, &["<sip:a@b>"]))), ["sip:a@b"], "sent again");
    assert_eq!(uris(&registered.ok(&register("x", 2, &["<sip:a@b>"]))), ["sip:a@b"]);
    assert_eq!(uris(&registered.ok(&register("y", 1, &["<sip:c@d>"]))), ["sip:a@b", "sip:c@d"], "another phone of it");
    assert_eq!(uris(&removed.ok(&register("x", 3, &["<sip:a@b>"]))), ["sip:a@b"], "its memory is taken already");
}

#[test]
fn while_memory_is_fuller_still_an_aor_without_a_contact_is_refused() {
    let [mut registered, mut removed, mut unknown] = three_phones();
    for desk in [&mut registered, &mut removed, &mut unknown] {
        desk.limits.room = Room::ForRegistered;
    }
    assert_eq!(unknown.refused(&register("x", 1, &["<sip:a@b>"])), Refusal::MemoryFull);
    assert_eq!(removed.refused(&register("x", 3, &["<sip:a@b>"])), Refusal::MemoryFull);
    registered.ok(&register("x", 2, &["<sip:a@b>"]));
    assert_eq!(uris(&registered.ok(&register("x", 3, &["<sip:a@b>;expires=0", "<sip:c@d>"]))), ["sip:c@d"], "it moved");
    registered.pass(3601);
    assert_eq!(registered.refused(&register("x", 4, &["<sip:c@d>"])), Refusal::MemoryFull, "it lapsed");
}

#[test]
fn removals_and_queries_are_answered_and_removals_written_however_full_memory_is() {
    for room in Room::ALL {
        let mut desks = three_phones();
        for desk in &mut desks {
            desk.limits.room = room;
            assert!(desk.ok(&register("x", 3, &["<sip:a@b>;expires=0"])).is_empty());
            assert!(desk.record.entry(&desk.record.entries[0].key).is_some(), "what is on its way is removed too");
            let again = desk.judge(&register("x", 3, &["<sip:a@b>;expires=0"]));
            assert!(matches!(again, Judged::Accepted { write: Write::Again(_), .. }), "{again:?}");
            assert!(desk.ok(&star("x", 4)).is_empty());
            assert!(desk.record.cleared.is_some());
            assert!(desk.ok(&register("x", 5, &[])).is_empty());
        }
    }
}

#[test]
fn what_is_wrong_with_a_request_is_said_before_that_memory_is_full() {
    let mut desk = Desk::default();
    desk.ok(&register("x", 5, &["<sip:a@b>;expires=0"]));
    desk.limits.room = Room::ForRegistered;
    assert_eq!(desk.refused(&register("x", 4, &["<sip:a@b>"])), Refusal::OldCSeq);
    assert_eq!(desk.refused(&register("x", 6, &["<sip:a@b>;expires=1"])).status(), 423);
}

#[test]
fn what_is_too_long_is_refused() {
    let mut desk = Desk::default();
    let uri = format!("<sip:{}@b>", "a".repeat(CONTACT_URI_BYTES_MAX));
    let params = format!("<sip:a@b>;x={}", "a".repeat(CONTACT_PARAMS_BYTES_MAX));
    let path = format!("<sip:{}@b;lr>", "a".repeat(PATH_BYTES_MAX));
    assert_eq!(desk.refused(&register("x", 1, &[&uri])), Refusal::ContactTooLong);
    assert_eq!(desk.refused(&register("x", 1, &[&params])), Refusal::ContactTooLong);
    assert_eq!(desk.refused(&Register { path: vec![&path], ..register("x", 1, &["<sip:a@b>"]) }), Refusal::PathTooLong);
    assert!([Refusal::ContactTooLong, Refusal::PathTooLong].iter().all(|refusal| refusal.status() == 403));
}
