//! How copies become one: whatever the order, the pieces and the repetitions.

use aorta_proto::{Cleared, ContactKey, Entry, Record};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::samples::{
    SECOND_US, URIS, any_record, deltas, entry_of, honest_entries, keys, merged, remembered, rogue_entries, slimmed,
    stamps, sum_of,
};

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

    #[test]
    fn a_clear_buries_the_same_whenever_it_comes(
        entries in prop::collection::vec(any_record(), 0..6), clear in stamps(), at in any::<Index>(),
    ) {
        let star = Record { cleared: Some(Cleared { stamp: clear, call_id_hash: 1, cseq: 1 }), entries: Vec::new() };
        let last = merged(entries.iter().chain([&star]));
        let (before, after) = entries.split_at(at.index(entries.len() + 1));
        prop_assert_eq!(merged(before.iter().chain([&star]).chain(after)), last.clone());
        for entry in last.entries.iter().filter(|entry| entry.stamp < clear) {
            prop_assert!(entry.binding().is_none());
        }
    }

    #[test]
    fn what_is_stored_published_again_changes_nobody_who_has_it(a in any_record(), b in any_record(), c in any_record()) {
        let (stored, whole) = (merged([&a, &b]), merged([&a, &b, &c]));
        let cleared = stored.cleared.map(|cleared| Record { cleared: Some(cleared), entries: Vec::new() });
        for part in stored.entries.iter().cloned().map(Record::from).chain(cleared) {
            let again = whole.clone().merge(&part);
            prop_assert!(!again.changed, "a node that heard all of it");
            prop_assert_eq!(merged([&part, &c, &b, &a]), whole.clone(), "a node that hears the repetition first");
        }
    }

    #[test]
    fn pieces_of_many_records_in_any_order_and_repetition_make_the_whole(
        records in prop::collection::vec(any_record(), 1..8), bytes_max in 0_usize..500,
        picks in prop::collection::vec(any::<Index>(), 0..40),
    ) {
        let pieces: Vec<Record> = records.iter().flat_map(|record| record.clone().split(bytes_max)).collect();
        let again = picks.iter().filter(|_| !pieces.is_empty()).map(|pick| pick.get(&pieces));
        prop_assert_eq!(merged(again.chain(pieces.iter().rev())), merged(&records));
    }

    #[test]
    fn sums_are_equal_when_the_stamps_are_and_differ_when_one_does(a in any_record(), b in any_record()) {
        let stamps = |record: &Record| {
            let keyed = record.entries.iter().map(|entry| (entry.key.clone(), entry.stamp)).collect::<Vec<_>>();
            (record.cleared.map(|cleared| cleared.stamp), keyed)
        };
        prop_assert_eq!(sum_of(&a) == sum_of(&b), stamps(&a) == stamps(&b));
    }

    #[test]
    fn a_machine_made_stamp_lies_between_what_it_judges_and_the_next_microsecond(judged in stamps(), drawn in stamps()) {
        let made = judged.machine_made();
        prop_assert!(judged < made || judged.counter == 1, "drawn stamps have even counters");
        prop_assert_eq!(made.machine_made(), made);
        if drawn.time_us > judged.time_us {
            prop_assert!(drawn > made);
        }
    }
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The order of one key's entries, seen through merges of two: no three writes beat each other in a circle.
    #[test]
    fn of_one_key_no_three_beat_each_other_in_a_circle(
        (key, _) in keys(), rogues in prop::collection::vec(rogue_entries(), 3), seconds in select(&[20_u64, 21, 22][..]),
    ) {
        let mut entries: Vec<Entry> = rogues;
        entries.push(entry_of(key.clone(), seconds, Some(1)));
        let records: Vec<Record> = entries.into_iter().map(|entry| Entry { key: key.clone(), ..entry }.into()).collect();
        let beats = |one: &Record, two: &Record| one != two && merged([one, two]) == *one;
        for one in &records {
            for two in &records {
                prop_assert!(one == two || beats(one, two) != beats(two, one), "one of two wins");
                for three in &records {
                    prop_assert!(!(beats(one, two) && beats(two, three) && beats(three, one)));
                }
            }
        }
    }
}
