//! Simulated phones behind an SBC: what each asks for next, as SIP has it. They know what they sent and what they heard,
//! and nothing of nodes, records or stamps.

use aorta::registrar::Expires;

use super::line::{Slot, State, Written};
use super::plan::{Habit, Limits};

/// Devices of an AoR.
pub(super) const PHONES: u8 = 2;

/// Ports that a phone moves between.
pub(super) const PORTS: u8 = 4;

/// A phone gives up waiting for an answer after this, µs.
pub(super) const PATIENCE_US: u64 = 1_000_000;

/// Lifetimes that are asked for, long ones and short ones, seconds.
const LIFETIMES_S: [u32; 7] = [3600, 3600, 3600, 3600, 3600, 8, 3];

/// A phone rests for less than this, µs.
const RESTS_US: u64 = 12_000_000;

/// Of so many in 256 that were not answered, those that clear what they may have before they go on.
const CLEARS_IN_256: u8 = 24;

/// One device of one AoR.
#[derive(Debug)]
pub(super) struct Phone {
    /// Which AoR.
    pub(super) line: usize,
    /// Which device of it.
    pub(super) number: u8,
    /// The longest lifetime that is granted, seconds.
    expires_max_s: u32,
    habit: Habit,
    /// Its contacts have `q` and `Path`.
    dresses: bool,
    boots: u32,
    cseq: u32,
    port: u8,
    reg_id: bool,
    had_flow: bool,
    registered: bool,
    waits: Option<(u64, u64)>,
    /// Until then it asks for nothing.
    rests_until_us: u64,
}

/// One REGISTER, as it is sent.
#[derive(Debug, Clone)]
pub(super) struct Register {
    pub(super) call_id: String,
    pub(super) cseq: u32,
    /// `["*"]` is `Contact: *`.
    pub(super) contacts: Vec<String>,
    pub(super) expires: Expires,
    /// What the contacts that it adds carry.
    pub(super) dress: Dress,
    /// What it means, if it is accepted.
    pub(super) written: Vec<Written>,
}

/// What a contact carries beside its URI, for whoever calls it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dress {
    /// A tenth of `q`, and which edge proxy the `Path` (RFC 3327) names; nothing of both when there is none.
    tenth: Option<u8>,
}

impl Dress {
    /// `q` in thousandths.
    pub(super) fn q(self) -> Option<u16> {
        self.tenth.map(|tenth| u16::from(tenth) * 100)
    }

    /// The one value of the `Path`.
    pub(super) fn path(self) -> Option<String> {
        self.tenth.map(|tenth| format!("<sip:edge{tenth}.example.com;lr>"))
    }

    fn parameter(self) -> String {
        self.tenth.map(|tenth| format!(";q=0.{tenth}")).unwrap_or_default()
    }
}

impl Register {
    pub(super) fn is_star(&self) -> bool {
        self.contacts == ["*"]
    }

    /// The ports at which it wants a contact to ring.
    pub(super) fn adds(&self) -> impl Iterator<Item = u8> {
        self.written.iter().filter_map(|written| match written.state {
            State::Live { .. } => Some(written.slot.port()),
            State::Gone => None,
        })
    }
}

impl Phone {
    pub(super) fn new(line: usize, number: u8, limits: &Limits) -> Self {
        Self {
            line,
            number,
            expires_max_s: limits.grants_s(0),
            habit: limits.habit,
            dresses: limits.dresses,
            boots: 0,
            cseq: 0,
            port: 0,
            reg_id: false,
            had_flow: false,
            registered: false,
            waits: None,
            rests_until_us: 0,
        }
    }

    /// The contact that it has at a port.
    pub(super) fn uri(line: usize, number: u8, port: u8) -> String {
        format!("sip:u{line}@192.0.2.{number}:{}", 5060 + u16::from(port))
    }

    /// Whether it ever registered with a `reg-id`.
    pub(super) fn had_flow(&self) -> bool {
        self.had_flow
    }

    /// Whether it waits for an answer, or rests.
    pub(super) fn is_busy(&self, now_us: u64) -> bool {
        now_us < self.rests_until_us || self.waits.is_some_and(|(_, sent_us)| now_us < sent_us + PATIENCE_US)
    }

    pub(super) fn waits(&mut self, request: u64, now_us: u64) {
        self.waits = Some((request, now_us));
    }

    pub(super) fn is_waiting_for(&self, request: u64) -> bool {
        self.waits.is_some_and(|(waits, _)| waits == request)
    }

    pub(super) fn hears(&mut self, request: u64) {
        self.waits.take_if(|(waits, _)| *waits == request);
    }

    /// The Call-ID that it uses now.
    pub(super) fn call_id(&self) -> String {
        format!("{}-{}-{}@192.0.2.1", self.line, self.number, self.boots)
    }

    /// What it does next, as this request.
    pub(super) fn next(&mut self, now_us: u64, rng: &mut fastrand::Rng) -> Register {
        let (in_256, most_us) = match self.habit {
            Habit::Rest => (96, u64::from(self.expires_max_s) * 1_000_000),
            Habit::Mixed | Habit::Wander => (4, RESTS_US),
        };
        if rng.u8(..) < in_256 {
            self.rests_until_us = now_us + rng.u64(..most_us);
        }
        self.wishes(rng)
    }

    fn wishes(&mut self, rng: &mut fastrand::Rng) -> Register {
        let granted_s = LIFETIMES_S[rng.usize(..LIFETIMES_S.len())].min(self.expires_max_s);
        self.cseq += rng.u32(1..3);
        let chance = rng.u8(..);
        if !self.registered {
            self.reboots(chance < 60);
            return self.registers(granted_s, None);
        }
        let clears = self.waits.is_some() && rng.u8(..) < CLEARS_IN_256;
        match self.bounds().iter().position(|bound| chance < *bound).filter(|_| !clears).or(clears.then_some(1)) {
            Some(0) => {
                self.registered = false;
                let (contact, written) = (self.contact(self.port, 0), self.writes(self.port, State::Gone));
                self.request(vec![contact], written)
            }
            Some(1) => {
                self.registered = false;
                Register { expires: Expires::Seconds(0), ..self.request(vec!["*".into()], Written::all()) }
            }
            Some(2) => {
                let before = self.moves(rng);
                let tidy = !self.reg_id && rng.bool();
                self.registers(granted_s, tidy.then_some(before))
            }
            Some(3) => {
                self.reboots(true);
                if rng.bool() {
                    self.moves(rng);
                }
                // Firmware comes and goes.
                self.reg_id &= rng.bool();
                self.registers(granted_s, None)
            }
            Some(4) => {
                self.reg_id = rng.u8(..) < 170;
                self.registers(granted_s, None)
            }
            _ => self.registers(granted_s, None),
        }
    }

    /// Up to where, of 256, it unregisters, clears, moves, reboots, gains or loses its `reg-id`; beyond that it refreshes.
    fn bounds(&self) -> [u8; 5] {
        match self.habit {
            Habit::Mixed | Habit::Rest => [70, 80, 110, 140, 170],
            Habit::Wander => [20, 24, 124, 150, 220],
        }
    }

    fn reboots(&mut self, really: bool) {
        if really {
            self.boots += 1;
            self.cseq = 1;
        }
    }

    /// To another port; the one it leaves.
    fn moves(&mut self, rng: &mut fastrand::Rng) -> u8 {
        let before = self.port;
        self.port = (self.port + rng.u8(1..PORTS)) % PORTS;
        before
    }

    /// Registers where it is now, and removes `left`, the port that it left, in the same request.
    fn registers(&mut self, granted_s: u32, left: Option<u8>) -> Register {
        self.registered = true;
        self.had_flow |= self.reg_id;
        let mut contacts = vec![self.contact(self.port, granted_s)];
        let mut written = self.writes(self.port, State::Live { granted_s });
        if let Some(port) = left {
            contacts.push(self.contact(port, 0));
            written.extend(self.writes(port, State::Gone));
        }
        self.request(contacts, written)
    }

    fn contact(&self, port: u8, expires_s: u32) -> String {
        let uri = Self::uri(self.line, self.number, port);
        let instance = format!("urn:uuid:00000000-0000-4000-8000-{:08x}{:04x}", self.line, self.number);
        let reg_id = if self.reg_id { ";reg-id=1" } else { "" };
        let q = self.dress().parameter();
        format!("<{uri}>;expires={expires_s};+sip.instance=\"<{instance}>\"{reg_id}{q}")
    }

    /// A contact with a `reg-id` is one flow wherever it is (RFC 5626); any other is its URI. Of the two only the later rings
    /// at a URI, whoever knew of which when.
    fn writes(&self, at: u8, state: State) -> Vec<Written> {
        let phone = self.number;
        let uri = |port, state| Written { slot: Slot::Uri { phone, port }, state };
        let flow = |port, state| Written { slot: Slot::Flow { phone, port }, state };
        if !self.reg_id {
            return vec![uri(at, state), flow(at, State::Gone)];
        }
        let elsewhere = (0..PORTS).filter(|port| *port != at).map(|port| flow(port, State::Gone));
        elsewhere.chain([flow(at, state), uri(at, State::Gone)]).collect()
    }

    fn request(&self, contacts: Vec<String>, written: Vec<Written>) -> Register {
        let (call_id, cseq, dress) = (self.call_id(), self.cseq, self.dress());
        Register { call_id, cseq, contacts, expires: Expires::Absent, dress, written }
    }

    /// Another one in each request.
    fn dress(&self) -> Dress {
        Dress { tenth: self.dresses.then_some((self.cseq % 10) as u8) }
    }
}
