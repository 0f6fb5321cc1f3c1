//! What phones notice of snapshots, and whether memory grows with the number of updates. Ours only.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::finding::Finding;
use super::load::{Latencies, Mix, Pace, Population, Running, Work};
use super::measure::Meter;
use super::processes;
use super::servers::{Kind, Servers};

/// Refreshes a second.
const RATE: f64 = 20_000.0;
/// Before the measuring.
const WARM_UP: Duration = Duration::from_secs(3);
/// Snapshots as they are by default, and practically none.
const OFTEN: &str = "snapshot_interval_ms = 1000";
const NEVER: &str = "snapshot_interval_ms = 3600000";
/// Requests in flight while updates are counted.
const WINDOW: usize = 256;
/// Looks at memory while updates are counted; the first ones are not held against the last.
const LOOKS: u64 = 20;
/// Longest time for all updates.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Between two looks while waiting.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) phones: u32,
    pub(super) lasts: Duration,
    /// Refreshes while memory is watched.
    pub(super) updates: u64,
}

/// Measures both.
///
/// # Errors
/// When a node ends, or something takes too long.
pub(super) fn measure(
    meter: &Meter,
    start: impl Fn(&str) -> anyhow::Result<Servers>,
    plan: Plan,
    say: impl Fn(String),
) -> anyhow::Result<Finding> {
    say("without snapshots".to_owned());
    let (calm, mut void) = paced(meter, &start(NEVER)?, plan)?;
    say("with snapshots".to_owned());
    let servers = start(OFTEN)?;
    let (with, more) = paced(meter, &servers, plan)?;
    void.extend(more);
    drop(servers);
    let growth = grown(meter, &start(OFTEN)?, plan, &say)?;
    let finding = Finding { void, ..Finding::default() }
        .with("p99_rise", with.p99_ms / calm.p99_ms.max(0.001))
        .with("growth_percent", growth);
    Ok(finding.latencies("without_", &calm).latencies("with_", &with))
}

fn filled(meter: &Meter, servers: &Servers, plan: Plan) -> anyhow::Result<Population> {
    meter.fill(&servers.sips(), Population::new(plan.phones), plan.phones, servers.fill_window(), |_| ())
}

fn work(servers: &Servers, pace: Pace, phones: u32) -> Work {
    Work {
        targets: servers.sips(),
        sources: 16,
        pace,
        mix: Mix::REFRESH,
        known: 0..phones,
        new_until: 0,
        ack: false,
        segments: true,
    }
}

/// Latencies at a fixed rate, and why they must not be believed.
fn paced(meter: &Meter, servers: &Servers, plan: Plan) -> anyhow::Result<(Latencies, Vec<String>)> {
    let population = filled(meter, servers, plan)?;
    let work = work(servers, Pace::Open { per_s: RATE, poisson: false }, plan.phones);
    let running = Running::start(work, population, &meter.cores)?;
    thread::sleep(WARM_UP);
    running.look()?;
    thread::sleep(plan.lasts);
    let tally = running.look()?;
    running.stop()?;
    let failed = tally.refused + tally.lost + tally.overrun;
    let void = (failed > 0).then(|| format!("{failed} of {} requests failed", tally.sent));
    Ok((tally.latencies(), void.into_iter().collect()))
}

/// By how much the memory of all nodes grew from an early look to the largest of the later ones, percent.
fn grown(meter: &Meter, servers: &Servers, plan: Plan, say: &impl Fn(String)) -> anyhow::Result<f64> {
    let population = filled(meter, servers, plan)?;
    let running =
        Running::start(work(servers, Pace::Closed { window: WINDOW }, plan.phones), population, &meter.cores)?;
    let (begun, pids) = (Instant::now(), servers.pids());
    let mut looks: Vec<f64> = Vec::new();
    while (looks.len() as u64) < LOOKS {
        let due = plan.updates / LOOKS * (looks.len() as u64 + 1);
        if running.answered() >= due {
            looks.push(processes::memory_bytes(&pids)? as f64);
        }
        say(format!("{} of {} updates", running.answered(), plan.updates));
        ensure!(
            !running.has_ended() && begun.elapsed() < PATIENCE,
            "{} updates within {PATIENCE:?}",
            running.answered()
        );
        thread::sleep(LOOK_AGAIN);
    }
    running.stop()?;
    // A fifth of the updates is the warm-up of allocators and caches.
    let early = (LOOKS / 5) as usize;
    let most = looks.iter().skip(early).copied().fold(0.0, f64::max);
    Ok((most / looks.get(early).copied().unwrap_or(most) - 1.0) * 100.0)
}

/// Our nodes, with this more in their configuration.
pub(super) fn starter<'a>(kind: Kind<'a>, nodes: usize) -> impl Fn(&str) -> anyhow::Result<Servers> + 'a {
    move |more| match kind {
        Kind::Aorta(program, config) => Servers::start(Kind::Aorta(program, &format!("{more}\n{config}")), nodes),
        Kind::Kamailio => Servers::start(kind, nodes),
    }
}
