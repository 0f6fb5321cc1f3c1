//! Bytes into what they say. What does not read as it was written reads as empty.

use aorta_proto::{BootId, Cleared, ContactKey, Stamp};
use smallvec::SmallVec;

use super::urn::{self, Urn};
use super::words::{Kind, Words};
use super::{
    FIRST, KEY_IS_INSTANCE, KEY_IS_TRAIL, KEY_IS_URI, KEY_SHIFT, LIVE, Packed, Previous, SAME_CALL_ID, SAME_STAMP,
    SAME_URI,
};

/// Reads what [`super::writer::Writer`] wrote.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    words: &'a Words,
}

/// What an entry begins with.
pub(super) struct Head {
    pub(super) told: Previous,
    /// Since when a binding is registered, and the seconds that were granted.
    pub(super) granted: Option<(Stamp, u32)>,
    /// Where its key is.
    pub(super) key: u8,
}

/// The rest of a binding.
pub(super) struct Bound<'a> {
    pub(super) q: Option<u16>,
    pub(super) accepted_by: Text<'a>,
    pub(super) uri: &'a [u8],
    pub(super) params: Phrase<'a>,
    /// How many values, the values, and what follows.
    pub(super) path: &'a [u8],
    pub(super) call_id: &'a [u8],
    pub(super) user_agent: Text<'a>,
    pub(super) source: Text<'a>,
    /// From its URI to the User-Agent, as it is told.
    pub(super) texts: &'a [u8],
}

/// A [`Bound`] that was not read.
#[derive(Clone, Copy, Default)]
pub(super) struct Passed<'a> {
    pub(super) uri: &'a [u8],
    /// It, and what follows.
    pub(super) bytes: &'a [u8],
}

/// A key, or where it is told already.
pub(super) enum Key<'a> {
    Trail,
    Uri,
    Instance { reg_id: u32, start: usize, length: usize },
    Here(Phrase<'a>),
}

/// A text as it is written: nobody has asked for it yet.
#[derive(Clone, Copy)]
pub(super) enum Text<'a> {
    Word(u16),
    Here(&'a [u8]),
}

/// A text that was told with its UUID apart.
#[derive(Clone, Copy)]
pub(super) struct Phrase<'a> {
    rest: Text<'a>,
    /// Where it was, and what.
    urn: Option<(usize, Urn)>,
}

impl<'a> Text<'a> {
    pub(super) fn of(self, kind: Kind, words: &'a Words) -> &'a [u8] {
        match self {
            Self::Word(number) => words.text(kind, number),
            Self::Here(bytes) => bytes,
        }
    }
}

impl<'a> Phrase<'a> {
    /// In place of what is in `out`.
    pub(super) fn spell<A: smallvec::Array<Item = u8>>(self, kind: Kind, words: &'a Words, out: &mut SmallVec<A>) {
        out.clear();
        let rest = self.rest.of(kind, words);
        let Some((start, urn)) = self.urn else { return out.extend_from_slice(rest) };
        let (before, after) = rest.split_at_checked(start).unwrap_or_default();
        out.extend_from_slice(before);
        urn.push(out);
        out.extend_from_slice(after);
    }

    /// Whether it is this text.
    pub(super) fn is(self, kind: Kind, words: &Words, text: &[u8]) -> bool {
        let rest = self.rest.of(kind, words);
        let Some((start, urn)) = self.urn else { return text == rest };
        let split = text.split_at_checked(start).zip(rest.split_at_checked(start));
        split.is_some_and(|((text_before, text), (before, after))| {
            text_before == before && urn.strip_from(text) == Some(after)
        })
    }

    /// Its first byte: no UUID begins there.
    fn first(self, kind: Kind, words: &'a Words) -> Option<u8> {
        self.rest.of(kind, words).first().copied()
    }
}

impl Key<'_> {
    pub(super) fn is_instance(&self, words: &Words) -> bool {
        match self {
            Self::Trail | Self::Instance { .. } => true,
            Self::Uri => false,
            Self::Here(phrase) => ContactKey::from_bytes(phrase.first(Kind::Key, words).as_slice()).is_instance(),
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(packed: &'a Packed, words: &'a Words) -> Self {
        Self::at(packed.told(), words)
    }

    /// In the midst of a record.
    pub(super) fn at(rest: &'a [u8], words: &'a Words) -> Self {
        Self { rest, words }
    }

    /// Whose record it is: user, then domain with its `@`.
    pub(super) fn aor(&mut self) -> [&'a [u8]; 2] {
        let domain = self.text(Kind::Domain);
        [self.bytes(), domain]
    }

    /// What was cleared, and how many entries follow.
    pub(super) fn cleared(&mut self) -> (Option<Cleared>, u64) {
        let count = self.number();
        let cleared = (count & 1 == 1).then(|| Cleared {
            stamp: self.stamp(Stamp::ZERO),
            call_id_hash: self.fixed(),
            cseq: self.number() as u32,
        });
        (cleared, count >> 1)
    }

    /// What an entry begins with; of one that lives [`Reader::bound`] follows, and of each [`Reader::key`].
    pub(super) fn head(&mut self, previous: &Previous) -> Head {
        let flags = self.take(1).first().copied().unwrap_or_default();
        let stamp = if flags & SAME_STAMP == 0 { self.stamp(previous.stamp) } else { previous.stamp };
        let call_id_hash = if flags & SAME_CALL_ID == 0 { self.fixed() } else { previous.call_id_hash };
        let cseq = self.difference(previous.cseq.into()) as u32;
        let uri_hash = if flags & SAME_URI == 0 { self.fixed() } else { previous.uri_hash };
        let granted = (flags & LIVE != 0).then(|| {
            let first = if flags & FIRST == 0 { self.stamp(stamp) } else { stamp };
            (first, self.number() as u32)
        });
        Head { told: Previous { stamp, call_id_hash, cseq, uri_hash }, granted, key: flags >> KEY_SHIFT }
    }

    pub(super) fn bound(&mut self) -> Bound<'a> {
        let q = self.number().checked_sub(1).map(|q| q as u16);
        let (accepted_by, texts) = (self.any_text(), self.rest);
        let (uri, params) = (self.bytes(), self.phrase());
        let path = self.rest;
        for _ in 0..self.number() {
            self.any_text();
        }
        let (call_id, user_agent) = (self.bytes(), self.any_text());
        let texts = texts.get(..texts.len() - self.rest.len()).unwrap_or_default();
        Bound { q, accepted_by, uri, params, path, call_id, user_agent, source: self.any_text(), texts }
    }

    /// In place of [`Reader::bound`], for whoever looks at few of them.
    pub(super) fn pass_bound(&mut self) -> Passed<'a> {
        let bytes = self.rest;
        self.number();
        self.any_text();
        let uri = self.bytes();
        if self.number() > 1 {
            self.take(urn::BYTES);
        }
        self.any_text();
        for _ in 0..self.number() {
            self.any_text();
        }
        self.bytes();
        self.any_text();
        self.any_text();
        Passed { uri, bytes }
    }

    pub(super) fn key(&mut self, head: &Head) -> Key<'a> {
        match head.key {
            KEY_IS_TRAIL => Key::Trail,
            KEY_IS_URI => Key::Uri,
            KEY_IS_INSTANCE => Key::Instance {
                reg_id: self.number() as u32,
                start: self.number() as usize,
                length: self.number() as usize,
            },
            _ => Key::Here(self.phrase()),
        }
    }

    /// The values of a Path, here at [`Bound::path`].
    pub(super) fn path(mut self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        (0..self.number()).scan(self, |reader, _| Some(reader.text(Kind::Path)))
    }

    fn phrase(&mut self) -> Phrase<'a> {
        let place = self.number();
        let urn = (place >> 1).checked_sub(1).map(|start| {
            let bytes = self.take(urn::BYTES).try_into().unwrap_or_default();
            (start as usize, Urn { bytes, upper: place & 1 == 1 })
        });
        Phrase { rest: self.any_text(), urn }
    }

    fn stamp(&mut self, previous: Stamp) -> Stamp {
        let time_us = self.difference(previous.time_us);
        let counter = self.number() as u32;
        let boot = self.text(Kind::Boot).try_into().map_or(0, u64::from_le_bytes);
        Stamp { time_us, counter, boot: BootId(boot) }
    }

    pub(super) fn text(&mut self, kind: Kind) -> &'a [u8] {
        self.any_text().of(kind, self.words)
    }

    fn any_text(&mut self) -> Text<'a> {
        let number = self.number();
        if number & 1 == 1 { Text::Word((number >> 1) as u16) } else { Text::Here(self.take((number >> 1) as usize)) }
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = self.number();
        self.take(length as usize)
    }

    fn difference(&mut self, from: u64) -> u64 {
        let number = self.number();
        from.wrapping_add(number >> 1 ^ (number & 1).wrapping_neg())
    }

    #[inline]
    fn number(&mut self) -> u64 {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                byte.into()
            }
            _ => self.large_number(),
        }
    }

    fn large_number(&mut self) -> u64 {
        let (mut number, mut place) = (0, 0);
        while let Some((&byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << place;
            place += 7;
            if byte < 0x80 || place > 63 {
                break;
            }
        }
        number
    }

    fn fixed(&mut self) -> u64 {
        self.take(8).try_into().map_or(0, u64::from_le_bytes)
    }

    /// What was not read yet, bytes.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let taken = self.rest.split_at_checked(count);
        debug_assert!(taken.is_some(), "a packed record ends too early");
        let (taken, rest) = taken.unwrap_or_default();
        self.rest = rest;
        taken
    }
}
