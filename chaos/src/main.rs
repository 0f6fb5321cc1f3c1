//! Command line of the judges. Judges nothing itself.

mod seeds;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use aorta_chaos::bench;
use aorta_chaos::run;
use aorta_chaos::sim::{self, Plan};
use clap::{Args, Parser, Subcommand};

/// As in a node; and the system's allocator makes threads wait for each other.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
#[command(name = "aorta-chaos", about = "Judges of Aorta")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs whole clusters under virtual time; the same seed gives the same run.
    Sim(Sim),
    /// Runs real nodes under real faults, and phones that remember what they were told; a report says what held.
    Run(Run),
    /// Measures speed, cost, memory and delays of a real cluster under load.
    Bench(bench::Options),
}

#[derive(Args)]
struct Sim {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs this event file instead.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Runs with this deliberate fault in the nodes, or with `all` one after another, until it is found. Needs a build with
    /// the feature `mutants`.
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Where event files of failing seeds are written.
    #[arg(long, value_name = "DIRECTORY", default_value = "target/sim")]
    events: PathBuf,
    /// Threads; all cores by default.
    #[arg(long)]
    jobs: Option<usize>,
    /// Prints what happens, line by line.
    #[arg(long)]
    talk: bool,
}

#[derive(Args)]
struct Run {
    /// Names of scenarios or their files; `all` are all that come with this program.
    #[arg(required_unless_present = "list")]
    scenarios: Vec<String>,
    /// The aorta to run [default: built from the sources].
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// One that speaks the previous version of the peer protocol [default: built when a scenario needs it].
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    /// What all randomness comes from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where report, pictures and the nodes' files go.
    #[arg(long, value_name = "DIRECTORY", default_value = "target/chaos")]
    out: PathBuf,
    /// Says which scenarios there are.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Sim(arguments) => simulate(&arguments),
        Command::Run(arguments) => run_scenarios(arguments),
        Command::Bench(options) => bench::run(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn simulate(arguments: &Sim) -> anyhow::Result<bool> {
    match (&arguments.replay, &arguments.mutant) {
        (Some(file), _) => replay(file, arguments.talk),
        (None, Some(mutant)) => mutants(arguments, mutant),
        (None, None) => seeds::run(&seeds::Order {
            first: arguments.seed,
            seeds: arguments.seeds,
            jobs: jobs(arguments),
            talk: arguments.talk,
            events: arguments.events.clone(),
        }),
    }
}

/// Whether no scenario failed.
fn run_scenarios(arguments: Run) -> anyhow::Result<bool> {
    if arguments.list {
        println!("{}", run::catalogue::list()?);
        return Ok(true);
    }
    let Run { scenarios, program, previous, seed, out, .. } = arguments;
    run::run(&run::Order { scenarios, program, previous, seed, out })
}

/// Whether an event file runs without a failure.
fn replay(file: &Path, talk: bool) -> anyhow::Result<bool> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let plan: Plan = serde_json::from_str(&text).with_context(|| format!("{} is no event file", file.display()))?;
    let outcome = sim::run_plan(&plan, talk);
    outcome.said.iter().for_each(|line| println!("{line}"));
    println!("{}", outcome.failure.as_deref().unwrap_or("nothing failed"));
    Ok(outcome.failure.is_none())
}

/// Whether each mutant is found within so many seeds.
fn mutants(arguments: &Sim, mutant: &str) -> anyhow::Result<bool> {
    let known = sim::names();
    let names: Vec<&str> = known.iter().copied().filter(|name| mutant == "all" || *name == mutant).collect();
    anyhow::ensure!(!names.is_empty(), "there is no mutant {mutant}; known here: {}", known.join(", "));
    // What the rooms' own assertions say is in the report.
    std::panic::set_hook(Box::new(|_| {}));
    let jobs = jobs(arguments);
    println!("{:<30} {:>6} {:>6}  the first said", "mutant", "median", "most");
    let rows = sim::survey(&names, &sim::first_seeds(arguments.seed), arguments.seeds, jobs, |row| {
        println!("{}", line_of(row))
    });
    if let (1, Some(Some(caught))) = (rows.len(), rows.first().map(|row| &row.caught)) {
        println!("{}", seeds::keep(&arguments.events, names[0], &caught.plan)?);
    }
    let mut medians: Vec<u64> = rows.iter().filter_map(sim::Hunted::median).collect();
    medians.sort_unstable();
    let median = medians.get(medians.len() / 2).copied().unwrap_or_default();
    let failed: std::collections::BTreeSet<u64> = rows.iter().flat_map(|row| row.failed_without.clone()).collect();
    if !failed.is_empty() {
        println!("these seeds fail without any mutant, and were not counted: {failed:?}");
    }
    let (found, all, hunts) = (medians.len(), rows.len(), sim::HUNTS);
    println!(
        "{found} of {all} mutants found within {} seeds in each of {hunts} hunts; median of medians {median}",
        arguments.seeds
    );
    Ok(found == all && failed.is_empty())
}

/// A row of the table of mutants.
fn line_of(row: &sim::Hunted) -> String {
    let said = row.caught.as_ref().map_or("not found", |caught| &caught.failure);
    let number = |seeds: Option<u64>| seeds.map_or("-".to_owned(), |seeds| seeds.to_string());
    let most = row.after.last().copied().filter(|_| row.always());
    format!("{:<30} {:>6} {:>6}  {said}", row.name, number(row.median()), number(most))
}

fn jobs(arguments: &Sim) -> usize {
    arguments.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1)
}
