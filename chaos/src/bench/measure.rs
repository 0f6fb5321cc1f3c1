//! One row: a load on a cluster for some seconds, what it met, what it cost, and whether that may be believed.

use std::net::SocketAddr;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use super::cores::Cores;
use super::echo::Echo;
use super::load::{Latencies, Mix, Pace, Population, Running, Tally, Work};
use super::processes::{self, Watch, Watched};
use super::servers::Servers;

/// Above this share of what the load can do, it is the load that is measured.
const CEILING_SHARE_MAX: f64 = 0.8;
/// Requests in flight when the load's ceiling is measured.
const CEILING_WINDOW: usize = 1024;
/// Phones of the load when its ceiling is measured.
const CEILING_PHONES: u32 = 100_000;
/// How long that takes.
const CEILING_LASTS: Duration = Duration::from_secs(1);
/// The load must have had its processor for this share of the time.
const OWN_SHARE_MIN: f64 = 0.96;
/// Requests refused or lost, of all: above it, a row is void.
const FAILED_SHARE_MAX: f64 = 0.001;
/// Longest time for registrations before the measuring.
const FILL_PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks while waiting.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a row asks of whatever serves.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) mix: Mix,
    pub(super) pace: Pace,
    /// Whether one node is asked, or all in turns.
    pub(super) one_node: bool,
    pub(super) sources: usize,
    /// Phones that are registered before.
    pub(super) phones: u32,
    pub(super) warm_up: Duration,
    pub(super) lasts: Duration,
    pub(super) ack: bool,
    pub(super) segments: bool,
}

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Answers a second, as expected.
    pub per_s: f64,
    /// Processor time of the whole cluster for one of them, microseconds.
    pub cpu_us: f64,
    /// Time in which the servers' processors were neither idle nor stolen, for one of them, microseconds: with what the kernel did.
    pub busy_us: f64,
    /// From sending, or in an open loop from being due.
    pub latencies: Latencies,
    /// Requests answered.
    pub answered: u64,
    /// Answers of another kind than expected.
    pub refused: u64,
    /// Requests sent again.
    pub retransmitted: u64,
    /// Requests given up.
    pub lost: u64,
    /// Requests sent again and not answered yet.
    pub unanswered: u64,
    /// Datagrams that found no room in a socket.
    pub dropped: u64,
    /// What the load itself could have done.
    pub ceiling_per_s: f64,
    /// Processor time of something else, of all that there was on the servers' processors.
    pub foreign_share: f64,
    /// Memory of a node at the end, its share of what processes share included, MiB.
    pub node_mib: f64,
    /// Why it must not be believed; nothing if it may.
    pub void: Vec<String>,
}

/// Measures rows.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) cores: Cores,
    /// What the load can do, by what it does and from how many ports.
    ceilings: Vec<(Mix, usize, bool, f64)>,
}

impl Meter {
    pub(super) fn new(cores: Cores) -> Self {
        Self { cores, ceilings: Vec::new() }
    }

    /// Registers phones at all of these until so many are there.
    ///
    /// # Errors
    /// When that takes too long.
    pub(super) fn fill(
        &self,
        targets: &[SocketAddr],
        population: Population,
        until: u32,
        window: usize,
        mut progress: impl FnMut(u64),
    ) -> anyhow::Result<Population> {
        if population.registered() >= until {
            return Ok(population);
        }
        let work = Work {
            targets: targets.to_vec(),
            sources: 8,
            pace: Pace::Closed { window },
            mix: Mix::NEW,
            known: 0..0,
            new_until: until,
            ack: false,
            segments: true,
        };
        let running = Running::start(work, population, &self.cores)?;
        let begun = Instant::now();
        while !running.has_ended() {
            ensure!(
                begun.elapsed() < FILL_PATIENCE,
                "{} phones registered within {FILL_PATIENCE:?}",
                running.answered()
            );
            thread::sleep(LOOK_AGAIN);
            progress(running.answered());
        }
        Ok(running.stop()?.1)
    }

    /// Measures one row. `population` must hold the plan's phones.
    ///
    /// # Errors
    /// When the load fails; a row that must not be believed is none: it says so.
    pub(super) fn row(
        &mut self,
        plan: &Plan,
        servers: &Servers,
        population: Population,
    ) -> anyhow::Result<(Row, Population)> {
        let ceiling_per_s = self.ceiling(plan)?;
        let targets = if plan.one_node { servers.sips()[..1].to_vec() } else { servers.sips() };
        let known = 0..plan.phones;
        let new_until = population.capacity();
        let running = Running::start(work(plan, targets, known, new_until), population, &self.cores)?;
        thread::sleep(plan.warm_up);
        let pids = servers.pids();
        running.look()?;
        let watch = Watch::begin(&self.cores.servers, &pids);
        thread::sleep(plan.lasts);
        let ended = running.has_ended();
        let watched = watch.end(&pids);
        ensure!(!ended, "all phones that there can be are registered: give fewer --seconds");
        let tally = running.look()?;
        let (_, population) = running.stop()?;
        let mut row = judged(plan, &tally, &watched, ceiling_per_s);
        if row.refused > 0 && !row.void.is_empty() {
            // The folders of the nodes go away with them.
            row.void.extend(servers.left_service());
        }
        row.node_mib = processes::memory_bytes(&pids)? as f64 / servers.sips().len() as f64 / f64::from(1 << 20);
        Ok((row, population))
    }

    /// What the load can do of this, against echoes on the same processors; 0 for an open loop, whose pace is given.
    fn ceiling(&mut self, plan: &Plan) -> anyhow::Result<f64> {
        if matches!(plan.pace, Pace::Open { .. }) {
            return Ok(0.0);
        }
        let (mix, sources) = (as_known(plan.mix), plan.sources);
        let known = |(a, b, c, _): &&(Mix, usize, bool, f64)| (*a, *b, *c) == (mix, sources, plan.ack);
        if let Some((.., per_s)) = self.ceilings.iter().find(known) {
            return Ok(*per_s);
        }
        let echo = Echo::start(&self.cores)?;
        let window = CEILING_WINDOW;
        let plan = Plan { mix, pace: Pace::Closed { window }, phones: CEILING_PHONES, ..plan.clone() };
        let population = Population::all_registered(CEILING_PHONES);
        let targets = echo.addresses().to_vec();
        let running = Running::start(work(&plan, targets, 0..CEILING_PHONES, 0), population, &self.cores)?;
        thread::sleep(CEILING_LASTS / 4);
        running.look()?;
        thread::sleep(CEILING_LASTS);
        let per_s = running.look()?.per_s();
        running.stop()?;
        self.ceilings.push((mix, sources, plan.ack, per_s));
        Ok(per_s)
    }
}

fn judged(plan: &Plan, tally: &Tally, watched: &Watched, ceiling_per_s: f64) -> Row {
    let answered = tally.answered.max(1) as f64;
    let each_us = |time: Duration| time.as_secs_f64() * 1e6 / answered;
    let mut row = Row {
        per_s: tally.per_s(),
        cpu_us: each_us(watched.used),
        busy_us: each_us(watched.busy.busy),
        latencies: tally.latencies(),
        answered: tally.answered,
        refused: tally.refused,
        retransmitted: tally.retransmitted,
        lost: tally.lost,
        unanswered: tally.unanswered,
        dropped: watched.busy.dropped,
        ceiling_per_s,
        foreign_share: watched.foreign_share,
        node_mib: 0.0,
        void: watched.void(),
    };
    let mut void = |holds: bool, why: String| row.void.extend(holds.then_some(why));
    let (refused, last, unanswered) = (tally.refused, tally.last_refused, tally.unanswered);
    let failed = (refused + tally.lost + unanswered) as f64 / tally.sent.max(1) as f64;
    void(tally.answered == 0, "no answer".to_owned());
    void(
        failed > FAILED_SHARE_MAX,
        format!("{refused} refused (the last with {last}), {} lost, {unanswered} unanswered", tally.lost),
    );
    void(tally.overrun > 0, format!("{} requests were due and not sent", tally.overrun));
    if matches!(plan.pace, Pace::Closed { .. }) {
        let share = tally.per_s() / ceiling_per_s;
        void(share > CEILING_SHARE_MAX, format!("at {:.0} % of what the load can do", share * 100.0));
    }
    row.void.extend(own_processor(tally));
    row
}

/// Why a load must not be believed that had to share its processor.
pub(super) fn own_processor(tally: &Tally) -> Option<String> {
    let own = tally.on_processor;
    (own < OWN_SHARE_MIN).then(|| format!("the load had its processor for {:.0} % of the time", own * 100.0))
}

/// The same work with phones that are registered: new ones are no other work for the load.
fn as_known(mix: Mix) -> Mix {
    Mix { new: 0, refresh: mix.refresh + mix.new, ..mix }
}

fn work(plan: &Plan, targets: Vec<SocketAddr>, known: Range<u32>, new_until: u32) -> Work {
    let Plan { sources, pace, mix, ack, segments, .. } = *plan;
    Work { targets, sources, pace, mix, known, new_until, ack, segments }
}
