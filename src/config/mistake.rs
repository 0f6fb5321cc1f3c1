//! What is wrong with a configuration: each mistake with its place, its reason and the way out. It judges nothing.

use std::fmt;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the file, on this line, counted from 1.
    Line(usize),
    /// In a `--set` argument, counted from 1.
    Set(usize),
    /// Nowhere: the default.
    Default,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// The dotted key, empty when the file is no TOML there.
    pub key: String,
    /// What is wrong.
    pub why: String,
    /// What to do about it, empty when `why` says it.
    pub way_out: String,
}

/// Every mistake of one configuration, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    /// The file, when there is one.
    pub file: Option<PathBuf>,
    /// At least one.
    pub list: Vec<Mistake>,
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_ref().map_or_else(|| "(no file)".to_owned(), |file| file.display().to_string());
        for (index, mistake) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match mistake.place {
                Place::Line(line) => write!(f, "{file}:{line}: ")?,
                Place::Set(nth) => write!(f, "--set number {nth}: ")?,
                Place::Default => write!(f, "{file}: ")?,
            }
            if !mistake.key.is_empty() {
                write!(f, "{}: ", mistake.key)?;
            }
            f.write_str(&mistake.why)?;
            if !mistake.way_out.is_empty() {
                write!(f, "; {}", mistake.way_out)?;
            }
        }
        Ok(())
    }
}
