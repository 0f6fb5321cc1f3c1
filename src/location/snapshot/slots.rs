//! Three numbers in a file of their own that are overwritten often and must be found whole after a crash, on a full disk
//! too: two slots of fixed place, written and flushed in turn, each with a check. Knows not what the numbers mean.
//!
//! When a write fails the file is removed, which needs no space either: numbers that may be stale are worse than none.

use std::fs::{File, OpenOptions};
use std::hash::Hasher;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use siphasher::sip::SipHasher13;

const MAGIC: &[u8; 8] = b"AORTASL1";
/// Turns the check into ours; not a secret.
const CHECK_KEY: &[u8; 16] = b"aorta slots/1\0\0\0";
/// Slots are pages apart, so that a torn write damages one.
const OFFSETS: [u64; 2] = [0, 4096];
/// Magic, turn, three numbers, check.
const BYTES: usize = 6 * 8;

/// The file.
#[derive(Debug)]
pub(super) struct Slots {
    path: PathBuf,
    file: Option<File>,
    /// Counts writes; the greater one is the later slot.
    turn: u64,
}

impl Slots {
    /// Reads what is there; creates nothing until the first write.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<[u64; 3]>)> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let slots = OFFSETS.iter().filter_map(|&offset| read_slot(file.as_ref()?, offset));
        let latest = slots.max_by_key(|(turn, _)| *turn);
        let (turn, numbers) = latest.map_or((0, None), |(turn, numbers)| (turn, Some(numbers)));
        Ok((Self { path: path.to_owned(), file, turn }, numbers))
    }

    /// Writes and flushes; when it returns, the disk has them.
    pub(super) fn write(&mut self, numbers: [u64; 3]) -> io::Result<()> {
        let written = self.try_write(numbers);
        if written.is_err() {
            self.withdraw();
        }
        written
    }

    fn try_write(&mut self, numbers: [u64; 3]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(create(&self.path)?),
        };
        self.turn += 1;
        let slot = usize::from(!self.turn.is_multiple_of(2));
        file.write_all_at(&slot_bytes(self.turn, numbers), OFFSETS[slot])?;
        file.sync_data()
    }

    fn withdraw(&mut self) {
        self.file = None;
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(path = %self.path.display(), %error, "a stale file could not be removed");
        }
    }

    /// Makes the next write fail: a handle that cannot write stands for a disk that will not.
    #[cfg(test)]
    pub(super) fn refuse(&mut self) {
        self.file = Some(File::open(&self.path).expect("opens"));
    }
}

/// Makes the file with both slots in place, and its name durable.
fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    for offset in OFFSETS {
        file.write_all_at(&[0; BYTES], offset)?;
    }
    file.sync_all()?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(file)
}

fn slot_bytes(turn: u64, [one, two, three]: [u64; 3]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    let words = [turn, one, two, three].map(u64::to_le_bytes);
    let words = [*MAGIC].into_iter().chain(words);
    bytes.chunks_exact_mut(8).zip(words).for_each(|(place, word)| place.copy_from_slice(&word));
    let sum = check(&bytes[..BYTES - 8]).to_le_bytes();
    bytes[BYTES - 8..].copy_from_slice(&sum);
    bytes
}

fn read_slot(file: &File, offset: u64) -> Option<(u64, [u64; 3])> {
    let mut bytes = [0; BYTES];
    file.read_exact_at(&mut bytes, offset).ok()?;
    let word = |at: usize| bytes.get(at * 8..at * 8 + 8)?.try_into().ok().map(u64::from_le_bytes);
    let whole = &bytes[..8] == MAGIC && word(5)? == check(&bytes[..BYTES - 8]);
    whole.then_some((word(1)?, [word(2)?, word(3)?, word(4)?]))
}

fn check(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(CHECK_KEY);
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_slot_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("numbers");
        let (mut slots, none) = Slots::open(&path).unwrap();
        assert_eq!(none, None);
        slots.write([1, 2, 3]).unwrap();
        slots.write([4, 5, 6]).unwrap();
        assert_eq!(Slots::open(&path).unwrap().1, Some([4, 5, 6]));
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0xff; 20], OFFSETS[0] + 10).unwrap();
        assert_eq!(Slots::open(&path).unwrap().1, Some([1, 2, 3]));
        file.set_len(100).unwrap();
        assert_eq!(Slots::open(&path).unwrap().1, None);
    }
}
