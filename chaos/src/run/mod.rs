//! Real node processes under real faults: scenario files, what is done, what was seen, what it is worth. It builds no
//! networks and knows no SIP: [`crate::lab`] and the phones do.
//!
//! [`scenario`] and [`fault`]: what a file says · `stage`, `act`, `converge`, `kamailio`, [`play`]: doing it · `record` and [`story`]: what
//! was seen · [`verdict`]: what it is worth · [`report`], [`picture`], `plot`, [`peers`]: for people · [`program`]: what nodes run ·
//! [`catalogue`]: the scenarios that come with this program.

mod act;
pub mod catalogue;
mod converge;
pub mod fault;
mod kamailio;
pub mod peers;
pub mod picture;
pub mod play;
mod plot;
pub mod program;
mod progress;
mod record;
pub mod report;
pub mod scenario;
mod stage;
pub mod story;
pub mod verdict;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::lab::NotHere;
use program::Programs;
use progress::Line;
use report::{Judged, Report};
use scenario::{Build, Scenario};
use story::Story;
use verdict::Verdict;

/// What is run, with what, and where its report goes.
#[derive(Debug, Clone)]
pub struct Order {
    /// Names of scenarios, files, or `all`.
    pub scenarios: Vec<String>,
    /// The `aorta` to run; built when it is missing.
    pub program: Option<PathBuf>,
    /// One that speaks the previous version of the peer protocol; built when it is missing and needed.
    pub previous: Option<PathBuf>,
    /// What all randomness comes from.
    pub seed: u64,
    /// Folder of the report; what it holds of these scenarios is replaced.
    pub out: PathBuf,
}

/// What runs has so much precedence over whatever else the machine does: others that are busy are no fault of the nodes.
const NICER_BY: i32 = -10;

/// Runs scenarios one after the other; whether none failed. From here on this thread, and all that it starts, goes before
/// others where that is allowed.
///
/// # Errors
/// When a scenario is unknown or no scenario, a program is missing, or the report cannot be written.
pub fn run(order: &Order) -> anyhow::Result<bool> {
    let scenarios = catalogue::chosen(&order.scenarios)?;
    let _ = rustix::process::nice(NICER_BY);
    let needs_previous = scenarios.iter().any(Scenario::needs_previous_build);
    let programs = Programs::find(order.program.as_deref(), order.previous.as_deref(), needs_previous)?;
    std::fs::create_dir_all(&order.out).with_context(|| format!("making {}", order.out.display()))?;
    let out = order.out.canonicalize()?;
    let mut report = Report { date: catalogue::today(), machine: machine(), runs: Vec::new() };
    for (nth, scenario) in scenarios.iter().enumerate() {
        let line = Line::begin(nth + 1, scenarios.len(), &scenario.name);
        let judged = run_one(scenario, &programs, order.seed, &out.join(&scenario.name), &line)?;
        line.end(&judged);
        report.runs.push(judged);
        report.write(&out)?;
    }
    println!("{}\n{}", report.summary(), out.join("report.md").display());
    Ok(report.has_passed())
}

fn run_one(scenario: &Scenario, programs: &Programs, seed: u64, folder: &Path, line: &Line) -> anyhow::Result<Judged> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    let nodes = folder.join("nodes");
    std::fs::create_dir_all(&nodes).with_context(|| format!("making {}", nodes.display()))?;
    let judged = match play::play(scenario, programs, seed, &nodes, line) {
        Ok(story) => Judged { verdict: Verdict::on(scenario, &story), story },
        Err(error) => {
            let story = Story { scenario: scenario.name.clone(), about: scenario.about.clone(), ..Story::default() };
            let verdict = match error.downcast_ref::<NotHere>() {
                Some(why) => Verdict::Skipped(why.to_string()),
                None => Verdict::Failed(vec![format!("it could not be done: {error:#}")]),
            };
            Judged { story, verdict }
        }
    };
    judged.write(folder)?;
    Ok(judged)
}

/// Processors of this machine.
#[must_use]
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, model)| model);
    format!("{cores} processors ({})", model.unwrap_or("unknown model"))
}

impl Scenario {
    /// Whether a node runs a build of the previous version of the peer protocol at some time.
    #[must_use]
    pub fn needs_previous_build(&self) -> bool {
        let rolls_back =
            |fault: &fault::Fault| matches!(fault, fault::Fault::Roll { build: Some(Build::Previous), .. });
        self.build == Build::Previous || self.cycle.iter().flat_map(|cycle| &cycle.faults).any(rolls_back)
    }
}
