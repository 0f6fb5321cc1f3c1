//! A UUID URN (RFC 9562 §4) in a text: the part of a phone's Contact parameters that no other phone has, in 16 bytes.

use std::ops::Range;

use smallvec::{Array, SmallVec};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// What precedes it.
const SCHEME: &[u8] = b"urn:uuid:";

/// Its bytes where they are packed.
pub(super) const BYTES: usize = 16;

/// A UUID and how its letters are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Urn {
    pub(super) bytes: [u8; BYTES],
    pub(super) upper: bool,
}

impl Urn {
    /// The first in a text, and where its digits are. One that [`Urn::push`] would not write as it was is none.
    pub(super) fn find(text: &[u8]) -> Option<(Range<usize>, Self)> {
        let start = memchr::memmem::find(text, SCHEME)? + SCHEME.len();
        let place = start..start + Hyphenated::LENGTH;
        let digits = text.get(place.clone())?;
        let bytes = Uuid::try_parse_ascii(digits).ok()?.into_bytes();
        let upper = digits.iter().any(u8::is_ascii_uppercase);
        let urn = Self { bytes, upper };
        (urn.spell(&mut [0; Hyphenated::LENGTH]).as_bytes() == digits).then_some((place, urn))
    }

    /// Appends its digits.
    pub(super) fn push<A: Array<Item = u8>>(self, out: &mut SmallVec<A>) {
        out.extend_from_slice(self.spell(&mut [0; Hyphenated::LENGTH]).as_bytes());
    }

    /// What follows its digits in a text that begins with them.
    pub(super) fn strip_from(self, text: &[u8]) -> Option<&[u8]> {
        text.strip_prefix(self.spell(&mut [0; Hyphenated::LENGTH]).as_bytes())
    }

    fn spell(self, place: &mut [u8; Hyphenated::LENGTH]) -> &str {
        let written = Uuid::from_bytes(self.bytes).hyphenated();
        if self.upper { written.encode_upper(place) } else { written.encode_lower(place) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_written_as_it_was() {
        for digits in ["f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6"] {
            let text = format!(";+sip.instance=\"<urn:uuid:{digits}>\";reg-id=1");
            let (place, urn) = Urn::find(text.as_bytes()).expect("one");
            assert_eq!(&text[place], digits);
            let mut out = SmallVec::<[u8; 64]>::from_slice(b"<");
            urn.push(&mut out);
            assert_eq!(out[..], *format!("<{digits}").as_bytes());
        }
    }

    #[test]
    fn what_would_not_be_is_none() {
        let odd = [
            "F81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            "f81d4fae-7dec-11d0-a765-00a0c91e6bf",
            "{f81d4fae7dec11d0a76500a0c91e6bf6}xx",
        ];
        for digits in odd.into_iter().chain([
            "",
            "f81d4fae7-dec-11d0-a765-00a0c91e6bf6",
            "\u{e9}81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        ]) {
            assert_eq!(Urn::find(format!("urn:uuid:{digits}").as_bytes()), None, "{digits}");
        }
        assert_eq!(Urn::find(b"f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), None);
    }
}
