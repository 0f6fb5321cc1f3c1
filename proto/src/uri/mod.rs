//! SIP, SIPS and TEL URIs as slices of the bytes they came in, the canonical form that says which Contact URIs are the
//! same (RFC 3261 §19.1.4), and the way from a URI to its address of record. Never resolves a name, never rewrites a URI.

mod address_of_record;
mod canonical;
mod digits;
mod escape;
mod params;
mod stack_bytes;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

pub use address_of_record::{AorError, AorRules, AorText, aor, aor_text};
pub use canonical::{Canonical, canonical_contact};
pub use digits::{push_decimal, push_ip};
pub use escape::{hvalue_escape, unescape};
pub use params::{Param, Params, is_white, is_word, quoted_end, trim, unquoted};
pub use stack_bytes::StackBytes;

/// What a URI's scheme is; names compare without case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:` (RFC 3966)
    Tel,
    /// Any other: only [`Uri::raw`] and [`Uri::opaque`] say something.
    Other,
}

/// The host of a URI or of a Via.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host<'a> {
    /// A name, any case, perhaps with its last dot: ASCII.
    Name(&'a [u8]),
    /// An address; an IPv6 one stood in brackets.
    Ip(IpAddr),
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.escape_ascii().fmt(f),
            Self::Ip(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// A URI taken apart, not decoded: every field is a slice of what came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uri<'a> {
    /// All of it.
    pub raw: &'a [u8],
    /// The scheme.
    pub scheme: Scheme,
    /// What follows the scheme's colon.
    pub opaque: &'a [u8],
    /// The user part, still escaped; the number of a `tel:`.
    pub user: Option<&'a [u8]>,
    /// The password, still escaped.
    pub password: Option<&'a [u8]>,
    /// The host; an empty name for `tel:` and other schemes.
    pub host: Host<'a>,
    /// The port, if one is written.
    pub port: Option<u16>,
    /// The parameters with their leading `;`, or nothing.
    pub params: &'a [u8],
    /// What follows `?`.
    pub headers: Option<&'a [u8]>,
}

/// Why some bytes are no URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// No `scheme:` at its start.
    #[error("no scheme")]
    Scheme,
    /// White space, a control character, `<`, `>` or `"`.
    #[error("a byte that no URI may hold")]
    Byte,
    /// Nothing before `@`.
    #[error("empty user")]
    User,
    /// No host, or one that is neither a name nor an address.
    #[error("bad host")]
    Host,
    /// A port that is no number from 0 to 65535.
    #[error("bad port")]
    Port,
}

impl Scheme {
    /// Reads `scheme:` at the start of `uri`; gives what follows.
    fn at(uri: &[u8]) -> Option<(Self, &[u8])> {
        // As nearly all begin.
        if let Some(opaque) = uri.strip_prefix(b"sip:") {
            return Some((Self::Sip, opaque));
        }
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let (name, rest) = uri.split_at(uri.iter().position(|byte| !is_of_name(*byte))?);
        let ([b':', opaque @ ..], true) = (rest, name.first()?.is_ascii_alphabetic()) else { return None };
        Some((Self::named(name), opaque))
    }

    fn named(name: &[u8]) -> Self {
        match name.len() {
            3 if is_word(name, "sip") => Self::Sip,
            4 if is_word(name, "sips") => Self::Sips,
            3 if is_word(name, "tel") => Self::Tel,
            _ => Self::Other,
        }
    }
}

impl<'a> Uri<'a> {
    /// No URI: what stands where none was understood.
    pub const EMPTY: Self = Self {
        raw: b"",
        scheme: Scheme::Other,
        opaque: b"",
        user: None,
        password: None,
        host: Host::Name(b""),
        port: None,
        params: b"",
        headers: None,
    };

    /// Takes a URI apart: what stands between `<` and `>`, without them. User, password, parameters and headers may hold
    /// any byte but white space, controls, `<`, `>` and `"`: phones are sloppy there and the bytes are only handed on.
    ///
    /// # Errors
    /// When it has no scheme, or is a sip(s) URI without a usable host and port.
    pub fn parse(raw: &'a [u8]) -> Result<Self, UriError> {
        // Without an early exit there is less to do for each byte, and nearly all are clean.
        if raw.iter().fold(false, |met, byte| met | IS_FOREIGN[usize::from(*byte)]) {
            return Err(UriError::Byte);
        }
        let (scheme, opaque) = Scheme::at(raw).ok_or(UriError::Scheme)?;
        let uri = Self { raw, scheme, opaque, ..Self::EMPTY };
        match scheme {
            Scheme::Sip | Scheme::Sips => uri.with_sip_parts(),
            Scheme::Tel => uri.with_tel_parts(),
            Scheme::Other => Ok(uri),
        }
    }

    /// Whether the scheme is `sip` or `sips`.
    #[must_use]
    pub fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> Params<'a> {
        Params::new(self.params)
    }

    /// The first parameter of that name (in lower case).
    #[must_use]
    pub fn param(&self, name: &str) -> Option<Param<'a>> {
        Params::find(self.params, name)
    }

    fn with_sip_parts(mut self) -> Result<Self, UriError> {
        // A user part may hold ';' and '?' (RFC 4475 §3.1.1.8), a host may not hold '@': the first '@' decides.
        let mut rest = self.opaque;
        if let Some(at) = memchr::memchr(b'@', rest) {
            let (info, after) = (&rest[..at], &rest[at + 1..]);
            let colon = info.iter().position(|byte| *byte == b':');
            let user = &info[..colon.unwrap_or(info.len())];
            if user.is_empty() {
                return Err(UriError::User);
            }
            self.user = Some(user);
            self.password = colon.map(|colon| &info[colon + 1..]);
            rest = after;
        }
        let (host, port, rest) = host_port(rest)?;
        self.host = host;
        self.port = port;
        let question = rest.iter().position(|byte| *byte == b'?');
        self.params = &rest[..question.unwrap_or(rest.len())];
        self.headers = question.map(|question| &rest[question + 1..]);
        if matches!(self.params, [] | [b';', ..]) { Ok(self) } else { Err(UriError::Host) }
    }

    fn with_tel_parts(mut self) -> Result<Self, UriError> {
        let end = memchr::memchr(b';', self.opaque).unwrap_or(self.opaque.len());
        if end == 0 {
            return Err(UriError::User);
        }
        self.user = Some(&self.opaque[..end]);
        self.params = &self.opaque[end..];
        Ok(self)
    }
}

/// Reads `host[:port]` at the start of `bytes`; gives what follows.
///
/// # Errors
/// When no usable host, or no usable port after a colon, stands there.
pub fn host_port(bytes: &[u8]) -> Result<(Host<'_>, Option<u16>, &[u8]), UriError> {
    let (host, rest) = host_at(bytes)?;
    let [b':', rest @ ..] = rest else { return Ok((host, None, rest)) };
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let add = |sum: u16, digit: &u8| sum.checked_mul(10)?.checked_add(u16::from(digit - b'0'));
    let port = rest[..digits].iter().try_fold(0, add).filter(|_| digits > 0).ok_or(UriError::Port)?;
    Ok((host, Some(port), &rest[digits..]))
}

/// Reads a host at the start of `bytes`, an IPv6 address in brackets; gives what follows.
///
/// # Errors
/// When no usable host stands there.
pub fn host_at(bytes: &[u8]) -> Result<(Host<'_>, &[u8]), UriError> {
    if let [b'[', rest @ ..] = bytes {
        let end = memchr::memchr(b']', rest).ok_or(UriError::Host)?;
        let text = std::str::from_utf8(&rest[..end]).map_err(|_| UriError::Host)?;
        let address = text.parse::<Ipv6Addr>().map_err(|_| UriError::Host)?;
        return Ok((Host::Ip(address.into()), &rest[end + 1..]));
    }
    let end = bytes.iter().position(|byte| !IS_OF_HOST[usize::from(*byte)]).unwrap_or(bytes.len());
    let (name, rest) = bytes.split_at(end);
    if !name.iter().any(u8::is_ascii_alphanumeric) {
        return Err(UriError::Host);
    }
    let address = digits::ipv4(name);
    Ok((address.map_or(Host::Name(name), |address| Host::Ip(address.into())), rest))
}

/// What no URI holds: white space, controls, `<`, `>` and `"`.
const IS_FOREIGN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = matches!(byte, 0..=b' ' | 0x7f | b'<' | b'>' | b'"');
        byte += 1;
    }
    table
};

/// Letters, digits, `.` and `-`. '_' is no letter of a host name, but names in private networks have it.
const IS_OF_HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests;
