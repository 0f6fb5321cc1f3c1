//! The 49 messages of RFC 4475, each with the verdict that this server gives; the RFC leaves some of them open, and the
//! table says what was chosen. What a user agent does with a message that is read (405, 416, 420, …) is tested elsewhere.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aorta::sip::message::{Contacts, Fault, Framing, Lifetime, Message, Name, Request, Unfolded};
use aorta_proto::uri::{AorRules, Scheme, Uri, aor};

/// What is to be seen in a message that is read.
type Look = fn(&Request<'_>);

enum Verdict {
    /// A request that is served, or refused for what it asks.
    Read(Look),
    /// Answered with this status and reason phrase.
    Refused(u16, &'static str),
    /// A response that is read.
    Response(u16),
    /// Dropped.
    Silence,
}

use Verdict::{Read, Refused, Response, Silence};

/// Where the files are, beside the repository; they are not part of it.
fn files() -> Option<BTreeMap<String, Vec<u8>>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/torture");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: the RFC 4475 files are not at {}", folder.display());
        return None;
    };
    let read = |path: PathBuf| {
        let name = path.file_stem()?.to_str()?.to_owned();
        Some((name, std::fs::read(&path).expect("a readable file")))
    };
    Some(entries.map(|entry| entry.expect("a readable folder").path()).filter_map(read).collect())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8 in this field")
}

fn contact_uris(request: &Request<'_>) -> Result<Vec<String>, Fault> {
    match request.contacts()? {
        Contacts::Star => Ok(vec!["*".to_owned()]),
        Contacts::List(list) => Ok(list.iter().map(|contact| text(contact.uri.raw).to_owned()).collect()),
    }
}

fn aor_of(uri: &[u8]) -> String {
    let uri = Uri::parse(uri).expect("a URI");
    aor(&uri, &AorRules::default()).expect("an AoR").as_str().to_owned()
}

fn assert_contacts(request: &Request<'_>, expected: &[&str]) {
    assert_eq!(contact_uris(request).expect("good Contacts"), expected);
}

/// RFC 4475 §3.1.1, valid messages.
fn valid() -> Vec<(&'static str, Verdict)> {
    vec![
        ("wsinv", Read(wsinv)),
        ("intmeth", Read(intmeth)),
        ("esc01", Read(esc01)),
        (
            "escnull",
            Read(|request| {
                assert_eq!(aor_of(request.to.uri.raw), "null-%00-null@example.com");
                assert_contacts(request, &["sip:%00@host5.example.com", "sip:%00%00@host5.example.com"]);
            }),
        ),
        (
            "esc02",
            Read(|request| {
                assert_eq!(text(request.method), "RE%47IST%45R");
                assert_eq!(
                    (text(request.to.raw), text(request.cseq.method)),
                    (r#""%Z%45" <sip:resource@example.com>"#, "RE%47IST%45R")
                );
                assert_contacts(request, &["sip:alias1@host1.example.com", "sip:alias3@host3.example.com"]);
            }),
        ),
        (
            "lwsdisp",
            Read(|request| {
                assert_eq!(
                    (request.from.uri.raw, request.from.tag),
                    (&b"sip:caller@example.com"[..], Some(&b"323"[..]))
                );
            }),
        ),
        ("longreq", Read(longreq)),
        (
            "dblreq",
            Read(|request| {
                assert_eq!((request.method, request.body), (&b"REGISTER"[..], &b""[..]));
                assert_contacts(request, &["sip:j.user@host.example.com"]);
            }),
        ),
        (
            "semiuri",
            Read(|request| {
                let uri = request.uri.expect("a URI");
                assert_eq!(
                    (uri.user, uri.host.to_string().as_str()),
                    (Some(&b"user;par=u%40example.net"[..]), "example.com")
                );
            }),
        ),
        (
            "transports",
            Read(|request| {
                let vias: Vec<&str> = request.vias().map(text).collect();
                assert_eq!(vias.len(), 5);
                assert_eq!(vias[3], "SIP/2.0/UNKNOWN t4.example.com;branch=z9hG4bKasd0f3en");
            }),
        ),
        ("mpart01", Read(|request| assert_eq!((request.method, request.body.len()), (&b"MESSAGE"[..], 553)))),
        ("unreason", Response(200)),
        ("noreason", Response(100)),
    ]
}

fn wsinv(request: &Request<'_>) {
    assert_eq!((text(request.method), request.cseq.number, request.max_forwards), ("INVITE", 9, Some(68)));
    assert_eq!(
        (request.to.uri.raw, request.to.tag),
        (&b"sip:vivekg@chair-dnrc.example.com"[..], Some(&b"1918181833n"[..]))
    );
    assert_eq!((request.from.uri.raw, request.from.tag), (&b"sip:jdrosen@example.com"[..], Some(&b"98asjd8"[..])));
    assert_eq!((text(request.via.transport), text(request.via.branch)), ("UDP", "390skdjuw"));
    assert_eq!((request.via.host.to_string().as_str(), request.vias().count()), ("192.0.2.2", 3));
    assert_eq!(request.body.len(), 150);
    let Ok(Contacts::List(list)) = request.contacts() else { panic!("one Contact") };
    assert_eq!((list.len(), list[0].uri.raw, list[0].q), (1, &b"sip:jdrosen@example.com"[..], Some(330)));
}

fn intmeth(request: &Request<'_>) {
    assert_eq!(text(request.method), "!interesting-Method0123456789_*+`.%indeed'~");
    let uri = request.uri.expect("a URI");
    assert_eq!(uri.user.map(text), Some("1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"));
    assert_eq!(uri.password.map(text), Some("&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"));
    assert_eq!(text(request.via.branch), "z9hG4bK-.!%66*_+`'~");
    assert_eq!(request.from.tag.map(text), Some("_token~1'+`*%!-."));
    assert_eq!((request.from.uri.raw, request.max_forwards), (&b"sip:mundane@example.com"[..], Some(255)));
}

fn esc01(request: &Request<'_>) {
    assert_eq!(aor_of(request.uri_raw), "sips:user@example.com@example.net");
    assert_eq!(aor_of(request.to.uri.raw), "user@example.com");
    assert_eq!(aor_of(request.from.uri.raw), "I have spaces@example.net");
    assert_contacts(request, &["sip:cal%6Cer@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31"]);
}

fn longreq(request: &Request<'_>) {
    assert_eq!(request.vias().count(), 34);
    assert_eq!(text(request.call_id).len(), 141);
    assert_eq!((request.via.host.to_string().as_str(), request.body.len()), ("sip33.example.com", 150));
    assert_eq!(request.first(Name::CSeq), Some(&b"3882340 INVITE"[..]));
}

/// RFC 4475 §3.1.2, invalid messages.
fn invalid() -> Vec<(&'static str, Verdict)> {
    vec![
        ("badinv01", Refused(400, "Malformed Via")),
        ("clerr", Refused(400, "Content-Length beyond the Message")),
        ("ncl", Refused(400, "Malformed Content-Length")),
        ("scalar02", Refused(400, "Malformed CSeq")),
        ("scalarlg", Silence),
        ("quotbal", Refused(400, "Malformed To")),
        ("ltgtruri", Refused(400, "Malformed Request-URI")),
        ("lwsruri", Refused(400, "Malformed Request-URI")),
        ("lwsstart", Refused(400, "Malformed Request-URI")),
        ("trws", Refused(400, "Malformed Request Line")),
        // Choice: headers of a Request-URI are ignored; an SBC that leaves `?Route=` of a redirect there is served.
        (
            "escruri",
            Read(|request| {
                assert_eq!(aor_of(request.uri_raw), "user@example.com");
            }),
        ),
        // Choice: a Date that is no Date is nobody's business here.
        ("baddate", Read(|request| assert_eq!(request.body.len(), 150))),
        ("regbadct", Read(|request| assert_eq!(contact_uris(request), Err(Fault::bad("Malformed Contact"))))),
        // Choice: spaces inside `<>` of From and To are let pass.
        (
            "badaspec",
            Read(|request| {
                assert_eq!(aor_of(request.to.uri.raw), "t.watson@example.org");
            }),
        ),
        // Choice: a comma in a bare display name is refused: it may as well part two values. (The file ends too early.)
        ("baddn", Refused(400, "Missing Empty Line after Headers")),
        ("badvers", Refused(505, "Version Not Supported")),
        ("mismatch01", Refused(400, "CSeq Method Differs from Request Line")),
        ("mismatch02", Refused(400, "CSeq Method Differs from Request Line")),
        ("bigcode", Silence),
    ]
}

/// RFC 4475 §3.2 and the first of §3.3: transaction and application layer.
fn beyond_syntax() -> Vec<(&'static str, Verdict)> {
    vec![
        ("badbranch", Read(|request| assert_eq!(text(request.via.branch), "z9hG4bK"))),
        ("insuf", Refused(400, "Missing From")),
        ("unkscm", Read(|request| assert_eq!(request.uri.map(|uri| uri.scheme), Ok(Scheme::Other)))),
        ("novelsc", Read(|request| assert_eq!(request.uri.map(|uri| uri.scheme), Ok(Scheme::Other)))),
        (
            "unksm2",
            Read(|request| {
                assert_eq!(
                    (text(request.to.uri.raw), text(request.from.uri.raw)),
                    ("isbn:2983792873", "http://www.example.com")
                );
                assert_contacts(request, &["name:John_Smith"]);
            }),
        ),
        (
            "bext01",
            Read(|request| {
                let required: Vec<&str> = request.options(Name::Require).map(text).collect();
                assert_eq!(required, ["nothingSupportsThis", "nothingSupportsThisEither"]);
                assert_eq!(request.options(Name::ProxyRequire).count(), 2);
            }),
        ),
        ("invut", Read(|request| assert_eq!(request.body.len(), 40))),
        (
            "regaut01",
            Read(|request| {
                assert_eq!(request.first(Name::Authorization), Some(&b"NoOneKnowsThisScheme opaque-data=here"[..]));
                assert_contacts(request, &[]);
            }),
        ),
    ]
}

/// RFC 4475 §3.3, from its ninth message on, and §3.4: what only somebody who applies the message would notice.
fn applied() -> Vec<(&'static str, Verdict)> {
    vec![
        ("multi01", Refused(400, "Repeated From")),
        ("mcl01", Refused(400, "Repeated Content-Length")),
        ("bcast", Response(200)),
        ("zeromf", Read(|request| assert_eq!(request.max_forwards, Some(0)))),
        (
            "cparam01",
            Read(|request| {
                let Ok(Contacts::List(list)) = request.contacts() else { panic!("one Contact") };
                assert_eq!(
                    (text(list[0].uri.raw), text(list[0].params)),
                    ("sip:+19725552222@gw1.example.net", ";unknownparam")
                );
            }),
        ),
        (
            "cparam02",
            Read(|request| {
                let Ok(Contacts::List(list)) = request.contacts() else { panic!("one Contact") };
                assert_eq!(
                    (text(list[0].uri.raw), text(list[0].params)),
                    ("sip:+19725552222@gw1.example.net;unknownparam", "")
                );
            }),
        ),
        (
            "regescrt",
            Read(|request| {
                assert_contacts(request, &["sip:user@example.com?Route=%3Csip:sip.example.com%3E"]);
                assert_eq!(request.expires(), Lifetime::Absent);
            }),
        ),
        ("sdp01", Read(|request| assert_eq!(request.body.len(), 150))),
        (
            "inv2543",
            Read(|request| {
                assert_eq!((request.via.branch, request.from.tag, request.max_forwards), (&b""[..], None, None));
                assert_eq!(aor_of(request.to.uri.raw), "+16505552222@ss1.example.net");
            }),
        ),
    ]
}

fn judge(name: &str, bytes: &[u8], verdict: &Verdict) {
    let unfolded = Unfolded::new(bytes);
    match (Message::parse(&unfolded, Framing::Datagram), verdict) {
        (Ok(Message::Request(request)), Read(look)) => look(&request),
        (Ok(Message::Response(response)), Response(status)) => assert_eq!(response.status, *status, "{name}"),
        (Err(error), Refused(status, reason)) => {
            assert_eq!((error.fault.status, error.fault.reason), (*status, *reason), "{name}");
            assert!(error.request.is_some(), "{name} is answered");
        }
        (Err(error), Silence) => assert!(error.request.is_none(), "{name} gets silence"),
        (other, _) => panic!("{name}: {other:?}"),
    }
}

#[test]
fn every_torture_message_gets_its_verdict() {
    let Some(files) = files() else { return };
    let verdicts: BTreeMap<&str, Verdict> =
        [valid(), invalid(), beyond_syntax(), applied()].into_iter().flatten().collect();
    assert_eq!(verdicts.len(), 49);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, verdicts.keys().copied().collect::<Vec<_>>());
    for (name, bytes) in &files {
        println!("{name}");
        judge(name, bytes, &verdicts[name.as_str()]);
    }
}

/// The two files that lack something, made whole.
#[test]
fn the_defects_of_two_files_do_not_hide_their_subject() {
    let Some(files) = files() else { return };
    let whole = [&files["baddn"][..], b"\r\n"].concat();
    judge("baddn", &whole, &Refused(400, "Malformed From"));
}
