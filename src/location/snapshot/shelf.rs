//! What is known of the blocks without reading them: in which volumes they lie, where the next one goes, and how far the
//! table was written anew. Touches no database and no table.
//!
//! Blocks are only ever added, so records pile up that were written again since. When more than [`COPIES_MAX`] lie there
//! for each AoR, the table is *renewed*: each save takes some more buckets and writes what was not written since the renewal
//! began, into volumes of its own; when it has come round, the older volumes go, as fast as new ones come. So no save costs
//! much more than what changed; and as a renewal takes its time, phones write most records again while it lasts, and it
//! has nothing to do for these.
//!
//! **2026-11, what lies on disk.** Three copies of the table that are needed at the end of a renewal, at most (what changed
//! while it lasted, and what it wrote), and as many before it that go: [`COPIES_MAX`] · 2 + 2, and four to five when all
//! records change at one rate; 190 bytes each for phones with a Path. In return a change costs little more than one copy.
//! What would change our mind: disks that are small against memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use aorta_proto::digest::BUCKETS;

use super::database::PLACES;

/// The table is renewed when more records lie in blocks than so many times the AoRs that are, and when the renewal ends as
/// many as that again may have been written.
const COPIES_MAX: usize = 2;

/// So many records may lie there in any case.
const RECORDS_SLACK: usize = 65_536;

/// Buckets that a renewal takes in each save at least, so that it ends where little changes.
pub(super) const BUCKETS_MIN: u32 = BUCKETS / 256;

/// One volume in so many that are not needed goes with each volume that is begun, and one more. To delete them all at once
/// would leave half of the file free, which sled answers by moving the other half.
const DELETED_SHARE: usize = 8;

#[derive(Debug, Default)]
struct Volume {
    /// Records in its blocks, every copy counted; too few where some could not be read.
    records: usize,
    /// Places of blocks with records of a newer aorta: they stay.
    newer: BTreeSet<u64>,
}

/// The volumes.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    volumes: BTreeMap<u64, Volume>,
    /// Where the next block goes: volume and place. Volume 0 is what an earlier aorta left.
    next: (u64, u64),
    /// Volumes below this are not needed any more.
    needed_from: u64,
    /// So many of these are to be deleted now.
    due: usize,
    renewal: Option<Renewal>,
    /// Something there is damaged, or lies as an earlier aorta wrote it: all is to be written anew.
    outworn: bool,
    /// With no more records than this nothing is renewed: the disk may have no room for it.
    put_off: usize,
}

#[derive(Debug)]
struct Renewal {
    /// Its first volume.
    from: u64,
    /// The bucket that comes next.
    bucket: u32,
}

impl Shelf {
    /// A volume was found.
    pub(super) fn found(&mut self, volume: u64, records: usize, newer: BTreeSet<u64>, last_place: Option<u64>) {
        self.outworn |= volume == 0;
        self.volumes.insert(volume, Volume { records, newer });
        self.next = self.next.max((volume, last_place.map_or(0, |place| place + 1)));
    }

    /// Something is damaged or lies as an earlier aorta wrote it.
    pub(super) fn wears_out(&mut self) {
        self.outworn = true;
    }

    /// Volume and place of the next block.
    pub(super) fn next(&mut self) -> (u64, u64) {
        if self.next.0 == 0 || self.next.1 >= PLACES {
            self.begin_volume();
        }
        self.next
    }

    fn begin_volume(&mut self) {
        self.next = (self.next.0 + 1, 0);
        self.due += 1 + self.volumes.range(..self.needed_from).count() / DELETED_SHARE;
    }

    /// A block with so many records lies where [`Shelf::next`] said.
    pub(super) fn put(&mut self, records: usize) {
        self.volumes.entry(self.next.0).or_default().records += records;
        self.next.1 += 1;
    }

    /// Records that lie in blocks that are still needed, every copy counted.
    pub(super) fn records(&self) -> usize {
        self.volumes.range(self.needed_from..).map(|(_, volume)| volume.records).sum()
    }

    /// Whether a renewal begins, of a table of so many AoRs.
    pub(super) fn begin_renewal(&mut self, aors: u64) -> bool {
        let most = count(aors).saturating_mul(COPIES_MAX).saturating_add(RECORDS_SLACK);
        let records = self.records();
        let begins = self.renewal.is_none() && (self.outworn || records > most) && records >= self.put_off;
        if begins {
            self.begin_volume();
            self.renewal = Some(Renewal { from: self.next.0, bucket: 0 });
        }
        begins
    }

    /// The buckets that are renewed next when so many records of a table changed; none when nothing is renewed. The last
    /// ones are given again until [`Shelf::renewed`].
    pub(super) fn renew(&mut self, aors: u64, changed: u64) -> Option<Range<u32>> {
        if self.records() < self.put_off {
            return None;
        }
        let renewal = self.renewal.as_mut()?;
        let share = u64::from(BUCKETS).saturating_mul(changed) / aors.saturating_mul(COPIES_MAX as u64).max(1);
        let taken = u32::try_from(share).unwrap_or(BUCKETS).max(BUCKETS_MIN);
        let first = renewal.bucket;
        renewal.bucket = first.saturating_add(taken).min(BUCKETS);
        Some(first..renewal.bucket)
    }

    /// All that [`Shelf::renew`] gave is on disk: volumes from before are not needed if that was everything.
    pub(super) fn renewed(&mut self) {
        if let Some(Renewal { from, .. }) = self.renewal.take_if(|renewal| renewal.bucket >= BUCKETS) {
            (self.needed_from, self.outworn, self.put_off) = (from, false, 0);
            // A table that changes little goes on with its first volume for long.
            self.due += 1;
        }
    }

    /// The disk did not take what was written: a renewal waits until as much has been written as would double the blocks.
    pub(super) fn put_off(&mut self) {
        if self.renewal.is_some() {
            self.put_off = self.records().saturating_mul(2);
        }
    }

    /// The next volume that is to be deleted now, and which of its blocks are to stay: the youngest first, for all pages of
    /// a volume begin where the one before it ends, and sled would move them when that goes.
    pub(super) fn needless(&mut self) -> Option<(u64, BTreeSet<u64>)> {
        let Some((&number, _)) = self.volumes.range(..self.needed_from).next_back() else {
            self.due = 0;
            return None;
        };
        self.due = self.due.checked_sub(1)?;
        self.volumes.remove(&number).map(|volume| (number, volume.newer))
    }
}

fn count(aors: u64) -> usize {
    usize::try_from(aors).unwrap_or(usize::MAX)
}
