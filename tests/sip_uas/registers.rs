//! REGISTER as it comes and as it is answered (RFC 3261 §10.3, RFC 3327).

use aorta::config::{PathMode, bounds};
use aorta::location::Room;
use aorta::registrar::RegistrarLimits;
use aorta::sip::uas::{Acks, Answer, Family, Serving};
use aorta_proto::uri::AorRules;

use crate::node::{self, Node, Response, address, register, request};

fn contacts(response: &Response) -> Vec<&str> {
    response.all("Contact")
}

#[test]
fn the_200_lists_every_contact_byte_for_byte_with_its_seconds_and_a_date() {
    let node = Node::new(|_| {});
    node.register(1, "\"Al\" <sip:a%6Cice@192.0.2.1:5062;transport=UDP;x=Y>;expires=120;Q=0.5;+sip.foo=\"a, ;b\"");
    node.pass(20);
    let response = node.register(2, "sip:alice@[2001:db8::1]:5060;expires=60;audio");
    assert_eq!(
        contacts(&response),
        [
            "<sip:a%6Cice@192.0.2.1:5062;transport=UDP;x=Y>;expires=100;Q=0.5;+sip.foo=\"a, ;b\"",
            "<sip:alice@[2001:db8::1]:5060>;expires=60;audio",
        ]
    );
    assert_eq!(response.one("Date"), "Tue, 15 Nov 1994 08:12:31 GMT");
    assert_eq!(
        response.all("Via"),
        [
            "SIP/2.0/UDP 192.0.2.50:5080;branch=z9hG4bKreg2;rport=5080;received=192.0.2.50",
            "SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKphone",
        ]
    );
    assert_eq!((response.one("Call-ID"), response.one("CSeq")), ("reg", "2 REGISTER"));
    assert!(response.one("To").starts_with("<sip:alice@example.com>;tag="));
}

#[test]
fn what_is_written_waits_for_acks_and_names_its_origin() {
    let node = Node::new(|_| {});
    let headers = "Contact: <sip:a@192.0.2.1>\r\nUser-Agent: Phone 1\r\nPath: <sip:edge;lr>\r\n";
    let (aor, delta) = node.ask(&register("alice", "reg", 1, headers)).delta.expect("a delta");
    assert_eq!(aor.as_str(), "alice@example.com");
    let binding = delta.entries[0].binding().expect("live");
    assert_eq!(binding.source(), b"udp:192.0.2.50:5080");
    assert_eq!((binding.user_agent(), binding.call_id()), (&b"Phone 1"[..], &b"reg"[..]));
    assert_eq!((binding.path().next(), binding.accepted_by.as_str()), (Some(&b"<sip:edge;lr>"[..]), "node1"));
    assert_eq!(node.location.get(&aor, |record| record.cloned()), Some(delta.clone()));
    let again = node.ask(&register("alice", "reg", 1, headers));
    assert_eq!((again.status, again.delta), (200, Some((aor, delta))));
    assert_eq!(node.count(Family::RegisterAccepted, "changed"), 1);
    assert_eq!(node.count(Family::RegisterAccepted, "retransmission"), 1);
}

#[test]
fn a_query_is_answered_at_once_even_if_there_is_nothing() {
    let node = Node::new(|_| {});
    let empty = node.ask(&register("alice", "q", 1, ""));
    assert_eq!((empty.status, contacts(&empty).len(), empty.delta.is_none()), (200, 0, true));
    node.register(5, "<sip:a@192.0.2.1>");
    let listed = node.ask(&register("alice", "reg", 1, ""));
    assert_eq!((listed.status, contacts(&listed).len(), listed.delta.is_none()), (200, 1, true));
    assert_eq!(node.count(Family::RegisterAccepted, "query"), 2);
}

#[test]
fn several_contacts_in_one_or_many_headers() {
    let node = Node::new(|_| {});
    let headers = "Contact: <sip:a@b;x=1,2>, \"x, y\" <sip:c@d>\r\nm: sip:e@f\r\n";
    assert_eq!(contacts(&node.ask(&register("alice", "reg", 1, headers))).len(), 3);
    let star = node.ask(&register("alice", "reg", 2, "Contact: *\r\nExpires: 0\r\n"));
    assert_eq!((star.status, contacts(&star).len(), star.delta.is_some()), (200, 0, true));
}

#[test]
fn a_star_stands_alone_with_expires_zero() {
    let node = Node::new(|_| {});
    node.register(1, "<sip:a@b>");
    for headers in ["Contact: *\r\n", "Contact: *\r\nExpires: 1\r\n", "Contact: *, <sip:c@d>\r\nExpires: 0\r\n"] {
        assert_eq!(node.status(&register("alice", "reg", 2, headers)), 400, "{headers}");
    }
    assert_eq!(contacts(&node.ask(&register("alice", "q", 1, ""))).len(), 1);
}

#[test]
fn refusals_say_why_and_write_nothing() {
    let node = Node::new(|settings| {
        settings.limits = RegistrarLimits { max_contacts_per_aor: 1, ..RegistrarLimits::default() };
    });
    node.register(5, "<sip:a@b>");
    for (cseq, headers, status, reason) in [
        (4, "Contact: <sip:a@b>\r\n", 400, "CSeq Out Of Order"),
        (5, "Contact: <sip:a@b>;q=0.1\r\n", 400, "CSeq Used Before With Other Contents"),
        (6, "Contact: <sip:c@d>\r\n", 403, "Too Many Contacts"),
        (6, "Contact: <sip:a@b>\r\nExpires: 59\r\n", 423, "Interval Too Brief"),
        (6, "Contact: <sip:a@b>, <sip:a@B>\r\n", 400, "Same Contact Twice"),
        (6, "Contact: <sip:a@b\r\n", 400, "Malformed Contact"),
    ] {
        let response = node.ask(&register("alice", "reg", cseq, headers));
        assert_eq!((response.status, response.reason.as_str()), (status, reason));
        assert!(response.delta.is_none() && contacts(&response).is_empty());
        assert_eq!(response.all("Min-Expires"), if status == 423 { vec!["60"] } else { vec![] });
    }
    assert_eq!(node.count(Family::RegisterRefused, "old_cseq"), 1);
    assert_eq!(node.count(Family::RegisterRefused, "too_brief"), 1);
    assert_eq!(node.count(Family::Replies, "400"), 4);
}

#[test]
fn while_memory_is_full_a_stranger_is_told_so_and_a_phone_that_is_known_feels_nothing() {
    let mut node = Node::new(|_| {});
    node.register(1, "<sip:a@b>");
    node.serving.room = Room::ForKnown;
    let stranger = |cseq, expires: u32| {
        node.ask(&register("bob", "bob", cseq, &format!("Contact: <sip:b@c>\r\nExpires: {expires}\r\n")))
    };
    let refused = stranger(1, 600);
    assert_eq!((refused.status, refused.reason.as_str()), (403, "Location Memory Full"));
    assert!(refused.delta.is_none() && refused.all("Retry-After").is_empty() && refused.all("Warning").is_empty());
    assert_eq!(node.count(Family::RegisterRefused, "memory_full"), 1);
    assert_eq!(contacts(&node.register(2, "<sip:a@b>, <sip:c@d>")).len(), 2);
    assert_eq!(node.ask(&register("bob", "q", 1, "")).status, 200, "a query");
    let removed = stranger(2, 0);
    assert!(removed.status == 200 && removed.delta.is_some());
}

#[test]
fn in_doubt_nobody_is_called_a_stranger_for_want_of_memory() {
    let mut node = Node::new(|_| {});
    node.register(1, "<sip:a@b>");
    node.serving = Serving { room: Room::ForKnown, ..Serving::DOUBT };
    let unknown = node.ask(&register("bob", "bob", 1, "Contact: <sip:b@c>\r\n"));
    assert_eq!((unknown.status, unknown.delta.is_none()), (503, true), "another node may know it");
    assert_eq!(node.count(Family::RegisterRefused, "memory_full"), 0);
    assert_eq!(contacts(&node.register(2, "<sip:a@b>")).len(), 1);
}

#[test]
fn unknown_extensions_are_refused_and_named_and_path_is_known() {
    let node = Node::new(|_| {});
    let headers = "Contact: <sip:a@b>\r\nRequire: Path, outbound\r\nRequire: foo\r\n";
    let response = node.ask(&register("alice", "reg", 1, headers));
    assert_eq!((response.status, response.one("Unsupported")), (420, "outbound, foo"));
    assert_eq!(node.status(&register("alice", "reg", 1, "Contact: <sip:a@b>\r\nRequire: path\r\n")), 200);
}

#[test]
fn path_is_stored_always_and_returned_as_the_mode_says() {
    let path = "Path: <sip:e1;lr>, <sip:e2;lr>\r\nPath: \"x\" <sip:e3;lr;ob>;y=z\r\n";
    let contact = "Contact: <sip:a@b>\r\n";
    let plain = format!("{contact}{path}");
    let supported = format!("{contact}{path}Supported: gruu, path\r\n");
    let required = format!("{contact}{path}Require: path\r\n");
    let values = vec!["<sip:e1;lr>", "<sip:e2;lr>", "\"x\" <sip:e3;lr;ob>;y=z"];
    for (mode, headers, status, returned) in [
        (PathMode::Lazy, &plain, 200, vec![]),
        (PathMode::Lazy, &supported, 200, values.clone()),
        (PathMode::Off, &supported, 200, vec![]),
        (PathMode::Strict, &supported, 200, values.clone()),
        (PathMode::Strict, &required, 200, vec![]),
        (PathMode::Strict, &plain, 420, vec![]),
    ] {
        let node = Node::new(|settings| settings.path_mode = mode);
        let response = node.ask(&register("alice", "reg", 1, headers));
        assert_eq!((response.status, response.all("Path")), (status, returned), "{mode:?}");
        match response.delta {
            Some((_, delta)) => assert_eq!(delta.entries[0].binding().expect("live").path().count(), 3),
            None => assert_eq!(response.one("Unsupported"), "path"),
        }
    }
    let strict = Node::new(|settings| settings.path_mode = PathMode::Strict);
    assert_eq!(strict.status(&register("alice", "reg", 1, contact)), 200);
}

#[test]
fn foreign_domains_and_users_that_are_none_are_not_found() {
    let node = Node::new(|settings| {
        let aliases = [("198.51.100.7", "example.com")];
        settings.rules = AorRules::new(["example.com", "other.example"], aliases, None, true).expect("hosts");
        settings.own_addresses = vec![address("198.51.100.2:5060")];
    });
    let ask = |uri: &str, to: &str| node.status(&request("REGISTER", uri, to, "reg", 1, "Contact: <sip:a@b>\r\n"));
    assert_eq!(ask("sip:example.com", "sip:alice@EXAMPLE.com"), 200);
    assert_eq!(ask("sip:198.51.100.7", "sip:bob@other.example"), 200);
    assert_eq!(ask("sip:198.51.100.1:5060", "sip:carol@example.com"), 200);
    assert_eq!(ask("sip:198.51.100.2", "sip:dan@198.51.100.7"), 200);
    for (uri, to) in [
        ("sip:foreign.example", "sip:alice@foreign.example"),
        ("sip:foreign.example", "sip:alice@example.com"),
        ("sip:example.com", "sip:alice@foreign.example"),
        ("sip:example.com", "sip:alice@other.example"),
        ("sip:198.51.100.9", "sip:alice@example.com"),
        ("sip:example.com", "sip:example.com"),
        ("sip:example.com", "isbn:2983792873"),
    ] {
        assert_eq!(ask(uri, to), 404, "{uri} {to}");
    }
    assert_eq!(ask("tel:+1201", "sip:alice@example.com"), 416);
    assert_eq!(node.count(Family::RegisterRefused, "foreign_domain"), 5);
}

#[test]
fn sip_and_sips_and_any_spelling_are_one_aor() {
    let node = Node::new(|_| {});
    let put = |to: &str| node.ask(&request("REGISTER", "sip:example.com", to, to, 1, "Contact: <sip:a@b>\r\n"));
    for to in ["sip:alice@example.com", "sips:%61lice:pw@EXAMPLE.COM:5061;x=y"] {
        assert_eq!(put(to).delta.expect("a delta").0.as_str(), "alice@example.com");
    }
    assert_eq!(put("sip:Alice@example.com").delta.expect("a delta").0.as_str(), "Alice@example.com");
}

#[test]
fn without_a_place_for_the_reply_nothing_is_written() {
    let mut node = Node::new(|_| {});
    node.slots = false;
    assert_eq!(node.status(&register("alice", "reg", 1, "Contact: <sip:a@b>\r\n")), 503);
    assert_eq!(node.count(Family::RegisterRefused, "overloaded"), 1);
    assert_eq!(node.status(&register("alice", "reg", 1, "")), 200, "a query needs none");
    assert_eq!(node.location.counts().aors, 0);
}

#[test]
fn a_to_tag_does_not_make_a_register_part_of_a_dialog() {
    let node = Node::new(|_| {});
    let message = register("alice", "reg", 1, "Contact: <sip:a@b>\r\n")
        .replace("To: <sip:alice@example.com>", "To: <sip:alice@example.com>;tag=mine");
    let response = node.ask(&message);
    assert_eq!((response.status, response.one("To")), (200, "<sip:alice@example.com>;tag=mine"));
}

#[test]
fn the_largest_answers_fit_a_datagram() {
    let node = Node::new(|_| {});
    let edge = "<sip:%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%@e;lr>";
    let paths = format!("Path: {edge}\r\n").repeat(bounds::PATH_BYTES_MAX / (edge.len() + 8));
    let params = format!(";x=\"{}\"", "y".repeat(bounds::CONTACT_PARAMS_BYTES_MAX - 5));
    let padding = format!("Via: SIP/2.0/UDP {};branch=z9hG4bK\r\n", "h".repeat(7000));
    for cseq in 0..10 {
        let uri = format!("sip:{cseq}{}@b", "a".repeat(bounds::CONTACT_URI_BYTES_MAX - 7));
        let headers = format!("Contact: <{uri}>;expires=7200{params}\r\n{paths}{padding}Supported: path\r\n");
        let message = register("alice", "reg", cseq, &headers);
        let Answer::AfterAcks { reply, .. } = node.answer(message.as_bytes()) else { panic!("refused") };
        assert!(reply.len() <= bounds::largest_200(10), "{}", reply.len());
        if cseq == 9 {
            assert!(reply.len() > 22_000, "{}", reply.len());
        }
    }
    let call = node::invite("sip:alice@example.com", &padding);
    let Answer::Reply { bytes, .. } = node.answer(call.as_bytes()) else { panic!("refused") };
    assert!((45_000..=bounds::largest_302(10, true)).contains(&bytes.len()), "{}", bytes.len());
    let longer = register("alice", "reg", 20, &format!("{padding}{padding}"));
    assert_eq!(node.ask(&longer).reason, "Headers Too Long To Repeat");
}

#[test]
fn a_200_tells_its_acks_where_that_is_wanted() {
    let register = |node: &Node| node.register(1, "<sip:alice@192.0.2.77>");
    let quiet = Node::new(|_| {});
    assert!(quiet.ask(&node::register("alice", "reg", 1, "")).all("Aorta-Acks").is_empty());
    let mut bytes = register(&quiet).text.into_bytes();
    let before = bytes.clone();
    quiet.uas.say_acks(&mut bytes, Acks { got: 1, asked: 1, short: false }, || panic!("nobody wants to know"));
    assert_eq!(bytes, before);

    let mut node = Node::new(|settings| settings.ack_header = true);
    let query = node.ask(&node::register("alice", "reg", 1, ""));
    assert_eq!(query.one("Aorta-Acks"), "got=0;asked=0;by=node1");
    let changed = register(&node);
    assert!(changed.all("Aorta-Acks").is_empty(), "who releases it knows");
    for (acks, partial, value) in [
        (Acks { got: 2, asked: 2, short: false }, false, "got=2;asked=2;by=node1"),
        (Acks { got: 1, asked: 2, short: true }, false, "got=1;asked=2;short;by=node1"),
        (Acks { got: 0, asked: 0, short: true }, true, "got=0;asked=0;short;partial;by=node1"),
    ] {
        let mut bytes = changed.text.clone().into_bytes();
        node.uas.say_acks(&mut bytes, acks, || partial);
        let text = String::from_utf8(bytes).expect("text");
        assert!(text.ends_with(&format!("\r\nAorta-Acks: {value}\r\nContent-Length: 0\r\n\r\n")), "{text}");
    }
    node.serving = Serving::DOUBT;
    let query = node.ask(&node::register("alice", "reg", 1, ""));
    assert_eq!(query.one("Aorta-Acks"), "got=0;asked=0;partial;by=node1");
}
