//! Which contacts a caller is sent to, in which order, and how each is written into a 300 or 302 (RFC 3261 §8.3, §16.5;
//! RFC 3327 §5.3 for the Path). Pure: it changes nothing, asks no DNS and never decides by a remembered removal.

use std::cmp::Reverse;

use aorta_proto::uri::{AorRules, Host, Params, Scheme, Uri, aor_text, hvalue_escape};
use smallvec::SmallVec;

use crate::config::PathInRedirect;
use crate::location::{Contact, View};

/// The port of a sip URI that names none (RFC 3261 §19.1.2).
pub const DEFAULT_PORT: u16 = 5060;

/// The port of a sips URI that names none.
const DEFAULT_TLS_PORT: u16 = 5061;

/// Who is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a> {
    /// The Request-URI.
    pub request_uri: &'a Uri<'a>,
    /// The AoR that it means, in its canonical text.
    pub aor: &'a str,
    /// How it came to mean that.
    pub rules: &'a AorRules,
    /// Ports at which this node is reached: a contact with the AoR's own user and address leads back only to these.
    pub own_ports: &'a [u16],
    /// Live contacts of an AoR that count.
    pub contacts_max: usize,
}

/// Where a caller is sent.
pub enum Found<'a> {
    /// To these, best first: by q, then the latest written first.
    Contacts(SmallVec<[&'a Contact<'a>; 4]>),
    /// Contacts live, but a `sips` caller may use none of them (RFC 3261 §26.2.2; RFC 5630 §5.3: 480).
    NoSecureContact,
    /// Nobody is registered, or only in ways that lead back here.
    Nobody,
}

/// The contacts that answer `lookup` at cluster time `now_us`. Lapsed ones are skipped by time, whether swept or not.
#[must_use]
pub fn find<'a>(lookup: &Lookup<'_>, view: &'a View<'_>, now_us: u64) -> Found<'a> {
    let mut insecure = false;
    let mut targets = SmallVec::<[_; 4]>::new();
    for target in view.shown(now_us, lookup.contacts_max) {
        let Ok(contact) = Uri::parse(target.uri()) else { continue };
        if leads_back(lookup, &contact) {
            continue;
        }
        if lookup.request_uri.scheme == Scheme::Sips && contact.scheme != Scheme::Sips {
            insecure = true;
            continue;
        }
        targets.push(target);
    }
    if targets.is_empty() {
        return if insecure { Found::NoSecureContact } else { Found::Nobody };
    }
    targets.sort_by_key(|target| (Reverse(target.q().unwrap_or(1000)), Reverse(target.stamp())));
    Found::Contacts(targets)
}

/// Whether a caller sent there would come back to the AoR; so does one sent to the Request-URI itself. An address with another port than ours is no way back: it is a
/// phone whose AoR has its own host as domain.
fn leads_back(lookup: &Lookup<'_>, contact: &Uri<'_>) -> bool {
    let port = contact.port.unwrap_or(DEFAULT_PORT);
    let asked_port = lookup.request_uri.port.unwrap_or(DEFAULT_PORT);
    let by_default = matches!(contact.host, Host::Name(_)) && [DEFAULT_PORT, DEFAULT_TLS_PORT].contains(&port);
    let ours = by_default || port == asked_port || lookup.own_ports.contains(&port);
    ours && aor_text(contact, lookup.rules).is_ok_and(|aor| aor.as_str() == lookup.aor)
}

/// Appends one Contact value: the URI as the phone gave it, with its Path, and its parameters but `reg-id` (`expires` was
/// never among them): both speak to the registrar that they were sent to.
pub fn push_contact(out: &mut Vec<u8>, contact: &Contact<'_>, path: PathInRedirect) {
    out.push(b'<');
    push_target_uri(out, contact, path);
    out.push(b'>');
    for param in Params::new(&contact.params()).filter(|param| !param.is("reg-id")) {
        out.extend(param.raw);
    }
}

/// The whole Path vector in order, as one `Route` header of the URI: a caller that follows the redirect puts it into its
/// request (RFC 3261 §19.1.5), and so passes the edge that knows the way to the phone. Only sip and sips URIs have headers.
fn push_target_uri(out: &mut Vec<u8>, contact: &Contact<'_>, path: PathInRedirect) {
    let bytes = contact.uri();
    out.extend(bytes);
    if contact.path().next().is_none() || path == PathInRedirect::None {
        return;
    }
    let Ok(uri) = Uri::parse(bytes) else { return };
    if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
        return;
    }
    out.extend(match uri.headers {
        None => &b"?"[..],
        Some([]) => b"",
        Some(_) => b"&",
    });
    out.extend(b"Route=");
    for (index, value) in contact.path().enumerate() {
        if index > 0 {
            hvalue_escape(b",", out);
        }
        hvalue_escape(value, out);
    }
}
