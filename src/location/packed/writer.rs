//! A record into bytes. Decides only how short they can be; [`super::reader`] is its other half.

use std::ops::Range;

use aorta_proto::{Binding, ContactKey, Entry, NodeId, Record, Stamp};

use super::urn::Urn;
use super::words::{Kind, Words};
use super::{
    FIRST, KEY_HERE, KEY_IS_INSTANCE, KEY_IS_TRAIL, KEY_IS_URI, KEY_SHIFT, LIVE, Previous, SAME_CALL_ID, SAME_STAMP,
    SAME_URI,
};

/// Appends a record.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    words: &'a Words,
    /// Room for a text without what is written apart.
    rest: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Of texts that are to be words where they can; `rest` is room for a text.
    pub(super) fn new(out: &'a mut Vec<u8>, words: &'a Words, rest: &'a mut Vec<u8>) -> Self {
        Self { out, words, rest }
    }

    /// A record.
    pub(super) fn record(&mut self, record: &Record) {
        self.number((record.entries.len() as u64) << 1 | u64::from(record.cleared.is_some()));
        if let Some(cleared) = &record.cleared {
            self.stamp(Stamp::ZERO, cleared.stamp);
            self.fixed(cleared.call_id_hash);
            self.number(cleared.cseq.into());
        }
        let mut previous = Previous::NONE;
        for entry in &record.entries {
            self.entry(&previous, entry);
            previous = Previous::of(entry);
        }
    }

    fn entry(&mut self, previous: &Previous, entry: &Entry) {
        let binding = entry.binding().map(|binding| &**binding);
        let (key, place) = key_place(entry, binding);
        self.head(previous, &Previous::of(entry), binding.map(|binding| binding.first), key);
        if let Some(binding) = binding {
            self.grant(binding.granted_s, binding.q, &binding.accepted_by);
            self.texts(binding);
        }
        match key {
            KEY_HERE => self.phrase(Kind::Key, entry.key.as_bytes()),
            KEY_IS_INSTANCE => {
                self.number(entry.key.instance_and_reg_id().map_or(0, |(_, reg_id)| reg_id.into()));
                self.number(place.start as u64);
                self.number(place.len() as u64);
            }
            _ => {}
        }
    }

    /// What an entry begins with: when it was written and by which request, of one that lives since when it is registered, and
    /// where its key is.
    pub(super) fn head(&mut self, previous: &Previous, told: &Previous, first: Option<Stamp>, key: u8) {
        let flag = |holds: bool, flag: u8| if holds { flag } else { 0 };
        let flags = flag(first.is_some(), LIVE)
            | flag(told.stamp == previous.stamp, SAME_STAMP)
            | flag(told.call_id_hash == previous.call_id_hash, SAME_CALL_ID)
            | flag(told.uri_hash == previous.uri_hash, SAME_URI)
            | flag(first == Some(told.stamp), FIRST)
            | key << KEY_SHIFT;
        self.out.push(flags);
        if flags & SAME_STAMP == 0 {
            self.stamp(previous.stamp, told.stamp);
        }
        if flags & SAME_CALL_ID == 0 {
            self.fixed(told.call_id_hash);
        }
        self.difference(previous.cseq.into(), told.cseq.into());
        if flags & SAME_URI == 0 {
            self.fixed(told.uri_hash);
        }
        if let Some(first) = first.filter(|_| flags & FIRST == 0) {
            self.stamp(told.stamp, first);
        }
    }

    /// What of a binding a refresh may change, but for its source.
    pub(super) fn grant(&mut self, granted_s: u32, q: Option<u16>, accepted_by: &NodeId) {
        self.number(granted_s.into());
        self.number(q.map_or(0, |q| u64::from(q) + 1));
        self.text(Kind::Node, accepted_by.as_str().as_bytes());
    }

    /// What a refresh takes over as it is.
    pub(super) fn told(&mut self, told: &[u8]) {
        self.out.extend_from_slice(told);
    }

    fn texts(&mut self, binding: &Binding) {
        self.bytes(binding.uri());
        self.phrase(Kind::Params, binding.params());
        self.number(binding.path().count() as u64);
        for value in binding.path() {
            self.text(Kind::Path, value);
        }
        self.bytes(binding.call_id());
        self.text(Kind::UserAgent, binding.user_agent());
        self.text(Kind::Source, binding.source());
    }

    /// A text with the UUID in it, which tells a phone from others of its make, apart from the rest.
    fn phrase(&mut self, kind: Kind, text: &[u8]) {
        let Some((place, urn)) = Urn::find(text) else {
            self.number(0);
            return self.text(kind, text);
        };
        self.number((place.start as u64 + 1) << 1 | u64::from(urn.upper));
        self.out.extend_from_slice(&urn.bytes);
        self.rest.clear();
        self.rest.extend_from_slice(&text[..place.start]);
        self.rest.extend_from_slice(&text[place.end..]);
        let rest = std::mem::take(self.rest);
        self.text(kind, &rest);
        *self.rest = rest;
    }

    fn stamp(&mut self, previous: Stamp, stamp: Stamp) {
        self.difference(previous.time_us, stamp.time_us);
        self.number(stamp.counter.into());
        self.text(Kind::Boot, &stamp.boot.0.to_le_bytes());
    }

    /// As the number of a word if it is one.
    pub(super) fn text(&mut self, kind: Kind, text: &[u8]) {
        self::text(self.out, self.words, kind, text);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// Small where two numbers are near each other, whichever is greater.
    fn difference(&mut self, from: u64, to: u64) {
        let difference = to.wrapping_sub(from) as i64;
        self.number((difference << 1 ^ difference >> 63) as u64);
    }

    fn number(&mut self, number: u64) {
        self::number(self.out, number);
    }

    fn fixed(&mut self, number: u64) {
        self.out.extend_from_slice(&number.to_le_bytes());
    }
}

/// Appends a text: as the number of a word if it is one, which is given.
pub(super) fn text(out: &mut Vec<u8>, words: &Words, kind: Kind, text: &[u8]) -> Option<u16> {
    let word = words.number(kind, text);
    match word {
        Some(word) => self::word(out, word),
        None => {
            number(out, (text.len() as u64) << 1);
            out.extend_from_slice(text);
        }
    }
    word
}

/// Appends a word.
pub(super) fn word(out: &mut Vec<u8>, word: u16) {
    number(out, u64::from(word) << 1 | 1);
}

#[inline]
fn number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Where the key of an entry is told already; of an instance, where in the parameters.
fn key_place(entry: &Entry, binding: Option<&Binding>) -> (u8, Range<usize>) {
    if entry.key.is_trail() && entry.key == ContactKey::trail(entry.uri_hash) {
        return (KEY_IS_TRAIL, 0..0);
    }
    let Some(binding) = binding else { return (KEY_HERE, 0..0) };
    match entry.key.instance_and_reg_id() {
        None if entry.key.is_of_uri(binding.uri()) => (KEY_IS_URI, 0..0),
        None => (KEY_HERE, 0..0),
        Some((instance, _)) => {
            let params = binding.params();
            let quoted = memchr::memchr_iter(b'"', params).map(|quote| quote + 1);
            let place = quoted.map(|start| start..start + instance.len());
            let found = place.into_iter().find(|place| params.get(place.clone()) == Some(instance));
            found.map_or((KEY_HERE, 0..0), |place| (KEY_IS_INSTANCE, place))
        }
    }
}
