//! The benchmark: a load generator of our own against real nodes, and against other registrars, on processors of their own.
//!
//! `load`: phones and callers · `echo`: what a server costs that does nothing · `cores`: who runs where · `processes`: what
//! processes cost · `nodes`, `servers`, `program`: what is measured · `measure`: one row · `catalogue`: the rows by name.

mod catalogue;
pub mod cores;
mod echo;
pub mod load;
pub mod measure;
mod nodes;
mod processes;
mod program;
mod progress;
mod servers;

use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::Args;

use cores::Cores;
use load::{PHONES_MAX, Population};
use measure::{Meter, Row};
use nodes::AortaNodes;
use progress::Line;
use servers::Servers;

/// Requests in flight while phones register before the measuring.
const FILL_WINDOW: usize = 128;
/// Phones that may come beside those that are registered before.
const NEWCOMERS_MAX: u32 = 8_000_000;

/// What is measured, and how.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Names of rows.
    #[arg(required_unless_present = "list")]
    pub rows: Vec<String>,
    /// Says which rows there are.
    #[arg(long)]
    pub list: bool,
    /// The aorta to measure [default: built from the sources as it is deployed].
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Nodes of the cluster.
    #[arg(long, default_value_t = 3)]
    pub nodes: usize,
    /// TOML that goes into every node's configuration.
    #[arg(long, value_name = "TOML", default_value = "")]
    pub node_config: String,
    /// Phones that are registered before.
    #[arg(long, default_value_t = 100_000)]
    pub phones: u32,
    /// Seconds of a row, after its warm-up.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Seconds before.
    #[arg(long, default_value_t = 1.0)]
    pub warm_up_s: f64,
    /// How often each row is measured; of the rows that are not void the median counts.
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

/// Measures; whether no row is void.
///
/// # Errors
/// When a row is unknown, or something cannot be started.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    if options.list {
        println!("{}", catalogue::list());
        return Ok(true);
    }
    let entries = catalogue::chosen(&options.rows)?;
    ensure!(options.phones <= PHONES_MAX - NEWCOMERS_MAX, "at most {} phones", PHONES_MAX - NEWCOMERS_MAX);
    ensure!(options.nodes > 0 && options.runs > 0 && options.seconds > 0.0, "nothing is to be measured");
    let cores = Cores::here()?;
    let program = program::find(options.program.as_deref())?;
    println!("{cores}");
    // What this thread starts runs where it runs.
    cores.enter_servers()?;
    let mut meter = Meter::new(cores);
    let mut sound = true;
    println!("{HEAD}");
    for entry in &entries {
        for _ in 0..options.runs {
            let row = measured(&mut meter, options, entry, &program)?;
            println!("{}", told(entry.name, &row));
            sound &= row.void.is_empty();
        }
    }
    Ok(sound)
}

/// One row on a cluster of its own.
fn measured(meter: &mut Meter, options: &Options, entry: &catalogue::Entry, program: &Path) -> anyhow::Result<Row> {
    let line = Line::begin(entry.name);
    line.say("starting nodes".to_owned());
    let mut nodes = AortaNodes::place(program, options.nodes, &options.node_config)?;
    nodes.start(0..options.nodes)?;
    let servers = Servers::Aorta(nodes);
    let newcomers = if entry.brings_new() { NEWCOMERS_MAX } else { 0 };
    let population = Population::new(options.phones + newcomers);
    let sips = servers.sips();
    let population = meter.fill(&sips, population, options.phones, FILL_WINDOW, |registered| {
        line.say(format!("{registered} of {} phones registered", options.phones));
    })?;
    line.say("measuring".to_owned());
    Ok(meter.row(&entry.plan(options), &servers, population)?.0)
}

const HEAD: &str = "row            requests/s   CPU µs  busy µs   p50 ms   p99 ms p99.9 ms   max ms    again     lost  dropped ceiling/s node MiB";

fn told(name: &str, row: &Row) -> String {
    let Row { per_s, cpu_us, busy_us, latencies, retransmitted, lost, dropped, ceiling_per_s, node_mib, void, .. } =
        row;
    let mut text = format!(
        "{name:<14} {per_s:>10.0} {cpu_us:>8.2} {busy_us:>8.2} {:>8.3} {:>8.3} {:>8.3} {:>8.2} {retransmitted:>8} {lost:>8} \
         {dropped:>8} {ceiling_per_s:>9.0} {node_mib:>8.0}",
        latencies.p50_ms, latencies.p99_ms, latencies.p999_ms, latencies.max_ms
    );
    if !void.is_empty() {
        text.push_str(&format!("\n               VOID: {}", void.join("; ")));
    }
    text
}
