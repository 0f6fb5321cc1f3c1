//! The `aorta` that is measured: given, or built here as it is deployed. It runs none.

use std::path::{Path, PathBuf};

use crate::program::{Recipe, build, given};

/// What is deployed: no assertions, all of the program optimised as one. Cargo shows its progress itself.
const DEPLOYED: Recipe = Recipe { profile: "dist", feature: None, quiet: false };

/// This file, or the deployed build of the sources.
///
/// # Errors
/// When it is not there, or cannot be built.
pub(super) fn find(program: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(file) = program {
        return given(file, "--program");
    }
    println!("building aorta as it is deployed (profile {}; minutes when it was never built) …", DEPLOYED.profile);
    build(DEPLOYED)
}
