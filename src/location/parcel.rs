//! Whole buckets on their way from one table to another, as the one keeps them: with what their words mean they are copied
//! here and copied there, where records would be unpacked, encoded, decoded, merged and packed. Decides nothing about who
//! lacks what.

use aorta_proto::aor::AOR_BYTES_MAX;
use aorta_proto::mutant::is_any;
use aorta_proto::{Aor, Record};

use super::packed::{Explained, Glossary, Scratch, row};
use super::{Location, give_back};

/// Records of one table that another is to get. Bounded by whoever fills it.
#[derive(Default)]
pub struct Parcel {
    /// Records in a row, which has no end yet.
    row: Vec<u8>,
    explained: Explained,
}

impl Parcel {
    /// What is in it, bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.row.len()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.row.is_empty()
    }
}

impl std::fmt::Debug for Parcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parcel").field("bytes", &self.len()).finish_non_exhaustive()
    }
}

impl Location {
    /// Adds everything of a bucket to a parcel.
    pub fn pack_bucket(&self, bucket: u32, parcel: &mut Parcel) {
        self.read_bucket(bucket, |stripe, place| stripe.each_packed(place, |told| row::push(told, &mut parcel.row)));
    }

    /// Takes records out of a parcel and appends them to `out`, for [`Location::apply_parcel`] elsewhere: as many as fit in
    /// `bytes_max` with what their words mean, none if there is none. One that does not fit alone is shown to `large` in their
    /// place.
    pub fn take_parcel(
        &self,
        parcel: &mut Parcel,
        bytes_max: usize,
        out: &mut Vec<u8>,
        mut large: impl FnMut(&str, &Record),
    ) {
        let Parcel { row, explained } = parcel;
        let (start, mut taken, mut glossary_bytes) = (out.len(), 0, 0);
        while let Some((told, after)) = row.get(taken..).and_then(row::next) {
            match explained.add(told, &self.words) {
                Some(()) if out.len() - start + row::bytes(told, explained.as_bytes()) <= bytes_max => {
                    row::push(told, out);
                    glossary_bytes = explained.as_bytes().len();
                }
                Some(()) if out.len() > start => break,
                Some(()) => {
                    self.show_told(told, &mut large);
                    explained.clear();
                }
                None => tracing::error!("a record could not be read for a peer: others have it"),
            }
            taken = row.len() - after.len();
        }
        if out.len() > start {
            row::end(explained.as_bytes().get(..glossary_bytes).unwrap_or_default(), out);
        }
        explained.clear();
        row.drain(..taken);
    }

    fn show_told(&self, told: &[u8], show: &mut impl FnMut(&str, &Record)) {
        Scratch::with(|scratch| {
            scratch.read_told(told, &self.words);
            show(&scratch.aor, &scratch.record);
        });
    }

    /// Merges what [`Location::take_parcel`] gave of another table; `admit` sees each record first, and those that it refuses are
    /// left. Returns how many brought one stamp with two values.
    ///
    /// # Errors
    /// `None` when it is no such thing; some of it may have been merged.
    pub fn apply_parcel(&self, parcel: &[u8], mut admit: impl FnMut(&Record) -> bool) -> Option<u64> {
        let mut conflicts = Some(0);
        row::read(parcel, &mut Glossary::default(), |told, glossary| {
            let conflict = conflicts.and_then(|_| self.apply_told(told, glossary, &mut admit));
            conflicts = conflicts.zip(conflict).map(|(conflicts, conflict)| conflicts + u64::from(conflict));
        })?;
        conflicts
    }

    /// Whether it was a conflict; `None` when it is no record.
    fn apply_told(
        &self,
        told: &[u8],
        glossary: (&mut Glossary, &[u8]),
        admit: &mut impl FnMut(&Record) -> bool,
    ) -> Option<bool> {
        let to_merge = Scratch::with(|scratch| {
            scratch.transcribe(told, glossary, &self.words)?;
            if !(1..=AOR_BYTES_MAX).contains(&scratch.aor.len()) {
                return None;
            }
            let done = !admit(&scratch.record) || self.add(scratch);
            Some((!done).then(|| (Aor::from_canonical(&scratch.aor), scratch.record.clone())))
        })?;
        Some(to_merge.is_some_and(|(aor, record)| self.apply(&aor, record).conflict))
    }

    /// Puts a record that was just [transcribed](Scratch::transcribe) into the table as it is. Does nothing, and returns
    /// `false`, if there is something to merge it with, or something in it to be forgotten.
    fn add(&self, scratch: &Scratch) -> bool {
        let record = &scratch.record;
        if is_any() || !record.is_normal() {
            // A deliberate fault lies in the long way.
            return false;
        }
        let hash = self.digester.aor_text(&scratch.aor);
        let mut stripe = self.stripe(hash).write();
        // Read under the lock, as in `apply_locked`.
        let floor_us = self.floor_us();
        let lasts = record.oldest().is_some_and(|stamp| stamp.time_us > floor_us);
        if !lasts || stripe.find(hash, &scratch.aor).is_some() {
            return false;
        }
        self.note_lifetimes(record);
        stripe.add(&self.digester, hash, scratch);
        give_back(stripe);
        true
    }
}
