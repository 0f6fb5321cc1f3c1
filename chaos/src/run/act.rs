//! Doing what a fault says to the nodes of a lab, and undoing it. It waits for nothing that a heal is measured by.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::fault::{Disk, Fault, Quality, Who};
use super::stage::Stage;
use crate::lab::{Damage, End, Flood, FloodPlan, Floods, LinkProfile, Signal};

/// Bytes that are turned round in a damaged log.
const FLIPPED_BYTES: u32 = 64;

/// What the heal has to undo.
#[derive(Debug)]
pub(super) enum Undo {
    Start(usize, Disk),
    Continue(usize),
    Links(Vec<(End, End)>),
    Jump(usize, i64),
    Room(usize),
    Flood(Flood),
    Load,
}

/// Faults that go on by themselves while a cycle lasts.
#[derive(Debug, Default)]
pub(super) struct Ongoing {
    pub(super) undo: Vec<Undo>,
    later: Vec<(Instant, Fault)>,
    flaps: Vec<Flap>,
}

/// Links that are cut and mended by turns.
#[derive(Debug)]
struct Flap {
    links: Vec<(End, End)>,
    every: Duration,
    next: Instant,
    is_cut: bool,
}

impl Ongoing {
    /// Does what is due; whether something began anew by that.
    pub(super) fn tick(&mut self, stage: &mut Stage<'_>, turn: usize) -> anyhow::Result<bool> {
        let now = Instant::now();
        let mut again = false;
        let network = stage.lab.network();
        for flap in self.flaps.iter_mut().filter(|flap| flap.next <= now) {
            let network = network.as_ref().map_err(|why| anyhow::anyhow!("{why}"))?;
            flap.is_cut = !flap.is_cut;
            flap.next = now + flap.every;
            again |= flap.is_cut;
            let profile = if flap.is_cut { LinkProfile::CUT } else { LinkProfile::PLAIN };
            flap.links.iter().for_each(|(from, to)| network.set(*from, *to, &profile));
        }
        let due: Vec<Fault> = self.later.extract_if(.., |(at, _)| *at <= now).map(|(_, fault)| fault).collect();
        for fault in due {
            if let Fault::Kill { who, disk, .. } = fault {
                self.kill(stage, who, disk, turn)?;
                again = true;
            }
        }
        Ok(again)
    }

    /// Begins a fault; moments at which something in it began anew.
    pub(super) fn begin(&mut self, stage: &mut Stage<'_>, fault: &Fault, turn: usize) -> anyhow::Result<Vec<f64>> {
        let targets = |stage: &Stage<'_>, who: Who| who.nodes(turn, &stage.members);
        match fault {
            Fault::Kill { after_ms, .. } if *after_ms > 0 => {
                self.later.push((Instant::now() + Duration::from_millis(*after_ms), fault.clone()));
            }
            Fault::Kill { who, disk, .. } => self.kill(stage, *who, *disk, turn)?,
            Fault::Rejoin { who, disk } => {
                for node in targets(stage, *who) {
                    stage.lab.kill(node)?;
                    found_on_disk(stage, node, *disk)?;
                    stage.lab.start(node)?;
                }
            }
            Fault::Stop { who } => {
                for node in targets(stage, *who) {
                    stage.lab.signal(node, Signal::SIGSTOP)?;
                    stage.touch(node);
                    self.undo.push(Undo::Continue(node));
                }
            }
            Fault::Cut { from, to, one_way, flap_ms } => {
                self.link(stage, &pairs(stage, *from, *to, turn, !one_way), &LinkProfile::CUT, *flap_ms)?;
                targets(stage, *from).into_iter().for_each(|node| stage.touch(node));
            }
            Fault::Link { from, to, quality } => {
                self.link(stage, &pairs(stage, *from, *to, turn, true), &profile(quality), 0)?;
                targets(stage, *from).into_iter().for_each(|node| stage.touch(node));
            }
            Fault::JumpClock { who, by_s } => {
                for node in targets(stage, *who) {
                    stage.lab.jump_clock(node, *by_s)?;
                    self.undo.push(Undo::Jump(node, -by_s));
                }
            }
            Fault::FillDisk { who } => {
                for node in targets(stage, *who) {
                    stage.lab.fill_disk(node)?;
                    self.undo.push(Undo::Room(node));
                }
            }
            Fault::Flood { who, garbage } => {
                let says = if *garbage { Floods::Garbage } else { Floods::Deltas };
                for node in targets(stage, *who) {
                    let plan = FloodPlan { node, says, frames_s: None, seed: stage.seed };
                    self.undo.push(Undo::Flood(stage.lab.flood(plan)?));
                }
            }
            Fault::Add { count } => return stage.grow(*count),
            Fault::Remove { count } => return stage.shrink(*count),
            Fault::Roll { who, build } => return stage.roll(&targets(stage, *who), *build),
            Fault::Storm {} => stage.storm()?,
            Fault::Burst { at, phones } => {
                let at = targets(stage, *at).first().copied().context("a burst goes to a node")?;
                stage.burst(at, *phones)?;
            }
            Fault::Chase { phones } => stage.chase(turn, *phones)?,
            Fault::Quiet {} => {
                stage.hold(true);
                self.undo.push(Undo::Load);
            }
        }
        Ok(Vec::new())
    }

    fn kill(&mut self, stage: &mut Stage<'_>, who: Who, disk: Disk, turn: usize) -> anyhow::Result<()> {
        let nodes = match who {
            Who::Donor => vec![donor(stage, turn)?],
            _ => who.nodes(turn, &stage.members),
        };
        for node in nodes {
            stage.lab.kill(node)?;
            stage.touch(node);
            self.undo.push(Undo::Start(node, disk));
        }
        Ok(())
    }

    fn link(
        &mut self,
        stage: &Stage<'_>,
        links: &[(End, End)],
        profile: &LinkProfile,
        flap_ms: u64,
    ) -> anyhow::Result<()> {
        ensure!(!links.is_empty(), "a bad link joins two ends");
        let network = stage.lab.network()?;
        links.iter().for_each(|(from, to)| network.set(*from, *to, profile));
        self.undo.push(Undo::Links(links.to_vec()));
        if flap_ms > 0 {
            let every = Duration::from_millis(flap_ms);
            self.flaps.push(Flap { links: links.to_vec(), every, next: Instant::now() + every, is_cut: true });
        }
        Ok(())
    }

    /// Undoes all of it, the last one first.
    pub(super) fn heal(self, stage: &mut Stage<'_>) -> anyhow::Result<()> {
        for undo in self.undo.into_iter().rev() {
            match undo {
                Undo::Start(node, disk) => {
                    found_on_disk(stage, node, disk)?;
                    stage.lab.start(node)?;
                }
                Undo::Continue(node) => stage.lab.signal(node, Signal::SIGCONT)?,
                Undo::Links(links) => {
                    let network = stage.lab.network()?;
                    links.iter().for_each(|(from, to)| network.set(*from, *to, &LinkProfile::PLAIN));
                }
                Undo::Jump(node, by_s) => stage.lab.jump_clock(node, by_s)?,
                Undo::Room(node) => stage.lab.free_disk(node)?,
                Undo::Flood(flood) => {
                    let report = flood.stop()?;
                    ensure!(report.frames > 0, "the flood said nothing: {}", report.why);
                    stage.note(format!("flood: {report:?}"));
                }
                Undo::Load => stage.hold(false),
            }
        }
        Ok(())
    }
}

/// Puts in place what a node is to find when it starts.
fn found_on_disk(stage: &Stage<'_>, node: usize, disk: Disk) -> anyhow::Result<()> {
    match disk {
        Disk::Kept => {}
        Disk::Lost => stage.lab.restore_disk(node, None)?,
        Disk::Older => stage.lab.restore_disk(node, stage.older.get(&node))?,
        // A database that was never closed has no snapshot file yet: then it is its log.
        Disk::Cut => {
            let cut = stage.lab.damage_disk(node, Damage::CutSnapshot);
            stage.note(cut.or_else(|_| stage.lab.damage_disk(node, Damage::CutLog))?);
        }
        Disk::Flipped => {
            let damage = Damage::FlipBytes { count: FLIPPED_BYTES, seed: stage.seed };
            stage.note(stage.lab.damage_disk(node, damage)?);
        }
    }
    Ok(())
}

fn pairs(stage: &Stage<'_>, from: Who, to: Who, turn: usize, both_ways: bool) -> Vec<(End, End)> {
    let ends = |who: Who| -> Vec<End> {
        match who {
            Who::Phones => vec![End::Phones],
            _ => who.nodes(turn, &stage.members).into_iter().map(End::Node).collect(),
        }
    };
    let (from, to) = (ends(from), ends(to));
    let ahead =
        from.iter().flat_map(|one| to.iter().map(move |other| (*one, *other))).filter(|(one, other)| one != other);
    let mut pairs: Vec<(End, End)> = ahead.collect();
    if both_ways {
        pairs.extend(pairs.clone().into_iter().map(|(one, other)| (other, one)));
    }
    pairs
}

fn profile(quality: &Quality) -> LinkProfile {
    let share = |percent: f64| percent / 100.0;
    LinkProfile {
        delay: Duration::from_millis(quality.delay_ms),
        jitter: Duration::from_millis(quality.jitter_ms),
        loss: share(quality.loss_percent),
        duplicate: share(quality.duplicate_percent),
        reorder: share(quality.reorder_percent),
        bandwidth_bits_s: (quality.mbit_per_s > 0.0).then_some((quality.mbit_per_s * 1e6) as u64),
        ..LinkProfile::PLAIN
    }
}

/// Who sends most to the node whose turn it is.
fn donor(stage: &Stage<'_>, turn: usize) -> anyhow::Result<usize> {
    let joiner = Who::Turn.nodes(turn, &stage.members).first().copied().context("there is no joiner")?;
    let network = stage.lab.network()?;
    let sent = |node: usize| {
        let before = stage.sent_before.get(&(node, joiner)).copied().unwrap_or_default();
        network.traffic(End::Node(node), End::Node(joiner)).bytes.saturating_sub(before)
    };
    let others = stage.members.iter().copied().filter(|node| *node != joiner);
    others.max_by_key(|node| sent(*node)).context("there is no donor")
}
