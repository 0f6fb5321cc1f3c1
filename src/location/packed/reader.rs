//! Bytes into a record, in memory that is used again. What does not read as it was written reads as empty.

use std::sync::Arc;

use aorta_proto::{Binding, BindingParts, BootId, Cleared, ContactKey, Entry, NodeId, Stamp, Value};
use smallvec::SmallVec;

use super::urn::{self, Urn};
use super::words::{Kind, Words};
use super::{
    FIRST, KEY_IS_INSTANCE, KEY_IS_TRAIL, KEY_IS_URI, KEY_SHIFT, LIVE, Packed, Previous, SAME_CALL_ID, SAME_STAMP,
    SAME_URI, STATE_BYTES, Scratch,
};

/// Reads what [`super::writer::Writer`] wrote.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    words: &'a Words,
}

impl<'a> Reader<'a> {
    pub(super) fn new(packed: &'a Packed, words: &'a Words) -> Self {
        Self { rest: packed.0.get(STATE_BYTES..).unwrap_or_default(), words }
    }

    /// The rest: the record.
    pub(super) fn record(&mut self, scratch: &mut Scratch) {
        let count = self.number();
        if count & 1 == 1 {
            let stamp = self.stamp(Stamp::ZERO);
            scratch.record.cleared = Some(Cleared { stamp, call_id_hash: self.fixed(), cseq: self.number() as u32 });
        }
        let mut previous = Previous::NONE;
        for _ in 0..count >> 1 {
            let entry = self.entry(&previous, scratch);
            previous = Previous::of(&entry);
            scratch.record.entries.push(entry);
        }
    }

    fn entry(&mut self, previous: &Previous, scratch: &mut Scratch) -> Entry {
        let flags = self.take(1).first().copied().unwrap_or_default();
        let stamp = if flags & SAME_STAMP == 0 { self.stamp(previous.stamp) } else { previous.stamp };
        let call_id_hash = if flags & SAME_CALL_ID == 0 { self.fixed() } else { previous.call_id_hash };
        let cseq = self.difference(previous.cseq.into()) as u32;
        let uri_hash = if flags & SAME_URI == 0 { self.fixed() } else { previous.uri_hash };
        let binding = if flags & LIVE != 0 {
            let first = if flags & FIRST == 0 { self.stamp(stamp) } else { stamp };
            self.binding(first, scratch)
        } else {
            None
        };
        let told = binding.as_deref();
        if told.is_none() {
            scratch.last_told = 0;
        }
        let key = match flags >> KEY_SHIFT {
            KEY_IS_TRAIL => ContactKey::trail(uri_hash),
            KEY_IS_URI => ContactKey::uri(told.map(Binding::uri).unwrap_or_default()),
            KEY_IS_INSTANCE => {
                let (reg_id, start, length) = (self.number() as u32, self.number() as usize, self.number() as usize);
                let params = told.map(Binding::params).unwrap_or_default();
                ContactKey::instance(params.get(start..start + length).unwrap_or_default(), reg_id)
            }
            _ => {
                self.phrase(Kind::Key, &mut scratch.text);
                ContactKey::from_bytes(&scratch.text)
            }
        };
        Entry { key, stamp, call_id_hash, cseq, uri_hash, value: binding.map_or(Value::Gone, Value::Live) }
    }

    fn binding(&mut self, first: Stamp, scratch: &mut Scratch) -> Option<Arc<Binding>> {
        let granted_s = self.number() as u32;
        let q = self.number().checked_sub(1).map(|q| q as u16);
        let node = std::str::from_utf8(self.text(Kind::Node)).ok();
        scratch.last_told = self.rest.len();
        let uri = self.bytes();
        let mut params = std::mem::take(&mut scratch.text);
        self.phrase(Kind::Params, &mut params);
        let path: SmallVec<[&[u8]; 4]> = (0..self.number()).map(|_| self.text(Kind::Path)).collect();
        let (call_id, user_agent) = (self.bytes(), self.text(Kind::UserAgent));
        let source = self.text(Kind::Source);
        let accepted_by = &NodeId::known(node?).ok()?;
        let parts = BindingParts {
            first,
            granted_s,
            uri,
            params: &params,
            q,
            path: &path,
            call_id,
            user_agent,
            source,
            accepted_by,
        };
        let binding = scratch.binding(&parts);
        scratch.text = params;
        Some(binding)
    }

    /// A text that was told with its UUID apart.
    fn phrase(&mut self, kind: Kind, out: &mut Vec<u8>) {
        out.clear();
        let place = self.number();
        let Some(start) = (place >> 1).checked_sub(1) else {
            return out.extend_from_slice(self.text(kind));
        };
        let bytes = self.take(urn::BYTES).try_into().unwrap_or_default();
        let (before, after) = self.text(kind).split_at_checked(start as usize).unwrap_or_default();
        out.extend_from_slice(before);
        Urn { bytes, upper: place & 1 == 1 }.push(out);
        out.extend_from_slice(after);
    }

    fn stamp(&mut self, previous: Stamp) -> Stamp {
        let time_us = self.difference(previous.time_us);
        let counter = self.number() as u32;
        let boot = self.text(Kind::Boot).try_into().map_or(0, u64::from_le_bytes);
        Stamp { time_us, counter, boot: BootId(boot) }
    }

    pub(super) fn text(&mut self, kind: Kind) -> &'a [u8] {
        let number = self.number();
        if number & 1 == 1 { self.words.text(kind, (number >> 1) as u16) } else { self.take((number >> 1) as usize) }
    }

    pub(super) fn bytes(&mut self) -> &'a [u8] {
        let length = self.number();
        self.take(length as usize)
    }

    fn difference(&mut self, from: u64) -> u64 {
        let number = self.number();
        from.wrapping_add(number >> 1 ^ (number & 1).wrapping_neg())
    }

    fn number(&mut self) -> u64 {
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

    fn take(&mut self, count: usize) -> &'a [u8] {
        let taken = self.rest.split_at_checked(count);
        debug_assert!(taken.is_some(), "a packed record ends too early");
        let (taken, rest) = taken.unwrap_or_default();
        self.rest = rest;
        taken
    }
}
