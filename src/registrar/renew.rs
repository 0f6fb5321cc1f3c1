//! A REGISTER that says of one contact nothing but that it goes on: most of all. Judged by what a judgement of the whole record
//! would look at then, where that lies; `judge` has the same answer (`tests`).

use std::sync::Arc;

use aorta_proto::{Aor, Entry, Record, Refresh, Stamp, Value};
use smallvec::SmallVec;

use super::judge::{grants, says};
use super::{ContactWish, Contacts, Judged, Listed, Refusal, RegisterRequest, RegistrarLimits, Write, judge, trail};
use crate::location::{Known, Location};

/// Judges a REGISTER against what is known of its AoR, at cluster time `now_us`, and merges what it changes. `draw` as in
/// [`judge()`].
pub fn register(
    location: &Location,
    aor: &Aor,
    request: &RegisterRequest<'_>,
    now_us: u64,
    limits: &RegistrarLimits,
    draw: impl Fn() -> Stamp,
) -> Judged {
    location.renew_or_update(
        aor,
        asked(request),
        |known, refresh| renew((request, refresh), known, now_us, limits, &draw),
        |record| judge(request, record, now_us, limits, &draw),
        Judged::delta,
    )
}

/// What a request says of its contact, if it is one; when it is written is not known yet.
fn asked<'a>(request: &'a RegisterRequest<'a>) -> Option<Refresh<'a>> {
    let Contacts::List([wish]) = request.contacts else { return None };
    Some(Refresh {
        key: wish.key.as_bytes(),
        stamp: Stamp::ZERO,
        call_id_hash: request.call_id_hash,
        cseq: request.cseq,
        uri_hash: wish.uri_hash,
        binding: says(request, wish, 0, Stamp::ZERO).told(),
    })
}

/// What [`judge()`] would say where nothing is known of the AoR but the contact of the request, which says the same, and the trail
/// at its URI; `None` when that depends on more.
fn renew(
    (request, refresh): (&RegisterRequest<'_>, &mut Refresh<'_>),
    known: &Known,
    now_us: u64,
    limits: &RegistrarLimits,
    draw: impl FnOnce() -> Stamp,
) -> Option<Judged> {
    let Contacts::List(wishes @ [wish]) = request.contacts else { return None };
    let granted_s = *grants(request, wishes, limits).ok()?.first().filter(|granted_s| **granted_s > 0)?;
    let goes_on = known.lapses_us > now_us && limits.max_contacts_per_aor > usize::from(known.has_trail);
    if !goes_on || !is_next(request, wish, known) {
        return None;
    }
    let stamp = draw();
    if known.latest >= stamp {
        return Some(Judged::Refused(Refusal::StampBehind));
    }
    (refresh.stamp, refresh.binding.first, refresh.binding.granted_s) = (stamp, known.first, granted_s);
    if refresh.lapses_us() <= now_us {
        return Some(Judged::Refused(Refusal::TooManyContacts));
    }
    let binding = refresh.binding.shared();
    let listed = Listed::of(Arc::clone(&binding), refresh.lapses_us(), now_us);
    let (call_id_hash, cseq, uri_hash) = (request.call_id_hash, request.cseq, wish.uri_hash);
    let entry = Entry { key: wish.key.clone(), stamp, call_id_hash, cseq, uri_hash, value: Value::Live(binding) };
    Some(Judged::Accepted { write: Write::New(Record::from(entry)), bindings: SmallVec::from_iter([listed]) })
}

/// Whether the CSeq rule lets the request through, and it leaves no trail.
fn is_next(request: &RegisterRequest<'_>, wish: &ContactWish<'_>, known: &Known) -> bool {
    let same_call = known.call_id_hash == request.call_id_hash;
    if !wish.key.is_instance() {
        return !known.has_trail && (!same_call || request.cseq > known.cseq);
    }
    let of_star = known.has_trail && trail::is_of_star(wish.uri_hash, request.call_id_hash);
    same_call && known.cseq.checked_add(1) == Some(request.cseq) && !of_star
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use aorta_proto::uri::{Uri, canonical_contact};
    use aorta_proto::{BootId, ContactKey, NodeId, hash};

    use super::super::Expires;
    use super::*;

    const NOW_US: u64 = 1_790_000_000_000_000;

    /// One REGISTER of one contact.
    #[derive(Clone, Copy)]
    struct Sent {
        call_id: &'static str,
        cseq: u32,
        uri: &'static str,
        reg_id: Option<u32>,
        expires_s: u32,
        path: &'static [&'static [u8]],
        at_s: u64,
    }

    const PLAIN: Sent = Sent {
        call_id: "call",
        cseq: 7,
        uri: "sip:a@192.0.2.1",
        reg_id: None,
        expires_s: 300,
        path: &[b"<sip:e>"],
        at_s: 0,
    };
    const FLOW: Sent = Sent { reg_id: Some(1), ..PLAIN };

    /// Registers one after the other; which were judged where the record lies.
    fn renewed(sent: &[Sent]) -> Vec<bool> {
        let (location, aor) = (Location::new([7; 16], true), Aor::from_canonical("a@example.com"));
        let (limits, node) = (RegistrarLimits::default(), NodeId::new("node1").expect("a node id"));
        let each = |(at, sent): (usize, &Sent)| {
            let uri = Uri::parse(sent.uri.as_bytes()).expect("a URI");
            let canonical = canonical_contact(&uri);
            let key = match sent.reg_id {
                Some(reg_id) => ContactKey::instance(b"<urn:x:1>", reg_id),
                None => ContactKey::uri(&canonical),
            };
            let params = if sent.reg_id.is_some() { ";+sip.instance=\"<urn:x:1>\";reg-id=1" } else { ";x" };
            let wish = ContactWish {
                key,
                uri_hash: hash::uri_hash(&canonical),
                uri: sent.uri.as_bytes(),
                params: params.as_bytes().into(),
                q: None,
                expires: Expires::Seconds(sent.expires_s),
            };
            let request = RegisterRequest {
                call_id: sent.call_id.as_bytes(),
                call_id_hash: hash::call_id_hash(sent.call_id.as_bytes()),
                cseq: sent.cseq,
                contacts: Contacts::List(std::slice::from_ref(&wish)),
                expires: Expires::Absent,
                path: sent.path,
                user_agent: b"phone",
                source: b"udp:192.0.2.1:5060",
                node: &node,
            };
            let now_us = NOW_US + sent.at_s * 1_000_000;
            let draw = || Stamp { time_us: now_us + at as u64, counter: 0, boot: BootId(1) };
            let unread = Cell::new(true);
            let judged = location.renew_or_update(
                &aor,
                asked(&request),
                |known, refresh| renew((&request, refresh), known, now_us, &limits, draw),
                |record| {
                    unread.set(false);
                    judge(&request, record, now_us, &limits, draw)
                },
                Judged::delta,
            );
            assert!(matches!(judged, Judged::Accepted { .. }), "{judged:?}");
            unread.get()
        };
        sent.iter().enumerate().map(each).collect()
    }

    #[test]
    fn what_only_goes_on_is_judged_where_it_lies() {
        for phone in [PLAIN, FLOW] {
            let next = |cseq| Sent { cseq, ..phone };
            assert_eq!(
                renewed(&[phone, next(8), next(9), Sent { expires_s: 600, ..next(10) }]),
                [false, true, true, true]
            );
        }
        let restarted = Sent { cseq: 100, ..PLAIN };
        assert_eq!(renewed(&[PLAIN, restarted]), [false, true], "a CSeq may jump");
    }

    #[test]
    fn what_says_more_is_judged_by_the_record() {
        let next = Sent { cseq: 8, ..FLOW };
        let others = [
            Sent { uri: "sip:a@192.0.2.2", ..next },
            Sent { path: &[b"<sip:f>"], ..next },
            Sent { expires_s: 0, ..next },
            Sent { call_id: "other", ..next },
            Sent { at_s: 300, ..next },
            Sent { cseq: 9, ..next },
            Sent { reg_id: None, ..next },
            FLOW,
        ];
        for (at, other) in others.into_iter().enumerate() {
            assert_eq!(renewed(&[FLOW, other]), [false, false], "{at}");
        }
        let second = Sent { uri: "sip:a@192.0.2.3", cseq: 8, ..PLAIN };
        assert_eq!(renewed(&[PLAIN, second, Sent { cseq: 9, ..PLAIN }]), [false; 3], "another contact");
    }
}
