//! Does one experiment once: starts what is measured, fills it, measures, and ends it.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::Options;
use super::catalogue::{Experiment, Load};
use super::finding::Finding;
use super::load::{Population, delays};
use super::measure::Meter;
use super::nodes::AortaNodes;
use super::progress::Line;
use super::servers::{Kind, Servers};
use super::{processes, size, snapshot};

/// Nodes of the experiment with the size of a table, one of which comes and goes.
pub(super) const SIZE_NODES: usize = 3;
/// Phones that may come beside those that are registered before.
pub(super) const NEWCOMERS_MAX: u32 = 8_000_000;
/// Phones one after the other, where delays are measured, and the pause between two.
const DELAY_PHONES: u32 = 2000;
const DELAY_PAUSE: Duration = Duration::from_millis(1);
/// Until memory for what is on its way is free again.
const REST: Duration = Duration::from_secs(10);
const MIB: f64 = 1_048_576.0;
/// Time for nodes to be idle before that.
const IDLE: Duration = Duration::from_secs(2);

/// Does it.
///
/// # Errors
/// When something cannot be started, ends, or takes too long; a finding that must not be believed is none: it says so.
pub(super) fn run(
    meter: &mut Meter,
    options: &Options,
    experiment: &Experiment,
    kind: Kind<'_>,
) -> anyhow::Result<Finding> {
    let line = Line::begin(experiment.name());
    line.say("starting nodes".to_owned());
    match (experiment, kind) {
        (Experiment::Load(load), _) => loaded(meter, options, load, kind, &line),
        (Experiment::Memory, _) => memory(meter, options, &Servers::start(kind, options.nodes)?, &line),
        (Experiment::Lag, _) => lag(meter, &Servers::start(kind, options.nodes)?),
        (Experiment::Size, Kind::Aorta(program, config)) => {
            let nodes = AortaNodes::place(program, SIZE_NODES, config)?;
            Ok(size::measure(meter, nodes, options.contacts, |what| line.say(what))?.into())
        }
        (Experiment::Snapshot, Kind::Aorta(..)) => {
            let lasts = Duration::from_secs_f64(options.seconds * 2.0);
            let Options { nodes, phones, updates, .. } = *options;
            let plan = snapshot::Plan { phones, lasts, updates };
            snapshot::measure(meter, snapshot::starter(kind, nodes), plan, |what| line.say(what))
        }
        (Experiment::Size | Experiment::Snapshot, Kind::Kamailio) => {
            bail!("{} is measured of our nodes only", experiment.name())
        }
    }
}

fn loaded(meter: &mut Meter, options: &Options, load: &Load, kind: Kind<'_>, line: &Line) -> anyhow::Result<Finding> {
    let servers = Servers::start(kind, options.nodes)?;
    let newcomers = if load.brings_new() { NEWCOMERS_MAX } else { 0 };
    let population = Population::new(options.phones + newcomers);
    let population = meter.fill(&servers.sips(), population, options.phones, servers.fill_window(), |registered| {
        line.say(format!("{registered} of {} phones registered", options.phones));
    })?;
    line.say("measuring".to_owned());
    Ok(meter.row(&load.plan(options), &servers, population)?.0.into())
}

/// Memory that each contact adds to a node at which phones register one by one.
fn memory(meter: &Meter, options: &Options, servers: &Servers, line: &Line) -> anyhow::Result<Finding> {
    let nodes = options.nodes as f64;
    let bytes = || -> anyhow::Result<f64> { Ok(processes::memory_bytes(&servers.pids())? as f64 / nodes) };
    let empty = bytes()?;
    let contacts = options.contacts;
    meter.fill(&servers.sips(), Population::new(contacts), contacts, servers.fill_window(), |registered| {
        line.say(format!("{registered} of {contacts} phones registered"));
    })?;
    line.say("resting".to_owned());
    thread::sleep(REST);
    let full = bytes()?;
    let finding = Finding::default().with("contact_bytes", (full - empty) / f64::from(contacts));
    Ok(finding.with("empty_mib", empty / MIB).with("full_mib", full / MIB))
}

/// Delays of single requests at nodes that have nothing else to do.
fn lag(meter: &Meter, servers: &Servers) -> anyhow::Result<Finding> {
    thread::sleep(IDLE);
    let (targets, cores) = (servers.sips(), meter.cores.clone());
    let probe = move || {
        cores.enter_generator()?;
        delays(&targets, 0, DELAY_PHONES, DELAY_PAUSE)
    };
    let probing = thread::Builder::new().name("probe".to_owned()).spawn(probe).context("starting the probe")?;
    let delays = probing.join().map_err(|_| anyhow::anyhow!("the probe panicked"))??;
    let late = delays.late as f64 * 100.0 / delays.phones.max(1) as f64;
    let finding = Finding::default().with("late_percent", late);
    Ok(finding.latencies("answer_", &delays.answer).latencies("visible_", &delays.visible))
}
