//! Which Contact URIs are the same: the rules of RFC 3261 §19.1.4 as a form, for a table needs a key, not a comparison.
//!
//! The comparison of the RFC is no equivalence: a parameter that it does not name is ignored when only one URI has it, so
//! `x`, `x;a=1` and `x;a=2` cannot have keys that agree with it. Every parameter stays in the key: taking two spellings of
//! one phone for two costs a stale contact until it lapses; taking two phones for one costs the other its calls.
//! (The RFC's own examples count `transport` the same way.)

use std::io::Write;
use std::net::IpAddr;
use std::ops::Range;

use smallvec::SmallVec;

use super::digits::{push_decimal, push_ip};
use super::escape::push_canonical;
use super::{Host, Scheme, StackBytes, Uri};

/// A canonical form: on the stack, but for the longest.
pub type Canonical = StackBytes<128>;

/// The canonical form of a Contact URI, the text of its [`crate::ContactKey`]. Two URIs have the same form when they
/// differ only in: case of scheme, host, parameter names and values, and header names; order of parameters and of headers;
/// escapes of bytes that need none; spelling of an IP address; a host name's last dot; visual separators of a `tel:`.
/// User and password keep their case; a default port is not the same as none; sip and sips differ.
#[must_use]
pub fn canonical_contact(uri: &Uri<'_>) -> Canonical {
    let mut out = Canonical::new();
    match uri.scheme {
        Scheme::Sip => out.extend_from_slice(b"sip:"),
        Scheme::Sips => out.extend_from_slice(b"sips:"),
        Scheme::Tel => {
            out.extend_from_slice(b"tel:");
            push_number(&mut out, uri.user.unwrap_or_default());
            push_params(&mut out, uri);
            return out;
        }
        Scheme::Other => {
            let scheme = uri.raw.len() - uri.opaque.len();
            out.extend(uri.raw[..scheme].to_ascii_lowercase());
            out.extend_from_slice(uri.opaque);
            return out;
        }
    }
    if let Some(user) = uri.user {
        push_canonical(&mut out, user, false);
        if let Some(password) = uri.password {
            out.push(b':');
            push_canonical(&mut out, password, false);
        }
        out.push(b'@');
    }
    push_host(&mut out, uri.host);
    if let Some(port) = uri.port {
        out.push(b':');
        push_decimal(&mut out, port.into());
    }
    push_params(&mut out, uri);
    push_headers(&mut out, uri.headers.unwrap_or_default());
    out
}

/// A host in its one spelling: lower case without a last dot, or the address as `std` prints it.
pub(super) fn push_host(out: &mut (impl Extend<u8> + Write), host: Host<'_>) {
    match host {
        Host::Name(name) => {
            let name = name.strip_suffix(b".").unwrap_or(name);
            if name.iter().any(u8::is_ascii_uppercase) {
                out.extend(name.iter().map(u8::to_ascii_lowercase));
            } else {
                // What is written to here takes all of it.
                let _ = out.write_all(name);
            }
        }
        Host::Ip(address @ IpAddr::V4(_)) => push_ip(out, address),
        Host::Ip(IpAddr::V6(_)) => drop(write!(out, "{host}")),
    }
}

/// A telephone number without visual separators (RFC 3966 §5.1.1), in lower case.
pub(super) fn push_number(out: &mut impl Extend<u8>, number: &[u8]) {
    let digits = number.iter().filter(|byte| !is_separator(**byte));
    out.extend(digits.map(u8::to_ascii_lowercase));
}

/// A visual separator of RFC 3966.
pub(super) fn is_separator(byte: u8) -> bool {
    matches!(byte, b'-' | b'.' | b'(' | b')')
}

fn push_params(out: &mut Canonical, uri: &Uri<'_>) {
    let start = out.len();
    let mut forms = SmallVec::<[Range<usize>; 8]>::new();
    for param in uri.params() {
        let from = out.len();
        out.push(b';');
        push_canonical(out, param.name, true);
        if let Some(value) = param.value {
            out.push(b'=');
            push_canonical(out, value, true);
        }
        forms.push(from..out.len());
    }
    // Each form once, in order, as most URIs have them already.
    if !forms.is_sorted_by(|one, two| out[one.clone()] < out[two.clone()]) {
        forms.sort_by(|one, two| out[one.clone()].cmp(&out[two.clone()]));
        forms.dedup_by(|one, two| out[one.clone()] == out[two.clone()]);
        let sorted: Canonical = forms.into_iter().flat_map(|form| out[form].iter().copied()).collect();
        out.truncate(start);
        out.extend_from_slice(&sorted);
    }
}

fn push_headers(out: &mut Canonical, headers: &[u8]) {
    let mut forms: Vec<Vec<u8>> = Vec::new();
    for header in headers.split(|byte| *byte == b'&').filter(|header| !header.is_empty()) {
        let equals = header.iter().position(|byte| *byte == b'=').unwrap_or(header.len());
        let (name, value) = header.split_at(equals);
        let mut form = Vec::with_capacity(header.len());
        push_canonical(&mut form, name, true);
        push_canonical(&mut form, value, false);
        forms.push(form);
    }
    // Order among headers of one name may matter (Route): a stable sort by name keeps it.
    forms.sort_by(|a, b| header_name(a).cmp(header_name(b)));
    for (index, form) in forms.iter().enumerate() {
        out.push(if index == 0 { b'?' } else { b'&' });
        out.extend_from_slice(form);
    }
}

fn header_name(form: &[u8]) -> &[u8] {
    form.split(|byte| *byte == b'=').next().unwrap_or_default()
}
