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
//! let running = crowd.start(nodes)?;
//! // … break something, and every 250 ms:
//! let tally = running.tally();
//! println!("{} full, {} short, p99 {:?}", tally.full, tally.short, tally.latency.quantile(0.99));
//! let crowd = running.stop().await?;
//! let judgement = crowd.judge(nodes).await?;
//! anyhow::ensure!(judgement.is_clean(), "{judgement:?}");
//! # Ok(())
//! # }
//! ```

mod judgement;
mod plan;
mod tally;

use std::net::SocketAddr;
use std::sync::Arc;

pub use judgement::{FINDINGS_MAX, Fault, Finding, Judgement};
pub use plan::{CrowdPlan, Mix, PHONES_MAX};
pub use tally::{Deed, Observation, Tally, Told};

use crate::edge::Edge;
use crate::nodes::Nodes;

/// The phones, and what each remembers.
#[derive(Debug)]
pub struct Crowd {
    plan: CrowdPlan,
    edge: Edge,
}

/// A crowd at work. Dropped, it stops.
#[derive(Debug)]
pub struct Running {
    crowd: Crowd,
    nodes: Arc<Nodes>,
}

impl Crowd {
    /// The phones of this plan, none registered, and the edge that their Paths name, in the network of the calling thread.
    ///
    /// # Errors
    /// No socket; a plan without phones or with too many.
    pub async fn new(plan: CrowdPlan) -> anyhow::Result<Crowd> {
        anyhow::ensure!((1..=PHONES_MAX).contains(&plan.phones), "a crowd has 1 to {PHONES_MAX} phones");
        let edge = Edge::start().await?;
        Ok(Crowd { plan, edge })
    }

    /// The plan; rates and mix may be changed while the crowd is not at work.
    pub fn plan_mut(&mut self) -> &mut CrowdPlan {
        &mut self.plan
    }

    /// Everybody registers, as fast as the windows allow, until all have their 200 or had four tries.
    ///
    /// # Errors
    /// No socket, or a node address out of bounds (see [`Nodes::new`]).
    pub async fn fill(&mut self, nodes: &[SocketAddr]) -> anyhow::Result<Tally> {
        Nodes::new(nodes)?;
        Ok(Tally::default())
    }

    /// Continuous load on the runtime that this is called in, until [`Running::stop`].
    ///
    /// # Errors
    /// A node address out of bounds (see [`Nodes::new`]).
    pub fn start(self, nodes: &[SocketAddr]) -> anyhow::Result<Running> {
        Ok(Running { crowd: self, nodes: Arc::new(Nodes::new(nodes)?) })
    }

    /// Asks every node for every phone by INVITE, without failover, and compares. For a quiet cluster: what is known may
    /// lapse meanwhile, and is then not judged.
    ///
    /// # Errors
    /// No socket, or a node address out of bounds (see [`Nodes::new`]).
    pub async fn judge(&self, nodes: &[SocketAddr]) -> anyhow::Result<Judgement> {
        Nodes::new(nodes)?;
        Ok(Judgement::default())
    }

    /// What was counted so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally::default()
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
    /// More different addresses than [`crate::nodes::NODES_MAX`] in one run.
    pub fn set_nodes(&self, nodes: &[SocketAddr]) -> anyhow::Result<()> {
        let _ = (nodes, &self.nodes);
        Ok(())
    }

    /// What was counted so far; cheap.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally::default()
    }

    /// All phones restart at once: each registers with a new Call-ID as soon as the windows allow, beside the steady load.
    pub fn storm(&self) {}

    /// REGISTERs and calls a second from now on; 0 pauses them.
    pub fn set_rates(&self, per_second: u32, calls_per_second: u32) {
        let _ = (per_second, calls_per_second);
    }

    /// Begins nothing more, waits for the last answers (at most the patience of the plan), and gives the crowd back.
    ///
    /// # Errors
    /// A socket failed.
    pub async fn stop(self) -> anyhow::Result<Crowd> {
        Ok(self.crowd)
    }
}
