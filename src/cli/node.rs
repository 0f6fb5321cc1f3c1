//! `aorta node`: reads the configuration, starts the log, hands over to [`crate::node`].

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd;
use tracing_subscriber::EnvFilter;

use super::NodeArguments;
use crate::config::{Config, LogConfig, LogFormat};

pub(super) fn run(arguments: &NodeArguments) -> anyhow::Result<ExitCode> {
    if let Some(parent) = arguments.with_parent {
        die_with(parent)?;
    }
    let config = Config::load(arguments.config.as_deref(), &arguments.sets).map_err(|mistakes| {
        anyhow::anyhow!("the configuration has mistakes, and the node does not start\n{mistakes}")
    })?;
    start_log(&config.log)?;
    crate::node::run(config)
}

/// Nodes of `aorta dev` and the demo must not outlive it, however it dies.
fn die_with(parent: u32) -> anyhow::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("asking to be told of the parent's death")?;
    // It may have died before the kernel was asked.
    let now = u32::try_from(unistd::getppid().as_raw()).unwrap_or_default();
    anyhow::ensure!(now == parent, "the process that started this node is gone");
    Ok(())
}

/// The database says a dozen lines at each try to write to a disk that is full; the snapshot says it once. Who wants to hear
/// them names it in `log.filter`.
const UNSAID: &str = "sled=off";

fn start_log(log: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{UNSAID},{}", log.filter));
    let filter = filter.with_context(|| format!("log.filter = \"{}\" is no filter", log.filter))?;
    let writer = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Json => writer.json().flatten_event(true).init(),
        LogFormat::Text => writer.with_ansi(std::io::stderr().is_terminal()).init(),
    }
    Ok(())
}
