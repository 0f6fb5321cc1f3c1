//! Passes over a record without reading it: which texts it tells, where, and whether it is whole. Bytes that this process
//! did not write are read only after this; it takes nothing for granted.

use std::ops::Range;

use super::reader::Text;
use super::words::Kind;
use super::{FIRST, KEY_HERE, KEY_IS_INSTANCE, KEY_SHIFT, LIVE, SAME_CALL_ID, SAME_STAMP, SAME_URI, urn};

/// Bytes of a number that is not told as a difference.
const FIXED_BYTES: usize = 8;

/// Shows `tell` every text of a record that may be a word, AoR and all, and where it is told. `None` when the bytes are not
/// one whole record, or `tell` refuses.
pub(super) fn walk<'a>(record: &'a [u8], tell: impl FnMut(Kind, Text<'a>, Range<usize>) -> Option<()>) -> Option<()> {
    let mut walker = Walker { record, at: 0, tell };
    walker.record()?;
    (walker.at == record.len()).then_some(())
}

struct Walker<'a, F> {
    record: &'a [u8],
    at: usize,
    tell: F,
}

impl<'a, F: FnMut(Kind, Text<'a>, Range<usize>) -> Option<()>> Walker<'a, F> {
    fn record(&mut self) -> Option<()> {
        self.text(Kind::Domain)?;
        self.bytes()?;
        let count = self.number()?;
        if count & 1 == 1 {
            self.stamp()?;
            self.pass(FIXED_BYTES)?;
            self.number()?;
        }
        (0..count >> 1).try_for_each(|_| self.entry())
    }

    fn entry(&mut self) -> Option<()> {
        let flags = *self.pass(1)?.first()?;
        if flags & SAME_STAMP == 0 {
            self.stamp()?;
        }
        if flags & SAME_CALL_ID == 0 {
            self.pass(FIXED_BYTES)?;
        }
        self.number()?;
        if flags & SAME_URI == 0 {
            self.pass(FIXED_BYTES)?;
        }
        if flags & LIVE != 0 {
            if flags & FIRST == 0 {
                self.stamp()?;
            }
            self.number()?;
            self.bound()?;
        }
        match flags >> KEY_SHIFT {
            KEY_HERE => self.phrase(Kind::Key),
            KEY_IS_INSTANCE => (0..3).try_for_each(|_| self.number().map(drop)),
            _ => Some(()),
        }
    }

    fn bound(&mut self) -> Option<()> {
        self.number()?;
        self.text(Kind::Node)?;
        self.bytes()?;
        self.phrase(Kind::Params)?;
        let path = self.number()?;
        (0..path).try_for_each(|_| self.text(Kind::Path))?;
        self.bytes()?;
        self.text(Kind::UserAgent)?;
        self.text(Kind::Source)
    }

    fn phrase(&mut self, kind: Kind) -> Option<()> {
        if self.number()? > 1 {
            self.pass(urn::BYTES)?;
        }
        self.text(kind)
    }

    fn stamp(&mut self) -> Option<()> {
        self.number()?;
        self.number()?;
        self.text(Kind::Boot)
    }

    fn text(&mut self, kind: Kind) -> Option<()> {
        let start = self.at;
        let number = self.number()?;
        let text = match number & 1 {
            1 => Text::Word(u16::try_from(number >> 1).ok()?),
            _ => Text::Here(self.pass(usize::try_from(number >> 1).ok()?)?),
        };
        (self.tell)(kind, text, start..self.at)
    }

    fn bytes(&mut self) -> Option<()> {
        let length = usize::try_from(self.number()?).ok()?;
        self.pass(length).map(drop)
    }

    #[inline]
    fn number(&mut self) -> Option<u64> {
        let byte = *self.record.get(self.at)?;
        self.at += 1;
        if byte < 0x80 { Some(byte.into()) } else { self.large_number(byte) }
    }

    fn large_number(&mut self, first: u8) -> Option<u64> {
        let mut number = u64::from(first & 0x7f);
        for place in (7..u64::BITS).step_by(7) {
            let byte = *self.record.get(self.at)?;
            self.at += 1;
            number |= u64::from(byte & 0x7f) << place;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn pass(&mut self, count: usize) -> Option<&'a [u8]> {
        let passed = self.record.get(self.at..)?.get(..count)?;
        self.at += count;
        Some(passed)
    }
}
