//! INVITE and every other request to an AoR: where the caller is sent.

use aorta::config::PathInRedirect;
use aorta::sip::uas::Family;
use aorta_proto::uri::AorRules;

use crate::node::{Node, Response, address, invite, register, request};

const ALICE: &str = "sip:alice@example.com";

fn contacts(response: &Response) -> Vec<&str> {
    response.all("Contact")
}

/// Where a call to `uri` is sent; empty when it is refused.
fn targets(node: &Node, uri: &str) -> Vec<String> {
    contacts(&node.ask(&invite(uri, ""))).into_iter().map(str::to_owned).collect()
}

#[test]
fn the_best_q_first_then_the_latest() {
    let node = Node::new(|_| {});
    node.register(1, "<sip:half@b>;q=0.5, <sip:low@b>;q=0.001");
    node.pass(1);
    node.register(2, "<sip:none@b>");
    node.pass(1);
    node.register(3, "<sip:full@b>;q=1.0, <sip:zero@b>;q=0");
    node.pass(1);
    node.register(4, "<sip:half2@b>;q=0.50");
    let expected = [
        "<sip:full@b>;q=1.0",
        "<sip:none@b>",
        "<sip:half2@b>;q=0.50",
        "<sip:half@b>;q=0.5",
        "<sip:low@b>;q=0.001",
        "<sip:zero@b>;q=0",
    ];
    assert_eq!(targets(&node, ALICE), expected);
    assert_eq!(node.count(Family::Lookups, "redirected"), 1);
}

#[test]
fn several_contacts_get_the_status_that_is_configured() {
    for status in [302, 300] {
        let node = Node::new(|settings| settings.redirect_multiple = status);
        node.register(1, "<sip:a@b>");
        let one = node.ask(&invite(ALICE, ""));
        assert_eq!((one.status, one.reason.as_str()), (302, "Moved Temporarily"));
        node.register(2, "<sip:c@d>");
        assert_eq!(node.status(&invite(ALICE, "")), status);
    }
}

#[test]
fn nobody_gets_the_status_that_is_configured_whatever_is_remembered() {
    for status in [404, 480] {
        let node = Node::new(|settings| settings.no_binding_status = status);
        assert_eq!(node.status(&invite(ALICE, "")), status);
        node.register(1, "<sip:a@b>;expires=60");
        node.register(2, "<sip:a@b>;expires=0");
        assert_eq!(node.status(&invite(ALICE, "")), status, "removed");
        node.register(3, "<sip:a@b>;expires=60");
        node.pass(61);
        assert_eq!(node.status(&invite(ALICE, "")), status, "lapsed");
        assert_eq!(node.count(Family::Lookups, "no_binding"), 3);
    }
}

#[test]
fn the_registrars_parameters_stay_behind_and_all_others_come_along() {
    let node = Node::new(|_| {});
    node.register(
        1,
        "<sip:a@b;gr=urn:x;ob>;expires=60;+sip.instance=\"<urn:uuid:1;reg-id=9>\";REG-ID=1;audio;q=0.7;pub-gruu=\"sip:x\"",
    );
    let expected = "<sip:a@b;gr=urn:x;ob>;+sip.instance=\"<urn:uuid:1;reg-id=9>\";audio;q=0.7;pub-gruu=\"sip:x\"";
    assert_eq!(targets(&node, ALICE), [expected]);
}

#[test]
fn the_path_becomes_one_route_header_of_the_uri() {
    let put = |node: &Node, contact: &str| {
        let path = "Path: <sip:e1.example;lr>, \"E 2\" <sip:%61@[2001:db8::1]:5070;lr;ob>;x=1\r\n";
        assert_eq!(node.status(&register("alice", "reg", 1, &format!("Contact: {contact}\r\n{path}"))), 200);
    };
    let route =
        "Route=%3Csip:e1.example%3Blr%3E%2C%22E%202%22%20%3Csip:%2561%40[2001:db8::1]:5070%3Blr%3Bob%3E%3Bx%3D1";
    for (contact, expected) in [
        ("<sip:a@192.0.2.1;x>;q=1", format!("<sip:a@192.0.2.1;x?{route}>;q=1")),
        ("<sip:a@192.0.2.1?Subject=x%20y>", format!("<sip:a@192.0.2.1?Subject=x%20y&{route}>")),
        ("<sip:who?@192.0.2.1>", format!("<sip:who?@192.0.2.1?{route}>")),
        ("<tel:+12015550123>", "<tel:+12015550123>".to_owned()),
    ] {
        let node = Node::new(|_| {});
        put(&node, contact);
        assert_eq!(targets(&node, ALICE), [expected]);
    }
    let none = Node::new(|settings| settings.path_in_redirect = PathInRedirect::None);
    put(&none, "<sip:a@192.0.2.1>");
    assert_eq!(targets(&none, ALICE), ["<sip:a@192.0.2.1>"]);
}

#[test]
fn a_sips_caller_gets_only_sips_contacts() {
    let node = Node::new(|_| {});
    node.register(1, "<sip:a@b>");
    assert_eq!(node.status(&invite("sips:alice@example.com", "")), 480);
    node.register(2, "<SIPS:c@d>");
    assert_eq!(targets(&node, "sips:alice@example.com"), ["<SIPS:c@d>"]);
    assert_eq!(targets(&node, ALICE).len(), 2);
}

#[test]
fn no_contact_leads_back() {
    let node = Node::new(|settings| {
        settings.rules = AorRules::new([], [("198.51.100.1", "example.com")], None, true).expect("hosts");
        settings.own_addresses = vec![address("198.51.100.1:5060"), address("198.51.100.1:5099")];
    });
    let back = "<sip:alice@example.com>, <sip:alice@Example.com:5060;transport=tcp>, <sips:%61lice@example.com:5061>, \
                <sip:alice@198.51.100.1:5099>, <sip:alice@198.51.100.1>";
    node.register(1, back);
    let response = node.ask(&invite(ALICE, ""));
    assert_eq!((response.status, contacts(&response).len()), (404, 0));
    node.register(2, "<sip:alice@198.51.100.1:6000>, <sip:alice@192.0.2.1>, <sip:bob@example.com>");
    let ahead = ["<sip:alice@192.0.2.1>", "<sip:alice@198.51.100.1:6000>", "<sip:bob@example.com>"];
    let mut found = targets(&node, ALICE);
    found.sort();
    assert_eq!(found, ahead);
    assert!(!targets(&node, "sip:alice@198.51.100.1:6000").contains(&"<sip:alice@198.51.100.1:6000>".to_owned()));
}

#[test]
fn every_request_to_an_aor_is_redirected_with_its_require_ignored() {
    let node = Node::new(|_| {});
    node.register(1, "<sip:a@b>");
    for method in ["INVITE", "MESSAGE", "SUBSCRIBE", "PUBLISH", "REFER", "NOTIFY", "OPTIONS", "NEW!"] {
        let message = request(method, ALICE, ALICE, "call", 1, "Require: 100rel, foo\r\n");
        assert_eq!(node.status(&message), 302, "{method}");
    }
}

#[test]
fn the_request_uri_decides_and_not_the_to() {
    let node = Node::new(|_| {});
    node.register(1, "<sip:a@b>");
    assert_eq!(node.status(&request("INVITE", ALICE, "sip:somebody@else.example", "call", 1, "")), 302);
    assert_eq!(node.status(&invite("sip:bob@example.com", "")), 404);
    assert_eq!(node.status(&invite("sip:%61lice:pw@EXAMPLE.com:5070;user=ip;x", "")), 302);
}

#[test]
fn numbers_mean_the_same_with_and_without_separators() {
    let node = Node::new(|settings| {
        settings.rules = AorRules::new([], [], Some("example.com"), true).expect("hosts");
    });
    node.ask(&register("+12015550123", "reg", 1, "Contact: <sip:a@b>\r\n"));
    for uri in ["tel:+1-201-555-0123", "sip:+1.201.555.0123@example.com;user=phone"] {
        assert_eq!(node.status(&invite(uri, "")), 302, "{uri}");
    }
    assert_eq!(node.status(&invite("sip:+1.201.555.0123@example.com", "")), 404);
}

#[test]
fn requests_that_ask_for_nobody() {
    let node = Node::new(|settings| {
        settings.rules = AorRules::new(["example.com"], [], None, true).expect("hosts");
    });
    let no_user = node.ask(&invite("sip:example.com", ""));
    assert_eq!((no_user.status, no_user.one("Allow")), (405, "REGISTER, OPTIONS, CANCEL, ACK"));
    assert_eq!(node.status(&invite("sip:alice@foreign.example", "")), 404);
    assert_eq!(node.status(&invite("isbn:2983792873", "")), 416);
    assert_eq!(node.status(&invite("tel:+1201", "")), 416);
    assert_eq!(node.status(&invite(&format!("sip:{}@example.com", "a".repeat(600)), "")), 414);
    assert_eq!(node.count(Family::Lookups, "refused"), 5);
}
