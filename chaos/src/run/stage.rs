//! A cluster in a lab with a crowd at work on it: set up, changed in size, held, and in the end judged. It decides nothing
//! about what is done when: the scenario does.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use aorta_phones::crowd::{Crowd, CrowdPlan, Fault as Wrong, Judgement, Running};
use aorta_phones::judges::{Elsewhere, everyone_answers_for_all, register_then_unregister_elsewhere};
use aorta_phones::{Fleet, Household, Turn};
use tokio::runtime::Runtime;

use super::converge::{self, Convergence};
use super::fault::{Disk, Fault};
use super::kamailio::KamailioSbc;
use super::program::Programs;
use super::record::{Cast, Load, Recorder, Seen, locked};
use super::scenario::{Build, Sbc, Scenario};
use super::story::Flaps;
use crate::lab::{DiskCopy, End, Lab, LabPlan, NodePlan, NotHere, Signal};

/// Longest wait for a node that starts or ends.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for figures that tell of the phones.
const COUNTED: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Threads of the phones.
const PHONE_THREADS: usize = 2;
/// Sockets of the crowd: with half a second to an answer, fewer have too few places for the requests that are due.
const SOCKETS: usize = 4;
/// Phones that never refresh: enough for a thousand lapses in half a minute, few enough that looking at them is no load.
const LAPSING: usize = 1_000;
/// Seconds that those ask for: longer than any copy of a request is on its way, for a copy that comes after its binding has
/// lapsed has nothing left to be compared with.
const LAPSING_S: u32 = 7;
/// What every node's configuration says: phones with short lives, acks told to phones, a drain that is soon over.
const EXTRA: &str = "expires_min_s = 1\ndrain_grace_s = 1\ndrain_timeout_s = 25\n[sip]\nack_header = true\n";
/// Pairs of requests in flight of a chase.
const CHASED_AT_ONCE: usize = 32;

/// The cluster, the crowd, and who looks at them.
pub(super) struct Stage<'a> {
    scenario: &'a Scenario,
    programs: &'a Programs,
    pub(super) seed: u64,
    pub(super) lab: Arc<Lab>,
    /// Members now, in the order in which they came.
    pub(super) members: Vec<usize>,
    /// Those to whom something is being done.
    touched: BTreeSet<usize>,
    /// Copies of disks as they were before the load.
    pub(super) older: BTreeMap<usize, DiskCopy>,
    /// Bytes that each had sent to each when the cycle began.
    pub(super) sent_before: BTreeMap<(usize, usize), u64>,
    runtime: Runtime,
    load: Load,
    sbc: Option<KamailioSbc>,
    recorder: Recorder,
    begun: Instant,
    bursts: Vec<Fleet>,
    /// How often phones came that nobody had met.
    strangers: u64,
    wrong: Vec<String>,
    notes: Mutex<Vec<String>>,
    /// Links that had ended before the load.
    unlinked_before: u64,
}

/// What is left when the load is off and everybody was asked.
pub(super) struct Ending {
    pub(super) seen: Seen,
    pub(super) judgement: Judgement,
    /// What went wrong beside the crowd: nodes that ended, bursts that are not whole.
    pub(super) accidents: Vec<String>,
    pub(super) wrong: Vec<String>,
    pub(super) notes: Vec<String>,
    pub(super) nodes: Vec<String>,
    pub(super) flaps: Flaps,
}

impl<'a> Stage<'a> {
    /// Starts nodes, registers everybody, and puts the load on.
    pub(super) fn set(
        scenario: &'a Scenario,
        programs: &'a Programs,
        seed: u64,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let lab = Arc::new(lab(scenario, programs, seed, folder)?);
        let members: Vec<usize> = (0..scenario.nodes).collect();
        for node in &members {
            lab.add(plan_of(scenario, *node))?;
            lab.set_program(*node, programs.file(scenario.build)?);
        }
        members.iter().try_for_each(|node| lab.start(*node))?;
        for node in &members {
            lab.ready(*node, PATIENCE)?;
        }
        let sips: Vec<_> = members.iter().map(|node| lab.sip(*node)).collect();
        let runtime = lab.phones().runtime(PHONE_THREADS)?;
        let sbc = match scenario.sbc {
            Sbc::Small => None,
            Sbc::Kamailio => Some(KamailioSbc::start(lab.phones(), &sips, &folder.join("sbc"))?),
        };
        let via = sbc.as_ref().map(KamailioSbc::address);
        let running = lab.phones().enter(|| runtime.block_on(fill(scenario, seed, via, &sips)))??;
        let settled = converge::wait(&lab, &members, Instant::now(), PATIENCE.as_secs_f64(), |_| {});
        ensure!(settled.converged_s.is_some(), "not equal before anything was done: {}", settled.disagreement);
        until_counted(&lab, &members);
        let faults = scenario.cycle.iter().flat_map(|cycle| &cycle.faults);
        let wants_older = faults.into_iter().any(|fault| {
            matches!(fault, Fault::Kill { disk: Disk::Older, .. } | Fault::Rejoin { disk: Disk::Older, .. })
        });
        let mut older = BTreeMap::new();
        if wants_older {
            for node in &members {
                older.insert(*node, lab.copy_disk(*node)?);
            }
        }
        running.set_rates(scenario.requests_per_s, scenario.calls_per_s);
        let load: Load = Arc::new(Mutex::new(Some(running)));
        let (begun, unlinked_before) = (Instant::now(), unlinked(&lab));
        let recorder = Recorder::start(&lab, &load, begun, Cast { members: members.clone(), under_fault: false })?;
        Ok(Self {
            scenario,
            programs,
            seed,
            lab,
            members,
            touched: BTreeSet::new(),
            older,
            sent_before: BTreeMap::new(),
            runtime,
            load,
            sbc,
            recorder,
            begun,
            bursts: Vec::new(),
            strangers: 0,
            wrong: Vec::new(),
            notes: Mutex::default(),
            unlinked_before,
        })
    }

    /// Seconds under load.
    pub(super) fn now_s(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Who looks.
    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Something that a reader of the report may want to know.
    pub(super) fn note(&self, text: String) {
        locked(&self.notes).push(format!("{:.1} s: {text}", self.now_s()));
    }

    /// Something is done to this node until [`Stage::untouch_all`].
    pub(super) fn touch(&mut self, node: usize) {
        self.touched.insert(node);
    }

    /// Nothing is done to anybody any more.
    pub(super) fn untouch_all(&mut self) {
        self.touched.clear();
    }

    /// Of those to whom something is done, as those see it to whom nothing is: is one suspect or gone, are all gone?
    /// `None` where nobody is left on either side.
    pub(super) fn noticed(&self) -> Option<(bool, bool)> {
        let calm: Vec<usize> = self.members.iter().copied().filter(|node| !self.touched.contains(node)).collect();
        let views = converge::views(&self.lab, &calm);
        let names: Vec<String> = self.touched.iter().map(|node| self.lab.place(*node).name).collect();
        let seen = views.iter().flatten().flat_map(|view| &view.members).filter(|seen| names.contains(&seen.node));
        let seen: Vec<(bool, bool)> = seen.map(|member| (member.suspect, member.present)).collect();
        let is_suspect = seen.iter().any(|(suspect, present)| *suspect || !present);
        (!seen.is_empty()).then(|| (is_suspect, seen.iter().all(|(_, present)| !present)))
    }

    /// Remembers what each sent to each.
    pub(super) fn mark_traffic(&mut self) {
        let Ok(network) = self.lab.network() else { return };
        for from in &self.members {
            for to in &self.members {
                let bytes = network.traffic(End::Node(*from), End::Node(*to)).bytes;
                self.sent_before.insert((*from, *to), bytes);
            }
        }
    }

    /// Bytes of exchanges that each member has sent so far.
    pub(super) fn repair_bytes_by_node(&self) -> Vec<f64> {
        self.members.iter().map(|node| self.recorder.repair_bytes(*node)).collect()
    }

    /// Bytes between nodes so far.
    pub(super) fn bytes_between_nodes(&self) -> Option<u64> {
        self.lab.network().ok().map(|network| network.bytes_between_nodes())
    }

    /// The crowd is silent, or goes on.
    pub(super) fn hold(&self, on: bool) {
        match locked(&self.load).as_ref() {
            Some(running) if on => running.hold(),
            Some(running) => running.go_on(),
            None => {}
        }
    }

    /// Waits until all members are ready and hold the same.
    pub(super) fn converge(&self, healed: Instant, is_quiet: bool) -> Convergence {
        let hold = |on: bool| {
            if !is_quiet {
                self.hold(on)
            }
        };
        converge::wait(&self.lab, &self.members, healed, self.scenario.bounds.converge_s, hold)
    }

    /// All phones restart.
    pub(super) fn storm(&self) -> anyhow::Result<()> {
        locked(&self.load).as_ref().context("the crowd is not at work")?.storm();
        Ok(())
    }

    /// New nodes join and get traffic.
    pub(super) fn grow(&mut self, count: usize) -> anyhow::Result<Vec<f64>> {
        let mut again_s = Vec::new();
        for _ in 0..count {
            let node = self.lab.add(plan_of(self.scenario, self.lab.nodes()))?;
            again_s.push(self.now_s());
            self.lab.start(node)?;
            self.lab.ready(node, PATIENCE)?;
            self.members.push(node);
            self.tell_members()?;
        }
        Ok(again_s)
    }

    /// The last nodes are drained one by one.
    pub(super) fn shrink(&mut self, count: usize) -> anyhow::Result<Vec<f64>> {
        let mut again_s = Vec::new();
        for _ in 0..count {
            let node = self.members.pop().context("nobody is left to drain")?;
            again_s.push(self.now_s());
            self.drain(node)?;
            self.tell_members()?;
        }
        Ok(again_s)
    }

    /// These nodes are drained and started anew, one by one, with this build.
    pub(super) fn roll(&mut self, nodes: &[usize], build: Option<Build>) -> anyhow::Result<Vec<f64>> {
        let mut again_s = Vec::new();
        for node in nodes {
            again_s.push(self.now_s());
            self.drain(*node)?;
            if let Some(build) = build {
                self.lab.set_program(*node, self.programs.file(build)?);
            }
            self.lab.start(*node)?;
            self.lab.ready(*node, PATIENCE)?;
        }
        Ok(again_s)
    }

    fn drain(&self, node: usize) -> anyhow::Result<()> {
        self.lab.signal(node, Signal::SIGTERM)?;
        let status = self.lab.ended(node, PATIENCE)?;
        ensure!(status.success(), "node{} did not drain ({status}): {}", node + 1, self.lab.last_words(node));
        Ok(())
    }

    fn tell_members(&self) -> anyhow::Result<()> {
        self.recorder.cast(|cast| cast.members.clone_from(&self.members));
        let sips: Vec<_> = self.members.iter().map(|node| self.lab.sip(*node)).collect();
        let load = locked(&self.load);
        let running = load.as_ref().context("the crowd is not at work")?;
        self.lab.phones().enter(|| running.set_nodes(&sips))?
    }

    /// Phones of their own register at one node.
    pub(super) fn burst(&mut self, at: usize, phones: usize) -> anyhow::Result<()> {
        let mut fleet = Fleet::new(self.household(), phones);
        let sip = [self.lab.sip(at)];
        let report = self.phones(fleet.register(3_600, &sip))??;
        if !report.is_clean() {
            self.wrong.push(format!("a burst at node{}: {report}", at + 1));
        }
        self.bursts.push(fleet);
        Ok(())
    }

    /// Phones register at one node and unregister at the next.
    pub(super) fn chase(&mut self, turn: usize, phones: usize) -> anyhow::Result<()> {
        let sips: Vec<_> = self.members.iter().map(|node| self.lab.sip(*node)).collect();
        let nth = |n: usize| sips[n % sips.len()];
        let plan = Elsewhere { count: phones, in_flight: CHASED_AT_ONCE, first: nth(turn), second: nth(turn + 1) };
        let household = self.household();
        let report = self.phones(register_then_unregister_elsewhere(&household, plan, &sips))??;
        if report.left > 0 || report.listed != phones || report.removed != phones {
            let (listed, removed, left) = (report.listed, report.removed, report.left);
            self.wrong.push(format!(
                "of {phones} chased {listed} were registered and {removed} removed as they must, {left} answers show more: {}",
                report.mismatches
            ));
        }
        self.note(format!("{phones} chased, {} left", report.left));
        Ok(())
    }

    /// Phones that nobody has met yet.
    fn household(&mut self) -> Household {
        self.strangers += 1;
        let nth = self.strangers;
        Household { domain: format!("strangers{nth}.test"), ..Household::new(self.seed.wrapping_add(nth)) }
    }

    /// Runs something in the phones' network.
    fn phones<T: Send>(&self, future: impl Future<Output = T> + Send) -> anyhow::Result<T> {
        self.lab.phones().enter(|| self.runtime.block_on(future))
    }

    /// Load off; everybody is asked for everybody.
    pub(super) fn end(mut self) -> anyhow::Result<Ending> {
        let sips: Vec<_> = self.members.iter().map(|node| self.lab.sip(*node)).collect();
        self.recorder.look();
        self.hold(true);
        let settled = self.converge(Instant::now(), true);
        if settled.converged_s.is_none() {
            self.wrong.push(format!("not equal after the load: {}", settled.disagreement));
        }
        self.recorder.look();
        let running = locked(&self.load).take().context("the crowd is not at work")?;
        let mut crowd = self.phones(running.stop())??;
        let mut judgement = self.phones(crowd.judge(&sips))??;
        let silent = judgement.count(Wrong::Unanswered);
        if silent > 0 {
            // Being asked for everybody at once is a load too: a node that it made sleep says 503, and nothing of anybody.
            self.note(format!("{silent} questions at the end were not answered at first; all were asked once more"));
            self.converge(Instant::now(), true);
            judgement = self.phones(crowd.judge(&sips))??;
        }
        for mut fleet in std::mem::take(&mut self.bursts) {
            for (node, report) in self.phones(everyone_answers_for_all(&mut fleet, &sips, Turn::Lookup))?? {
                if !report.is_clean() {
                    self.wrong.push(format!("{node} after a burst: {report}"));
                }
            }
        }
        let accidents = self.accidents();
        match self.lab.dropped() {
            Ok(0) | Err(_) => {}
            Ok(dropped) => {
                self.note(format!("{dropped} packets dropped before the switch read them: a machine too slow"))
            }
        }
        let nodes = (0..self.lab.nodes()).map(|node| self.lab.place(node).name).collect();
        let notes = std::mem::take(&mut *locked(&self.notes));
        // The phones' sockets close before their namespace does.
        drop(crowd);
        drop(self.sbc.take());
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        let unlinked = unlinked(&self.lab) - self.unlinked_before;
        let seen = self.recorder.finish();
        let flaps = Flaps { unlinked, ..seen.flaps() };
        Ok(Ending { seen, judgement, accidents, wrong: self.wrong, notes, nodes, flaps })
    }

    /// Members that do not run, and nodes that wrote of a panic; sled's over a damaged log are caught and set aside.
    fn accidents(&self) -> Vec<String> {
        let gone = self.members.iter().filter_map(|node| {
            let status = self.lab.ended(*node, Duration::ZERO).ok()?;
            Some(format!("node{} ({status}): {}", node + 1, self.lab.last_words(*node)))
        });
        let panicked = (0..self.lab.nodes()).filter_map(|node| {
            let log = log(&self.lab, node);
            let line = log.lines().find(|line| line.contains("panicked at") && !line.contains("/sled-"))?;
            Some(format!("node{}: {line}", node + 1))
        });
        gone.chain(panicked).collect()
    }
}

/// What a node has written so far.
fn log(lab: &Lab, node: usize) -> String {
    String::from_utf8_lossy(&std::fs::read(lab.place(node).log).unwrap_or_default()).into_owned()
}

/// Live links that have ended so far, as nodes write it.
fn unlinked(lab: &Lab) -> u64 {
    let ended = |node: usize| log(lab, node).lines().filter(|line| line.contains("unlinked")).count() as u64;
    (0..lab.nodes()).map(ended).sum()
}

/// The lab that a scenario needs, or on loopback when that is enough and namespaces are not allowed.
fn lab(scenario: &Scenario, programs: &Programs, seed: u64, folder: &Path) -> anyhow::Result<Lab> {
    let program = programs.file(Build::Current)?.to_path_buf();
    let extra = format!("{}\n{EXTRA}", scenario.node_config);
    let plan = LabPlan { seed, folder: folder.to_path_buf(), program, extra };
    match Lab::new(plan.clone()) {
        Err(error) if !scenario.needs_network() && error.downcast_ref::<NotHere>().is_some() => Lab::on_loopback(plan),
        other => other,
    }
}

fn plan_of(scenario: &Scenario, node: usize) -> NodePlan {
    let jumps =
        scenario.cycle.iter().flat_map(|cycle| &cycle.faults).any(|fault| matches!(fault, Fault::JumpClock { .. }));
    let offset_s = scenario.clock_offsets_s.get(node).copied();
    NodePlan {
        clock_offset_s: offset_s.or_else(|| jumps.then_some(0)),
        disk_bytes: scenario.disk_mib.map(|mib| mib << 20),
        ..NodePlan::default()
    }
}

/// Waits until every node's figures tell of the phones: nodes count once a second.
fn until_counted(lab: &Lab, nodes: &[usize]) {
    let deadline = Instant::now() + COUNTED;
    let counted = |node: &usize| lab.sample(*node).metric("aorta_contacts", "") > 0.0;
    while !nodes.iter().all(counted) && Instant::now() < deadline {
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A crowd of which everybody is registered, at work without load yet.
async fn fill(scenario: &Scenario, seed: u64, via: Option<SocketAddr>, sips: &[SocketAddr]) -> anyhow::Result<Running> {
    let mut plan = CrowdPlan {
        per_second: 0,
        calls_per_second: 0,
        short_lived_percent: (100 * LAPSING / scenario.phones) as u32,
        short_expires_s: LAPSING_S,
        via,
        sockets: SOCKETS,
        ..CrowdPlan::new(scenario.phones, seed)
    };
    if scenario.splits() {
        plan.mix.at_once_percent = 0;
    }
    let mut crowd = Crowd::new(plan).await?;
    let tally = crowd.fill(sips).await?;
    let least = scenario.phones as u64 * 9 / 10;
    ensure!(tally.bound >= least, "only {} of {} phones could be registered: {tally:?}", tally.bound, scenario.phones);
    crowd.start(sips).await
}
