//! The command line: what an operator types, and what is printed. It holds no rule of the service; it asks a node, or
//! starts some.

mod aors;
mod certificate;
pub mod client;
mod demo;
mod dev;
pub mod fleet;
pub mod layout;
mod node;
mod orders;
mod signals;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config};

/// Exit code of a command that could not do what it was told.
const FAILED: u8 = 1;

/// What `--version` says: the release, and the wire versions that it reads and writes.
const VERSION: &str = if cfg!(feature = "wire-v2") {
    concat!(env!("CARGO_PKG_VERSION"), " (wire versions 1 to 2)")
} else {
    concat!(env!("CARGO_PKG_VERSION"), " (wire versions 1 to 3)")
};

/// A SIP location service: which phone rings for this address, known whole by every node.
#[derive(Debug, Parser)]
#[command(name = "aorta", version = VERSION, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until it is told to drain (SIGTERM; a second one skips the grace).
    Node(NodeArguments),
    /// Check a configuration file, or print one with every key.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make the cluster's CA and the nodes' certificates.
    #[command(subcommand)]
    Cert(certificate::Command),
    /// Members, readiness, contacts, digests and lag; exit code 0 only if all nodes agree.
    Status(status::Options),
    /// Everything known of one AoR.
    Show(aors::Show),
    /// Every contact of every AoR, one JSON object a line.
    Dump(aors::Dump),
    /// Remove an AoR's contacts, or one of them, on all nodes.
    Rm(aors::Remove),
    /// Let a node leave: it serves on until nothing is lost, then exits.
    Drain(orders::Drain),
    /// Declare a node ready that waits for nodes which will not come back.
    Ready(orders::Ready),
    /// Strike a node that will not come back, so that nobody waits for it.
    Forget(orders::Forget),
    /// Run a whole cluster on this machine, for trying things out.
    Dev(dev::Options),
    /// See what Aorta is for: real nodes, phones and failures on this machine, every claim checked.
    Demo(demo::Options),
}

#[derive(Debug, Args)]
struct NodeArguments {
    /// Configuration file (TOML); without it every key has its default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a key: --set sip.listen=192.0.2.10:5060. May be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Die at once when the process with this id does.
    #[arg(long, value_name = "PID", hide = true)]
    with_parent: Option<u32>,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Name every mistake of a file with its line, key, reason and way out.
    Check {
        /// The file.
        file: PathBuf,
        /// Override a key, as `aorta node` takes it.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        sets: Vec<String>,
    },
    /// Print a file with every key, its default and what it means.
    Example,
}

/// Runs the command of this process' arguments.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    run(arguments.command).unwrap_or_else(|error| {
        eprintln!("aorta: {error:#}");
        ExitCode::from(FAILED)
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Node(arguments) => node::run(&arguments),
        Command::Config(ConfigCommand::Check { file, sets }) => check(&file, &sets),
        Command::Config(ConfigCommand::Example) => {
            print!("{}", config::example());
            Ok(ExitCode::SUCCESS)
        }
        Command::Cert(command) => certificate::run(&command),
        Command::Status(options) => status::run(&options),
        Command::Show(show) => aors::show(&show),
        Command::Dump(dump) => aors::dump(&dump),
        Command::Rm(remove) => aors::remove(&remove),
        Command::Drain(drain) => orders::drain(&drain),
        Command::Ready(ready) => orders::ready(&ready),
        Command::Forget(forget) => orders::forget(&forget),
        Command::Dev(options) => dev::run(&options),
        Command::Demo(options) => demo::run(&options),
    }
}

/// `aorta config check`: the file, then what it points at.
fn check(file: &std::path::Path, sets: &[String]) -> anyhow::Result<ExitCode> {
    let config = match Config::load(Some(file), sets) {
        Ok(config) => config,
        Err(mistakes) => {
            let count = mistakes.list.len();
            eprintln!("{mistakes}\n{count} mistake{} in all", if count == 1 { "" } else { "s" });
            return Ok(ExitCode::from(FAILED));
        }
    };
    let unreadable = config.unreadable_files();
    for problem in &unreadable {
        eprintln!("{}: {problem}", file.display());
    }
    if !unreadable.is_empty() {
        return Ok(ExitCode::from(FAILED));
    }
    if let Err(problem) = crate::node::check_certificates(&config) {
        eprintln!("{}: {problem}", file.display());
        return Ok(ExitCode::from(FAILED));
    }
    println!("{}: no mistake", file.display());
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use clap::CommandFactory as _;

    #[test]
    fn the_wire_versions_are_those_of_the_protocol() {
        use aorta_proto::frame::{VERSION_MAX, VERSION_MIN};
        let spoken = if VERSION_MIN == VERSION_MAX {
            format!("{VERSION_MIN}")
        } else {
            format!("{VERSION_MIN} to {VERSION_MAX}")
        };
        assert!(super::VERSION.ends_with(&format!("{spoken})")), "{}", super::VERSION);
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }
}
