//! What is looked at first: silence, faults, CANCEL, dialogs, probes; and To-tags.

use aorta::sip::uas::Family;

use crate::node::{Node, invite, options, register, request};

const ALICE: &str = "sip:alice@example.com";

#[test]
fn ack_responses_and_garbage_are_met_with_silence() {
    let node = Node::new(|_| {});
    node.register(1, "<sip:a@b>");
    assert!(node.send(&request("ACK", ALICE, ALICE, "call", 1, "")).is_none());
    assert!(node.send(&request("ACK", ALICE, ALICE, "call", 1, "").replace("CSeq: 1 ACK", "CSeq: x")).is_none());
    let response = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
                    To: <sip:a@b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n\r\n";
    assert!(node.send(response).is_none());
    for garbage in ["", "\r\n\r\n", "hello", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        assert!(node.send(garbage).is_none(), "{garbage}");
    }
    assert_eq!(node.count(Family::Requests, "ack"), 1);
    assert!(node.count(Family::Dropped, "unparsable") >= 4);
}

#[test]
fn cancel_is_answered_200_with_the_tag_of_its_invite() {
    let node = Node::new(|_| {});
    node.register(1, "<sip:a@b>");
    let redirected = node.ask(&invite(ALICE, ""));
    let cancelled = node.ask(&request("CANCEL", ALICE, ALICE, "call", 1, ""));
    assert_eq!((redirected.status, cancelled.status), (302, 200));
    assert_eq!(redirected.one("To"), cancelled.one("To"));
}

#[test]
fn requests_within_a_dialog_have_none_here() {
    let node = Node::new(|_| {});
    node.register(1, "<sip:a@b>");
    for method in ["INVITE", "BYE", "UPDATE", "INFO", "OPTIONS", "NOTIFY"] {
        let message = request(method, ALICE, ALICE, "call", 1, "")
            .replace("To: <sip:alice@example.com>", "To: <sip:alice@example.com>;tag=other");
        let response = node.ask(&message);
        assert_eq!(response.status, 481, "{method}");
        assert_eq!(response.one("To"), "<sip:alice@example.com>;tag=other");
    }
}

#[test]
fn the_to_tag_is_a_function_of_call_id_from_tag_and_branch() {
    let node = Node::new(|settings| settings.tag_key = [1; 16]);
    let other = Node::new(|settings| settings.tag_key = [1; 16]);
    let foreign = Node::new(|_| {});
    let message = invite(ALICE, "");
    let tag = |node: &Node, message: &str| node.ask(message).one("To").to_owned();
    assert_eq!(tag(&node, &message), tag(&node, &message));
    assert_eq!(tag(&node, &message), tag(&other, &message));
    assert_ne!(tag(&node, &message), tag(&foreign, &message));
    for (from, to) in
        [("z9hG4bKcall1", "z9hG4bKcall2"), ("tag=from1", "tag=from2"), ("Call-ID: call", "Call-ID: other")]
    {
        assert_ne!(tag(&node, &message), tag(&node, &message.replace(from, to)));
    }
}

#[test]
fn max_forwards_of_zero_is_served() {
    let node = Node::new(|_| {});
    node.register(1, "<sip:a@b>");
    assert_eq!(node.status(&invite(ALICE, "").replace("Max-Forwards: 70", "Max-Forwards: 0")), 302);
    assert_eq!(node.status(&options("sip:example.com", "").replace("Max-Forwards: 70", "Max-Forwards: 0")), 200);
}

#[test]
fn faults_of_the_message_are_named() {
    let node = Node::new(|_| {});
    let message = register("alice", "reg", 1, "Contact: <sip:a@b>\r\n");
    for (from, to, status) in [
        ("SIP/2.0\r\nVia", "SIP/3.0\r\nVia", 505),
        ("CSeq: 1 REGISTER", "CSeq: 1 INVITE", 400),
        ("CSeq: 1 REGISTER", "CSeq: 2147483648 REGISTER", 400),
        ("Call-ID: reg\r\n", "", 400),
        ("Max-Forwards: 70", "Max-Forwards: many", 400),
        ("Content-Length: 0", "Content-Length: 5", 400),
    ] {
        let response = node.ask(&message.replace(from, to));
        assert_eq!(response.status, status, "{to}");
        assert_ne!(response.reason, "");
    }
    assert_eq!(node.count(Family::RegisterRefused, "malformed"), 6);
}

#[test]
fn probes_are_answered_with_what_the_node_can_do() {
    let node = Node::new(|settings| settings.probe_users = vec!["ping".to_owned()]);
    for uri in [
        "sip:example.com",
        "sip:198.51.100.1:5060",
        "sip:[2001:db8::1];transport=tcp",
        "sip:monitor@198.51.100.1",
        "sip:monitor@198.51.100.1:5060",
        "sip:pin%67@anywhere.example",
    ] {
        let response = node.ask(&options(uri, "Accept: application/sdp\r\n"));
        assert_eq!(response.status, 200, "{uri}");
        assert!(response.one("Allow").contains("REGISTER, INVITE"));
        assert_eq!((response.one("Accept"), response.one("Supported")), ("application/sdp", "path"));
    }
    let response = node.ask(&options("sip:example.com", "Require: foo\r\n"));
    assert_eq!((response.status, response.one("Unsupported")), (420, "foo"));
}

#[test]
fn options_to_a_phone_are_redirected_even_at_the_nodes_own_address() {
    let node = Node::new(|_| {});
    let own = "sip:alice@198.51.100.1:5060";
    assert_eq!(node.status(&options(ALICE, "")), 404);
    assert_eq!(node.status(&options(own, "")), 200);
    node.register(1, "<sip:a@b>");
    let message = request("REGISTER", "sip:198.51.100.1", own, "reg", 1, "Contact: <sip:a@b>\r\n");
    assert_eq!(node.status(&message), 200);
    assert_eq!(node.status(&options(ALICE, "")), 302);
    assert_eq!(node.status(&options(own, "")), 302);
}
