//! Whatever is packed comes back, and a contact as phones send it takes few bytes.

use std::sync::Arc;

use aorta_proto::{Aor, BootId, Cleared, ContactKey, NodeId, Refresh, Value, binding};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Texts that repeat, texts that do not, and UUIDs of every spelling.
fn texts() -> impl Strategy<Value = Vec<u8>> {
    let params = [
        "",
        ";q=0.5",
        ";+sip.instance=\"<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>\";reg-id=1",
        ";+sip.instance=\"<urn:uuid:F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6>\"",
        ";+sip.instance=\"<urn:uuid:F81d4fae-7dec-11d0-a765-00a0c91e6bf6>\"",
        "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf",
        "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6urn:uuid:00000000-0000-1000-8000-001122334455\"",
    ];
    let few = select(params.to_vec()).prop_map(|text| text.as_bytes().to_vec());
    prop_oneof![few, prop::collection::vec(any::<u8>(), 0..300), prop::collection::vec(any::<u8>(), 0..4)]
}

fn stamps() -> impl Strategy<Value = Stamp> {
    let times = prop_oneof![any::<u64>(), 1_700_000_000_000_000_u64..1_700_000_000_000_003];
    let boots = prop_oneof![any::<u64>(), 0_u64..3];
    (times, prop_oneof![any::<u32>(), 0_u32..3], boots).prop_map(|(time_us, counter, boot)| Stamp {
        time_us,
        counter,
        boot: BootId(boot),
    })
}

fn bindings() -> impl Strategy<Value = (Binding, usize)> {
    let texts = (texts(), texts(), texts(), texts(), texts(), prop::collection::vec(texts(), 0..6));
    let node = select(vec!["n1", "a-node-with-a-longer-name"]);
    let numbers = (stamps(), any::<u32>(), prop::option::of(0_u16..=u16::MAX), node, any::<prop::sample::Index>());
    (texts, numbers).prop_map(|((uri, params, call_id, user_agent, source, path), (first, granted_s, q, node, at))| {
        let path: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        let binding = Binding::from(&BindingParts {
            first,
            granted_s,
            uri: &uri,
            params: &params,
            q,
            path: &path,
            call_id: &call_id,
            user_agent: &user_agent,
            source: &source,
            accepted_by: &NodeId::new(node).expect("a node id"),
        });
        let quotes = params.split(|byte| *byte == b'"').count();
        (binding, at.index(quotes))
    })
}

fn entries() -> impl Strategy<Value = Entry> {
    let numbers = (any::<u64>(), any::<u32>(), prop_oneof![any::<u64>(), 0_u64..2], any::<u32>());
    let value = prop::option::weighted(0.7, bindings());
    (stamps(), numbers, value, texts(), 0..5).prop_map(|(stamp, numbers, value, text, kind)| {
        let (call_id_hash, cseq, uri_hash, reg_id) = numbers;
        let (binding, quoted) = value.unzip();
        let told = binding.as_ref();
        let instance = told.and_then(|binding| binding.params().split(|byte| *byte == b'"').nth(quoted?));
        let key = match kind {
            0 => ContactKey::uri(told.map(Binding::uri).unwrap_or(&text)),
            1 => ContactKey::instance(instance.unwrap_or(&text), reg_id),
            2 => ContactKey::trail(uri_hash),
            3 => ContactKey::trail(u64::from(reg_id)),
            _ => ContactKey::from_bytes(&text),
        };
        let value = binding.map_or(Value::Gone, |binding| Value::Live(Arc::new(binding)));
        Entry { key, stamp, call_id_hash, cseq, uri_hash, value }
    })
}

fn records() -> impl Strategy<Value = Record> {
    let cleared = (stamps(), any::<u64>(), any::<u32>());
    let cleared = cleared.prop_map(|(stamp, call_id_hash, cseq)| Cleared { stamp, call_id_hash, cseq });
    let entries = prop::collection::vec((entries(), any::<bool>()), 0..6);
    (prop::option::of(cleared), entries).prop_map(|(cleared, entries)| {
        let mut record = Record { cleared, entries: Vec::new() };
        for (mut entry, like) in entries {
            // What a flow and its trail have in common.
            if let Some(before) = record.entries.last().filter(|_| like) {
                (entry.stamp, entry.call_id_hash, entry.uri_hash) =
                    (before.stamp, before.call_id_hash, before.uri_hash);
            }
            record.entries.push(entry);
        }
        record
    })
}

/// What a look-up sees of a contact.
type Seen = (Stamp, Vec<u8>, Option<u16>, Vec<u8>, Vec<Vec<u8>>);

fn seen(stamp: Stamp, binding: &Binding) -> Seen {
    let path = binding.path().map(<[u8]>::to_vec).collect();
    (stamp, binding.uri().to_vec(), binding.q, binding.params().to_vec(), path)
}

fn seen_in_place(contact: &Contact<'_>) -> Seen {
    let path = contact.path().map(<[u8]>::to_vec).collect();
    (contact.stamp(), contact.uri().to_vec(), contact.q(), contact.params().to_vec(), path)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_packed_comes_back_whether_its_texts_are_words_or_not(
        records in prop::collection::vec((records(), select(vec!["alice@example.com", "a@b@c", "bob", "@", "\u{e9}@x"])), 1..4),
    ) {
        let (words, mut scratch) = (Words::new([0; 16]), Scratch::default());
        let mut packed: Vec<Packed> = Vec::new();
        for round in 0..4 {
            for (at, (record, aor)) in records.iter().enumerate() {
                scratch.record = record.clone();
                match packed.get_mut(at) {
                    Some(packed) => scratch.pack_again(&words, aor, packed),
                    None => packed.push(scratch.pack(&words, aor, 0)),
                }
            }
            for (packed, (record, aor)) in packed.iter_mut().zip(&records) {
                packed.read_all(&words, &mut scratch);
                prop_assert_eq!(&scratch.record, record);
                prop_assert_eq!(&scratch.aor, aor);
                for (now_us, contacts_max) in [(0, usize::MAX), (0, 1), (1_700_003_000_000_000, usize::MAX)] {
                    let shown = record.shown(now_us, contacts_max);
                    let shown: Vec<_> = shown.iter().filter_map(|entry| Some(seen(entry.stamp, entry.binding()?))).collect();
                    let view = packed.view(&words);
                    let viewed = view.shown(now_us, contacts_max);
                    prop_assert_eq!(viewed.iter().map(|contact| seen_in_place(contact)).collect::<Vec<_>>(), shown);
                }
                prop_assert!(packed.is_of(&words, aor) && !packed.is_of(&words, "alice@example.org"));
                let others = [[aor, "x"].concat(), ["x", aor].concat()];
                prop_assert!(others.iter().all(|other| !packed.is_of(&words, other)));
                packed.read(&words, &mut scratch);
                prop_assert_eq!(&scratch.record, record);
                prop_assert_eq!((packed.unsaved == Unsaved::Awaited, packed.turn), (round > 0, 7 * u8::from(round > 0)));
                packed.unsaved = Unsaved::Awaited;
                packed.turn = 7;
            }
        }
    }
}

/// What a later REGISTER of the last contact says: when, its numbers, at which node and from where.
#[derive(Debug, Clone)]
struct Later {
    stamp: Stamp,
    call_id_hash: u64,
    cseq: u32,
    granted_s: u32,
    q: Option<u16>,
    node: &'static str,
    source: Vec<u8>,
    /// Another text in place of one of those that such a REGISTER repeats, and of which.
    other: Option<(Vec<u8>, usize)>,
}

impl Later {
    fn of(&self, record: &Record) -> Option<Record> {
        let last = record.entries.last()?;
        let before = last.binding()?;
        let other = |nth: usize| self.other.as_ref().filter(|(_, at)| *at == nth).map(|(text, _)| text.as_slice());
        let path: Vec<&[u8]> = before.path().chain(other(4)).collect();
        let binding = Binding::from(&BindingParts {
            first: if self.cseq.is_multiple_of(2) { self.stamp } else { before.first },
            granted_s: self.granted_s,
            uri: other(0).unwrap_or(before.uri()),
            params: other(1).unwrap_or(before.params()),
            q: self.q,
            path: &path,
            call_id: other(2).unwrap_or(before.call_id()),
            user_agent: other(3).unwrap_or(before.user_agent()),
            source: &self.source,
            accepted_by: &NodeId::new(self.node).expect("a node id"),
        });
        let Self { stamp, call_id_hash, cseq, .. } = *self;
        let key = other(5).map_or(last.key.clone(), ContactKey::from_bytes);
        let uri_hash = last.uri_hash ^ u64::from(other(6).is_some());
        let value = Value::Live(Arc::new(binding));
        Some(Record::from(Entry { key, stamp, call_id_hash, cseq, uri_hash, value }))
    }
}

fn refreshes() -> impl Strategy<Value = Later> {
    let call_id_hash = prop_oneof![any::<u64>(), 0_u64..2];
    let numbers = (stamps(), call_id_hash, any::<u32>(), any::<u32>(), prop::option::of(any::<u16>()));
    let other = prop::option::weighted(0.3, (texts(), 0_usize..7));
    (numbers, select(vec!["n1", "n2"]), texts(), other).prop_map(|(numbers, node, source, other)| {
        let (stamp, call_id_hash, cseq, granted_s, q) = numbers;
        Later { stamp, call_id_hash, cseq, granted_s, q, node, source, other }
    })
}

/// What a refresh may not change.
fn says(record: &Record) -> Option<impl PartialEq> {
    let entry = record.entries.last()?;
    let told = entry.binding()?.told();
    let texts = [told.uri, told.params, told.call_id, told.user_agent].map(<[u8]>::to_vec);
    let path: Vec<Vec<u8>> = told.path.iter().map(|value| value.to_vec()).collect();
    Some((entry.key.clone(), entry.uri_hash, texts, path))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_refreshed_reads_as_if_it_had_been_merged(
        record in records(),
        refreshes in prop::collection::vec((refreshes(), prop::option::weighted(0.2, stamps())), 1..5),
    ) {
        let (words, mut scratch) = (Words::new([0; 16]), Scratch::default());
        // What is merged is in normal form.
        let mut record = { let mut normal = Record::EMPTY; normal.merge(&record); normal };
        scratch.record = record.clone();
        let mut packed = scratch.pack(&words, "alice@example.com", 0);
        packed.turn = 7;
        for (later, floor) in refreshes {
            let Some(delta) = later.of(&record) else { break };
            let (before, floor_us) = (record.clone(), floor.map_or(0, |floor| floor.time_us));
            let refresh = Refresh::of(&delta).expect("one contact");
            let refreshed = scratch.refresh(&words, &mut packed, &refresh, floor_us);
            let last = before.entries.last().map(|entry| entry.stamp);
            let expected = before.oldest().is_some_and(|oldest| oldest.time_us > floor_us)
                && last < Some(later.stamp)
                && before.cleared.is_none_or(|cleared| cleared.stamp <= later.stamp)
                && says(&before) == says(&delta);
            prop_assert_eq!(refreshed, last.filter(|_| expected));
            if expected {
                record.merge(&delta);
            }
            packed.read_all(&words, &mut scratch);
            prop_assert_eq!((&scratch.record, scratch.aor.as_str()), (&record, "alice@example.com"));
            prop_assert_eq!(packed.turn, 7);
        }
    }
}

/// A flow and its trail as a desk phone behind an SBC leaves them; `refreshed_us` after it registered.
fn desk_phone(phone: u32, refreshed_us: u64) -> (Aor, Record) {
    let stamp = |time_us: u64| Stamp {
        time_us: 1_700_000_000_000_000 + time_us,
        counter: 0,
        boot: BootId(0x1234_5678_9abc_def0),
    };
    let instance = format!("<urn:uuid:f81d4fae-7dec-11d0-a765-0000{phone:08x}>");
    let address = format!("10.{}.{}.{}", 100 + phone / 10_000 % 100, 100 + phone / 100 % 100, 100 + phone % 100);
    let uri = format!("sip:{}@{address}:10000;transport=udp", 10_000_000 + phone);
    let call_id = format!("4b1f7c9a-{phone:08x}-88d2-60f8c0a1e5b7@{address}");
    let (first, uri_hash) = (stamp(u64::from(phone)), binding::uri_hash(uri.as_bytes()));
    let trail = Entry {
        key: ContactKey::trail(uri_hash),
        stamp: first,
        call_id_hash: binding::call_id_hash(call_id.as_bytes()),
        cseq: 100_000_000,
        uri_hash,
        value: Value::Gone,
    };
    let binding = Binding::from(&BindingParts {
        first,
        granted_s: 3600,
        uri: uri.as_bytes(),
        params: format!(";+sip.instance=\"{instance}\";reg-id=1").as_bytes(),
        q: None,
        path: &[b"<sip:sbc1@192.0.2.25:5060;lr;ob>"],
        call_id: call_id.as_bytes(),
        user_agent: format!("Yealink SIP-T4{}U 108.86.0.90", phone % 10).as_bytes(),
        source: b"udp:192.0.2.25:5060",
        accepted_by: &NodeId::new("node1").expect("a node id"),
    });
    let flow = Entry {
        key: ContactKey::instance(instance.as_bytes(), 1),
        stamp: stamp(u64::from(phone) + refreshed_us),
        cseq: 100_000_000 + u32::from(refreshed_us > 0),
        value: Value::Live(Arc::new(binding)),
        ..trail.clone()
    };
    let aor = Aor::from_canonical(&format!("{}@example.com", 10_000_000 + phone));
    (aor, Record { cleared: None, entries: vec![trail, flow] })
}

#[test]
fn a_contact_takes_less_than_two_hundred_bytes_and_a_removal_a_few_dozen() {
    let (words, mut scratch) = (Words::new([0; 16]), Scratch::default());
    let bytes = |scratch: &mut Scratch, (aor, record): (Aor, Record)| {
        scratch.record = record;
        scratch.pack(&words, aor.as_str(), 0).told.len()
    };
    let gone = |phone: u32| {
        let (aor, mut record) = desk_phone(phone, 1_800_000_000);
        record.slim(u64::MAX, |_| {});
        (aor, record)
    };
    for phone in 0..100 {
        bytes(&mut scratch, desk_phone(phone, 0));
        bytes(&mut scratch, gone(phone));
    }
    let new = bytes(&mut scratch, desk_phone(1000, 0));
    let refreshed = bytes(&mut scratch, desk_phone(1000, 1_800_000_000));
    let gone = bytes(&mut scratch, gone(1000));
    assert!(new <= 176 && refreshed <= 192 && gone <= 80, "{new}, {refreshed}, {gone} bytes");
}
