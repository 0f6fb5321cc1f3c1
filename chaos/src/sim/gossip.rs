//! Membership as chitchat gives it, in small: heartbeats and keys that spread over connections, and a time after which a
//! silent member is dropped. Knows no replication.

use std::collections::BTreeMap;

use aorta_proto::NodeId;

/// A member whose heartbeat has not moved for so long is dropped, µs.
const DROPPED_AFTER_US: u64 = 1_000_000;

/// What one node knows of one member.
#[derive(Debug, Clone)]
struct Known {
    boot: u64,
    version: u64,
    heartbeat: u64,
    moved_us: u64,
    keys: BTreeMap<String, String>,
}

/// What one node knows of all.
#[derive(Debug, Default, Clone)]
pub(super) struct Gossip {
    known: BTreeMap<NodeId, Known>,
}

impl Gossip {
    /// A beat of the node itself.
    pub(super) fn beat(&mut self, me: &NodeId, boot: u64, keys: BTreeMap<String, String>, now_us: u64) {
        let fresh = || Known { boot, version: 0, heartbeat: 0, moved_us: now_us, keys: BTreeMap::new() };
        let mine = self.known.entry(me.clone()).or_insert_with(fresh);
        if mine.boot != boot {
            *mine = fresh();
        }
        mine.heartbeat += 1;
        mine.moved_us = now_us;
        if mine.keys != keys {
            mine.version += 1;
            mine.keys = keys;
        }
    }

    /// Takes what is newer at another.
    pub(super) fn hear(&mut self, other: &Self, now_us: u64) {
        for (id, theirs) in &other.known {
            match self.known.get_mut(id) {
                Some(mine) if mine.boot > theirs.boot => {}
                Some(mine) if mine.boot == theirs.boot => {
                    if theirs.heartbeat > mine.heartbeat {
                        mine.heartbeat = theirs.heartbeat;
                        mine.moved_us = now_us;
                    }
                    if theirs.version > mine.version {
                        mine.version = theirs.version;
                        mine.keys = theirs.keys.clone();
                    }
                }
                _ => {
                    self.known.insert(id.clone(), Known { moved_us: now_us, ..theirs.clone() });
                }
            }
        }
    }

    /// The members that are alive.
    pub(super) fn alive(&self, now_us: u64) -> impl Iterator<Item = (&NodeId, &BTreeMap<String, String>)> {
        let lives = move |known: &Known| now_us.saturating_sub(known.moved_us) < DROPPED_AFTER_US;
        self.known.iter().filter(move |(_, known)| lives(known)).map(|(id, known)| (id, &known.keys))
    }
}
