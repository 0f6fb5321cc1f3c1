//! The `aorta` that nodes run: given, or built here. It runs none.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::scenario::Build;
use crate::program::{self, Recipe, given};

/// Feature of a build that speaks the previous version of the peer protocol only.
const PREVIOUS_FEATURE: &str = "wire-v2";

/// The builds that scenarios name.
#[derive(Debug, Clone)]
pub struct Programs {
    current: PathBuf,
    previous: Option<PathBuf>,
}

impl Programs {
    /// These files, each built first when it is not given; the previous build only when it is `needed`.
    ///
    /// # Errors
    /// When a file is not there, or cannot be built.
    pub fn find(current: Option<&Path>, previous: Option<&Path>, needed: bool) -> anyhow::Result<Self> {
        let current = match current {
            Some(file) => given(file, "--program")?,
            None => build(None)?,
        };
        let previous = match previous {
            Some(file) => Some(given(file, "--previous")?),
            None if needed => Some(build(Some(PREVIOUS_FEATURE))?),
            None => None,
        };
        Ok(Self { current, previous })
    }

    /// The file of a build.
    ///
    /// # Errors
    /// When the previous build was not asked for at the beginning.
    pub fn file(&self, build: Build) -> anyhow::Result<&Path> {
        match build {
            Build::Current => Ok(&self.current),
            Build::Previous => self.previous.as_deref().context("there is no previous build: give --previous FILE"),
        }
    }
}

/// Builds `aorta` with the assertions of tests, or with a feature.
fn build(feature: Option<&'static str>) -> anyhow::Result<PathBuf> {
    println!("building aorta{} …", feature.map(|feature| format!(" with {feature}")).unwrap_or_default());
    program::build(Recipe { profile: "release", feature, quiet: true })
}
