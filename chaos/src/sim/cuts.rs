//! Paths that are cut, and what must hold meanwhile: nobody dies, and what anybody holds stays.

use super::restarts::GIVEN_UP_US;
use super::world::World;
use super::{bounded, calm};

/// Of two nodes that do not hear each other, one serves no longer after this, µs: a link that hears nothing lasts two
/// seconds, a change is waited for until then and a little longer, and gossip takes a moment. Where both gave way, the one
/// that begins again waits a second for the other, and for one more it cannot know that all have heard of it.
const GIVES_WAY_WITHIN_US: u64 = 4_500_000;

/// A node that is cut off has lost all others within this, µs: a silent member is dropped after a second.
const LOSES_WITHIN_US: u64 = 1_500_000;

/// And doubts for at least so long, µs.
const DOUBTS_US: u64 = 20_000_000;

/// So many answers may wait at a node that finds out late that another is cut off.
const FINDS_OUT_ANSWERS: u64 = 20;

/// The floor below which nothing is remembered rises in steps of this, µs.
pub(super) const FLOOR_STEP_US: u64 = 10_000_000;

/// Cuts paths, waits, and opens them again.
pub(super) fn towards(world: &mut World, paths: Vec<(usize, usize)>, lasts_us: u64) -> Result<(), String> {
    world.net.cut.extend(paths);
    world.run(lasts_us, bounded)?;
    world.net.cut.clear();
    Ok(())
}

/// Nothing passes between one node and any other.
pub(super) fn cut_off(world: &mut World, one: usize) {
    let others = (0..world.nodes.len()).filter(|other| *other != one);
    world.net.cut.extend(others.flat_map(|other| [(one, other), (other, one)]));
}

/// One node is alone. Once it has lost the others it must not deny what they may have accepted.
pub(super) fn isolate(world: &mut World, one: usize, lasts_us: u64) -> Result<(), String> {
    cut_off(world, one);
    world.run(lasts_us.min(LOSES_WITHIN_US), bounded)?;
    let doubts_until_us = world.now_us + DOUBTS_US;
    world.run(lasts_us.saturating_sub(LOSES_WITHIN_US), |world| {
        let serving = world.nodes[one].process.as_ref().map(|process| process.replication.serving());
        let denies = serving.is_some_and(|serving| serving.requests && serving.denies_unknown);
        if denies && world.now_us < doubts_until_us {
            return Err(format!("n{} is alone, and denies what it does not know", one + 1));
        }
        bounded(world)
    })?;
    world.returns = (lasts_us > GIVEN_UP_US).then_some(one);
    world.net.cut.clear();
    Ok(())
}

/// Two nodes do not hear each other, all others do. One of the two has given way soon, and from then on whoever serves
/// knows what was answered, and most answers are full.
pub(super) fn between(world: &mut World, paths: Vec<(usize, usize)>, lasts_us: u64) -> Result<(), String> {
    world.net.cut.extend(paths);
    world.run(lasts_us.min(GIVES_WAY_WITHIN_US), calm)?;
    let (short, full, overflows) = (world.figures.short, world.figures.full, world.figures.overflows);
    world.run(lasts_us.saturating_sub(GIVES_WAY_WITHIN_US), calm)?;
    // A node that had nothing to publish finds out only now.
    let (short, full) = (world.figures.short - short, world.figures.full - full);
    let judged = world.limits.ack.is_all() && world.figures.overflows == overflows;
    if judged && short > full.max(FINDS_OUT_ANSWERS) {
        let seconds = GIVES_WAY_WITHIN_US as f64 / 1e6;
        return Err(format!("answers were short {seconds} s after two nodes had lost each other"));
    }
    world.net.cut.clear();
    Ok(())
}

/// One node is alone for longer than anybody remembers what it said before: a horizon of its own until others no longer
/// count it, and another one until what they merged of it has lapsed. Before the cut is over nobody asks for anything, for
/// longer than the others remember by themselves: what the one granted last lives on.
pub(super) fn long_alone(world: &mut World, one: usize) -> Result<(), String> {
    let quiet_us = world.limits.least_horizon_us() + FLOOR_STEP_US;
    cut_off(world, one);
    world.run(2 * world.limits.horizon_us() + FLOOR_STEP_US - quiet_us, bounded)?;
    world.load(false);
    world.run(quiet_us, bounded)?;
    world.returns = Some(one);
    world.net.cut.clear();
    Ok(())
}
