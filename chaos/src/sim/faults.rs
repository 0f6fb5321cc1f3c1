//! What goes wrong in a simulated world, one thing at a time: how it begins, lasts under load, and ends.

use aorta_proto::frame::Class;
use serde::{Deserialize, Serialize};

use super::net::{Thin, pair};
use super::plan::{Ack, Limits, Step};
use super::world::World;
use super::{bounded, calm, cuts, node, restarts, settle};

/// After this the next node of several is restarted, whether or not the one before serves, µs.
pub(super) const JOINS_WITHIN_US: u64 = 3_000_000;

/// What is looked at while time passes.
type Watch = fn(&mut World) -> Result<bool, String>;

/// One thing that goes wrong, then is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// One node is cut off from all others.
    Isolate(usize),
    /// Two nodes do not reach each other; both reach the rest.
    CutPair(usize, usize),
    /// One direction between two nodes.
    CutOneWay(usize, usize),
    /// Nothing that others say reaches one node; they hear it.
    Deaf(usize),
    /// Nothing that one node says reaches others; it hears them.
    Mute(usize),
    /// Killed, started again with its disk; the write that was under way is cut short.
    Crash(usize),
    /// Killed, started again with nothing.
    CrashEmpty(usize),
    /// Killed, started again with its disk as it was a while ago.
    CrashOlder(usize),
    /// Stopped for a while.
    Sleep(usize),
    /// Everything dies and starts again from the disks.
    CrashAll,
    /// The same; one of the disks is lost, or is an older copy.
    CrashAllButDisk {
        /// Whose.
        node: usize,
        /// An older copy.
        older: bool,
    },
    /// Leaves, and comes back with its old disk.
    Leave(usize),
    /// Leaves as the only one that knows all: the second was cut off, the others come back with nothing.
    LeaveAsLast(usize, usize),
    /// Connections of one node break again and again.
    Flap(usize),
    /// Killed and started again, sometimes with nothing, while any frame to or from it may be the last of its connection.
    Brittle(usize),
    /// Everything one node sends takes longer than acks are waited for.
    Slow(usize),
    /// The way out of one node takes less than it has to say.
    Thin(usize),
    /// The SIP threads of one node do not get to read.
    Behind(usize),
    /// Everything dies; one comes back late, and only its disk is up to date.
    CrashAllOneLate(usize),
    /// Killed while another is cut off.
    CrashInCut(usize, usize),
    /// Gossip of one node is lost both ways; its links are fine.
    Unheard(usize),
    /// The disk of one node is full; then it is killed, and started again with room.
    DiskFull(usize),
    /// The second is killed, and started again with a copy of the first one's disk.
    Clone(usize, usize),
    /// Stopped for a moment, again and again.
    Naps(usize),
    /// Killed and started again, again and again, sometimes with nothing.
    Restarts(usize),
    /// Cut off for so long that the others give it up; then it dies with what only it knows.
    LoseInCut(usize),
    /// Cut off for longer than anybody remembers what it said before; at last nobody asks for anything.
    LongAlone(usize),
    /// The second is killed and starts again; the first is stopped as the second joins.
    SleepBesideJoiner(usize, usize),
    /// One after another leaves and comes back with its disk, from this one on.
    Roll(usize),
    /// Two nodes at a time: killed and started, stopped, their connections broken, in any order.
    Two(usize, usize),
    /// All others die and come back; the one that serves is stopped as they do.
    LastOneSleeps(usize),
    /// Nobody asks for anything.
    Rest,
    /// Nothing but load.
    None,
}

impl Fault {
    /// Whether paths are cut, and nobody dies.
    pub(super) fn is_cut(self) -> bool {
        matches!(
            self,
            Self::Isolate(_)
                | Self::LongAlone(_)
                | Self::CutPair(..)
                | Self::CutOneWay(..)
                | Self::Deaf(_)
                | Self::Mute(_)
                | Self::Slow(_)
                | Self::Thin(_)
        )
    }

    /// Whether all die together, or all but one.
    pub(super) fn is_of_all(self) -> bool {
        matches!(
            self,
            Self::CrashAll | Self::CrashAllButDisk { .. } | Self::CrashAllOneLate(_) | Self::LastOneSleeps(_)
        )
    }

    /// Whether nobody dies or is stopped.
    pub(super) fn leaves_all_running(self) -> bool {
        self.is_gentle() && !matches!(self, Self::Sleep(_) | Self::Naps(_))
    }

    /// Whether nothing that anybody holds is lost for good.
    pub(super) fn is_gentle(self) -> bool {
        use Fault::{Behind, CutOneWay, CutPair, Deaf, Flap, Isolate, LongAlone, Mute};
        use Fault::{Naps, None, Rest, Sleep, Slow, Thin, Unheard};
        matches!(
            self,
            Isolate(_)
                | LongAlone(_)
                | CutPair(..)
                | CutOneWay(..)
                | Deaf(_)
                | Mute(_)
                | Sleep(_)
                | Naps(_)
                | Rest
                | Flap(_)
                | Slow(_)
                | Thin(_)
                | Behind(_)
                | Unheard(_)
                | None
        )
    }
}

/// Any of them, and at whom.
pub(super) fn choose(rng: &mut fastrand::Rng, nodes: usize, limits: &Limits) -> Fault {
    let one = rng.usize(..nodes);
    let two = (one + rng.usize(1..nodes)) % nodes;
    match rng.u8(..34) {
        0 => Fault::Isolate(one),
        1 => Fault::CutPair(one, two),
        2 => Fault::CutOneWay(one, two),
        3 => Fault::Crash(one),
        4 => Fault::CrashEmpty(one),
        5 => Fault::Sleep(one),
        6 => Fault::CrashAll,
        7 => Fault::Leave(one),
        8 => Fault::Flap(one),
        9 => Fault::Slow(one),
        10 => Fault::CrashAllOneLate(one),
        11 => Fault::CrashInCut(one, two),
        12 => Fault::Deaf(one),
        16 => Fault::LeaveAsLast(one, two),
        13 => Fault::Mute(one),
        14 => Fault::CrashOlder(one),
        15 => Fault::CrashAllButDisk { node: one, older: rng.bool() },
        17 => Fault::Behind(one),
        18 => Fault::Unheard(one),
        // With `ack = "disk"` a node that cannot write is another matter: its replies are short.
        19 if limits.ack != Ack::Disk => Fault::DiskFull(one),
        20 => Fault::Clone(one, two),
        // The one that grants the longest lifetimes, where contacts outlive what others remember.
        23 | 24 | 33 if limits.outlive() => Fault::LongAlone(0),
        21 | 22 => Fault::Naps(one),
        23 | 24 => Fault::Restarts(one),
        25 => Fault::LoseInCut(one),
        // Under load only then everything may die.
        19 | 26 | 27 if limits.ack == Ack::Disk => Fault::CrashAll,
        26 if limits.forget() => Fault::Rest,
        // The one that grants the longest lifetimes.
        27 if limits.forget() => Fault::Isolate(0),
        26 | 28 | 33 => Fault::Two(one, two),
        27 | 29 => Fault::Roll(one),
        30 => Fault::LastOneSleeps(one),
        31 => [Fault::Brittle(one), Fault::Thin(one)][rng.usize(..2)],
        32 => Fault::SleepBesideJoiner(one, two),
        _ => Fault::None,
    }
}

/// Lets a fault happen, lasts a while under load, and ends it.
pub(super) fn strike(world: &mut World, step: &Step, rng: &mut fastrand::Rng) -> Result<(), String> {
    let (fault, lasts_us, nodes) = (step.fault, step.lasts_us, world.nodes.len());
    let others = |one: usize| (0..nodes).filter(move |other| *other != one);
    if !fault.is_of_all() {
        jump(world, step);
    }
    match fault {
        Fault::Isolate(one) => cuts::isolate(world, one, lasts_us),
        Fault::LongAlone(one) => cuts::long_alone(world, one),
        Fault::CutPair(one, two) => cuts::between(world, vec![(one, two), (two, one)], lasts_us),
        Fault::CutOneWay(one, two) => cuts::between(world, vec![(one, two)], lasts_us),
        Fault::Deaf(one) => cuts::towards(world, others(one).map(|other| (other, one)).collect(), lasts_us),
        Fault::Mute(one) => cuts::towards(world, others(one).map(|other| (one, other)).collect(), lasts_us),
        Fault::Crash(node) | Fault::CrashEmpty(node) | Fault::CrashOlder(node) => {
            restarts::crash_one(world, step, node, rng)
        }
        Fault::Sleep(node) => {
            world.sleep(node);
            world.run(lasts_us, calm)?;
            world.wake(node);
            world.run(rng.u64(1..2_000_000), calm).map(drop)
        }
        Fault::CrashAll | Fault::CrashAllButDisk { .. } => restarts::crash_all(world, step, rng),
        Fault::Leave(node) => leave(world, node, lasts_us),
        Fault::LeaveAsLast(one, two) => leave_as_last(world, (one, two), lasts_us),
        Fault::Flap(node) => flap(world, node, lasts_us, rng),
        Fault::Brittle(node) => restarts::brittle(world, node, lasts_us, rng),
        Fault::Slow(node) => {
            world.slow = Some(node);
            world.run(lasts_us, calm)?;
            world.slow = None;
            Ok(())
        }
        Fault::Thin(node) => thin(world, node, lasts_us, rng),
        Fault::Behind(node) => {
            world.calm_since_us = Some(world.now_us);
            world.behind = Some(node);
            world.run(lasts_us, calm)?;
            world.behind = None;
            world.reads_on(node);
            world.run(rng.u64(1..1_000_000), calm).map(drop)
        }
        Fault::CrashAllOneLate(late) => restarts::crash_all_one_late(world, late, rng),
        Fault::CrashInCut(one, two) => restarts::crash_in_cut(world, (one, two), lasts_us, rng),
        Fault::Unheard(node) => {
            world.unheard = Some(node);
            world.run(lasts_us, calm)?;
            world.unheard = None;
            Ok(())
        }
        Fault::DiskFull(node) => restarts::disk_full(world, node, lasts_us, rng),
        Fault::Naps(node) => naps(world, node, lasts_us, rng),
        Fault::Restarts(node) => restarts::again_and_again(world, node, lasts_us, rng),
        Fault::LoseInCut(node) => restarts::lose_in_cut(world, node, lasts_us),
        Fault::Roll(first) => roll(world, first, lasts_us, rng),
        Fault::Two(one, two) => restarts::two(world, [one, two], lasts_us, rng),
        Fault::LastOneSleeps(one) => restarts::last_one_sleeps(world, one, rng),
        Fault::SleepBesideJoiner(one, two) => restarts::sleep_beside_joiner(world, (one, two), rng),
        Fault::Clone(one, two) => restarts::clone(world, (one, two), lasts_us, rng),
        Fault::Rest => {
            world.load(false);
            world.run(lasts_us, calm).map(drop)
        }
        Fault::None => world.run(lasts_us, calm).map(drop),
    }
}

/// Somebody sets a wall clock.
pub(super) fn jump(world: &mut World, step: &Step) {
    let Some(jump) = step.jump else { return };
    for node in (0..world.nodes.len()).filter(|node| jump.all || *node == jump.node) {
        world.say(|| format!("the wall clock of n{} jumps by {} s", node + 1, jump.by_us / 1_000_000));
        world.nodes[node].jump_wall(jump.by_us);
    }
}

fn thin(world: &mut World, node: usize, lasts_us: u64, rng: &mut fastrand::Rng) -> Result<(), String> {
    world.thin = Some(Thin::of(node, rng));
    world.run(lasts_us, calm)?;
    // What is on its way takes its time.
    let under_way_us = world.thin.take().map_or(0, |thin| thin.waits_us(world.now_us));
    world.run(under_way_us, calm).map(drop)
}

/// Each time it has to find out what it missed, while phones go on.
fn naps(world: &mut World, node: usize, lasts_us: u64, rng: &mut fastrand::Rng) -> Result<(), String> {
    let until_us = world.now_us + lasts_us;
    while world.now_us < until_us {
        world.sleep(node);
        world.run(rng.u64(1_000..400_000), calm)?;
        world.wake(node);
        world.run(rng.u64(1_000..300_000), calm)?;
    }
    Ok(())
}

fn leave(world: &mut World, node: usize, away_us: u64) -> Result<(), String> {
    drain(world, node, 500_000, calm)?;
    world.run(away_us, calm)?;
    world.start(node);
    Ok(())
}

/// As an upgrade goes: nobody is missed, and each joins while phones go on.
fn roll(world: &mut World, first: usize, lasts_us: u64, rng: &mut fastrand::Rng) -> Result<(), String> {
    let (nodes, until_us) = (world.nodes.len(), world.now_us + lasts_us);
    for node in (first..first + nodes).map(|node| node % nodes) {
        drain(world, node, rng.u64(..300_000), calm)?;
        world.run(rng.u64(1_000..300_000), calm)?;
        world.start(node);
        world.run(JOINS_WITHIN_US, |world| calm(world).map(|_| world.serves(node)))?;
        if world.now_us > until_us {
            break;
        }
    }
    Ok(())
}

/// A node leaves, by the book.
fn drain(world: &mut World, node: usize, grace_us: u64, watch: Watch) -> Result<(), String> {
    world.with(node, |process, now| ((), process.replication.drain(grace_us, 10_000_000, now)));
    let left = world.run(12_000_000, |world| {
        watch(world)?;
        Ok(world.nodes[node].process.as_ref().is_some_and(|process| process.drained))
    })?;
    if !left {
        return Err(format!("n{} did not finish draining", node + 1));
    }
    if let Some(process) = &mut world.nodes[node].process {
        process.leaving = true;
    }
    world.versions.parts(node, &[]);
    world.with(node, |process, now| ((), process.replication.leave(now)));
    world.run(100_000, watch)?;
    world.longest_left |= node == 0;
    let others = (0..world.nodes.len()).filter(|other| *other != node);
    let hear: Vec<usize> = others.filter(|other| world.net.get(pair(node, *other, Class::Live)).is_some()).collect();
    world.versions.parts(node, &hear);
    world.crash(node);
    Ok(())
}

/// What it does not hand over is nowhere.
fn leave_as_last(world: &mut World, (one, two): (usize, usize), lasts_us: u64) -> Result<(), String> {
    let nodes = world.nodes.len();
    let others: Vec<usize> = (0..nodes).filter(|node| *node != one && *node != two).collect();
    cuts::cut_off(world, two);
    world.run(lasts_us, bounded)?;
    world.load(false);
    if !restarts::is_held_without(world, &[&[two], others.as_slice()].concat())? {
        world.net.cut.clear();
        return Ok(());
    }
    for node in &others {
        world.crash(*node);
        world.nodes[*node].disk = node::Disk::default();
    }
    // Not before they are missed: they are to join it, not to start a cluster of their own.
    world.run(2_500_000, bounded)?;
    others.iter().for_each(|node| world.start(*node));
    world.net.cut.clear();
    drain(world, one, 0, bounded)?;
    settle(world, "without the node that left last")?;
    world.start(one);
    Ok(())
}

fn flap(world: &mut World, node: usize, lasts_us: u64, rng: &mut fastrand::Rng) -> Result<(), String> {
    let until_us = world.now_us + lasts_us;
    while world.now_us < until_us {
        world.run(rng.u64(20_000..400_000), calm)?;
        let of: Vec<_> = world.net.of(node).collect();
        if !of.is_empty() {
            world.close(of[rng.usize(..of.len())]);
        }
    }
    Ok(())
}
