//! REGISTER: the message's side of RFC 3261 §10.3. Steps 1, 2 and 5 are here, step 8 is written here; steps 6 and 7 are
//! judged by `registrar`; 3 and 4 are the network's: who may talk at all.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use aorta_proto::hash::{call_id_hash, uri_hash};
use aorta_proto::uri::{AorError, Scheme, StackBytes, Uri, aor, canonical_contact, push_decimal, push_ip};
use aorta_proto::{Aor, ContactKey, Record};
use smallvec::SmallVec;
use tracing::debug;

use super::acks::Acks;
use super::counts::{Accepted, Reason};
use super::{Answer, Asked, SUPPORTED};
use crate::config::PathMode;
use crate::registrar::{
    ContactWish, Contacts, Expires, Judged, Listed, Refusal, RegisterRequest, RegistrarLimits, Write, list, register,
};
use crate::sip::message::{self, Contact, Fault, Lifetime, push_http_date};

const NOT_FOUND: Fault = Fault { status: 404, reason: "Not Found" };
const UNAVAILABLE: Fault = Fault { status: 503, reason: "Service Unavailable" };

impl Asked<'_, '_> {
    pub(super) fn register<S>(&self, reserve: impl FnOnce() -> Option<S>) -> Answer<S> {
        let registrar = match self.registrar() {
            Ok(registrar) => registrar,
            Err((reason, fault)) => return self.refuse(reason, fault),
        };
        let unsupported = self.unsupported();
        if !unsupported.is_empty() {
            return self.bad_extension(Reason::BadExtension, unsupported);
        }
        let aor = match self.address_of_record(&registrar) {
            Ok(aor) => aor,
            Err((reason, fault)) => return self.refuse(reason, fault),
        };
        let read = self.request.contacts().and_then(|contacts| Ok((contacts, self.request.paths()?)));
        let (contacts, paths) = match read {
            Ok(read) => read,
            Err(fault) => return self.refuse(Reason::Malformed, fault),
        };
        // Who requires an extension supports it (RFC 3261 §20.32).
        let supported = self.request.supports(SUPPORTED);
        let known = supported || self.request.options(message::Name::Require).next().is_some();
        if self.uas.settings.path_mode == PathMode::Strict && !paths.is_empty() && !known {
            return self.bad_extension(Reason::PathNotSupported, SUPPORTED.into());
        }
        let source = self.source();
        let wishes: SmallVec<[ContactWish<'_>; 1]>;
        let contacts = match &contacts {
            message::Contacts::Star => Contacts::Star,
            message::Contacts::List(list) if list.is_empty() => return self.query(&aor),
            message::Contacts::List(list) => {
                wishes = list.iter().map(wish).collect();
                Contacts::List(&wishes)
            }
        };
        let request = RegisterRequest {
            call_id: self.request.call_id,
            call_id_hash: call_id_hash(self.request.call_id),
            cseq: self.request.cseq.number,
            contacts,
            expires: expires(self.request.expires()),
            path: &paths,
            user_agent: self.request.user_agent(),
            source: &source,
            node: &self.uas.settings.node,
        };
        // Before anything is written: a change whose reply has no place would be made and not answered for.
        let Some(slot) = reserve() else {
            return self.refuse(Reason::Overloaded, Fault { status: 503, reason: "Too Many Replies Wait" });
        };
        // To who asked for it (RFC 3327 §5.3).
        let echoed: &[&[u8]] = if self.uas.settings.path_mode != PathMode::Off && supported { &paths } else { &[] };
        self.write(aor, &request, echoed, slot)
    }

    /// Where the request came from: `udp:192.0.2.1:5060`.
    fn source(&self) -> StackBytes<64> {
        let mut source = StackBytes::new();
        source.extend_from_slice(self.flow.transport.as_str().as_bytes());
        source.push(b':');
        match self.flow.peer {
            SocketAddr::V4(peer) => {
                push_ip(&mut source, IpAddr::V4(*peer.ip()));
                source.push(b':');
                push_decimal(&mut source, peer.port().into());
            }
            // It takes whatever is written.
            SocketAddr::V6(peer) => drop(write!(source, "{peer}")),
        }
        source
    }

    fn write<S>(&self, aor: Aor, request: &RegisterRequest<'_>, paths: &[&[u8]], slot: S) -> Answer<S> {
        let limits = &RegistrarLimits { room: self.moment.serving.room, ..self.uas.settings.limits };
        let now_us = self.moment.now.cluster_us;
        let judged = register(&self.uas.location, &aor, request, now_us, limits, || self.uas.clock.draw());
        let (write, bindings) = match judged {
            Judged::Accepted { write, bindings } => (write, bindings),
            // It is no stranger for sure: the nodes that are missing may know it.
            Judged::Refused(Refusal::MemoryFull) if !self.moment.serving.absence => {
                return self.refuse(Reason::NotReady, UNAVAILABLE);
            }
            Judged::Refused(refusal) => return self.refused(&refusal),
        };
        self.uas.counts.accepted(match write {
            Write::Again(_) => Accepted::Retransmission,
            Write::New(_) | Write::Nothing => Accepted::Changed,
        });
        let reply = self.accepted(&bindings, paths);
        match write.published() {
            None => self.at_once(reply),
            Some(delta) => Answer::AfterAcks { aor, delta, reply, via: self.via(), slot },
        }
    }

    /// A REGISTER without Contact (§10.2.3): no CSeq to check, nothing to write, no acks to await.
    fn query<S>(&self, aor: &Aor) -> Answer<S> {
        let now_us = self.moment.now.cluster_us;
        let limits = &self.uas.settings.limits;
        let listed = |record: Option<&Record>| record.map(|record| list(record, now_us, limits));
        let bindings = self.uas.location.get(aor, listed).unwrap_or_default();
        if bindings.is_empty() && !self.moment.serving.absence {
            return self.refuse(Reason::NotReady, UNAVAILABLE);
        }
        self.uas.counts.accepted(Accepted::Query);
        self.at_once(self.accepted(&bindings, &[]))
    }

    /// A 200 that waits for nobody.
    fn at_once<S>(&self, mut bytes: Vec<u8>) -> Answer<S> {
        self.uas.say_acks(&mut bytes, Acks::default(), || !self.moment.serving.absence);
        Answer::Reply { bytes, via: self.via() }
    }

    /// The 200 (§10.3 step 8): every contact of the AoR, and the Path values as they came.
    fn accepted(&self, bindings: &[Listed], paths: &[&[u8]]) -> Vec<u8> {
        let mut reply = self.reply(200, "OK");
        for listed in bindings {
            let binding = &listed.binding;
            reply = reply.header_with("Contact", |line| {
                line.push(b'<');
                line.extend_from_slice(binding.uri());
                line.extend_from_slice(b">;expires=");
                push_decimal(line, listed.remaining_s);
                line.extend_from_slice(binding.params());
            });
        }
        for path in paths {
            reply = reply.header("Path", path);
        }
        reply.header_with("Date", |line| push_http_date(self.moment.wall_us / 1_000_000, line)).finish()
    }

    /// The registrar that the Request-URI names, which may hold no other scheme.
    fn registrar(&self) -> Result<Uri<'_>, (Reason, Fault)> {
        let uri = self.request.uri.map_err(|_| (Reason::Malformed, Fault::bad("Malformed Request-URI")))?;
        if matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
            Ok(uri)
        } else {
            Err((Reason::Scheme, Fault { status: 416, reason: "Unsupported URI Scheme" }))
        }
    }

    /// §10.3 steps 1 and 5: the AoR is the To; one that is not valid for the domain of the Request-URI is not found. This
    /// node's own address stands for every domain that is served.
    fn address_of_record(&self, registrar: &Uri<'_>) -> Result<Aor, (Reason, Fault)> {
        const FOREIGN: (Reason, Fault) = (Reason::ForeignDomain, Fault { status: 404, reason: "Domain Not Served" });
        let rules = &self.uas.settings.rules;
        let aor = aor(&self.request.to.uri, rules).map_err(|error| match error {
            AorError::ForeignDomain => FOREIGN,
            AorError::Scheme | AorError::NoTelDomain | AorError::NoUser => (Reason::NoAor, NOT_FOUND),
            AorError::TooLong => (Reason::TooLong, Fault { status: 403, reason: "Address Of Record Too Long" }),
        })?;
        if rules.admits(registrar.host, &aor) || self.is_own_address(registrar) { Ok(aor) } else { Err(FOREIGN) }
    }

    fn refused<S>(&self, refusal: &Refusal) -> Answer<S> {
        let fault = Fault { status: refusal.status(), reason: refusal.phrase() };
        self.say_refused(Reason::from(refusal), fault);
        let reply = self.reply(fault.status, fault.reason);
        self.send(match refusal {
            Refusal::TooBrief { expires_min_s } => reply.header("Min-Expires", expires_min_s.to_string()),
            _ => reply,
        })
    }

    fn bad_extension<S>(&self, reason: Reason, unsupported: Vec<u8>) -> Answer<S> {
        let fault = Fault { status: 420, reason: "Bad Extension" };
        self.say_refused(reason, fault);
        self.send(self.reply(fault.status, fault.reason).header("Unsupported", unsupported))
    }

    fn refuse<S>(&self, reason: Reason, fault: Fault) -> Answer<S> {
        self.say_refused(reason, fault);
        self.fault(fault)
    }

    /// Counts a refused REGISTER and says so, a few times a second at most.
    pub(super) fn say_refused(&self, reason: Reason, fault: Fault) {
        self.uas.counts.refused(reason);
        if let Some(unsaid) = self.uas.refusals_said.take(self.moment.now.mono_us) {
            let (to, call_id) = (self.request.to.uri.raw, self.request.call_id);
            debug!(
                reason = reason.label(),
                status = fault.status,
                phrase = fault.reason,
                peer = %self.flow.peer,
                to = %to.escape_ascii(),
                call_id = %call_id.escape_ascii(),
                cseq = self.request.cseq.number,
                unsaid,
                "REGISTER refused"
            );
        }
    }
}

fn wish<'a>(contact: &Contact<'a>) -> ContactWish<'a> {
    let canonical = canonical_contact(&contact.uri);
    let by_instance = contact.instance.is_some() && contact.reg_id.is_some();
    ContactWish {
        uri_hash: uri_hash(&canonical),
        key: if by_instance { contact.key() } else { ContactKey::uri(&canonical) },
        uri: contact.uri.raw,
        params: contact.kept_params(),
        q: contact.q,
        expires: expires(contact.expires),
    }
}

fn expires(lifetime: Lifetime) -> Expires {
    match lifetime {
        Lifetime::Absent => Expires::Absent,
        Lifetime::Malformed => Expires::Malformed,
        Lifetime::Seconds(seconds) => Expires::Seconds(seconds),
    }
}
