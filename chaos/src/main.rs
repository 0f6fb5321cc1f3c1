//! Command line of the judges.

use std::process::ExitCode;

use aorta_chaos::sim;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "aorta-chaos", about = "Judges of Aorta")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs whole clusters under virtual time; the same seed gives the same run.
    Sim {
        /// How many seeds.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Prints what happens, line by line.
        #[arg(long)]
        talk: bool,
    },
}

fn main() -> ExitCode {
    let Command::Sim { seeds, seed, talk } = Arguments::parse().command;
    let mut failed = 0u64;
    let mut total = sim::Figures::default();
    for seed in seed..seed.saturating_add(seeds) {
        let outcome = sim::run(seed, talk);
        outcome.said.iter().for_each(|line| println!("{line}"));
        let figures = outcome.figures;
        total.requests += figures.requests;
        total.full += figures.full;
        total.short += figures.short;
        total.frames += figures.frames;
        total.exchanges += figures.exchanges;
        total.fenced += figures.fenced;
        if let Some(failure) = outcome.failure {
            failed += 1;
            println!("seed {seed}: {failure}");
        }
    }
    println!(
        "{seeds} seeds, {failed} failed; {} requests ({} full, {} short), {} frames, {} exchanges, {} times fenced",
        total.requests, total.full, total.short, total.frames, total.exchanges, total.fenced
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
