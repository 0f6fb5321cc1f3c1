//! A peer with a certificate of the cluster that says too much, or nonsense, as fast as it can. It holds nothing and
//! answers nothing.

use std::net::SocketAddr;

use super::desk::Desk;
use super::network::Network;

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floods {
    /// The same valid delta again and again.
    Deltas,
    /// Valid digests.
    Digests,
    /// Frames whose header is right and whose body is noise.
    Garbage,
}

/// To whom.
#[derive(Debug, Clone, Copy)]
pub struct FloodPlan {
    /// The node.
    pub node: usize,
    /// What it says.
    pub says: Floods,
    /// Decides over the noise.
    pub seed: u64,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FloodReport {
    /// Whole frames handed to QUIC.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How often it was linked.
    pub links: u64,
    /// How often a link was closed by the node.
    pub closed: u64,
    /// What the node said the last time.
    pub why: String,
}

/// A flood that goes on until it is stopped or dropped.
#[derive(Debug)]
pub struct Flood {}

impl Flood {
    /// Ends it.
    #[must_use]
    pub fn stop(self) -> FloodReport {
        FloodReport::default()
    }
}

pub(super) fn start(
    _plan: &FloodPlan,
    _desk: &Desk,
    _network: Option<&Network>,
    _target: SocketAddr,
) -> anyhow::Result<Flood> {
    anyhow::bail!("floods are not there yet")
}
