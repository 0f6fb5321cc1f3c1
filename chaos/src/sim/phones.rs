//! Simulated phones and what they were told. The judge's model comes only from requests sent and answers received.

use aorta_proto::{Aor, Binding, ContactKey, Entry, NodeId, Octets, Record, Stamp, Value};
use std::sync::Arc;

/// What a phone asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Register { granted_s: u32 },
    Remove,
}

/// What it heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing yet, or never: it may have been written or not.
    Nothing,
    /// 200, and fewer acks than asked for.
    Short,
    /// 200.
    Full,
}

#[derive(Debug, Clone)]
struct Request {
    id: u64,
    wish: Wish,
    sent_us: u64,
    heard: Heard,
}

/// One contact of one AoR.
#[derive(Debug)]
pub(super) struct Phone {
    pub(super) aor: Aor,
    key: ContactKey,
    requests: Vec<Request>,
}

/// What a node must answer about a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Must {
    Ring,
    NotRing,
    Either,
}

/// A phone gives up waiting for an answer after this, µs.
pub(super) const PATIENCE_US: u64 = 1_000_000;

/// Around the moment of its lapse a contact may be there or not, µs.
const LAPSE_TOLERANCE_US: u64 = 1_000_000;

impl Phone {
    pub(super) fn new(aor: usize, contact: usize) -> Self {
        let key = ContactKey::uri(format!("sip:u{aor}@192.0.2.{contact}").as_bytes());
        Self { aor: Aor::from_canonical(&format!("u{aor}@example.com")), key, requests: Vec::new() }
    }

    /// Whether it waits for an answer.
    pub(super) fn is_busy(&self, now_us: u64) -> bool {
        self.requests.last().is_some_and(|last| last.heard == Heard::Nothing && now_us < last.sent_us + PATIENCE_US)
    }

    /// Whether anything is there, as far as the phone knows.
    pub(super) fn is_registered(&self) -> bool {
        self.requests.last().is_some_and(|last| last.wish != Wish::Remove)
    }

    pub(super) fn asks(&mut self, id: u64, wish: Wish, now_us: u64) {
        self.requests.push(Request { id, wish, sent_us: now_us, heard: Heard::Nothing });
    }

    /// An answer; what was acknowledged in full makes everything before it history.
    pub(super) fn hears(&mut self, id: u64, heard: Heard) {
        let Some(at) = self.requests.iter().position(|request| request.id == id) else { return };
        self.requests[at].heard = heard;
        if heard == Heard::Full {
            self.requests.drain(..at);
        }
    }

    /// What must be true of it now, if cluster time may be up to `ahead_us` ahead of true time.
    pub(super) fn must(&self, now_us: u64, ahead_us: u64) -> Must {
        let first_counts = self.requests.first().is_some_and(|first| first.heard == Heard::Full);
        let before = if first_counts { None } else { Some(Must::NotRing) };
        let mut possible = before.into_iter().chain(self.requests.iter().map(|request| request.must(now_us, ahead_us)));
        let Some(first) = possible.next() else { return Must::NotRing };
        if possible.all(|other| other == first) { first } else { Must::Either }
    }

    /// What the accepting node writes.
    pub(super) fn delta(&self, wish: Wish, before: &Record, stamp: Stamp, node: &NodeId, id: u64) -> Record {
        let value = match wish {
            Wish::Remove => Value::Gone,
            Wish::Register { granted_s } => {
                let first = before.entry(&self.key).and_then(Entry::binding).map_or(stamp, |binding| binding.first);
                Value::Live(Arc::new(Binding {
                    first,
                    granted_s,
                    uri: Octets::from(&self.key.as_bytes()[1..]),
                    params: Octets::default(),
                    q: None,
                    path: Vec::new(),
                    call_id: Octets::from("call"),
                    user_agent: Octets::default(),
                    source: Octets::default(),
                    accepted_by: node.clone(),
                }))
            }
        };
        let (call_id_hash, uri_hash, cseq) = (1, 1, u32::try_from(id).unwrap_or(u32::MAX));
        Record::from(Entry { key: self.key.clone(), stamp, call_id_hash, cseq, uri_hash, value })
    }

    /// Whether a record lets it ring.
    pub(super) fn rings(&self, record: Option<&Record>, cluster_us: u64) -> bool {
        record.is_some_and(|record| record.live(cluster_us).any(|entry| entry.key == self.key))
    }
}

impl Request {
    fn must(&self, now_us: u64, ahead_us: u64) -> Must {
        let Wish::Register { granted_s } = self.wish else { return Must::NotRing };
        let lapses_us = self.sent_us + u64::from(granted_s) * 1_000_000;
        if now_us + LAPSE_TOLERANCE_US + ahead_us < lapses_us {
            Must::Ring
        } else if now_us > lapses_us + LAPSE_TOLERANCE_US {
            Must::NotRing
        } else {
            Must::Either
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_answer_settles_anything() {
        let mut phone = Phone::new(0, 0);
        assert_eq!(phone.must(0, 0), Must::NotRing);
        phone.asks(1, Wish::Register { granted_s: 60 }, 0);
        assert_eq!(phone.must(1, 0), Must::Either);
        phone.hears(1, Heard::Short);
        assert_eq!(phone.must(1, 0), Must::Either);
        phone.asks(2, Wish::Register { granted_s: 60 }, 10);
        phone.hears(2, Heard::Full);
        assert_eq!(phone.must(11, 0), Must::Ring);
        assert_eq!(phone.must(70_000_000, 0), Must::NotRing);
        phone.asks(3, Wish::Remove, 20);
        assert_eq!(phone.must(21, 0), Must::Either);
    }
}
