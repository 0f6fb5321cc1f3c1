//! Builds the floors, starts them in order, stops them in reverse.

use std::process::ExitCode;

use crate::config::Config;

/// Runs a node until it is told to drain.
///
/// # Errors
/// When it cannot start, or lost something on its way out.
pub fn run(config: Config) -> anyhow::Result<ExitCode> {
    let _ = config;
    anyhow::bail!("the node is not built yet")
}
