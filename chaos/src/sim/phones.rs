//! Simulated phones behind an SBC: what each asks for next, as SIP has it. They know what they sent and what they heard,
//! and nothing of nodes, records or stamps.

use aorta::registrar::Expires;

use super::line::{Slot, State, Written};

/// Devices of an AoR.
pub(super) const PHONES: u8 = 2;

/// Ports that a phone moves between.
pub(super) const PORTS: u8 = 3;

/// A phone gives up waiting for an answer after this, µs.
pub(super) const PATIENCE_US: u64 = 1_000_000;

/// A long lifetime and a short one, seconds.
const LIFETIMES_S: [u32; 2] = [3600, 8];

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
}

impl Phone {
    pub(super) fn new(line: usize, number: u8, expires_max_s: u32) -> Self {
        Self { line, number, expires_max_s, boots: 0, cseq: 0, port: 0, reg_id: false, registered: false, waits: None }
    }

    /// The contact that it has at a port.
    pub(super) fn uri(line: usize, number: u8, port: u8) -> String {
        format!("sip:u{line}@192.0.2.{number}:{}", 5060 + u16::from(port))
    }

    /// Whether it waits for an answer.
    pub(super) fn is_busy(&self, now_us: u64) -> bool {
        self.waits.is_some_and(|(_, sent_us)| now_us < sent_us + PATIENCE_US)
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

    /// What it does next.
    pub(super) fn next(&mut self, rng: &mut fastrand::Rng) -> Register {
        let granted_s = LIFETIMES_S[usize::from(rng.u8(..) < 40)].min(self.expires_max_s);
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
                let before = self.moves();
                let tidy = !self.reg_id && rng.bool();
                self.registers(granted_s, tidy.then_some(before))
            }
            110..130 => {
                self.reboots(true);
                if rng.bool() {
                    self.moves();
                }
                self.registers(granted_s, None)
            }
            130..145 => {
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

    /// To the next port; the one it leaves.
    fn moves(&mut self) -> u8 {
        let before = self.port;
        self.port = (self.port + 1) % PORTS;
        before
    }

    /// Registers where it is now, and removes `left`, the port that it left, in the same request.
    fn registers(&mut self, granted_s: u32, left: Option<u8>) -> Register {
        self.registered = true;
        let mut contacts = vec![self.contact(self.port, granted_s)];
        let mut written = self.writes(State::Live { port: self.port, granted_s });
        if let Some(port) = left {
            contacts.push(self.contact(port, 0));
            written.push(Written { slot: Slot::Uri { phone: self.number, port }, state: State::Gone, sure: true });
        }
        self.request(contacts, written)
    }

    fn contact(&self, port: u8, expires_s: u32) -> String {
        let uri = Self::uri(self.line, self.number, port);
        let instance = format!("urn:uuid:00000000-0000-4000-8000-{:08x}{:04x}", self.line, self.number);
        let reg_id = if self.reg_id { ";reg-id=1" } else { "" };
        format!("<{uri}>;expires={expires_s};+sip.instance=\"<{instance}>\"{reg_id}")
    }

    /// A contact with a `reg-id` is one flow wherever it is (RFC 5626), and means the contacts that the phone had by their
    /// URIs as well, as far as they came before. Any other is its URI.
    fn writes(&self, state: State) -> Vec<Written> {
        let uri = Slot::Uri { phone: self.number, port: self.port };
        if !self.reg_id {
            return vec![Written { slot: uri, state, sure: true }];
        }
        let flow = Slot::Flow { phone: self.number };
        let elsewhere = (0..PORTS).map(|port| Slot::Uri { phone: self.number, port });
        let gone = elsewhere.map(|slot| Written { slot, state: State::Gone, sure: false });
        std::iter::once(Written { slot: flow, state, sure: true }).chain(gone).collect()
    }

    fn request(&self, contacts: Vec<String>, written: Vec<Written>) -> Register {
        Register { call_id: self.call_id(), cseq: self.cseq, contacts, expires: Expires::Absent, written }
    }
}
