//! Whatever is measured: where it takes SIP and which processes it is.

use std::net::SocketAddr;

use super::nodes::AortaNodes;
use super::processes;

/// A cluster at work.
#[derive(Debug)]
pub(super) enum Servers {
    /// Ours.
    Aorta(AortaNodes),
}

impl Servers {
    /// Where SIP is taken, node by node.
    pub(super) fn sips(&self) -> Vec<SocketAddr> {
        match self {
            Self::Aorta(nodes) => nodes.sips(),
        }
    }

    /// All processes of all nodes.
    pub(super) fn pids(&self) -> Vec<u32> {
        let first = match self {
            Self::Aorta(nodes) => nodes.pids(),
        };
        first.into_iter().flat_map(processes::family).collect()
    }
}
