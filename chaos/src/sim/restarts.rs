//! Nodes that die and start again, from disks as they were left, older ones, or none: the faults in which that is all.

use super::faults::{Fault, jump};
use super::plan::{Ack, Step};
use super::world::{RARE_SNAPSHOT_US, World};
use super::{bounded, calm, node};

/// Until a node that is cut off is no member any more, and its links are gone, µs.
const GIVEN_UP_US: u64 = 2_200_000;

/// Within this whoever is a member is on the disk of every other one, µs.
const REMEMBERED_WITHIN_US: u64 = 2 * RARE_SNAPSHOT_US;

/// Nothing is written for a while, not even the ceiling; there is room again when it starts anew.
pub(super) fn disk_full(world: &mut World, node: usize, lasts_us: u64, rng: &mut fastrand::Rng) -> Result<(), String> {
    world.nodes[node].disk_full = true;
    world.run(lasts_us, calm)?;
    world.crash(node);
    world.nodes[node].disk_full = false;
    world.run(rng.u64(1..1_000_000), calm)?;
    world.start(node);
    world.run(rng.u64(1..2_000_000), calm).map(drop)
}

/// One node crashes and comes back with its disk as it then was, an older copy of it, or none.
pub(super) fn crash_one(world: &mut World, step: &Step, one: usize, rng: &mut fastrand::Rng) -> Result<(), String> {
    world.crash(one);
    match step.fault {
        Fault::CrashEmpty(_) => world.nodes[one].disk = node::Disk::default(),
        Fault::CrashOlder(_) => world.nodes[one].disk = world.nodes[one].older.clone(),
        _ => world.nodes[one].disk.tear(rng.usize(..64)),
    }
    world.run(step.lasts_us, calm)?;
    world.start(one);
    world.run(rng.u64(1..2_000_000), calm).map(drop)
}

/// All die: with `ack = "disk"` under load, else when all disks have everything; a wall clock may be set while nobody runs.
pub(super) fn crash_all(world: &mut World, step: &Step, rng: &mut fastrand::Rng) -> Result<(), String> {
    let nodes = world.nodes.len();
    if world.limits.ack == Ack::Disk {
        world.run(rng.u64(..1_500_000), calm)?;
        world.load(false);
    } else {
        world.load(false);
        // Short lifetimes end before, meanwhile, or after.
        world.run(rng.u64(1_500_000..5_000_000), calm)?;
    }
    (0..nodes).for_each(|node| world.crash(node));
    if let Fault::CrashAllButDisk { node, older } = step.fault {
        let older = older.then(|| world.nodes[node].older.clone());
        world.nodes[node].disk = older.unwrap_or_default();
    }
    jump(world, step);
    world.off.ahead_us += node::CEILING_AHEAD_US;
    world.run(step.lasts_us, |_| Ok(false))?;
    if step.jump.is_some() {
        // Of two that start together the one whose clock is behind may be believed.
        world.off.behind_us += step.lasts_us + node::CEILING_AHEAD_US;
    }
    let apart_us = if rng.bool() { 1_000_000 } else { 20_000 };
    for node in 0..nodes {
        world.start(node);
        world.run(rng.u64(1..apart_us), calm)?;
    }
    Ok(())
}

/// Those that are back first hold old tables and must deny nobody until the last one is back.
pub(super) fn crash_all_one_late(world: &mut World, late: usize, rng: &mut fastrand::Rng) -> Result<(), String> {
    let nodes = world.nodes.len();
    // A disk from before its node had heard of the others is an empty one, and those with empty disks may start a cluster.
    let know_all = |world: &mut World| Ok(world.nodes.iter().all(|node| node.disk.members() + 1 == nodes));
    if !world.run(REMEMBERED_WITHIN_US, |world| calm(world).and_then(|_| know_all(world)))? {
        return Err("members are not on every disk two snapshots after all had settled".into());
    }
    let old: Vec<node::Disk> = world.nodes.iter().map(|node| node.disk.clone()).collect();
    world.run(rng.u64(500_000..1_500_000), calm)?;
    world.load(false);
    world.run(1_500_000, calm)?;
    for (node, disk) in old.into_iter().enumerate() {
        world.crash(node);
        if node != late {
            world.nodes[node].disk = disk;
        }
    }
    world.off.ahead_us += 2 * node::CEILING_AHEAD_US;
    world.judge_ghosts = false;
    for node in (0..nodes).filter(|node| *node != late) {
        world.start(node);
    }
    world.run(rng.u64(1_000_000..6_000_000), calm)?;
    world.start(late);
    world.run(3_000_000, calm)?;
    world.judge_ghosts = true;
    Ok(())
}

/// One is killed while another is cut off. What the first answered in full is elsewhere, unless the only other holder is
/// the one that is cut off: so nothing is asked in the meantime, and answers are judged after it is back.
pub(super) fn crash_in_cut(
    world: &mut World,
    (one, two): (usize, usize),
    lasts_us: u64,
    rng: &mut fastrand::Rng,
) -> Result<(), String> {
    let others = (0..world.nodes.len()).filter(|other| *other != two);
    world.net.cut.extend(others.flat_map(|other| [(two, other), (other, two)]));
    world.run(lasts_us / 2, bounded)?;
    world.load(false);
    world.crash(one);
    world.run(lasts_us / 2, bounded)?;
    world.net.cut.clear();
    world.run(rng.u64(1..3_000_000), bounded)?;
    world.start(one);
    Ok(())
}

/// Each time it has to join anew, while phones go on.
pub(super) fn again_and_again(
    world: &mut World,
    node: usize,
    lasts_us: u64,
    rng: &mut fastrand::Rng,
) -> Result<(), String> {
    let until_us = world.now_us + lasts_us;
    while world.now_us < until_us {
        world.crash(node);
        if rng.u8(..) < 64 {
            world.nodes[node].disk = node::Disk::default();
        }
        world.run(rng.u64(1_000..300_000), calm)?;
        world.start(node);
        world.run(rng.u64(200_000..1_500_000), calm)?;
    }
    Ok(())
}

/// What it answered all alone was short: it is lost, and nobody was told otherwise.
pub(super) fn lose_in_cut(world: &mut World, node: usize, lasts_us: u64) -> Result<(), String> {
    let others = (0..world.nodes.len()).filter(|other| *other != node);
    world.net.cut.extend(others.flat_map(|other| [(node, other), (other, node)]));
    world.run(GIVEN_UP_US + lasts_us / 2, bounded)?;
    world.crash(node);
    world.nodes[node].disk = node::Disk::default();
    world.net.cut.clear();
    world.start(node);
    Ok(())
}
