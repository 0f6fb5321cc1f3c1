//! The time ceiling: a small file that says, flushed ahead of use, up to which cluster time this node may have drawn
//! stamps, so that after a restart it draws none twice and none below. Reads no clock: both times are arguments.
//!
//! Not in the database: it must not wait behind a long save, must survive a damaged log, and must be writable on a full
//! disk, which overwriting two fixed slots in turn is. If even that fails the file is removed, which needs no space either:
//! a ceiling that may have been passed is worse than none, for without one a node waits for a peer's clock.

use std::fs::{File, OpenOptions};
use std::hash::Hasher;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use siphasher::sip::SipHasher13;

/// How far the ceiling is ahead of cluster time when it is written, microseconds. A restart sooner than this moves
/// cluster time forward by at most this; so it is short against any lifetime, and long against one flush.
pub const CEILING_LEAD_US: u64 = 3_000_000;

/// How often [`Ceiling::renew`] is to be called, microseconds: two calls may fail or wait before the lead is used up.
pub const CEILING_RENEW_US: u64 = 1_000_000;

const MAGIC: &[u8; 8] = b"AORTACL1";
/// Turns the check into ours; not a secret.
const CHECK_KEY: &[u8; 16] = b"aorta ceiling/1\0";
/// Slots are pages apart, so that a torn write damages one.
const SLOT_OFFSETS: [u64; 2] = [0, 4096];
/// Magic, turn, cluster time, wall time, ceiling, check.
const SLOT_BYTES: usize = 6 * 8;

/// What the disk knows of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptClock {
    /// Cluster time when this was written, microseconds.
    pub cluster_us: u64,
    /// The wall clock at the same moment, microseconds since 1970.
    pub wall_us: u64,
    /// No stamp above this was drawn, microseconds of cluster time.
    pub ceiling_us: u64,
}

impl KeptClock {
    /// What cluster time would be now, had it run on while this node was down: persisted time plus wall clock passed
    /// since (never negative). Whoever uses it also stays at or above every [`KeptClock::ceiling_us`].
    #[must_use]
    pub fn resumed_us(&self, wall_us: u64) -> u64 {
        self.cluster_us.saturating_add(wall_us.saturating_sub(self.wall_us))
    }
}

/// The file. Owned by the one thread that renews it.
#[derive(Debug)]
pub struct Ceiling {
    path: PathBuf,
    file: Option<File>,
    /// Counts writes; the greater one is the later slot.
    turn: u64,
    ceiling_us: u64,
}

impl Ceiling {
    /// Reads what is there; creates nothing until the first renewal.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<KeptClock>)> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let slots = SLOT_OFFSETS.iter().filter_map(|&offset| read_slot(file.as_ref()?, offset));
        let latest = slots.max_by_key(|(turn, _)| *turn);
        let (turn, kept) = latest.map_or((0, None), |(turn, kept)| (turn, Some(kept)));
        let ceiling_us = kept.map_or(0, |kept| kept.ceiling_us);
        Ok((Self { path: path.to_owned(), file, turn, ceiling_us }, kept))
    }

    /// Up to which cluster time the disk allows stamps, microseconds; 0 while it has no ceiling.
    #[must_use]
    pub fn ceiling_us(&self) -> u64 {
        self.ceiling_us
    }

    /// Writes and flushes a ceiling [`CEILING_LEAD_US`] ahead of `cluster_us`, never below the last. When it returns, the
    /// disk has it. To be called before the first stamp is drawn, when cluster time jumps past [`Ceiling::ceiling_us`],
    /// and every [`CEILING_RENEW_US`].
    ///
    /// # Errors
    /// When the disk does not take it. The file is then gone; the node may go on, and calls again.
    pub fn renew(&mut self, cluster_us: u64, wall_us: u64) -> io::Result<()> {
        let ceiling_us = cluster_us.saturating_add(CEILING_LEAD_US).max(self.ceiling_us);
        let written = self.write(KeptClock { cluster_us, wall_us, ceiling_us });
        match written {
            Ok(()) => self.ceiling_us = ceiling_us,
            Err(_) => self.withdraw(),
        }
        written
    }

    fn write(&mut self, kept: KeptClock) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(create(&self.path)?),
        };
        self.turn += 1;
        let slot = usize::from(!self.turn.is_multiple_of(2));
        file.write_all_at(&slot_bytes(self.turn, kept), SLOT_OFFSETS[slot])?;
        file.sync_data()
    }

    fn withdraw(&mut self) {
        self.file = None;
        self.ceiling_us = 0;
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(path = %self.path.display(), %error, "a stale time ceiling could not be removed");
        }
    }
}

/// Makes the file with both slots in place, and its name durable.
fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    for offset in SLOT_OFFSETS {
        file.write_all_at(&[0; SLOT_BYTES], offset)?;
    }
    file.sync_all()?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(file)
}

fn slot_bytes(turn: u64, kept: KeptClock) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    let words = [turn, kept.cluster_us, kept.wall_us, kept.ceiling_us].map(u64::to_le_bytes);
    let words = [*MAGIC].into_iter().chain(words);
    bytes.chunks_exact_mut(8).zip(words).for_each(|(place, word)| place.copy_from_slice(&word));
    let sum = check(&bytes[..SLOT_BYTES - 8]).to_le_bytes();
    bytes[SLOT_BYTES - 8..].copy_from_slice(&sum);
    bytes
}

fn read_slot(file: &File, offset: u64) -> Option<(u64, KeptClock)> {
    let mut bytes = [0; SLOT_BYTES];
    file.read_exact_at(&mut bytes, offset).ok()?;
    let word = |at: usize| bytes.get(at * 8..at * 8 + 8)?.try_into().ok().map(u64::from_le_bytes);
    if &bytes[..8] != MAGIC || word(5)? != check(&bytes[..SLOT_BYTES - 8]) {
        return None;
    }
    Some((word(1)?, KeptClock { cluster_us: word(2)?, wall_us: word(3)?, ceiling_us: word(4)? }))
}

fn check(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(CHECK_KEY);
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    #[test]
    fn the_latest_renewal_is_what_a_restart_finds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock");
        let (mut ceiling, kept) = Ceiling::open(&path).unwrap();
        assert_eq!((ceiling.ceiling_us(), kept), (0, None));
        for second in 1..=5 {
            ceiling.renew(second * SECOND_US, 100 * second).unwrap();
            let (again, kept) = Ceiling::open(&path).unwrap();
            let ceiling_us = second * SECOND_US + CEILING_LEAD_US;
            assert_eq!(kept, Some(KeptClock { cluster_us: second * SECOND_US, wall_us: 100 * second, ceiling_us }));
            assert_eq!(again.ceiling_us(), ceiling_us);
        }
    }

    #[test]
    fn a_ceiling_never_falls() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock");
        Ceiling::open(&path).unwrap().0.renew(100 * SECOND_US, 0).unwrap();
        let (mut again, _) = Ceiling::open(&path).unwrap();
        again.renew(50 * SECOND_US, 0).unwrap();
        assert_eq!(Ceiling::open(&path).unwrap().1.unwrap().ceiling_us, 100 * SECOND_US + CEILING_LEAD_US);
    }

    #[test]
    fn a_torn_slot_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock");
        let (mut ceiling, _) = Ceiling::open(&path).unwrap();
        ceiling.renew(SECOND_US, 1).unwrap();
        ceiling.renew(2 * SECOND_US, 2).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0xff; 20], SLOT_OFFSETS[0] + 10).unwrap();
        assert_eq!(Ceiling::open(&path).unwrap().1.unwrap().cluster_us, SECOND_US);
        file.set_len(100).unwrap();
        assert_eq!(Ceiling::open(&path).unwrap().1, None);
    }

    #[test]
    fn a_disk_that_refuses_leaves_no_ceiling_that_may_be_passed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock");
        let (mut ceiling, _) = Ceiling::open(&path).unwrap();
        ceiling.renew(SECOND_US, 1).unwrap();
        // A handle that cannot write stands for a disk that will not.
        ceiling.file = Some(File::open(&path).unwrap());
        assert!(ceiling.renew(2 * SECOND_US, 2).is_err());
        assert_eq!(ceiling.ceiling_us(), 0);
        assert_eq!(Ceiling::open(&path).unwrap().1, None);
        ceiling.renew(3 * SECOND_US, 3).unwrap();
        assert_eq!(Ceiling::open(&path).unwrap().1.unwrap().cluster_us, 3 * SECOND_US);
    }

    #[test]
    fn time_runs_on_by_the_wall_clock_but_never_back() {
        let kept = KeptClock { cluster_us: 1000, wall_us: 500, ceiling_us: 1300 };
        assert_eq!(kept.resumed_us(700), 1200);
        assert_eq!(kept.resumed_us(100), 1000);
    }
}
