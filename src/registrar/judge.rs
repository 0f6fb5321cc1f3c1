//! RFC 3261 §10.3 steps 6 to 8, judged on one record. Refuses before it writes, and writes nothing itself.

use std::sync::Arc;

use aorta_proto::mutant::{Mutant, is};
use aorta_proto::{Binding, BindingParts, Cleared, ContactKey, Entry, Record, Stamp, Value};
use smallvec::SmallVec;

use crate::config::bounds::{
    CALL_ID_BYTES_MAX, CONTACT_PARAMS_BYTES_MAX, CONTACT_URI_BYTES_MAX, PATH_BYTES_MAX, USER_AGENT_BYTES_MAX,
};

use super::{ContactWish, Contacts, Judged, Refusal, RegisterRequest, RegistrarLimits, Write, list, trail};

/// More contacts in one request are refused: a bound on the work of one datagram, which grows with their square.
const CONTACTS_PER_REQUEST_MAX: usize = 256;

/// `Path: ` and a line end: each value of a Path vector costs this much more in a 200.
const PATH_FRAME_BYTES: usize = 8;

/// A change younger than this may still be on its way to a node whose ack is awaited, µs: one that lacks an older one is
/// suspect, or has been repaired.
const LACKED_US: u64 = 30_000_000;

/// Judges a REGISTER against the record of its AoR at cluster time `now_us`. `draw` is called at most once, and only when
/// something is to be written; its stamp is above every stamp drawn here before.
#[must_use]
pub fn judge(
    request: &RegisterRequest<'_>,
    record: &Record,
    now_us: u64,
    limits: &RegistrarLimits,
    draw: impl FnOnce() -> Stamp,
) -> Judged {
    let written = match &request.contacts {
        Contacts::Query => Ok((Write::Nothing, None)),
        Contacts::Star => star(request, record, limits, draw),
        Contacts::List(wishes) => Judgement { request, record, now_us, limits }.contacts(wishes, draw),
    };
    match written {
        Ok((write, after)) => {
            let bindings = list(after.as_ref().unwrap_or(record), now_us, limits);
            Judged::Accepted { write, bindings }
        }
        Err(refusal) => Judged::Refused(refusal),
    }
}

/// What to write, and the record as it then is when that differs.
type Written = Result<(Write, Option<Record>), Refusal>;

/// §10.3 step 6. Judged against every entry, not only those that live: a late `*` must not undo what came after it.
fn star(
    request: &RegisterRequest<'_>,
    record: &Record,
    limits: &RegistrarLimits,
    draw: impl FnOnce() -> Stamp,
) -> Written {
    if request.expires != super::Expires::Seconds(0) {
        return Err(Refusal::StarNeedsExpiresZero);
    }
    let mine = record.entries.iter().filter(|entry| entry.call_id_hash == request.call_id_hash);
    for entry in mine.filter(|_| !is(Mutant::StarWithoutCseq)) {
        rises(request.cseq, entry.cseq)?;
    }
    let left = record.entry(&trail::key_of_star(request.call_id_hash));
    if let Some(last) = last_star(record, request.call_id_hash) {
        if last == request.cseq {
            // After the `*` of another phone only the trail is left of this one; what covers it is the other.
            let entries = left.cloned().into_iter().collect();
            return Ok((Write::Again(Record { cleared: record.cleared, entries }), None));
        }
        rises(request.cseq, last)?;
    }
    let stamp = draw();
    if is(Mutant::StarOfKnownOnly) {
        let entries = record.entries.iter().map(|entry| entry.gone_at(stamp)).collect();
        return write(record, Record { cleared: None, entries }, stamp);
    }
    let cleared = Cleared { stamp, call_id_hash: request.call_id_hash, cseq: request.cseq };
    let has_room = left.is_some() || record.entries.len() < trail::places(limits);
    let entries = has_room.then(|| trail::of_star(cleared)).into_iter().collect();
    write(record, Record { cleared: Some(cleared), entries }, stamp)
}

/// The CSeq of the latest `*` of a Call-ID, as far as is known.
fn last_star(record: &Record, call_id_hash: u64) -> Option<u32> {
    let cleared = record.cleared.filter(|cleared| cleared.call_id_hash == call_id_hash).map(|cleared| cleared.cseq);
    let left = record.entry(&trail::key_of_star(call_id_hash)).map(|trail| trail.cseq);
    cleared.into_iter().chain(left).max()
}

/// The CSeq rule of one Call-ID.
fn rises(cseq: u32, before: u32) -> Result<(), Refusal> {
    if is(Mutant::CseqIgnored) {
        return Ok(());
    }
    match cseq.cmp(&before) {
        std::cmp::Ordering::Greater => Ok(()),
        std::cmp::Ordering::Equal => Err(Refusal::ReusedCSeq),
        std::cmp::Ordering::Less => Err(Refusal::OldCSeq),
    }
}

/// The record after a delta, provided that every part of the delta counts: a stamp below a stored one would be merged to
/// nothing, and a 200 for it would be a lie.
fn write(record: &Record, delta: Record, stamp: Stamp) -> Written {
    if record.latest().is_some_and(|latest| latest >= stamp) {
        return Err(Refusal::StampBehind);
    }
    let mut after = record.clone();
    after.merge(&delta);
    Ok((Write::New(delta), Some(after)))
}

/// The lifetimes granted, after every check that needs the request alone.
pub(super) fn grants(
    request: &RegisterRequest<'_>,
    wishes: &[ContactWish<'_>],
    limits: &RegistrarLimits,
) -> Result<SmallVec<[u32; 4]>, Refusal> {
    if wishes.len() > CONTACTS_PER_REQUEST_MAX {
        return Err(Refusal::TooManyContacts);
    }
    for (index, wish) in wishes.iter().enumerate() {
        let long = wish.params.len() > CONTACT_PARAMS_BYTES_MAX;
        if long || wish.uri.len() > CONTACT_URI_BYTES_MAX {
            return Err(Refusal::ContactTooLong);
        }
        if wishes.iter().take(index).any(|other| other.key == wish.key || are_twins(other, &wish.key, wish.uri_hash)) {
            return Err(Refusal::SameContactTwice);
        }
    }
    if request.path.iter().map(|value| value.len() + PATH_FRAME_BYTES).sum::<usize>() > PATH_BYTES_MAX {
        return Err(Refusal::PathTooLong);
    }
    wishes.iter().map(|wish| limits.grant(wish.expires, request.expires)).collect()
}

/// What a request says of a contact, registered since `first`.
pub(super) fn says<'a>(
    request: &RegisterRequest<'a>,
    wish: &'a ContactWish<'_>,
    granted_s: u32,
    first: Stamp,
) -> BindingParts<'a> {
    // Cut texts are for people to read; the fingerprint covers the whole Call-ID.
    let cut = |text: &'a [u8], bytes_max: usize| text.get(..bytes_max).unwrap_or(text);
    BindingParts {
        first,
        granted_s,
        uri: wish.uri,
        params: &wish.params,
        q: wish.q,
        path: request.path,
        call_id: cut(request.call_id, CALL_ID_BYTES_MAX),
        user_agent: cut(request.user_agent, USER_AGENT_BYTES_MAX),
        source: request.source,
        accepted_by: request.node,
    }
}

/// What one contact of the request is to this record.
enum Class {
    /// To be written.
    Fresh,
    /// Written by this very request before.
    Same,
    /// A removal of a key never seen that there is no room to remember.
    Void,
}

#[derive(Clone, Copy)]
struct Judgement<'a> {
    request: &'a RegisterRequest<'a>,
    record: &'a Record,
    now_us: u64,
    limits: &'a RegistrarLimits,
}

impl<'a> Judgement<'a> {
    /// §10.3 step 7, for all contacts of the request at once.
    fn contacts(self, wishes: &[ContactWish<'_>], draw: impl FnOnce() -> Stamp) -> Written {
        let granted = grants(self.request, wishes, self.limits)?;
        let star = last_star(self.record, self.request.call_id_hash).filter(|_| !is(Mutant::ClearedWithoutCseq));
        if let Some(star) = star {
            rises(self.request.cseq, star)?;
        }
        let mut room = self.room(wishes, &granted);
        let mut classes = SmallVec::<[Class; 4]>::new();
        for (wish, granted_s) in wishes.iter().zip(&granted) {
            classes.push(self.classify(wish, *granted_s, &mut room)?);
        }
        let again = classes.iter().any(|class| matches!(class, Class::Same));
        let fresh = classes.iter().any(|class| matches!(class, Class::Fresh));
        self.no_other_contacts(wishes)?;
        match (again, fresh) {
            (true, true) => Err(Refusal::ReusedCSeq),
            (true, false) => self.again(wishes, &granted),
            (false, false) => Ok((Write::Nothing, None)),
            (false, true) => {
                self.room(wishes, &granted).ok_or(Refusal::TooManyEntries)?;
                if granted.iter().any(|granted_s| *granted_s > 0) && !self.limits.has_room_for(self.record, self.now_us)
                {
                    return Err(Refusal::MemoryFull);
                }
                self.write(wishes, &granted, &classes, draw())
            }
        }
    }

    /// How many removals of keys never seen may be remembered once every new contact has its place; `None` when not even
    /// the new contacts have.
    fn room(self, wishes: &[ContactWish<'_>], granted: &[u32]) -> Option<usize> {
        let unseen =
            |(wish, granted_s): &(&ContactWish<'_>, &u32)| **granted_s > 0 && self.record.entry(&wish.key).is_none();
        let new = wishes.iter().zip(granted).filter(unseen).count();
        let used = self.record.entries.len();
        if new == 0 {
            // A merge may have brought more than the limit: what exists can always be refreshed.
            return Some(self.limits.entries_per_aor_max.saturating_sub(used));
        }
        self.limits.entries_per_aor_max.checked_sub(used + new)
    }

    fn classify(self, wish: &ContactWish<'_>, granted_s: u32, room: &mut Option<usize>) -> Result<Class, Refusal> {
        let mine = |call_id_hash: u64| call_id_hash == self.request.call_id_hash;
        let own = self.record.entry(&wish.key);
        let twins = self.record.entries.iter().filter(|entry| is_twin(entry, &wish.key, wish.uri_hash));
        for twin in twins.filter(|twin| mine(twin.call_id_hash)) {
            rises(self.request.cseq, twin.cseq)?;
        }
        match own {
            Some(entry) if is(Mutant::RemovalWithoutCseq) && entry.value == Value::Gone => Ok(Class::Fresh),
            Some(entry) if mine(entry.call_id_hash) && entry.cseq == self.request.cseq => {
                match self.is_same(wish, granted_s, entry) {
                    true if is(Mutant::RetransmissionDrawsAnew) => Ok(Class::Fresh),
                    true => Ok(Class::Same),
                    false => Err(Refusal::ReusedCSeq),
                }
            }
            Some(entry) => {
                if mine(entry.call_id_hash) {
                    rises(self.request.cseq, entry.cseq)?;
                }
                Ok(Class::Fresh)
            }
            None if granted_s == 0 && is(Mutant::UnseenRemovalUnwritten) => Ok(Class::Void),
            None if granted_s == 0 => match room {
                Some(0) | None => Ok(Class::Void),
                Some(left) => {
                    *left -= 1;
                    Ok(Class::Fresh)
                }
            },
            None => Ok(Class::Fresh),
        }
    }

    /// Whether the entry, written under the request's Call-ID and CSeq, holds what the contact asks for. A contact that
    /// lapsed, or was removed since, does not: its REGISTER is too late.
    fn is_same(self, wish: &ContactWish<'_>, granted_s: u32, entry: &Entry) -> bool {
        let live = entry.lapses_us().is_some_and(|lapses_us| lapses_us > self.now_us);
        match entry.binding().filter(|_| live) {
            None => granted_s == 0,
            Some(binding) => {
                binding.granted_s == granted_s
                    && binding.uri() == wish.uri
                    && binding.params() == &*wish.params
                    && binding.path().eq(self.request.path.iter().copied())
                    && !self.record.is_shadowed(entry)
            }
        }
    }

    /// No contact outside the request was written under its Call-ID and CSeq.
    fn no_other_contacts(self, wishes: &[ContactWish<'_>]) -> Result<(), Refusal> {
        let written_by_it =
            |entry: &&Entry| entry.call_id_hash == self.request.call_id_hash && entry.cseq == self.request.cseq;
        let outside = |entry: &Entry| !entry.key.is_trail() && wishes.iter().all(|wish| wish.key != entry.key);
        if self.record.entries.iter().filter(written_by_it).any(outside) { Err(Refusal::ReusedCSeq) } else { Ok(()) }
    }

    /// A retransmission: what the request wrote, again under its own stamps. A trail may have been renewed since.
    fn again(self, wishes: &[ContactWish<'_>], granted: &[u32]) -> Written {
        self.all_shown(self.record, wishes, granted)?;
        let written = |entry: &&Entry| wishes.iter().any(|wish| entry.key == wish.key || is_trail_of(entry, wish));
        let entries = self.record.entries.iter().filter(written).cloned().collect();
        Ok((Write::Again(self.with_rivals(Record { cleared: None, entries }, self.record)), None))
    }

    fn write(self, wishes: &[ContactWish<'_>], granted: &[u32], classes: &[Class], stamp: Stamp) -> Written {
        let mut delta = Record::of(None, []);
        for (at, ((wish, granted_s), class)) in (0..).zip(wishes.iter().zip(granted).zip(classes)) {
            if matches!(class, Class::Fresh) {
                // Two contacts of one request came one after the other: no two phones ever began at the same time.
                let began = Stamp { counter: stamp.counter.saturating_add(2 * at), ..stamp };
                delta.entries.push(self.entry(wish, *granted_s, stamp, began));
            }
        }
        delta.entries.sort_by(|one, two| one.key.cmp(&two.key));
        self.supersede(wishes, &mut delta);
        self.leave_trails(&mut delta);
        let (write, after) = write(self.record, delta, stamp)?;
        let (Write::New(delta), Some(after)) = (write, after) else { return Ok((Write::Nothing, None)) };
        self.all_shown(&after, wishes, granted)?;
        Ok((Write::New(self.with_rivals(delta, &after)), Some(after)))
    }

    /// Slims what the view hides from now on: contacts of the other kind of key with the same URI. Nobody else need know of
    /// them, so it is done under their own stamps: what was written of them elsewhere since stays as it is.
    fn supersede(self, wishes: &[ContactWish<'_>], delta: &mut Record) {
        let live = self.record.entries.iter().filter(|entry| entry.binding().is_some());
        for entry in live.filter(|entry| wishes.iter().any(|wish| is_twin(entry, &wish.key, wish.uri_hash))) {
            if wishes.iter().all(|wish| wish.key != entry.key) {
                delta.merge(&Record::from(entry.gone_at(entry.stamp.machine_made())));
            }
        }
    }

    /// Adds the trails of the flows in `delta` (see [`super::trail`]): where they are from now on, and where they were.
    fn leave_trails(self, delta: &mut Record) {
        if is(Mutant::TwinsApart) || is(Mutant::HiddenRingsAgain) {
            return;
        }
        let goes_on = |flow: &Entry| self.record.entry(&flow.key).is_some_and(|before| trail::goes_on(before, flow));
        // One that goes on where it was leaves none.
        let flows = delta.entries.iter().filter(|entry| entry.key.is_instance() && !goes_on(entry));
        let flows: SmallVec<[Entry; 1]> = flows.cloned().collect();
        let unseen = |entry: &&Entry| self.record.entry(&entry.key).is_none();
        let used = self.record.entries.len() + delta.entries.iter().filter(unseen).count();
        let mut room = trail::places(self.limits).saturating_sub(used);
        for flow in &flows {
            let before = self.record.entry(&flow.key);
            let here = Some(flow).filter(|_| !is(Mutant::TrailOnlyWhenLeft));
            let before = before.filter(|before| before.uri_hash != flow.uri_hash);
            for there in before.into_iter().chain(here) {
                let mut trail = Record::from(trail::of(there));
                let key = ContactKey::trail(there.uri_hash);
                let known = self.record.entry(&key).or_else(|| delta.entry(&key)).cloned();
                match known {
                    Some(known) => drop(trail.merge(&Record::from(known))),
                    None if room == 0 => continue,
                    None => room -= 1,
                }
                delta.merge(&trail);
            }
        }
    }

    /// Adds what else decides whether the contacts are shown: where the AoR has more than the limit lets through, who else
    /// was removed, or came first. A node that acks the change may not have heard of that yet, and must not hide a contact
    /// that the answer lists.
    fn with_rivals(self, mut delta: Record, after: &Record) -> Record {
        if after.entries.len() <= self.limits.max_contacts_per_aor || is(Mutant::RivalsUnpublished) {
            return delta;
        }
        let lacked = |stamp: Stamp| stamp.time_us.saturating_add(LACKED_US) > self.now_us;
        delta.cleared = after.cleared.filter(|cleared| lacked(cleared.stamp));
        let rivals = after.entries.iter().filter(|entry| lacked(entry.stamp) && delta.entry(&entry.key).is_none());
        let rivals: Vec<Entry> = rivals.cloned().collect();
        delta.entries.extend(rivals);
        delta.entries.sort_by(|one, two| one.key.cmp(&two.key));
        delta
    }

    fn entry(self, wish: &ContactWish<'_>, granted_s: u32, stamp: Stamp, began: Stamp) -> Entry {
        let value = if granted_s == 0 { Value::Gone } else { Value::Live(self.binding(wish, granted_s, began)) };
        let left_s = |entry: &Entry| entry.lapses_us().unwrap_or(0).saturating_sub(self.now_us) / 1_000_000;
        let counter = match granted_s == 0 && is(Mutant::RemovalLastsAsItsBinding) {
            true => 2 * self.record.entry(&wish.key).map_or(0, left_s) as u32,
            false => stamp.counter,
        };
        Entry {
            key: wish.key.clone(),
            stamp: Stamp { counter, ..stamp },
            call_id_hash: self.request.call_id_hash,
            cseq: self.request.cseq,
            uri_hash: wish.uri_hash,
            value,
        }
    }

    fn binding(self, wish: &ContactWish<'_>, granted_s: u32, began: Stamp) -> Arc<Binding> {
        let is_it = |entry: &&Entry| entry.key == wish.key || is_twin(entry, &wish.key, wish.uri_hash);
        let before = self.record.live(self.now_us).filter(is_it);
        let first = before.filter_map(|entry| Some(entry.binding()?.first)).min();
        Binding::shared(&says(self.request, wish, granted_s, first.unwrap_or(began)))
    }

    /// Whether every contact that the request adds or refreshes is among those shown: a 200 for one that no caller can
    /// reach would be a lie.
    fn all_shown(self, record: &Record, wishes: &[ContactWish<'_>], granted: &[u32]) -> Result<(), Refusal> {
        let shown = record.shown(self.now_us, self.limits.max_contacts_per_aor);
        let mut added = wishes.iter().zip(granted).filter(|(_, granted_s)| **granted_s > 0);
        if added.all(|(wish, _)| shown.iter().any(|entry| entry.key == wish.key)) || is(Mutant::HiddenAccepted) {
            Ok(())
        } else {
            Err(Refusal::TooManyContacts)
        }
    }
}

/// An entry of the other kind of key with the same URI is the same phone.
fn is_twin(entry: &Entry, key: &ContactKey, uri_hash: u64) -> bool {
    entry.uri_hash == uri_hash && entry.key.is_instance() != key.is_instance() && !is(Mutant::TwinsApart)
}

fn is_trail_of(entry: &Entry, wish: &ContactWish<'_>) -> bool {
    wish.key.is_instance() && entry.key.is_trail() && entry.uri_hash == wish.uri_hash
}

fn are_twins(wish: &ContactWish<'_>, key: &ContactKey, uri_hash: u64) -> bool {
    wish.uri_hash == uri_hash && wish.key.is_instance() != key.is_instance()
}
