//! REGISTER → what to write and what to answer (RFC 3261 §10.3 steps 6 to 8). Pure: it reads no clock, no socket and no
//! SIP message, and it writes nothing: `judge` runs inside `Location::update`, which merges the delta that it returns.
//! [`register`] does both, and judges what is most of all requests by less.
//!
//! The whole request or nothing: every contact is judged against the record as it is before the first change is made.
//!
//! What decides whether a REGISTER is accepted (design: one order): CSeq within a Call-ID, per contact, as the RFC has it,
//! against live, removed and lapsed entries alike and against the last `Contact: *`. What decides between two accepted
//! ones, on any node, is the stamp alone.
//!
//! Decisions
//! - A contact matches the entry with its own key, and entries of the other kind of key with the same URI (firmware that
//!   begins to send `reg-id`; an operator who removes by URI). What a write supersedes is hidden by the view, in whatever
//!   order nodes hear of it; it keeps its own Call-ID and CSeq, so a late REGISTER of the superseded kind is still refused.
//!   What a write means never depends on what the node that accepts it happens to know: a flow writes a `trail`.
//! - A lower CSeq is judged per binding (§10.3 step 7), not per AoR: a phone that restarts with a persistent Call-ID, a
//!   new port and CSeq 1 must not be locked out until its old entries are forgotten. An equal CSeq is judged per AoR: two
//!   requests with one Call-ID and CSeq are either one request, sent again, or a fault.
//! - While memory is full (2026-11), an AoR gets contacts if something is known of it, be it a removal: a phone that
//!   unregisters when it restarts is no stranger. Refused: to ask for a live contact from the first, which turns away who
//!   came back a moment later, and frees nothing, for what is removed is remembered for hours; to write no removal where
//!   nothing is known, which leaves a ghost where the binding was on its way. So a stranger that unregisters first gets in,
//!   until the second step ([`crate::location::Room`]) asks for a live contact. 403 and not 503: every node would say it.
//! - What is remembered of who removed is one Call-ID and CSeq a key, and one for `Contact: *`. A message that comes again
//!   after another Call-ID wrote the same key, or cleared, is judged as new: RFC 3261 orders only within a Call-ID.
//! - A retransmission is known by its contents alone (Call-ID, CSeq, URIs, parameters, Path, lifetimes), not by its branch
//!   or source: an SBC that fails over sends it from another transaction.

mod judge;
mod limits;
mod refusal;
mod removal;
mod renew;
mod trail;

use std::borrow::Cow;
use std::sync::Arc;

use aorta_proto::mutant::{Mutant, is};
use aorta_proto::{Binding, ContactKey, NodeId, Record};
use smallvec::SmallVec;

pub use judge::judge;
pub use limits::RegistrarLimits;
pub use refusal::Refusal;
pub use removal::{Removed, Which, remove};
pub use renew::register;

/// One REGISTER as far as the registrar must know it. Made by `sip::uas`; the AoR is not in it, for it has chosen the record.
#[derive(Debug, Clone)]
pub struct RegisterRequest<'a> {
    /// Call-ID, byte for byte.
    pub call_id: &'a [u8],
    /// Its fingerprint, as entries keep it.
    pub call_id_hash: u64,
    /// CSeq number.
    pub cseq: u32,
    /// What the Contact headers ask for.
    pub contacts: Contacts<'a>,
    /// The Expires header.
    pub expires: Expires,
    /// Path values (RFC 3327), first to last, each byte for byte.
    pub path: &'a [&'a [u8]],
    /// User-Agent, empty when there is none.
    pub user_agent: &'a [u8],
    /// Where it came from: `udp:192.0.2.1:5060`.
    pub source: &'a [u8],
    /// This node.
    pub node: &'a NodeId,
}

/// What the Contact headers of a REGISTER ask for.
#[derive(Debug, Clone)]
pub enum Contacts<'a> {
    /// No Contact: a query (§10.2.3).
    Query,
    /// `Contact: *`, alone: remove all (§10.2.2).
    Star,
    /// Add, refresh or remove these.
    List(&'a [ContactWish<'a>]),
}

/// One Contact of a REGISTER.
#[derive(Debug, Clone)]
pub struct ContactWish<'a> {
    /// What makes it the same as another contact of the AoR.
    pub key: ContactKey,
    /// Fingerprint of the canonical URI.
    pub uri_hash: u64,
    /// The URI, the bytes inside `<>`.
    pub uri: &'a [u8],
    /// Every parameter but `expires`, byte for byte, each with its leading `;`.
    pub params: Cow<'a, [u8]>,
    /// `q` in thousandths.
    pub q: Option<u16>,
    /// The `expires` parameter.
    pub expires: Expires,
}

/// A lifetime that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expires {
    /// Not given.
    Absent,
    /// Given, but no number of seconds.
    Malformed,
    /// Seconds; 0 removes.
    Seconds(u32),
}

/// What became of a REGISTER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// 200.
    Accepted {
        /// What must be known elsewhere before the 200 goes out.
        write: Write,
        /// Every contact that the AoR now has: what the 200 lists (§10.3 step 8).
        bindings: Bindings,
    },
    /// Nothing was changed.
    Refused(Refusal),
}

impl Judged {
    /// What `Location::update` must merge.
    #[must_use]
    pub fn delta(&self) -> Option<&Record> {
        match self {
            Self::Accepted { write: Write::New(delta), .. } => Some(delta),
            Self::Accepted { write: Write::Nothing | Write::Again(_), .. } | Self::Refused(_) => None,
        }
    }
}

/// What an accepted REGISTER changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Nothing, and no ack is awaited: a query, or a removal that there was no room to remember.
    Nothing,
    /// Merge this, publish it and await its acks.
    New(Record),
    /// A retransmission: merge nothing, publish the stored entries again under their own stamps and await their acks.
    Again(Record),
}

impl Write {
    /// What must be published.
    #[must_use]
    pub fn published(self) -> Option<Record> {
        match self {
            Self::Again(_) if is(Mutant::RetransmissionWithoutAcks) => None,
            Self::New(mut record) if is(Mutant::ClearedUnpublished) => {
                record.cleared = None;
                Some(record)
            }
            Self::New(mut record) if is(Mutant::SupersededUnpublished) && record.entries.len() > 1 => {
                record.entries.retain(|entry| entry.binding().is_some());
                Some(record)
            }
            Self::New(record) | Self::Again(record) => Some(record),
            Self::Nothing => None,
        }
    }
}

/// One contact of a 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The contact.
    pub binding: Arc<Binding>,
    /// Seconds that it has left, at least 1 and at most what was granted.
    pub remaining_s: u32,
}

impl Listed {
    /// A contact that lapses then, as it is listed now.
    fn of(binding: Arc<Binding>, lapses_us: u64, now_us: u64) -> Self {
        let left_s = lapses_us.saturating_sub(now_us).div_ceil(1_000_000);
        let left_s = u32::try_from(left_s).unwrap_or(u32::MAX);
        Self { remaining_s: left_s.min(binding.granted_s), binding }
    }
}

/// The contacts of a 200: few, mostly.
pub type Bindings = SmallVec<[Listed; 4]>;

/// The contacts that an AoR has now, first registered first, at most `max_contacts_per_aor`.
#[must_use]
pub fn list(record: &Record, now_us: u64, limits: &RegistrarLimits) -> Bindings {
    let shown = record.shown(now_us, limits.max_contacts_per_aor);
    let listed =
        |entry: &aorta_proto::Entry| Some(Listed::of(Arc::clone(entry.binding()?), entry.lapses_us()?, now_us));
    shown.into_iter().filter_map(listed).collect()
}
