//! What two nodes compare and hand over: sums of the digest tree, lists of buckets, the items behind them. Decides nothing
//! about who lacks what; that is replication's.

use aorta_proto::digest::{AorHash, ItemHash, LEAF_LEVEL, leaves};
use aorta_proto::mutant::{Mutant, is};
use aorta_proto::{Aor, ContactKey, Listed, Record};

use super::stripe::{self, Stripe};
use super::{Location, STRIPES};

impl Location {
    /// The sum of everything: level 0 of the tree.
    #[must_use]
    pub fn root(&self) -> u128 {
        (0..STRIPES).fold(0, |sum, at| self.settled(at).sum().wrapping_add(sum))
    }

    /// The sums of nodes of the tree, in the order asked; level 0 is the root, level 4 the buckets. 0, the sum of nothing,
    /// for a node that does not exist. Each stripe is read at once, but not all at one moment.
    #[must_use]
    pub fn sums(&self, level: u8, indexes: &[u32]) -> Vec<u128> {
        indexes.iter().map(|&index| self.sum(level, index)).collect()
    }

    fn sum(&self, level: u8, index: u32) -> u128 {
        let Some(leaves) = leaves(level, index) else { return 0 };
        let (first, count) = (leaves.start as usize, leaves.len());
        let stripe = first / stripe::BUCKETS;
        if count >= stripe::BUCKETS {
            let stripes = stripe..stripe + count / stripe::BUCKETS;
            return stripes.fold(0, |sum, at| self.settled(at).sum().wrapping_add(sum));
        }
        let stripe = self.settled(stripe);
        let places = first % stripe::BUCKETS..first % stripe::BUCKETS + count;
        places.fold(0, |sum, place| stripe.bucket_sum(place).wrapping_add(sum))
    }

    /// The stamps of every entry, and of every `cleared`, of a bucket, sorted.
    #[must_use]
    pub fn list(&self, bucket: u32) -> Vec<Listed> {
        let mut list = Vec::new();
        self.read_bucket(bucket, |stripe, place| {
            stripe.each(place, |aor, record| {
                let hash = self.digester.aor_text(aor);
                let cleared = record.cleared.map(|cleared| (None, cleared.stamp));
                let entries = record.entries.iter().map(|entry| (Some(&entry.key), entry.stamp));
                let listed = |(key, stamp)| Listed { hash: self.digester.item(hash, key), stamp };
                list.extend(cleared.into_iter().chain(entries).map(listed));
            });
        });
        list.sort_unstable();
        list.truncate(list.len() - usize::from(is(Mutant::ListMissesOne) && list.len() > 1));
        list
    }

    /// Of a bucket, the items with these names, as records that hold nothing else. An unknown name is no error: the item
    /// may just have been forgotten.
    #[must_use]
    pub fn fetch(&self, bucket: u32, wanted: &[ItemHash]) -> Vec<(Aor, Record)> {
        let mut sorted = wanted.to_vec();
        sorted.sort_unstable();
        let is_wanted =
            |hash: AorHash, key: Option<&ContactKey>| sorted.binary_search(&self.digester.item(hash, key)).is_ok();
        let mut found = Vec::new();
        self.read_bucket(bucket, |stripe, place| {
            stripe.each(place, |aor, record| {
                let hash = self.digester.aor_text(aor);
                let cleared = record.cleared.filter(|_| is_wanted(hash, None));
                let entries =
                    record.entries.iter().filter(|entry| is_wanted(hash, Some(&entry.key))).cloned().collect();
                let part = Record { cleared, entries };
                if !part.is_empty() {
                    found.push((Aor::from_canonical(aor), part));
                }
            });
        });
        found
    }

    /// Everything of a bucket: for dumps. In no order.
    #[must_use]
    pub fn bucket(&self, bucket: u32) -> Vec<(Aor, Record)> {
        let mut all = Vec::new();
        self.show_bucket(bucket, |aor, record| all.push((Aor::from_canonical(aor), record.clone())));
        all
    }

    /// Shows everything of a bucket, under a lock: `show` must be short and must not touch this table. In no order.
    pub fn show_bucket(&self, bucket: u32, show: impl FnMut(&str, &Record)) {
        self.read_bucket(bucket, |stripe, place| stripe.each(place, show));
    }

    pub(super) fn read_bucket(&self, bucket: u32, read: impl FnOnce(&Stripe, usize)) {
        if leaves(LEAF_LEVEL, bucket).is_some() {
            let (at, place) = stripe::locate(bucket);
            read(&self.settled(at), place);
        }
    }
}
