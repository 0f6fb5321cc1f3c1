//! Messages as phones and SBCs write them: what rsip 0.4 reads wrongly, and what a registrar needs to read.

use std::net::SocketAddr;

use aorta_proto::uri::Host;
use aorta_proto::{Aor, ContactKey};
use smallvec::SmallVec;

use super::*;

mod oracle;
mod robustness;

const PEER: &str = "192.0.2.7:40000";

fn peer() -> SocketAddr {
    PEER.parse().expect("an address")
}

/// A REGISTER with these header lines besides the mandatory ones.
fn register(more: &str) -> String {
    format!(
        "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.1:5062;branch=z9hG4bKa;rport\r\n\
         From: <sip:john.doe@example.com>;tag=1\r\nTo: <sip:john.doe@example.com>\r\nCall-ID: c1@x\r\n\
         CSeq: 17 REGISTER\r\nMax-Forwards: 70\r\n{more}\r\n"
    )
}

fn with<T>(message: impl AsRef<[u8]>, read: impl FnOnce(&Request<'_>) -> T) -> T {
    let text = Unfolded::new(message.as_ref());
    match Message::parse(&text, Framing::Datagram) {
        Ok(Message::Request(request)) => read(&request),
        other => panic!("{other:?} from {}", String::from_utf8_lossy(message.as_ref())),
    }
}

/// Status and reason, and whether somebody can be told.
fn refused(message: impl AsRef<[u8]>, framing: Framing) -> (u16, &'static str, bool) {
    let text = Unfolded::new(message.as_ref());
    let error = Message::parse(&text, framing).expect_err("a bad message");
    (error.fault.status, error.fault.reason, error.request.is_some())
}

fn contacts(more: &str) -> Result<Vec<(String, String)>, Fault> {
    with(register(more), |request| {
        request.contacts().map(|contacts| match contacts {
            Contacts::Star => vec![("*".to_owned(), String::new())],
            Contacts::List(list) => list.iter().map(|contact| (show(contact.uri.raw), show(contact.params))).collect(),
        })
    })
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn one_contact<T>(value: &str, read: impl FnOnce(&Contact<'_>) -> T) -> T {
    read(&Contact::parse(value.as_bytes()).unwrap_or_else(|fault| panic!("{value}: {fault}")))
}

#[test]
fn a_register_has_all_its_parts() {
    let message = register("Expires: 600\r\nUser-Agent: Snom/1\r\nSupported: path, outbound\r\nContent-Length: 0\r\n");
    with(message, |request| {
        assert_eq!((request.method, request.uri_raw), (&b"REGISTER"[..], &b"sip:example.com"[..]));
        assert_eq!((request.call_id, request.cseq.number), (&b"c1@x"[..], 17));
        assert_eq!(request.to.uri.raw, b"sip:john.doe@example.com");
        assert_eq!((request.from.tag, request.to.tag), (Some(&b"1"[..]), None));
        assert_eq!(request.max_forwards, Some(70));
        assert_eq!(request.expires(), Lifetime::Seconds(600));
        assert_eq!(request.user_agent(), b"Snom/1");
        assert!(request.supports("path") && request.supports("outbound") && !request.supports("gruu"));
        assert_eq!((request.via.host, request.via.port), (Host::Ip([198, 51, 100, 1].into()), Some(5062)));
        assert_eq!(request.via.branch, b"z9hG4bKa");
        assert_eq!(request.via.target(), ViaTarget { rport: true, port: Some(5062), maddr: None });
        assert_eq!(request.contacts(), Ok(Contacts::List(SmallVec::new())));
    });
}

#[test]
fn compact_names_folds_spaces_before_colons_bare_lf_and_odd_bytes() {
    let message = b"\r\n\r\nOPTIONS sip:[2001:db8::1]:5060 SIP/2.0\nv : SIP / 2.0 / TCP [2001:db8::9] : 5061 ; branch = z9hG4bKx\n\
        f: \"\xff\xfe\" <sip:a@b>\n ;tag=1\nt:\n <sip:a@b>\ni:\tid\0 \ncseq:  5\n\t OPTIONS\nl: 3\nX-Odd: \0\xc0\n\nabcdef";
    // A NUL in a Call-ID is no `word`; anywhere else it passes.
    assert_eq!(refused(message, Framing::Datagram), (400, "Malformed Call-ID", true));
    let message: Vec<u8> = message.iter().copied().filter(|byte| *byte != 0).collect();
    with(message, |request| {
        assert_eq!(request.via.host.to_string(), "[2001:db8::9]");
        assert_eq!((request.via.port, request.via.branch), (Some(5061), &b"z9hG4bKx"[..]));
        assert_eq!((request.from.tag, request.to.uri.raw), (Some(&b"1"[..]), &b"sip:a@b"[..]));
        assert_eq!(request.body, b"abc");
        assert_eq!(request.cseq, CSeq { number: 5, method: b"OPTIONS" });
    });
}

#[test]
fn contact_lists_in_one_header_and_in_many() {
    let more = "Contact: \"A, <B>\" <sip:a@h1;x=1>;q=0.5, sip:b@h2;expires=5\r\n\
                m: <sip:c@[2001:db8::1]:5061?X=1,2>;+sip.instance=\"<urn:uuid:1,2>\" ; reg-id = 1\r\n";
    let expected = [
        ("sip:a@h1;x=1", ";q=0.5"),
        ("sip:b@h2", ";expires=5"),
        ("sip:c@[2001:db8::1]:5061?X=1,2", ";+sip.instance=\"<urn:uuid:1,2>\" ; reg-id = 1"),
    ];
    let expected: Vec<_> = expected.iter().map(|(uri, params)| ((*uri).to_owned(), (*params).to_owned())).collect();
    assert_eq!(contacts(more), Ok(expected));
    assert_eq!(contacts("Contact: * \r\n"), Ok(vec![("*".to_owned(), String::new())]));
    assert_eq!(contacts("Contact: *, <sip:a@b>\r\n"), Err(Fault::bad("Contact * with Other Contacts")));
    assert_eq!(contacts("Contact: *;expires=0\r\n").map_err(|fault| fault.status), Err(400));
}

#[test]
fn contact_parameters() {
    let value = r#"<sip:a@h>;q=0.75;expires="60";+sip.instance="<URN:uuid:AB-1>";reg-id=2;audio;pn-prid=a:b/c"#;
    one_contact(value, |contact| {
        assert_eq!((contact.q, contact.expires), (Some(750), Lifetime::Seconds(60)));
        assert_eq!((contact.instance, contact.reg_id), (Some(&b"<URN:uuid:AB-1>"[..]), Some(2)));
        assert_eq!(contact.key(), ContactKey::instance(b"<urn:uuid:ab-1>", 2));
        assert_eq!(
            show(&contact.kept_params()),
            r#";q=0.75;+sip.instance="<URN:uuid:AB-1>";reg-id=2;audio;pn-prid=a:b/c"#
        );
    });
    one_contact("sip:A@H.example;reg-id=2", |contact| assert_eq!(contact.key(), ContactKey::uri(b"sip:A@h.example")));
    one_contact(r#"<sip:a@h>;+sip.instance="<x>""#, |contact| assert_eq!(contact.key(), ContactKey::uri(b"sip:a@h")));
    assert_eq!(show(&params_without(b";q=1 ; REG-ID=1;a;expires=3", &["expires", "reg-id"])), ";q=1;a");
}

#[test]
fn a_malformed_expires_is_told_from_none() {
    for (value, expected) in [
        ("<sip:a@h>", Lifetime::Absent),
        ("<sip:a@h>;expires=0", Lifetime::Seconds(0)),
        ("<sip:a@h>;expires=4294967295", Lifetime::Seconds(u32::MAX)),
        ("<sip:a@h>;expires=99999999999999999999", Lifetime::Seconds(u32::MAX)),
        ("<sip:a@h>;expires=1hour", Lifetime::Malformed),
        ("<sip:a@h>;expires=-1", Lifetime::Malformed),
        ("<sip:a@h>;expires", Lifetime::Malformed),
        ("<sip:a@h>;expires=", Lifetime::Malformed),
        ("<sip:a@h>;expires= ;q=0.5", Lifetime::Malformed),
    ] {
        one_contact(value, |contact| assert_eq!(contact.expires, expected, "{value}"));
    }
    with(register("Expires: soon\r\n"), |request| assert_eq!(request.expires(), Lifetime::Malformed));
    with(register(""), |request| assert_eq!(request.expires(), Lifetime::Absent));
}

#[test]
fn q_is_read_to_thousandths_or_refused() {
    for (text, expected) in [
        ("0", Some(0)),
        ("1", Some(1000)),
        ("1.", Some(1000)),
        ("1.000", Some(1000)),
        ("0.5", Some(500)),
        ("0.123", Some(123)),
        ("0.12345", Some(123)),
        (".5", Some(500)),
        ("1.001", None),
        ("2", None),
        ("-0.5", None),
        ("0.5x", None),
        ("", None),
        (".", None),
        ("0,5", None),
    ] {
        assert_eq!(thousandths(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn bad_contacts_say_what_is_wrong() {
    for (value, reason) in [
        ("<sip:a@h", "Malformed Contact"),
        ("", "Malformed Contact"),
        ("\"open <sip:a@h>", "Malformed Contact"),
        ("<sip:a@h>x", "Malformed Contact"),
        ("sip:a@h?Route=x", "Malformed Contact"),
        ("<sip:a h>", "Illegal Character in Contact URI"),
        ("<sip:a@>", "Malformed Contact URI"),
        ("<sip:a@h>;q=2", "Malformed q in Contact"),
        ("<sip:a@h>;q=1;q=1", "Repeated Contact Parameter"),
        ("<sip:a@h>;expires=1;expires=2", "Repeated Contact Parameter"),
        ("<sip:a@h>;;", "Malformed Contact Parameter"),
        ("<sip:a@h>;x=a\"b", "Malformed Contact Parameter"),
        ("<sip:a@h>;x=<b>", "Malformed Contact Parameter"),
        ("<sip:a@h>;reg-id=0", "Malformed reg-id"),
        ("<sip:a@h>;+sip.instance=x", "Malformed +sip.instance"),
        ("<sip:a@h>;x=\"a\rb\"", "Control Character in Contact"),
    ] {
        assert_eq!(Contact::parse(value.as_bytes()), Err(Fault::bad(reason)), "{value}");
    }
    assert_eq!(contacts("Contact: <sip:a@h>,,<sip:b@h>\r\n"), Err(Fault::bad("Malformed Contact")));
}

#[test]
fn display_names_and_brackets() {
    for (value, display, uri, params) in [
        ("\"A < B\" <sip:a@b.c>;tag=1", "\"A < B\"", "sip:a@b.c", ";tag=1"),
        ("\"say \\\"hi\\\"\"<sip:a@b>", "\"say \\\"hi\\\"\"", "sip:a@b", ""),
        ("Mr. X <sip:a@b;lr>  ;x", "Mr. X", "sip:a@b;lr", ";x"),
        ("caller<sip:caller@example.com>;tag=323", "caller", "sip:caller@example.com", ";tag=323"),
        ("sip:a@b;tag=1;x=\"<\"", "", "sip:a@b", ";tag=1;x=\"<\""),
    ] {
        let address = NameAddr::parse(value.as_bytes()).unwrap_or_else(|| panic!("{value}"));
        assert_eq!(
            (show(address.display), show(address.uri), show(address.params)),
            (display.to_owned(), uri.to_owned(), params.to_owned())
        );
    }
    for value in ["\"Mr. J. User <sip:j@e.com>", "Bell, A <sip:a@b>", "<>", "<sip:a@b", "a b", "\"x\" y <sip:a@b>"] {
        assert_eq!(NameAddr::parse(value.as_bytes()), None, "{value}");
    }
}

#[test]
fn paths_are_kept_as_they_came() {
    let more = "Path: <sip:p1.example.com;lr>, \"x\" <sip:p2;lr;ob>;y\r\nPath: <sip:%20@[::1]:5060;lr>\r\n";
    with(register(more), |request| {
        let expected = [&b"<sip:p1.example.com;lr>"[..], b"\"x\" <sip:p2;lr;ob>;y", b"<sip:%20@[::1]:5060;lr>"];
        assert_eq!(request.paths().as_deref(), Ok(&expected[..]));
    });
    for bad in ["<sip:p>;a\"b", "<sip:p>;;", "sip:p1;lr", "<sip:p1", "<nothing>", ",<sip:p>"] {
        with(register(&format!("Path: {bad}\r\n")), |request| {
            assert_eq!(request.paths(), Err(Fault::bad("Malformed Path")), "{bad}");
        });
    }
}

#[test]
fn what_every_request_must_have() {
    let good = register("");
    let without = |name: &str| {
        let lines = good.split_inclusive("\r\n").filter(|line| !line.starts_with(name));
        lines.collect::<String>()
    };
    let swap = |from: &str, to: &str| {
        assert!(good.contains(from));
        good.replace(from, to)
    };
    for (message, expected) in [
        (without("From:"), (400, "Missing From", true)),
        (without("To:"), (400, "Missing To", true)),
        (without("Call-ID:"), (400, "Missing Call-ID", true)),
        (without("CSeq:"), (400, "Missing CSeq", true)),
        (swap(";rport", ";;rport"), (400, "Malformed Via", true)),
        (swap("SIP/2.0/UDP", "SIP/7.0/UDP"), (400, "Malformed Via", true)),
        (register("X: a\rb\r\n"), (400, "Bare CR", false)),
        (without("Via:"), (400, "Missing or Malformed Via", false)),
        (register("From: <sip:x@y>;tag=2\r\n"), (400, "Repeated From", true)),
        (register("t: <sip:x@y>\r\n"), (400, "Repeated To", true)),
        (register("i: other\r\n"), (400, "Repeated Call-ID", true)),
        (register("CSeq: 17 REGISTER\r\n"), (400, "Repeated CSeq", true)),
        (register("Max-Forwards: 70\r\n"), (400, "Repeated Max-Forwards", true)),
        (register("l: 0\r\nContent-Length: 0\r\n"), (400, "Repeated Content-Length", true)),
        (register("Content-Length: -1\r\n"), (400, "Malformed Content-Length", true)),
        (register("Content-Length: 1\r\n"), (400, "Content-Length beyond the Message", true)),
        (register("no header\r\n"), (400, "Malformed Header", true)),
        (swap("CSeq: 17 REGISTER", "CSeq: 17 INVITE"), (400, "CSeq Method Differs from Request Line", true)),
        (swap("CSeq: 17", "CSeq: 2147483648"), (400, "Malformed CSeq", true)),
        (swap("CSeq: 17", "CSeq: x"), (400, "Malformed CSeq", true)),
        (swap("Forwards: 70", "Forwards: 256"), (400, "Malformed Max-Forwards", true)),
        (swap("SIP/2.0\r\nVia", "SIP/7.0\r\nVia"), (505, "Version Not Supported", true)),
        (swap("SIP/2.0\r\nVia", "HTTP/1.1\r\nVia"), (400, "Malformed Request Line", false)),
        (swap("sip:example.com SIP", "<sip:example.com> SIP"), (400, "Malformed Request-URI", true)),
        (swap("sip:example.com SIP", "sip:exa mple.com SIP"), (400, "Malformed Request-URI", true)),
        (swap("sip:example.com SIP", "sip:@ SIP"), (400, "Malformed Request-URI", true)),
        (swap("To: <sip:john.doe@", "To: sip:john.doe@@"), (400, "Malformed To", true)),
        (swap("tag=1", "tag=1;tag=2"), (400, "Malformed From", true)),
        (swap("REGISTER sip:", "ACK sip:"), (400, "CSeq Method Differs from Request Line", false)),
        (swap("\r\n\r\n", "\r\n"), (400, "Missing Empty Line after Headers", true)),
        (register(&"X: y\r\n".repeat(HEADERS_MAX)), (400, "Too Many Headers", true)),
        (String::new(), (400, "Empty Message", false)),
        ("\r\n\r\n".to_owned(), (400, "Empty Message", false)),
    ] {
        assert_eq!(refused(&message, Framing::Datagram), expected, "{message}");
    }
    assert_eq!(refused(&good, Framing::Stream), (400, "Missing Content-Length", true));
    with(swap("sip:example.com SIP", "tel:+1-2 SIP"), |request| assert!(request.uri.is_ok()));
    with(swap("sip:example.com SIP", "novel:x SIP"), |request| {
        assert_eq!(request.uri.map(|uri| uri.is_sip()), Ok(false));
    });
}

#[test]
fn a_reply_copies_every_via_and_stamps_the_top_one() {
    let via = |host: &str, rest: &str| {
        format!(
            "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP {host}{rest}, SIP/2.0/TCP b;branch=2 ,  SIP/2.0/UDP c\r\nX: y\r\n\
                 v: SIP/2.0/UDP \td;x\r\nFrom: <sip:a@b>;tag=1\r\nTo: B <sip:a@b>\r\nCall-ID: i\r\nCSeq: 1 OPTIONS\r\n\r\n"
        )
    };
    for (sent, stamped) in [
        (("192.0.2.7", ";branch=1"), "192.0.2.7;branch=1"),
        (("192.0.2.7", ";rport;branch=1"), "192.0.2.7;rport=40000;branch=1;received=192.0.2.7"),
        (("h.example", " ; branch=1"), "h.example ; branch=1;received=192.0.2.7"),
        (("10.0.0.1:5080", ";received=9.9.9.9;x;rport"), "10.0.0.1:5080;x;rport=40000;received=192.0.2.7"),
        (("10.0.0.1", ";RPORT ;received=9.9.9.9"), "10.0.0.1;RPORT=40000 ;received=192.0.2.7"),
        (("192.0.2.7", ";rport=9"), "192.0.2.7;rport=9"),
    ] {
        let expected = format!(
            "SIP/2.0 404 Not Found\r\nVia: SIP/2.0/UDP {stamped}, SIP/2.0/TCP b;branch=2 ,  SIP/2.0/UDP c\r\n\
             Via: SIP/2.0/UDP \td;x\r\nFrom: <sip:a@b>;tag=1\r\nTo: B <sip:a@b>;tag=tt\r\nCall-ID: i\r\nCSeq: 1 OPTIONS\r\n\
             Contact: <sip:x>  y\r\nContent-Length: 0\r\n\r\n"
        );
        let reply = with(via(sent.0, sent.1), |request| {
            assert_eq!(request.vias().count(), 4);
            Reply::to(request, peer(), 404, vocabulary::phrase(404), "tt").header("Contact", "<sip:x>\r\ny").finish()
        });
        assert_eq!(show(&reply), expected);
    }
}

#[test]
fn a_reply_keeps_the_tag_that_is_there_and_speaks_ipv6() {
    let message = register("").replace("To: <sip:john.doe@example.com>", "To: <sip:john.doe@example.com>;tag=there");
    let reply = with(message, |request| {
        Reply::to(request, "[::ffff:203.0.113.4]:7".parse().expect("an address"), 200, "OK", "new").finish()
    });
    assert!(show(&reply).contains("To: <sip:john.doe@example.com>;tag=there\r\n"));
    assert!(show(&reply).contains(";rport=7;received=203.0.113.4\r\n"));
    let reply = with(register(""), |request| {
        Reply::to(request, "[2001:db8::5]:5060".parse().expect("an address"), 200, "OK", "new").finish()
    });
    assert!(show(&reply).contains(";rport=5060;received=2001:db8::5\r\n"));
}

#[test]
fn a_bad_request_can_still_be_answered_with_what_it_had() {
    let message = register("").replace("To: <sip:john.doe@example.com>", "To: \"open <sip:john.doe@example.com>");
    let text = Unfolded::new(message.as_bytes());
    let error = Message::parse(&text, Framing::Datagram).expect_err("an open quote");
    let request = error.request.expect("has a Via");
    let reply = show(&Reply::to(&request, peer(), error.fault.status, error.fault.reason, "x").finish());
    for part in ["SIP/2.0 400 Malformed To\r\n", "\r\nCall-ID: c1@x\r\n", "\r\nCSeq: 17 REGISTER\r\n", ";tag=1\r\n"] {
        assert!(reply.contains(part), "{part} in {reply}");
    }
}

#[test]
fn dates_are_those_of_the_rfc() {
    assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    assert_eq!(http_date(1_289_692_802), "Sun, 14 Nov 2010 00:00:02 GMT");
}

#[test]
fn responses_are_read_as_far_as_probes_need() {
    let text = Unfolded::new(b"SIP/2.0 200 \r\nVia: SIP/2.0/UDP h\r\ni: x\r\nCSeq: 1 OPTIONS\r\n\r\n");
    let Ok(Message::Response(response)) = Message::parse(&text, Framing::Datagram) else { panic!("a response") };
    assert_eq!((response.status, response.call_id), (200, &b"x"[..]));
    for start in ["SIP/2.0 4294967301 OK", "SIP/2.0 99 x", "SIP/2.0 20 x", "SIP/3.0 200 OK", "SIP/2.0 700 x"] {
        let message = format!("{start}\r\ni: x\r\nCSeq: 1 OPTIONS\r\n\r\n");
        assert!(!refused(message, Framing::Datagram).2, "{start}");
    }
}

#[test]
fn the_aor_of_a_register_is_that_of_its_to() {
    let rules = aorta_proto::uri::AorRules::default();
    with(register(""), |request| {
        assert_eq!(aorta_proto::uri::aor(&request.to.uri, &rules), Ok(Aor::from_canonical("john.doe@example.com")));
    });
}

#[test]
fn a_glance_tells_whom_a_request_is_for() {
    let raw = |message: &str| glance(message.as_bytes()).map(|uri| show(uri.raw));
    assert_eq!(raw(&register("")).as_deref(), Some("sip:john.doe@example.com"));
    let register =
        |to: &str| raw(&format!("REGISTER sip:example.com SIP/2.0\r\nFrom: <sip:bob@b>;tag=1\r\n{to}\r\n\r\n"));
    for to in ["To: <sip:a@b>", "t:sip:a@b;tag=2", "TO:\t\"To: <x>\" < sip:a@b >", "to:sip:a@b", "T: sip:a@b"] {
        assert_eq!(register(to).as_deref(), Some("sip:a@b"), "{to}");
    }
    for none in ["Tos: <sip:a@b>", "To: <>", "To:", "X: To:sip:a@b", "To: \"<sip:a@b>"] {
        assert_eq!(register(none), None, "{none}");
    }
    assert_eq!(raw("INVITE sip:a@b SIP/2.0\r\nTo: <sip:c@d>\r\n\r\n").as_deref(), Some("sip:a@b"));
    assert_eq!(register(&format!("X: {}\r\nTo: <sip:a@b>", "x".repeat(2000))), None, "far away");
    assert_eq!(raw("REGISTER "), None);
    assert_eq!(raw("INVITE"), None);
    assert_eq!(raw(""), None);
}

#[test]
fn a_to_is_read_alike_beside_any_from() {
    let read = |from: &str, to: &str| {
        let message = register("").replace("From: <sip:john.doe@example.com>;tag=1", &format!("From: {from}"));
        let message = message.replace("To: <sip:john.doe@example.com>", &format!("To: {to}"));
        let text = Unfolded::new(message.as_bytes());
        match Message::parse(&text, Framing::Datagram) {
            Ok(Message::Request(request)) => {
                Ok((show(request.to.raw), show(request.to.uri.raw), request.to.tag.map(show)))
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.fault),
        }
    };
    for from in [
        "\"A\" <sip:a@b;x=y>;tag=1",
        "A B <sip:a@b>\t; tag=1;x=\"<y>\"",
        "\"a>;b\" <sip:a@b>;tag=1",
        "<sip:a@b>;x=\">;y\";tag=1",
        "sip:a@b ;tag=1",
        "< sip:a@b > ;tag=1",
        "<sip:a;b@c>",
    ] {
        for end in 0..=from.len() {
            let to = &from[..end];
            assert_eq!(read(from, to), read("<sip:other@host>;tag=2", to), "{from} and {to}");
        }
    }
}
