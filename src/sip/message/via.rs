//! The top Via: who asks and where the answer goes (RFC 3261 §18.2, RFC 3581). Sends nothing.

use std::net::{IpAddr, SocketAddr};

use aorta_proto::uri::{Host, Param, Params, host_at, is_white, push_decimal, push_ip, trim};

use super::lines::is_token;
use super::values::{bounded_u32, element_end};

/// The first value of the first Via header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Via<'a> {
    /// The value as it came, without the list's comma.
    pub raw: &'a [u8],
    /// What follows it in its header: the list's comma and further values, or nothing.
    pub more: &'a [u8],
    /// `UDP`, `TCP`, … in any case.
    pub transport: &'a [u8],
    /// The host of sent-by.
    pub host: Host<'a>,
    /// The port of sent-by.
    pub port: Option<u16>,
    /// The branch; empty when there is none (RFC 2543).
    pub branch: &'a [u8],
    /// The `rport` parameter (RFC 3581), with or without a value.
    pub rport: Option<Param<'a>>,
    /// The `received` parameter; nobody but us may write it into a top Via.
    pub received: Option<Param<'a>>,
    /// The `maddr` parameter, if it is an address.
    pub maddr: Option<IpAddr>,
    /// Whether all of it is as the grammar has it. If not, a 400 can still find its way back.
    pub well_formed: bool,
}

/// Where a reply goes, as the top Via of its request has it; the transport has the rest: the source address, which is
/// `received`, and the connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ViaTarget {
    /// RFC 3581: to the port the request came from.
    pub rport: bool,
    /// The port of sent-by; `None` is the transport's default.
    pub port: Option<u16>,
    /// RFC 3261 §18.2.2: to this address instead of the request's source.
    pub maddr: Option<IpAddr>,
}

impl<'a> Via<'a> {
    /// Takes the first value of a Via header apart; `None` if it does not even say who sent it.
    #[must_use]
    pub fn parse(header: &'a [u8]) -> Option<Self> {
        let (first, more) = header.split_at(element_end(header));
        let raw = trim(first);
        let (name, rest) = until_slash(raw)?;
        let (version, rest) = until_slash(rest)?;
        let rest = trim(rest);
        let space = rest.iter().position(|byte| is_white(*byte))?;
        let (transport, sent_by) = (&rest[..space], trim(&rest[space..]));
        let sip2 = name.eq_ignore_ascii_case(b"SIP") && version == b"2.0";
        let (host, port, params) = sent_by_parts(sent_by)?;
        let mut via = Self {
            raw,
            more,
            transport,
            host,
            port,
            branch: b"",
            rport: None,
            received: None,
            maddr: None,
            well_formed: false,
        };
        let mut params = Params::new(params);
        for param in params.by_ref() {
            if param.is("branch") {
                via.branch = param.value.unwrap_or_default();
            } else if param.is("rport") {
                via.rport = Some(param);
            } else if param.is("received") {
                via.received = Some(param);
            } else if param.is("maddr") {
                via.maddr = address(&param.text());
            }
        }
        via.well_formed = sip2 && is_token(transport) && !params.malformed();
        Some(via)
    }

    /// Where the reply goes.
    #[must_use]
    pub fn target(&self) -> ViaTarget {
        ViaTarget { rport: self.rport.is_some(), port: self.port, maddr: self.maddr }
    }

    /// Appends this value as the reply carries it: every byte as it came, but `rport` filled in where it was asked for
    /// (RFC 3581 §4) and `received` added where it says something (RFC 3261 §18.2.1); a `received` that came is replaced.
    pub fn write_stamped(&self, peer: SocketAddr, out: &mut Vec<u8>) {
        let address = peer.ip().to_canonical();
        let asked = self.rport.filter(|rport| rport.value.is_none());
        if asked.is_none() && self.host == Host::Ip(address) {
            out.extend(self.raw);
            return;
        }
        let mut at = 0;
        let mut edits = [asked, self.received];
        edits.sort_by_key(|edit| edit.map(|param| self.offset(param.raw)));
        for param in edits.into_iter().flatten() {
            let start = self.offset(param.raw);
            let end = start + param.raw.len();
            if Some(param) == self.received {
                out.extend(&self.raw[at..start]);
            } else {
                out.extend(&self.raw[at..end]);
                out.push(b'=');
                push_decimal(out, peer.port().into());
            }
            at = end;
        }
        out.extend(&self.raw[at..]);
        out.extend_from_slice(b";received=");
        push_ip(out, address);
    }

    /// Where `part`, a slice of `self.raw`, begins in it.
    fn offset(&self, part: &[u8]) -> usize {
        (part.as_ptr() as usize).saturating_sub(self.raw.as_ptr() as usize)
    }
}

fn until_slash(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = bytes.iter().position(|byte| *byte == b'/')?;
    Some((trim(&bytes[..slash]), &bytes[slash + 1..]))
}

/// `sent-by`, whose colon may have white space around it (RFC 3261 §25.1, COLON); gives the parameters after it.
fn sent_by_parts(bytes: &[u8]) -> Option<(Host<'_>, Option<u16>, &[u8])> {
    let (host, rest) = host_at(bytes).ok()?;
    let rest = trim(rest);
    let (port, rest) = match rest {
        [b':', after @ ..] => {
            let after = trim(after);
            let digits = after.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(after.len());
            let port = bounded_u32(&after[..digits], u32::from(u16::MAX))?;
            (u16::try_from(port).ok(), trim(&after[digits..]))
        }
        _ => (None, rest),
    };
    matches!(rest, [] | [b';', ..]).then_some((host, port, rest))
}

fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    text.trim_start_matches('[').trim_end_matches(']').parse().ok()
}
