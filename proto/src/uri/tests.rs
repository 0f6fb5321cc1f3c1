//! URIs as phones write them, and whether two are one.

use super::*;

fn uri(text: &str) -> Uri<'_> {
    Uri::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn key(text: &str) -> String {
    String::from_utf8(canonical_contact(&uri(text)).to_vec()).expect("canonical forms are ascii")
}

fn of(text: &str, rules: &AorRules) -> Result<String, AorError> {
    aor(&uri(text), rules).map(|aor| aor.as_str().to_owned())
}

#[test]
fn the_parts_of_a_sip_uri() {
    let parsed =
        uri("sips:john.doe:s3c:ret@Example.COM:5061;transport=tcp;gr=urn:uuid:1?Subject=a%20b&Route=%3Csip:p%3E");
    assert_eq!(parsed.scheme, Scheme::Sips);
    assert_eq!(parsed.user, Some(&b"john.doe"[..]));
    assert_eq!(parsed.password, Some(&b"s3c:ret"[..]));
    assert_eq!(parsed.host, Host::Name(b"Example.COM"));
    assert_eq!(parsed.port, Some(5061));
    assert_eq!(parsed.params, b";transport=tcp;gr=urn:uuid:1");
    assert_eq!(parsed.param("gr").expect("there").value, Some(&b"urn:uuid:1"[..]));
    assert_eq!(parsed.headers, Some(&b"Subject=a%20b&Route=%3Csip:p%3E"[..]));
}

#[test]
fn hosts_are_names_or_addresses() {
    assert_eq!(uri("sip:192.0.2.1").host, Host::Ip([192, 0, 2, 1].into()));
    let v6 = uri("sip:a@[2001:DB8::1]:5070;lr");
    assert_eq!((v6.host.to_string().as_str(), v6.port), ("[2001:db8::1]", Some(5070)));
    assert_eq!(uri("sip:host?x=y").host, Host::Name(b"host"));
    assert_eq!(uri("sip:a@under_score.example.").host, Host::Name(b"under_score.example."));
}

#[test]
fn a_user_may_hold_what_looks_like_the_rest_of_a_uri() {
    let semi = uri("sip:user;par=u%40example.net@example.com");
    assert_eq!((semi.user, semi.host), (Some(&b"user;par=u%40example.net"[..]), Host::Name(b"example.com")));
    let odd = uri(
        "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com",
    );
    assert_eq!(odd.user, Some(&b"1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"[..]));
    assert_eq!(odd.host, Host::Name(b"example.com"));
}

#[test]
fn what_is_no_uri() {
    for (text, error) in [
        ("", UriError::Scheme),
        ("alice", UriError::Scheme),
        (":x", UriError::Scheme),
        ("1sip:x", UriError::Scheme),
        ("sip:", UriError::Host),
        ("sip:@example.com", UriError::User),
        ("sip:a@", UriError::Host),
        ("sip:a@b@c", UriError::Host),
        ("sip:a@[::1", UriError::Host),
        ("sip:a@[1.2.3.4]", UriError::Host),
        ("sip:a@-", UriError::Host),
        ("sip:a@b:", UriError::Port),
        ("sip:a@b:65536", UriError::Port),
        ("sip:a@b:50x", UriError::Host),
        ("sip:a@b lr", UriError::Byte),
        ("<sip:a@b>", UriError::Byte),
        ("sip:a\0@b", UriError::Byte),
        ("tel:", UriError::User),
    ] {
        assert_eq!(Uri::parse(text.as_bytes()), Err(error), "{text}");
    }
    assert_eq!(uri("http://example.com/").scheme, Scheme::Other);
    assert_eq!(uri("nobodyKnowsThisScheme:totallyopaquecontent").scheme, Scheme::Other);
}

#[test]
fn uris_that_are_equal_by_the_rfc_have_one_key() {
    for (a, b) in [
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
        (
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
        ),
        (
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
        ),
        ("SIP:a@[2001:DB8:0::1]", "sip:a@[2001:db8::1]"),
        ("sip:a@b.;a%5Bx", "sip:a@b;A[X"),
        ("tel:+1-201-555-0123;b;a=X", "TEL:+12015550123;a=x;b"),
    ] {
        assert_eq!(key(a), key(b));
    }
}

#[test]
fn uris_that_differ_by_the_rfc_have_two_keys() {
    for (a, b) in [
        ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
        ("sip:a@b", "sips:a@b"),
        ("sip:a:x@b", "sip:a:X@b"),
        ("sip:a%3Bx@b", "sip:a;x@b"),
        ("sip:a%2525@b", "sip:a%25@b"),
        ("sip:a@b;line=1", "sip:a@b;line=2"),
    ] {
        assert_ne!(key(a), key(b));
    }
}

#[test]
fn the_address_of_record_of_a_uri() {
    let rules = AorRules::default();
    for (text, expected) in [
        ("sip:john.doe@Example.COM:5070;transport=tcp?a=b", "john.doe@example.com"),
        ("sips:Alice:secret@example.com.", "Alice@example.com"),
        ("sip:%61lice%40home@example.com", "alice@home@example.com"),
        ("sip:a%25b@example.com", "a%25b@example.com"),
        ("sip:null-%00-null@example.com", "null-%00-null@example.com"),
        ("sip:%C3%BC%FF@example.com", "ü%FF@example.com"),
        ("sip:a@[2001:DB8::1]:5060", "a@[2001:db8::1]"),
        ("sip:+1-(201)-555.0123@example.com;user=phone", "+12015550123@example.com"),
        ("sip:+1-201;ext=3-4@example.com;user=Phone", "+1201;ext=3-4@example.com"),
        ("sip:+1-201-5@example.com", "+1-201-5@example.com"),
        ("sip:john.doe@example.com;user=phone", "john.doe@example.com"),
        ("tel:70-42;phone-context=Example.com", "7042@example.com"),
    ] {
        assert_eq!(of(text, &rules).as_deref(), Ok(expected), "{text}");
    }
    assert_eq!(of("sip:example.com", &rules), Err(AorError::NoUser));
    assert_eq!(of("http://a@b", &rules), Err(AorError::Scheme));
    assert_eq!(of("tel:+1201", &rules), Err(AorError::NoTelDomain));
    assert_eq!(of("tel:7042;phone-context=+1", &rules), Err(AorError::NoTelDomain));
    assert_eq!(of(&format!("sip:{}@b", "x".repeat(AOR_MAX)), &rules), Err(AorError::TooLong));
}

const AOR_MAX: usize = crate::aor::AOR_BYTES_MAX;

#[test]
fn domains_aliases_case_and_numbers() {
    let aliases = [("192.0.2.1", "Example.com"), ("[2001:DB8::1]", "example.com"), ("node1.local", "example.com")];
    let rules = AorRules::new(["EXAMPLE.com"], aliases, Some("Example.com"), false).expect("all are hosts");
    for text in ["sip:Bob@192.0.2.1:5060", "sip:bOb@[2001:db8:0::1]", "sip:bob@NODE1.local", "sips:bob@example.com"] {
        assert_eq!(of(text, &rules).as_deref(), Ok("bob@example.com"));
    }
    assert_eq!(of("tel:+1-201-555-0123", &rules).as_deref(), Ok("+12015550123@example.com"));
    assert_eq!(of("sip:bob@elsewhere.org", &rules), Err(AorError::ForeignDomain));
    assert!(rules.names(uri("sip:node1.LOCAL").host));
    assert!(!rules.names(uri("sip:elsewhere.org").host));
    assert!(AorRules::new(["a b"], [], None, true).is_err());
    assert!(AorRules::new(["a:5060"], [], None, true).is_err());
}

#[test]
fn a_registrar_takes_the_aors_of_its_domain() {
    let rules =
        AorRules::new(["a.example", "b.example"], [("192.0.2.1", "a.example")], None, true).expect("all are hosts");
    let bob = crate::Aor::from_canonical("bob@b.example");
    for (registrar, admitted) in
        [("sip:B.example", true), ("sip:a.example", false), ("sip:192.0.2.1:5060", true), ("sip:c.example", false)]
    {
        assert_eq!(rules.admits(uri(registrar).host, &bob), admitted, "{registrar}");
    }
    assert!(AorRules::default().admits(uri("sip:registrar.example").host, &bob));
}

#[test]
fn an_operator_may_write_an_aor_in_three_ways() {
    let rules = AorRules::new([], [], Some("example.com"), true).expect("all are hosts");
    let read = |text: &str| rules.read(text).map(|aor| aor.as_str().to_owned());
    assert_eq!(read("alice@Example.com").as_deref(), Ok("alice@example.com"));
    assert_eq!(read("sip:alice@example.com").as_deref(), Ok("alice@example.com"));
    assert_eq!(read("a@b@example.com").as_deref(), Ok("a@b@example.com"));
    assert_eq!(read("tel:+1-2").as_deref(), Ok("+12@example.com"));
    for uri in ["sip:u%00z@example.com", "sip:u%25zz@example.com", "sip:u%ff@example.com", "sip:a%40b@example.com"] {
        let canonical = read(uri).expect("an AoR");
        assert_eq!(read(&canonical).as_ref(), Ok(&canonical), "what a dump prints can be asked for: {uri}");
    }
    assert_eq!(read("nonsense"), Err(AorError::Scheme));
}
