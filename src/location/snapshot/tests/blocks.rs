//! A block comes back, in a process with other words too; what is not as it was written is noticed, whatever it is.

use proptest::prelude::*;

use super::super::super::packed::Glossary;
use super::super::super::tests::harm::{harm, harms};
use super::super::blocks::{self, Block, Found, Held, RECORDS_MAX};
use super::super::value::{SEAL_BYTES, seal_packed};
use super::super::*;
use super::{KEY, aor, dump, entry, fill};

/// What precedes the version in a block.
const LENGTHS_BYTES: usize = 6;

/// All blocks of a table.
fn written(location: &Location) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    let mut block = Block::default();
    let tags = location.take_dirty();
    let mut rest = &tags[..];
    while !rest.is_empty() {
        let taken = location.take_packed(rest, |packed| block.push(packed));
        rest = &rest[taken..];
        block.explain(&location.words);
        if block.is_full() || rest.is_empty() {
            blocks.push(block.close().to_vec());
            block.clear();
        }
    }
    blocks
}

fn restored(location: &Location, block: &[u8]) -> Held {
    blocks::read(block, &mut Glossary::default(), |found| match found {
        Found::Record(aor, record) => {
            location.restore(&aor, record);
            true
        }
        Found::Packed(told, glossary) => location.restore_told(told, glossary).is_some(),
    })
}

fn table(names: std::ops::Range<usize>) -> Location {
    let location = Location::new(KEY, true);
    fill(&location, names);
    location
}

#[test]
fn blocks_are_read_in_whatever_order_by_a_table_that_has_other_words() {
    let location = table(0..1000);
    for name in 0..50 {
        location.apply(&aor(name), entry(2, 5000, None).into());
    }
    let blocks = written(&location);
    assert!(blocks.len() >= 1000 / RECORDS_MAX, "{} blocks", blocks.len());
    // Its first words are others.
    let again = table(5000..5010);
    let held: Vec<Held> = blocks.iter().rev().map(|block| restored(&again, block)).collect();
    assert!(held.iter().all(|held| (held.damaged, held.newer) == (0, 0)));
    assert_eq!(held.iter().map(|held| held.records).sum::<usize>(), 1000);
    let mut expected = dump(&location);
    expected.extend(dump(&table(5000..5010)));
    assert_eq!(dump(&again), expected);
}

#[test]
fn every_damaged_byte_is_noticed_and_so_is_every_cut() {
    let location = table(0..20);
    let block = &written(&location)[0];
    let nothing_from = |bytes: &[u8], what: &str| {
        let table = Location::new(KEY, true);
        let held = restored(&table, bytes);
        assert!(held.damaged + held.newer > 0, "{what}: {held:?}");
        assert_eq!(table.counts().aors, 0, "{what}");
        held
    };
    for at in 0..block.len() {
        for bit in [0x01, 0x10, 0x80] {
            let mut flipped = block.clone();
            flipped[at] ^= bit;
            let held = nothing_from(&flipped, &format!("byte {at} flipped by {bit:x}"));
            assert!(held.newer == 0 || at <= LENGTHS_BYTES, "byte {at} is no version");
        }
        if at > 0 {
            nothing_from(&block[..at], &format!("cut at {at}"));
        }
    }
    let held = restored(&Location::new(KEY, true), &[&block[..], &[0]].concat());
    assert_eq!((held.records, held.damaged), (20, 1), "something more");
}

#[test]
fn a_record_of_which_a_word_is_not_explained_is_damaged() {
    let location = table(0..20);
    let block = &written(&location)[0];
    let domain = b"@example.com";
    let at = block.windows(domain.len()).rposition(|bytes| bytes == domain).expect("it is explained");
    // Its kind, number and length precede it; another number has none.
    let mut other = block.clone();
    other[at - 4] ^= 1;
    seal_packed(&mut other[LENGTHS_BYTES..]);
    let table = Location::new(KEY, true);
    let held = restored(&table, &other);
    assert!(held.damaged > 0 && held.damaged as u64 + table.counts().aors == 20, "{held:?}");
    assert!(dump(&table).iter().all(|(aor, record)| dump(&location).get(aor) == Some(record)));
}

#[test]
fn the_bytes_are_those_of_yesterday() {
    let location = Location::new(KEY, true);
    // So often that the domain is a word.
    for name in 1..4 {
        location.apply(&aor(name), entry(2, 200, (name == 3).then_some(60)).into());
    }
    let mut block = Block::default();
    for (aor, _) in dump(&location) {
        let tag = AorTag::of(location.digester.aor(&aor));
        location.take_packed(&[tag], |packed| block.push(packed));
    }
    assert_eq!(block.explain(&location.words), 3);
    let hex: String = block.close().iter().map(|byte| format!("{byte:02x}")).collect();
    let yesterday = [
        "0000680100000282725ce9dc6dc6674700000018406578616d706c652e636f6d05757365723102008088debe010010010000",
        "0000000000faf39cbe13b1ea1e027ed4dc85543e0e230020757369703a75403139322e302e322e324700000018406578616d",
        "706c652e636f6d05757365723202008088debe0100100100000000000000faf39cbe13b1ea1e027ed4dc85543e0e23002075",
        "7369703a75403139322e302e322e32a30000000105757365723302518088debe010001faf39cbe13b1ea1e027ed4dc85543e",
        "0e233cbd05046e310f7369703a75403139322e302e322e3200463b713d302e373b2b7369702e696e7374616e63653d223c75",
        "726e3a757569643a303e2201323c7369703a656467652e6578616d706c652e636f6d3b6c723e0e63616c6c403139322e302e",
        "322e311270686f6e652f312e30247564703a3139322e302e322e313a35303630000000000000000c00406578616d706c652e",
        "636f6d07000008000100000000000000",
    ];
    assert_eq!(hex, yesterday.concat());
}

/// A block of this body, its check right.
fn sealed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(SEAL_BYTES + body.len()).expect("short").to_le_bytes();
    let mut block = [&[0, 0][..], &length, &[0; SEAL_BYTES], body].concat();
    seal_packed(&mut block[LENGTHS_BYTES..]);
    block
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_sealed_is_read_or_damaged_and_the_table_is_in_order(harms in harms()) {
        let location = table(0..6);
        let mut body = written(&location)[0].split_off(LENGTHS_BYTES + SEAL_BYTES);
        harm(harms, &mut body);
        let table = Location::new(KEY, true);
        restored(&table, &sealed(&body));
        let again = Location::new(KEY, true);
        for (aor, record) in dump(&table) {
            again.apply(&aor, record);
        }
        prop_assert_eq!(again.root(), table.root());
    }

    #[test]
    fn whatever_bytes_there_are_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let table = Location::new(KEY, true);
        restored(&table, &bytes);
        restored(&table, &sealed(&bytes));
    }
}
