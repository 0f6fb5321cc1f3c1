//! What a flow (RFC 5626: a contact with `+sip.instance` and `reg-id`) leaves at its URI: an entry that hides earlier contacts
//! which are only that URI, wherever the flow goes. Decides nothing about flows themselves, and never shows anything.
//!
//! The view has of a flow and a contact that is its URI only the later one rings, for they are one phone. But a flow is one
//! entry wherever it is: once it has moved, that entry no longer says that it was there, and a contact by that URI which was
//! accepted earlier, and which nobody knew who accepted the flow or its move, would ring until it lapses. So each write of a
//! flow writes the trail at its URI as well: a removed entry with the flow's stamp, Call-ID and CSeq, whatever is known
//! there. Of all trails at a URI the latest stays, as of any entry.
//!
//! In the other direction nothing is needed: the entry of a contact that is its URI never moves, so what it says of flows at
//! that URI lasts as long as they are remembered.
//!
//! Decisions
//! - A trail is an entry of its own and not the removal of the contact that is the URI: that one would hide other phones'
//!   flows behind the same address. It belongs to whoever has that URI: another phone that registered without a `reg-id`, and
//!   whose URI a flow took over, does not ring there any more (as a removal by URI does not ask whose it is).
//! - A refresh writes it anew (2026-11) unless it is the next request of the Call-ID: a phone may have lost its `reg-id` for a
//!   while, at a node that this one did not hear. So a flow that stays where it is refreshes with one entry, and its trail is
//!   forgotten with the time. A copy of an earlier request that another node takes in between, where it cannot know better, is
//!   not provided for.
//! - A trail is written where a flow arrives, and not only when it leaves: whoever accepts the next move may not know that it
//!   ever was there. Refused: that merging leaves the trail of what it replaces. It costs no entry for a flow that stays, but it
//!   is another law, and nodes with the old one would never have the same digests; it needs a version of its own.
//! - A `*` leaves a trail of its Call-ID: a record remembers the latest `*` only, and a copy of the one before it would clear
//!   anew what registered since. Like other trails it has hashes of its own, so that builds which know of none see a trail.
//! - A flow that moves publishes the trail of where it was again, with the stamp that it had there: who acks the move may not
//!   have heard of that yet.

use aorta_proto::{Cleared, ContactKey, Entry, Value};

use super::RegistrarLimits;

/// What a flow's entry says of the URI that it is at.
pub(super) fn of(flow: &Entry) -> Entry {
    Entry { key: ContactKey::trail(flow.uri_hash), value: Value::Gone, ..flow.clone() }
}

/// Tells the hash of a Call-ID from that of a URI.
const STAR: u64 = 0x2a2a_2a2a_2a2a_2a2a;

/// Where a `*` of a Call-ID leaves its trail.
pub(super) fn key_of_star(call_id_hash: u64) -> ContactKey {
    ContactKey::trail(call_id_hash ^ STAR)
}

/// Whether the trail at a URI would be where a `*` of a Call-ID leaves its own.
pub(super) fn is_of_star(uri_hash: u64, call_id_hash: u64) -> bool {
    uri_hash == call_id_hash ^ STAR
}

/// What a `*` leaves.
pub(super) fn of_star(star: Cleared) -> Entry {
    let Cleared { stamp, call_id_hash, cseq } = star;
    let own = call_id_hash ^ STAR;
    Entry { key: key_of_star(call_id_hash), stamp, call_id_hash: own, cseq, uri_hash: own, value: Value::Gone }
}

/// Whether a flow's write says of its URI nothing that its last write, known here, did not: the next request of a Call-ID, at
/// the same URI. Between the two the phone said nothing else anywhere.
pub(super) fn goes_on(before: &Entry, flow: &Entry) -> bool {
    before.uri_hash == flow.uri_hash
        && before.call_id_hash == flow.call_id_hash
        && before.cseq.checked_add(1) == Some(flow.cseq)
        && before.binding().is_some()
}

/// As long as an AoR has fewer entries than this a new trail is written: half of `entries_per_aor_max`, so that a flow which
/// wanders from URI to URI never takes the places of contacts.
pub(super) fn places(limits: &RegistrarLimits) -> usize {
    limits.entries_per_aor_max / 2
}
