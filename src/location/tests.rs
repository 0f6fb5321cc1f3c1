//! The table against a plain map of records: whatever is done to it, its sums, counts, lists and dirty AoRs are those that
//! a recount would give.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aorta_proto::digest::{BUCKETS, LEAF_LEVEL, width};
use aorta_proto::{
    Aor, Binding, BindingParts, BootId, Cleared, ContactKey, Digester, Entry, Listed, NodeId, Record, Stamp, Value,
    binding,
};
use proptest::prelude::*;

use super::*;
use crate::clock::Now;

pub(super) mod harm;
mod parcel;

const KEY: [u8; 16] = *b"a cluster's key!";
const SECOND_US: u64 = 1_000_000;

pub(super) fn aor(name: usize) -> Aor {
    Aor::from_canonical(&format!("user{name}@example.com"))
}

pub(super) fn stamp(seconds: u64) -> Stamp {
    Stamp { time_us: seconds * SECOND_US, counter: 0, boot: BootId(1) }
}

pub(super) fn entry(contact: usize, seconds: u64, granted_s: Option<u32>) -> Entry {
    let uri = format!("sip:u@192.0.2.{contact}").into_bytes();
    let binding = |granted_s| {
        Binding::from(&BindingParts {
            first: stamp(seconds),
            granted_s,
            uri: &uri,
            params: b";q=0.7;+sip.instance=\"<urn:uuid:0>\"",
            q: Some(700),
            path: &[&b"<sip:edge.example.com;lr>"[..]],
            call_id: b"call@192.0.2.1",
            user_agent: b"phone/1.0",
            source: b"udp:192.0.2.1:5060",
            accepted_by: &NodeId::new("n1").expect("a node id"),
        })
    };
    Entry {
        key: ContactKey::uri(&uri),
        stamp: stamp(seconds),
        call_id_hash: binding::call_id_hash(b"call@192.0.2.1"),
        cseq: 1,
        uri_hash: binding::uri_hash(&uri),
        value: granted_s.map_or(Value::Gone, |granted_s| Value::Live(Arc::new(binding(granted_s)))),
    }
}

fn cleared(seconds: u64) -> Record {
    Record { cleared: Some(Cleared { stamp: stamp(seconds), call_id_hash: 1, cseq: 1 }), entries: Vec::new() }
}

pub(super) fn at(seconds: u64) -> Now {
    Now { mono_us: 0, cluster_us: seconds * SECOND_US }
}

pub(super) fn dump(location: &Location) -> BTreeMap<Aor, Record> {
    (0..BUCKETS).flat_map(|bucket| location.bucket(bucket)).collect()
}

fn recounted(location: &Location) -> (u128, Counts) {
    let digester = Digester::new(KEY);
    let (mut sum, mut counts) = (0_u128, Counts::default());
    for (aor, record) in dump(location) {
        let hash = digester.aor(&aor);
        counts.aors += 1;
        for entry in &record.entries {
            sum = sum.wrapping_add(digester.term(hash, Some(&entry.key), entry.stamp));
            let count = if entry.binding().is_some() { &mut counts.live } else { &mut counts.gone };
            *count += 1;
        }
        sum = sum.wrapping_add(record.cleared.map_or(0, |cleared| digester.term(hash, None, cleared.stamp)));
    }
    counts.bytes = location.stripes.iter().map(|stripe| stripe.read().recounted_bytes()).sum();
    (sum, counts)
}

#[derive(Debug, Clone)]
enum Step {
    Apply(usize, Record),
    Update(usize, Record),
    Refresh(usize, Record),
    Floor(u64),
    Sweep(u64, u32),
    Save(usize),
    Await(usize),
    Commit(usize),
}

fn records() -> impl Strategy<Value = Record> {
    let entries = (0_usize..4, 1_u64..60, prop::option::of(0_u32..30));
    let entries = entries.prop_map(|(contact, seconds, granted_s)| entry(contact, seconds, granted_s));
    let clears = prop::option::weighted(0.2, 1_u64..60);
    (prop::collection::vec(entries, 0..3), clears).prop_map(|(entries, clear)| {
        let mut record = clear.map_or(Record::EMPTY, cleared);
        record.merge(&Record { cleared: None, entries });
        record
    })
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..6, records()).prop_map(|(name, record)| Step::Apply(name, record)),
        4 => (0_usize..6, records()).prop_map(|(name, record)| Step::Update(name, record)),
        4 => (0_usize..6, records()).prop_map(|(name, record)| Step::Refresh(name, record)),
        1 => (0_u64..40).prop_map(Step::Floor),
        2 => (0_u64..120, prop_oneof![Just(BUCKETS), 0_u32..1000]).prop_map(|(now, buckets)| Step::Sweep(now, buckets)),
        1 => (1_usize..4).prop_map(Step::Save),
        4 => (0_usize..6).prop_map(Step::Await),
        2 => (1_usize..4).prop_map(Step::Commit),
    ]
}

/// The table, beside what it should hold, and what a disk should hold.
struct Both {
    location: Location,
    plain: BTreeMap<Aor, Record>,
    saved: BTreeMap<Aor, Record>,
    /// Somebody waits until this is on disk.
    awaited: BTreeMap<Aor, Record>,
    floor_us: u64,
}

impl Both {
    fn new() -> Self {
        let location = Location::new(KEY, true);
        Self { location, plain: BTreeMap::new(), saved: BTreeMap::new(), awaited: BTreeMap::new(), floor_us: 0 }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Apply(name, delta) => {
                let applied = self.location.apply(&aor(name), delta.clone());
                let changed = self.expect(name, delta);
                assert_eq!(applied.changed, changed);
            }
            Step::Update(name, mut delta) => {
                delta.forget(self.floor_us, |_| {});
                let seen =
                    self.location.update(&aor(name), |record| (record.clone(), &delta), |(_, delta)| Some(delta)).0;
                assert_eq!(seen, self.plain.get(&aor(name)).cloned().unwrap_or_default());
                self.expect(name, delta);
            }
            Step::Refresh(name, delta) => {
                let names: Vec<Aor> = (0..6).map(aor).collect();
                let sought: Vec<Sought<'_>> = names.iter().map(|name| self.location.seek(name.as_str())).collect();
                self.location.touch(sought.iter().map(Sought::hash));
                if Refresh::of(&delta).is_some_and(|refresh| self.location.refresh(&sought[name], &refresh)) {
                    assert!(self.expect(name, delta), "refreshed, and not changed");
                }
            }
            Step::Floor(seconds) => {
                self.location.set_floor(seconds * SECOND_US);
                self.floor_us = self.floor_us.max(seconds * SECOND_US);
                assert_eq!(self.location.floor_us(), self.floor_us);
                for record in self.plain.values_mut() {
                    record.forget(self.floor_us, |_| {});
                }
                self.plain.retain(|_, record| !record.is_empty());
            }
            Step::Sweep(now, buckets) => self.sweep(now, buckets),
            Step::Save(every) => _ = self.save(self.location.take_dirty(), every),
            Step::Await(name) => {
                self.location.await_on_disk(aor(name).as_str());
                self.awaited.insert(aor(name), self.plain.get(&aor(name)).cloned().unwrap_or_default());
            }
            Step::Commit(every) => {
                if self.save(self.location.take_awaited(), every) {
                    let awaited = std::mem::take(&mut self.awaited);
                    awaited.into_iter().for_each(|(aor, record)| self.check_one_saved(&aor, record));
                }
            }
        }
    }

    fn expect(&mut self, name: usize, mut delta: Record) -> bool {
        delta.forget(self.floor_us, |_| {});
        if delta.is_empty() {
            return false;
        }
        self.plain.entry(aor(name)).or_default().merge(&delta).changed
    }

    fn sweep(&mut self, now: u64, buckets: u32) {
        let swept = self.location.sweep(at(now), buckets);
        // Sweeping a part is allowed to do nothing; what it does, slimming included, shows in no view.
        if buckets == BUCKETS {
            let lapsed_us = at(now).cluster_us.saturating_sub(SLIM_AFTER_LAPSE_US);
            self.plain.values_mut().for_each(|record| _ = record.slim(lapsed_us, |_| {}));
        } else if swept.slimmed > 0 {
            self.plain = dump(&self.location);
        }
    }

    /// As a disk that takes but every n-th AoR; whether it took all.
    fn save(&mut self, taken: Vec<AorTag>, every: usize) -> bool {
        let mut all = true;
        for (at, tag) in taken.iter().enumerate() {
            if at % every != 0 {
                // Whether it got as far as this one or not.
                drop((at % 2 == 0).then(|| self.location.take_records(*tag)));
                self.location.put_back(&[*tag]);
                all = false;
                continue;
            }
            self.saved.extend(self.location.take_records(*tag));
        }
        all
    }

    /// The disk has all of what was awaited, but for what was slimmed or forgotten meanwhile.
    fn check_one_saved(&self, aor: &Aor, mut awaited: Record) {
        let mut saved = self.saved.get(aor).cloned().unwrap_or_default();
        for record in [&mut saved, &mut awaited] {
            record.forget(self.floor_us, |_| {});
            record.slim(u64::MAX, |_| {});
        }
        assert!(!saved.clone().merge(&awaited).changed, "{aor}: {saved:?} lacks {awaited:?}");
    }

    fn check(&mut self) {
        assert_eq!(dump(&self.location), self.plain);
        let (sum, counts) = recounted(&self.location);
        assert_eq!(self.location.root(), sum);
        assert_eq!(Counts { dirty: 0, ..self.location.counts() }, counts);
        for level in 0..=LEAF_LEVEL {
            let all: Vec<u32> = (0..width(level).expect("a level")).collect();
            assert_eq!(self.location.sums(level, &all).into_iter().fold(0, u128::wrapping_add), sum, "level {level}");
        }
    }

    /// What a restart would find, once all dirty AoRs are saved, is the table, but for what was slimmed or forgotten
    /// meanwhile.
    fn check_saved(&mut self) {
        self.save(self.location.take_dirty(), 1);
        assert_eq!(self.location.counts().dirty, 0);
        let slim = |records: &BTreeMap<Aor, Record>| {
            let mut records = records.clone();
            for record in records.values_mut() {
                record.forget(self.floor_us, |_| {});
                record.slim(u64::MAX, |_| {});
            }
            records.retain(|_, record| !record.is_empty());
            records
        };
        assert_eq!(slim(&self.saved), slim(&self.plain));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_sums_counts_and_dirty_aors_are_right(steps in prop::collection::vec(steps(), 1..60)) {
        let mut both = Both::new();
        for step in steps {
            both.step(step);
        }
        both.check();
        both.check_saved();
    }

    #[test]
    fn two_tables_agree_in_whatever_order_they_hear(
        deltas in prop::collection::vec((0_usize..6, records()).prop_shuffle_pair(), 1..30), floor in 0_u64..50,
    ) {
        let (one, two) = (Location::new(KEY, false), Location::new(KEY, false));
        for (name, record, _) in &deltas {
            one.apply(&aor(*name), record.clone());
        }
        one.set_floor(floor * SECOND_US);
        two.set_floor(floor * SECOND_US);
        let mut other_way = deltas;
        other_way.sort_by_key(|(_, _, order)| *order);
        for (name, record, _) in other_way {
            two.apply(&aor(name), record.clone());
            two.apply(&aor(name), record);
        }
        prop_assert_eq!(one.root(), two.root());
        prop_assert_eq!(dump(&one), dump(&two));
    }
}

/// A delta with a random place in another order.
trait ShufflePair: Strategy<Value = (usize, Record)> + Sized {
    fn prop_shuffle_pair(self) -> impl Strategy<Value = (usize, Record, u32)> {
        (self, any::<u32>()).prop_map(|((name, record), order)| (name, record, order))
    }
}

impl<S: Strategy<Value = (usize, Record)>> ShufflePair for S {}

fn filled(names: std::ops::Range<usize>) -> Location {
    let location = Location::new(KEY, true);
    for name in names {
        location.apply(&aor(name), entry(name % 3, 100 + name as u64, Some(3600)).into());
    }
    location
}

/// What two nodes do: walk down where sums differ, list, fetch what is missing or older.
fn repair(from: &Location, to: &Location) -> usize {
    let mut nodes = vec![0_u32];
    for level in 0..=LEAF_LEVEL {
        let (theirs, mine) = (from.sums(level, &nodes), to.sums(level, &nodes));
        let differ = nodes.iter().zip(theirs.into_iter().zip(mine)).filter(|(_, (theirs, mine))| theirs != mine);
        let differ: Vec<u32> = differ.map(|(index, _)| *index).collect();
        if level == LEAF_LEVEL {
            nodes = differ;
        } else {
            let children = |index| aorta_proto::digest::children(level, index).expect("an inner node");
            nodes = differ.into_iter().flat_map(children).collect();
        }
    }
    let mut moved = 0;
    for bucket in nodes {
        let mine: BTreeSet<Listed> = to.list(bucket).into_iter().collect();
        let missing: Vec<u64> =
            from.list(bucket).into_iter().filter(|theirs| !mine.contains(theirs)).map(|item| item.hash).collect();
        for (aor, part) in from.fetch(bucket, &missing) {
            moved += part.entries.len() + usize::from(part.cleared.is_some());
            to.apply(&aor, part);
        }
    }
    moved
}

#[test]
fn comparing_moves_only_the_difference() {
    let (one, two) = (filled(0..3000), filled(0..3000));
    assert_eq!((one.root(), repair(&one, &two)), (two.root(), 0));
    one.apply(&aor(7), entry(9, 5000, Some(60)).into());
    one.apply(&aor(8), cleared(5000));
    one.apply(&aor(9999), entry(1, 5000, Some(60)).into());
    assert_ne!(one.root(), two.root());
    assert_eq!(repair(&one, &two), 3);
    assert_eq!(one.root(), two.root());
    assert_eq!(dump(&one), dump(&two));
}

#[test]
fn a_floor_forgets_the_same_whether_swept_or_not() {
    let (swept, unswept) = (filled(0..500), filled(0..500));
    let late = filled(300..500);
    let floor_us = stamp(399).time_us;
    for location in [&swept, &unswept] {
        location.set_floor(floor_us);
    }
    assert_eq!(swept.sweep(at(0), BUCKETS), Swept { slimmed: 0, forgotten: 300 });
    assert_eq!(swept.root(), unswept.root());
    assert_eq!(swept.root(), late.root());
    assert_eq!(unswept.counts().aors, 200);
    let below = swept.apply(&aor(1), entry(1, 399, Some(60)).into());
    assert_eq!(below, Applied { changed: false, conflict: false, ignored: 1 });
    assert!(swept.apply(&aor(1), entry(1, 400, Some(60)).into()).changed);
    swept.set_floor(0);
    assert_eq!(swept.floor_us(), floor_us);
}

#[test]
fn a_lapsed_contact_is_slimmed_some_seconds_later_and_no_digest_moves() {
    let location = filled(0..10);
    let root = location.root();
    let lapse = 100 + 3600;
    assert_eq!(location.sweep(at(lapse), BUCKETS), Swept::default());
    assert_eq!(location.get(&aor(0), |record| record.expect("known").live(at(lapse).cluster_us).count()), 0);
    let later = lapse + SLIM_AFTER_LAPSE_US / SECOND_US;
    assert_eq!(location.sweep(at(later), BUCKETS).slimmed, 1);
    assert_eq!(location.sweep(at(later), BUCKETS).slimmed, 0);
    let Counts { aors, live, gone, dirty, .. } = location.counts();
    assert_eq!((aors, live, gone, dirty), (10, 9, 1, 10));
    assert_eq!(location.root(), root);
}

#[test]
fn a_sweep_in_small_steps_comes_by_every_bucket() {
    let location = filled(0..2000);
    let steps = BUCKETS.div_ceil(777);
    let slimmed: usize = (0..steps).map(|_| location.sweep(at(10_000), 777).slimmed).sum();
    assert_eq!(slimmed, 2000);
}

#[test]
fn what_a_disk_gave_is_dirty_only_where_it_differs() {
    let location = Location::new(KEY, true);
    let record = Record::from(entry(1, 100, Some(60)));
    location.restore(&aor(1), record.clone());
    assert_eq!(location.counts().dirty, 0);
    location.apply(&aor(2), entry(2, 200, Some(60)).into());
    location.restore(&aor(2), record.clone());
    assert_eq!(location.counts().dirty, 1, "merged with what a peer said first");
    location.set_floor(stamp(150).time_us);
    location.restore(&aor(3), record);
    assert_eq!(location.counts().dirty, 1, "below the floor: nothing to write");
    let mut later = Record::from(entry(1, 100, Some(60)));
    later.merge(&entry(2, 200, Some(60)).into());
    location.restore(&aor(4), later);
    assert_eq!(location.counts().dirty, 2, "some of it below the floor");
    let dirty = location.take_dirty();
    let taken: Vec<_> = dirty.iter().flat_map(|tag| location.take_records(*tag)).collect();
    assert_eq!(taken.len(), 2);
    assert!(taken.contains(&(aor(4), entry(2, 200, Some(60)).into())));
    location.put_back(&dirty);
    assert_eq!(location.counts().dirty, 2);
}

#[test]
fn without_snapshots_nothing_is_remembered_for_them() {
    let location = Location::new(KEY, false);
    location.apply(&aor(1), entry(1, 100, Some(60)).into());
    location.await_all_on_disk();
    assert_eq!(location.counts().dirty, 0);
}

#[test]
fn who_looks_ahead_waits_for_nobody() {
    let location = Location::new(KEY, true);
    let names: Vec<Aor> = (0..2 * SOUGHT_AT_ONCE).map(aor).collect();
    names.iter().for_each(|name| _ = location.apply(name, entry(1, 100, Some(60)).into()));
    let sought: Vec<Sought<'_>> = names.iter().map(|name| location.seek(name.as_str())).collect();
    // A judgement runs under the lock of its AoR, and nobody would ever release it.
    location.update(&names[0], |_| location.touch(sought.iter().map(Sought::hash)), |()| None);
    let twice = [sought[1], sought[1]];
    location.touch(twice.iter().map(Sought::hash));
    location.update(&names[1], |_| (), |()| None);
}

#[test]
fn writers_and_readers_from_many_threads_lose_nothing() {
    let location = Location::new(KEY, true);
    let names: Vec<Aor> = (0..50).map(aor).collect();
    let sought: Vec<Sought<'_>> = names.iter().map(|name| location.seek(name.as_str())).collect();
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let (location, sought) = (&location, &sought);
            scope.spawn(move || {
                for round in 0..2000_usize {
                    let seconds = 1 + (round * 4 + thread) as u64;
                    location.touch(sought[round % 50..].iter().map(Sought::hash));
                    let refreshed = |_: &Record| Record::from(entry(thread, seconds, Some(60)));
                    location.update(&aor(round % 50), refreshed, |refreshed| Some(refreshed));
                    location.sweep(at(1), 64);
                    location.set_floor(round as u64 / 1000);
                }
            });
        }
    });
    assert_eq!(location.counts().live, 200);
    assert_eq!(location.root(), recounted(&location).0);
}
