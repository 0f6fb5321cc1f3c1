//! The benchmark: a load generator of our own against real nodes, and against other registrars, on processors of their own.
//!
//! `load`: phones and callers · `echo`: what a server costs that does nothing · `cores`: who runs where · `processes`: what
//! processes cost · `nodes`, `kamailio`, `servers`, `program`: what is measured · `measure`: one load · `size`, `snapshot`:
//! what else is measured · `catalogue`: the experiments by name · `experiment`: doing one · `finding`: what it found ·
//! `suite`, `targets`, `curves`: all of them · `report`, `chart`: for people.

mod catalogue;
mod chart;
pub mod cores;
pub mod curves;
mod echo;
mod experiment;
pub mod finding;
mod kamailio;
pub mod load;
pub mod measure;
mod nodes;
mod processes;
mod program;
mod progress;
pub mod report;
mod servers;
pub mod size;
mod snapshot;
mod suite;
pub mod targets;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;

use catalogue::Experiment;
use cores::Cores;
use experiment::NEWCOMERS_MAX;
use finding::Finding;
use load::PHONES_MAX;
use measure::Meter;
use processes::Watch;
use report::Report;
use servers::Kind;

/// How long it is watched before whether something else runs.
const IDLE_LOOK: Duration = Duration::from_secs(1);
/// The name of everything.
const ALL: &str = "all";
/// The name of how cost and delays grow.
const CURVES: &str = "curves";

/// What is measured, and how.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// What is measured, by name; `all` is every target, ours beside Kamailio, and the curves; `curves` only these.
    #[arg(required_unless_present = "list")]
    pub experiments: Vec<String>,
    /// Says what can be measured.
    #[arg(long)]
    pub list: bool,
    /// The aorta to measure [default: built from the sources as it is deployed].
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Measures Kamailio with DMQ (Debian: kamailio) instead.
    #[arg(long)]
    pub kamailio: bool,
    /// `all` or `curves` without Kamailio.
    #[arg(long, conflicts_with = "kamailio")]
    pub no_kamailio: bool,
    /// `all` without curves.
    #[arg(long)]
    pub no_curves: bool,
    /// Where table, figures and pictures of `all` and `curves` go.
    #[arg(long, value_name = "DIRECTORY", default_value = "target/bench")]
    pub out: PathBuf,
    /// Nodes of the cluster.
    #[arg(long, default_value_t = 3)]
    pub nodes: usize,
    /// TOML that goes into every node's configuration.
    #[arg(long, value_name = "TOML", default_value = "")]
    pub node_config: String,
    /// Phones that are registered before.
    #[arg(long, default_value_t = 100_000)]
    pub phones: u32,
    /// Contacts where memory, join and restart are measured.
    #[arg(long, default_value_t = 1_000_000)]
    pub contacts: u32,
    /// Updates over which memory must not grow.
    #[arg(long, default_value_t = 10_000_000)]
    pub updates: u64,
    /// Seconds of a load, after its warm-up.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Seconds before.
    #[arg(long, default_value_t = 1.0)]
    pub warm_up_s: f64,
    /// How often each experiment is done; of those that are not void the median counts.
    #[arg(long, default_value_t = 1)]
    pub runs: usize,
    /// Closed loop: requests in flight, over all nodes.
    #[arg(long)]
    pub window: Option<usize>,
    /// Open loop: requests a second.
    #[arg(long, conflicts_with = "window")]
    pub rate: Option<f64>,
    /// Requests of an open loop come by chance and not evenly.
    #[arg(long)]
    pub poisson: bool,
    /// Ports that requests come from.
    #[arg(long)]
    pub sources: Option<usize>,
    /// Callers do not acknowledge a 302.
    #[arg(long)]
    pub no_ack: bool,
    /// The load cuts its datagrams itself, without UDP_SEGMENT.
    #[arg(long)]
    pub no_segments: bool,
}

/// Measures; whether nothing is void.
///
/// # Errors
/// When an experiment is unknown, or something cannot be started.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    if options.list {
        println!("{}", catalogue::list());
        return Ok(true);
    }
    let whole = [ALL, CURVES].into_iter().find(|whole| options.experiments.iter().any(|name| name == whole));
    ensure!(whole.is_none() || options.experiments.len() == 1, "{ALL} and {CURVES} stand alone: name nothing else");
    let names = options.experiments.iter().filter(|_| whole.is_none());
    let experiments: Vec<Experiment> = names.map(|name| catalogue::named(name)).collect::<anyhow::Result<_>>()?;
    ensure!(options.phones <= PHONES_MAX - NEWCOMERS_MAX, "at most {} phones", PHONES_MAX - NEWCOMERS_MAX);
    ensure!(options.nodes > 0 && options.runs > 0 && options.seconds > 0.0, "nothing is to be measured");
    let cores = Cores::here()?;
    let program = if options.kamailio { PathBuf::new() } else { program::find(options.program.as_deref())? };
    let kind = if options.kamailio { Kind::Kamailio } else { Kind::Aorta(&program, &options.node_config) };
    println!("{cores}");
    let report = Report { cores: cores.to_string(), ..Report::of(&program) };
    // What this thread starts runs where it runs.
    cores.enter_servers()?;
    warn_if_busy(&cores);
    let mut meter = Meter::new(cores);
    if let Some(whole) = whole {
        let measure = if whole == ALL { suite::run } else { suite::curves };
        return measure(&mut meter, options, kind, report);
    }
    let mut sound = true;
    if experiments.iter().any(|experiment| matches!(experiment, Experiment::Load(_))) {
        println!("{HEAD}");
    }
    for experiment in &experiments {
        for _ in 0..options.runs {
            let finding = experiment::run(&mut meter, options, experiment, kind)?;
            println!("{}", told(experiment, &finding));
            sound &= finding.void.is_empty();
        }
    }
    Ok(sound)
}

/// Says so when something else runs here, for then nothing will be believed.
fn warn_if_busy(cores: &Cores) {
    let all: Vec<usize> = cores.servers.iter().copied().chain([cores.generator]).collect();
    let watch = Watch::begin(&all, &[]);
    std::thread::sleep(IDLE_LOOK);
    let others = watch.end(&[]).void();
    if !others.is_empty() {
        println!("this machine is busy, and rows will be void: {}", others.join("; "));
    }
}

/// Columns of a load: the figure, its width, and digits after the point.
const COLUMNS: [(&str, usize, usize); 11] = [
    ("per_s", 9, 0),
    ("cpu_us", 8, 2),
    ("busy_us", 8, 2),
    ("p50_ms", 8, 3),
    ("p99_ms", 8, 3),
    ("p999_ms", 8, 3),
    ("max_ms", 8, 1),
    ("again", 7, 0),
    ("dropped", 8, 0),
    ("ceiling_per_s", 14, 0),
    ("node_mib", 9, 0),
];

const HEAD: &str = "                   per_s   cpu_us  busy_us   p50_ms   p99_ms  p999_ms   max_ms   again  dropped  ceiling_per_s  node_mib";

fn told(experiment: &Experiment, finding: &Finding) -> String {
    let name = experiment.name();
    let mut text = format!("{name:<14}");
    match experiment {
        Experiment::Load(_) => {
            for (column, width, digits) in COLUMNS {
                text.push_str(&format!(" {:>width$.digits$}", finding.figure(column).unwrap_or_default()));
            }
        }
        Experiment::Lag | Experiment::Memory | Experiment::Size | Experiment::Snapshot => {
            let figures = finding.figures.iter().map(|(figure, value)| format!("  {figure:<20} {value:>12.3}"));
            text = format!("{name}\n{}", figures.collect::<Vec<_>>().join("\n"));
        }
    }
    if !finding.void.is_empty() {
        text.push_str(&format!("\n               VOID: {}", finding.void.join("; ")));
    }
    text
}
