//! Looks at contacts that nobody refreshes around the end of their time: a moment before it they must be served, a second
//! after it they must not. Judged by the phones' own monotonic clock. It keeps no contact alive and makes no calls.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::aor::Errand;
use super::belief::LAPSE_TOLERANCE_MS;
use super::heard::{Faces, hear};
use super::judgement::Fault;
use super::share::Share;
use crate::engine::{Outcome, Request, To};

/// A contact is looked at so long before its earliest end, ms: the answer has time to come.
const BEFORE_MS: u64 = 400;
/// Nearer to its earliest end than this nothing is held against an answer, ms: nodes agree on the time within a network's
/// delay.
const EARLY_MS: u64 = 100;
/// One that cannot be looked at now is tried again after this, ms.
const AGAIN_MS: u64 = 20;

/// Looks that are due, the earliest first. One a phone at most.
pub(super) type Looks = BinaryHeap<Reverse<Look>>;

/// A look at one phone's contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Look {
    due_ms: u64,
    at: usize,
    device: usize,
    /// After the end of its time, and not before.
    after: bool,
}

/// What is done about a look that is due.
enum Turn {
    Now,
    At(u64),
    After(u64),
    Never,
}

impl Share {
    /// A phone that does not refresh was told how long it has.
    pub(super) fn watches_lapse(&mut self, at: usize, device: usize) {
        let own = &mut self.aors[at].devices[device];
        let Some((_, from_ms, _)) = own.belief.lapses().filter(|_| !own.watched) else { return };
        own.watched = true;
        let due_ms = from_ms.saturating_sub(BEFORE_MS);
        self.looks.push(Reverse(Look { due_ms, at, device, after: false }));
    }

    /// The next look that is due.
    pub(super) fn due_look(&mut self) -> Option<Request> {
        let now_ms = self.now_ms();
        while self.looks.peek().is_some_and(|Reverse(look)| look.due_ms <= now_ms) {
            let Reverse(look) = self.looks.pop()?;
            let again = |due_ms: u64, after: bool| Reverse(Look { due_ms, after, ..look });
            match self.turn(look, now_ms) {
                Turn::Now => return Some(self.look(look, now_ms)),
                Turn::At(due_ms) => self.looks.push(again(due_ms, look.after)),
                Turn::After(due_ms) => self.looks.push(again(due_ms, true)),
                Turn::Never => self.aors[look.at].devices[look.device].watched = false,
            }
        }
        None
    }

    fn turn(&self, look: Look, now_ms: u64) -> Turn {
        let aor = &self.aors[look.at];
        // Of one that may have done something else since, or may be gone, nothing is sure.
        let Some((_, from_ms, to_ms)) = aor.devices[look.device].belief.lapses() else { return Turn::Never };
        let (before_ms, after_ms) = (from_ms.saturating_sub(BEFORE_MS), to_ms + LAPSE_TOLERANCE_MS + 1);
        let due_ms = if look.after { after_ms } else { before_ms };
        if now_ms < due_ms {
            return Turn::At(due_ms);
        }
        if !look.after && now_ms + EARLY_MS >= from_ms {
            return Turn::After(after_ms);
        }
        if aor.is_idle(now_ms) { Turn::Now } else { Turn::At(now_ms + AGAIN_MS) }
    }

    fn look(&mut self, look: Look, now_ms: u64) -> Request {
        let Look { at, device, after, .. } = look;
        self.aors[at].open = Some(Box::new(Errand::Look { device, after, began_ms: now_ms }));
        let nonce = self.rng.u64(..);
        let text = self.aors[at].phone(&self.household, 0, 0).called("INVITE", nonce);
        Request { tag: at as u64, text, to: To::InTurn, due: Some(Instant::now()) }
    }

    /// A node said whether it serves the contact, or said nothing.
    pub(super) fn looked(&mut self, at: usize, device: usize, after: bool, began_ms: u64, outcome: &Outcome<'_>) {
        let now_ms = self.now_ms();
        let own = &mut self.aors[at].devices[device];
        own.watched = false;
        let Some((port, from_ms, to_ms)) = own.belief.lapses() else { return };
        let faces = Faces::of(&self.aors[at], &self.household);
        let status = self.plan.no_binding_status;
        let heard = hear(&self.aors[at], &faces, outcome.reply, status, (began_ms, now_ms));
        let said = heard.faults.iter().all(|(fault, ..)| *fault != Fault::Unanswered);
        let served = heard.legs.iter().any(|leg| (leg.device, leg.port) == (device, port));
        let late = heard.faults.iter().any(|(fault, whose, _)| (*fault, *whose) == (Fault::Ghost, device));
        for (fault, whose, what) in heard.faults {
            self.note(at, fault, whose, outcome.node, what);
        }
        if after {
            let mut tally = self.tally();
            tally.lapses.after += u64::from(said);
            tally.lapses.late += u64::from(late);
        } else if said && now_ms + EARLY_MS < from_ms {
            if !served {
                let left_ms = from_ms - now_ms;
                self.note(at, Fault::Missing, device, outcome.node, format!("not served, with {left_ms} ms left"));
            }
            let mut tally = self.tally();
            tally.lapses.before += 1;
            tally.lapses.early += u64::from(!served);
        }
        if !after {
            self.aors[at].devices[device].watched = true;
            let due_ms = to_ms + LAPSE_TOLERANCE_MS + 1;
            self.looks.push(Reverse(Look { due_ms, at, device, after: true }));
        }
    }
}
