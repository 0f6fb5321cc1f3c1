//! What HTTP answers look like. Field names are what scripts rely on: add, never rename.

use aorta_proto::{Aor, Binding, Cleared, Entry, Record, Stamp, Value};
use serde::{Deserialize, Serialize};

/// `/v1/cluster`: one node's view of itself and the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterView {
    /// The node that answers.
    pub node: String,
    /// Its process, in hex: another one after each start.
    pub boot: String,
    /// Its version.
    pub version: String,
    /// What it is doing, in a word: `ready`, `joining`, `draining`.
    pub state: String,
    /// Whether it serves.
    pub ready: bool,
    /// Why not, or what is restricted.
    pub reason: Option<String>,
    /// Cluster time, microseconds since 1970.
    pub cluster_time_us: u64,
    /// What is at or below this is forgotten, microseconds since 1970.
    pub floor_us: u64,
    /// AoRs with anything known of them.
    pub aors: u64,
    /// Live contacts.
    pub contacts: u64,
    /// Removed and lapsed contacts that are remembered.
    pub gone: u64,
    /// Memory that all this takes, bytes.
    pub location_bytes: u64,
    /// What it may take before new AoRs get 403 at every node, bytes; 0 for no limit.
    pub memory_max_bytes: u64,
    /// Nodes whose memory is full, as the answering one sees it.
    pub memory_full: Vec<String>,
    /// Root of its digest tree, in hex: equal on nodes that hold the same.
    pub digest: String,
    /// Replies that wait for acks.
    pub pending_replies: u64,
    /// The highest wire version that it reads.
    pub wire_version_max: u8,
    /// The one that it writes: the highest that every member it remembers reads.
    pub wire_version: u8,
    /// Wall clocks that are off, each in a sentence. Contacts do not go by them.
    pub clock_notes: Vec<String>,
    /// The other nodes that it knows.
    pub members: Vec<MemberView>,
}

/// Another node, as the answering one sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberView {
    /// Its name.
    pub node: String,
    /// Its process, in hex.
    pub boot: String,
    /// What it says of itself.
    pub state: String,
    /// Its version.
    pub version: String,
    /// Where other nodes reach it.
    pub address: String,
    /// Its HTTP address, where known.
    pub http: Option<String>,
    /// Membership shows it alive; a node only remembered from before is not.
    pub present: bool,
    /// A link to it is up.
    pub linked: bool,
    /// Its acks are not awaited for now.
    pub suspect: bool,
    /// Changes sent to it and not acknowledged.
    pub lag: u64,
    /// How long its last changes took from publication there to the answering node's table, microseconds.
    pub lag_us: Option<u64>,
    /// By how much its wall clock is ahead of the answering node's, microseconds.
    pub wall_clock_skew_us: Option<i64>,
    /// The highest wire version that it reads, as far as is known.
    pub wire_version_max: u8,
    /// What it held when it last said so, at most some seconds ago.
    pub table: Option<TableView>,
}

/// What a node says of its table in gossip, once a second while that changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableView {
    /// AoRs with anything known of them.
    pub aors: u64,
    /// Live contacts.
    pub contacts: u64,
    /// Memory that all this takes, bytes; 0 where it does not say.
    pub location_bytes: u64,
    /// What it may take, bytes; 0 for no limit.
    pub memory_max_bytes: u64,
    /// Root of its digest tree, in hex.
    pub digest: String,
    /// Whom it is linked with.
    pub links: Vec<String>,
}

/// What a removal did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Live contacts that it removed.
    pub removed: usize,
    /// Fewer nodes than were asked had acknowledged it in time.
    pub short: bool,
}

/// One live contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContactView {
    /// The Contact URI.
    pub contact: String,
    /// Its parameters but `expires`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub params: String,
    /// Its q in thousandths, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q: Option<u16>,
    /// The Path vector, first to last.
    pub path: Vec<String>,
    /// Transport and address that the REGISTER came from.
    pub source: String,
    /// The phone's User-Agent.
    pub user_agent: String,
    /// Call-ID of the REGISTER that wrote it.
    pub call_id: String,
    /// And its CSeq.
    pub cseq: u32,
    /// The node that accepted it.
    pub node: String,
    /// When it was written: time in microseconds since 1970, counter, process.
    pub stamp: String,
    /// When the contact was first registered.
    pub first: String,
    /// Lifetime granted, seconds.
    pub granted_s: u32,
    /// What is left of it, seconds, rounded up.
    pub remaining_s: u64,
}

/// A contact that is no more, and remembered so that nothing late brings it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GoneView {
    /// The contact's key.
    pub key: String,
    /// When it was removed, or last registered.
    pub stamp: String,
    /// CSeq of the REGISTER that wrote that.
    pub cseq: u32,
    /// `removed`, `lapsed` or `hidden` by a later contact with the same URI.
    pub why: &'static str,
}

/// All that is known of an AoR.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AorView {
    /// The AoR.
    pub aor: String,
    /// Live contacts, in the order of their keys.
    pub contacts: Vec<ContactView>,
    /// The others.
    pub gone: Vec<GoneView>,
    /// Stamp of the last `Contact: *`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleared: Option<String>,
}

impl AorView {
    /// What `record` says at `now_us` of cluster time.
    #[must_use]
    pub fn of(aor: &Aor, record: &Record, now_us: u64) -> Self {
        let contacts: Vec<ContactView> = live(record, now_us).collect();
        let gone = gone(record, now_us).collect();
        Self { aor: aor.to_string(), contacts, gone, cleared: record.cleared.map(|Cleared { stamp, .. }| text(stamp)) }
    }
}

/// The live contacts of a record.
pub(super) fn live(record: &Record, now_us: u64) -> impl Iterator<Item = ContactView> {
    record.live(now_us).filter_map(move |entry| match &entry.value {
        Value::Live(binding) => Some(contact(entry, binding, now_us)),
        Value::Gone => None,
    })
}

/// What a record only remembers.
pub(super) fn gone(record: &Record, now_us: u64) -> impl Iterator<Item = GoneView> {
    let is_live = move |entry: &Entry| record.live(now_us).any(|live| live.key == entry.key);
    record.entries.iter().filter(move |entry| !is_live(entry)).map(move |entry| GoneView {
        key: format!("{:?}", entry.key),
        stamp: text(entry.stamp),
        cseq: entry.cseq,
        why: match entry.lapses_us() {
            None => "removed",
            Some(lapses_us) if lapses_us <= now_us => "lapsed",
            Some(_) => "hidden",
        },
    })
}

fn contact(entry: &Entry, binding: &Binding, now_us: u64) -> ContactView {
    let left_us = entry.lapses_us().unwrap_or_default().saturating_sub(now_us);
    ContactView {
        contact: bytes(binding.uri()),
        params: bytes(binding.params()),
        q: binding.q,
        path: binding.path().map(bytes).collect(),
        source: bytes(binding.source()),
        user_agent: bytes(binding.user_agent()),
        call_id: bytes(binding.call_id()),
        cseq: entry.cseq,
        node: binding.accepted_by.to_string(),
        stamp: text(entry.stamp),
        first: text(binding.first),
        granted_s: binding.granted_s,
        remaining_s: left_us.div_ceil(1_000_000),
    }
}

pub(super) fn text(stamp: Stamp) -> String {
    format!("{}.{}.{:016x}", stamp.time_us, stamp.counter, stamp.boot.0)
}

/// Bytes as text: what is not UTF-8 as `\xNN`, so that different bytes are seen to differ.
fn bytes(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len());
    for chunk in octets.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}
