//! What a contact costs in memory, of the table alone: every byte that it asks the allocator for. Bounds, to be lowered: a
//! change that raises one says here why. And that the table knows what it takes.

#![allow(unsafe_code, reason = "a global allocator that counts; it only forwards to the system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aorta::clock::Now;
use aorta::location::Location;
use aorta_proto::digest::BUCKETS;
use aorta_proto::{Aor, Binding, BindingParts, BootId, ContactKey, Entry, NodeId, Record, Stamp, Value, binding};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// As an allocator rounds that has four classes between two powers of two.
fn rounded(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 8).max(16);
    bytes.next_multiple_of(step)
}

// SAFETY: every call goes to `System` unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(rounded(layout.size()), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(rounded(layout.size()), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CONTACTS: u32 = 400_000;

fn stamp(time_us: u64) -> Stamp {
    Stamp { time_us: 1_700_000_000_000_000 + time_us, counter: 0, boot: BootId(0x1234_5678_9abc_def0) }
}

/// What a node hears of a desk phone behind an SBC: first a flow and its trail, then each refresh.
fn change(phone: u32, refreshed_us: u64, node: &NodeId) -> (Aor, Record) {
    let first = stamp(u64::from(phone));
    let instance = format!("<urn:uuid:f81d4fae-7dec-11d0-a765-0000{phone:08x}>");
    let address = format!("10.{}.{}.{}", 100 + phone / 10_000 % 100, 100 + phone / 100 % 100, 100 + phone % 100);
    let uri = format!("sip:{}@{address}:10000;transport=udp", 10_000_000 + phone);
    let call_id = format!("4b1f7c9a-{phone:08x}-88d2-60f8c0a1e5b7@{address}");
    let uri_hash = binding::uri_hash(uri.as_bytes());
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
        accepted_by: node,
    });
    let flow = Entry {
        key: ContactKey::instance(instance.as_bytes(), 1),
        stamp: stamp(u64::from(phone) + refreshed_us),
        call_id_hash: binding::call_id_hash(call_id.as_bytes()),
        cseq: 100_000_000 + u32::from(refreshed_us > 0),
        uri_hash,
        value: Value::Live(Arc::new(binding)),
    };
    let trail = Entry { key: ContactKey::trail(uri_hash), value: Value::Gone, ..flow.clone() };
    let entries = if refreshed_us == 0 { vec![trail, flow] } else { vec![flow] };
    (Aor::from_canonical(&format!("{}@example.com", 10_000_000 + phone)), Record { cleared: None, entries })
}

/// What a table says that it takes is within a hundredth of what it holds, but for the words that contacts share, and what
/// is there once: locks, and what a thread keeps for its next record.
fn is_near(said: u64, held: usize) {
    let (said, once) = (said as usize, 512 << 10);
    println!("says {said} bytes, holds {held}");
    assert!(said.abs_diff(held) <= held / 100 + once, "says {said} bytes, holds {held}");
}

/// Of the queue for the disk, filled, awaited in part and taken.
fn the_queue_for_the_disk_counts(node: &NodeId) {
    let before = HELD.load(Ordering::Relaxed);
    let location = Location::new([7; 16], true);
    let near = || is_near(location.counts().bytes, HELD.load(Ordering::Relaxed) - before);
    for (aor, record) in (0..CONTACTS).map(|phone| change(phone, 0, node)) {
        assert!(location.apply(&aor, record).changed);
        if aor.as_str().starts_with("100") {
            location.await_on_disk(aor.as_str());
        }
    }
    let filled = location.counts().bytes;
    near();
    drop(location.take_awaited());
    near();
    drop(location.take_dirty());
    near();
    let queue = (filled - location.counts().bytes) / u64::from(CONTACTS);
    assert!((1..=8).contains(&queue), "{queue} bytes for each AoR in the queue");
}

#[test]
fn a_contact_costs_no_more_than_is_said_here() {
    let node = NodeId::new("node1").expect("a node id");
    let before = HELD.load(Ordering::Relaxed);
    let location = Location::new([7; 16], false);
    let cost = || {
        let held = HELD.load(Ordering::Relaxed) - before;
        is_near(location.counts().bytes, held);
        held / CONTACTS as usize
    };
    let apply = |refreshed_us| {
        for (aor, record) in (0..CONTACTS).map(|phone| change(phone, refreshed_us, &node)) {
            assert!(location.apply(&aor, record).changed);
        }
        cost()
    };
    let (new, refreshed) = (apply(0), apply(1_800_000_000));
    let lapsed = Now { mono_us: 0, cluster_us: stamp(10_000_000_000).time_us };
    assert_eq!(location.sweep(lapsed, BUCKETS).slimmed, CONTACTS as usize);
    let gone = cost();
    location.set_floor(stamp(10_000_000_000).time_us);
    assert_eq!(location.sweep(lapsed, BUCKETS).forgotten, 2 * CONTACTS as usize);
    let forgotten = cost();
    drop(location);
    the_queue_for_the_disk_counts(&node);
    println!("bytes a contact: new {new}, refreshed {refreshed}, gone {gone}, forgotten {forgotten}");
    assert!(
        new <= 240 && refreshed <= 256 && gone <= 136 && forgotten <= 16,
        "{new}, {refreshed}, {gone}, {forgotten}"
    );
}
