//! What two nodes compare instead of their tables: keyed sums over stamps in a tree of fan-out 16. Holds no table.
//!
//! A leaf is a bucket of AoRs; its sum adds one term for each entry and each `cleared`. Addition is commutative and has an
//! inverse, so a store keeps the sum up to date at every change, O(1); an inner node of the tree is the sum of its leaves.
//! The key keeps phones, which choose AoRs and Contacts, from building two tables with one sum. Values are not in it:
//! stamps are unique, and a slimmed entry must count like the whole one.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::aor::Aor;
use crate::binding::ContactKey;
use crate::mutant::{Mutant, is};
use crate::stamp::Stamp;

/// How many leaves.
pub const BUCKETS: u32 = 65_536;

/// The deepest level, that of the leaves. Level 0 is the root.
pub const LEAF_LEVEL: u8 = 4;

/// How many children a node of the tree has, as a power of two.
const FAN_OUT_BITS: u8 = 4;

/// How many nodes a level has: 1, 16, 256, 4096, 65 536; `None` below the leaves.
#[must_use]
pub fn width(level: u8) -> Option<u32> {
    (level <= LEAF_LEVEL).then(|| 1 << (FAN_OUT_BITS * level))
}

/// The leaves under one node of the tree; `None` when there is no such node.
#[must_use]
pub fn leaves(level: u8, index: u32) -> Option<std::ops::Range<u32>> {
    let each = BUCKETS / width(level)?;
    (index < width(level)?).then(|| index * each..(index + 1) * each)
}

/// The children of a node, as indexes of the next level; `None` when there is no such node or it is a leaf.
#[must_use]
pub fn children(level: u8, index: u32) -> Option<std::ops::Range<u32>> {
    let exists = level < LEAF_LEVEL && index < width(level)?;
    exists.then(|| index << FAN_OUT_BITS..(index + 1) << FAN_OUT_BITS)
}

/// The keyed hash of an AoR: its bucket, its place in a store, and the start of its entries' hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AorHash(u128);

impl AorHash {
    /// The leaf that holds the AoR: the top 16 bits.
    #[must_use]
    pub fn bucket(self) -> u32 {
        u32::from((self.0 >> 112) as u16)
    }

    /// The lower 64 bits, independent of the bucket: for a table within it.
    #[must_use]
    pub fn low(self) -> u64 {
        self.0 as u64
    }
}

/// The name of an entry, or of an AoR's `cleared`, in lists that nodes exchange.
pub type ItemHash = u64;

/// One line of the list of a bucket: who has which stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Listed {
    /// Which entry, or which AoR's `cleared`.
    pub hash: ItemHash,
    /// Its stamp.
    pub stamp: Stamp,
}

/// Parts up to so many bytes are hashed in one piece.
const PIECE_BYTES: usize = 96;

/// The keyed hashes. All nodes of a cluster use one key.
#[derive(Debug, Clone, Copy)]
pub struct Digester {
    key: [u8; 16],
}

impl Digester {
    /// Takes the cluster's digest key.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    /// The hash of an AoR.
    #[must_use]
    pub fn aor(&self, aor: &Aor) -> AorHash {
        self.aor_text(aor.as_str())
    }

    /// The same, of an AoR's canonical text.
    #[must_use]
    pub fn aor_text(&self, aor: &str) -> AorHash {
        AorHash(self.hash(b"a", &[aor.as_bytes()]))
    }

    /// The name of an entry of an AoR; of its `cleared` when there is no key.
    #[must_use]
    pub fn item(&self, aor: AorHash, key: Option<&ContactKey>) -> ItemHash {
        self.item_wide(aor, key.map(ContactKey::as_bytes)) as u64
    }

    /// What an entry (or `cleared`) of this stamp adds to the sum of its bucket.
    #[must_use]
    pub fn term(&self, aor: AorHash, key: Option<&ContactKey>, stamp: Stamp) -> u128 {
        self.term_of(self.item_wide(aor, key.map(ContactKey::as_bytes)), stamp)
    }

    /// By how much the sum of a bucket changes when an entry (or `cleared`) with one stamp gets another; `None` where there is
    /// none. The key as [`ContactKey::as_bytes`].
    #[must_use]
    pub fn shift(&self, aor: AorHash, key: Option<&[u8]>, before: Option<Stamp>, after: Option<Stamp>) -> u128 {
        let item = self.item_wide(aor, key);
        let term = |stamp: Option<Stamp>| stamp.map_or(0, |stamp| self.term_of(item, stamp));
        term(after).wrapping_sub(term(before))
    }

    fn term_of(&self, item: u128, stamp: Stamp) -> u128 {
        let item = item.to_le_bytes();
        if is(Mutant::DigestWithoutStamps) {
            return self.hash(b"t", &[&item]);
        }
        self.hash(
            b"t",
            &[&item, &stamp.time_us.to_le_bytes(), &stamp.counter.to_le_bytes(), &stamp.boot.0.to_le_bytes()],
        )
    }

    /// `cleared` hashes as the empty key, which no contact has: a [`ContactKey`] begins with its kind.
    fn item_wide(&self, aor: AorHash, key: Option<&[u8]>) -> u128 {
        self.hash(b"i", &[&aor.0.to_le_bytes(), key.unwrap_or_default()])
    }

    /// The parts one after another. In one piece where they are short, as they nearly always are: the hasher is slow at
    /// taking up where it left off.
    fn hash(&self, purpose: &[u8; 1], parts: &[&[u8]]) -> u128 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        let mut piece = [purpose[0]; PIECE_BYTES];
        let mut filled = 1;
        for part in parts {
            if let Some(room) = piece.get_mut(filled..filled + part.len()) {
                room.copy_from_slice(part);
                filled += part.len();
            } else {
                hasher.write(&piece[..filled]);
                hasher.write(part);
                filled = 0;
            }
        }
        hasher.write(&piece[..filled]);
        hasher.finish128().as_u128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_covers_every_leaf_once() {
        for level in 0..=LEAF_LEVEL {
            let width = width(level).unwrap();
            let all: Vec<u32> = (0..width).flat_map(|index| leaves(level, index).unwrap()).collect();
            assert!(all.iter().copied().eq(0..BUCKETS), "level {level}");
            assert_eq!(leaves(level, width), None);
            assert_eq!(children(level, width), None);
        }
        assert_eq!(width(5), None);
        assert_eq!(children(1, 15), Some(240..256));
        assert_eq!(children(LEAF_LEVEL, 0), None);
    }

    #[test]
    fn where_parts_are_cut_does_not_matter() {
        let digester = Digester::new(*b"0123456789abcdef");
        let text = [b'x'; 3 * PIECE_BYTES];
        let whole = digester.hash(b"a", &[&text]);
        for cut in 0..=text.len() {
            let (left, right) = text.split_at(cut);
            assert_eq!(digester.hash(b"a", &[left, right]), whole);
            assert_eq!(digester.hash(b"a", &[left, &[], right, &[]]), whole);
        }
    }

    #[test]
    fn hashes_are_what_they_were_in_every_build() {
        let digester = Digester::new(*b"0123456789abcdef");
        let aor = digester.aor(&Aor::from_canonical("alice@example.com"));
        let key = ContactKey::uri(b"sip:alice@192.0.2.1");
        let stamp = Stamp { time_us: 1, counter: 2, boot: crate::stamp::BootId(3) };
        let seen = (aor.0, digester.item(aor, Some(&key)), digester.term(aor, None, stamp));
        assert_eq!(
            seen,
            (257143810994632605151307633273484298872, 13945957528542670637, 324670446317168883639877237930333927772)
        );
    }
}
