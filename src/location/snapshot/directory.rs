//! The data directory itself: whose it is, that no other process uses it, and where damaged databases go. Knows no database.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use aorta_proto::NodeId;

/// Damaged databases that are kept for whoever wants to look; the oldest goes first.
pub(super) const SET_ASIDE_MAX: usize = 3;

const NODE_ID_FILE: &str = "node-id";

/// Why the disk could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The directory holds the data of another node.
    #[error("{dir} is the data directory of node '{theirs}', not of '{ours}'", dir = .dir.display())]
    ForeignNode {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        theirs: String,
        /// Who asked.
        ours: NodeId,
    },
    /// Another process uses the directory.
    #[error("{dir} is in use by another process", dir = .0.display())]
    InUse(PathBuf),
    /// A file could not be read or written.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database could not be read or written.
    #[error("{path}: {why}", path = .path.display())]
    Database {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Checks that the directory is this node's, or makes it so, and locks it.
pub(super) fn claim(dir: &Path, node: &NodeId) -> Result<File, SnapshotError> {
    let path = dir.join(NODE_ID_FILE);
    let failed = |source| at(&path, source);
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
    let mut file = options.open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(SnapshotError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    match text.trim() {
        "" => match file.write_all(format!("{node}\n").as_bytes()).and_then(|()| file.sync_all()) {
            // Claimed at a later start: a full disk keeps no node from serving.
            Err(source) if is_full(source.kind()) => file.set_len(0).map(|()| file).map_err(failed),
            written => written.map(|()| file).map_err(failed),
        },
        theirs if theirs == node.as_str() => Ok(file),
        theirs => {
            let theirs = theirs.escape_default().to_string();
            Err(SnapshotError::ForeignNode { dir: dir.to_owned(), theirs, ours: node.clone() })
        }
    }
}

/// Whether an error says that there is no space.
pub(super) fn is_full(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// The error of a file.
pub(super) fn at(path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::File { path: path.to_owned(), source }
}

/// Moves a damaged database out of the way. Returns where it is now.
pub(super) fn set_aside(dir: &Path, database: &str, why: &str) -> Result<PathBuf, SnapshotError> {
    let from = dir.join(database);
    let prefix = format!("{database}.damaged-");
    let number = |name: &str| name.strip_prefix(&prefix)?.parse::<u64>().ok();
    let files = std::fs::read_dir(dir).map_err(|source| at(dir, source))?;
    let mut numbers: Vec<u64> = files.flatten().filter_map(|file| number(file.file_name().to_str()?)).collect();
    numbers.sort_unstable();
    for old in numbers.iter().take((numbers.len() + 1).saturating_sub(SET_ASIDE_MAX)) {
        let path = dir.join(format!("{prefix}{old}"));
        std::fs::remove_dir_all(&path).map_err(|source| at(&path, source))?;
    }
    let to = dir.join(format!("{prefix}{}", numbers.last().map_or(1, |last| last + 1)));
    std::fs::rename(&from, &to).map_err(|source| at(&from, source))?;
    tracing::error!(why, set_aside = %to.display(), "the database was damaged: set aside; what it held comes from peers");
    Ok(to)
}
