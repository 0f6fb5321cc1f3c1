//! Membership as chitchat gives it, in small: heartbeats and keys that spread over connections, and a time after which a
//! silent member is dropped. Knows no replication beyond what a member says.

use std::collections::BTreeMap;
use std::rc::Rc;

use aorta::replication::Member;
use aorta_proto::NodeId;
use aorta_proto::frame::PeerState;

/// A member whose heartbeat has not moved for so long is dropped, µs.
const DROPPED_AFTER_US: u64 = 1_000_000;

/// What one node knows of one member.
#[derive(Debug, Clone)]
struct Known {
    boot: u64,
    version: u64,
    heartbeat: u64,
    moved_us: u64,
    said: Rc<Said>,
}

/// What a member says of itself: as it travels, and as others read it, which all do alike.
#[derive(Debug, Default)]
struct Said {
    keys: BTreeMap<String, String>,
    member: Option<Member>,
}

/// What one node knows of all.
#[derive(Debug)]
pub(super) struct Gossip {
    known: Vec<Option<Known>>,
}

impl Gossip {
    /// A process that has heard nothing yet.
    pub(super) fn new(nodes: usize) -> Self {
        Self { known: vec![None; nodes] }
    }

    /// A beat of the node itself.
    pub(super) fn beat(&mut self, me: usize, id: NodeId, boot: u64, keys: BTreeMap<String, String>, now_us: u64) {
        let fresh = || Known { boot, version: 0, heartbeat: 0, moved_us: now_us, said: Rc::default() };
        let mine = self.known[me].get_or_insert_with(fresh);
        if mine.boot != boot {
            *mine = fresh();
        }
        mine.heartbeat += 1;
        mine.moved_us = now_us;
        if mine.said.keys != keys {
            mine.version += 1;
            let member = Member::from_keys(id, &keys).ok();
            mine.said = Rc::new(Said { keys, member });
        }
    }

    /// Takes what is newer at another.
    pub(super) fn hear(&mut self, other: &Self, now_us: u64) {
        for (mine, theirs) in self.known.iter_mut().zip(&other.known) {
            let Some(theirs) = theirs else { continue };
            match mine {
                Some(mine) if mine.boot > theirs.boot => {}
                Some(mine) if mine.boot == theirs.boot => {
                    if theirs.heartbeat > mine.heartbeat {
                        mine.heartbeat = theirs.heartbeat;
                        mine.moved_us = now_us;
                    }
                    if theirs.version > mine.version {
                        mine.version = theirs.version;
                        mine.said = Rc::clone(&theirs.said);
                    }
                }
                _ => *mine = Some(Known { moved_us: now_us, ..theirs.clone() }),
            }
        }
    }

    /// Whether this process of a member is shown as one that joins.
    pub(super) fn shows_joining(&self, member: usize, boot: u64) -> bool {
        let known = self.known[member].as_ref().filter(|known| known.boot == boot);
        let said = known.and_then(|known| known.said.member.as_ref());
        said.is_some_and(|member| member.state == PeerState::Joining)
    }

    /// The members that are alive, and have said what they must.
    pub(super) fn alive(&self, now_us: u64) -> impl Iterator<Item = &Member> {
        let lives = move |known: &&Known| now_us.saturating_sub(known.moved_us) < DROPPED_AFTER_US;
        self.known.iter().flatten().filter(lives).filter_map(|known| known.said.member.as_ref())
    }
}
