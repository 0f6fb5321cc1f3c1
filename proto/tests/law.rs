//! The merge law, as properties: in whatever order, pieces and repetitions copies of a record meet, they become one.

use std::sync::Arc;

use aorta_proto::stamp::BootId;
use aorta_proto::{Binding, Cleared, ContactKey, Digester, Entry, NodeId, Record, Stamp, Value, binding};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Times, lifetimes, keys and URIs come from a handful each, so that they meet often.
const SECOND_US: u64 = 1_000_000;
const URIS: [&[u8]; 3] = [b"sip:a@192.0.2.1", b"sip:a@192.0.2.2", b"sip:b@[2001:db8::1]:5070"];

fn stamps() -> impl Strategy<Value = Stamp> {
    (1_u64..40, 0_u32..2, 1_u64..3).prop_map(|(seconds, counter, boot)| Stamp {
        time_us: seconds * SECOND_US,
        counter,
        boot: BootId(boot),
    })
}

fn keys() -> impl Strategy<Value = (ContactKey, u64)> {
    let uris = || select(&URIS[..]);
    prop_oneof![
        uris().prop_map(|uri| (ContactKey::uri(uri), binding::uri_hash(uri))),
        (0_u32..2, uris()).prop_map(|(reg_id, uri)| (ContactKey::instance(b"urn:x", reg_id), binding::uri_hash(uri))),
    ]
}

fn value_of(stamp: Stamp, granted_s: u32) -> Value {
    Value::Live(Arc::new(Binding {
        // The later the lapse, the earlier the first registration: an order of values that begins with either one differs.
        first: Stamp { time_us: stamp.time_us.saturating_sub(u64::from(granted_s)), ..stamp },
        granted_s,
        uri: "sip:a@192.0.2.1".into(),
        params: ";q=0.5".into(),
        q: Some(500),
        path: vec!["<sip:edge;lr>".into()],
        call_id: "c".into(),
        user_agent: "phone".into(),
        source: "udp:192.0.2.1:5060".into(),
        accepted_by: NodeId::new("n1").expect("a node id"),
    }))
}

/// What one stamp writes is a function of the stamp, as in a correct cluster.
fn honest_entries() -> impl Strategy<Value = Entry> {
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
fn rogue_entries() -> impl Strategy<Value = Entry> {
    let few = (20_u64..22).prop_map(stamp_at);
    (keys(), few, 0_u32..4, 0_u64..2, any::<bool>()).prop_map(
        |((key, uri_hash), stamp, granted_s, call_id_hash, live)| {
            let value = if live { value_of(stamp, granted_s) } else { Value::Gone };
            Entry { key, stamp, call_id_hash, cseq: 1, uri_hash, value }
        },
    )
}

fn cleareds() -> impl Strategy<Value = Option<Cleared>> {
    let cleared = |stamp: Stamp| Cleared { stamp, call_id_hash: stamp.time_us, cseq: stamp.counter };
    prop::option::weighted(0.3, stamps().prop_map(cleared))
}

fn deltas(entries: impl Strategy<Value = Entry>) -> impl Strategy<Value = Record> {
    (cleareds(), prop::collection::vec(entries, 0..4))
        .prop_map(|(cleared, entries)| merged([&Record { cleared, entries }]))
}

fn any_record() -> impl Strategy<Value = Record> {
    prop_oneof![deltas(honest_entries()), deltas(rogue_entries())]
}

fn merged<'a>(parts: impl IntoIterator<Item = &'a Record>) -> Record {
    parts.into_iter().fold(Record::EMPTY, |mut sum, part| {
        sum.merge(part);
        sum
    })
}

fn sum_of(record: &Record) -> u128 {
    let digester = Digester::new([7; 16]);
    let aor = digester.aor(&aorta_proto::Aor::from_canonical("a@example.com"));
    let cleared = record.cleared.map_or(0, |cleared| digester.term(aor, None, cleared.stamp));
    let term = |entry: &Entry| digester.term(aor, Some(&entry.key), entry.stamp);
    record.entries.iter().map(term).fold(cleared, u128::wrapping_add)
}

fn slimmed(record: &Record, lapsed_us: u64) -> Record {
    let mut slim = record.clone();
    slim.slim(lapsed_us, |_| {});
    slim
}

fn forgotten(record: &Record, floor_us: u64) -> Record {
    let mut left = record.clone();
    left.forget(floor_us, |_| {});
    left
}

fn live_keys(record: &Record, now_us: u64) -> Vec<(ContactKey, Stamp)> {
    record.live(now_us).map(|entry| (entry.key.clone(), entry.stamp)).collect()
}

fn remembered(entry: &Entry) -> (Stamp, u64, u32, u64) {
    (entry.stamp, entry.call_id_hash, entry.cseq, entry.uri_hash)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn merge_is_commutative_associative_and_idempotent(a in any_record(), b in any_record(), c in any_record()) {
        prop_assert_eq!(merged([&a, &b]), merged([&b, &a]));
        prop_assert_eq!(merged([&merged([&a, &b]), &c]), merged([&a, &merged([&b, &c])]));
        prop_assert_eq!(merged([&a, &a]), a.clone());
        let mut again = merged([&a, &b]);
        prop_assert!(!again.merge(&a).changed && !again.merge(&b).changed);
    }

    #[test]
    fn merge_only_rises_and_says_whether_it_did(a in any_record(), b in any_record()) {
        let both = merged([&a, &b]);
        prop_assert!(both.cleared >= a.cleared);
        for entry in &a.entries {
            prop_assert!(both.entry(&entry.key).is_some_and(|after| after.stamp >= entry.stamp));
        }
        prop_assert_eq!(a.clone().merge(&b).changed, both != a);
    }

    #[test]
    fn any_order_and_repetition_gives_one_record_and_one_digest(
        deltas in prop::collection::vec(any_record(), 1..12),
        picks in prop::collection::vec(any::<Index>(), 0..40),
    ) {
        let straight = merged(&deltas);
        let shuffled = merged(picks.iter().map(|pick| pick.get(&deltas)).chain(deltas.iter().rev()));
        prop_assert_eq!(&shuffled, &straight);
        prop_assert_eq!(sum_of(&shuffled), sum_of(&straight));
    }

    #[test]
    fn a_conflict_is_one_stamp_with_two_values(mut a in deltas(honest_entries()), mut b in deltas(rogue_entries())) {
        prop_assert!(!a.clone().merge(&slimmed(&a, 20 * SECOND_US)).conflict, "a slimmed copy is the same entry");
        // Under `cleared` one value may be gone before the two meet.
        a.cleared = None;
        b.cleared = None;
        let differ = |theirs: &Entry, mine: &Entry| {
            let values = mine.binding().zip(theirs.binding()).is_some_and(|(mine, theirs)| mine != theirs);
            mine.stamp == theirs.stamp && (values || remembered(mine) != remembered(theirs))
        };
        let expected = b.entries.iter().any(|theirs| a.entry(&theirs.key).is_some_and(|mine| differ(theirs, mine)));
        prop_assert_eq!(a.merge(&b).conflict, expected);
    }

    #[test]
    fn slimming_before_or_after_a_merge_is_the_same(a in any_record(), b in any_record(), at in 10_u64..40) {
        let lapsed_us = at * SECOND_US;
        let whole = merged([&a, &b]);
        let after = slimmed(&whole, lapsed_us);
        prop_assert_eq!(&slimmed(&merged([&slimmed(&a, lapsed_us), &b]), lapsed_us), &after);
        prop_assert_eq!(&slimmed(&merged([&slimmed(&a, lapsed_us), &slimmed(&b, lapsed_us)]), lapsed_us), &after);
        prop_assert_eq!(sum_of(&after), sum_of(&whole));
        for now_us in [lapsed_us, lapsed_us + SECOND_US] {
            prop_assert_eq!(live_keys(&after, now_us), live_keys(&whole, now_us));
        }
    }

    #[test]
    fn forgetting_before_or_after_a_merge_is_the_same(a in any_record(), b in any_record(), at in 0_u64..50) {
        let floor_us = at * SECOND_US;
        let after = forgotten(&merged([&a, &b]), floor_us);
        prop_assert_eq!(&merged([&forgotten(&a, floor_us), &forgotten(&b, floor_us)]), &after);
        prop_assert_eq!(&forgotten(&merged([&forgotten(&a, floor_us), &b]), floor_us), &after);
        prop_assert!(after.oldest().is_none_or(|stamp| stamp.time_us > floor_us));
    }

    #[test]
    fn a_clear_covers_what_was_never_seen(clear in stamps(), late in deltas(honest_entries())) {
        let cleared = Some(Cleared { stamp: clear, call_id_hash: 1, cseq: 1 });
        let record = merged([&Record { cleared, entries: Vec::new() }, &late]);
        for entry in record.live(0) {
            prop_assert!(entry.stamp >= clear);
        }
        for entry in &late.entries {
            prop_assert_eq!(record.entry(&entry.key).map(remembered), Some(remembered(entry)));
        }
    }

    #[test]
    fn of_one_phone_only_the_latest_word_counts(a in any_record(), b in any_record(), now in 0_u64..50) {
        let now_us = now * SECOND_US;
        let record = merged([&a, &b]);
        prop_assert_eq!(live_keys(&record, now_us), live_keys(&merged([&b, &a]), now_us));
        let shown = |entry: &Entry| {
            let later = |other: &&Entry| {
                other.uri_hash == entry.uri_hash
                    && other.key.is_instance() != entry.key.is_instance()
                    && other.stamp > entry.stamp
            };
            !record.entries.iter().any(|other| later(&other)) && entry.lapses_us().is_some_and(|at| at > now_us)
        };
        let expected: Vec<&Entry> = record.entries.iter().filter(|entry| shown(entry)).collect();
        prop_assert_eq!(record.live(now_us).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_limit_shows_those_that_registered_first(
        a in any_record(), b in any_record(), now in 0_u64..50, max in 0_usize..4,
    ) {
        let record = merged([&a, &b]);
        let all = record.shown(now * SECOND_US, usize::MAX);
        prop_assert_eq!(all.len(), record.live(now * SECOND_US).count());
        prop_assert!(all.is_sorted_by_key(|entry| (entry.binding().map(|binding| binding.first), &entry.key)));
        let some = record.shown(now * SECOND_US, max);
        prop_assert_eq!(&some[..], &all[..max.min(all.len())]);
    }

    #[test]
    fn pieces_fit_and_make_the_whole(records in prop::collection::vec(any_record(), 1..8), bytes_max in 0_usize..2000) {
        let record = merged(&records);
        let pieces = record.clone().split(bytes_max);
        prop_assert_eq!(merged(pieces.iter().rev()), record);
        for piece in &pieces {
            let one_thing = piece.entries.len() + usize::from(piece.cleared.is_some()) == 1;
            prop_assert!(!piece.is_empty() && (piece.encoded_bytes_max() <= bytes_max || one_thing));
        }
    }

    #[test]
    fn the_codec_keeps_a_record_and_its_size_is_bounded(record in any_record(), turn in any::<Index>()) {
        let codec = bincode::config::standard().with_limit::<65_536>();
        let bytes = bincode::serde::encode_to_vec(&record, codec).unwrap();
        prop_assert!(bytes.len() <= record.encoded_bytes_max());
        let (back, used): (Record, usize) = bincode::serde::decode_from_slice(&bytes, codec).unwrap();
        prop_assert_eq!((&back, used), (&record, bytes.len()));
        // A peer may send entries in any order, and twice.
        let mut messy = record.clone();
        if let Some(double) = messy.entries.first().cloned() {
            messy.entries.push(double);
            let at = turn.index(messy.entries.len());
            messy.entries.rotate_left(at);
        }
        let bytes = bincode::serde::encode_to_vec(&messy, codec).unwrap();
        let (back, _): (Record, usize) = bincode::serde::decode_from_slice(&bytes, codec).unwrap();
        prop_assert_eq!(back, record);
    }
}

fn stamp_at(seconds: u64) -> Stamp {
    Stamp { time_us: seconds * SECOND_US, counter: 0, boot: BootId(1) }
}

fn entry_of(key: ContactKey, seconds: u64, granted_s: Option<u32>) -> Entry {
    let value = granted_s.map_or(Value::Gone, |granted_s| value_of(stamp_at(seconds), granted_s));
    let uri_hash = binding::uri_hash(URIS[0]);
    Entry { key, stamp: stamp_at(seconds), call_id_hash: 1, cseq: 1, uri_hash, value }
}

#[test]
fn a_removal_by_uri_hides_an_earlier_instance_and_is_hidden_by_a_later_one() {
    let (instance, uri) = (ContactKey::instance(b"urn:x", 1), ContactKey::uri(URIS[0]));
    let registered = Record::from(entry_of(instance.clone(), 10, Some(3600)));
    let removed = Record::from(entry_of(uri, 20, None));
    let again = Record::from(entry_of(instance, 30, Some(3600)));
    let live = |parts: &[&Record]| merged(parts.iter().copied()).live(31 * SECOND_US).count();
    assert_eq!(live(&[&registered]), 1);
    assert_eq!(live(&[&registered, &removed]), 0);
    assert_eq!(live(&[&registered, &removed, &again]), 1);
}

#[test]
fn a_machine_made_removal_loses_against_any_newer_write() {
    let key = ContactKey::uri(URIS[0]);
    let judged = entry_of(key.clone(), 10, Some(60));
    let removal = Record::from(judged.gone_at(judged.stamp.machine_made()));
    let refreshed = Record::from(entry_of(key, 11, Some(60)));
    assert_eq!(merged([&removal, &judged.clone().into()]).live(12 * SECOND_US).count(), 0);
    assert_eq!(merged([&removal, &refreshed]).live(12 * SECOND_US).count(), 1);
}

#[test]
fn of_two_values_under_one_stamp_the_later_lapse_wins_slimmed_or_not() {
    let key = ContactKey::uri(URIS[0]);
    let short = Record::from(entry_of(key.clone(), 10, Some(5)));
    let long = Record::from(entry_of(key, 10, Some(50)));
    assert_eq!(merged([&short, &long]), long);
    assert_eq!(merged([&slimmed(&short, 20 * SECOND_US), &long]), long);
    assert!(short.clone().merge(&long).conflict);
}

#[test]
fn lapsing_is_exact() {
    let record = Record::from(entry_of(ContactKey::uri(URIS[0]), 10, Some(60)));
    assert_eq!(record.live(70 * SECOND_US - 1).count(), 1);
    assert_eq!(record.live(70 * SECOND_US).count(), 0);
    assert_eq!(slimmed(&record, 70 * SECOND_US - 1), record);
    assert_eq!(slimmed(&record, 70 * SECOND_US).entries[0].value, Value::Gone);
}

#[test]
fn the_floor_moves_in_steps_and_keeps_every_lifetime() {
    use aorta_proto::record::{FLOOR_STEP_US, floor_us, horizon_us};
    let horizon = horizon_us(3600, 3600);
    assert_eq!(horizon, 7260 * SECOND_US);
    let now_us = 1_700_000_000_123_456;
    assert_eq!(floor_us(now_us, horizon) % FLOOR_STEP_US, 0);
    assert!((horizon..horizon + FLOOR_STEP_US).contains(&(now_us - floor_us(now_us, horizon))));
    assert_eq!(floor_us(5, horizon), 0);
}
