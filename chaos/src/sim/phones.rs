//! Simulated phones behind an SBC: what each asks for next, as SIP has it. They know what they sent and what they heard,
//! and nothing of nodes, records or stamps.

use aorta::registrar::Expires;

use super::line::{Slot, State, Sure, Written};

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

/// One device of one AoR.
#[derive(Debug)]
pub(super) struct Phone {
    /// Which AoR.
    pub(super) line: usize,
    /// Which device of it.
    pub(super) number: u8,
    /// The longest lifetime that is granted, seconds.
    expires_max_s: u32,
    boots: u32,
    cseq: u32,
    port: u8,
    reg_id: bool,
    registered: bool,
    waits: Option<(u64, u64)>,
    /// Until then it asks for nothing.
    rests_until_us: u64,
    /// Where its contact with a `reg-id` is, and which request says so.
    flow_at: Option<(u8, u64)>,
    /// Where it ever was.
    flow_was: [bool; PORTS as usize],
}

/// One REGISTER, as it is sent.
#[derive(Debug, Clone)]
pub(super) struct Register {
    pub(super) call_id: String,
    pub(super) cseq: u32,
    /// `["*"]` is `Contact: *`.
    pub(super) contacts: Vec<String>,
    pub(super) expires: Expires,
    /// What it means, if it is accepted.
    pub(super) written: Vec<Written>,
}

impl Register {
    pub(super) fn is_star(&self) -> bool {
        self.contacts == ["*"]
    }

    /// The ports at which it wants a contact to ring.
    pub(super) fn adds(&self) -> impl Iterator<Item = u8> {
        self.written.iter().filter_map(|written| match written.state {
            State::Live { port, .. } => Some(port),
            State::Gone => None,
        })
    }
}

impl Phone {
    pub(super) fn new(line: usize, number: u8, expires_max_s: u32) -> Self {
        Self {
            line,
            number,
            expires_max_s,
            boots: 0,
            cseq: 0,
            port: 0,
            reg_id: false,
            registered: false,
            waits: None,
            rests_until_us: 0,
            flow_at: None,
            flow_was: [false; PORTS as usize],
        }
    }

    /// The contact that it has at a port.
    pub(super) fn uri(line: usize, number: u8, port: u8) -> String {
        format!("sip:u{line}@192.0.2.{number}:{}", 5060 + u16::from(port))
    }

    /// Whether it ever registered with a `reg-id`.
    pub(super) fn had_flow(&self) -> bool {
        self.flow_was.contains(&true)
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

    /// Its request was refused: where its contact with a `reg-id` is is not known any more, if that request said so.
    pub(super) fn is_refused(&mut self, request: u64) {
        self.hears(request);
        self.flow_at.take_if(|(_, by)| *by == request);
    }

    /// The Call-ID that it uses now.
    pub(super) fn call_id(&self) -> String {
        format!("{}-{}-{}@192.0.2.1", self.line, self.number, self.boots)
    }

    /// What it does next, as this request.
    pub(super) fn next(&mut self, request: u64, now_us: u64, rng: &mut fastrand::Rng) -> Register {
        if rng.u8(..) < 4 {
            self.rests_until_us = now_us + rng.u64(..RESTS_US);
        }
        let mut register = self.wishes(rng);
        self.keeps_flow(request, &mut register.written);
        register
    }

    fn wishes(&mut self, rng: &mut fastrand::Rng) -> Register {
        let granted_s = LIFETIMES_S[rng.usize(..LIFETIMES_S.len())].min(self.expires_max_s);
        self.cseq += rng.u32(1..3);
        let chance = rng.u8(..);
        if !self.registered {
            self.reboots(chance < 60);
            return self.registers(granted_s, None);
        }
        match chance {
            0..70 => {
                self.registered = false;
                let (contact, written) = (self.contact(self.port, 0), self.writes(State::Gone));
                self.request(vec![contact], written)
            }
            70..80 => {
                self.registered = false;
                Register { expires: Expires::Seconds(0), ..self.request(vec!["*".into()], Written::all()) }
            }
            80..110 => {
                let before = self.moves(rng);
                let tidy = !self.reg_id && rng.bool();
                self.registers(granted_s, tidy.then_some(before))
            }
            110..140 => {
                self.reboots(true);
                if rng.bool() {
                    self.moves(rng);
                }
                // Firmware comes and goes.
                self.reg_id &= rng.bool();
                self.registers(granted_s, None)
            }
            140..170 => {
                self.reg_id = true;
                self.registers(granted_s, None)
            }
            _ => self.registers(granted_s, None),
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
        let mut contacts = vec![self.contact(self.port, granted_s)];
        let mut written = self.writes(State::Live { port: self.port, granted_s });
        if let Some(port) = left {
            contacts.push(self.contact(port, 0));
            written.push(Written { slot: Slot::Uri { phone: self.number, port }, state: State::Gone, sure: Sure::Yes });
        }
        self.request(contacts, written)
    }

    fn contact(&self, port: u8, expires_s: u32) -> String {
        let uri = Self::uri(self.line, self.number, port);
        let instance = format!("urn:uuid:00000000-0000-4000-8000-{:08x}{:04x}", self.line, self.number);
        let reg_id = if self.reg_id { ";reg-id=1" } else { "" };
        format!("<{uri}>;expires={expires_s};+sip.instance=\"<{instance}>\"{reg_id}")
    }

    /// A contact with a `reg-id` is one flow wherever it is (RFC 5626), and means the contact with its URI as well, as far
    /// as that is known where it is accepted. Any other is its URI.
    fn writes(&self, state: State) -> Vec<Written> {
        let uri = Slot::Uri { phone: self.number, port: self.port };
        if !self.reg_id {
            return vec![Written { slot: uri, state, sure: Sure::Yes }];
        }
        let flow = Slot::Flow { phone: self.number };
        let known = Written { slot: uri, state: State::Gone, sure: Sure::IfKnown };
        vec![Written { slot: flow, state, sure: Sure::Yes }, known]
    }

    /// A flow that moves takes along what it hid where it was; a contact that is its URI takes over the flow there.
    fn keeps_flow(&mut self, request: u64, written: &mut Vec<Written>) {
        let phone = self.number;
        for at in 0..written.len() {
            match (written[at].slot, self.flow_at) {
                (Slot::Flow { phone: of }, before) if of == phone => {
                    let was = (0..PORTS).filter(|port| *port != self.port && self.flow_was[usize::from(*port)]);
                    written.extend(was.map(|port| {
                        // Where its last move is not known it is still elsewhere.
                        let here = before.filter(|(there, _)| *there == port);
                        let sure = here.map_or(Sure::Perhaps, |(_, by)| Sure::IfKnownWith(by));
                        Written { slot: Slot::Uri { phone, port }, state: State::Gone, sure }
                    }));
                    let lives = written[at].state != State::Gone;
                    self.flow_at = lives.then_some((self.port, request));
                    self.flow_was[usize::from(self.port)] |= lives;
                }
                (Slot::Uri { phone: of, port }, flow_at)
                    if of == phone && self.flow_was[usize::from(port)] && written[at].sure == Sure::Yes =>
                {
                    let here = flow_at.filter(|(there, _)| *there == port);
                    self.flow_at = flow_at.filter(|_| here.is_none());
                    // Where its last move is not known it is still there.
                    let sure = here.map_or(Sure::Perhaps, |(_, by)| Sure::IfKnownWith(by));
                    let slot = Slot::Flow { phone };
                    if written.iter().all(|written| written.slot != slot) {
                        written.push(Written { slot, state: State::Gone, sure });
                    }
                }
                _ => {}
            }
        }
    }

    fn request(&self, contacts: Vec<String>, written: Vec<Written>) -> Register {
        Register { call_id: self.call_id(), cseq: self.cseq, contacts, expires: Expires::Absent, written }
    }
}
