//! `aorta demo`: what Aorta is for, shown and checked with real node processes and real sockets. It starts, kills and
//! calls; every claim that it prints was judged by phones that share no code with the nodes.

mod show;
mod stage;
mod steps;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::layout::FreshFolder;
use super::signals::Stops;
use show::Show;
use stage::Stage;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// How many phones.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    phones: u32,
    /// The aorta whose nodes are shown [default: this program].
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Keep the nodes' files and say where they are; they are kept too when something does not hold.
    #[arg(long)]
    keep: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let mut folder = FreshFolder::make("aorta-demo")?;
    let path = folder.path().to_path_buf();
    // The nodes die with this process.
    Stops::watch()?.end_by_them(move || _ = std::fs::remove_dir_all(path))?;
    let mut show = Show::new();
    show.say("Aorta: which phone rings for this address, known whole by every node.");
    show.say(&format!("Real nodes, real sockets, nothing simulated. Logs: {}", folder.path().display()));
    let program = match &options.program {
        Some(program) => program.clone(),
        None => std::env::current_exe()?,
    };
    let phones = usize::try_from(options.phones)?;
    let mut stage = Stage::set(&program, folder.path(), phones, &show)?;
    let held = play(&mut stage, &mut show);
    stage.close();
    show.clear();
    if options.keep || !held {
        folder.keep();
        println!("\nThe nodes' files are in {}.", folder.path().display());
    }
    if held {
        println!("\n8 · Summary\n    ✓ all of it held, in {:.0} s. {}", begun.elapsed().as_secs_f64(), stage.tally());
        println!("Next: `aorta dev` runs three nodes for you to try; README.md has three nodes on three hosts.");
    } else {
        println!("\nIt did not hold; the steps after it were not tried.");
    }
    Ok(ExitCode::from(u8::from(!held)))
}

/// Plays every step until one does not hold; whether all did.
fn play(stage: &mut Stage, show: &mut Show) -> bool {
    for (title, step) in steps::STEPS {
        show.begin(title);
        match step(stage, show) {
            Ok(()) => show.done(),
            Err(why) => {
                show.failed(&format!("{why:#}"));
                return false;
            }
        }
    }
    true
}
