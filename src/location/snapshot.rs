//! The location table on disk: a restart cache, for the peers hold everything. The only room that names sled.
//!
//! Judges nothing and merges nothing by itself: what it reads goes through [`Location::restore`]. Reads no clock. What is
//! damaged is set aside, loudly, and the node starts from its peers; what cannot be written stays dirty and is tried again.
//!
//! In the data directory: `node-id` (whose it is; locked while in use), `clock` ([`Ceiling`]), `location.sled`, and `saves`,
//! the number of the last flush, which is in the database too.
//!
//! | file | what |
//! |---|---|
//! | `snapshot` | opening, saving, committing; what happens when the disk refuses |
//! | `shelf` | which records lie where, and when the table is written anew |
//! | `blocks`, `value` | records as bytes |
//! | `load` | all of it into the table |
//! | `database` | sled: volumes, damage, errors |
//! | `directory`, `ceiling`, `slots` | whose directory it is; cluster time; numbers that survive a crash |
//!
//! Measured faults of sled 0.34.7 that this works around: a cut `snap.*`
//! fails `open` until it is deleted (nothing is lost by that); a damaged log panics, or is silently cut at the damage, which
//! only the number of the last flush tells; after one failed write every later one fails until it is opened again; its
//! flush does not reach the disk itself.

mod blocks;
mod ceiling;
mod database;
mod directory;
mod load;
mod shelf;
mod slots;
#[cfg(test)]
mod tests;
pub mod value;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use aorta_proto::NodeId;

use super::{AorTag, Counts, Location};
use blocks::Block;
use database::{FORMER_RECORDS, Open, Trouble, guard, open_past_damage};
use directory::{at, claim, set_aside};
use shelf::Shelf;
use slots::Slots;

pub use ceiling::{CEILING_LEAD_US, CEILING_RENEW_US, Ceiling, KeptClock};
pub use directory::SnapshotError;

/// Records between two flushes of a long save: what is put back, should a flush fail.
const FLUSH_RECORDS: usize = 8192;

const CLOCK_FILE: &str = "clock";
const SAVES_FILE: &str = "saves";
const DATABASE: &str = "location.sled";
const MEMBERS: &str = "members";
/// Where an earlier aorta kept the lifetimes that members granted.
const FORMER_LIFETIMES: &str = "expires-max";

/// What the disk gave at start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// AoRs read.
    pub aors: usize,
    /// The greatest stamp among them, cluster time in microseconds.
    pub latest_us: u64,
    /// Values that were damaged, and dropped.
    pub damaged: usize,
    /// Values of a newer version, left where they are.
    pub newer: usize,
    /// Where a damaged database was moved to. The table then has what could be read of it.
    pub set_aside: Option<PathBuf>,
    /// The disk is full: nothing was read, and nothing will be written until there is space.
    pub full: bool,
    /// What the disk knows of time; `None` also when a full disk made the ceiling worthless.
    pub clock: Option<KeptClock>,
    /// The last known members, as [`Snapshot::keep_members`] was given them.
    pub members: Option<Vec<u8>>,
}

/// What one save did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Saved {
    /// Records written: of AoRs that changed, and of those whose last copy would soon go with the others around it.
    pub written: usize,
}

/// The open database. Owned by the one thread that saves.
pub struct Snapshot {
    dir: PathBuf,
    /// Held for its lock.
    _node_id: File,
    /// `None` after an error, until it can be opened again.
    open: Option<Open>,
    /// Whether what was in it is in the table.
    loaded: bool,
    /// The number of the last flush.
    saves: u64,
    saves_file: Slots,
    shelf: Shelf,
    members: Option<Vec<u8>>,
}

impl Snapshot {
    /// Opens the data directory of a node, makes it if there is none, and reads all that is in it into the table.
    ///
    /// # Errors
    /// When the directory is another node's, in use, or cannot be read or written for another reason than damage or lack
    /// of space, which are told in [`Loaded`].
    pub fn open(dir: &Path, node: &NodeId, location: &Location) -> Result<(Self, Ceiling, Loaded), SnapshotError> {
        std::fs::create_dir_all(dir).map_err(|source| at(dir, source))?;
        let node_id = claim(dir, node)?;
        let clock_path = dir.join(CLOCK_FILE);
        let (ceiling, clock) = Ceiling::open(&clock_path).map_err(|source| at(&clock_path, source))?;
        let saves_path = dir.join(SAVES_FILE);
        let (saves_file, saves) = Slots::open(&saves_path).map_err(|source| at(&saves_path, source))?;
        let mut snapshot = Self {
            dir: dir.to_owned(),
            _node_id: node_id,
            open: None,
            loaded: false,
            saves: saves.map_or(0, |[saves, ..]| saves),
            saves_file,
            shelf: Shelf::default(),
            members: None,
        };
        let mut loaded = Loaded { clock, ..Loaded::default() };
        snapshot.open_database(location, &mut loaded)?;
        Ok((snapshot, ceiling, loaded))
    }

    /// Writes what is dirty and flushes it: everything that changed before the call is on disk when it returns, as far as
    /// the kernel and the disk say so (`fdatasync`).
    ///
    /// # Errors
    /// When the disk does not take it: what is not surely on disk is dirty again, and the next save tries again, opening
    /// the database anew.
    pub fn save(&mut self, location: &Location) -> Result<Saved, SnapshotError> {
        self.save_and(location, |_| Ok(()))
    }

    /// As [`Snapshot::save`]; between two batches, `meanwhile` may [`Snapshot::commit`]: what is awaited does not wait
    /// behind a whole table.
    ///
    /// # Errors
    /// As [`Snapshot::save`], also when `meanwhile` fails.
    pub fn save_and(
        &mut self,
        location: &Location,
        mut meanwhile: impl FnMut(&mut Self) -> Result<(), SnapshotError>,
    ) -> Result<Saved, SnapshotError> {
        self.open_again(location)?;
        let counts = location.counts();
        let renewing = self.renew(location, counts);
        // While they are taken they are neither here nor there.
        location.note_unflushed(counts.dirty);
        let dirty = location.take_dirty();
        location.note_unflushed(dirty.len() as u64);
        let mut saved = Saved::default();
        for unflushed in (0..dirty.len()).step_by(FLUSH_RECORDS) {
            let until = dirty.len().min(unflushed + FLUSH_RECORDS);
            let written = self.write(location, &dirty[unflushed..until], &mut meanwhile);
            match written.and_then(|written| self.flush().map(|()| written)) {
                Ok(written) => {
                    saved.written += written;
                    location.note_unflushed((dirty.len() - until) as u64);
                }
                Err(error) => {
                    location.put_back(&dirty[unflushed..]);
                    location.note_unflushed(0);
                    self.shelf.put_off();
                    self.close();
                    return Err(error);
                }
            }
        }
        if renewing {
            self.shelf.renewed();
        }
        self.delete_needless(&mut meanwhile).inspect_err(|_| self.close())?;
        Ok(saved)
    }

    /// Makes dirty what is to be written anew with this save. Returns whether there is such a thing.
    fn renew(&mut self, location: &Location, counts: Counts) -> bool {
        if self.shelf.begin_renewal(counts.aors) {
            location.begin_renewal();
        }
        let buckets = self.shelf.renew(counts.aors, counts.dirty);
        buckets.map(|buckets| location.soil_unrenewed(buckets)).is_some()
    }

    /// Deletes some of what lies elsewhere as well, with `meanwhile` between volumes. That is not flushed: what comes back
    /// goes again.
    fn delete_needless(
        &mut self,
        meanwhile: &mut dyn FnMut(&mut Self) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        while let Some((volume, newer)) = self.shelf.needless() {
            self.guarded(|open| {
                if volume == 0 {
                    open.database.drop_tree(FORMER_RECORDS)?;
                    open.database.remove(FORMER_LIFETIMES)?;
                }
                open.delete(volume, &newer)
            })?;
            meanwhile(self)?;
        }
        Ok(())
    }

    /// Writes what is awaited ([`Location::await_on_disk`]) and flushes it: everything that was awaited before the call is
    /// on disk when it returns.
    ///
    /// # Errors
    /// As [`Snapshot::save`].
    pub fn commit(&mut self, location: &Location) -> Result<Saved, SnapshotError> {
        self.open_again(location)?;
        let awaited = location.take_awaited();
        // Also when nothing is awaited any more: a save that is under way may have written it, and not flushed yet.
        let written = self.write(location, &awaited, &mut |_| Ok(()));
        let written = written.and_then(|written| self.guarded(|open| open.sync()).map(|()| Saved { written }));
        written.inspect_err(|_| {
            location.put_back(&awaited);
            self.close();
        })
    }

    /// Keeps the last known members: opaque bytes, given back at the next start.
    ///
    /// # Errors
    /// When the disk does not take them; the next save tries again.
    pub fn keep_members(&mut self, members: &[u8]) -> Result<(), SnapshotError> {
        self.members = Some(members.to_owned());
        self.keep()
    }

    /// Opens the database again after an error.
    fn open_again(&mut self, location: &Location) -> Result<(), SnapshotError> {
        if self.open.is_some() { Ok(()) } else { self.open_database(location, &mut Loaded::default()) }
    }

    /// Writes what is known of these AoRs, in blocks, with `meanwhile` between them. Returns how many records.
    fn write(
        &mut self,
        location: &Location,
        tags: &[AorTag],
        meanwhile: &mut dyn FnMut(&mut Self) -> Result<(), SnapshotError>,
    ) -> Result<usize, SnapshotError> {
        let mut block = Block::default();
        let mut written = 0;
        let mut rest = tags;
        while !rest.is_empty() {
            let taken = location.take_packed(rest, |packed| block.push(packed));
            rest = &rest[taken..];
            written += block.explain(&location.words);
            if block.is_full() {
                self.put(&mut block)?;
                // Phones go first where all processors are busy: else they would wait until the kernel thinks it is their turn.
                std::thread::yield_now();
                meanwhile(self)?;
            }
        }
        if block.records > 0 {
            self.put(&mut block)?;
        }
        Ok(written)
    }

    /// Puts a block behind the others, and clears it.
    fn put(&mut self, block: &mut Block) -> Result<(), SnapshotError> {
        let (volume, place) = self.shelf.next();
        self.guarded(|open| open.put(volume, place, block.close()))?;
        self.shelf.put(block.records);
        block.clear();
        Ok(())
    }

    /// Flushes, under the next number: in the database first, so that only one that lost a flush is behind the file.
    fn flush(&mut self) -> Result<(), SnapshotError> {
        let saves = self.saves + 1;
        self.guarded(|open| {
            open.set_saves(saves)?;
            open.sync()
        })?;
        self.saves = saves;
        if let Err(error) = self.saves_file.write([saves, 0, 0]) {
            tracing::warn!(%error, "the number of the last flush could not be kept: a cut log would go unnoticed");
        }
        Ok(())
    }

    /// Writes the members, if any are known, and flushes: also the number of the flush, which a new database must have.
    fn keep(&mut self) -> Result<(), SnapshotError> {
        let members = self.members.clone();
        let kept = self.guarded(|open| match members {
            Some(members) => open.database.insert(MEMBERS, members).map(drop),
            None => Ok(()),
        });
        let kept = kept.and_then(|()| self.flush());
        if kept.is_err() {
            self.close();
        }
        kept
    }

    /// Opens the database, past what can be repaired or set aside, and reads it if that was not done yet.
    fn open_database(&mut self, location: &Location, loaded: &mut Loaded) -> Result<(), SnapshotError> {
        let path = self.dir.join(DATABASE);
        let opened = guard(|| {
            let mut open = open_past_damage(&path)?;
            if !self.loaded {
                loaded.members = open.database.get(MEMBERS)?.map(|bytes| bytes.to_vec());
                self.shelf = load::load(&open, location, loaded)?;
                if loaded.aors > 0 {
                    // Sled's memory of what was read goes with it.
                    drop(open);
                    open = open_past_damage(&path)?;
                }
            }
            // Only now: what is left of it is as good as ever.
            match open.saves()? {
                saves if saves < self.saves => {
                    Err(Trouble::Damaged(format!("it has flush {saves}, and {} was made", self.saves)))
                }
                _ => Ok(open),
            }
        });
        let open = match opened {
            Ok(open) => open,
            Err(Trouble::Damaged(why)) => {
                loaded.set_aside = Some(set_aside(&self.dir, DATABASE, &why)?);
                self.shelf = Shelf::default();
                location.soil_all();
                open_past_damage(&path).map_err(|trouble| trouble.at(&path))?
            }
            Err(Trouble::Full(why)) if !self.loaded => {
                tracing::error!(path = %path.display(), why, "disk full: nothing loaded, nothing saved until there is space");
                loaded.full = true;
                return Ok(());
            }
            Err(trouble) => return Err(trouble.at(&path)),
        };
        self.saves = self.saves.max(guard(|| Ok(open.saves()?)).map_err(|trouble| trouble.at(&path))?);
        self.open = Some(open);
        let emptied = loaded.set_aside.is_some();
        let first = !std::mem::replace(&mut self.loaded, true);
        if first && self.members.is_none() {
            self.members.clone_from(&loaded.members);
        }
        // Opened again, what is known here may be newer than what is in there.
        if emptied || !first { self.keep() } else { Ok(()) }
    }

    /// Runs one use of the database; an error or a panic of sled becomes our error.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Open) -> sled::Result<T>) -> Result<T, SnapshotError> {
        let done = match &mut self.open {
            Some(open) => guard(|| work(open).map_err(Trouble::from)),
            None => Err(Trouble::Other("not open".into())),
        };
        done.map_err(|trouble| trouble.at(&self.dir.join(DATABASE)))
    }

    fn close(&mut self) {
        let open = self.open.take();
        // Dropping flushes, which may fail once more; it was said already.
        _ = catch_unwind(AssertUnwindSafe(|| drop(open)));
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.close();
    }
}
