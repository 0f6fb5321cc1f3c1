//! What phones notice of snapshots, and whether memory grows with the number of updates. Ours only.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::finding::{Finding, middle};
use super::load::{Latencies, Mix, Pace, Population, Running, Work};
use super::measure::{Meter, own_processor};
use super::processes::{self, Watch};
use super::servers::{Kind, Servers};

/// Refreshes a second.
const RATE: f64 = 20_000.0;
/// Before the measuring.
const WARM_UP: Duration = Duration::from_secs(3);
/// So often a cluster without snapshots and one with them are measured, in turns: what else the machine does comes to both.
const TURNS: usize = 3;
/// Snapshots as they are by default, and practically none.
const OFTEN: &str = "snapshot_interval_ms = 1000";
const NEVER: &str = "snapshot_interval_ms = 3600000";
/// Requests in flight while updates are counted.
const WINDOW: usize = 256;
/// Looks at memory while updates are counted: so many that what snapshots take and give back, a tenth of all, is seen at every
/// stage, and not once by chance.
const LOOKS: u64 = 100;
/// Of all looks, those before are of a database that is being filled: it holds several copies of the table, and is then renewed
/// bit by bit.
const SETTLED: f64 = 0.4;
/// The part of all looks that is compared, after that and at the end.
const COMPARED: f64 = 0.2;
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
    let (mut calm, mut with, mut void) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 1..=TURNS {
        for (which, interval, turns) in [("without", NEVER, &mut calm), ("with", OFTEN, &mut with)] {
            say(format!("{which} snapshots, turn {turn} of {TURNS}"));
            let (latencies, why) = paced(meter, &start(interval)?, plan)?;
            turns.push(latencies);
            void.extend(why);
        }
    }
    let (calm, with) = (typical(calm), typical(with));
    let growth = grown(meter, &start(OFTEN)?, plan, &say)?;
    let finding =
        Finding { void, ..Finding::default() }.with("p99_rise", with.p99_rise(&calm)).with("growth_percent", growth);
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
    let (pids, cores) = (servers.pids(), &meter.cores.servers);
    running.look()?;
    let watch = Watch::begin(cores, &pids);
    thread::sleep(plan.lasts);
    let mut void = watch.end(&pids).void();
    let tally = running.look()?;
    running.stop()?;
    let failed = tally.failed();
    void.extend((failed > 0).then(|| format!("{failed} of {} requests failed", tally.sent)));
    void.extend(servers.left_service().into_iter().filter(|_| tally.refused > 0));
    void.extend(own_processor(&tally));
    Ok((tally.latencies(), void))
}

/// The turn in the middle, by p99.
fn typical(mut turns: Vec<Latencies>) -> Latencies {
    turns.sort_by(|one, two| one.p99_ms.total_cmp(&two.p99_ms));
    turns.get(turns.len() / 2).copied().unwrap_or_default()
}

/// By how much the memory of all nodes grew with the updates, percent.
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
    Ok(growth(&looks))
}

/// By how much the last looks are above those right after the database was filled, on the median, percent.
fn growth(looks: &[f64]) -> f64 {
    let count = |share: f64| (looks.len() as f64 * share) as usize;
    let (settled, compared) = (count(SETTLED), count(COMPARED).max(1));
    let early = middle(looks.iter().copied().skip(settled).take(compared).collect());
    let late = middle(looks.iter().copied().rev().take(compared).collect());
    early.zip(late).map_or(0.0, |(early, late)| (late / early - 1.0) * 100.0)
}

/// Our nodes, with this more in their configuration.
pub(super) fn starter<'a>(kind: Kind<'a>, nodes: usize) -> impl Fn(&str) -> anyhow::Result<Servers> + 'a {
    move |more| match kind {
        Kind::Aorta(program, config) => Servers::start(Kind::Aorta(program, &format!("{more}\n{config}")), nodes),
        Kind::Kamailio => Servers::start(kind, nodes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_what_stays_and_not_what_comes_and_goes() {
        let swing = |at: u32| if at % 7 < 3 { 8.0 } else { 0.0 };
        let fills = |at: u32| f64::from(at.min(30));
        let looks =
            |more: fn(u32) -> f64| -> Vec<f64> { (0..100).map(|at| 70.0 + fills(at) + swing(at) + more(at)).collect() };
        assert_eq!(growth(&looks(|_| 0.0)), 0.0, "it swings, and no more");
        let grown = growth(&looks(|at| f64::from(at) / 4.0));
        assert!((8.0..16.0).contains(&grown), "a quarter for each look: {grown}");
    }
}
