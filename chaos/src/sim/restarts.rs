//! Nodes that die and start again, from disks as they were left, older ones, or none: the faults in which that is all.

use std::ops::Range;

use aorta_proto::frame::Class;

use super::faults::{Fault, JOINS_WITHIN_US, jump};
use super::net::pair;
use super::plan::{Ack, Step};
use super::world::{RARE_SNAPSHOT_US, World};
use super::{bounded, calm, cuts, node};

/// Until a node that is cut off is no member any more, and its links are gone, µs.
pub(super) const GIVEN_UP_US: u64 = 2_200_000;

/// For so long the disks of a storage that fails take nothing before the machines die, µs: not until replies leave without
/// them.
const STALLS_US: u64 = 250_000;

/// With the default `ack` what was answered in full is on all disks within this: the time from one snapshot to the next, µs.
const ON_DISK_WITHIN_US: u64 = 510_000;

/// When nobody asks for anything, all that was answered is on all disks after this, µs.
const ALL_ON_DISK_WITHIN_US: u64 = RARE_SNAPSHOT_US + 600_000;

/// Within this whoever is a member is on the disk of every other one, µs.
const REMEMBERED_WITHIN_US: u64 = 2 * RARE_SNAPSHOT_US;

/// Of 256 frames so many are the last of their connection, where connections are brittle.
const BREAKS_IN_256: [u8; 4] = [8, 16, 32, 64];

/// One node crashes under load, and may have served all alone: then what it answered in full last is nowhere, unless each answer
/// waited for its disk. Says whether its disk may go as well, for another node has what is on it.
fn crash(world: &mut World, node: usize) -> bool {
    let is_held = world.serves_without(&[node]);
    if !is_held && world.limits.ack != Ack::Disk {
        world.loses_since(world.now_us.saturating_sub(ON_DISK_WITHIN_US));
    }
    world.crash(node);
    is_held
}

/// The same, and now and then the disk is lost.
fn crash_lose_disk(world: &mut World, node: usize, rng: &mut fastrand::Rng) {
    if crash(world, node) & (rng.u8(..) < 64) {
        world.nodes[node].disk = node::Disk::default();
    }
}

/// Nobody asks any more, and a path is cut: whether one of those that stay comes to serve, and so holds what was answered in
/// full. It does not if all of them were joiners of a node that is cut off from them.
pub(super) fn is_held_without(world: &mut World, these: &[usize]) -> Result<bool, String> {
    world.run(JOINS_WITHIN_US, |world| bounded(world).map(|_| world.serves_without(these)))
}

/// Nothing is written for a while, not even the ceiling; there is room again when it starts anew.
pub(super) fn disk_full(world: &mut World, node: usize, lasts_us: u64, rng: &mut fastrand::Rng) -> Result<(), String> {
    world.nodes[node].disk_full = true;
    world.run(lasts_us, calm)?;
    crash(world, node);
    world.nodes[node].disk_full = false;
    world.run(rng.u64(1..1_000_000), calm)?;
    world.start(node);
    world.run(rng.u64(1..2_000_000), calm).map(drop)
}

/// One node crashes and comes back with its disk as it then was, an older copy of it, or none.
pub(super) fn crash_one(world: &mut World, step: &Step, one: usize, rng: &mut fastrand::Rng) -> Result<(), String> {
    let is_held = crash(world, one);
    match step.fault {
        Fault::CrashEmpty(_) if is_held => world.nodes[one].disk = node::Disk::default(),
        Fault::CrashOlder(_) if is_held => world.nodes[one].disk = world.nodes[one].older.clone(),
        _ => world.nodes[one].disk.tear(rng.usize(..64)),
    }
    world.run(step.lasts_us, calm)?;
    world.start(one);
    world.run(rng.u64(1..2_000_000), calm).map(drop)
}

/// Two processes have one history; each must go on in its own name.
pub(super) fn clone(
    world: &mut World,
    (one, two): (usize, usize),
    lasts_us: u64,
    rng: &mut fastrand::Rng,
) -> Result<(), String> {
    if crash(world, two) {
        world.nodes[two].disk = world.nodes[one].disk.clone();
    }
    world.run(lasts_us, calm)?;
    world.start(two);
    world.run(rng.u64(1..2_000_000), calm).map(drop)
}

/// All die: under load, or when all disks have everything; a wall clock may be set while nobody runs. Phones may go on as
/// soon as somebody serves.
pub(super) fn crash_all(world: &mut World, step: &Step, rng: &mut fastrand::Rng) -> Result<(), String> {
    let nodes = world.nodes.len();
    let one_disk = matches!(step.fault, Fault::CrashAllButDisk { .. });
    if world.limits.ack == Ack::Disk {
        world.run(rng.u64(..1_500_000), calm)?;
        // Where one storage is behind all of them it goes first.
        world.disks_stall = rng.bool();
        let stalls_us = rng.u64(..STALLS_US);
        world.run(if world.disks_stall { stalls_us } else { 0 }, calm)?;
    } else if one_disk || rng.bool() {
        world.load(false);
        // Short lifetimes end before, meanwhile, or after.
        world.run(rng.u64(ALL_ON_DISK_WITHIN_US..6_000_000), calm)?;
    } else {
        world.run(rng.u64(..1_500_000), calm)?;
        world.loses_since(world.now_us.saturating_sub(ON_DISK_WITHIN_US));
    }
    world.load(false);
    (0..nodes).for_each(|node| world.crash(node));
    world.disks_stall = false;
    if let Fault::CrashAllButDisk { node, older } = step.fault {
        let older = older.then(|| world.nodes[node].older.clone());
        world.nodes[node].disk = older.unwrap_or_default();
    }
    jump(world, step);
    world.off.ahead_us += node::CEILING_AHEAD_US;
    world.run(step.lasts_us, |_| Ok(false))?;
    let apart_us = if rng.bool() { 1_000_000 } else { 20_000 };
    if step.jump.is_some() {
        // Of those that start together one whose clock is behind may be believed, and be the last to start.
        world.off.behind_us += step.lasts_us + nodes as u64 * apart_us + node::CEILING_AHEAD_US;
    }
    world.load(!one_disk && rng.bool());
    for node in 0..nodes {
        world.start(node);
        world.run(rng.u64(1..apart_us), calm)?;
    }
    world.run(rng.u64(1..2_000_000), calm).map(drop)
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
    world.run(ALL_ON_DISK_WITHIN_US, calm)?;
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
    cuts::cut_off(world, two);
    world.run(lasts_us / 2, bounded)?;
    world.load(false);
    if is_held_without(world, &[one, two])? {
        world.crash(one);
        world.run(lasts_us / 2, bounded)?;
        world.net.cut.clear();
        world.run(rng.u64(1..3_000_000), bounded)?;
        world.start(one);
    }
    world.net.cut.clear();
    Ok(())
}

/// Each time it has to join anew, while phones go on.
pub(super) fn again_and_again(
    world: &mut World,
    node: usize,
    lasts_us: u64,
    rng: &mut fastrand::Rng,
) -> Result<(), String> {
    join_anew(world, (node, &[], 200_000..1_500_000), lasts_us, rng)
}

/// The same, and it says and hears any part of what it must, and no more, on each of its links.
pub(super) fn brittle(world: &mut World, node: usize, lasts_us: u64, rng: &mut fastrand::Rng) -> Result<(), String> {
    let done = join_anew(world, (node, &BREAKS_IN_256, 500_000..JOINS_WITHIN_US), lasts_us, rng);
    world.brittle = None;
    done
}

/// `breaks` are the chances of 256 that a frame of its is the last of its connection, of which each start takes one, if there
/// are any; so long after each it goes on.
fn join_anew(
    world: &mut World,
    (node, breaks, runs_us): (usize, &[u8], Range<u64>),
    lasts_us: u64,
    rng: &mut fastrand::Rng,
) -> Result<(), String> {
    let until_us = world.now_us + lasts_us;
    while world.now_us < until_us {
        crash_lose_disk(world, node, rng);
        world.run(rng.u64(1_000..300_000), calm)?;
        world.brittle = rng.choice(breaks).map(|in_256| (node, *in_256));
        world.start(node);
        world.run(rng.u64(runs_us.clone()), calm)?;
    }
    Ok(())
}

/// The others never serve without what was answered in full, and whoever comes back asks one of them. A connection of either
/// may break meanwhile.
pub(super) fn two(world: &mut World, both: [usize; 2], lasts_us: u64, rng: &mut fastrand::Rng) -> Result<(), String> {
    let until_us = world.now_us + lasts_us;
    while world.now_us < until_us {
        let node = both[rng.usize(..2)];
        match world.nodes[node].process.as_ref().map(|process| process.asleep) {
            None => world.start(node),
            Some(true) => world.wake(node),
            Some(false) => match rng.u8(..8) {
                0 | 1 => crash_lose_disk(world, node, rng),
                2 => world.sleep(node),
                3 | 4 => {
                    let of: Vec<_> = world.net.of(node).collect();
                    of.get(rng.usize(..of.len().max(1))).into_iter().for_each(|pair| world.close(*pair));
                }
                _ => {}
            },
        }
        world.run(rng.u64(1_000..400_000), calm)?;
    }
    for node in both {
        match world.nodes[node].process.as_ref().map(|process| process.asleep) {
            None => world.start(node),
            Some(true) => world.wake(node),
            Some(false) => {}
        }
    }
    world.run(rng.u64(1..2_000_000), calm).map(drop)
}

/// All but one die when all disks have everything. They have met it again, or not, when it is stopped, for as long as it
/// takes them to start the cluster without it, or not as long.
pub(super) fn last_one_sleeps(world: &mut World, one: usize, rng: &mut fastrand::Rng) -> Result<(), String> {
    let others: Vec<usize> = (0..world.nodes.len()).filter(|other| *other != one).collect();
    world.load(false);
    world.run(ALL_ON_DISK_WITHIN_US, calm)?;
    others.iter().for_each(|other| world.crash(*other));
    world.off.ahead_us += node::CEILING_AHEAD_US;
    world.run(rng.u64(1..3_000_000), calm)?;
    for other in &others {
        world.start(*other);
        world.run(rng.u64(1..100_000), calm)?;
    }
    world.run(rng.u64(1..200_000), calm)?;
    // Where it had met nobody it is cut off until it does, and may be right in what it knows.
    let has_met = world.net.of(one).any(|(_, _, class)| class == Class::Live);
    world.sleep(one);
    world.load(true);
    world.run(rng.u64(1_000_000..9_000_000), calm)?;
    world.wake(one);
    world.run(rng.u64(1..2_000_000), if has_met { calm } else { bounded }).map(drop)
}

/// Whoever goes on must not take the one that joined for a joiner still, as gossip showed it when it was stopped.
pub(super) fn sleep_beside_joiner(
    world: &mut World,
    (one, two): (usize, usize),
    rng: &mut fastrand::Rng,
) -> Result<(), String> {
    crash(world, two);
    world.run(rng.u64(1..JOINS_WITHIN_US), calm)?;
    world.start(two);
    world.run(JOINS_WITHIN_US / 4, |world| calm(world).map(|_| world.sees_joining(one, two)))?;
    world.sleep(one);
    world.run(JOINS_WITHIN_US, |world| calm(world).map(|_| world.serves(two)))?;
    // Until the others have given it up, or not as long.
    world.run(rng.u64(1..GIVEN_UP_US), calm)?;
    // Its link to the one that joined is the last that it gets.
    world.close(pair(one, two, Class::Live));
    world.wake(one);
    world.run(rng.u64(1..2_000_000), calm).map(drop)
}

/// What it answered all alone was short: it is lost, and nobody was told otherwise.
pub(super) fn lose_in_cut(world: &mut World, node: usize, lasts_us: u64) -> Result<(), String> {
    cuts::cut_off(world, node);
    world.run(GIVEN_UP_US + lasts_us / 2, bounded)?;
    world.crash(node);
    world.nodes[node].disk = node::Disk::default();
    world.net.cut.clear();
    world.start(node);
    Ok(())
}
