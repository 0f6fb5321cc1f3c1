//! Files of `aorta` that are run here: given, or built from the sources. It runs none.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// A build of the sources.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipe {
    /// Cargo's profile, and the name of its folder.
    pub(crate) profile: &'static str,
    /// A build with a feature has a target folder of its own.
    pub(crate) feature: Option<&'static str>,
    /// Cargo does not show its progress.
    pub(crate) quiet: bool,
}

/// A file that somebody named with `flag`.
///
/// # Errors
/// When it is not there.
pub(crate) fn given(file: &Path, flag: &str) -> anyhow::Result<PathBuf> {
    file.canonicalize().with_context(|| format!("{flag} {} is not there", file.display()))
}

/// Builds `aorta`, beside this program where no feature is asked for.
///
/// # Errors
/// When there are no sources or no cargo, or it does not build.
pub(crate) fn build(recipe: Recipe) -> anyhow::Result<PathBuf> {
    let Recipe { profile, feature, quiet } = recipe;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this crate lies in a workspace")?;
    ensure!(root.join("Cargo.toml").exists(), "the sources are no longer in {}: give --program FILE", root.display());
    let beside = std::env::current_exe().context("finding this program's own file")?;
    let target = beside.parent().and_then(Path::parent).context("this program lies in a target folder")?;
    let folder = feature.map_or_else(|| target.to_path_buf(), |feature| target.join(feature));
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["build", "--profile", profile, "--locked", "--bin", "aorta", "--target-dir"]);
    cargo.arg(&folder).args(feature.map(|feature| format!("--features={feature}"))).args(quiet.then_some("--quiet"));
    let status = cargo.status().context("starting cargo: give --program FILE where there is none")?;
    ensure!(status.success(), "aorta does not build ({status}): see above, or give --program FILE");
    let program = folder.join(profile).join("aorta");
    ensure!(program.exists(), "cargo built no {}", program.display());
    Ok(program)
}
