//! Removals that no REGISTER asked for: an operator's. They leave Call-ID and CSeq of what they remove in place, so that a
//! late REGISTER cannot undo them, and a phone that registers anew with a higher CSeq can.

use aorta_proto::{Cleared, ContactKey, Entry, Record, Stamp, Value};

use super::RegistrarLimits;

/// What to remove of an AoR.
#[derive(Debug, Clone)]
pub enum Which {
    /// All, seen here or not, as `Contact: *` does.
    All,
    /// Every contact with this URI, whatever its key.
    Uri {
        /// The key of a contact with that URI and no instance.
        key: ContactKey,
        /// Fingerprint of its canonical form.
        uri_hash: u64,
    },
}

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Merge and publish this; `None` when there was neither a match nor room to remember the removal.
    pub delta: Option<Record>,
    /// How many live contacts it removed.
    pub live: usize,
}

/// Removes on behalf of a person, under a newly drawn stamp.
#[must_use]
pub fn remove(which: &Which, record: &Record, now_us: u64, limits: &RegistrarLimits, stamp: Stamp) -> Removed {
    match which {
        Which::All => {
            let (call_id_hash, cseq) = record.cleared.map_or((0, 0), |cleared| (cleared.call_id_hash, cleared.cseq));
            let cleared = Some(Cleared { stamp, call_id_hash, cseq });
            Removed { delta: Some(Record { cleared, entries: Vec::new() }), live: record.live(now_us).count() }
        }
        Which::Uri { key, uri_hash } => {
            let matches = |entry: &&Entry| entry.uri_hash == *uri_hash || entry.key == *key;
            let live = record.live(now_us).filter(matches).count();
            // A flow that has left the URI since, unknown here, is not meant: those that are there go under their own stamps.
            let flows = record.entries.iter().filter(matches).filter(|entry| entry.key.is_instance());
            let flows = flows.filter(|entry| entry.binding().is_some());
            let mut entries: Vec<Entry> = flows.map(|flow| flow.gone_at(flow.stamp.machine_made())).collect();
            let unseen =
                Entry { key: key.clone(), stamp, call_id_hash: 0, cseq: 0, uri_hash: *uri_hash, value: Value::Gone };
            match record.entry(key) {
                Some(entry) => entries.push(entry.gone_at(stamp)),
                None if record.entries.len() < limits.entries_per_aor_max => entries.push(unseen),
                None => {}
            }
            let delta = (!entries.is_empty()).then_some(Record { cleared: None, entries });
            Removed { delta, live }
        }
    }
}
