//! The work of one socket of the crowd: whose turn it is and when, what each phone makes of its answer. Open loop.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::aor::{Aor, Device, Errand, Register, Wish};
use super::belief::Where;
use super::lapses::Looks;
use super::plan::CrowdPlan;
use super::tally::{Deed, Observation, Tally};
use crate::engine::{Next, Outcome, Request, To, Work};
use crate::nodes::Nodes;
use crate::phone::{Ask, Household};
use crate::request::Text;

/// How late an open loop may be before it drops what was due instead.
const LATE_MAX: Duration = Duration::from_secs(1);
/// Looks for an AoR that has something to do, each time one is due.
const LOOKS: usize = 64;
/// Time between two counts of who is surely registered.
const COUNT_EVERY: Duration = Duration::from_millis(250);
/// Time between two looks at a rate that is zero.
const IDLE: Duration = Duration::from_millis(20);
/// Looks for a phone that can restart, each time a place is free.
const STORM_LOOKS: usize = 4096;
/// Pause when everybody who may still do something rests.
const PAUSE: Duration = Duration::from_millis(2);
/// A call must be sure for so long ahead, ms: longer than any patience with it.
const SURE_AHEAD_MS: u64 = 8_000;
/// A datagram may be on its way for so long after its request was given up, ms.
const STRAY_MS: u64 = 2_000;

/// What the one who watches tells all shares.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pub(super) stop: AtomicBool,
    pub(super) per_second: AtomicU32,
    pub(super) calls_per_second: AtomicU32,
    /// How many storms were ordered.
    pub(super) storms: AtomicU64,
    /// Nothing begins.
    pub(super) held: AtomicBool,
    /// Requests and calls that have begun and not ended.
    pub(super) open: AtomicU64,
}

impl Orders {
    /// Nobody goes on to something else.
    pub(super) fn ends_here(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.held.load(Ordering::Relaxed)
    }
}

/// When the next request of one kind is due.
#[derive(Debug)]
struct Pacer {
    due: Instant,
}

impl Pacer {
    /// The due time of a request that is due now, and how many before it were dropped for being too late.
    fn take(&mut self, per_second: f64, now: Instant) -> Option<(Instant, u64)> {
        if per_second <= 0.0 {
            self.due = now + IDLE;
            return None;
        }
        let gap = Duration::from_secs_f64(1.0 / per_second);
        let mut dropped = 0;
        if now > self.due + LATE_MAX {
            dropped = ((now - self.due).as_secs_f64() * per_second) as u64;
            self.due = now;
        }
        if self.due > now {
            return None;
        }
        let due = self.due;
        self.due += gap;
        Some((due, dropped))
    }
}

/// One socket's part of the crowd.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) plan: Arc<CrowdPlan>,
    pub(super) household: Arc<Household>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) aors: Vec<Aor>,
    pub(super) tally: Arc<Mutex<Tally>>,
    pub(super) orders: Arc<Orders>,
    pub(super) rng: fastrand::Rng,
    /// When the crowd was made.
    pub(super) epoch: Instant,
    registers: Pacer,
    calls: Pacer,
    pub(super) looks: Looks,
    counted_at: Instant,
    storms_seen: u64,
    /// Phones that still have to register in a storm.
    storming: usize,
    storm_open: usize,
    storm_cursor: usize,
    /// Failures of a storm after which it is given up for who is left.
    storm_failures_left: usize,
    /// Ends when the storm is over: no steady load.
    storm_only: bool,
}

impl Share {
    pub(super) fn new(
        plan: &Arc<CrowdPlan>,
        household: &Arc<Household>,
        nodes: &Arc<Nodes>,
        orders: &Arc<Orders>,
        part: Part,
        epoch: Instant,
    ) -> Self {
        let now = Instant::now();
        let pacer = || Pacer { due: now };
        let mut aors = Arc::try_unwrap(part.aors).unwrap_or_else(|shared| (*shared).clone());
        aors.iter_mut().flat_map(|aor| &mut aor.devices).for_each(|device| device.watched = false);
        Share {
            plan: plan.clone(),
            household: household.clone(),
            nodes: nodes.clone(),
            aors,
            tally: part.tally,
            orders: orders.clone(),
            rng: part.rng,
            epoch,
            registers: pacer(),
            calls: pacer(),
            looks: Looks::default(),
            counted_at: now,
            storms_seen: orders.storms.load(Ordering::Relaxed),
            storming: 0,
            storm_open: 0,
            storm_cursor: 0,
            storm_failures_left: 0,
            storm_only: false,
        }
    }

    /// Every phone registers, as fast as the window allows; with nothing else this is all that is done.
    pub(super) fn storms(&mut self, only: bool) {
        self.storm_only |= only;
        self.aors.iter_mut().flat_map(|aor| &mut aor.devices).for_each(|device| device.storms = true);
        // Who is just being answered is counted twice, for it has to do it twice.
        self.storming = self.aors.iter().map(|aor| aor.devices.len()).sum::<usize>() + self.storm_open;
        self.storm_failures_left = 4 * self.storming;
    }

    pub(super) fn into_part(self) -> Part {
        self.count();
        Part { aors: Arc::new(self.aors), tally: self.tally, rng: self.rng }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts who is surely registered.
    fn count(&self) {
        let now_ms = self.now_ms();
        let (mut bound, mut unsure) = (0, 0);
        for device in self.aors.iter().flat_map(|aor| &aor.devices) {
            match device.belief.is_where(now_ms) {
                Where::Port(_) => bound += 1,
                Where::Unsure => unsure += 1,
                Where::Nowhere => {}
            }
        }
        let mut tally = self.tally();
        (tally.bound, tally.unsure, tally.storming) = (bound, unsure, self.storming as u64);
        tally.at = self.epoch.elapsed();
    }

    /// When the last copy of a request that begins now may be stamped, ms.
    pub(super) fn ends_ms(&self, now_ms: u64) -> u64 {
        now_ms + self.plan.patience.whole.as_millis() as u64 + STRAY_MS
    }

    pub(super) fn text(&self, at: usize, register: &Register) -> Text {
        let aor = &self.aors[at];
        let phone = aor.phone(&self.household, register.device, register.left);
        let ask = match register.wish {
            Wish::Bind(seconds) => Ask::Bind(seconds),
            Wish::Unbind => Ask::Unbind,
            Wish::Clear => Ask::Clear,
        };
        phone.register(ask, aor.devices[register.device].cseq)
    }

    pub(super) fn begin(&mut self, at: usize, device: usize, deed: Deed, storm: bool, to: To, due: Instant) -> Request {
        let now_ms = self.now_ms();
        let ends_ms = self.ends_ms(now_ms);
        let (plan, aor) = (self.plan.clone(), &mut self.aors[at]);
        let register = Register { storm, ..aor.begins(device, deed, &plan, now_ms, ends_ms) };
        aor.open = Some(Box::new(Errand::Register(register)));
        *self.tally().begun.entry(deed).or_default() += 1;
        Request { tag: at as u64, text: self.text(at, &register), to, due: Some(due) }
    }

    /// A REGISTER that is due, of somebody who has something to do.
    fn due_register(&mut self, due: Instant) -> Option<Request> {
        let now_ms = self.now_ms();
        for _ in 0..LOOKS {
            let at = self.rng.usize(0..self.aors.len());
            if !self.aors[at].is_idle(now_ms) {
                continue;
            }
            let device = self.rng.usize(0..self.aors[at].devices.len());
            if let Some(deed) = self.aors[at].chooses(device, &self.plan, &mut self.rng, now_ms) {
                return Some(self.begin(at, device, deed, false, To::InTurn, due));
            }
        }
        None
    }

    fn due_call(&mut self, due: Instant) -> Option<Request> {
        let now_ms = self.now_ms();
        let somebody = self.rng.u32(0..100) >= self.plan.mix.calls_to_nobody_percent;
        let mut other = None;
        for _ in 0..LOOKS {
            let at = self.rng.usize(0..self.aors.len());
            let aor = &self.aors[at];
            if !aor.is_idle(now_ms) {
                continue;
            }
            match aor.rings(now_ms, SURE_AHEAD_MS) {
                Some(rings) if rings == somebody => return Some(self.call(at, now_ms, due)),
                Some(_) => other = Some(at),
                None => {}
            }
        }
        // Better a call of the other kind than none.
        other.map(|at| self.call(at, now_ms, due))
    }

    fn call(&mut self, at: usize, now_ms: u64, due: Instant) -> Request {
        self.aors[at].open = Some(Box::new(Errand::Call { began_ms: now_ms }));
        let nonce = self.rng.u64(..);
        let text = self.aors[at].phone(&self.household, 0, 0).called("INVITE", nonce);
        {
            let mut tally = self.tally();
            *tally.begun.entry(Deed::Call).or_default() += 1;
            tally.calls += 1;
        }
        let to = self.plan.via.map_or(To::InTurn, To::Address);
        Request { tag: at as u64, text, to, due: Some(due) }
    }

    /// The next phone of a storm that can restart now.
    fn next_of_storm(&mut self) -> Option<Request> {
        let held = self.orders.held.load(Ordering::Relaxed);
        if held || self.storming == 0 || self.storm_open >= self.plan.fill_window {
            return None;
        }
        let (now_ms, count) = (self.now_ms(), self.aors.len());
        let looks = if self.storm_only { STORM_LOOKS } else { LOOKS };
        for _ in 0..looks.min(count) {
            let at = self.storm_cursor % count;
            let aor = &self.aors[at];
            let can = |device: &&Device| {
                device.storms && if device.cseq == 0 { aor.is_idle(now_ms) } else { aor.may_reboot(now_ms) }
            };
            let Some(device) = aor.devices.iter().position(|device| can(&device)) else {
                self.storm_cursor += 1;
                continue;
            };
            let fresh = aor.devices[device].cseq == 0;
            self.aors[at].devices[device].storms = false;
            self.storm_open += 1;
            let deed = if fresh { Deed::Register } else { Deed::Reboot };
            return Some(self.begin(at, device, deed, true, To::InTurn, Instant::now()));
        }
        None
    }

    /// A phone of a storm was answered, or was not.
    pub(super) fn storm_ended(&mut self, at: usize, device: usize, answered: bool) {
        self.storm_open -= 1;
        if answered || self.storm_failures_left == 0 {
            self.storming -= 1;
        } else {
            self.storm_failures_left -= 1;
            self.aors[at].devices[device].storms = true;
        }
    }

    /// Somebody saw what must not be.
    pub(super) fn observation(
        &self,
        at: usize,
        device: usize,
        node: std::net::SocketAddr,
        what: String,
    ) -> Observation {
        let aor = &self.aors[at];
        observation(aor, &self.household, &self.nodes, device, node, self.epoch.elapsed(), what)
    }

    fn next_due(&mut self, now: Instant) -> Option<Request> {
        let sockets = f64::from(self.plan.sockets.max(1) as u32);
        // Held, the due times move along: nobody is late for what nobody was to do.
        let held = self.orders.held.load(Ordering::Relaxed);
        let rate = |of: &AtomicU32| if held { 0.0 } else { f64::from(of.load(Ordering::Relaxed)) / sockets };
        if let Some((due, dropped)) = self.calls.take(rate(&self.orders.calls_per_second), now) {
            let request = self.due_call(due);
            self.tally().not_made += dropped + u64::from(request.is_none());
            if request.is_some() {
                return request;
            }
        }
        let (due, dropped) = self.registers.take(rate(&self.orders.per_second), now)?;
        let request = self.due_register(due);
        self.tally().not_made += dropped + u64::from(request.is_none());
        request
    }
}

impl Share {
    fn begins(&mut self) -> Next {
        let now = Instant::now();
        if self.orders.stop.load(Ordering::Relaxed) || (self.storm_only && self.storming == 0) {
            return Next::Finished;
        }
        if now >= self.counted_at + COUNT_EVERY {
            self.counted_at = now;
            self.count();
        }
        let storms = self.orders.storms.load(Ordering::Relaxed);
        if storms != self.storms_seen {
            self.storms_seen = storms;
            self.storms(false);
        }
        if let Some(request) = self.next_of_storm() {
            return Next::Start(request);
        }
        if self.storm_only {
            return Next::Wait(now + PAUSE);
        }
        let held = self.orders.held.load(Ordering::Relaxed);
        if let Some(request) = if held { None } else { self.due_look() } {
            return Next::Start(request);
        }
        match self.next_due(now) {
            Some(request) => Next::Start(request),
            None if self.storming > 0 => Next::Wait(now + PAUSE),
            None => Next::Wait(self.registers.due.max(now).min(self.calls.due.max(now)).max(now + PAUSE / 4)),
        }
    }

    fn goes_on(&mut self, outcome: &Outcome<'_>) -> Option<Request> {
        let at = outcome.tag as usize;
        let errand = self.aors[at].open.take()?;
        match *errand {
            Errand::Register(register) => self.registered(at, register, outcome),
            Errand::Call { began_ms } => self.called(at, began_ms, outcome),
            Errand::Look { device, after, began_ms } => {
                self.looked(at, device, after, began_ms, outcome);
                None
            }
            Errand::Deliver { node, device, uri } => self.delivered(at, node, device, &uri, outcome),
        }
    }
}

impl Work for Share {
    fn next(&mut self) -> Next {
        let next = self.begins();
        if matches!(next, Next::Start(_)) {
            self.orders.open.fetch_add(1, Ordering::Relaxed);
        }
        next
    }

    fn done(&mut self, outcome: &Outcome<'_>) -> Option<Request> {
        let more = self.goes_on(outcome);
        if more.is_none() {
            self.orders.open.fetch_sub(1, Ordering::Release);
        }
        more
    }
}

/// What a socket keeps between two runs, for its next one and for judges to look at.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) aors: Arc<Vec<Aor>>,
    pub(super) tally: Arc<Mutex<Tally>>,
    pub(super) rng: fastrand::Rng,
}

pub(super) fn observation(
    aor: &Aor,
    household: &Household,
    nodes: &Nodes,
    device: usize,
    node: std::net::SocketAddr,
    at: Duration,
    what: String,
) -> Observation {
    let told = aor.devices[device].told.map(|told| super::tally::Told {
        deed: told.deed,
        at: Duration::from_millis(told.at_ms),
        by: nodes.address(usize::from(told.place)),
        full: told.full,
    });
    let name = aor.phone(household, 0, 0).aor;
    Observation { at, aor: name, phone: aor.first + device, node, told, what }
}
