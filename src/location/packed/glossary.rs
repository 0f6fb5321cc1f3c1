//! What the numbers in packed records mean, told beside them: so they can be read where [`Words`] are others, or none.
//! Knows no disk, and not how records lie there.
//!
//! A glossary is one `kind (1) · number (2) · length (2) · text` after the other, numbers little-endian.

use std::ops::Range;

use aorta_proto::NodeId;

use super::reader::{Reader, Text};
use super::walk::walk;
use super::words::{KINDS, Kind, WORD_BYTES_MAX, WORDS_MAX, Words};
use super::{Scratch, writer};

/// What precedes a text.
const HEAD_BYTES: usize = 5;

/// All texts of the largest record that is read, bytes: as much as the disk ever took, thousands of times what a REGISTER may
/// write. One that names a word again and again is longer once it is read than it was told.
const RECORD_BYTES_MAX: usize = 16 << 20;

/// A glossary while records are added whose words it explains.
#[derive(Default)]
pub(in crate::location) struct Explained {
    bytes: Vec<u8>,
    /// The numbers that are in it, a bit for each.
    known: Box<[[u64; WORDS_MAX / 64]; KINDS]>,
}

impl Explained {
    /// Sees to it that every word of a record, as [`super::Packed::told`] gives it, is explained. `None` when that is no record.
    pub(in crate::location) fn add(&mut self, told: &[u8], words: &Words) -> Option<()> {
        let Self { bytes, known } = self;
        walk(told, |kind, text, _| {
            let Text::Word(number) = text else { return Some(()) };
            let known = known[kind as usize].get_mut(usize::from(number) / 64)?;
            let bit = 1 << (number % 64);
            if *known & bit == 0 {
                *known |= bit;
                let text = words.text(kind, number);
                bytes.push(kind as u8);
                bytes.extend_from_slice(&number.to_le_bytes());
                bytes.extend_from_slice(&u16::try_from(text.len()).ok()?.to_le_bytes());
                bytes.extend_from_slice(text);
            }
            Some(())
        })
    }

    /// The glossary.
    pub(in crate::location) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Makes room for the next one.
    pub(in crate::location) fn clear(&mut self) {
        self.bytes.clear();
        *self.known = Default::default();
    }
}

/// A glossary that was read.
#[derive(Default)]
pub(in crate::location) struct Glossary {
    meanings: Vec<Meaning>,
    /// Of each kind and number one more than where its meaning is; 0 where there is none.
    places: [Vec<u16>; KINDS],
}

struct Meaning {
    kind: Kind,
    number: u16,
    /// In the glossary's bytes.
    text: Range<usize>,
    /// What the table that is filled has for it, once it is a word there.
    here: Option<u16>,
}

impl Glossary {
    /// Takes another glossary in place of this one. `None` when it is none.
    pub(in crate::location) fn read(&mut self, glossary: &[u8]) -> Option<()> {
        for Meaning { kind, number, .. } in self.meanings.drain(..) {
            self.places[kind as usize][usize::from(number)] = 0;
        }
        let mut at = 0;
        while at < glossary.len() {
            let [kind, number @ .., a, b] = *glossary.get(at..)?.first_chunk::<HEAD_BYTES>()?;
            let (kind, number) = (Kind::of(kind)?, u16::from_le_bytes(number));
            let start = at + HEAD_BYTES;
            at = start + usize::from(u16::from_le_bytes([a, b]));
            self.add(Meaning { kind, number, text: start..at, here: None }, glossary)?;
        }
        Some(())
    }

    fn add(&mut self, meaning: Meaning, glossary: &[u8]) -> Option<()> {
        // A longer one was never a word, and could be told a hundred thousand times in a byte each.
        let text = glossary.get(meaning.text.clone()).filter(|text| text.len() <= WORD_BYTES_MAX)?;
        fits(meaning.kind, text)?;
        let (places, number) = (&mut self.places[meaning.kind as usize], usize::from(meaning.number));
        if places.len() <= number {
            places.resize(number + 1, 0);
        }
        let place = places.get_mut(number).filter(|place| **place == 0)?;
        self.meanings.push(meaning);
        *place = u16::try_from(self.meanings.len()).ok()?;
        Some(())
    }

    fn find(&mut self, kind: Kind, number: u16) -> Option<&mut Meaning> {
        let place = self.places[kind as usize].get(usize::from(number))?.checked_sub(1)?;
        self.meanings.get_mut(usize::from(place))
    }
}

/// Whether a text can be what it is told as.
fn fits(kind: Kind, text: &[u8]) -> Option<()> {
    let fits = match kind {
        Kind::Node => NodeId::known(std::str::from_utf8(text).ok()?).is_ok(),
        Kind::Boot => text.len() == size_of::<u64>(),
        Kind::Domain | Kind::Params | Kind::Key | Kind::Path | Kind::UserAgent | Kind::Source => true,
    };
    fits.then_some(())
}

impl Scratch {
    /// Reads a record that [`Packed::told`](super::Packed::told) gave once, told in the words that `glossary` explains with its
    /// `bytes`, and whose it is. `None` when it is no such record.
    pub(in crate::location) fn transcribe(
        &mut self,
        told: &[u8],
        (glossary, bytes): (&mut Glossary, &[u8]),
        words: &Words,
    ) -> Option<()> {
        let mut packed = std::mem::take(&mut self.bytes);
        packed.clear();
        let (mut copied, mut spelled) = (0, 0);
        let mut spell = |text: &[u8]| {
            spelled += text.len();
            (spelled <= RECORD_BYTES_MAX).then_some(())
        };
        let walked = walk(told, |kind, text, place| {
            packed.extend_from_slice(told.get(copied..place.start)?);
            copied = place.end;
            match text {
                Text::Here(text) => {
                    spell(text)?;
                    fits(kind, text)?;
                    writer::text(&mut packed, words, kind, text);
                }
                Text::Word(number) => {
                    let meaning = glossary.find(kind, number)?;
                    let text = bytes.get(meaning.text.clone())?;
                    spell(text)?;
                    match meaning.here {
                        Some(here) => writer::word(&mut packed, here),
                        None => {
                            meaning.here = writer::text(&mut packed, words, kind, text);
                        }
                    }
                }
            }
            Some(())
        });
        let read = walked.and_then(|()| told.get(copied..)).and_then(|rest| {
            packed.extend_from_slice(rest);
            let reader = Reader::at(&packed, words);
            let [user, domain] = reader.clone().aor();
            std::str::from_utf8(user).and(std::str::from_utf8(domain)).ok()?;
            self.read_all(reader, words);
            Some(())
        });
        self.bytes = packed;
        read
    }
}
