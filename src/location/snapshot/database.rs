//! The database itself: opened past what can be repaired, its errors and panics told apart, its blocks by volume. Judges no
//! record and knows not what is to be written.
//!
//! A volume is a tree of [`PLACES`] places, which are made, empty, before the first block is put: a page of sled then never
//! grows by a key, is so never split, and takes no more blocks than it links. Each block is so written once. (Appended to one
//! tree, pages were split and consolidated all the time: each block was written three times.) A volume goes as a whole,
//! which rewrites nothing either.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use super::directory::{SnapshotError, is_full};

/// Blocks in a volume. So many make a volume dear enough to be few, and cheap enough to go in one piece: at most 3 MiB.
pub(super) const PLACES: u64 = 256;

/// Memory for sled's cache, bytes. Snapshots are written once and read at start: a larger one serves nobody.
const CACHE_BYTES: u64 = 1 << 20;

/// The file in which sled keeps everything.
const SLED_LOG: &str = "db";

/// What sled says when a thread of an earlier use still holds its lock.
const SLED_LOCKED: &str = "could not acquire lock";

/// Such threads end within milliseconds: after this many waits something else is wrong.
const LOCK_TRIES: u32 = 200;
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// What the names of volumes begin with; their number follows.
const VOLUME: &str = "blocks-";
/// Where an earlier aorta kept all blocks. As a volume it has number 0.
pub(super) const FORMER_BLOCKS: &str = "blocks";
/// Where one before that kept each record under its AoR.
pub(super) const FORMER_RECORDS: &str = "records";
const SAVES: &str = "saves";

/// An open database.
pub(super) struct Open {
    pub(super) database: sled::Db,
    /// The volume that was used last.
    volume: Option<(u64, sled::Tree)>,
    /// Sled's log, to flush it for good.
    log: File,
}

/// Why an attempt to open or read the database ended.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It will never be readable.
    Damaged(String),
    /// Nothing is wrong with it, but there is no space.
    Full(String),
    /// Anything else: rights, a disk that went away.
    Other(String),
}

impl Open {
    /// When it returns, all that was written is on disk. Sled's own flush only hands it over (`sync_file_range`): neither
    /// the length of the file nor what the disk keeps in a volatile cache would outlive a loss of power.
    pub(super) fn sync(&self) -> sled::Result<()> {
        self.database.flush()?;
        Ok(self.log.sync_data()?)
    }

    /// The number of the last flush that is in it; 0 when there was none.
    pub(super) fn saves(&self) -> sled::Result<u64> {
        let bytes = self.database.get(SAVES)?;
        Ok(bytes.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u64::from_le_bytes))
    }

    /// Writes the number of the next flush.
    pub(super) fn set_saves(&self, saves: u64) -> sled::Result<()> {
        self.database.insert(SAVES, &saves.to_le_bytes()).map(drop)
    }

    /// The numbers of all volumes, rising.
    pub(super) fn volumes(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.database.tree_names().iter().filter_map(|name| volume_number(name)).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Every block of a volume, with its place; places without one are left out.
    pub(super) fn blocks(&self, volume: u64) -> sled::Result<impl Iterator<Item = sled::Result<(u64, sled::IVec)>>> {
        let blocks = self.database.open_tree(volume_name(volume))?.iter();
        let blocks = blocks.map(|item| item.map(|(key, block)| (place_of(&key), block)));
        Ok(blocks.filter(|item| item.as_ref().map_or(true, |(_, block)| !block.is_empty())))
    }

    /// Puts a block into a place of a volume, which is made if there is none.
    pub(super) fn put(&mut self, volume: u64, place: u64, block: &[u8]) -> sled::Result<()> {
        if self.volume.as_ref().is_none_or(|(number, _)| *number != volume) {
            let tree = self.database.open_tree(volume_name(volume))?;
            if tree.is_empty() {
                (0..PLACES).try_for_each(|place| tree.insert(place.to_be_bytes(), &[]).map(drop))?;
            }
            self.volume = Some((volume, tree));
        }
        let Some((_, tree)) = &self.volume else { return Ok(()) };
        tree.insert(place.to_be_bytes(), block).map(drop)
    }

    /// Deletes a volume, but for the blocks that are to stay: whole if there are none, without reading what it holds.
    pub(super) fn delete(&mut self, volume: u64, stay: &BTreeSet<u64>) -> sled::Result<()> {
        self.volume = None;
        if stay.is_empty() {
            return self.database.drop_tree(volume_name(volume)).map(drop);
        }
        let tree = self.database.open_tree(volume_name(volume))?;
        for key in tree.iter().keys() {
            let key = key?;
            if !stay.contains(&place_of(&key)) {
                tree.remove(key)?;
            }
        }
        Ok(())
    }

    /// Whether an aorta of long ago left its records here.
    pub(super) fn has_former_records(&self) -> bool {
        self.database.tree_names().iter().any(|name| name == FORMER_RECORDS.as_bytes())
    }
}

fn volume_name(number: u64) -> String {
    if number == 0 { FORMER_BLOCKS.to_owned() } else { format!("{VOLUME}{number}") }
}

fn volume_number(name: &[u8]) -> Option<u64> {
    let name = std::str::from_utf8(name).ok()?;
    if name == FORMER_BLOCKS { Some(0) } else { name.strip_prefix(VOLUME)?.parse().ok() }
}

fn place_of(key: &[u8]) -> u64 {
    key.try_into().map_or(0, u64::from_be_bytes)
}

impl Trouble {
    pub(super) fn at(self, path: &Path) -> SnapshotError {
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
pub(super) fn guard<T>(work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(Trouble::Damaged(text.unwrap_or("sled panicked").to_owned()))
    })
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
        let log = File::open(path.join(SLED_LOG)).map_err(sled::Error::from)?;
        for dir in [Some(path), path.parent()].into_iter().flatten() {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(sled::Error::from)?;
        }
        Ok(Open { database, volume: None, log })
    })
}

/// Opens; on damage deletes sled's `snap.*`, which it makes anew from the log, and tries once more.
pub(super) fn open_past_damage(path: &Path) -> Result<Open, Trouble> {
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
