//! What a reader sees of a copy: a function of the merged record and the time.

use std::cmp::Reverse;

use aorta_proto::{Cleared, ContactKey, Entry, Record};
use proptest::prelude::*;

use crate::samples::{
    SECOND_US, URIS, any_record, deltas, entry_of, honest_entries, live_keys, merged, remembered, stamps,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

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
        let place = |entry: &&Entry| (entry.binding().map(|binding| binding.first), Reverse(entry.stamp), entry.key.clone());
        prop_assert!(all.is_sorted_by_key(place));
        let some = record.shown(now * SECOND_US, max);
        prop_assert_eq!(&some[..], &all[..max.min(all.len())]);
    }
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
