//! The location table on disk: a restart cache, for the peers hold everything. The only file that names sled.
//!
//! Judges nothing and merges nothing by itself: what it reads goes through [`Location::restore`]. Reads no clock. What is
//! damaged is set aside, loudly, and the node starts from its peers; what cannot be written stays dirty and is tried again.
//!
//! In the data directory: `node-id` (whose it is; locked while in use), `clock` ([`Ceiling`]), `location.sled`, and `saves`,
//! the number of the last flush, which is in the database too.
//!
//! Measured faults of sled 0.34.7 that this works around: a cut `snap.*`
//! fails `open` until it is deleted (nothing is lost by that); a damaged log panics, or is silently cut at the damage, which
//! only the number of the last flush tells; after one failed write every later one fails until it is opened again; its
//! flush does not reach the disk itself.

mod blocks;
mod ceiling;
mod directory;
mod slots;
#[cfg(test)]
mod tests;
pub mod value;

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aorta_proto::{Aor, NodeId, Record};
use serde::{Deserialize, Serialize};

use super::Location;
use blocks::{Block, Pushed, Reader, Shelf};
use directory::{at, claim, is_full, set_aside};
use slots::Slots;

pub use ceiling::{CEILING_LEAD_US, CEILING_RENEW_US, Ceiling, KeptClock};
pub use directory::SnapshotError;

/// Records between two flushes of a long save: what is put back, should a flush fail.
const FLUSH_RECORDS: usize = 8192;

/// Memory for sled's cache, bytes. Snapshots are written once and read at start: a larger one serves nobody.
const CACHE_BYTES: u64 = 32 << 20;

/// The file in which sled keeps everything.
const SLED_LOG: &str = "db";

/// What sled says when a thread of an earlier use still holds its lock.
const SLED_LOCKED: &str = "could not acquire lock";

/// Such threads end within milliseconds: after this many waits something else is wrong.
const LOCK_TRIES: u32 = 200;
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// The largest list of members or lifetimes that is read, bytes.
const KEPT_BYTES_MAX: usize = 1 << 20;

const CLOCK_FILE: &str = "clock";
const SAVES_FILE: &str = "saves";
const DATABASE: &str = "location.sled";
const BLOCKS: &str = "blocks";
/// Where an earlier aorta kept each record under its AoR.
const FORMER_RECORDS: &str = "records";
const MEMBERS: &str = "members";
const EXPIRES: &str = "expires-max";
const SAVES: &str = "saves";

/// The largest lifetime that a member granted, and when that was last heard: the forgetting horizon needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExpiresSeen {
    /// `expires_max_s` of that member, seconds.
    pub expires_max_s: u32,
    /// When it was last announced, cluster time in microseconds.
    pub seen_us: u64,
}

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
    /// The lifetimes, as [`Snapshot::keep_expires`] was given them.
    pub expires: Vec<ExpiresSeen>,
}

/// What one save did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Saved {
    /// AoRs written.
    pub written: usize,
    /// AoRs deleted.
    pub deleted: usize,
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
    expires: Vec<ExpiresSeen>,
}

struct Open {
    database: sled::Db,
    blocks: sled::Tree,
    /// Sled's log, to flush it for good.
    log: File,
}

/// Why an attempt to open or read the database ended.
enum Trouble {
    /// It will never be readable.
    Damaged(String),
    /// Nothing is wrong with it, but there is no space.
    Full(String),
    /// Anything else: rights, a disk that went away.
    Other(String),
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
            expires: Vec::new(),
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
        let outworn = self.shelf.is_outworn(location.counts().aors);
        if outworn {
            location.soil_all();
        }
        let (first, lay) = (self.shelf.next, self.shelf.records);
        let dirty = location.take_dirty();
        let mut saved = Saved::default();
        for unflushed in (0..dirty.len()).step_by(FLUSH_RECORDS) {
            let until = dirty.len().min(unflushed + FLUSH_RECORDS);
            let written = self.write(location, &dirty[unflushed..until], &mut saved, &mut meanwhile);
            if let Err(error) = written.and_then(|()| self.flush()) {
                location.put_back(&dirty[unflushed..]);
                if outworn {
                    self.shelf.put_off();
                }
                self.close();
                return Err(error);
            }
        }
        if outworn && let Err(error) = self.drop_blocks_before(first, lay) {
            self.close();
            return Err(error);
        }
        Ok(saved)
    }

    /// Everything is in block `first` and later ones, before which `lay` records lay in blocks.
    fn drop_blocks_before(&mut self, first: u64, lay: usize) -> Result<(), SnapshotError> {
        let blocks = self.guarded(|open| open.blocks.iter().keys().map(|key| key.map(|key| number(&key))).collect())?;
        let blocks: Vec<u64> = blocks;
        let records = self.shelf.records.saturating_sub(lay);
        let old: Vec<u64> = self.shelf.renewed(first, records, blocks.into_iter()).collect();
        self.guarded(|open| {
            old.iter().try_for_each(|block| open.blocks.remove(block.to_be_bytes()).map(drop))?;
            open.database.drop_tree(FORMER_RECORDS).map(drop)
        })?;
        self.flush()
    }

    /// Writes what is awaited ([`Location::await_on_disk`]) and flushes it: everything that was awaited before the call is
    /// on disk when it returns.
    ///
    /// # Errors
    /// As [`Snapshot::save`].
    pub fn commit(&mut self, location: &Location) -> Result<Saved, SnapshotError> {
        self.open_again(location)?;
        let awaited = location.take_awaited();
        let mut saved = Saved::default();
        // Also when nothing is awaited any more: a save that is under way may have written it, and not flushed yet.
        let written = self.write(location, &awaited, &mut saved, &mut |_| Ok(()));
        if let Err(error) = written.and_then(|()| self.guarded(Open::sync)) {
            location.put_back(&awaited);
            self.close();
            return Err(error);
        }
        Ok(saved)
    }

    /// Keeps the last known members: opaque bytes, given back at the next start.
    ///
    /// # Errors
    /// When the disk does not take them; the next save tries again.
    pub fn keep_members(&mut self, members: &[u8]) -> Result<(), SnapshotError> {
        self.members = Some(members.to_owned());
        self.keep()
    }

    /// Keeps the lifetimes that members announced within the last forgetting horizon.
    ///
    /// # Errors
    /// When the disk does not take them; the next save tries again.
    pub fn keep_expires(&mut self, expires: &[ExpiresSeen]) -> Result<(), SnapshotError> {
        self.expires = expires.to_owned();
        self.keep()
    }

    /// Opens the database again after an error.
    fn open_again(&mut self, location: &Location) -> Result<(), SnapshotError> {
        if self.open.is_some() { Ok(()) } else { self.open_database(location, &mut Loaded::default()) }
    }

    /// Writes what is known of these AoRs, in blocks, with `meanwhile` between them.
    fn write(
        &mut self,
        location: &Location,
        aors: &[Aor],
        saved: &mut Saved,
        meanwhile: &mut dyn FnMut(&mut Self) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        let mut block = Block::default();
        for aor in aors {
            // One that is in there twice was taken the first time.
            let Some(pushed) = location.take_with(aor, |record| block.push(aor, record)) else { continue };
            match pushed {
                Ok(Pushed::Removal) => saved.deleted += 1,
                Ok(Pushed::Record) => saved.written += 1,
                // No record that a REGISTER can make gets here; peers have it.
                Err(error) => tracing::error!(%error, "a record could not be encoded for the snapshot"),
            }
            if block.is_full() {
                self.put(&block)?;
                block.clear();
                meanwhile(self)?;
            }
        }
        if block.records > 0 { self.put(&block) } else { Ok(()) }
    }

    /// Puts a block behind the others.
    fn put(&mut self, block: &Block) -> Result<(), SnapshotError> {
        self.guarded(|open| open.blocks.insert(self.shelf.next.to_be_bytes(), block.as_bytes()).map(drop))?;
        self.shelf.next += 1;
        self.shelf.records += block.records;
        Ok(())
    }

    /// Flushes, under the next number: in the database first, so that only one that lost a flush is behind the file.
    fn flush(&mut self) -> Result<(), SnapshotError> {
        let saves = self.saves + 1;
        self.guarded(|open| {
            open.database.insert(SAVES, &saves.to_le_bytes())?;
            open.sync()
        })?;
        self.saves = saves;
        if let Err(error) = self.saves_file.write([saves, 0, 0]) {
            tracing::warn!(%error, "the number of the last flush could not be kept: a cut log would go unnoticed");
        }
        Ok(())
    }

    /// Writes and flushes members and lifetimes.
    fn keep(&mut self) -> Result<(), SnapshotError> {
        let members = self.members.clone();
        let expires = bincode::serde::encode_to_vec(&self.expires, bincode::config::standard()).unwrap_or_default();
        let kept = self.guarded(|open| {
            if let Some(members) = members {
                open.database.insert(MEMBERS, members)?;
            }
            open.database.insert(EXPIRES, expires).map(|_| ())
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
            let open = open_past_damage(&path)?;
            if !self.loaded {
                self.shelf = load(&open, location, loaded)?;
            }
            self.shelf.next = open.blocks.last()?.map_or(0, |(key, _)| number(&key) + 1);
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
        if first && self.expires.is_empty() {
            self.expires.clone_from(&loaded.expires);
        }
        // Opened again, what is known here may be newer than what is in there.
        if emptied || !first { self.keep() } else { Ok(()) }
    }

    /// Runs one use of the database; an error or a panic of sled becomes our error.
    fn guarded<T>(&self, work: impl FnOnce(&Open) -> sled::Result<T>) -> Result<T, SnapshotError> {
        let path = self.dir.join(DATABASE);
        let Some(open) = &self.open else { return Err(Trouble::Other("not open".into()).at(&path)) };
        guard(|| work(open).map_err(Trouble::from)).map_err(|trouble| trouble.at(&path))
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

impl Open {
    /// When it returns, all that was written is on disk. Sled's own flush only hands it over (`sync_file_range`): neither
    /// the length of the file nor what the disk keeps in a volatile cache would outlive a loss of power.
    fn sync(&self) -> sled::Result<()> {
        self.database.flush()?;
        Ok(self.log.sync_data()?)
    }

    /// The number of the last flush that is in it; 0 when there was none.
    fn saves(&self) -> sled::Result<u64> {
        let bytes = self.database.get(SAVES)?;
        Ok(bytes.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u64::from_le_bytes))
    }
}

impl Trouble {
    fn at(self, path: &Path) -> SnapshotError {
        let (Self::Damaged(why) | Self::Full(why) | Self::Other(why)) = self;
        SnapshotError::Database { path: path.to_owned(), why }
    }
}

impl From<sled::Error> for Trouble {
    fn from(error: sled::Error) -> Self {
        use io::ErrorKind::{InvalidData, UnexpectedEof};
        let why = error.to_string();
        match error {
            sled::Error::Corruption { .. } | sled::Error::CollectionNotFound(_) | sled::Error::ReportableBug(_) => {
                Self::Damaged(why)
            }
            sled::Error::Io(error) => match error.kind() {
                kind if is_full(kind) => Self::Full(why),
                InvalidData | UnexpectedEof => Self::Damaged(why),
                _ => Self::Other(why),
            },
            _ => Self::Other(why),
        }
    }
}

/// Takes a panic, which is what sled does on a damaged log, as damage.
fn guard<T>(work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(Trouble::Damaged(text.unwrap_or("sled panicked").to_owned()))
    })
}

/// The number of a block.
fn number(key: &[u8]) -> u64 {
    key.try_into().map_or(0, u64::from_be_bytes)
}

/// Opens. Threads of a database that this process just dropped may hold sled's lock a moment longer; another process does
/// not, for the lock on `node-id` is ours.
fn open_at(path: &Path) -> Result<Open, Trouble> {
    let mut tries = 0;
    loop {
        let opened = try_open_at(path);
        match &opened {
            Err(Trouble::Other(why)) if why.contains(SLED_LOCKED) && tries < LOCK_TRIES => tries += 1,
            _ => return opened,
        }
        std::thread::sleep(LOCK_WAIT);
    }
}

fn try_open_at(path: &Path) -> Result<Open, Trouble> {
    guard(|| {
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let database = config.open()?;
        let blocks = database.open_tree(BLOCKS)?;
        let log = File::open(path.join(SLED_LOG)).map_err(sled::Error::from)?;
        for dir in [Some(path), path.parent()].into_iter().flatten() {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(sled::Error::from)?;
        }
        Ok(Open { database, blocks, log })
    })
}

/// Opens; on damage deletes sled's `snap.*`, which it makes anew from the log, and tries once more.
fn open_past_damage(path: &Path) -> Result<Open, Trouble> {
    let first = open_at(path);
    let Err(Trouble::Damaged(why)) = &first else { return first };
    let files = std::fs::read_dir(path).into_iter().flatten().flatten();
    let snaps = files.filter(|file| file.file_name().as_encoded_bytes().starts_with(b"snap."));
    let deleted = snaps.filter(|file| std::fs::remove_file(file.path()).is_ok()).count();
    if deleted == 0 {
        return first;
    }
    tracing::warn!(path = %path.display(), why, "the database's index was damaged: made anew from its log");
    open_at(path)
}

/// Reads everything into the table.
fn load(open: &Open, location: &Location, loaded: &mut Loaded) -> Result<Shelf, Trouble> {
    guard(|| {
        loaded.members = open.database.get(MEMBERS)?.map(|bytes| bytes.to_vec());
        let codec = bincode::config::standard().with_limit::<KEPT_BYTES_MAX>();
        let expires = open.database.get(EXPIRES)?;
        let expires = expires.and_then(|bytes| bincode::serde::decode_from_slice(&bytes, codec).ok());
        loaded.expires = expires.map(|(expires, _): (Vec<ExpiresSeen>, usize)| expires).unwrap_or_default();
        let (mut shelf, mut reader) = (Shelf::default(), Reader::default());
        let mut restore = |aor: &Aor, record: Record| {
            loaded.aors += 1;
            loaded.latest_us = loaded.latest_us.max(record.latest().map_or(0, |stamp| stamp.time_us));
            location.restore(aor, record);
        };
        for item in open.blocks.iter().rev() {
            let (key, bytes) = item?;
            reader.read(&mut shelf, number(&key), &bytes, &mut restore);
        }
        if open.database.tree_names().iter().any(|name| name == FORMER_RECORDS.as_bytes()) {
            for item in &open.database.open_tree(FORMER_RECORDS)? {
                let (key, bytes) = item?;
                reader.read_former(&mut shelf, &key, &bytes, &mut restore);
            }
        }
        (loaded.damaged, loaded.newer) = (reader.damaged, reader.newer);
        Ok(shelf)
    })
}
