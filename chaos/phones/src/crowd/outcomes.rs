//! What a phone, or a caller, makes of an answer: settles what is sure, notes what must not be, says what comes next.

use std::net::SocketAddr;
use std::time::Instant;

use super::aor::{Errand, Register, Told, Wish};
use super::belief::Must;
use super::heard::{Faces, Leg, hear};
use super::judgement::Fault;
use super::share::Share;
use super::tally::Deed;
use crate::edge::REACHED;
use crate::engine::{Outcome, Request, To};
use crate::message::Message;
use crate::sbc::leg;

/// The header in which a node says how many acks a 200 waited for: `got=2;asked=2;by=node1`, and `short`, `partial`.
const ACKS: &str = "Aorta-Acks";

/// What a node says of its acks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Acks {
    short: bool,
    partial: bool,
}

impl Acks {
    /// A reply without the header says nothing, and is taken for full.
    fn of(reply: &Message<'_>) -> Acks {
        let value = reply.raw(ACKS).next().unwrap_or_default();
        let says = |flag: &str| value.split(';').any(|part| part.trim() == flag);
        Acks { short: says("short"), partial: says("partial") }
    }
}

impl Share {
    /// A REGISTER ended.
    pub(super) fn registered(&mut self, at: usize, register: Register, outcome: &Outcome<'_>) -> Option<Request> {
        let now_ms = self.now_ms();
        let accepted = outcome.reply.filter(|reply| reply.status() == Some(200));
        let acks = accepted.map(Acks::of);
        if let Some(reply) = accepted {
            if let Err(what) = self.listed(at, &register, reply, now_ms) {
                let seen = self.observation(at, register.device, outcome.node, what);
                self.tally().wrong.add(seen);
            }
            let place = u8::try_from(outcome.place).unwrap_or_default();
            let told = Told { deed: register.deed, at_ms: now_ms, place, full: !acks.unwrap_or_default().short };
            self.aors[at].settles(&register, told);
            if self.aors[at].devices[register.device].short_lived {
                self.watches_lapse(at, register.device);
            }
        }
        self.counts(at, &register, outcome, acks);
        let full = acks.is_some_and(|acks| !acks.short);
        self.aors[at].ends(outcome, full, now_ms);
        if register.storm {
            self.storm_ended(at, register.device, accepted.is_some());
        }
        if accepted.is_none() || register.again || register.storm || self.orders.ends_here() {
            return None;
        }
        let die = self.rng.u32(0..100);
        let (again, at_once) = (self.plan.mix.again_percent, self.plan.mix.at_once_percent);
        if die < again {
            return Some(self.again(at, register, outcome.place, now_ms));
        }
        let calm = full && outcome.sent == 1 && die < again + at_once;
        calm.then(|| self.at_once(at, register.device, outcome.place)).flatten()
    }

    /// The same request once more, at another node: as from an SBC that did not hear the answer.
    fn again(&mut self, at: usize, register: Register, place: usize, now_ms: u64) -> Request {
        let register = Register { again: true, storm: false, ..register };
        let ends_ms = self.ends_ms(now_ms);
        let aor = &mut self.aors[at];
        aor.asks(&register, ends_ms);
        aor.last_sent_ms = now_ms;
        aor.open = Some(Box::new(Errand::Register(register)));
        *self.tally().begun.entry(Deed::Again).or_default() += 1;
        Request { tag: at as u64, text: self.text(at, &register), to: To::Other(place), due: None }
    }

    /// The next change without a pause, at another node: a full 200 means that every node knows.
    fn at_once(&mut self, at: usize, device: usize, place: usize) -> Option<Request> {
        let own = &self.aors[at].devices[device];
        if own.short_lived {
            return None;
        }
        let deed = match self.aors[at].rings(self.now_ms(), 0) {
            Some(true) if !own.two_keys && self.rng.bool() => Deed::Move,
            Some(true) => Deed::Unregister,
            _ => Deed::Register,
        };
        Some(self.begin(at, device, deed, false, To::Other(place), Instant::now()))
    }

    fn counts(&self, at: usize, register: &Register, outcome: &Outcome<'_>, acks: Option<Acks>) {
        let refused = match outcome.reply {
            Some(reply) if acks.is_none() => Some(format!("{:?} to {:?}", reply.start, register.deed)),
            _ => None,
        };
        let clients_fault = outcome.status().is_some_and(|status| (400..500).contains(&status));
        let wrong = refused.filter(|_| clients_fault);
        let wrong = wrong.map(|what| self.observation(at, register.device, outcome.node, what));
        let mut tally = self.tally();
        tally.failovers += u64::from(outcome.asked.saturating_sub(1));
        tally.retransmitted += u64::from(outcome.sent.saturating_sub(outcome.asked));
        match (acks, outcome.status()) {
            (Some(acks), _) => {
                tally.full += u64::from(!acks.short);
                tally.short += u64::from(acks.short);
                tally.partial += u64::from(acks.partial);
                if !register.again {
                    tally.latency.add(outcome.latency);
                }
            }
            (None, Some(status)) => *tally.refused.entry(status).or_default() += 1,
            (None, None) => tally.timeouts += 1,
        }
        wrong.into_iter().for_each(|seen| tally.wrong.add(seen));
    }

    /// A 200 lists the phone's own contact as it asked for it, and none that it removed (RFC 3261 §10.3 step 8). What it
    /// says of the AoR's other phone is left to the callers: this node may have been cut off.
    fn listed(&self, at: usize, register: &Register, reply: &Message<'_>, now_ms: u64) -> Result<(), String> {
        let aor = &self.aors[at];
        let faces = Faces::of(aor, &self.household);
        let contacts = reply.contacts().map_err(|why| why.to_string())?;
        let mut found = false;
        for contact in &contacts {
            let Some((device, port)) = faces.whose(contact.uri) else {
                return Err(format!("{} is nobody's", contact.uri));
            };
            if register.wish == Wish::Clear {
                return Err(format!("{} is left after *", contact.uri));
            }
            if device != register.device {
                continue;
            }
            let Wish::Bind(asked) = register.wish else { return Err(format!("{} is left", contact.uri)) };
            if port != aor.devices[device].shape.port {
                return Err(format!("{} is left after {:?}", contact.uri, register.deed));
            }
            found = true;
            let gone_s = (now_ms - register.began_ms).div_ceil(1000);
            let least = u64::from(asked).saturating_sub(gone_s + 1);
            match contact.expires() {
                Ok(Some(left)) if (least..=u64::from(asked)).contains(&u64::from(left)) => {}
                other => return Err(format!("expires {other:?} and not {least} to {asked} at {}", contact.uri)),
            }
        }
        match register.wish {
            Wish::Bind(_) if !found => {
                Err(format!("its contact is not among {} after {:?}", contacts.len(), register.deed))
            }
            _ => Ok(()),
        }
    }

    /// An INVITE to a node, or to the SBC in front, ended.
    pub(super) fn called(&mut self, at: usize, began_ms: u64, outcome: &Outcome<'_>) -> Option<Request> {
        self.tally().failovers += u64::from(outcome.asked.saturating_sub(1));
        let faces = Faces::of(&self.aors[at], &self.household);
        let span = (began_ms, self.now_ms());
        if let Some(reply) = outcome.reply.filter(|reply| self.plan.via.is_some() && reply.status() == Some(200)) {
            self.rang(at, &faces, reply, span, outcome);
            return None;
        }
        let heard = hear(&self.aors[at], &faces, outcome.reply, self.plan.no_binding_status, span);
        let mut reason = None;
        for (fault, device, what) in heard.faults {
            reason.get_or_insert_with(|| match fault {
                Fault::Unanswered | Fault::Wrong => what.clone(),
                _ => format!("{fault:?}").to_lowercase(),
            });
            self.note(at, fault, device, outcome.node, what);
        }
        if let Some(right) = heard.legs.iter().find(|leg| leg.must == Must::Ring) {
            return self.deliver(at, &faces, right, outcome);
        }
        self.call_ends(reason, None);
        None
    }

    /// The SBC in front has reached somebody.
    fn rang(&self, at: usize, faces: &Faces, reply: &Message<'_>, span: (u64, u64), outcome: &Outcome<'_>) {
        let uri = reply.raw(REACHED).next().unwrap_or_default();
        let reason = match faces.whose_called(uri) {
            None => {
                self.note(at, Fault::Wrong, 0, outcome.node, format!("{uri} rang, which is nobody's"));
                Some("wrong")
            }
            Some((device, port)) if self.aors[at].must(device, port, span) == Must::NotRing => {
                self.note(at, Fault::Ghost, device, outcome.node, format!("{uri} must not ring"));
                Some("ghost")
            }
            Some(_) => None,
        };
        self.call_ends(reason.map(str::to_owned), Some(outcome));
    }

    /// Follows a redirect to the edge.
    fn deliver(&mut self, at: usize, faces: &Faces, to: &Leg, outcome: &Outcome<'_>) -> Option<Request> {
        match leg(faces.first(), self.rng.u64(..), &to.uri, &to.route) {
            Ok((hop, text)) => {
                let errand = Errand::Deliver { node: outcome.node, device: to.device, uri: to.uri.clone() };
                self.aors[at].open = Some(Box::new(errand));
                // The set-up time counts from when the call was due.
                let due = Instant::now().checked_sub(outcome.latency);
                Some(Request { tag: at as u64, text, to: To::Address(hop), due })
            }
            Err(why) => {
                self.note(at, Fault::Wrong, to.device, outcome.node, why);
                self.call_ends(Some("wrong".to_owned()), None);
                None
            }
        }
    }

    /// The edge answered, or did not.
    pub(super) fn delivered(
        &mut self,
        at: usize,
        node: SocketAddr,
        device: usize,
        uri: &str,
        outcome: &Outcome<'_>,
    ) -> Option<Request> {
        let called = uri.split('?').next();
        let reached = outcome.reply.and_then(|reply| reply.raw(REACHED).next());
        let reason = match (outcome.status(), reached) {
            (Some(200), reached) if reached == called => None,
            (Some(200), other) => {
                self.note(at, Fault::Wrong, device, node, format!("{other:?} rang and not {uri}"));
                Some("wrong".to_owned())
            }
            (Some(status), _) => Some(format!("the edge said {status}")),
            (None, _) => Some("the edge did not answer".to_owned()),
        };
        self.call_ends(reason, Some(outcome));
        None
    }

    fn call_ends(&self, reason: Option<String>, set_up: Option<&Outcome<'_>>) {
        let mut tally = self.tally();
        match reason {
            Some(reason) => *tally.calls_failed.entry(reason).or_default() += 1,
            None => {
                tally.calls_completed += 1;
                set_up.into_iter().for_each(|outcome| tally.setup.add(outcome.latency));
            }
        }
    }

    pub(super) fn note(&self, at: usize, fault: Fault, device: usize, node: SocketAddr, what: String) {
        let seen = self.observation(at, device, node, what);
        let full = seen.told.is_none_or(|told| told.full);
        let mut tally = self.tally();
        match (fault, full) {
            (Fault::Missing, true) => tally.lost.add(seen),
            (Fault::Missing, false) => tally.lost_after_short.add(seen),
            (Fault::Ghost, true) => tally.ghosts.add(seen),
            (Fault::Ghost, false) => tally.ghosts_after_short.add(seen),
            (Fault::Wrong, _) => tally.wrong.add(seen),
            (Fault::Unanswered, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Acks;
    use crate::message::Message;

    #[test]
    fn a_200_says_whether_it_is_full() {
        for (value, short, partial) in [
            ("", false, false),
            ("Aorta-Acks: got=2;asked=2;by=node1\r\n", false, false),
            ("Aorta-Acks: got=1;asked=2;short;by=short\r\n", true, false),
            ("Aorta-Acks: got=0;asked=0;short;partial;by=node1\r\n", true, true),
            ("Aorta-Acks: got=0;asked=0;by=short\r\n", false, false),
        ] {
            let text = format!("SIP/2.0 200 OK\r\n{value}\r\n");
            let message = Message::read(text.as_bytes());
            let acks = message.map(|message| Acks::of(&message)).unwrap_or_default();
            assert_eq!(acks, Acks { short, partial }, "{value}");
        }
    }
}
