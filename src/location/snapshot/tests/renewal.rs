//! What the renewal of the disk loses (nothing), costs, and leaves behind; what earlier layouts become.

use std::io;

use aorta_proto::Record;
use aorta_proto::digest::BUCKETS;
use tempfile::TempDir;

use super::super::blocks;
use super::super::database::{FORMER_BLOCKS, PLACES};
use super::super::*;
use super::{SECOND_US, aor, at_second, dump, entry, fill, former_block, found_after, open, raw, stamp};

/// Saves until what lay there before is not needed any more, and gone.
fn renew(location: &Location, snapshot: &mut Snapshot) {
    let oldest = oldest_volume(snapshot);
    for _ in 0..1000 {
        snapshot.save(location).unwrap();
        if oldest_volume(snapshot) > oldest {
            return;
        }
    }
    panic!("it is never renewed");
}

fn oldest_volume(snapshot: &Snapshot) -> Option<u64> {
    snapshot.open.as_ref().expect("open").volumes().first().copied()
}

#[test]
fn what_is_forgotten_does_not_come_back_and_leaves_the_disk_when_that_is_renewed() {
    let dir = TempDir::new().unwrap();
    let (location, mut snapshot, ..) = open(dir.path());
    fill(&location, 0..100);
    snapshot.save(&location).unwrap();
    // The copy from before the removal must not outlive it.
    for name in 0..50 {
        location.apply(&aor(name), entry(name % 3, 140, None).into());
    }
    snapshot.save(&location).unwrap();
    let floor_us = stamp(149).time_us;
    location.set_floor(floor_us);
    location.sweep(at_second(0), BUCKETS);
    assert_eq!(snapshot.save(&location).unwrap(), Saved::default());
    drop(snapshot);
    let (again, mut snapshot, ..) = open(dir.path());
    again.set_floor(floor_us);
    again.sweep(at_second(0), BUCKETS);
    assert_eq!((dump(&again), again.root()), (dump(&location), location.root()));
    snapshot.shelf.wears_out();
    renew(&again, &mut snapshot);
    drop(snapshot);
    assert_eq!(open(dir.path()).3.aors, 50);
}

#[test]
fn what_was_written_often_is_renewed_bit_by_bit_and_the_old_blocks_go() {
    let dir = TempDir::new().unwrap();
    let (location, mut snapshot, ..) = open(dir.path());
    fill(&location, 0..20_000);
    snapshot.save(&location).unwrap();
    let (mut most, mut written, mut changed, mut first) = (0, 0, 0, 0);
    // Some never change; some change all the time.
    for round in 0..120_u64 {
        for name in (0..2000).map(|name| 10_000 + (round as usize * 1900 + name) % 10_000) {
            location.apply(&aor(name), entry(4, 200 + round, Some(60)).into());
        }
        let saved = snapshot.save(&location).unwrap();
        assert!(saved.written < 2 * 2000 + 20_000 / 100, "{} in round {round}", saved.written);
        (changed, written, most) = (changed + 2000, written + saved.written, most.max(snapshot.shelf.records()));
        let volumes = snapshot.open.as_ref().expect("open").volumes();
        if volumes[0] > first && round % 3 == 0 {
            assert_eq!(dump(&found_after(dir.path())), dump(&location), "round {round}");
        }
        first = volumes[0];
    }
    assert!(first > 2, "old volumes went: {first}");
    assert!(written < changed * 3 / 2, "{written} for {changed} changes");
    assert!(most < 65_536 + 6 * 20_000, "{most}");
    drop(snapshot);
    let database = raw(dir.path());
    let lie: usize = database.volumes().iter().map(|volume| database.blocks(*volume).unwrap().count()).sum();
    assert!(lie < most * 2 / blocks::RECORDS_MAX, "{lie} blocks, {most} records");
    let bytes = database.database.size_on_disk().unwrap() as usize;
    assert!(bytes < most * 2 * 512, "{bytes} bytes, {most} records");
    drop(database);
    assert_eq!(dump(&open(dir.path()).0), dump(&location));
}

#[test]
fn what_comes_while_the_table_is_renewed_is_not_lost_with_the_old_blocks() {
    let dir = TempDir::new().unwrap();
    let (location, mut snapshot, ..) = open(dir.path());
    fill(&location, 0..1000);
    snapshot.save(&location).unwrap();
    snapshot.shelf.wears_out();
    let mut turn = 0;
    while snapshot.open.as_ref().expect("open").volumes()[0] < 2 {
        turn += 1;
        assert!(turn < 1000, "it is never renewed");
        // Awaited before the save comes to it, and while it writes.
        location.apply(&aor(turn * 3 % 1000), entry(4, 3000 + turn as u64, Some(60)).into());
        location.await_on_disk(aor(turn * 3 % 1000).as_str());
        snapshot.commit(&location).unwrap();
        let saved = snapshot.save_and(&location, |snapshot| {
            for aor in [aor(turn * 60 % 1000), aor(2000 + turn)] {
                location.apply(&aor, entry(5, 3000 + turn as u64, Some(60)).into());
                location.await_on_disk(aor.as_str());
            }
            snapshot.commit(&location).map(drop)
        });
        saved.unwrap();
        location.apply(&aor(4000 + turn), entry(4, 3000, Some(60)).into());
    }
    let found = found_after(dir.path());
    // What came last was never saved.
    for (aor, record) in location.take_dirty().into_iter().flat_map(|tag| location.take_records(tag)) {
        found.apply(&aor, record);
    }
    assert_eq!(dump(&found), dump(&location));
}

#[test]
fn a_disk_that_breaks_while_the_table_is_renewed_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let (location, mut snapshot, ..) = open(dir.path());
    fill(&location, 0..5000);
    snapshot.save(&location).unwrap();
    snapshot.shelf.wears_out();
    for _ in 0..10 {
        snapshot.save(&location).unwrap();
    }
    let broken = snapshot.save_and(&location, |snapshot| {
        let path = snapshot.dir.clone();
        snapshot.close();
        Err(at(&path, io::ErrorKind::StorageFull.into()))
    });
    drop(broken);
    fill(&location, 5000..6000);
    assert!(snapshot.save(&location).unwrap().written >= 1000);
    assert_eq!(dump(&found_after(dir.path())), dump(&location));
    // As much again has to be written before it is tried again.
    for round in 0..10 {
        for name in 0..1000 {
            location.apply(&aor(name), entry(4, 5000 + round, Some(60)).into());
        }
        snapshot.save(&location).unwrap();
    }
    renew(&location, &mut snapshot);
    assert_eq!(dump(&found_after(dir.path())), dump(&location));
}

#[test]
fn what_an_earlier_aorta_wrote_is_read_and_written_anew() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    let database = raw(dir.path());
    let records = database.database.open_tree(FORMER_RECORDS).unwrap();
    let mut bytes = Vec::new();
    value::encode(&aor(1), &entry(1, 100, Some(60)).into(), &mut bytes).unwrap();
    records.insert(aor(1).as_str(), bytes).unwrap();
    records.insert("user2@example.com", "\x01damaged").unwrap();
    let blocks = database.database.open_tree(FORMER_BLOCKS).unwrap();
    for (number, seconds) in [(7_u64, 300), (3_000_000, 200)] {
        let block = former_block([
            (aor(1), entry(1, seconds, Some(60)).into()),
            (aor(3), entry(1, seconds + 1, Some(60)).into()),
            // That nothing was known of it any more.
            (aor(4), Record::EMPTY),
        ]);
        blocks.insert(number.to_be_bytes(), block).unwrap();
    }
    database.database.insert(FORMER_LIFETIMES, "x").unwrap();
    drop((records, blocks, database));
    let (location, mut snapshot, _, loaded) = open(dir.path());
    assert_eq!((loaded.aors, loaded.damaged, loaded.latest_us), (2, 1, 301 * SECOND_US));
    assert_eq!(location.get(&aor(1), |record| record.cloned()), Some(entry(1, 300, Some(60)).into()));
    renew(&location, &mut snapshot);
    drop(snapshot);
    let database = raw(dir.path());
    assert_eq!(database.volumes().len(), 1);
    assert!(!database.has_former_records() && !database.database.contains_key(FORMER_LIFETIMES).unwrap());
    drop(database);
    let (again, _, _, loaded) = open(dir.path());
    assert_eq!((dump(&again), loaded.damaged), (dump(&location), 0));
}

#[test]
fn what_the_aorta_before_wrote_is_read_and_replaced_as_it_changes() {
    let dir = TempDir::new().unwrap();
    let former = Location::new(super::KEY, true);
    fill(&former, 0..500);
    drop(open(dir.path()));
    let mut database = raw(dir.path());
    for (place, records) in dump(&former).into_iter().collect::<Vec<_>>().chunks(32).enumerate() {
        database.put(1, place as u64, &former_block(records.iter().cloned())).unwrap();
    }
    database.sync().unwrap();
    drop(database);
    let (location, mut snapshot, _, loaded) = open(dir.path());
    assert_eq!((loaded.aors, loaded.damaged, loaded.newer), (500, 0, 0));
    assert_eq!((dump(&location), location.counts().dirty), (dump(&former), 0));
    fill(&location, 400..600);
    assert_eq!(snapshot.save(&location).unwrap().written, 100);
    drop(snapshot);
    assert_eq!(dump(&open(dir.path()).0), dump(&location));
}

#[test]
fn a_volume_is_filled_up_after_a_restart_before_the_next_one_is_made() {
    let dir = TempDir::new().unwrap();
    for round in 0..5 {
        let (location, mut snapshot, ..) = open(dir.path());
        assert_eq!(location.counts().aors, round * 10);
        fill(&location, round as usize * 10..round as usize * 10 + 10);
        snapshot.save(&location).unwrap();
    }
    let database = raw(dir.path());
    assert_eq!((database.volumes(), database.blocks(1).unwrap().count()), (vec![1], 5));
    drop(database);
    let (location, mut snapshot, ..) = open(dir.path());
    for name in 0..PLACES as usize {
        location.apply(&aor(name), entry(4, 5000, Some(60)).into());
        location.await_on_disk(aor(name).as_str());
        snapshot.commit(&location).unwrap();
    }
    drop(snapshot);
    let database = raw(dir.path());
    assert_eq!((database.volumes(), database.blocks(2).unwrap().count()), (vec![1, 2], 5));
    drop(database);
    assert_eq!(dump(&open(dir.path()).0), dump(&location));
}
