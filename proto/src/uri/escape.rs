//! `%HH` escapes (RFC 3261 §25.1): taken off, put on, and brought to one form. Knows bytes, not URIs.

use std::borrow::Cow;
use std::io::Write;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// `unreserved` of RFC 3261: letters, digits and marks mean the same with and without an escape.
pub(super) const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')')
}

/// `reserved` of RFC 3261: an escape changes the meaning of these.
const fn is_reserved(byte: u8) -> bool {
    matches!(byte, b';' | b'/' | b'?' | b':' | b'@' | b'&' | b'=' | b'+' | b'$' | b',')
}

/// Appends `%HH`, in upper case.
pub(super) fn push_escape(out: &mut impl Extend<u8>, byte: u8) {
    out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// The byte that the escape at the start of `bytes` stands for; `None` if no escape stands there.
fn escape_at(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(*high)? << 4 | digit(*low)?)
}

/// Each byte with whether it was escaped; a `%` that starts no escape is an ordinary byte.
fn decoded(mut bytes: &[u8]) -> impl Iterator<Item = (u8, bool)> {
    std::iter::from_fn(move || {
        if let Some(byte) = escape_at(bytes) {
            bytes = &bytes[3..];
            return Some((byte, true));
        }
        let (first, rest) = bytes.split_first()?;
        bytes = rest;
        Some((*first, false))
    })
}

/// Takes the escapes off; a `%` that starts none stays. Borrows when there is nothing to take off.
#[must_use]
pub fn unescape(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.contains(&b'%') {
        return Cow::Borrowed(bytes);
    }
    Cow::Owned(decoded(bytes).map(|(byte, _)| byte).collect())
}

/// Appends `value` as the `hvalue` of a URI header: whatever `hvalue` may not hold is escaped, a `%` too, so that one
/// [`unescape`] gives `value` back.
pub fn hvalue_escape(value: &[u8], out: &mut Vec<u8>) {
    for byte in value {
        let plain = is_unreserved(*byte) || matches!(byte, b'[' | b']' | b'/' | b'?' | b':' | b'+' | b'$');
        if plain {
            out.push(*byte);
        } else {
            push_escape(out, *byte);
        }
    }
}

/// Bytes that stay as they are where nothing is escaped.
const IS_CANONICAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = is_unreserved(byte) || is_reserved(byte);
        byte += 1;
    }
    table
};

/// Appends `bytes` in the one form that all spellings share (RFC 3261 §19.1.4): unreserved bytes bare, reserved ones as
/// they were, everything else escaped. `fold_case` for components that compare without case.
pub(super) fn push_canonical(out: &mut (impl Extend<u8> + Write), bytes: &[u8], fold_case: bool) {
    // As nearly all are spelled.
    if bytes.iter().all(|byte| IS_CANONICAL[usize::from(*byte)] && !(fold_case && byte.is_ascii_uppercase())) {
        // What is written to here takes all of it.
        let _ = out.write_all(bytes);
        return;
    }
    for (byte, escaped) in decoded(bytes) {
        let byte = if fold_case { byte.to_ascii_lowercase() } else { byte };
        if is_unreserved(byte) || (is_reserved(byte) && !escaped) {
            out.extend([byte]);
        } else {
            push_escape(out, byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hvalue_comes_back_through_one_unescape() {
        let value: Vec<u8> = (0..=255).collect();
        let mut escaped = Vec::new();
        hvalue_escape(&value, &mut escaped);
        assert_eq!(&*unescape(&escaped), &*value);
        let mut route = Vec::new();
        hvalue_escape(b"<sip:a%20b@[::1];lr>,<sip:c>", &mut route);
        assert_eq!(String::from_utf8(route).expect("ascii"), "%3Csip:a%2520b%40[::1]%3Blr%3E%2C%3Csip:c%3E");
    }

    #[test]
    fn a_percent_that_escapes_nothing_stays() {
        assert_eq!(&*unescape(b"100%"), b"100%");
        assert_eq!(&*unescape(b"%4"), b"%4");
        assert_eq!(&*unescape(b"%zz%41"), b"%zzA");
    }
}
