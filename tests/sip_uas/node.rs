//! A node without sockets: messages are handed to its user agent server, and what it answers is taken apart again, by a
//! reader of its own, so that a fault of the parser under test is not judged by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aorta::clock::Clock;
use aorta::location::Location;
use aorta::sip::transport::{Flow, Transport};
use aorta::sip::uas::{Answer, Family, Moment, Serving, Uas, UasSettings};
use aorta_proto::{Aor, BootId, NodeId, Record};

/// Cluster time at the start, microseconds.
const START_US: u64 = 1_790_000_000_000_000;

pub(crate) struct Node {
    pub(crate) uas: Uas,
    pub(crate) location: Arc<Location>,
    pub(crate) flow: Flow,
    pub(crate) serving: Serving,
    /// Whether a reply slot is free.
    pub(crate) slots: bool,
    clock: Arc<Clock>,
    mono_us: Arc<AtomicU64>,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) text: String,
    /// What must be acked first.
    pub(crate) delta: Option<(Aor, Record)>,
}

impl Node {
    pub(crate) fn new(change: impl FnOnce(&mut UasSettings)) -> Self {
        let mut settings = UasSettings::of(NodeId::new("node1").expect("a node id"));
        change(&mut settings);
        let mono_us = Arc::new(AtomicU64::new(1_000_000));
        let clock = Arc::new(Clock::manual(Arc::clone(&mono_us), BootId(1)));
        clock.adopt(START_US);
        let location = Arc::new(Location::new([7; 16], false));
        Self {
            uas: Uas::new(settings, Arc::clone(&location), Arc::clone(&clock)),
            location,
            flow: Flow {
                transport: Transport::Udp,
                peer: address("192.0.2.50:5080"),
                local: address("198.51.100.1:5060"),
                received_age_us: 0,
            },
            serving: Serving::READY,
            slots: true,
            clock,
            mono_us,
        }
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.mono_us.fetch_add(seconds * 1_000_000, Ordering::AcqRel);
    }

    pub(crate) fn answer(&self, message: &[u8]) -> Answer<()> {
        let moment = Moment { now: self.clock.now(), wall_us: 784_887_151_000_000, serving: self.serving };
        self.uas.answer(message, &self.flow, moment, || self.slots.then_some(()))
    }

    /// The response; `None` for silence.
    pub(crate) fn send(&self, message: &str) -> Option<Response> {
        match self.answer(message.as_bytes()) {
            Answer::Silent => None,
            Answer::Reply { bytes, .. } => Some(Response::read(bytes, None)),
            Answer::AfterAcks { aor, delta, reply, .. } => Some(Response::read(reply, Some((aor, delta)))),
        }
    }

    /// The response to what must be answered.
    pub(crate) fn ask(&self, message: &str) -> Response {
        self.send(message).unwrap_or_else(|| panic!("no answer to {message}"))
    }

    pub(crate) fn status(&self, message: &str) -> u16 {
        self.ask(message).status
    }

    /// Registers, and asserts the 200.
    pub(crate) fn register(&self, cseq: u32, contacts: &str) -> Response {
        let response = self.ask(&register("alice", "reg", cseq, &format!("Contact: {contacts}\r\n")));
        assert_eq!(response.status, 200, "{}", response.text);
        response
    }

    pub(crate) fn count(&self, family: Family, label: &str) -> u64 {
        let totals = self.uas.counts().totals();
        totals.iter().find(|(f, l, _)| *f == family && *l == label).expect("a counter").2
    }
}

impl Response {
    fn read(bytes: Vec<u8>, delta: Option<(Aor, Record)>) -> Self {
        let text = String::from_utf8(bytes).expect("text");
        let mut start = text.lines().next().expect("a line").splitn(3, ' ');
        assert_eq!(start.next(), Some("SIP/2.0"));
        let status = start.next().expect("a status").parse().expect("a number");
        let reason = start.next().expect("a phrase").to_owned();
        assert!(text.ends_with("\r\nContent-Length: 0\r\n\r\n"), "{text}");
        Self { status, reason, text, delta }
    }

    /// The values of a header, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let line = |line: &'_ str| line.split_once(": ").is_some_and(|(found, _)| found == name);
        self.text
            .split("\r\n")
            .filter(|text| line(text))
            .map(|text| text.split_once(": ").expect("checked").1)
            .collect()
    }

    pub(crate) fn one(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name} in {}", self.text);
        all[0]
    }
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A REGISTER of `user@example.com` with further header lines.
pub(crate) fn register(user: &str, call_id: &str, cseq: u32, headers: &str) -> String {
    let to = format!("sip:{user}@example.com");
    request("REGISTER", "sip:example.com", &to, call_id, cseq, headers)
}

/// An INVITE with further header lines.
pub(crate) fn invite(uri: &str, headers: &str) -> String {
    request("INVITE", uri, "sip:alice@example.com", "call", 1, headers)
}

pub(crate) fn options(uri: &str, headers: &str) -> String {
    request("OPTIONS", uri, uri, "probe", 1, headers)
}

/// Any request; its To has no tag.
pub(crate) fn request(method: &str, uri: &str, to: &str, call_id: &str, cseq: u32, headers: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.50:5080;branch=z9hG4bK{call_id}{cseq};rport\r\n\
         Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKphone\r\n\
         Max-Forwards: 70\r\n\
         From: \"A\" <sip:alice@example.com>;tag=from1\r\n\
         To: <{to}>\r\n\
         Call-ID: {call_id}\r\n\
         CSeq: {cseq} {method}\r\n\
         {headers}Content-Length: 0\r\n\r\n"
    )
}
