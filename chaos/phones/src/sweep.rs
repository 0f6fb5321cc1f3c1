//! The work of one socket of a [`crate::Fleet`]: whose turn it is, when, and what each phone learns from its answer.

use crate::engine::{Next, Outcome, Request, To, Work};
use crate::fleet::{Line, Progress, Turn};
use crate::phone::{Ask, Household, Phone};
use crate::verdict::{Judged, Listed, Mismatch, Mismatches, judge_absent, judge_redirect, judge_register};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The progress callback is called once in so many answers.
const PROGRESS_EVERY: usize = 512;

/// When the next request of an open loop is due.
pub(crate) struct Pacing {
    pub(crate) ends: Instant,
    pub(crate) due: Instant,
    pub(crate) gap: Duration,
    pub(crate) stop: Arc<AtomicBool>,
}

/// The work of one socket.
pub(crate) struct Sweep {
    pub(crate) turns: Vec<Turn>,
    pub(crate) household: Arc<Household>,
    pub(crate) share: Vec<(usize, Line)>,
    pub(crate) busy: Vec<bool>,
    /// Requests started.
    pub(crate) next: usize,
    pub(crate) pace: Option<Pacing>,
    pub(crate) first: Option<usize>,
    pub(crate) absent: u16,
    pub(crate) slack_s: u32,
    pub(crate) mismatches: Mismatches,
    pub(crate) progress: Option<Progress>,
    pub(crate) done: Arc<AtomicUsize>,
    pub(crate) total: usize,
}

impl Sweep {
    /// (place of the next phone, its due time), or what to do instead.
    fn choose(&mut self) -> Result<(usize, Option<Instant>), Next> {
        let Some(pace) = &mut self.pace else {
            return if self.next < self.share.len() { Ok((self.next, None)) } else { Err(Next::Finished) };
        };
        let now = Instant::now();
        if now >= pace.ends || pace.stop.load(Ordering::Relaxed) || self.share.is_empty() {
            return Err(Next::Finished);
        }
        if pace.due > now {
            return Err(Next::Wait(pace.due));
        }
        let length = self.share.len();
        let Some(place) = (0..length).map(|n| (self.next + n) % length).find(|&p| !self.busy[p]) else {
            // Every phone is waiting for an answer: the loop falls behind, which the latencies show.
            return Err(Next::Wait(now + Duration::from_millis(1)));
        };
        let due = pace.due;
        pace.due += pace.gap;
        Ok((place, Some(due)))
    }
}

impl Work for Sweep {
    fn next(&mut self) -> Next {
        let (place, due) = match self.choose() {
            Ok(chosen) => chosen,
            Err(instead) => return instead,
        };
        let nth = if self.pace.is_some() { self.next % self.turns.len() } else { 0 };
        self.next += 1;
        self.busy[place] = true;
        let (index, line) = &mut self.share[place];
        let phone = Phone::new(&self.household, *index);
        let text = match self.turns[nth] {
            Turn::Lookup => phone.called("INVITE", fastrand::u64(..)),
            turn => {
                line.cseq += 1;
                phone.register(turn.ask(), line.cseq)
            }
        };
        Next::Start(Request {
            tag: (place * self.turns.len() + nth) as u64,
            text,
            to: self.first.map_or(To::InTurn, To::Node),
            due,
        })
    }

    fn done(&mut self, outcome: &Outcome<'_>) -> Option<Request> {
        let (place, nth) = (outcome.tag as usize / self.turns.len(), outcome.tag as usize % self.turns.len());
        let (index, line) = &mut self.share[place];
        let turn = self.turns[nth];
        self.busy[place] = false;
        let phone = Phone::new(&self.household, *index);
        if let Err((expected, got)) =
            judge(turn, &phone, line.remaining(Instant::now(), self.slack_s), outcome, self.absent)
        {
            self.mismatches.add(Mismatch { node: outcome.node, aor: phone.aor, expected, got });
        }
        line.learn(turn, outcome);
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(progress) = &self.progress
            && done.is_multiple_of(PROGRESS_EVERY)
        {
            progress(done.min(self.total), self.total);
        }
        None
    }
}

impl Turn {
    fn ask(self) -> Ask {
        match self {
            Turn::Register(seconds) => Ask::Bind(seconds),
            Turn::Unregister => Ask::Unbind,
            Turn::Clear => Ask::Clear,
            Turn::Query | Turn::Lookup => Ask::Query,
        }
    }
}

impl Line {
    fn learn(&mut self, turn: Turn, outcome: &Outcome<'_>) {
        if turn == Turn::Lookup || turn == Turn::Query {
            return;
        }
        self.status = outcome.status().unwrap_or_default();
        if self.status != 200 {
            return;
        }
        self.granted = match turn {
            Turn::Register(asked) => {
                // The node's word counts: it may grant less than asked.
                let told = outcome.reply.and_then(|r| r.contacts().ok());
                let least = told.and_then(|c| c.iter().filter_map(|c| c.expires().ok().flatten()).min());
                Some((Instant::now(), least.unwrap_or(asked)))
            }
            _ => None,
        };
    }
}

fn judge(turn: Turn, phone: &Phone, now: Listed, outcome: &Outcome<'_>, absent: u16) -> Judged {
    let Some(reply) = outcome.reply else {
        return Err(("an answer".to_owned(), format!("none in {:?} from {} tries", outcome.latency, outcome.asked)));
    };
    match turn {
        // One second may pass between the grant and the words.
        Turn::Register(asked) => {
            judge_register(phone, reply, Listed::All { least: asked.saturating_sub(1), most: asked }, true)
        }
        Turn::Unregister | Turn::Clear => judge_register(phone, reply, Listed::None, false),
        Turn::Query => judge_register(phone, reply, now, false),
        Turn::Lookup if now == Listed::None => judge_absent(reply, absent),
        Turn::Lookup => judge_redirect(phone, reply),
    }
}
