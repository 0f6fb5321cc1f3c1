//! What is answered to each message: a stateless user agent server (RFC 3261 §8.2, §8.2.7) that is registrar and redirect
//! server. It keeps nothing between two messages, sends nothing and reads no clock. What a REGISTER may change is judged
//! by `registrar`, where a caller is sent is found by `redirect`.
//!
//! Before any is answered, what is known of those that came together is looked at ([`Uas::foresee`]): that changes nothing.
//!
//! The order of checks: ACK and responses, silence · readiness, before anything else is looked at · what the parser
//! refused · CANCEL · in-dialog requests · then by method. A 5xx means that another node may do better and nothing else.
//!
//! Decisions
//! - OPTIONS to this node's own address with a user: a probe, unless that user has a live contact. SBCs probe so.
//! - A request to the node itself (no user) that is neither OPTIONS nor REGISTER: 405.
//! - In doubt (`Serving::absence` is false) an AoR without a live contact gets 503, a removal remembered or not: the
//!   registration that followed it may lie on the nodes that are missing. So does a query of such an AoR, and a REGISTER of
//!   one for which there is no room: what looks like a stranger's may be a refresh.
//! - BYE and the like without a To-tag are outside any dialog and are redirected as any other request.

mod acks;
mod counts;
mod lookup;
mod register;
mod settings;

use std::borrow::Cow;
use std::hash::Hasher as _;
use std::net::SocketAddr;
use std::sync::Arc;

use aorta_proto::digest::AorHash;
use aorta_proto::uri::{Host, Scheme, StackBytes, Uri, aor_text, unescape};
use aorta_proto::{Aor, Record};
use siphasher::sip::SipHasher13;

pub use acks::Acks;
pub use counts::{Family, UasCounts};
pub use settings::{UasSettings, aor_rules};

use self::counts::{Limiter, LookedUp, Reason};
use crate::clock::{Clock, Now};
use crate::config::NotReadyOptions;
use crate::config::bounds::DATAGRAM_BYTES_MAX;
use crate::location::{Location, Room};
use crate::registrar::RegistrarLimits;
use crate::sip::message::{Fault, Framing, Message, Name, Reply, Request, Unfolded, ViaTarget, glance, vocabulary};
use crate::sip::transport::{Flow, Transport};

/// What a request may make a reply repeat (Via, From, To, Call-ID, CSeq), bytes; a request with more is refused.
pub const ECHO_BYTES_MAX: usize = 7_680;

/// What this node may serve at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    /// OPTIONS to the node are answered 200: SBCs may send it more.
    pub probes: bool,
    /// Requests are served at all.
    pub requests: bool,
    /// It may be said of an AoR that it has no contact; otherwise such an AoR gets 503.
    pub absence: bool,
    /// Which AoRs may have a contact more; the others get 403.
    pub room: Room,
}

impl Serving {
    /// In sync.
    pub const READY: Self = Self { probes: true, requests: true, absence: true, room: Room::ForAll };
    /// Serves what it knows; others may know more.
    pub const DOUBT: Self = Self { absence: false, ..Self::READY };
    /// Draining, within its grace.
    pub const DRAINING: Self = Self { probes: false, ..Self::READY };
    /// Not ready, or drained.
    pub const NOT_READY: Self = Self { probes: false, requests: false, absence: false, ..Self::READY };
}

/// When a message is answered, and in which state of the node.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Both clocks.
    pub now: Now,
    /// The wall clock, microseconds since 1970; for the Date header alone.
    pub wall_us: u64,
    /// What may be served.
    pub serving: Serving,
}

/// What to do about a message. `S` is a reserved place for a reply that waits for acks; dropping it gives it back.
#[derive(Debug)]
pub enum Answer<S> {
    /// Nothing.
    Silent,
    /// Send this now.
    Reply {
        /// The response.
        bytes: Vec<u8>,
        /// What the top Via says of its way.
        via: ViaTarget,
    },
    /// Publish the delta; send the reply when its acks are there.
    AfterAcks {
        /// Whose contacts.
        aor: Aor,
        /// What was merged here already.
        delta: Record,
        /// The response.
        reply: Vec<u8>,
        /// What the top Via says of its way.
        via: ViaTarget,
        /// The place of the reply.
        slot: S,
    },
}

/// The user agent server of a node. One a node, shared by its threads.
#[derive(Debug)]
pub struct Uas {
    settings: UasSettings,
    location: Arc<Location>,
    clock: Arc<Clock>,
    counts: UasCounts,
    refusals_said: Limiter,
}

/// One request while it is answered.
struct Asked<'a, 'm> {
    uas: &'a Uas,
    request: &'a Request<'m>,
    flow: &'a Flow,
    moment: Moment,
    to_tag: ToTag,
}

impl Uas {
    /// Answers from `location`, with stamps of `clock`.
    #[must_use]
    pub fn new(settings: UasSettings, location: Arc<Location>, clock: Arc<Clock>) -> Self {
        Self { settings, location, clock, counts: UasCounts::default(), refusals_said: Limiter::default() }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> &UasCounts {
        &self.counts
    }

    /// What a REGISTER may ask for here; an operator's removal keeps to it too.
    #[must_use]
    pub fn limits(&self) -> &RegistrarLimits {
        &self.settings.limits
    }

    /// Answers one whole message. `reserve` gives the place of a reply that must wait for acks, `None` when there is no
    /// more; it is asked at most once, and before anything is written.
    pub fn answer<S>(
        &self,
        message: &[u8],
        flow: &Flow,
        moment: Moment,
        reserve: impl FnOnce() -> Option<S>,
    ) -> Answer<S> {
        let text = Unfolded::new(message);
        let framing = match flow.transport {
            Transport::Udp => Framing::Datagram,
            Transport::Tcp => Framing::Stream,
        };
        // A request is large: it stays where it was read to.
        match &Message::parse(&text, framing) {
            Ok(Message::Response(_)) => Answer::Silent,
            Ok(Message::Request(request)) => {
                self.counts.request(request.method);
                if request.method == b"ACK" {
                    return Answer::Silent;
                }
                self.asked(request, flow, moment).answer(reserve)
            }
            Err(error) => {
                let Some(request) = &error.request else {
                    self.counts.unparsable();
                    return Answer::Silent;
                };
                self.counts.request(request.method);
                let asked = self.asked(request, flow, moment);
                if !moment.serving.requests {
                    return asked.not_ready();
                }
                if request.method == b"REGISTER" {
                    asked.say_refused(Reason::Malformed, error.fault);
                }
                asked.fault(error.fault)
            }
        }
    }

    /// Looks at what is known of the AoRs that these messages, which are answered next, ask for.
    pub fn foresee(&self, messages: &[&[u8]]) {
        self.location.touch(messages.iter().filter_map(|message| self.foreseen(message)));
    }

    /// Where it is, as far as a [glance] tells.
    #[must_use]
    pub fn foreseen(&self, message: &[u8]) -> Option<AorHash> {
        let aor = aor_text(&glance(message)?, &self.settings.rules).ok()?;
        Some(self.location.seek(aor.as_str()).hash())
    }

    fn asked<'a, 'm>(&'a self, request: &'a Request<'m>, flow: &'a Flow, moment: Moment) -> Asked<'a, 'm> {
        Asked { uas: self, request, flow, moment, to_tag: self.to_tag(request) }
    }

    /// The same for every retransmission of a request (RFC 3261 §8.2.7), on every node that has the same key.
    fn to_tag(&self, request: &Request<'_>) -> ToTag {
        // In one piece: the hasher is slow at taking up where it left off.
        let mut text = StackBytes::<256>::new();
        for part in [request.call_id, request.from.tag.unwrap_or_default(), request.via.branch] {
            text.extend_from_slice(&part.len().to_ne_bytes());
            text.extend_from_slice(part);
        }
        let mut hasher = SipHasher13::new_with_key(&self.settings.tag_key);
        hasher.write(&text);
        ToTag::new(hasher.finish())
    }
}

/// A To-tag: 16 hex digits.
struct ToTag([u8; 16]);

impl ToTag {
    fn new(hash: u64) -> Self {
        let digit = |place: usize| b"0123456789abcdef"[(hash >> (60 - 4 * place)) as usize & 15];
        Self(std::array::from_fn(digit))
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Asked<'_, '_> {
    fn answer<S>(self, reserve: impl FnOnce() -> Option<S>) -> Answer<S> {
        let request = self.request;
        let serving = self.moment.serving;
        let options = request.method == b"OPTIONS";
        if !serving.requests || (options && !serving.probes) {
            return self.not_ready();
        }
        if self.echo_bytes() > ECHO_BYTES_MAX {
            return self.fault(Fault::bad("Headers Too Long To Repeat"));
        }
        if request.method == b"CANCEL" {
            return self.send(self.reply(200, "OK"));
        }
        if request.method == b"REGISTER" {
            return self.register(reserve);
        }
        if request.to.tag.is_some() {
            return self.fault(Fault { status: 481, reason: "Call/Transaction Does Not Exist" });
        }
        match request.uri {
            Ok(uri) if options && self.is_probe(&uri) => self.probed(),
            Ok(uri) => self.look_up(&uri),
            Err(_) => self.fault(Fault::bad("Malformed Request-URI")),
        }
    }

    /// 503 to everything; but a probe may be left without an answer, for SBCs that take any answer for health.
    fn not_ready<S>(&self) -> Answer<S> {
        let request = self.request;
        if request.method == b"OPTIONS" {
            let probe = request.uri.is_ok_and(|uri| self.names_node(&uri));
            if probe && self.uas.settings.not_ready_options == NotReadyOptions::Silent {
                return Answer::Silent;
            }
            let retry_after_s = self.uas.settings.retry_after_s.to_string();
            return self.send(self.reply(503, "Service Unavailable").header("Retry-After", retry_after_s));
        }
        let fault = Fault { status: 503, reason: "Service Unavailable" };
        match request.method {
            b"REGISTER" => self.say_refused(Reason::NotReady, fault),
            b"CANCEL" => {}
            _ => self.uas.counts.looked_up(LookedUp::NotReady),
        }
        self.fault(fault)
    }

    /// Whether OPTIONS ask for this node and not for a phone.
    fn is_probe(&self, uri: &Uri<'_>) -> bool {
        self.names_node(uri) || (self.is_own_address(uri) && !self.has_contact(uri))
    }

    /// Without a user, or with one that stands for the node.
    fn names_node(&self, uri: &Uri<'_>) -> bool {
        if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
            return false;
        }
        let Some(user) = uri.user else { return true };
        let user: Cow<'_, [u8]> = unescape(user);
        self.uas.settings.probe_users.iter().any(|probe| probe.as_bytes() == &*user)
    }

    /// An address where SIP is served here, with its port or none.
    fn is_own_address(&self, uri: &Uri<'_>) -> bool {
        let Host::Ip(ip) = uri.host else { return false };
        let is = |address: &SocketAddr| {
            address.ip().to_canonical() == ip && uri.port.is_none_or(|port| port == address.port())
        };
        is(&self.flow.local) || self.uas.settings.own_addresses.iter().any(is)
    }

    /// 200 to a probe (RFC 3261 §11.2).
    fn probed<S>(&self) -> Answer<S> {
        let unsupported = self.unsupported();
        if !unsupported.is_empty() {
            return self.send(self.reply(420, "Bad Extension").header("Unsupported", unsupported));
        }
        let reply = self.reply(200, "OK").header("Allow", vocabulary::allow());
        self.send(reply.header("Accept", "application/sdp").header("Supported", SUPPORTED))
    }

    /// The option tags in Require that this server does not know (RFC 3261 §8.2.2.3).
    fn unsupported(&self) -> Vec<u8> {
        let unknown = |tag: &&[u8]| !tag.eq_ignore_ascii_case(SUPPORTED.as_bytes());
        self.request.options(Name::Require).filter(unknown).collect::<Vec<_>>().join(&b", "[..])
    }

    fn reply(&self, status: u16, reason: &str) -> Reply {
        self.uas.counts.reply(status);
        Reply::to(self.request, self.flow.peer, status, reason, self.to_tag.as_str())
    }

    fn fault<S>(&self, fault: Fault) -> Answer<S> {
        self.send(self.reply(fault.status, fault.reason))
    }

    fn send<S>(&self, reply: Reply) -> Answer<S> {
        let bytes = reply.finish();
        // Only the refusal of a request that is as large itself can be too large.
        if bytes.len() > DATAGRAM_BYTES_MAX { Answer::Silent } else { Answer::Reply { bytes, via: self.via() } }
    }

    fn via(&self) -> ViaTarget {
        self.request.via.target()
    }

    fn echo_bytes(&self) -> usize {
        let echoed = [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq];
        let bytes = |name| self.request.all(name).map(|value| value.len() + HEADER_FRAME_BYTES).sum::<usize>();
        echoed.into_iter().map(bytes).sum()
    }
}

/// The extension that this server knows (RFC 3327).
const SUPPORTED: &str = "path";

/// `Call-ID: ` and a line end.
const HEADER_FRAME_BYTES: usize = 12;
