//! What is carried in parcels is what merging it record by record would have given, whatever was known there.

use super::super::packed::row;
use super::harm::{harm, harms};
use super::*;

/// All of a table, in parcels of about so many bytes, and what was too large for them.
fn parcels(location: &Location, bytes_max: usize) -> (Vec<Vec<u8>>, Vec<(Aor, Record)>) {
    let (mut parcel, mut parcels, mut large) = (Parcel::default(), Vec::new(), Vec::new());
    for bucket in 0..BUCKETS {
        location.pack_bucket(bucket, &mut parcel);
        while !parcel.is_empty() {
            let mut out = b"before".to_vec();
            location.take_parcel(&mut parcel, bytes_max, &mut out, |aor, record| {
                large.push((Aor::from_canonical(aor), record.clone()));
            });
            assert!(out.starts_with(b"before") && out.len() <= b"before".len() + bytes_max);
            let parcel = out.split_off(b"before".len());
            parcels.extend((!parcel.is_empty()).then_some(parcel));
        }
    }
    (parcels, large)
}

fn table(records: &[(usize, Record)]) -> Location {
    let location = Location::new(KEY, true);
    for (name, record) in records {
        location.apply(&aor(*name), record.clone());
    }
    location
}

fn named() -> impl Strategy<Value = Vec<(usize, Record)>> {
    prop::collection::vec((0_usize..12, records()), 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_parcel_is_merged_as_its_records_are(
        theirs in named(), mine in named(), bytes_max in prop_oneof![Just(64 << 10), 100_usize..2000], floor in 0_u64..40,
        swept in 0_u64..100,
    ) {
        let (donor, carried, merged) = (table(&theirs), table(&mine), table(&mine));
        for location in [&carried, &merged] {
            location.set_floor(stamp(floor).time_us);
        }
        donor.sweep(at(swept), BUCKETS);
        let (parcels, large) = parcels(&donor, bytes_max);
        prop_assert_eq!(parcels.is_empty() && large.is_empty(), dump(&donor).is_empty());
        for parcel in &parcels {
            prop_assert!(carried.apply_parcel(parcel, |_| true).is_some());
        }
        for (aor, record) in large {
            carried.apply(&aor, record);
        }
        for (aor, record) in dump(&donor) {
            merged.apply(&aor, record);
        }
        prop_assert_eq!(dump(&carried), dump(&merged));
        let (sum, counts) = recounted(&carried);
        prop_assert_eq!((carried.root(), merged.root()), (sum, sum));
        prop_assert_eq!(carried.counts(), Counts { dirty: merged.counts().dirty, ..counts });
        let horizon_us = |location: &Location| location.horizon_us(0, 0, at(60).cluster_us);
        prop_assert_eq!(horizon_us(&carried), horizon_us(&merged));
        let changed = |location: &Location| {
            let tags = location.take_dirty();
            tags.iter().flat_map(|tag| location.take_records(*tag)).collect::<BTreeMap<_, _>>()
        };
        prop_assert_eq!(changed(&carried), changed(&merged));
        // What lapses and what is forgotten later is found in both.
        for location in [&carried, &merged] {
            location.set_floor(stamp(floor + 20).time_us);
        }
        prop_assert_eq!(carried.sweep(at(swept), BUCKETS), merged.sweep(at(swept), BUCKETS));
        prop_assert_eq!(dump(&carried), dump(&merged));
        prop_assert_eq!(carried.counts(), Counts { dirty: merged.counts().dirty, ..recounted(&carried).1 });
    }

    #[test]
    fn whatever_comes_as_a_parcel_the_table_is_in_order(mine in named(), harms in harms()) {
        let donor = filled(0..6);
        let (mut parcels, _) = parcels(&donor, 64 << 10);
        for parcel in &mut parcels {
            harm(harms.clone(), parcel);
        }
        let location = table(&mine);
        for parcel in &parcels {
            location.apply_parcel(parcel, |_| true);
        }
        let again = Location::new(KEY, true);
        for (aor, record) in dump(&location) {
            again.apply(&aor, record);
        }
        prop_assert_eq!(dump(&again), dump(&location));
        prop_assert_eq!((again.root(), recounted(&location).0), (location.root(), location.root()));
        prop_assert_eq!(location.counts(), Counts { dirty: location.counts().dirty, ..recounted(&location).1 });
    }

    #[test]
    fn no_bytes_are_a_parcel_that_panics(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 0..4),
        glossary in prop_oneof![Just(Vec::new()), prop::collection::vec(any::<u8>(), 0..40)],
    ) {
        let mut parcel = Vec::new();
        records.iter().for_each(|record| row::push(record, &mut parcel));
        row::end(&glossary, &mut parcel);
        Location::new(KEY, true).apply_parcel(&parcel, |_| true);
    }
}

#[test]
fn what_is_refused_is_left_and_the_rest_is_merged() {
    let donor = filled(0..300);
    let (parcels, _) = parcels(&donor, 64 << 10);
    let joiner = Location::new(KEY, true);
    let (mut seen, early) = (0, stamp(250).time_us);
    for parcel in &parcels {
        let conflicts = joiner.apply_parcel(parcel, |record| {
            seen += 1;
            record.latest().is_some_and(|stamp| stamp.time_us < early)
        });
        assert_eq!(conflicts, Some(0));
    }
    assert_eq!((seen, joiner.counts().aors), (300, 150));
    assert_eq!(joiner.root(), filled(0..150).root());
}

#[test]
fn one_stamp_with_two_values_is_noticed_in_a_parcel_too() {
    let (one, other) = (filled(0..1), Location::new(KEY, true));
    other.apply(&aor(0), entry(0, 100, Some(60)).into());
    let (parcels, _) = parcels(&one, 64 << 10);
    assert_eq!(parcels.iter().map(|parcel| other.apply_parcel(parcel, |_| true)).collect::<Vec<_>>(), [Some(1)]);
}

/// A record of one contact: so many values of a Path, each the word 0, which the glossary explains with so many bytes.
fn repeats(values: usize, word_bytes: usize) -> Vec<u8> {
    let number = |mut number: usize| {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    };
    let mut path = number(values);
    path.resize(path.len() + values, 1);
    // Domain and user; one entry; live, first told with it, its key that of its URI; stamp, Call-ID, CSeq, URI; 60 s.
    let entry = [&[0, 1, b'u', 2, 1 | 1 << 4 | 1 << 6, 2, 0, 16][..], &[0; 8], &[0; 8], &[2], &[0; 8], &[60]].concat();
    // No q; a node; URI, parameters, Path, Call-ID, User-Agent, source.
    let record = [&entry[..], &[0, 4, b'n', b'1', 1, b's', 0, 0], &path, &[0, 0, 0]].concat();
    let length = u16::try_from(word_bytes).expect("a length").to_le_bytes();
    let mut parcel = Vec::new();
    row::push(&record, &mut parcel);
    row::end(&[&[3, 0, 0, length[0], length[1]], &vec![b'p'; word_bytes][..]].concat(), &mut parcel);
    parcel
}

#[test]
fn a_word_that_is_named_again_and_again_does_not_fill_the_memory() {
    let taken = |values, word_bytes| {
        let location = Location::new(KEY, true);
        let whole = location.apply_parcel(&repeats(values, word_bytes), |_| true);
        (whole, location.counts().aors)
    };
    assert_eq!(taken(3, 200), (Some(0), 1), "as such a record is told");
    assert_eq!(taken(3, 257), (None, 0), "longer than a word is");
    assert_eq!(taken(3, 60_000), (None, 0));
    assert_eq!(taken(20_000, 256), (Some(0), 1), "five megabytes");
    assert_eq!(taken(200_000, 256), (None, 0), "fifty");
}

#[test]
fn what_is_larger_than_a_parcel_alone_is_shown_in_its_place() {
    let donor = filled(0..40);
    let mut large = Record::EMPTY;
    for contact in 0..50 {
        large.merge(&entry(contact, 100, Some(60)).into());
    }
    donor.apply(&aor(7), large.clone());
    let (parcels, shown) = parcels(&donor, 2000);
    assert_eq!(shown, [(aor(7), dump(&donor)[&aor(7)].clone())]);
    let joiner = Location::new(KEY, true);
    parcels.iter().for_each(|parcel| assert_eq!(joiner.apply_parcel(parcel, |_| true), Some(0)));
    assert_eq!(joiner.counts().aors, 39);
}
