//! A small deterministic simulator: whole nodes without sockets on one thread, under virtual time. The same seed gives the
//! same run. What it refuses to be: a second implementation of anything it judges.
//!
//! | file | what |
//! |---|---|
//! | `world` | virtual time, the order of everything, effects into frames |
//! | `queue` | what is to happen, in that order |
//! | `commits` | group commits onto its disk |
//! | `node` | one machine: the real pure rooms, a clock, a disk |
//! | `net`, `wire`, `gossip` | connections that delay, stall and break; membership in small |
//! | `phones`, `callers`, `registrar` | what is asked for; which node is asked, how often; the SIP side of a node |
//! | `line` | what one AoR's phones sent and heard, and what therefore must ring |
//! | `faults`, `cuts`, `restarts` | what goes wrong; with paths that are cut; with nodes that die |
//! | `judge` | what must hold |
//! | `stamps`, `traffic` | what was drawn; what travels, and what it may cost |
//! | `plan`, `shrink` | a run as a file, and cut down to what makes it fail |
//! | `versions` | builds of several wire versions in one cluster |
//! | `mutants` | whether deliberate faults in the nodes are found |
//! | `mod` | a seed's story: faults one after another, and after each the world must settle |

mod callers;
mod commits;
mod cuts;
mod faults;
mod gossip;
mod judge;
mod line;
mod mutants;
mod net;
mod node;
mod phones;
mod plan;
mod queue;
mod registrar;
mod restarts;
mod shrink;
mod stamps;
mod traffic;
mod versions;
mod wire;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use plan::REQUESTS_PER_STEP;
use world::World;

pub use faults::Fault;
pub use mutants::{Caught, HUNTS, Hunt, Hunted, first_seeds, hunt, names, survey};
pub use plan::{Ack, Habit, Jump, Limits, Plan, Step};
pub use shrink::shrink;
pub use world::Figures;

/// After the last fault has ended the world must be settled within this, µs.
const SETTLES_WITHIN_US: u64 = 8_000_000;

/// And so soon after nothing but paths was cut, µs.
const HEALS_WITHIN_US: u64 = 3_000_000;

/// A path that was cut may still be unknown to be open for so long, µs: judging answers waits.
const CALM_AFTER_US: u64 = 4_000_000;

/// For so long an idle cluster is listened to at the end, µs: each node compares with somebody meanwhile.
const IDLE_US: u64 = 2_500_000;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What did not hold, if anything.
    pub failure: Option<String>,
    /// Figures.
    pub figures: Figures,
    /// The numbers of the requests that were made.
    pub requests: Vec<u64>,
    /// What happened, line by line, if it was asked for.
    pub said: Vec<String>,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, talk: bool) -> Outcome {
    run_plan(&Plan::of(seed), talk)
}

/// Runs a plan.
#[must_use]
pub fn run_plan(plan: &Plan, talk: bool) -> Outcome {
    let mut world = World::new(plan);
    world.said = talk.then(Vec::new);
    world.only = plan.only.clone();
    let told = catch_unwind(AssertUnwindSafe(|| mutants::with(plan.mutant.as_deref(), || story(&mut world, plan))));
    let failure = told.unwrap_or_else(|panic| Err(format!("panic: {}", said_by(&*panic)))).err();
    let said = world.said.take().unwrap_or_default();
    Outcome { seed: plan.seed, failure, figures: world.figures, requests: world.asked_at, said }
}

/// The text of a panic: an assertion of the rooms themselves.
fn said_by(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

fn story(world: &mut World, plan: &Plan) -> Result<(), String> {
    for node in 0..world.nodes.len() {
        world.start(node);
        let us = world.rng.u64(0..300_000);
        world.run(us, |_| Ok(false))?;
    }
    settle(world, "after the first start")?;
    plan.steps.iter().try_for_each(|step| happens(world, step))?;
    world.judge_idle(IDLE_US)
}

/// Load, a fault under load, peace.
fn happens(world: &mut World, step: &Step) -> Result<(), String> {
    world.asks = step.number * REQUESTS_PER_STEP;
    world.rng.seed(step.seed);
    let mut rng = fastrand::Rng::with_seed(!step.seed);
    world.versions.install(&step.wire_versions);
    for (node, ppm) in step.drift_ppm.iter().enumerate() {
        world.drift(node, *ppm);
    }
    world.load(true);
    world.sluggish = step.sluggish;
    world.calm_since_us = Some(world.now_us);
    let (short, overflows) = (world.figures.short, world.figures.overflows);
    world.run(step.load_us, calm)?;
    if world.figures.short > short && world.figures.overflows == overflows {
        return Err("answers were short though nothing was wrong".into());
    }
    world.say(|| format!("fault: {step:?}"));
    world.calm_since_us = None;
    world.gentle = step.fault.is_gentle();
    world.somebody_must_serve = step.fault.leaves_all_running();
    faults::strike(world, step, &mut rng)?;
    world.somebody_must_serve = false;
    world.load(false);
    world.sluggish = None;
    world.say(|| format!("over: {:?}", step.fault));
    let (differed, before, over_us) = (world.difference(), world.traffic.clone(), world.now_us);
    let overflows = world.figures.overflows;
    settle(world, &format!("after {:?}", step.fault))?;
    if step.fault.is_cut() {
        let took_us = world.now_us - over_us;
        world.figures.slowest_heal_us = world.figures.slowest_heal_us.max(took_us);
        if took_us > HEALS_WITHIN_US {
            return Err(format!("it took {} ms to become the same after {:?}", took_us / 1000, step.fault));
        }
        world.judge_repair(&before, differed, world.figures.overflows - overflows)?;
    }
    world.calm_since_us = Some(world.now_us);
    world.replays(&mut rng);
    world.run(CALM_AFTER_US, calm).map(drop)
}

/// What must hold while nothing is cut.
fn calm(world: &mut World) -> Result<bool, String> {
    world.judges_news = true;
    world.judge_answers()?;
    bounded(world)
}

fn bounded(world: &mut World) -> Result<bool, String> {
    world.judge_bounds()?;
    Ok(false)
}

/// The world must become settled, and then everything acknowledged must be so.
fn settle(world: &mut World, when: &str) -> Result<(), String> {
    let settled = world.run(SETTLES_WITHIN_US, |world| Ok(world.is_settled().is_ok()))?;
    if !settled {
        let why = world.is_settled().err().unwrap_or_default();
        return Err(format!("not settled {} s {when}: {why}", SETTLES_WITHIN_US / 1_000_000));
    }
    world.returns = None;
    world.settles();
    world.judge_answers().and_then(|()| world.judge_agreement()).map_err(|why| format!("{when}: {why}"))
}
