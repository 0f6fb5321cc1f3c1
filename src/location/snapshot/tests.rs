//! What a restart finds: after a clean stop, a kill, damage, a full disk, and with the wrong directory.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use aorta_proto::digest::BUCKETS;
use aorta_proto::{Aor, Record};
use tempfile::TempDir;

use super::super::tests::{aor, at as at_second, dump, entry, stamp};
use super::blocks::RECORDS_MAX;
use super::directory::SET_ASIDE_MAX;
use super::*;

mod blocks;
mod renewal;

const KEY: [u8; 16] = *b"a cluster's key!";
const SECOND_US: u64 = 1_000_000;
/// Where a test that runs again as a child process finds its data directory.
const CHILD_DIR: &str = "AORTA_TEST_CHILD_DIR";

fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("a node id")
}

fn open(dir: &Path) -> (Location, Snapshot, Ceiling, Loaded) {
    let location = Location::new(KEY, true);
    let (snapshot, ceiling, loaded) = Snapshot::open(dir, &node("n1"), &location).expect("opens");
    (location, snapshot, ceiling, loaded)
}

fn fill(location: &Location, names: std::ops::Range<usize>) {
    for name in names {
        location.apply(&aor(name), entry(name % 3, 100 + name as u64 % 1000, Some(3600)).into());
    }
}

fn saved(dir: &Path, names: std::ops::Range<usize>) -> Location {
    let (location, mut snapshot, ..) = open(dir);
    fill(&location, names);
    snapshot.save(&location).expect("saves");
    location
}

fn set_aside_dirs(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.contains("damaged")).collect();
    names.sort();
    names
}

fn flip_bytes(file: &File, place: u64, count: usize) {
    let mut bytes = vec![0; count];
    let read = file.read_at(&mut bytes, place).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
    file.write_all_at(&bytes[..read], place).unwrap();
}

#[test]
fn a_restart_finds_all_that_was_saved_dead_and_lapsed_entries_too() {
    let dir = TempDir::new().unwrap();
    let (location, mut snapshot, mut ceiling, loaded) = open(dir.path());
    assert_eq!(loaded, Loaded::default());
    fill(&location, 0..1000);
    location.apply(&aor(1), entry(2, 5000, None).into());
    location.apply(&aor(2), entry(2, 1, Some(1)).into());
    assert_eq!(snapshot.save(&location).unwrap(), Saved { written: 1000 });
    assert_eq!(snapshot.save(&location).unwrap(), Saved::default());
    location.apply(&aor(3), entry(3, 6000, Some(60)).into());
    assert_eq!(snapshot.save(&location).unwrap().written, 1);
    snapshot.keep_members(b"n1 n2 n3").unwrap();
    ceiling.renew(10, 20).unwrap();
    drop(snapshot);

    let (again, snapshot, ceiling, loaded) = open(dir.path());
    assert_eq!(dump(&again), dump(&location));
    assert_eq!(again.root(), location.root());
    assert_eq!(again.counts().dirty, 0);
    assert_eq!((loaded.aors, loaded.latest_us), (1000, 6000 * SECOND_US));
    assert_eq!(loaded.members.as_deref(), Some(&b"n1 n2 n3"[..]));
    assert_eq!(loaded.clock, Some(KeptClock { cluster_us: 10, wall_us: 20, ceiling_us: ceiling.ceiling_us() }));
    drop(snapshot);
}

/// What a restart would find if the process ended now.
fn found_after(dir: &Path) -> Location {
    let copy = TempDir::new().unwrap();
    copy_files(dir, copy.path());
    let (location, _snapshot, _, loaded) = open(copy.path());
    assert_eq!((loaded.damaged, loaded.set_aside), (0, None));
    location
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().map(|file| file.unwrap()) {
        let to = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy_files(&file.path(), &to);
        } else {
            std::fs::copy(file.path(), to).unwrap_or_else(|error| panic!("{}: {error}", file.path().display()));
        }
    }
}

#[test]
fn a_commit_puts_on_disk_what_is_awaited_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let (location, mut snapshot, ..) = open(dir.path());
    fill(&location, 0..1000);
    (0..300).for_each(|name| location.await_on_disk(aor(name).as_str()));
    assert_eq!(snapshot.commit(&location).unwrap(), Saved { written: 300 });
    let found = found_after(dir.path());
    assert!((0..300).all(|name| found.get(&aor(name), |record| record.is_some())));
    assert_eq!(snapshot.commit(&location).unwrap(), Saved::default());
    location.apply(&aor(7), entry(3, 6000, Some(60)).into());
    assert_eq!(snapshot.save(&location).unwrap().written, 701, "the rest, and what changed again");
    assert_eq!(dump(&found_after(dir.path())), dump(&location));
}

#[test]
fn a_commit_does_not_wait_behind_a_long_save_and_flushes_what_that_has_written() {
    let dir = TempDir::new().unwrap();
    let (location, mut snapshot, ..) = open(dir.path());
    fill(&location, 0..FLUSH_RECORDS);
    let mut commits = 0;
    let saved = snapshot.save_and(&location, |snapshot| {
        commits += 1;
        if commits > 2 {
            return Ok(());
        }
        // One that the save has not come to, one that it may have, one that is new.
        let (first, late, new) = (aor(0), aor(FLUSH_RECORDS - commits), aor(FLUSH_RECORDS + commits));
        location.apply(&new, entry(1, 7000, Some(60)).into());
        [&first, &late, &new].into_iter().for_each(|aor| location.await_on_disk(aor.as_str()));
        snapshot.commit(&location)?;
        let found = found_after(dir.path());
        [&first, &late, &new].into_iter().for_each(|aor| {
            assert_eq!(found.get(aor, |record| record.cloned()), location.get(aor, |record| record.cloned()));
        });
        Ok(())
    });
    assert!(commits > 2 && saved.unwrap().written >= FLUSH_RECORDS - 4);
    snapshot.save(&location).unwrap();
    assert_eq!(dump(&found_after(dir.path())), dump(&location));
}

#[test]
fn what_a_save_took_counts_as_dirty_until_it_is_flushed() {
    let dir = TempDir::new().unwrap();
    let (location, mut snapshot, ..) = open(dir.path());
    let several = 2 * FLUSH_RECORDS;
    fill(&location, 0..several);
    let mut seen = Vec::new();
    let saved = snapshot.save_and(&location, |_| {
        seen.push(location.counts().dirty as usize);
        Ok(())
    });
    saved.unwrap();
    seen.dedup();
    assert_eq!(seen, [several, FLUSH_RECORDS]);
    assert_eq!(location.counts().dirty, 0);
    fill(&location, several..several + 1000);
    let broken = snapshot.save_and(&location, |snapshot| Err(at(&snapshot.dir, io::ErrorKind::StorageFull.into())));
    assert!(broken.is_err());
    assert_eq!(location.counts().dirty, 1000);
}

#[test]
fn what_a_broken_commit_and_the_save_around_it_took_is_saved_by_the_next() {
    let dir = TempDir::new().unwrap();
    let (location, mut snapshot, ..) = open(dir.path());
    fill(&location, 0..1000);
    let broken = snapshot.save_and(&location, |snapshot| {
        (500..1500).for_each(|name| location.await_on_disk(aor(name).as_str()));
        fill(&location, 1000..1100);
        let path = snapshot.dir.clone();
        // What was written before may be lost with the database.
        snapshot.close();
        Err(at(&path, io::ErrorKind::StorageFull.into()))
    });
    assert!(broken.is_err());
    // Nobody knows any more who waits for what.
    assert!(snapshot.commit(&location).unwrap().written >= 1000);
    let found = found_after(dir.path());
    assert!((0..1000).all(|name| found.get(&aor(name), |record| record.is_some())));
    snapshot.save(&location).unwrap();
    assert_eq!(dump(&found_after(dir.path())), dump(&location));
}

#[test]
fn of_what_lies_there_several_times_the_latest_counts() {
    let dir = TempDir::new().unwrap();
    let (location, mut snapshot, ..) = open(dir.path());
    for round in 0..20 {
        for name in 0..100 {
            let gone = round % 3 == 1 && name % 2 == 0;
            location.apply(&aor(name), entry(name % 3, 100 + round, (!gone).then_some(3600)).into());
        }
        location.apply(&aor(7), entry(4 + round as usize, 100 + round, Some(60)).into());
        assert_eq!(snapshot.save(&location).unwrap().written, 100);
        let found = found_after(dir.path());
        assert_eq!((dump(&found), found.root()), (dump(&location), location.root()), "round {round}");
        assert_eq!(found.counts().dirty, 0);
    }
}

#[test]
fn a_directory_of_another_node_or_in_use_is_refused() {
    let dir = TempDir::new().unwrap();
    let (_location, snapshot, ..) = open(dir.path());
    let other = Location::new(KEY, true);
    let in_use = Snapshot::open(dir.path(), &node("n1"), &other).map(|_| ()).unwrap_err();
    assert!(matches!(in_use, SnapshotError::InUse(_)), "{in_use}");
    drop(snapshot);
    let foreign = Snapshot::open(dir.path(), &node("n2"), &other).map(|_| ()).unwrap_err();
    assert!(foreign.to_string().ends_with("is the data directory of node 'n1', not of 'n2'"), "{foreign}");
    assert_eq!(open(dir.path()).3.set_aside, None);
}

#[test]
fn a_cut_index_file_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let location = saved(dir.path(), 0..500);
    // The index is written when a database with something in it is opened.
    drop(open(dir.path()));
    let database = dir.path().join(DATABASE);
    let snaps = std::fs::read_dir(&database).unwrap().map(|file| file.unwrap().path());
    let snaps: Vec<PathBuf> = snaps.filter(|path| path.to_string_lossy().contains("snap.")).collect();
    assert!(!snaps.is_empty(), "sled leaves an index behind");
    for snap in snaps {
        OpenOptions::new().write(true).open(snap).unwrap().set_len(5).unwrap();
    }
    let (again, _, _, loaded) = open(dir.path());
    assert_eq!((dump(&again), loaded.set_aside), (dump(&location), None));
}

#[test]
fn a_damaged_log_is_set_aside_and_the_next_save_makes_it_whole() {
    let dir = TempDir::new().unwrap();
    saved(dir.path(), 0..20_000);
    // Everything behind the first segment is gone: whatever sled makes of that, it is not what was saved.
    let log = dir.path().join(DATABASE).join("db");
    OpenOptions::new().write(true).open(log).unwrap().set_len(512 << 10).unwrap();
    let (location, mut snapshot, _, loaded) = open(dir.path());
    assert_eq!(loaded.set_aside, Some(dir.path().join("location.sled.damaged-1")));
    // The peers bring back what is missing.
    fill(&location, 0..20_000);
    assert_eq!(snapshot.save(&location).unwrap().written, 20_000);
    drop(snapshot);
    let (again, _, _, loaded) = open(dir.path());
    assert_eq!((dump(&again), loaded.set_aside), (dump(&location), None));
}

#[test]
fn whatever_is_done_to_the_log_no_loss_goes_unnoticed() {
    let mut noticed = 0;
    let cases = (1..8).flat_map(|eighth| [None, Some(1), Some(20), Some(4096)].map(|flip| (eighth, flip)));
    for (eighth, flip) in cases {
        let dir = TempDir::new().unwrap();
        let location = saved(dir.path(), 0..2000);
        let log = OpenOptions::new().read(true).write(true).open(dir.path().join(DATABASE).join("db")).unwrap();
        let place = log.metadata().unwrap().len() * eighth / 8;
        match flip {
            Some(flip) => flip_bytes(&log, place, flip),
            None => log.set_len(place).unwrap(),
        }
        let (again, _snapshot, _, loaded) = open(dir.path());
        noticed += usize::from(loaded.set_aside.is_some());
        let whole = dump(&again) == dump(&location);
        assert!(whole || loaded.set_aside.is_some(), "{loaded:?}, {flip:?} bytes flipped at {eighth}/8");
        assert_eq!(again.counts().dirty as usize, if loaded.set_aside.is_some() { loaded.aors } else { 0 });
    }
    assert!(noticed > 0, "some of that does harm");
}

#[test]
fn damaged_databases_do_not_pile_up() {
    let dir = TempDir::new().unwrap();
    for _ in 0..SET_ASIDE_MAX + 2 {
        saved(dir.path(), 0..10);
        std::fs::remove_dir_all(dir.path().join(DATABASE)).unwrap();
        assert!(open(dir.path()).3.set_aside.is_some(), "it had been flushed, and is empty");
        assert_eq!(open(dir.path()).3.set_aside, None);
    }
    let kept: Vec<String> = (3..6).map(|number| format!("{DATABASE}.damaged-{number}")).collect();
    assert_eq!(set_aside_dirs(dir.path()), kept);
}

fn raw(dir: &Path) -> Open {
    open_past_damage(&dir.join(DATABASE)).expect("opens")
}

/// A block as an earlier aorta wrote it, of the records of a table.
fn former_block(records: impl IntoIterator<Item = (Aor, Record)>) -> Vec<u8> {
    let mut block = Vec::new();
    for (aor, record) in records {
        let mut value = Vec::new();
        value::encode(&aor, &record, &mut value).expect("a record");
        let name = aor.as_str().as_bytes();
        block.extend_from_slice(&u16::try_from(name.len()).expect("short").to_le_bytes());
        block.extend_from_slice(name);
        block.extend_from_slice(&u32::try_from(value.len()).expect("short").to_le_bytes());
        block.extend_from_slice(&value);
    }
    block
}

/// Where an AoR's name begins in such a block.
fn place(block: &[u8], name: usize) -> usize {
    let name = aor(name);
    block.windows(name.as_str().len()).position(|bytes| bytes == name.as_str().as_bytes()).expect("it is in there")
}

#[test]
fn a_damaged_value_is_dropped_and_the_rest_is_read() {
    let dir = TempDir::new().unwrap();
    let location = saved(dir.path(), 0..10);
    let mut database = raw(dir.path());
    let mut block = former_block(dump(&location));
    let value = place(&block, 3) + aor(3).as_str().len() + 4;
    block[value + 12] ^= 1;
    // Another's value, and a name that is no text.
    let (four, five) = (place(&block, 4), place(&block, 5));
    block[four] = b'w';
    block[five] = 0xff;
    database.put(1, 0, &block).unwrap();
    database.put(1, 10, b"\x01\0x\xff\0\0\0cut").unwrap();
    database.put(1, 11, b"\x11\0later@example.com\x09\0\0\0\x03xxxxxxxx").unwrap();
    database.sync().unwrap();
    drop(database);

    let (again, mut snapshot, _, loaded) = open(dir.path());
    assert_eq!((loaded.aors, loaded.damaged, loaded.newer), (7, 4, 1));
    let mut expected = dump(&location);
    expected.retain(|name, _| ![aor(3), aor(4), aor(5)].contains(name));
    assert_eq!(dump(&again), expected);
    assert_eq!(again.counts().dirty, 0);
    let written: usize = (0..BUCKETS / shelf::BUCKETS_MIN).map(|_| snapshot.save(&again).unwrap().written).sum();
    assert_eq!(written, 7, "all anew");
    drop(snapshot);
    let (_, _, _, loaded) = open(dir.path());
    assert_eq!((loaded.aors, loaded.damaged, loaded.newer), (7, 0, 1));
}

#[test]
fn of_a_damaged_block_nothing_is_read_and_the_others_are_written_anew() {
    let dir = TempDir::new().unwrap();
    let location = saved(dir.path(), 0..1000);
    let mut database = raw(dir.path());
    let (at, good) = database.blocks(1).unwrap().nth(2).expect("a block").unwrap();
    let mut block = good.to_vec();
    let middle = block.len() / 2;
    block[middle] ^= 1;
    database.put(1, at, &block).unwrap();
    database.sync().unwrap();
    drop(database);

    let (again, mut snapshot, _, loaded) = open(dir.path());
    let lost = 1000 - loaded.aors;
    assert!(lost > 1 && lost <= RECORDS_MAX && loaded.damaged == 1, "{loaded:?}");
    let (all, found) = (dump(&location), dump(&again));
    assert!(found.iter().all(|(aor, record)| all.get(aor) == Some(record)));
    let written: usize = (0..BUCKETS / shelf::BUCKETS_MIN).map(|_| snapshot.save(&again).unwrap().written).sum();
    assert_eq!(written, loaded.aors, "all anew");
}

/// Runs one test of this file again, in a process of its own that finds `dir`; `shell` runs before it.
fn child(test: &str, dir: &Path, shell: &str) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{shell} exec \"$0\" \"$@\"");
    let name = format!("location::snapshot::tests::{test}");
    command.arg("-c").arg(script).arg(std::env::current_exe().expect("this test's program"));
    command.args(["--exact", &name, "--nocapture"]).env(CHILD_DIR, dir);
    command
}

fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

#[test]
fn a_kill_loses_nothing_that_a_save_returned_for() {
    if let Some(dir) = child_dir() {
        let (location, mut snapshot, ..) = open(&dir);
        for round in 0.. {
            fill(&location, round * 100..(round + 1) * 100);
            snapshot.save(&location).expect("saves");
            println!("saved {}", (round + 1) * 100);
        }
    }
    let dir = TempDir::new().unwrap();
    for rounds in [2, 7] {
        let mut killed = child("a_kill_loses_nothing_that_a_save_returned_for", dir.path(), "")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = io::BufRead::lines(io::BufReader::new(killed.stdout.take().unwrap()));
        let promises = lines.map(|line| line.unwrap()).filter_map(|line| line.strip_prefix("saved ")?.parse().ok());
        let promised: usize = promises.take(rounds).last().expect("it saves");
        killed.kill().unwrap();
        killed.wait().unwrap();
        let (location, snapshot, _, loaded) = open(dir.path());
        assert!(loaded.aors >= promised && loaded.set_aside.is_none(), "{loaded:?}, promised {promised}");
        assert!((0..promised).all(|name| location.get(&aor(name), |record| record.is_some())));
        drop(snapshot);
    }
}

#[test]
fn a_full_disk_is_an_error_and_is_tried_again() {
    if let Some(dir) = child_dir() {
        return fill_the_disk(&dir);
    }
    let dir = TempDir::new().unwrap();
    // No file may grow above 2 MiB (a `ulimit` block is 512 bytes), and trying to is an error rather than a signal.
    let shell = "trap '' XFSZ; ulimit -S -f 4096;";
    let output = child("a_full_disk_is_an_error_and_is_tried_again", dir.path(), shell).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("there is space again"));
    let (location, _snapshot, _, loaded) = open(dir.path());
    assert_eq!((loaded.aors, loaded.set_aside), (40_000, None));
    assert_eq!(location.counts().aors, 40_000);
}

fn free_the_disk() {
    let free = Command::new("prlimit").args(["--pid", &std::process::id().to_string(), "--fsize=unlimited"]).status();
    assert!(free.expect("prlimit runs").success());
}

fn fill_the_disk(dir: &Path) {
    let (location, mut snapshot, mut ceiling, _) = open(dir);
    fill(&location, 0..40_000);
    for _ in 0..3 {
        let error = snapshot.save(&location).expect_err("the disk is full");
        assert!(matches!(error, SnapshotError::Database { .. }), "{error}");
        assert!(location.counts().dirty > 0, "what is not on disk stays dirty");
        ceiling.renew(1, 1).expect("the ceiling has its place already");
    }
    free_the_disk();
    println!("there is space again");
    snapshot.save(&location).expect("saves");
    assert_eq!(location.counts().dirty, 0);
}

#[test]
fn a_disk_that_is_full_from_the_start_keeps_no_node_from_serving() {
    if let Some(dir) = child_dir() {
        return start_on_a_full_disk(&dir);
    }
    let dir = TempDir::new().unwrap();
    drop(saved(dir.path(), 0..100));
    let shell = "trap '' XFSZ; ulimit -S -f 0;";
    for (dir, aors) in [(dir.path().to_owned(), 100), (dir.path().join("new"), 50)] {
        let test = "a_disk_that_is_full_from_the_start_keeps_no_node_from_serving";
        let output = child(test, &dir, shell).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("served without a disk"));
        let (_, _snapshot, _, loaded) = open(&dir);
        assert_eq!((loaded.aors, loaded.set_aside), (aors, None));
    }
}

fn start_on_a_full_disk(dir: &Path) {
    let (location, mut snapshot, mut ceiling, loaded) = open(dir);
    assert!(loaded.full, "{loaded:?}");
    fill(&location, 50..100);
    assert!(snapshot.save(&location).is_err());
    assert_eq!(location.counts().dirty, 50);
    assert!(ceiling.renew(1, 1).is_err());
    assert_eq!(ceiling.ceiling_us(), 0);
    println!("served without a disk");
    free_the_disk();
    ceiling.renew(1, 1).expect("renews");
    snapshot.save(&location).expect("saves");
    assert_eq!(location.counts().dirty, 0);
}

#[test]
fn what_is_no_directory_is_named() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let location = Location::new(KEY, true);
    let error = Snapshot::open(&file, &node("n1"), &location).map(|_| ()).unwrap_err();
    assert!(error.to_string().starts_with(&file.display().to_string()), "{error}");
    std::fs::write(dir.path().join(DATABASE), "not a database").unwrap();
    let error = Snapshot::open(dir.path(), &node("n1"), &location).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains(DATABASE), "{error}");
}
