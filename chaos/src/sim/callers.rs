//! How the simulated phones' requests reach nodes: through an SBC that probes, retransmits, fails over while an answer is
//! on its way, and now and then through a network that keeps a copy for later, or a socket that nobody reads for a while.

use std::rc::Rc;

use aorta::registrar::Refusal;
use aorta::replication::Effects;
use aorta_proto::mutant::{Mutant, is};
use aorta_proto::{Entry, Record, Stamp};

use super::phones::{PATIENCE_US, Phone, Register};
use super::registrar::Answer;
use super::world::{Happening, World};

/// A copy of a request on its way to a node.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) request: u64,
    phone: usize,
    register: Rc<Register>,
    to: usize,
    kind: Kind,
    sent_us: u64,
    /// How many nodes were tried with it.
    tried: usize,
    /// The record as it was when it was judged, if that is another moment than when it is written.
    judged_on: Option<Rc<Record>>,
}

/// A contact whose probes nobody answered, as a node judged it; it is removed a while after.
#[derive(Debug)]
pub(super) struct Silent {
    node: usize,
    boot: u64,
    line: usize,
    entry: Entry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The first copy.
    First,
    /// Sent whether or not an answer is on its way.
    Again,
    /// Sent to another node because no answer came.
    Failover,
    /// A copy that comes long after the answer.
    Late,
    /// The only copy that comes, after its phone gave up waiting.
    Kept,
}

/// Of so many requests in 256, and of so many answers, those that are lost.
pub(super) const LOST_IN_256: u8 = 4;

/// Of so many requests in 256, and of so many `Contact: *`, those that the network keeps.
const KEPT_IN_256: (u8, u8) = (4, 64);

/// Copies that follow the first do so within this, µs.
const COPIES_WITHIN_US: u64 = PATIENCE_US / 2;

/// A copy that the network kept comes within this, µs.
const LATE_WITHIN_US: u64 = 3_000_000;

/// Copies of what was answered before the world became quiet come within this, µs.
const REPLAYED_WITHIN_US: u64 = 2_000_000;

/// What is so near to be forgotten is not given back: the floor's steps and its margin, µs.
const REMEMBERED_MARGIN_US: u64 = 30_000_000;

/// A request that waited longer in a node's socket is dropped (`sip.max_age_ms`), µs.
const AGE_MAX_US: u64 = 500_000;

/// Requests that wait in one socket; what comes beyond is lost.
const SOCKET_MAX: usize = 1_000;

/// From judging a contact silent to removing it at most, µs.
const SILENT_WITHIN_US: u64 = 900_000;

impl World {
    /// A phone asks, if it is time.
    pub(super) fn request(&mut self) {
        self.asks += 1;
        let mut rng = fastrand::Rng::with_seed(self.seed ^ self.asks.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        if self.only.as_ref().is_some_and(|only| !only.contains(&self.asks)) {
            return;
        }
        let (now_us, at) = (self.now_us, rng.usize(..self.phones.len()));
        if rng.u8(..) < 5 {
            self.finds_silent(&mut rng);
        }
        if self.phones[at].is_busy(now_us) {
            return;
        }
        let register = Rc::new(self.phones[at].next(now_us, &mut rng));
        let (request, line, number) = (self.asks, self.phones[at].line, self.phones[at].number);
        self.asked_at.push(request);
        self.figures.requests += 1;
        self.phones[at].waits(request, now_us);
        self.lines[line].asks(request, number, (*register).clone(), now_us);
        let to = self.choose(rng.usize(..self.nodes.len()));
        let first = Message {
            request,
            phone: at,
            register: Rc::clone(&register),
            to,
            kind: Kind::First,
            sent_us: now_us,
            tried: 1,
            judged_on: None,
        };
        let (call_id, cseq) = (&register.call_id, register.cseq);
        self.say(|| format!("request {request} to n{}: {call_id} {cseq} {}", to + 1, register.contacts.join(", ")));
        self.copies(first, &mut rng);
    }

    /// Sends a request, and plans what else the world does with it.
    fn copies(&mut self, first: Message, rng: &mut fastrand::Rng) {
        let another = (first.to + rng.usize(1..self.nodes.len())) % self.nodes.len();
        let again_to = if rng.bool() { first.to } else { another };
        let kept_in_256 = if first.register.is_star() { KEPT_IN_256.1 } else { KEPT_IN_256.0 };
        if rng.u8(..) < kept_in_256 {
            let after_us = rng.u64(PATIENCE_US..LATE_WITHIN_US);
            return self.send(after_us, Message { kind: Kind::Kept, to: again_to, ..first });
        }
        if rng.u8(..) >= LOST_IN_256 {
            self.send(rng.u64(50..3_000), first.clone());
        }
        if rng.u8(..) < 12 {
            self.send(rng.u64(100..200_000), Message { kind: Kind::Again, to: again_to, ..first.clone() });
        }
        if rng.u8(..) < 190 {
            let after_us = rng.u64(150_000..COPIES_WITHIN_US);
            self.send(after_us, Message { kind: Kind::Failover, to: another, ..first.clone() });
        }
        if rng.u8(..) < 16 {
            self.send(rng.u64(10_000..LATE_WITHIN_US), Message { kind: Kind::Late, to: again_to, ..first });
        }
    }

    fn send(&mut self, after_us: u64, message: Message) {
        self.order += 1;
        let copy = self.order;
        self.messages.insert(copy, message);
        self.after(after_us, Happening::Sip { copy });
    }

    /// The first node from here on that its probes show serving, or one that is stopped: no probe has failed yet.
    fn choose(&self, from: usize) -> usize {
        let nodes = self.nodes.len();
        let takes = |node: &usize| {
            let process = self.nodes[*node].process.as_ref();
            process.is_some_and(|process| process.asleep || process.replication.serving().options)
        };
        (0..nodes).map(|step| (from + step) % nodes).find(takes).unwrap_or(from)
    }

    /// A copy is at its node: a dead one never sees it; where nobody reads it waits.
    pub(super) fn sip(&mut self, copy: u64) {
        let Some(message) = self.messages.get(&copy) else { return };
        let to = message.to;
        let waits = self.nodes[to].process.as_ref().map(|process| process.asleep || self.behind == Some(to));
        match waits {
            Some(false) => self.takes(copy, 0),
            Some(true) if self.sockets[to].len() < SOCKET_MAX => self.sockets[to].push_back((self.now_us, copy)),
            _ => drop(self.messages.remove(&copy)),
        }
    }

    /// A node goes on reading its socket.
    pub(super) fn reads_on(&mut self, node: usize) {
        for (since_us, copy) in std::mem::take(&mut self.sockets[node]) {
            self.takes(copy, self.now_us - since_us);
        }
    }

    /// What waits in the socket of a process that dies is lost.
    pub(super) fn loses_socket(&mut self, node: usize) {
        for (_, copy) in std::mem::take(&mut self.sockets[node]) {
            self.messages.remove(&copy);
        }
    }

    /// A node takes a copy that waited for so long in its socket.
    fn takes(&mut self, copy: u64, waited_us: u64) {
        let Some(mut message) = self.messages.remove(&copy) else { return };
        let (request, phone) = (message.request, message.phone);
        let too_old = waited_us > AGE_MAX_US;
        let goes = match message.kind {
            _ if too_old => is(Mutant::OldDatagramsServed),
            _ if message.judged_on.is_some() => true,
            Kind::First if waited_us == 0 => true,
            Kind::Failover => self.phones[phone].is_waiting_for(request),
            Kind::Late => self.may_come_late(&message),
            Kind::Kept => self.is_overtaken(&message),
            Kind::First | Kind::Again => self.phones[phone].is_waiting_for(request) || self.may_come_late(&message),
        };
        if !goes {
            return;
        }
        if is(Mutant::CheckThenWrite) && message.judged_on.is_none() {
            let aor = &self.lines[self.phones[phone].line].aor;
            let record = |process: &super::node::Process| process.location.get(aor, |known| known.cloned());
            message.judged_on =
                self.nodes[message.to].process.as_ref().map(|process| Rc::new(record(process).unwrap_or_default()));
            let pause_us = if self.rng.u8(..) < 16 { self.rng.u64(..AGE_MAX_US) } else { self.rng.u64(..2_000) };
            return self.send(pause_us, message);
        }
        let answer = self.is_judged(copy, &message);
        let id = self.nodes[message.to].id.clone();
        if matches!(answer, Some(Ok(Answer::Ok | Answer::AfterAcks(_)))) {
            let most_s = self.limits.grants_s(message.to);
            self.lines[self.phones[phone].line].grants(request, most_s);
        }
        match answer {
            Some(Ok(Answer::Ok | Answer::AfterAcks(_))) if message.kind == Kind::Kept => {
                let Register { call_id, cseq, .. } = &*message.register;
                self.alarm = Some(format!("{id} accepts CSeq {cseq} of {call_id} after a newer one was answered"));
            }
            Some(Ok(Answer::AfterAcks(effects))) => {
                self.asked.insert(copy, (request, phone));
                self.carry_out(message.to, effects);
            }
            Some(Ok(Answer::Ok)) => self.hears_full(request, phone),
            Some(Ok(Answer::TryAnother)) => self.try_another(message),
            Some(Ok(Answer::Refused(Refusal::TooManyContacts))) => {
                self.judge_no_room(&message);
                self.phones[phone].hears(request);
            }
            // Where nodes grant differently, the same request means another thing at the next one.
            Some(Ok(Answer::Refused(Refusal::ReusedCSeq))) if self.limits.expires_more_s > 0 => {}
            // Of several copies another may have been accepted, and undone, before; it may also overtake the first.
            Some(Ok(Answer::Refused(refusal)))
                if message.kind == Kind::First
                    && message.tried == 1
                    && waited_us == 0
                    && !self.lines[self.phones[phone].line].is_granted(request) =>
            {
                self.alarm = Some(format!("{id} refuses {:?}, which did nothing wrong: {refusal:?}", message.register));
            }
            Some(Err(alarm)) => self.alarm = Some(format!("{id}: {alarm}")),
            Some(Ok(Answer::Refused(_))) | None => {}
        }
    }

    /// A node judges a copy, and may write what it asks for.
    fn is_judged(&mut self, copy: u64, message: &Message) -> Option<Result<Answer, String>> {
        let (to, now_us, at) = (message.to, self.now_us, self.phones[message.phone].line);
        let line = &mut self.lines[at];
        line.reaches(message.request, now_us);
        let aor = line.aor.clone();
        let id = self.nodes[to].id.clone();
        let judged = self.with(to, |process, now| {
            let judged_on = message.judged_on.as_deref();
            let answer = process.register(&id, &aor, &message.register, judged_on, copy, now);
            ((answer, process.drawn.take()), Effects::default())
        });
        let (answer, drawn) = judged.map_or((None, None), |(answer, drawn)| (Some(answer), drawn));
        self.draws(to, at, drawn);
        let (request, kind) = (message.request, message.kind);
        self.say(|| format!("n{} judges request {request} ({kind:?}): {answer:?}", to + 1));
        answer
    }

    /// Whoever is shown to callers keeps its place: as many as may be shown registered after it.
    fn judge_no_room(&mut self, message: &Message) {
        let phone = &self.phones[message.phone];
        let adds = message.register.adds();
        let uris: Vec<String> = adds.map(|port| Phone::uri(phone.line, phone.number, port)).collect();
        let aor = self.lines[phone.line].aor.clone();
        let kept = self.with(message.to, |process, now| {
            let kept = process.rings(&aor, now.cluster_us, |rings| {
                let rings = |uri: &str| rings.unwrap_or_default().iter().any(|rings| rings.uri() == uri.as_bytes());
                uris.iter().find(|uri| rings(uri))
            });
            (kept, Effects::default())
        });
        let kept = kept.flatten();
        if let Some(uri) = kept {
            self.alarm = Some(format!("{} has no room for {uri}, which it serves", self.nodes[message.to].id));
        }
    }

    /// The network gives back copies of what was answered in full a while ago: nothing may come of them.
    pub(super) fn replays(&mut self, rng: &mut fastrand::Rng) {
        let horizon_us = match self.longest_left {
            true => self.limits.least_horizon_us(),
            false => self.limits.horizon_us(),
        };
        let (now_us, remembered_us) = (self.now_us, horizon_us - REMEMBERED_MARGIN_US);
        for phone in 0..self.phones.len() {
            let Phone { line, number, .. } = self.phones[phone];
            // A flow that moves may leave the memory of another Call-ID behind where it was.
            if self.phones[phone].had_flow() {
                continue;
            }
            let answered: Vec<(u64, u64, Register)> = self.lines[line].answered(number).collect();
            for (request, sent_us, register) in answered {
                let to = rng.usize(..self.nodes.len());
                if rng.bool() && sent_us + remembered_us > now_us {
                    let register = Rc::new(register);
                    let (kind, tried, judged_on) = (Kind::Late, 1, None);
                    let copy = Message { request, phone, register, to, kind, sent_us, tried, judged_on };
                    self.send(rng.u64(..REPLAYED_WITHIN_US), copy);
                }
            }
        }
    }

    /// The SBC got 503.
    fn try_another(&mut self, message: Message) {
        let in_time = self.now_us < message.sent_us + COPIES_WITHIN_US;
        if message.kind != Kind::Late && in_time && message.tried < self.nodes.len() {
            let to = (message.to + 1) % self.nodes.len();
            self.send(1_000, Message { to, tried: message.tried + 1, ..message });
        }
    }

    /// Where nothing is amiss a copy that comes late must change nothing, as long as its Call-ID is the last one that its
    /// phone used: RFC 3261 orders only within a Call-ID.
    fn may_come_late(&self, message: &Message) -> bool {
        let line = &self.lines[self.phones[message.phone].line];
        self.is_calm_for(message)
            && self.full.contains(&message.request)
            && line.may_come_late(message.request, message.register.is_star())
    }

    /// Where nothing is amiss, a copy of which a newer request of the same Call-ID makes certain that it is refused.
    fn is_overtaken(&self, message: &Message) -> bool {
        let line = &self.lines[self.phones[message.phone].line];
        self.is_calm_for(message) && line.is_overtaken(message.request, message.sent_us, &message.register)
    }

    /// Nothing is amiss, and its Call-ID is the last one that its phone used.
    fn is_calm_for(&self, message: &Message) -> bool {
        self.calm_since_us.is_some_and(|since_us| since_us <= self.now_us)
            && self.phones[message.phone].call_id() == message.register.call_id
    }

    /// A node's probes of some contact go unanswered.
    fn finds_silent(&mut self, rng: &mut fastrand::Rng) {
        let (node, line, which) = (rng.usize(..self.nodes.len()), rng.usize(..self.lines.len()), rng.usize(..));
        let aor = self.lines[line].aor.clone();
        let found = self.with(node, |process, now| {
            let serves = process.replication.serving().requests;
            let entry = if serves { process.contact(&aor, which, now.cluster_us) } else { None };
            ((process.boot, entry), Effects::default())
        });
        let Some((boot, Some(entry))) = found else { return };
        let now_us = self.now_us;
        self.lines[line].doubts(&entry, now_us);
        self.say(|| format!("n{} finds {aor} {:?} silent", node + 1, entry.key));
        self.order += 1;
        let judged = self.order;
        self.silent.insert(judged, Silent { node, boot, line, entry });
        self.after(rng.u64(50_000..SILENT_WITHIN_US), Happening::Silent { judged });
    }

    /// A node removes a contact that it found silent, whatever happened to it since.
    pub(super) fn removes_silent(&mut self, judged: u64) {
        let Some(Silent { node, boot, line, entry }) = self.silent.remove(&judged) else { return };
        let aor = self.lines[line].aor.clone();
        self.say(|| format!("n{} removes {aor} {:?}, which was silent", node + 1, entry.key));
        let drawn = self.with(node, |process, now| {
            let may = process.boot == boot && process.replication.serving().requests;
            let removed = if may { process.remove_silent(&aor, &entry, judged, now) } else { None };
            (process.drawn.take(), removed.unwrap_or_default())
        });
        self.draws(node, line, drawn.flatten());
    }

    /// A node may have drawn a stamp for a line.
    fn draws(&mut self, node: usize, line: usize, stamp: Option<Stamp>) {
        let Some(stamp) = stamp else { return };
        self.say(|| format!("n{} draws {stamp:?}", node + 1));
        let judged = self.stamps.draws(node, line, stamp);
        self.alarm = judged.err().or(self.alarm.take());
    }

    /// A 200 without all acks.
    pub(super) fn hears_short(&mut self, request: u64, phone: usize) {
        self.phones[phone].hears(request);
        let line = self.phones[phone].line;
        self.lines[line].hears_short(request);
    }

    /// All that serve hold the same. What only somebody knew is known; what was answered at all is so, unless something
    /// died for good meanwhile.
    pub(super) fn settles(&mut self) {
        let (now_us, gentle) = (self.now_us, self.gentle);
        self.lines.iter_mut().for_each(|line| line.settles(gentle, now_us));
    }

    /// All nodes die: what was answered since then may be on no disk.
    pub(super) fn loses_since(&mut self, since_us: u64) {
        for line in &mut self.lines {
            for id in line.loses_since(since_us) {
                self.full.remove(&id);
            }
        }
    }

    /// A 200 with all acks that were asked for: with few asked for it is as good as a short one.
    pub(super) fn hears_full(&mut self, request: u64, phone: usize) {
        if !self.limits.ack.is_all() {
            return self.hears_short(request, phone);
        }
        self.phones[phone].hears(request);
        self.full.insert(request);
        let line = self.phones[phone].line;
        let now_us = self.now_us;
        self.lines[line].hears_full(request, now_us);
        self.news.insert(line);
    }
}
