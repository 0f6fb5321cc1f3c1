//! A node's disk: full, damaged, replaced. It knows the names of the database's files and nothing of what is in them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::mount::{MsFlags, mount};

/// The database, in the data directory.
const DATABASE: &str = "location.sled";

/// Its log, in that.
const LOG: &str = "db";

/// What its snapshots' names begin with.
const SNAPSHOT: &str = "snap.";

/// Bytes written at a time to fill a disk; then less and less.
const CHUNK: usize = 256 * 1024;

/// What may happen to a disk while its node is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Each file `snap.*` of the database is cut to half its length. sled writes one when it opens a database that holds
    /// something: from a node's second start on.
    CutSnapshot,
    /// So many bytes of the database's log are turned round, at places that follow from the seed.
    FlipBytes {
        /// How many.
        count: u32,
        /// Decides where.
        seed: u64,
    },
    /// The second half of the log is gone, as after a crash of the file system.
    CutLog,
}

/// A data directory as it was once. It goes when it is dropped.
#[derive(Debug)]
pub struct DiskCopy {
    folder: PathBuf,
}

impl Drop for DiskCopy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl DiskCopy {
    /// Copies `data` to `folder`, which must not be there.
    pub(super) fn take(data: &Path, folder: PathBuf) -> anyhow::Result<Self> {
        copy_all(data, &folder)?;
        Ok(Self { folder })
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Puts what the copy holds, or nothing, in place of what `data` holds.
pub(super) fn replace(data: &Path, copy: Option<&Path>) -> anyhow::Result<()> {
    if data.exists() {
        fs::remove_dir_all(data).with_context(|| format!("removing {}", data.display()))?;
    }
    copy.map_or(Ok(()), |copy| copy_all(copy, data))
}

/// Gives the calling thread's mount namespace a disk of so many bytes at `folder`.
pub(super) fn mount_limited(folder: &Path, bytes: u64) -> anyhow::Result<()> {
    let options = format!("size={bytes},mode=0755");
    mount(Some("lab"), folder, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("mounting a disk of {bytes} bytes at {}", folder.display()))
}

/// Writes to `ballast` until not a byte fits.
pub(super) fn fill(ballast: &Path) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(ballast)?;
    let zeros = vec![0; CHUNK];
    let mut chunk = CHUNK;
    while chunk > 0 {
        match file.write(&zeros[..chunk]) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => chunk /= 2,
            Err(error) => return Err(error).context("filling a disk"),
        }
    }
    Ok(())
}

/// Takes the ballast away.
pub(super) fn free(ballast: &Path) -> anyhow::Result<()> {
    match fs::remove_file(ballast) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("freeing a disk"),
        _ => Ok(()),
    }
}

/// Damages what is in `data`; what was done.
pub(super) fn damage(data: &Path, damage: Damage) -> anyhow::Result<String> {
    let database = data.join(DATABASE);
    match damage {
        Damage::CutSnapshot => cut_snapshots(&database),
        Damage::FlipBytes { count, seed } => flip(&database.join(LOG), count, seed),
        Damage::CutLog => cut(&database.join(LOG)),
    }
}

fn cut_snapshots(database: &Path) -> anyhow::Result<String> {
    let entries = fs::read_dir(database).with_context(|| format!("reading {}", database.display()))?;
    let files = entries.flatten().map(|entry| entry.path());
    let is_snapshot =
        |file: &PathBuf| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SNAPSHOT));
    let done: Vec<String> = files.filter(is_snapshot).map(|file| cut(&file)).collect::<Result<_, _>>()?;
    anyhow::ensure!(!done.is_empty(), "{} holds no {SNAPSHOT}* to cut", database.display());
    Ok(done.join("; "))
}

fn cut(path: &Path) -> anyhow::Result<String> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    anyhow::ensure!(length > 1, "{} is empty already", path.display());
    file.set_len(length / 2)?;
    Ok(format!("{} cut from {length} to {} bytes", path.display(), length / 2))
}

/// Turns bytes round where the log holds something: sled writes it from the front, and what follows is zeros.
fn flip(path: &Path, count: u32, seed: u64) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    anyhow::ensure!(used > 0, "{} is empty", path.display());
    let file = open(path)?;
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..count {
        let at = rng.usize(..used);
        file.write_all_at(&[!bytes[at]], at as u64)?;
    }
    Ok(format!("{count} bytes flipped among the first {used} of {}", path.display()))
}

fn open(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new().write(true).open(path).with_context(|| format!("opening {}", path.display()))
}

fn copy_all(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making folder {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_all(&source, &target)?;
            continue;
        }
        match fs::copy(&source, &target) {
            // A running node replaces files.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => _ = copied.with_context(|| format!("copying {}", source.display()))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join(DATABASE);
        fs::create_dir(&database).expect("made");
        fs::write(database.join(LOG), [vec![7; 1000], vec![0; 1000]].concat()).expect("written");
        fs::write(database.join("snap.01"), [1; 100]).expect("written");
        folder
    }

    #[test]
    fn each_damage_is_seen_in_its_file() {
        let data = data();
        let file = |name: &str| fs::read(data.path().join(DATABASE).join(name)).expect("a file");
        damage(data.path(), Damage::CutSnapshot).expect("cut");
        assert_eq!(file("snap.01").len(), 50);
        damage(data.path(), Damage::FlipBytes { count: 5, seed: 1 }).expect("flipped");
        let flipped = file(LOG);
        assert!((1..=5).contains(&flipped.iter().filter(|byte| **byte == !7).count()));
        assert!(flipped[1000..].iter().all(|byte| *byte == 0), "only what is in use");
        damage(data.path(), Damage::CutLog).expect("cut");
        assert_eq!(file(LOG).len(), 1000);
    }

    #[test]
    fn nothing_to_damage_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let said = damage(folder.path(), Damage::CutSnapshot).expect_err("nothing there");
        assert!(format!("{said:#}").contains(DATABASE), "{said:#}");
    }

    #[test]
    fn a_copy_brings_back_what_was_there() {
        let data = data();
        let aside = tempfile::tempdir().expect("a folder");
        let copy = DiskCopy::take(data.path(), aside.path().join("copy")).expect("copied");
        replace(data.path(), None).expect("removed");
        assert!(!data.path().exists());
        replace(data.path(), Some(copy.folder())).expect("brought back");
        assert_eq!(fs::read(data.path().join(DATABASE).join("snap.01")).expect("there"), [1; 100]);
    }
}
