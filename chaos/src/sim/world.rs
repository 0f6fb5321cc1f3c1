//! The simulated world: virtual time, the order of everything that happens, and how effects become frames. Judges nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use aorta::replication::{Effects, Event, Member};
use aorta_proto::frame::Class;

use super::callers::{LOST_IN_256, Message, Silent};
use super::gossip::Gossip;
use super::line::{Line, Off};
use super::net::{Net, Pair, Thin, end_of, pair};
use super::node::Node;
use super::phones::{PHONES, Phone};
use super::plan::{Ack, Limits, Plan};
use super::queue::Queue;
use super::stamps::Stamps;
use super::traffic::Traffic;
use super::versions::Versions;

/// What happens at some moment.
#[derive(Debug, Clone, Copy)]
pub(super) enum Happening {
    Arrival { pair: Pair, id: u64, end: usize },
    Pump { from: usize, to: usize, class: Class },
    Tick { node: usize },
    Network,
    Gossip,
    Snapshot { node: usize },
    Commit { node: usize },
    Committed { node: usize, boot: u64 },
    Request,
    Sip { copy: u64 },
    Silent { judged: u64 },
}

/// In what a node says that lost changes between two links.
const GAP: &str = "lost between two links";

const TICK_US: u64 = 20_000;
const NETWORK_US: u64 = 100_000;
const GOSSIP_US: u64 = 200_000;
const SNAPSHOT_US: u64 = 500_000;
/// Where every change goes to disk by itself; not longer than the ceiling is ahead.
pub(super) const RARE_SNAPSHOT_US: u64 = 1_900_000;

/// Figures of a run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Figures {
    /// Things that happened.
    pub happenings: u64,
    /// Requests sent.
    pub requests: u64,
    /// Answered 200 with all acks.
    pub full: u64,
    /// Answered 200, short.
    pub short: u64,
    /// Frames delivered.
    pub frames: u64,
    /// Exchanges finished.
    pub exchanges: u64,
    /// Times a node stopped serving and rejoined.
    pub fenced: u64,
    /// Times a peer fell behind what is kept for it.
    pub overflows: u64,
    /// Cuts that were over, entries that differed between two nodes then, and bytes until none did.
    pub heals: u64,
    /// See `heals`.
    pub differed: u64,
    /// See `heals`.
    pub repair_bytes: u64,
    /// The longest time from the end of a cut until all were ready and the same, µs.
    pub slowest_heal_us: u64,
    /// Hash of everything that happened, in order: the same seed gives the same; of several seeds the sum.
    pub trace: u64,
}

impl Figures {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.happenings += other.happenings;
        self.requests += other.requests;
        self.full += other.full;
        self.short += other.short;
        self.frames += other.frames;
        self.exchanges += other.exchanges;
        self.fenced += other.fenced;
        self.overflows += other.overflows;
        self.heals += other.heals;
        self.differed += other.differed;
        self.repair_bytes += other.repair_bytes;
        self.slowest_heal_us = self.slowest_heal_us.max(other.slowest_heal_us);
        // In whatever order threads finish.
        self.trace = self.trace.wrapping_add(other.trace);
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { happenings, requests, full, short, frames, exchanges, fenced, overflows, .. } = self;
        let Self { heals, differed, repair_bytes, slowest_heal_us, trace, .. } = self;
        let slowest_ms = slowest_heal_us / 1000;
        write!(f, "{happenings} events, {requests} requests ({full} replies full, {short} short), ")?;
        write!(f, "{frames} frames, {exchanges} exchanges, {fenced} times fenced, {overflows} overflows, ")?;
        write!(
            f,
            "{differed} differences after {heals} cuts repaired with {repair_bytes} bytes, within {slowest_ms} ms; \
             trace {trace:016x}"
        )
    }
}

pub(super) struct World {
    pub(super) now_us: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) net: Net,
    pub(super) phones: Vec<Phone>,
    pub(super) lines: Vec<Line>,
    pub(super) seed: u64,
    pub(super) rng: fastrand::Rng,
    pub(super) figures: Figures,
    pub(super) bootstrap_min_nodes: usize,
    load: bool,
    /// The next request is planned.
    asking: bool,
    pub(super) limits: Limits,
    pub(super) stamps: Stamps,
    pub(super) traffic: Traffic,
    pub(super) said: Option<Vec<String>>,
    /// By how much starts from disks may have moved cluster time.
    pub(super) off: Off,
    /// Since when nothing is cut, asleep or dead, and everybody knows.
    pub(super) calm_since_us: Option<u64>,
    pub(super) next_bounds_us: u64,
    /// If given, only these requests are made.
    pub(super) only: Option<BTreeSet<u64>>,
    /// Chances of a request so far.
    pub(super) asks: u64,
    /// Those that became one.
    pub(super) asked_at: Vec<u64>,
    /// Copies of requests under way.
    pub(super) messages: BTreeMap<u64, Message>,
    /// Requests that were answered in full.
    pub(super) full: BTreeSet<u64>,
    /// Which build each node is.
    pub(super) versions: Versions,
    /// A node whose connections break, and after how many frames of 256.
    pub(super) brittle: Option<(usize, u8)>,
    /// A node whose frames take long.
    pub(super) slow: Option<usize>,
    /// A node whose way out takes only so much.
    pub(super) thin: Option<Thin>,
    /// A path, or all from one node, on which frames take long, but not longer than acks are waited for.
    pub(super) sluggish: Option<(usize, usize)>,
    /// Whether nothing died for good since all held the same.
    pub(super) gentle: bool,
    /// Whether all are running, and may not all give way.
    pub(super) somebody_must_serve: bool,
    /// A node whose SIP threads do not get to read.
    pub(super) behind: Option<usize>,
    /// What waits in each node's socket, and since when.
    pub(super) sockets: Vec<VecDeque<(u64, u64)>>,
    /// Contacts found silent and not removed yet.
    pub(super) silent: BTreeMap<u64, Silent>,
    /// A node whose gossip is lost, both ways.
    pub(super) unheard: Option<usize>,
    /// The member that grants the longest lifetimes has said good-bye once.
    pub(super) longest_left: bool,
    /// One that was cut off for so long that it gave up the others, until all hold the same again.
    pub(super) returns: Option<usize>,
    /// No disk takes anything.
    pub(super) disks_stall: bool,
    /// Whether a removal that was answered must be known everywhere: not while only an absent disk has it.
    pub(super) judge_ghosts: bool,
    /// AoRs to be judged at once: something was answered in full, or a node began to serve.
    pub(super) news: BTreeSet<usize>,
    /// Whether they are: nothing is cut.
    pub(super) judges_news: bool,
    /// The last thing that a correct node never makes another say.
    pub(super) alarm: Option<String>,
    gossips: Vec<Gossip>,
    /// What a node writes, before it is cut into frames.
    pub(super) buffer: Vec<u8>,
    queue: Queue<Happening>,
    pub(super) order: u64,
    /// Which request, of whom, waits for which reply.
    pub(super) asked: BTreeMap<u64, (u64, usize)>,
}

impl World {
    pub(super) fn new(plan: &Plan) -> Self {
        let Plan { seed, nodes, aors, limits, .. } = *plan;
        let mut rng = fastrand::Rng::with_seed(seed);
        let hour_us = 3_600_000_000i64;
        let machines = (0..nodes)
            .map(|index| Node::new(index, rng.u64(1_000_000..1_000_000_000), rng.i64(-hour_us..hour_us)))
            .collect();
        let phone = |(line, number)| Phone::new(line, number, &limits);
        let mut world = Self {
            now_us: 0,
            nodes: machines,
            net: Net::new(nodes, limits.window_bytes),
            phones: (0..aors).flat_map(|line| (0..PHONES).map(move |number| (line, number))).map(phone).collect(),
            lines: (0..aors).map(Line::new).collect(),
            seed,
            rng,
            figures: Figures::default(),
            bootstrap_min_nodes: nodes.min(3) / 2 + 1,
            load: false,
            asking: false,
            limits,
            stamps: Stamps::default(),
            traffic: Traffic::default(),
            said: None,
            off: Off::default(),
            calm_since_us: None,
            next_bounds_us: 0,
            only: None,
            asks: 0,
            asked_at: Vec::new(),
            messages: BTreeMap::new(),
            full: BTreeSet::new(),
            versions: Versions::new(nodes),
            brittle: None,
            slow: None,
            thin: None,
            sluggish: None,
            gentle: true,
            somebody_must_serve: false,
            behind: None,
            sockets: vec![VecDeque::new(); nodes],
            silent: BTreeMap::new(),
            unheard: None,
            longest_left: false,
            returns: None,
            disks_stall: false,
            judge_ghosts: true,
            news: BTreeSet::new(),
            judges_news: false,
            alarm: None,
            gossips: (0..nodes).map(|_| Gossip::new(nodes)).collect(),
            buffer: Vec::new(),
            queue: Queue::new(),
            order: 0,
            asked: BTreeMap::new(),
        };
        for node in 0..nodes {
            world.at(node as u64 * 1000, Happening::Tick { node });
            world.at(SNAPSHOT_US + node as u64 * 7000, Happening::Snapshot { node });
        }
        world.at(0, Happening::Network);
        world.at(0, Happening::Gossip);
        world
    }

    pub(super) fn at(&mut self, at_us: u64, happening: Happening) {
        self.order += 1;
        self.queue.push(at_us, self.order, happening);
    }

    pub(super) fn after(&mut self, us: u64, happening: Happening) {
        self.at(self.now_us + us, happening);
    }

    /// Phones ask from now on, or ask nothing any more.
    pub(super) fn load(&mut self, load: bool) {
        self.load = load;
        if load && !std::mem::replace(&mut self.asking, true) {
            self.after(0, Happening::Request);
        }
    }

    /// Lets time pass; `watch` looks at the world now and then and may end it.
    pub(super) fn run(
        &mut self,
        us: u64,
        mut watch: impl FnMut(&mut Self) -> Result<bool, String>,
    ) -> Result<bool, String> {
        let until_us = self.now_us + us;
        let mut next_watch_us = self.now_us;
        self.judges_news = false;
        while let Some((at_us, order, happening)) = self.queue.pop(until_us) {
            self.now_us = at_us;
            self.note(order ^ at_us.rotate_left(20));
            self.happen(happening);
            if let Some(alarm) = self.alarm.take() {
                return Err(alarm);
            }
            if self.judges_news && !self.news.is_empty() {
                self.judge_news()?;
            }
            if self.now_us >= next_watch_us {
                next_watch_us = self.now_us + 50_000;
                if watch(self)? {
                    return Ok(true);
                }
            }
        }
        self.now_us = until_us;
        Ok(false)
    }

    pub(super) fn note(&mut self, what: u64) {
        self.figures.happenings += 1;
        let mixed = (self.figures.trace ^ what).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.figures.trace = mixed ^ (mixed >> 29);
    }

    pub(super) fn say(&mut self, text: impl FnOnce() -> String) {
        let now_us = self.now_us;
        if let Some(said) = &mut self.said {
            said.push(format!("{:>9.3} {}", now_us as f64 / 1e6, text()));
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrival { pair, id, end } => self.arrive(pair, id, end),
            Happening::Pump { from, to, class } => self.pump(from, to, class),
            Happening::Tick { node } => {
                self.tick(node);
                self.after(TICK_US, happening);
            }
            Happening::Network => {
                self.look_after_connections();
                self.after(NETWORK_US, happening);
            }
            Happening::Gossip => {
                self.gossip();
                self.after(GOSSIP_US, happening);
            }
            Happening::Snapshot { node } => {
                let now_us = self.now_us;
                self.nodes[node].snapshot(now_us);
                let disks_follow = self.limits.ack == Ack::Disk;
                self.after(if disks_follow { RARE_SNAPSHOT_US } else { SNAPSHOT_US }, happening);
            }
            Happening::Commit { node } => self.commit(node),
            Happening::Committed { node, boot } => self.committed(node, boot),
            Happening::Sip { copy } => self.sip(copy),
            Happening::Silent { judged } => self.removes_silent(judged),
            Happening::Request => {
                if !self.load {
                    self.asking = false;
                    return;
                }
                self.request();
                let us = self.rng.u64(1..2 * self.limits.request_every_us);
                self.after(us, happening);
            }
        }
    }

    /// Does something with a node that is awake, and carries out what follows.
    pub(super) fn with<T>(
        &mut self,
        node: usize,
        act: impl FnOnce(&mut super::node::Process, aorta::clock::Now) -> (T, Effects<u64>),
    ) -> Option<T> {
        let now_us = self.now_us;
        let (process, now) = self.nodes[node].awake(now_us)?;
        let (value, effects) = act(process, now);
        self.carry_out(node, effects);
        Some(value)
    }

    pub(super) fn carry_out(&mut self, node: usize, effects: Effects<u64>) {
        for (peer, class) in effects.wake {
            let Some(to) = self.nodes.iter().position(|node| node.id == peer) else { continue };
            let us = self.rng.u64(1..300);
            self.after(us, Happening::Pump { from: node, to, class });
        }
        if effects.commit_due {
            self.after(1, Happening::Commit { node });
        }
        for released in effects.released {
            self.figures.short += u64::from(released.short);
            self.figures.full += u64::from(!released.short);
            let Some((request, phone)) = self.asked.remove(&released.reply) else { continue };
            if self.load && self.rng.u8(..) < LOST_IN_256 {
                self.say(|| format!("the answer of n{} to request {request} is lost", node + 1));
                continue;
            }
            let short = released.short;
            self.say(|| format!("n{} answers request {request}, short: {short}", node + 1));
            match short {
                true => self.hears_short(request, phone),
                false => self.hears_full(request, phone),
            }
        }
        for event in effects.events {
            self.note(node as u64 + 1);
            match &event {
                Event::Fenced { why } => {
                    self.figures.fenced += 1;
                    self.alarm = self.alarm.take().or(self.judge_service().err());
                    // A peer acks nothing that it lacks, so nobody goes on beyond what it acked.
                    if why.contains(GAP) {
                        self.alarm = Some(format!("{} rejoins because {why}", self.nodes[node].id));
                    }
                }
                Event::ExchangeDone { .. } => {
                    self.figures.exchanges += 1;
                    self.traffic.exchanged();
                }
                Event::Overflow { .. } => self.figures.overflows += 1,
                // Ahead of its use, as a process flushes it.
                Event::ClockSet { .. } => {
                    let now_us = self.now_us;
                    self.nodes[node].keeps_time(now_us);
                }
                Event::Ready => {
                    self.news.extend(0..self.lines.len());
                    let now_us = self.now_us;
                    let cluster_us = self.nodes[node].awake(now_us).map_or(u64::MAX, |(_, now)| now.cluster_us);
                    self.alarm = self.alarm.take().or(self.stamps.serves(node, cluster_us).err());
                }
                Event::Drained => {
                    if let Some(process) = &mut self.nodes[node].process {
                        process.drained = true;
                    }
                }
                Event::Conflict { .. } | Event::StampAhead { .. } | Event::TooLarge { .. } => {
                    self.alarm = Some(format!("{}: {event:?}", self.nodes[node].id));
                }
                _ => {}
            }
            self.say(|| format!("n{}: {event:?}", node + 1));
        }
    }

    /// Kills a process; its machine keeps the disk as it is.
    pub(super) fn crash(&mut self, node: usize) {
        self.say(|| format!("n{} is killed", node + 1));
        self.nodes[node].process = None;
        self.loses_socket(node);
        for pair in self.net.of(node).collect::<Vec<_>>() {
            if let Some(connection) = self.net.get_mut(pair) {
                connection.ends[end_of(node, pair)].open = false;
            }
        }
    }

    /// Whether a node serves.
    pub(super) fn serves(&self, node: usize) -> bool {
        self.nodes[node].process.as_ref().is_some_and(|process| process.replication.serving().requests)
    }

    /// Whether a node serves but for these, and so holds what they answered in full.
    pub(super) fn serves_without(&self, these: &[usize]) -> bool {
        let awake = |node: &usize| self.nodes[*node].process.as_ref().is_some_and(|process| !process.asleep);
        (0..self.nodes.len()).filter(|node| !these.contains(node)).filter(awake).any(|node| self.serves(node))
    }

    /// Whether gossip shows one node that another one joins.
    pub(super) fn sees_joining(&self, one: usize, two: usize) -> bool {
        let boot = self.nodes[two].process.as_ref().map(|process| process.boot);
        boot.is_some_and(|boot| self.gossips[one].shows_joining(two, boot))
    }

    pub(super) fn start(&mut self, node: usize) {
        self.say(|| format!("n{} starts", node + 1));
        let (now_us, min) = (self.now_us, self.bootstrap_min_nodes);
        self.gossips[node] = Gossip::new(self.nodes.len());
        let seeds = self.seeds_unreached(node);
        let names = self.names(&seeds);
        self.nodes[node].seeds_unreached = seeds;
        self.nodes[node].wire_version_max = self.versions.starts(node);
        let limits = self.limits;
        self.nodes[node].start(now_us, node, names, min, &limits);
    }

    /// Every node is a seed of all: those with whom this one has no connection.
    fn seeds_unreached(&self, node: usize) -> Vec<usize> {
        let others = (0..self.nodes.len()).filter(|other| *other != node);
        others.filter(|other| !self.net.is_open(node, pair(node, *other, Class::Live))).collect()
    }

    fn names(&self, nodes: &[usize]) -> Vec<String> {
        nodes.iter().map(|node| self.nodes[*node].id.to_string()).collect()
    }

    /// A node's oscillator is off by so much from now on.
    pub(super) fn drift(&mut self, node: usize, ppm: i64) {
        let now_us = self.now_us;
        self.nodes[node].drift(now_us, ppm);
    }

    /// SIGSTOP.
    pub(super) fn sleep(&mut self, node: usize) {
        self.say(|| format!("n{} is stopped", node + 1));
        if let Some(process) = &mut self.nodes[node].process {
            process.asleep = true;
        }
    }

    /// SIGCONT: the first thing that happens is that a SIP thread sees its tick late.
    pub(super) fn wake(&mut self, node: usize) {
        self.say(|| format!("n{} goes on", node + 1));
        if let Some(process) = &mut self.nodes[node].process {
            process.asleep = false;
        }
        self.with(node, |process, now| ((), process.replication.slept(0, now)));
        self.reads_on(node);
    }

    fn tick(&mut self, node: usize) {
        if !self.nodes[node].is_awake() {
            return;
        }
        let seeds = self.seeds_unreached(node);
        if self.nodes[node].seeds_unreached != seeds {
            let names = self.names(&seeds);
            self.nodes[node].seeds_unreached = seeds;
            self.with(node, |process, now| ((), process.replication.seeds_unreached(names, now)));
        }
        self.with(node, |process, now| ((), process.replication.timeout(now)));
        let idle: Vec<Pair> = self.net.of(node).filter(|pair| self.is_idle(node, *pair)).collect();
        idle.into_iter().for_each(|pair| self.close(pair));
    }

    fn gossip(&mut self) {
        let (now_us, nodes) = (self.now_us, self.nodes.len());
        for node in 0..nodes {
            let me = self.nodes[node].id.clone();
            let said = self.with(node, |process, _| ((process.boot, process.replication.gossip()), Effects::default()));
            if let Some((boot, keys)) = said {
                self.gossips[node].beat(node, me, boot, keys, now_us);
            }
        }
        let pairs = (0..nodes).flat_map(|one| (one + 1..nodes).map(move |two| (one, two)));
        for (one, two) in pairs.filter(|(one, two)| self.net.get(pair(*one, *two, Class::Live)).is_some()) {
            let both = self.nodes[one].is_awake() && self.nodes[two].is_awake();
            let unheard = self.unheard.is_some_and(|node| node == one || node == two);
            for (from, to) in [(one, two), (two, one)] {
                let passes = both && !unheard && self.net.passes(from, to);
                if let Ok([from, to]) = self.gossips.get_disjoint_mut([from, to])
                    && passes
                {
                    to.hear(from, now_us);
                }
            }
        }
        for node in 0..nodes {
            let view: Vec<Member> = self.gossips[node].alive(now_us).cloned().collect();
            self.with(node, |process, now| ((), process.replication.members(view, now)));
        }
    }
}
