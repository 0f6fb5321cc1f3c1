//! What the laws are tried on: stamps, keys and values of a handful each, so that they meet often. Tries nothing itself.

use std::sync::Arc;

use aorta_proto::stamp::BootId;
use aorta_proto::{Binding, BindingParts, Cleared, ContactKey, Digester, Entry, NodeId, Record, Stamp, Value, binding};
use proptest::prelude::*;
use proptest::sample::select;

/// Times, lifetimes, keys and URIs come from a handful each, so that they meet often.
pub(crate) const SECOND_US: u64 = 1_000_000;
pub(crate) const URIS: [&[u8]; 3] = [b"sip:a@192.0.2.1", b"sip:a@192.0.2.2", b"sip:b@[2001:db8::1]:5070"];

pub(crate) fn stamps() -> impl Strategy<Value = Stamp> {
    (1_u64..40, 0_u32..2, 1_u64..3).prop_map(|(seconds, counter, boot)| Stamp {
        time_us: seconds * SECOND_US,
        counter,
        boot: BootId(boot),
    })
}

pub(crate) fn keys() -> impl Strategy<Value = (ContactKey, u64)> {
    let uris = || select(&URIS[..]);
    prop_oneof![
        uris().prop_map(|uri| (ContactKey::uri(uri), binding::uri_hash(uri))),
        (0_u32..2, uris()).prop_map(|(reg_id, uri)| (ContactKey::instance(b"urn:x", reg_id), binding::uri_hash(uri))),
    ]
}

pub(crate) fn value_of(stamp: Stamp, granted_s: u32) -> Value {
    Value::Live(Arc::new(Binding::from(&BindingParts {
        // The later the lapse, the earlier the first registration: an order of values that begins with either one differs.
        first: Stamp { time_us: stamp.time_us.saturating_sub(u64::from(granted_s)), ..stamp },
        granted_s,
        uri: b"sip:a@192.0.2.1",
        params: b";q=0.5",
        q: Some(500),
        path: &[&b"<sip:edge;lr>"[..]],
        call_id: b"c",
        user_agent: b"phone",
        source: b"udp:192.0.2.1:5060",
        accepted_by: &NodeId::new("n1").expect("a node id"),
    })))
}

/// What one stamp writes is a function of the stamp, as in a correct cluster.
pub(crate) fn honest_entries() -> impl Strategy<Value = Entry> {
    (keys(), stamps()).prop_map(|((key, uri_hash), stamp)| {
        let seconds = stamp.time_us / SECOND_US;
        let live = !seconds.is_multiple_of(3) && stamp.counter == 0;
        let value = if live { value_of(stamp, 1 + (seconds % 17) as u32) } else { Value::Gone };
        // An instance may move to another URI between two REGISTERs, but not within one.
        let moved = binding::uri_hash(URIS[seconds as usize % URIS.len()]);
        let uri_hash = if key.is_instance() { moved } else { uri_hash };
        Entry { key, stamp, call_id_hash: seconds, cseq: stamp.counter, uri_hash, value }
    })
}

/// Anything at all under the same few stamps: what a bug or a cloned boot id would make.
pub(crate) fn rogue_entries() -> impl Strategy<Value = Entry> {
    let few = (20_u64..22).prop_map(stamp_at);
    (keys(), few, 0_u32..4, 0_u64..2, any::<bool>()).prop_map(
        |((key, uri_hash), stamp, granted_s, call_id_hash, live)| {
            let value = if live { value_of(stamp, granted_s) } else { Value::Gone };
            Entry { key, stamp, call_id_hash, cseq: 1, uri_hash, value }
        },
    )
}

pub(crate) fn cleareds() -> impl Strategy<Value = Option<Cleared>> {
    let cleared = |stamp: Stamp| Cleared { stamp, call_id_hash: stamp.time_us, cseq: stamp.counter };
    prop::option::weighted(0.3, stamps().prop_map(cleared))
}

pub(crate) fn deltas(entries: impl Strategy<Value = Entry>) -> impl Strategy<Value = Record> {
    (cleareds(), prop::collection::vec(entries, 0..4))
        .prop_map(|(cleared, entries)| merged([&Record { cleared, entries }]))
}

pub(crate) fn any_record() -> impl Strategy<Value = Record> {
    prop_oneof![deltas(honest_entries()), deltas(rogue_entries())]
}

pub(crate) fn merged<'a>(parts: impl IntoIterator<Item = &'a Record>) -> Record {
    parts.into_iter().fold(Record::EMPTY, |mut sum, part| {
        sum.merge(part);
        sum
    })
}

pub(crate) fn sum_of(record: &Record) -> u128 {
    let digester = Digester::new([7; 16]);
    let aor = digester.aor(&aorta_proto::Aor::from_canonical("a@example.com"));
    let cleared = record.cleared.map_or(0, |cleared| digester.term(aor, None, cleared.stamp));
    let term = |entry: &Entry| digester.term(aor, Some(&entry.key), entry.stamp);
    record.entries.iter().map(term).fold(cleared, u128::wrapping_add)
}

pub(crate) fn slimmed(record: &Record, lapsed_us: u64) -> Record {
    let mut slim = record.clone();
    slim.slim(lapsed_us, |_| {});
    slim
}

pub(crate) fn forgotten(record: &Record, floor_us: u64) -> Record {
    let mut left = record.clone();
    left.forget(floor_us, |_| {});
    left
}

pub(crate) fn live_keys(record: &Record, now_us: u64) -> Vec<(ContactKey, Stamp)> {
    record.live(now_us).map(|entry| (entry.key.clone(), entry.stamp)).collect()
}

pub(crate) fn remembered(entry: &Entry) -> (Stamp, u64, u32, u64) {
    (entry.stamp, entry.call_id_hash, entry.cseq, entry.uri_hash)
}

pub(crate) fn stamp_at(seconds: u64) -> Stamp {
    Stamp { time_us: seconds * SECOND_US, counter: 0, boot: BootId(1) }
}

pub(crate) fn entry_of(key: ContactKey, seconds: u64, granted_s: Option<u32>) -> Entry {
    let value = granted_s.map_or(Value::Gone, |granted_s| value_of(stamp_at(seconds), granted_s));
    let uri_hash = binding::uri_hash(URIS[0]);
    Entry { key, stamp: stamp_at(seconds), call_id_hash: 1, cseq: 1, uri_hash, value }
}
