//! A wall clock that is wrong, and can jump while the process that reads it runs: libfaketime, told by a file. Monotonic
//! clocks stay what they are.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::Context as _;

use super::NotHere;

/// Debian's libfaketime, by architecture.
const LIBRARIES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];

/// Seconds until the process looks at the file again.
const LOOKED_AT_EVERY_S: u32 = 1;

#[derive(Debug)]
pub(super) struct WallClock {
    library: &'static str,
    file: PathBuf,
    offset_s: Mutex<i64>,
}

impl WallClock {
    /// A clock so many seconds ahead, told by a file of `folder`.
    pub(super) fn new(folder: &Path, offset_s: i64) -> anyhow::Result<Self> {
        let library = LIBRARIES.into_iter().find(|file| Path::new(file).exists()).ok_or(NotHere::Clock)?;
        let clock = Self { library, file: folder.join("wall-clock"), offset_s: Mutex::new(0) };
        clock.jump(offset_s)?;
        Ok(clock)
    }

    /// Lets it jump by so many seconds.
    pub(super) fn jump(&self, by_s: i64) -> anyhow::Result<()> {
        let mut offset_s = self.offset_s.lock().unwrap_or_else(PoisonError::into_inner);
        let new_s = offset_s.checked_add(by_s).context("no clock is that wrong")?;
        // In one step: half a number read would be another jump.
        let fresh = self.file.with_extension("new");
        std::fs::write(&fresh, format!("{new_s:+}\n")).with_context(|| format!("writing {}", fresh.display()))?;
        std::fs::rename(&fresh, &self.file).with_context(|| format!("writing {}", self.file.display()))?;
        *offset_s = new_s;
        Ok(())
    }

    /// What a process must find in its environment to read this clock.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let entries = [
            ("LD_PRELOAD", self.library.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_CACHE_DURATION", LOOKED_AT_EVERY_S.to_string()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        entries.map(|(name, value)| (name.to_owned(), value)).into()
    }
}
