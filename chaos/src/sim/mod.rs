//! A small deterministic simulator: whole nodes without sockets on one thread, under virtual time. The same seed gives the
//! same run. What it refuses to be: a second implementation of anything it judges.
//!
//! | file | what |
//! |---|---|
//! | `world` | virtual time, the order of everything, effects into frames |
//! | `node` | one machine: the real pure rooms, a clock, a disk |
//! | `net`, `wire`, `gossip` | connections that delay, stall and break; membership in small |
//! | `phones`, `callers`, `registrar` | what is asked for; which node is asked, how often; the SIP side of a node |
//! | `line` | what one AoR's phones sent and heard, and what therefore must ring |
//! | `faults` | what goes wrong |
//! | `judge` | what must hold |
//! | `mod` | a seed's story: faults one after another, and after each the world must settle |

mod callers;
mod faults;
mod gossip;
mod judge;
mod line;
mod net;
mod node;
mod phones;
mod registrar;
mod wire;
mod world;

use world::World;

pub use world::Figures;

/// After the last fault has ended the world must be settled within this, µs.
const SETTLES_WITHIN_US: u64 = 8_000_000;

/// A path that was cut may still be unknown to be open for so long, µs: judging answers waits.
const CALM_AFTER_US: u64 = 4_000_000;

/// How a seed's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What did not hold, if anything.
    pub failure: Option<String>,
    /// Figures.
    pub figures: Figures,
    /// What happened, line by line, if it was asked for.
    pub said: Vec<String>,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, talk: bool) -> Outcome {
    let mut rng = fastrand::Rng::with_seed(seed);
    let nodes = rng.usize(3..=5);
    let mut world = World::new(seed, nodes, 12);
    world.said = talk.then(Vec::new);
    let failure = story(&mut world, &mut rng).err();
    Outcome { seed, failure, said: world.said.take().unwrap_or_default(), figures: world.figures }
}

fn story(world: &mut World, rng: &mut fastrand::Rng) -> Result<(), String> {
    for node in 0..world.nodes.len() {
        world.start(node);
        world.run(rng.u64(0..300_000), |_| Ok(false))?;
    }
    settle(world, "after the first start")?;
    for _ in 0..rng.usize(2..=5) {
        world.load = true;
        world.calm_since_us = Some(world.now_us);
        let short = world.figures.short;
        world.run(rng.u64(500_000..2_000_000), calm)?;
        if world.figures.short > short {
            return Err("answers were short though nothing was wrong".into());
        }
        let fault = faults::choose(rng, world.nodes.len());
        world.say(|| format!("fault: {fault:?}"));
        world.calm_since_us = None;
        faults::strike(world, fault, rng)?;
        world.load = false;
        world.say(|| format!("over: {fault:?}"));
        settle(world, &format!("after {fault:?}"))?;
        world.run(CALM_AFTER_US, calm)?;
    }
    Ok(())
}

/// What must hold while nothing is cut.
fn calm(world: &mut World) -> Result<bool, String> {
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
    world.judge_answers().map_err(|why| format!("{when}: {why}"))
}
