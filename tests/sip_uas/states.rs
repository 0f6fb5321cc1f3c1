//! A node answers only what it knows: not ready, draining, in doubt.

use aorta::config::NotReadyOptions;
use aorta::sip::uas::{Family, Serving};

use crate::node::{Node, invite, options, register, request};

const ALICE: &str = "sip:alice@example.com";

#[test]
fn a_node_that_is_not_ready_says_503_to_everything_but_ack() {
    let mut node = Node::new(|_| {});
    node.register(1, "<sip:a@b>");
    node.serving = Serving::NOT_READY;
    let in_dialog = request("BYE", ALICE, ALICE, "call", 1, "").replace("com>\r\n", "com>;tag=1\r\n");
    for message in [
        invite(ALICE, ""),
        invite("isbn:1", ""),
        in_dialog,
        request("CANCEL", ALICE, ALICE, "call", 1, ""),
        register("alice", "reg", 2, "Contact: <sip:a@b>\r\n"),
        register("alice", "reg", 2, ""),
        register("alice", "reg", 2, "Contact: <sip:a@b>\r\nRequire: foo\r\n"),
        register("alice", "reg", 2, "").replace("SIP/2.0\r\nVia", "SIP/3.0\r\nVia"),
    ] {
        let response = node.ask(&message);
        assert_eq!((response.status, response.all("Retry-After").len()), (503, 0), "{message}");
    }
    assert!(node.send(&request("ACK", ALICE, ALICE, "call", 1, "")).is_none());
    for uri in ["sip:example.com", ALICE] {
        let response = node.ask(&options(uri, ""));
        assert_eq!((response.status, response.one("Retry-After")), (503, "2"));
    }
    assert_eq!(node.count(Family::Lookups, "not_ready"), 3);
    assert_eq!(node.count(Family::RegisterRefused, "not_ready"), 4);
}

#[test]
fn probes_of_a_node_that_is_not_ready_may_be_left_unanswered() {
    let mut node = Node::new(|settings| settings.not_ready_options = NotReadyOptions::Silent);
    node.serving = Serving::NOT_READY;
    assert!(node.send(&options("sip:example.com", "")).is_none());
    assert_eq!(node.status(&options(ALICE, "")), 503, "a caller of a phone is no probe");
    node.serving = Serving::READY;
    assert_eq!(node.status(&options("sip:example.com", "")), 200);
}

#[test]
fn a_draining_node_refuses_options_and_serves_the_rest() {
    let mut node = Node::new(|_| {});
    node.serving = Serving::DRAINING;
    assert_eq!(node.status(&options("sip:example.com", "")), 503);
    node.register(1, "<sip:a@b>");
    assert_eq!(node.status(&invite(ALICE, "")), 302);
    assert_eq!(node.status(&invite("sip:bob@example.com", "")), 404);
}

#[test]
fn a_node_in_doubt_serves_what_it_knows_and_says_of_nobody_that_he_is_not_there() {
    let mut node = Node::new(|_| {});
    node.serving = Serving::DOUBT;
    assert_eq!(node.status(&options("sip:example.com", "")), 200);
    assert_eq!(node.status(&invite(ALICE, "")), 503);
    assert_eq!(node.status(&register("alice", "q", 1, "")), 503);
    node.register(1, "<sip:a@b>");
    assert_eq!(node.status(&invite(ALICE, "")), 302);
    assert_eq!(node.status(&register("alice", "q", 1, "")), 200);
    assert_eq!(node.status(&invite("sips:alice@example.com", "")), 503);
    node.register(2, "<sip:a@b>;expires=0");
    assert_eq!(node.status(&invite(ALICE, "")), 503, "a removal proves no absence");
    assert_eq!(node.count(Family::Lookups, "not_ready"), 3);
}
