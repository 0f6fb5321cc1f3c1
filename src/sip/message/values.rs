//! What header values are made of: comma lists, name-addrs, numbers. Slices in, slices out.

use aorta_proto::uri::{Params, is_white, quoted_end, trim};

use super::lines::is_token;

/// Splits a header value at the commas that stand outside quotes and `<>`; elements are trimmed, empty ones are given too.
#[derive(Debug, Clone)]
pub struct List<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> List<'a> {
    /// The elements of `value`.
    #[must_use]
    pub fn new(value: &'a [u8]) -> Self {
        Self { rest: Some(value) }
    }
}

impl<'a> Iterator for List<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let end = element_end(rest);
        self.rest = rest.get(end + 1..);
        Some(trim(&rest[..end]))
    }
}

/// The index of the comma that ends the first list element, or the length.
pub(super) fn element_end(value: &[u8]) -> usize {
    let mut at = 0;
    // Most values have no comma: what stands in quotes or `<>` matters only before one.
    while let Some(offset) = memchr::memchr(b',', &value[at..]) {
        let comma = at + offset;
        while at <= comma {
            let Some(offset) = memchr::memchr2(b'"', b'<', &value[at..comma]) else { return comma };
            let open = at + offset;
            at = match value[open] {
                b'"' => quoted_end(value, open).unwrap_or(value.len()),
                _ => memchr::memchr(b'>', &value[open..]).map_or(value.len(), |offset| open + offset + 1),
            };
        }
    }
    value.len()
}

/// `name-addr` or `addr-spec` with header parameters (RFC 3261 §20.10): a Contact, From, To, Path or Route value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The display name as it was written, quotes included.
    pub display: &'a [u8],
    /// The URI without `<>`.
    pub uri: &'a [u8],
    /// The header parameters with their leading `;`, or nothing.
    pub params: &'a [u8],
    /// Whether the URI stood in `<>`.
    pub bracketed: bool,
}

impl<'a> NameAddr<'a> {
    /// Takes one value apart. Without `<>` a URI ends at its first `;` (what follows are header parameters) and may not
    /// hold `?` or a comma (RFC 3261 §20). `None` if the value has no such shape.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let value = trim(value);
        let (display, rest) = match value {
            [b'"', ..] => value.split_at(quoted_end(value, 0)?),
            _ => value.split_at(value.iter().position(|byte| matches!(byte, b'<' | b';')).unwrap_or(value.len())),
        };
        let [b'<', inner @ ..] = trim(rest) else {
            return Self::bare(display, rest);
        };
        let display = trim(display);
        let close = memchr::memchr(b'>', inner)?;
        let params = trim(&inner[close + 1..]);
        let named = display.first() == Some(&b'"') || display.split(|byte| is_white(*byte)).all(is_display_word);
        let shaped = named && close > 0 && matches!(params, [] | [b';', ..]);
        shaped.then_some(Self { display, uri: &inner[..close], params, bracketed: true })
    }

    fn bare(uri: &'a [u8], params: &'a [u8]) -> Option<Self> {
        let uri = trim(uri);
        let plain = !uri.is_empty() && !uri.iter().any(|byte| is_white(*byte) || matches!(byte, b'?' | b',' | b'"'));
        plain.then_some(Self { display: b"", uri, params, bracketed: false })
    }

    /// The header parameters.
    #[must_use]
    pub fn params(&self) -> Params<'a> {
        Params::new(self.params)
    }
}

/// A word of an unquoted display name, or nothing: a token by the RFC; letters of other scripts are met and do no harm.
fn is_display_word(word: &[u8]) -> bool {
    word.iter().all(|byte| *byte >= 0x80 || is_token(&[*byte]))
}

/// A number in decimal digits, 0 to 2^32 − 1 (`delta-seconds` and the like); greater ones give the greatest.
/// `None` for anything else.
#[must_use]
pub fn clamped_u32(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0u32, |sum, digit| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0'))))
}

/// A number in decimal digits from 0 to `max`.
#[must_use]
pub(super) fn bounded_u32(text: &[u8], max: u32) -> Option<u32> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u32::from(byte - b'0'));
    let value = text.iter().try_fold(0u32, |sum, byte| sum.checked_mul(10)?.checked_add(digit(*byte)?))?;
    (value <= max && !text.is_empty()).then_some(value)
}

/// A `qvalue` (RFC 3261 §25.1) in thousandths: `0` to `1`, further digits than three cut off. `None` if it is none.
#[must_use]
pub fn thousandths(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let whole = match whole {
        b"0" => 0,
        b"1" => 1000,
        // ".5" is not in the grammar, yet clear.
        b"" if !fraction.is_empty() => 0,
        _ => return None,
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(3);
    let part = digits.fold(0u16, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let value = whole + part;
    (value <= 1000).then_some(value)
}
