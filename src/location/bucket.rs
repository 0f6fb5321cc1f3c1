//! One leaf of the digest tree: the records whose AoRs' hashes begin alike, and what is due among them.

use aorta_proto::digest::AorHash;

use super::dirty::AorTag;
use super::memory::taken;
use super::packed::{Packed, Words};

/// No deadline: nothing in the bucket will lapse.
pub(super) const NEVER_US: u64 = u64::MAX;

/// In one line of a processor's cache: few of them are there when they are asked for.
#[repr(align(64))]
pub(super) struct Bucket {
    pub(super) records: Vec<Packed>,
    pub(super) sum: u128,
    /// Nothing in it lapses before this, cluster time in microseconds. May be too early, never too late.
    pub(super) lapses_us: u64,
    /// No stamp in it is before this. May be too early, never too late.
    pub(super) oldest_us: u64,
}

/// Places that a full bucket of so many records moves to: four, then a quarter more and two, and what else the allocator gives
/// out with them. One that grew by less would move at nearly each REGISTER of a new phone; one that doubled would be empty by
/// a third.
fn places_beyond(records: usize) -> usize {
    let places = (records + records / 4 + 2).max(4);
    taken(places * size_of::<Packed>()) / size_of::<Packed>()
}

impl Bucket {
    pub(super) fn empty() -> Self {
        Self { records: Vec::new(), sum: 0, lapses_us: NEVER_US, oldest_us: NEVER_US }
    }

    pub(super) fn find(&self, words: &Words, hash: AorHash, aor: &str) -> Option<usize> {
        let piece = AorTag::of(hash).piece();
        self.records.iter().position(|record| record.piece == piece && record.is_of(words, aor))
    }

    /// All records that a tag names.
    pub(super) fn tagged(&mut self, tag: AorTag) -> impl Iterator<Item = &mut Packed> {
        self.records.iter_mut().filter(move |record| record.piece == tag.piece())
    }

    /// Adds the record of another AoR; where it is.
    pub(super) fn add(&mut self, record: Packed) -> usize {
        if self.records.len() == self.records.capacity() {
            let more = places_beyond(self.records.len()) - self.records.len();
            self.records.reserve_exact(more);
        }
        self.records.push(record);
        self.records.len() - 1
    }

    /// What is in it changed by so much, and with it the sum of all.
    pub(super) fn shift(&mut self, sum: &mut u128, by: u128) {
        self.sum = self.sum.wrapping_add(by);
        *sum = sum.wrapping_add(by);
    }

    /// What the places for its records take of memory, bytes.
    pub(super) fn places_taken(&self) -> u64 {
        taken(self.records.capacity() * size_of::<Packed>()) as u64
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.records.swap_remove(at);
        if self.records.is_empty() || self.records.capacity() > (2 * self.records.len()).max(places_beyond(0)) {
            self.records.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::packed::Scratch;

    fn record(words: &Words) -> Packed {
        Scratch::with(|scratch| scratch.pack(words, "alice@example.com", 1))
    }

    /// How often a bucket moves while so many records are put into it, and then so many taken out.
    fn moves(bucket: &mut Bucket, words: &Words, puts: usize, removes: usize) -> usize {
        let mut moved = 0;
        for turn in 0..puts + removes {
            let before = bucket.records.capacity();
            if turn < puts {
                bucket.add(record(words));
            } else {
                bucket.remove(0);
            }
            moved += usize::from(bucket.records.capacity() != before);
            let (places, records) = (bucket.records.capacity(), bucket.records.len());
            assert!(places <= (2 * records).max(4) && (records > 0 || places == 0), "{records} in {places}");
        }
        moved
    }

    #[test]
    fn a_bucket_moves_seldom_and_has_at_most_four_places_or_two_for_each_record() {
        let (words, mut bucket) = (Words::new([0; 16]), Bucket::empty());
        assert!((5..=9).contains(&moves(&mut bucket, &words, 64, 0)));
        assert!((4..=9).contains(&moves(&mut bucket, &words, 0, 63)));
        assert!((0..20).all(|_| moves(&mut bucket, &words, 1, 1) == 0), "of two, one comes and goes");
        assert_eq!(moves(&mut bucket, &words, 0, 1), 1);
    }
}
