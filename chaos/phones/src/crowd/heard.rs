//! What a node's answer to an INVITE says about an AoR, beside what must be true of its phones. Pure.

use super::aor::Aor;
use super::belief::{Must, PORTS};
use super::device::{self, Shape, uri_at};
use super::judgement::Fault;
use crate::message::{Message, NameAddr};
use crate::phone::{Household, Phone};
use crate::verdict::{judge_contact, target};

/// A contact that a redirect named and that rightly rings, or may.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) device: usize,
    pub(super) port: u8,
    pub(super) uri: String,
    pub(super) route: Vec<String>,
    pub(super) must: Must,
}

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// What is wrong with it: about which phone, in words.
    pub(super) faults: Vec<(Fault, usize, String)>,
    /// The contacts that may be called, in the order named.
    pub(super) legs: Vec<Leg>,
}

/// The phones of an AoR and where each may be named.
pub(super) struct Faces {
    phones: Vec<Phone>,
    /// The URI of each at port 0.
    first_uris: Vec<String>,
}

impl Faces {
    pub(super) fn of(aor: &Aor, household: &Household) -> Self {
        let (mut phones, mut first_uris) = (Vec::new(), Vec::new());
        for (nth, device) in aor.devices.iter().enumerate() {
            let at_first = Shape { port: 0, ..device.shape };
            let mut phone = device::phone(household, aor.first, aor.first + nth, at_first, 0);
            let contact = &mut phone.contacts[0];
            let moved = uri_at(&contact.uri, device.shape.port);
            first_uris.push(std::mem::replace(&mut contact.uri, moved));
            phones.push(phone);
        }
        Faces { phones, first_uris }
    }

    pub(super) fn first(&self) -> &Phone {
        &self.phones[0]
    }

    /// Which phone at which port a contact is.
    pub(super) fn whose(&self, uri: &str) -> Option<(usize, u8)> {
        self.find(|own| own == uri)
    }

    /// The same by the Request-URI that a contact becomes: without its headers (RFC 3261 §19.1.1, table 1).
    pub(super) fn whose_called(&self, uri: &str) -> Option<(usize, u8)> {
        self.find(|own| own.split('?').next() == Some(uri))
    }

    fn find(&self, is_it: impl Fn(&str) -> bool) -> Option<(usize, u8)> {
        let ports = |device: usize| (0..PORTS).map(move |port| (device, port));
        let mut all = (0..self.phones.len()).flat_map(ports);
        all.find(|(device, port)| is_it(&uri_at(&self.first_uris[*device], *port)))
    }
}

/// Compares a final reply with what must be true all through `span` (ms).
pub(super) fn hear(
    aor: &Aor,
    faces: &Faces,
    reply: Option<&Message<'_>>,
    no_binding_status: u16,
    span: (u64, u64),
) -> Heard {
    let mut heard = Heard::default();
    match reply.and_then(Message::status) {
        None => heard.faults.push((Fault::Unanswered, 0, "no answer".to_owned())),
        Some(500..600) => heard.faults.push((Fault::Unanswered, 0, format!("{:?}", reply.map(|r| &r.start)))),
        Some(300 | 302) => {
            if let Some(reply) = reply {
                redirected(aor, faces, reply, span, &mut heard);
            }
        }
        Some(status) if status == no_binding_status => {}
        Some(status) => heard.faults.push((Fault::Wrong, 0, format!("{status} to an INVITE"))),
    }
    let answered = heard.faults.iter().all(|(fault, ..)| *fault != Fault::Unanswered);
    for device in 0..aor.devices.len() {
        for port in (0..PORTS).filter(|_| answered) {
            let named = heard.legs.iter().any(|leg| (leg.device, leg.port) == (device, port));
            if !named && aor.must(device, port, span) == Must::Ring {
                let said = reply.map(|r| format!("{:?}", r.start)).unwrap_or_default();
                heard.faults.push((Fault::Missing, device, format!("port {port} must ring, but {said}")));
            }
        }
    }
    heard
}

fn redirected(aor: &Aor, faces: &Faces, reply: &Message<'_>, span: (u64, u64), heard: &mut Heard) {
    let contacts = match reply.contacts() {
        Ok(contacts) => contacts,
        Err(why) => return heard.faults.push((Fault::Wrong, 0, format!("{why} in {reply:?}"))),
    };
    for contact in &contacts {
        match leg(aor, faces, contact, span) {
            Ok(leg) if leg.must == Must::NotRing => {
                heard.faults.push((Fault::Ghost, leg.device, format!("{} must not ring", leg.uri)));
            }
            Ok(leg) => heard.legs.push(leg),
            Err((device, what)) => heard.faults.push((Fault::Wrong, device, what)),
        }
    }
}

fn leg(aor: &Aor, faces: &Faces, contact: &NameAddr<'_>, span: (u64, u64)) -> Result<Leg, (usize, String)> {
    let (uri, route) = target(contact).map_err(|why| (0, format!("{why} in {}", contact.uri)))?;
    let Some((device, port)) = faces.whose(&uri) else { return Err((0, format!("{uri} is nobody's"))) };
    let must = aor.must(device, port, span);
    let phone = &faces.phones[device];
    let sent = &phone.contacts[0];
    // How it was at another port, or before it had a `reg-id`, is not held against it.
    if uri == sent.uri {
        judge_contact(phone, sent, contact)
            .map_err(|(expected, got)| (device, format!("expected {expected}, got {got}")))?;
    }
    Ok(Leg { device, port, uri, route, must })
}
