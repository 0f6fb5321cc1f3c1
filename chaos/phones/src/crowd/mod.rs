//! Ten thousand phones that remember what they were told, under continuous load, while somebody breaks the nodes.
//!
//! Open loop: so many REGISTERs and calls a second whatever the answers; failover as an SBC does it. What must ring, what
//! must not and what nobody can know follows from the answers alone; every call and every 200 is held against it. It
//! breaks nothing and knows no node but by its SIP address.
//!
//! ```no_run
//! # async fn example(nodes: &[std::net::SocketAddr]) -> anyhow::Result<()> {
//! use aorta_phones::{Crowd, CrowdPlan};
//! let mut crowd = Crowd::new(CrowdPlan::new(10_000, 42)).await?;
//! crowd.fill(nodes).await?;
//! let running = crowd.start(nodes).await?;
//! // … break something, and every 250 ms:
//! let tally = running.tally();
//! println!("{} full, {} short, p99 {:?}", tally.full, tally.short, tally.latency.quantile(0.99));
//! let mut crowd = running.stop().await?;
//! let judgement = crowd.judge(nodes).await?;
//! anyhow::ensure!(judgement.is_clean(), "{judgement:?}");
//! # Ok(())
//! # }
//! ```

mod aor;
mod belief;
mod device;
mod heard;
mod judgement;
mod lapses;
mod outcomes;
mod plan;
mod questions;
mod share;
mod tally;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

pub use judgement::{FINDINGS_MAX, Fault, Finding, Judgement};
pub use plan::{CrowdPlan, Mix, PHONES_MAX};
pub use tally::{Deed, Lapses, Observation, Tally, Told};

use self::questions::Questions;
use self::share::{Orders, Part, Share};
use crate::edge::Edge;
use crate::engine::{Patience, WINDOW_MAX, drive};
use crate::nodes::Nodes;
use crate::phone::Household;
use crate::sbc::{Sbc, Timers};
use crate::stats::{Counted, Stats};

/// A node may take so long for its word about one AoR, when it is judged.
const WORD: Duration = Duration::from_secs(3);
/// Time between two looks of somebody who waits.
const LOOK: Duration = Duration::from_millis(20);
/// Questions in flight per socket while the nodes are judged.
const QUESTIONS: usize = 32;

/// The phones, and what each remembers.
#[derive(Debug)]
pub struct Crowd {
    plan: CrowdPlan,
    household: Arc<Household>,
    edge: Edge,
    /// From the first time that there are any: whoever answered keeps its place.
    nodes: Option<Arc<Nodes>>,
    shares: Vec<Part>,
    malformed: Counted<String>,
    epoch: Instant,
}

type Ended = anyhow::Result<(Share, Stats)>;

/// A crowd at work. Dropped, it stops.
#[derive(Debug)]
pub struct Running {
    /// Without its shares, which are at work.
    crowd: Option<Crowd>,
    nodes: Arc<Nodes>,
    orders: Arc<Orders>,
    tallies: Vec<Arc<Mutex<Tally>>>,
    tasks: Vec<JoinHandle<Ended>>,
    /// Its prober says which nodes are up.
    prober: Sbc,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn sum(tallies: &[Arc<Mutex<Tally>>]) -> Tally {
    let mut sum = Tally::default();
    tallies.iter().for_each(|tally| sum.merge(&tally.lock().unwrap_or_else(PoisonError::into_inner)));
    sum
}

impl Crowd {
    /// The phones of this plan, none registered, and the edge that their Paths name, in the network of the calling thread.
    ///
    /// # Errors
    /// No socket; a plan without phones or sockets, or with too many phones.
    pub async fn new(plan: CrowdPlan) -> anyhow::Result<Crowd> {
        anyhow::ensure!((1..=PHONES_MAX).contains(&plan.phones), "a crowd has 1 to {PHONES_MAX} phones");
        anyhow::ensure!((1..=64).contains(&plan.sockets), "a crowd has 1 to 64 sockets");
        let edge = Edge::start().await?;
        let household = Household { seed: plan.seed, domain: plan.domain.clone(), edge: Some(edge.address()) };
        let aors = aor::all(&plan, &household);
        let mut parts: Vec<Vec<aor::Aor>> = vec![Vec::new(); plan.sockets.min(aors.len())];
        let count = parts.len();
        aors.into_iter().enumerate().for_each(|(nth, aor)| parts[nth % count].push(aor));
        let mut rng = fastrand::Rng::with_seed(plan.seed);
        let shares = parts
            .into_iter()
            .map(|aors| Part { aors: Arc::new(aors), tally: Arc::default(), rng: rng.fork() })
            .collect();
        let (nodes, malformed, epoch) = (None, Counted::default(), Instant::now());
        Ok(Crowd { plan, household: Arc::new(household), edge, nodes, shares, malformed, epoch })
    }

    /// The plan. Rates, mix, `via` and patience may be changed while the crowd is not at work; who the phones are may not.
    pub fn plan_mut(&mut self) -> &mut CrowdPlan {
        &mut self.plan
    }

    /// Everybody registers, as fast as the windows allow, until all have their 200 (or so many tries failed that those
    /// left are given up: see [`Tally::bound`]).
    ///
    /// # Errors
    /// No socket, or a node address out of bounds (see [`Nodes::new`]).
    pub async fn fill(&mut self, nodes: &[SocketAddr]) -> anyhow::Result<Tally> {
        self.everybody(nodes).await?;
        Ok(self.tally())
    }

    /// All phones restart at once: each registers with a new Call-ID, as fast as the windows allow, with no other load.
    ///
    /// # Errors
    /// No socket, or a node address out of bounds (see [`Nodes::new`]).
    pub async fn storm(&mut self, nodes: &[SocketAddr]) -> anyhow::Result<Tally> {
        self.everybody(nodes).await?;
        Ok(self.tally())
    }

    async fn everybody(&mut self, nodes: &[SocketAddr]) -> anyhow::Result<()> {
        let nodes = self.use_nodes(nodes)?;
        let orders = Arc::new(Orders::default());
        let prober = self.prober(&nodes).await?;
        let tasks = self.set_to_work(&nodes, &orders, true);
        let ended = self.take_back(tasks).await;
        drop(prober);
        ended
    }

    /// Says which nodes are up, as long as it is kept.
    async fn prober(&self, nodes: &Arc<Nodes>) -> anyhow::Result<Sbc> {
        let timers = Timers { probe_every: self.plan.probe_every, ..Timers::default() };
        Sbc::start(nodes.clone(), timers).await
    }

    fn use_nodes(&mut self, addresses: &[SocketAddr]) -> anyhow::Result<Arc<Nodes>> {
        let nodes = match &self.nodes {
            Some(nodes) => nodes.clone(),
            None => Arc::new(Nodes::new(addresses)?),
        };
        nodes.set_used(addresses)?;
        (0..nodes.len()).for_each(|node| _ = nodes.set_up(node, true));
        self.nodes = Some(nodes.clone());
        Ok(nodes)
    }

    fn set_to_work(&mut self, nodes: &Arc<Nodes>, orders: &Arc<Orders>, storm_only: bool) -> Vec<JoinHandle<Ended>> {
        let plan = Arc::new(self.plan.clone());
        let mut tasks = Vec::new();
        for share in self.shares.drain(..) {
            let mut share = Share::new(&plan, &self.household, nodes, orders, share, self.epoch);
            if storm_only {
                share.storms(true);
            }
            tasks.push(tokio::spawn(drive(nodes.clone(), plan.patience, WINDOW_MAX, share)));
        }
        tasks
    }

    async fn take_back(&mut self, tasks: Vec<JoinHandle<Ended>>) -> anyhow::Result<()> {
        for task in tasks {
            let (share, stats) = task.await??;
            self.malformed.merge(stats.malformed);
            self.shares.push(share.into_part());
        }
        Ok(())
    }

    /// Continuous load on the runtime that this is called in, until [`Running::stop`].
    ///
    /// # Errors
    /// No socket, or a node address out of bounds (see [`Nodes::new`]).
    pub async fn start(mut self, nodes: &[SocketAddr]) -> anyhow::Result<Running> {
        let nodes = self.use_nodes(nodes)?;
        let orders = Orders::default();
        orders.per_second.store(self.plan.per_second, Ordering::Relaxed);
        orders.calls_per_second.store(self.plan.calls_per_second, Ordering::Relaxed);
        let prober = self.prober(&nodes).await?;
        let orders = Arc::new(orders);
        let tallies = self.shares.iter().map(|share| share.tally.clone()).collect();
        let tasks = self.set_to_work(&nodes, &orders, false);
        Ok(Running { crowd: Some(self), nodes, orders, tallies, tasks, prober })
    }

    /// Asks every node for every phone by INVITE, without failover, and compares. For a quiet cluster: what is known may
    /// lapse meanwhile, and is then not judged.
    ///
    /// # Errors
    /// No socket, or a node address out of bounds (see [`Nodes::new`]).
    pub async fn judge(&mut self, nodes: &[SocketAddr]) -> anyhow::Result<Judgement> {
        let all = self.use_nodes(nodes)?;
        let mut tasks = Vec::new();
        for (place, _) in all.addresses().iter().enumerate().filter(|(place, _)| all.is_used(*place)) {
            for share in &self.shares {
                let questions = Questions {
                    aors: share.aors.clone(),
                    household: self.household.clone(),
                    nodes: all.clone(),
                    no_binding_status: self.plan.no_binding_status,
                    epoch: self.epoch,
                    place,
                    next: 0,
                    judgement: Judgement::default(),
                };
                tasks.push(tokio::spawn(drive(all.clone(), Patience::direct(WORD), QUESTIONS, questions)));
            }
        }
        let mut judgement = Judgement::default();
        for task in tasks {
            let (questions, stats) = task.await??;
            self.malformed.merge(stats.malformed);
            judgement.merge(questions.judgement);
        }
        Ok(judgement)
    }

    /// What was counted so far, since the crowd was made.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let tallies: Vec<_> = self.shares.iter().map(|share| share.tally.clone()).collect();
        sum(&tallies)
    }

    /// Replies that break RFC 3261, whoever they were for; known of runs that have ended.
    #[must_use]
    pub fn malformed(&self) -> &Counted<String> {
        &self.malformed
    }

    /// The edge that the phones are behind.
    #[must_use]
    pub fn edge(&self) -> &Edge {
        &self.edge
    }
}

impl Running {
    /// Who the nodes are from now on; those not named get nothing new.
    ///
    /// # Errors
    /// More different addresses than [`crate::nodes::NODES_MAX`] over the life of a crowd.
    pub fn set_nodes(&self, nodes: &[SocketAddr]) -> anyhow::Result<()> {
        self.nodes.set_used(nodes)
    }

    /// What was counted so far, since the crowd was made; cheap.
    #[must_use]
    pub fn tally(&self) -> Tally {
        sum(&self.tallies)
    }

    /// Looks at what was counted until `holds`, and gives it.
    ///
    /// # Errors
    /// It does not within `patience`: says what was waited for, and what was counted.
    pub async fn until(&self, what: &str, patience: Duration, holds: impl Fn(&Tally) -> bool) -> anyhow::Result<Tally> {
        let deadline = Instant::now() + patience;
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            let tally = self.tally();
            if holds(&tally) {
                return Ok(tally);
            }
            anyhow::ensure!(Instant::now() < deadline, "not {what} within {patience:?}: {tally:?}");
        }
    }

    /// Whether the small SBC believes that this node answers.
    #[must_use]
    pub fn is_up(&self, node: SocketAddr) -> bool {
        let nodes = self.prober.nodes();
        let place = nodes.addresses().iter().position(|address| *address == node);
        place.is_some_and(|place| nodes.is_used(place) && nodes.is_up(place))
    }

    /// All phones restart at once: each registers with a new Call-ID as soon as the windows allow, beside the steady load.
    /// [`Tally::storming`] says how many have still to.
    pub fn storm(&self) {
        self.orders.storms.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing more begins until [`Running::go_on`]; what is open is answered or given up ([`Running::open`]). What would
    /// have been due meanwhile is never made, and counts for no latency.
    pub fn hold(&self) {
        self.orders.held.store(true, Ordering::Relaxed);
    }

    /// The load goes on, from now.
    pub fn go_on(&self) {
        self.orders.held.store(false, Ordering::Relaxed);
    }

    /// Requests and calls that have begun and not ended.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.orders.open.load(Ordering::Acquire)
    }

    /// REGISTERs and calls a second from now on; 0 pauses them.
    pub fn set_rates(&self, per_second: u32, calls_per_second: u32) {
        self.orders.per_second.store(per_second, Ordering::Relaxed);
        self.orders.calls_per_second.store(calls_per_second, Ordering::Relaxed);
    }

    /// Begins nothing more, waits for the last answers (at most the patience of the plan), and gives the crowd back.
    ///
    /// # Errors
    /// A socket failed.
    pub async fn stop(mut self) -> anyhow::Result<Crowd> {
        self.orders.stop.store(true, Ordering::Relaxed);
        let Some(mut crowd) = self.crowd.take() else { anyhow::bail!("stopped already") };
        crowd.take_back(std::mem::take(&mut self.tasks)).await?;
        Ok(crowd)
    }
}
