//! The `aorta` that is measured: given, or built here as it is deployed. It runs none.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// The profile of what is deployed: no assertions, all of the program optimised as one.
const PROFILE: &str = "dist";

/// This file, or the deployed build of the sources.
///
/// # Errors
/// When it is not there, or cannot be built.
pub(super) fn find(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(file) = given {
        return file.canonicalize().with_context(|| format!("--program {} is not there", file.display()));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this crate lies in a workspace")?;
    ensure!(root.join("Cargo.toml").exists(), "the sources are no longer in {}: give --program FILE", root.display());
    let beside = std::env::current_exe().context("finding this program's own file")?;
    let target = beside.parent().and_then(Path::parent).context("this program lies in a target folder")?;
    println!("building aorta as it is deployed (profile {PROFILE}; minutes when it was never built) …");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["build", "--profile", PROFILE, "--locked", "--bin", "aorta", "--target-dir"]);
    // Cargo shows its progress itself.
    let status = cargo.arg(target).status().context("starting cargo: give --program FILE where there is none")?;
    ensure!(status.success(), "aorta does not build ({status}): see above, or give --program FILE");
    let program = target.join(PROFILE).join("aorta");
    ensure!(program.exists(), "cargo built no {}", program.display());
    Ok(program)
}
