//! What stands inside a header field: lists, name-addr, parameters, q, escapes (RFC 3261 §7.3.1, §20.10, §25.1). Pure.

use crate::message::{Malformed, malformed};

/// RFC 3261 §25.1 `token`.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b))
}

/// Splits at the commas outside of quotes and angle brackets.
pub(crate) fn split_list<'v>(value: &'v str, into: &mut Vec<&'v str>) -> Result<(), Malformed> {
    for part in split_outside(value, b',')? {
        if part.is_empty() {
            return malformed(format!("empty list element in {value:?}"));
        }
        into.push(part);
    }
    Ok(())
}

/// Splits at `separator` outside of quotes and angle brackets; parts are trimmed.
fn split_outside(value: &str, separator: u8) -> Result<Vec<&str>, Malformed> {
    let (mut parts, mut from, mut quoted, mut angle, mut escaped) = (Vec::new(), 0, false, false, false);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'<' if !quoted && angle => return malformed(format!("< inside < > in {value:?}")),
            b'<' if !quoted => angle = true,
            b'>' if !quoted => angle = false,
            b if b == separator && !quoted && !angle => {
                parts.push(value[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    if quoted || angle {
        return malformed(format!("open quote or bracket in {value:?}"));
    }
    parts.push(value[from..].trim());
    Ok(parts)
}

/// A header parameter: name as written, raw value (quotes kept).
pub type Param<'a> = (&'a str, Option<&'a str>);

/// `"display" <uri>;params` or `uri;params` (RFC 3261 §20.10: then the parameters belong to the header).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The URI, byte for byte.
    pub uri: &'a str,
    /// Did it stand inside `< >`?
    pub bracketed: bool,
    /// The header parameters in order.
    pub params: Vec<Param<'a>>,
}

impl<'a> NameAddr<'a> {
    /// Reads one value.
    ///
    /// # Errors
    /// An empty URI, a URI without a scheme, a repeated or malformed parameter, bytes between `>` and `;`.
    pub fn read(value: &'a str) -> Result<Self, Malformed> {
        let mut parts = split_outside(value, b';')?.into_iter();
        let address = parts.next().unwrap_or_default();
        let (uri, bracketed) = match address.rfind('<') {
            Some(open) => match address[open + 1..].strip_suffix('>') {
                Some(uri) => (uri, true),
                None => return malformed(format!("bytes after > in {value:?}")),
            },
            None => (address, false),
        };
        let scheme_ok = uri.split_once(':').is_some_and(|(s, rest)| is_token(s) && !rest.is_empty());
        if !scheme_ok || uri.contains([' ', '\t', '"', '<', '>']) {
            return malformed(format!("URI {uri:?} in {value:?}"));
        }
        let mut params: Vec<Param<'a>> = Vec::new();
        for part in parts {
            let (name, text) = match part.split_once('=') {
                Some((name, text)) => (name.trim(), Some(text.trim())),
                None => (part, None),
            };
            if !is_token(name) || text == Some("") {
                return malformed(format!("parameter {part:?} in {value:?}"));
            }
            if params.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)) {
                return malformed(format!("parameter {name:?} twice in {value:?}"));
            }
            params.push((name, text));
        }
        Ok(NameAddr { uri, bracketed, params })
    }

    /// The raw value of a parameter; a parameter without a value gives `""`.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&'a str> {
        self.params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.unwrap_or(""))
    }

    /// `q` in thousandths; 1000 when missing (RFC 3261 §20.10 leaves it open, the issue says 1.0).
    ///
    /// # Errors
    /// A q that is not a `qvalue` (RFC 3261 §25.1).
    pub fn q(&self) -> Result<u16, Malformed> {
        self.param("q").map_or(Ok(1000), read_q)
    }

    /// `expires` in seconds, if there.
    ///
    /// # Errors
    /// Not a number of seconds.
    pub fn expires(&self) -> Result<Option<u32>, Malformed> {
        let Some(text) = self.param("expires") else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Malformed(format!("expires={text}")))
    }

    /// The URI without its headers, and its headers (name, raw value) after `?`.
    #[must_use]
    pub fn uri_and_headers(&self) -> (&'a str, Vec<(&'a str, &'a str)>) {
        match self.uri.split_once('?') {
            None => (self.uri, Vec::new()),
            Some((uri, all)) => (uri, all.split('&').map(|h| h.split_once('=').unwrap_or((h, ""))).collect()),
        }
    }
}

/// Reads a `qvalue` into thousandths.
///
/// # Errors
/// Anything but `0`, `0.ddd`, `1`, `1.000`.
pub fn read_q(text: &str) -> Result<u16, Malformed> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits_ok = fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    let thousandths = format!("{fraction:0<3}").parse::<u16>().unwrap_or(u16::MAX);
    match whole {
        "0" if digits_ok => Ok(thousandths),
        "1" if digits_ok && thousandths == 0 => Ok(1000),
        _ => malformed(format!("q={text}")),
    }
}

/// Undoes the escapes of a URI part (RFC 3261 §19.1.2).
///
/// # Errors
/// A `%` that two hexadecimal digits do not follow, or bytes that are no UTF-8.
pub fn unescape(text: &str) -> Result<String, Malformed> {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'%' {
            plain.push(bytes[at]);
            at += 1;
            continue;
        }
        let digits = text.get(at + 1..at + 3).and_then(|d| u8::from_str_radix(d, 16).ok());
        let Some(byte) = digits else { return malformed(format!("escape in {text:?}")) };
        plain.push(byte);
        at += 3;
    }
    String::from_utf8(plain).or_else(|_| malformed(format!("{text:?} is no UTF-8 when unescaped")))
}
