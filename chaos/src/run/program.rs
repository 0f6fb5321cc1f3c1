//! The `aorta` that nodes run: given, or built here. It runs none.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::scenario::Build;

/// Feature of a build that speaks the previous version of the peer protocol only.
const PREVIOUS_FEATURE: &str = "wire-v1";

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

fn given(file: &Path, flag: &str) -> anyhow::Result<PathBuf> {
    file.canonicalize().with_context(|| format!("{flag} {} is not there", file.display()))
}

/// Builds `aorta` beside this program, or with a feature in a folder of its own.
fn build(feature: Option<&str>) -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this crate lies in a workspace")?;
    ensure!(root.join("Cargo.toml").exists(), "the sources are no longer in {}: give --program FILE", root.display());
    let beside = std::env::current_exe().context("finding this program's own file")?;
    let target = beside.parent().and_then(Path::parent).context("this program lies in a target folder")?;
    let folder = feature.map_or_else(|| target.to_path_buf(), |feature| target.join(feature));
    println!("building aorta{} …", feature.map(|feature| format!(" with {feature}")).unwrap_or_default());
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["build", "--release", "--locked", "--quiet", "--bin", "aorta", "--target-dir"]);
    cargo.arg(&folder).args(feature.map(|feature| format!("--features={feature}")));
    let status = cargo.status().context("starting cargo: give --program FILE where there is none")?;
    ensure!(status.success(), "aorta does not build ({status}): see above, or give --program FILE");
    let program = folder.join("release").join("aorta");
    ensure!(program.exists(), "cargo built no {}", program.display());
    Ok(program)
}
