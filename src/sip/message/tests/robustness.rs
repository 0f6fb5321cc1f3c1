//! Any bytes whatever: nothing panics, nothing takes long, nothing that was received breaks out of the line it is copied
//! to, and what is read does not depend on how a stream was cut.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use aorta_proto::uri::{AorRules, Scheme, Uri, aor, canonical_contact, hvalue_escape, unescape};

use super::*;

/// Mutated messages a run.
const ROUNDS: usize = 60_000;

/// What mutations put in: the bytes that mean something.
const SALT: [&str; 34] = [
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "\r\n ",
    "\n\t",
    "\0",
    "\"",
    "\\",
    "\\\"",
    "<",
    ">",
    "<>",
    ",",
    ";",
    ";;",
    "=",
    ":",
    "@",
    "?",
    "&",
    "%",
    "%00",
    "%4",
    "[",
    "]",
    "[::1]",
    "*",
    " ",
    "\u{fc}",
    "Contact: ",
    "Via: SIP/2.0/UDP ",
    "l: 5\r\n",
    "99999999999999999999",
];

fn corpus() -> Vec<Vec<u8>> {
    let contact = "Contact: \"A, B\" <sip:a.b%40c:pw@[2001:db8::1]:5062;transport=tcp;line=x?Route=%3Csip:p%3E>\
                   ;q=0.7;expires=60;+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\";reg-id=1, sip:x@y;a\r\n";
    let mut corpus = vec![
        register(contact).into_bytes(),
        register("Contact: *\r\nExpires: 0\r\nPath: <sip:p1;lr>, <sip:p2;lr>\r\nSupported: path\r\n").into_bytes(),
        register("m:\r\n <sip:a@b>\r\n\t;q=1\r\nv: SIP/2.0/TCP c;received=1.2.3.4, SIP/2.0/UDP d\r\nl: 0\r\n")
            .into_bytes(),
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h\r\ni: x\r\nCSeq: 1 OPTIONS\r\nl: 0\r\n\r\n".to_vec(),
    ];
    // Most mutations should begin from what a registrar is for.
    let own = corpus.clone();
    (0..6).for_each(|_| corpus.extend(own.iter().cloned()));
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/torture");
    if let Ok(entries) = std::fs::read_dir(folder) {
        corpus.extend(entries.filter_map(|entry| std::fs::read(entry.ok()?.path()).ok()));
    }
    corpus
}

fn mutated(corpus: &[Vec<u8>], dice: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = corpus[dice.usize(..corpus.len())].clone();
    for _ in 0..dice.usize(1..6) {
        let at = dice.usize(..=bytes.len());
        let end = at + dice.usize(..=(bytes.len() - at).min(60));
        match dice.u8(..5) {
            0 => bytes[at..end].iter_mut().take(1).for_each(|byte| *byte = dice.u8(..)),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, SALT[dice.usize(..SALT.len())].bytes())),
            3 => {
                let other = &corpus[dice.usize(..corpus.len())];
                let from = dice.usize(..=other.len());
                drop(bytes.splice(at..end, other[from..].iter().copied().take(100)));
            }
            _ => {
                let copy = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, copy));
            }
        }
    }
    bytes
}

/// Everything that may be done with received bytes; returns whether a request was read.
fn exercise(bytes: &[u8]) -> bool {
    let text = Unfolded::new(bytes);
    assert_eq!(text.as_bytes().len(), bytes.len());
    _ = glance(bytes);
    let mut read = false;
    for framing in [Framing::Datagram, Framing::Stream] {
        match Message::parse(&text, framing) {
            Ok(Message::Request(request)) => {
                read = true;
                look(&request);
                check_reply(&request);
            }
            Ok(Message::Response(response)) => assert!((100..700).contains(&response.status)),
            Err(error) => {
                assert!(matches!(error.fault.status, 400 | 505));
                error.request.iter().for_each(|request| check_reply(request));
            }
        }
    }
    read
}

fn look(request: &Request<'_>) {
    let _ = (request.expires(), request.user_agent(), request.supports("path"), request.paths());
    let vias = request.vias().count();
    assert!(
        vias > 0 && request.options(Name::Require).count() <= request.headers.len() + request.uri_raw.len() + 65_536
    );
    assert!(request.cseq.number <= i32::MAX.unsigned_abs() && !request.call_id.is_empty());
    check_uri(request.uri_raw);
    check_uri(request.to.uri.raw);
    if let Ok(Contacts::List(list)) = request.contacts() {
        for contact in list {
            check_uri(contact.uri.raw);
            let _ = contact.key();
            let kept = contact.kept_params();
            assert_eq!(params_without(&kept, &["expires"]), *kept);
            assert!(contact.q.is_none_or(|q| q <= 1000));
        }
    }
}

fn check_uri(raw: &[u8]) {
    let Ok(uri) = Uri::parse(raw) else { return };
    if let Ok(aor) = aor(&uri, &AorRules::default()) {
        assert!(aor.as_str().len() <= aorta_proto::aor::AOR_BYTES_MAX && !aor.as_str().contains(char::is_control));
    }
    let canonical = canonical_contact(&uri);
    if uri.scheme != Scheme::Other {
        let again = Uri::parse(&canonical).expect("a canonical form is a URI");
        assert_eq!(show(&canonical_contact(&again)), show(&canonical));
    }
    let mut escaped = Vec::new();
    hvalue_escape(raw, &mut escaped);
    assert_eq!(&*unescape(&escaped), raw);
}

/// A reply has the lines that it should have and no other.
fn check_reply(request: &Request<'_>) {
    let reply = Reply::to(request, peer(), 404, "Not Found", "tag").header("X", request.to.raw).finish();
    let lines: Vec<&[u8]> = reply.split(|byte| *byte == b'\n').collect();
    let copied = [Name::From, Name::To, Name::CallId, Name::CSeq];
    let copies = copied.iter().filter(|name| request.first(**name).is_some()).count();
    let expected = 1 + request.all(Name::Via).count() + copies + 1 + 1 + 2;
    assert_eq!(lines.len(), expected, "{}", show(&reply));
    let whole = lines
        .iter()
        .rev()
        .skip(1)
        .all(|line| line.last() == Some(&b'\r') && line.iter().filter(|b| **b == b'\r').count() == 1);
    assert!(whole, "{}", show(&reply));
}

fn framed(stream: &[u8], mut cut: impl FnMut() -> usize) -> Vec<(u8, Vec<u8>)> {
    let mut framer = Framer::new(3000);
    let mut frames = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(cut().clamp(1, rest.len()));
        framer.push(piece);
        rest = after;
        while let Some(frame) = framer.next_frame() {
            frames.push(match frame {
                Framed::Message(bytes) => (0, bytes.to_vec()),
                Framed::Ping => (1, Vec::new()),
                Framed::Broken(bytes) => (2, bytes.to_vec()),
            });
        }
    }
    frames
}

#[test]
fn mutated_messages_do_no_harm() {
    let corpus = corpus();
    let mut dice = fastrand::Rng::with_seed(4475);
    let read = (0..ROUNDS).filter(|_| exercise(&mutated(&corpus, &mut dice))).count();
    println!("{read} of {ROUNDS} mutated messages were still requests");
    assert!(read > ROUNDS / 20, "mutations leave enough to look at: {read}");
}

#[test]
fn random_bytes_do_no_harm() {
    let mut dice = fastrand::Rng::with_seed(1);
    for _ in 0..ROUNDS {
        let length = dice.usize(..200);
        let bytes: Vec<u8> = (0..length).map(|_| dice.u8(..)).collect();
        exercise(&bytes);
        check_uri(&bytes);
        let salted: String = (0..dice.usize(..20)).map(|_| SALT[dice.usize(..SALT.len())]).collect();
        exercise(salted.as_bytes());
        check_uri(format!("sip:{salted}").as_bytes());
        let _ = Contact::parse(salted.as_bytes()).map(|contact| contact.key());
    }
}

#[test]
fn how_a_stream_is_cut_does_not_matter() {
    let corpus = corpus();
    let mut dice = fastrand::Rng::with_seed(2);
    for _ in 0..ROUNDS / 20 {
        let stream: Vec<u8> =
            (0..3).flat_map(|_| if dice.bool() { mutated(&corpus, &mut dice) } else { corpus[3].clone() }).collect();
        let whole = framed(&stream, || usize::MAX);
        assert_eq!(framed(&stream, || 1), whole);
        assert_eq!(framed(&stream, || dice.usize(1..300)), whole);
    }
}

/// 64 KiB of one thing, wherever it may stand: what is quadratic takes seconds then.
#[test]
fn no_input_takes_long() {
    const LONG: Duration = Duration::from_millis(400);
    let repeats = [
        "a",
        ",",
        ";",
        "\"",
        "<",
        "<>",
        "\\",
        "=",
        "%",
        "%41",
        "@",
        ":",
        "[",
        " ",
        "\t",
        "\r\n ",
        "a,",
        ";a",
        ";a=\"",
        ";a=\"\\\"\"",
        "X: y\r\n",
        "<sip:a@b>,",
        "sip:a,",
        ";expires=1",
        "Contact: <sip:a@b>\r\n",
        "m: a,,,\r\n",
        "\r\n",
        "\n",
        "0",
        "&a=b",
        "SIP/2.0/UDP h,",
    ];
    for repeat in repeats {
        let bulk = repeat.repeat(60_000 / repeat.len());
        for (before, after) in [
            ("Contact: ", ""),
            ("Contact: <sip:a@b", ">"),
            ("Contact: <sip:a@b?", ">"),
            ("Contact: <sip:a@b>", ""),
            ("Via: SIP/2.0/UDP h", ""),
            ("From: ", ""),
            ("Path: ", ""),
            ("Supported: ", ""),
            ("", ""),
        ] {
            let message = register(&format!("{before}{bulk}{after}\r\n"));
            let began = Instant::now();
            exercise(message.as_bytes());
            framed(message.as_bytes(), || 1000);
            assert!(began.elapsed() < LONG, "{before:?} {repeat:?}: {:?}", began.elapsed());
        }
        let began = Instant::now();
        exercise(bulk.as_bytes());
        framed(bulk.as_bytes(), || 1);
        assert!(began.elapsed() < LONG, "{repeat:?}: {:?}", began.elapsed());
    }
}
