//! Golden bytes: every frame kind of every version, as it is written and must go on being read. A difference is a new wire version,
//! never a new vector. `AORTA_WRITE_VECTORS=1` writes files that do not exist yet; it changes none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aorta_proto::frame::{
    Buckets, Class, Envelope, FRAME_BYTES_MAX, Frame, FrameError, HEADER_BYTES, Header, Hello, LastKnown, Packed,
    PeerState, RECORDS_SINCE, RefuseReason, RejoinReason, SAVED_SINCE, Span, State, VERSION_MAX, VERSION_MIN,
    decode_change, encode_changes, encode_deltas, encode_entries, packed,
};
use aorta_proto::{
    Aor, Binding, BindingParts, BootId, Cleared, ContactKey, Entry, Listed, NodeId, Record, Stamp, Value,
};
use proptest::prelude::*;

const SENT_US: u64 = 1_700_000_000_123_456;

/// The newest version that has vectors, whatever this build speaks.
const NEWEST: u8 = 3;

const NEWEST_NOW: Envelope = Envelope { version: NEWEST, sent_us: SENT_US };

fn written_in(version: u8, frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(Envelope { version, sent_us: SENT_US }, &mut bytes).expect("fits");
    bytes
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).expect("a node id")
}

fn stamp(counter: u32) -> Stamp {
    Stamp { time_us: 1_700_000_000_000_000, counter, boot: BootId(0x0123_4567_89ab_cdef) }
}

fn state() -> State {
    State {
        is: PeerState::Ready,
        expires_max_s: 7200,
        cut_off: true,
        links: vec![id("n2"), id("n3")],
        missing: vec![id("n4")],
        last_known: vec![LastKnown { node: id("n2"), expires_max_s: 3600, seen_us: SENT_US }],
    }
}

fn binding() -> Arc<Binding> {
    Arc::new(Binding::from(&BindingParts {
        first: stamp(0),
        granted_s: 300,
        uri: b"sip:alice@192.0.2.7:5062;transport=tcp",
        params: b";q=0.5;+sip.instance=\"<urn:uuid:1>\"",
        q: Some(500),
        path: &[&b"<sip:sbc.example.com;lr>"[..]],
        call_id: b"843817637684230@998sdasdh09",
        user_agent: b"phone/1.0",
        source: b"udp:192.0.2.7:5062",
        accepted_by: &id("n1"),
    }))
}

fn record() -> Record {
    let entry = |key, value| Entry { key, stamp: stamp(2), call_id_hash: 42, cseq: 1826, uri_hash: 43, value };
    Record {
        cleared: Some(Cleared { stamp: stamp(0), call_id_hash: 41, cseq: 7 }),
        entries: vec![
            entry(ContactKey::instance(b"<urn:uuid:1>", 1), Value::Live(binding())),
            entry(ContactKey::uri(b"sip:alice@192.0.2.8"), Value::Gone),
        ],
    }
}

fn changes() -> Vec<u8> {
    let mut bytes = Vec::new();
    for change in encode_changes("alice@example.com", &record()).expect("fits") {
        packed::push(&change, &mut bytes);
    }
    bytes
}

fn frames(version: u8, changes: &[u8]) -> Vec<(&'static str, Frame<'_>)> {
    live_frames(version, changes).into_iter().chain(bulk_frames(version, changes)).collect()
}

fn live_frames(version: u8, changes: &[u8]) -> Vec<(&'static str, Frame<'_>)> {
    let hello = Hello {
        node: id("n1"),
        boot: BootId(0x0123_4567_89ab_cdef),
        version_min: 1,
        version_max: 1,
        digest_key_hash: 99,
        state: state(),
        clock_guess_us: Some(SENT_US),
        clock_ceiling_us: None,
    };
    let changes = Packed::new(changes).expect("whole changes");
    let waited_us = (version >= 2).then_some(1234);
    let mut frames = vec![
        ("01-hello", Frame::Hello(hello)),
        ("02-subscribe", Frame::Subscribe { epoch: 3 }),
        ("03-backlog", Frame::Backlog { epoch: 3, first_seq: 1000 }),
        ("04-deltas", Frame::Deltas { epoch: 3, first_seq: 1000, waited_us, changes }),
        ("05-mark", Frame::Mark { epoch: 3 }),
        ("06-ack", Frame::Ack { epoch: 3, seq: 1001 }),
        ("07-state", Frame::State(state())),
        ("08-rejoin", Frame::Rejoin { epoch: 3, why: RejoinReason::Overflow }),
        ("09-ping", Frame::Ping { nonce: 77 }),
        ("10-pong", Frame::Pong { nonce: 77 }),
        ("11-forget", Frame::Forget { node: id("n9") }),
        ("12-bye", Frame::Bye),
    ];
    if version >= SAVED_SINCE {
        frames.extend([("13-ask-saved", Frame::AskSaved), ("14-saved", Frame::Saved { epoch: 3, seq: 1001 })]);
    }
    frames
}

fn bulk_frames(version: u8, changes: &[u8]) -> Vec<(&'static str, Frame<'_>)> {
    let listed = Listed { hash: 0xfedc_ba98_7654_3210, stamp: stamp(2) };
    let changes = Packed::new(changes).expect("whole changes");
    let mut frames = vec![
        ("32-begin", Frame::Begin { id: 5, floor_us: 1_699_999_990_000_000 }),
        ("33-root", Frame::Root { id: 5, floor_us: 0, root: 1 << 127 | 1 }),
        ("34-ask", Frame::Ask { id: 5, level: 2, indexes: vec![0, 17, 255] }),
        ("35-sums", Frame::Sums { id: 5, sums: vec![0, u128::MAX, 7] }),
        (
            "36-lists",
            Frame::Lists {
                id: 5,
                batch: 2,
                spans: vec![Span { first: 0, more: 9 }, Span { first: 65_535, more: 0 }],
                have: vec![Buckets { bucket: 3, items: vec![listed] }],
            },
        ),
        ("37-entries", Frame::Entries { id: 5, batch: 2, last: true, changes }),
        ("38-want", Frame::Want { id: 5, batch: 2, buckets: vec![(3, vec![1, 2]), (9, vec![3])] }),
        ("39-done", Frame::Done { id: 5, batch: 2 }),
        ("40-refuse", Frame::Refuse { id: 5, why: RefuseReason::Busy }),
    ];
    if version >= RECORDS_SINCE {
        frames.push(("41-records", Frame::Records { id: 5, batch: 2, records: b"as a table keeps them" }));
    }
    frames
}

fn names<'a>(frames: &[(&'a str, Frame<'_>)]) -> Vec<&'a str> {
    frames.iter().map(|(name, _)| *name).collect()
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

#[test]
fn every_kind_of_every_version_is_written_and_read_as_ever() {
    let changes = changes();
    for version in VERSION_MIN..=NEWEST {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("vectors/v{version}"));
        for (name, frame) in frames(version, &changes) {
            let kind: u8 = name.split('-').next().and_then(|kind| kind.parse().ok()).expect("begins with the kind");
            let bytes = written_in(version, &frame);
            let says = if name == "01-hello" { 1 } else { version };
            if says == version {
                judge_golden(&folder.join(format!("{name}.hex")), &bytes);
            }
            for reader in version..=NEWEST + 1 {
                let (header, read) = Frame::decode(&bytes, reader).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(read, frame, "{name}");
                assert_eq!((header.version, header.kind, header.sent_us), (says, kind, SENT_US), "{name}");
                assert_eq!(header.frame_bytes(), bytes.len());
                assert_eq!(header.class() == Class::Bulk, kind >= 32);
            }
        }
    }
}

fn judge_golden(path: &Path, bytes: &[u8]) {
    if !path.exists() && std::env::var_os("AORTA_WRITE_VECTORS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, hex(bytes)).expect("written");
    }
    let golden = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(hex(bytes), golden, "{} is written differently: that is a new wire version", path.display());
}

#[test]
fn a_version_differs_from_the_one_before_only_in_what_it_adds() {
    differs_by(2, &["13-ask-saved", "14-saved"], &["04-deltas"]);
    differs_by(3, &["41-records"], &[]);
}

fn differs_by(version: u8, kinds: &[&str], fields: &[&str]) {
    let (changes, before) = (changes(), version - 1);
    let old = frames(before, &changes);
    let (known, added): (Vec<_>, Vec<_>) =
        frames(version, &changes).into_iter().partition(|(name, _)| names(&old).contains(name));
    assert_eq!(names(&added), kinds);
    for (name, frame) in &added {
        let mut bytes = written_in(version, frame);
        let refused = frame.encode(Envelope { version: before, sent_us: 0 }, &mut Vec::new());
        assert!(refused.is_err(), "version {before} has no words for {name}");
        bytes[0] = before;
        assert!(matches!(Frame::decode(&bytes, version), Err(FrameError::Kind(_))), "{name}");
    }
    let differ = old.iter().zip(&known).filter(|((_, old), (_, new))| {
        let (old, mut new) = (written_in(before, old), written_in(version, new));
        // A Hello is of version 1 for ever.
        new[0] = old[0];
        new != old
    });
    assert_eq!(differ.map(|((name, _), _)| *name).collect::<Vec<_>>(), fields);
    let what_it_lacks = known.iter().map(|(_, frame)| written_in(before, frame));
    let as_it_has_it = old.iter().map(|(_, frame)| written_in(before, frame));
    assert!(what_it_lacks.eq(as_it_has_it), "a field that version {before} lacks is left out when it is written");
}

#[test]
fn a_frame_above_what_its_reader_reads_is_refused_and_not_misread() {
    let changes = changes();
    let before = NEWEST - 1;
    for (name, frame) in frames(NEWEST, &changes) {
        let mut next = written_in(NEWEST, &frame);
        let refused = Frame::decode(&next, before);
        match name {
            "01-hello" => assert!(refused.is_ok(), "who speaks too new a version can still say so"),
            _ => assert_eq!(refused, Err(FrameError::Version { theirs: NEWEST, ours: before }), "{name}"),
        }
        next[0] = NEWEST + 1;
        let refused = Frame::decode(&next, NEWEST).expect_err(name).to_string();
        assert!(refused.contains("version 4") && refused.contains("1 to 3"), "names both: {refused}");
        // A field behind the last one, as a later version might add.
        next.push(7);
        let body = u32::try_from(next.len() - HEADER_BYTES).expect("small");
        next[2..6].copy_from_slice(&body.to_le_bytes());
        assert_eq!(
            Frame::decode(&next, NEWEST),
            Err(FrameError::Version { theirs: NEWEST + 1, ours: NEWEST }),
            "{name}"
        );
    }
    assert!((VERSION_MIN..=NEWEST).contains(&VERSION_MAX), "what a build speaks has vectors");
}

#[test]
fn changes_come_out_as_they_went_in() {
    let bytes = changes();
    let packed = Packed::new(&bytes).expect("whole changes");
    let read: Vec<_> = packed.iter().map(|change| decode_change(change).expect("a change")).collect();
    assert_eq!(read, [("alice@example.com", record())]);
}

#[test]
fn many_changes_fill_a_frame_to_its_limit_and_no_further() {
    let changes: Vec<Vec<u8>> = (0..1000u32).map(|n| vec![n as u8; 200]).collect();
    let mut out = Vec::new();
    let taken = encode_deltas(1, 1, 0, changes.iter().map(Vec::as_slice), 64 * 1024, NEWEST_NOW, &mut out);
    assert!((300..330).contains(&taken) && out.len() <= 64 * 1024, "{taken} changes in {} bytes", out.len());
    let one_large = vec![7; packed::CHANGE_BYTES_MAX];
    let mut out = Vec::new();
    assert_eq!(encode_entries((1, 1, true), [one_large.as_slice()].into_iter(), 1000, NEWEST_NOW, &mut out), 1);
    assert!(out.len() <= FRAME_BYTES_MAX);
    assert!(Frame::decode(&out, NEWEST).is_ok(), "the largest change fits in a frame");
}

#[test]
fn large_records_travel_in_parts_that_merge_to_the_whole() {
    let entry = |n: u32| Entry {
        key: ContactKey::uri(format!("sip:{n}@{}", "x".repeat(2000)).as_bytes()),
        stamp: stamp(n * 2),
        call_id_hash: 1,
        cseq: n,
        uri_hash: u64::from(n),
        value: Value::Gone,
    };
    let aor = Aor::from_canonical("alice@example.com");
    let mut whole =
        Record { cleared: Some(Cleared { stamp: stamp(0), call_id_hash: 1, cseq: 1 }), entries: Vec::new() };
    for n in 0..256 {
        whole.merge(&Record::from(entry(n)));
    }
    let changes = encode_changes(aor.as_str(), &whole).expect("fits in parts");
    assert!(changes.len() > 5 && changes.iter().all(|change| change.len() <= 48 * 1024));
    let mut merged = Record::default();
    for change in changes.iter().rev() {
        merged.merge(&decode_change(change).expect("a change").1);
    }
    assert_eq!(merged, whole);
}

#[test]
fn hostile_headers_and_lengths_are_refused() {
    let decode = |bytes| Frame::decode(bytes, NEWEST);
    let bytes = written_in(1, &Frame::Bye);
    assert_eq!(decode(&bytes[..HEADER_BYTES - 1]), Err(FrameError::Short));
    assert_eq!(decode(&[0; 20]), Err(FrameError::Version { theirs: 0, ours: VERSION_MAX }));
    let mut unknown = bytes.clone();
    unknown[1] = 200;
    assert_eq!(decode(&unknown), Err(FrameError::Kind(200)));
    let mut long = bytes.clone();
    long[2..6].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(Header::read(&long), Err(FrameError::TooLong(_))));
    let mut trailing = bytes.clone();
    trailing.push(0);
    assert_eq!(decode(&trailing), Err(FrameError::Trailing(1)));
    // An `Ask` that claims 2^40 indexes in a few bytes.
    let mut ask = vec![1, 34, 11, 0, 0, 0];
    ask.extend_from_slice(&0u64.to_le_bytes());
    ask.extend_from_slice(&[5, 2, 253, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert!(matches!(decode(&ask), Err(FrameError::Body { kind: 34, .. })));
}

#[test]
fn indexes_outside_the_tree_are_refused() {
    let refuses = |frame: Frame<'_>| matches!(Frame::decode(&written_in(1, &frame), 1), Err(FrameError::Range(_)));
    let ask = |level, indexes| Frame::Ask { id: 1, level, indexes };
    assert!(refuses(ask(5, vec![0])));
    assert!(refuses(ask(1, vec![16])));
    assert!(refuses(ask(2, vec![3, 3])), "twice the same");
    assert!(!refuses(ask(4, vec![0, 65_535])));
    let lists = |spans, have| Frame::Lists { id: 1, batch: 0, spans, have };
    let bucket = |bucket| Buckets { bucket, items: Vec::new() };
    assert!(refuses(lists(vec![Span { first: 65_535, more: 1 }], vec![])), "beyond the last bucket");
    assert!(refuses(lists(vec![Span { first: 5, more: 5 }, Span { first: 10, more: 0 }], vec![])), "overlap");
    assert!(refuses(lists(vec![Span { first: 5, more: 5 }], vec![bucket(11)])), "listed and not in question");
    assert!(refuses(lists(vec![Span { first: 5, more: 5 }], vec![bucket(7), bucket(6)])), "order");
    assert!(!refuses(lists(vec![Span { first: 0, more: 65_535 }], vec![bucket(0), bucket(65_535)])));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_panic(version in 1..=NEWEST, kind in 0u8..60, body in proptest::collection::vec(any::<u8>(), 0..200), sent in any::<u64>()) {
        let mut bytes = vec![version, kind];
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&sent.to_le_bytes());
        bytes.extend_from_slice(&body);
        if let Ok((header, frame)) = Frame::decode(&bytes, NEWEST) {
            prop_assert_eq!(header.sent_us, sent);
            if let Frame::Deltas { changes, .. } | Frame::Entries { changes, .. } = frame {
                changes.iter().for_each(|change| drop(decode_change(change)));
            }
        }
        drop(Frame::decode(&body, NEWEST));
    }

    #[test]
    fn no_flipped_byte_panics(version in 1..=NEWEST, which in any::<proptest::sample::Index>(), at in any::<proptest::sample::Index>(), flip in 1u8..) {
        let changes = changes();
        let frames = frames(version, &changes);
        let mut bytes = written_in(version, &frames[which.index(frames.len())].1);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok((_, Frame::Deltas { changes, .. } | Frame::Entries { changes, .. })) = Frame::decode(&bytes, NEWEST) {
            changes.iter().for_each(|change| drop(decode_change(change)));
        }
    }
}
