//! Whatever is measured: where it takes SIP and which processes it is.

use std::net::SocketAddr;
use std::path::Path;

use super::kamailio::{self, KamailioNodes};
use super::nodes::AortaNodes;
use super::processes;

/// Requests in flight while phones register at ours before the measuring.
const FILL_WINDOW: usize = 256;
/// The same of Kamailio: what it has not told its peers yet fills its memory.
const FILL_WINDOW_KAMAILIO: usize = 32;

/// What is started for a row.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind<'a> {
    /// Our nodes: the program, and TOML for their configurations.
    Aorta(&'a Path, &'a str),
    /// Kamailio with DMQ.
    Kamailio,
}

impl Kind<'_> {
    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Aorta(..) => "Aorta",
            Self::Kamailio => "Kamailio",
        }
    }
}

/// A cluster at work.
#[derive(Debug)]
pub(super) enum Servers {
    /// Ours.
    Aorta(AortaNodes),
    /// Kamailio with DMQ.
    Kamailio(KamailioNodes),
}

impl Servers {
    /// Starts so many nodes. The calling thread must live as long as they do, and they run on its processors.
    ///
    /// # Errors
    /// When one does not start, or they do not find one another.
    pub(super) fn start(kind: Kind<'_>, count: usize) -> anyhow::Result<Self> {
        match kind {
            Kind::Aorta(program, config) => {
                let mut nodes = AortaNodes::place(program, count, config)?;
                nodes.start(0..count)?;
                Ok(Self::Aorta(nodes))
            }
            Kind::Kamailio => Ok(Self::Kamailio(KamailioNodes::start(count, kamailio::WORKERS)?)),
        }
    }

    /// Where SIP is taken, node by node.
    pub(super) fn sips(&self) -> Vec<SocketAddr> {
        match self {
            Self::Aorta(nodes) => nodes.sips(),
            Self::Kamailio(nodes) => nodes.sips(),
        }
    }

    /// All processes of all nodes.
    pub(super) fn pids(&self) -> Vec<u32> {
        let first = match self {
            Self::Aorta(nodes) => nodes.pids(),
            Self::Kamailio(nodes) => nodes.pids(),
        };
        first.into_iter().flat_map(processes::family).collect()
    }

    /// Why nodes did not serve since they were ready first, as far as they say.
    pub(super) fn left_service(&self) -> Vec<String> {
        match self {
            Self::Aorta(nodes) => nodes.left_service(),
            Self::Kamailio(_) => Vec::new(),
        }
    }

    /// Requests in flight while phones register before the measuring.
    pub(super) fn fill_window(&self) -> usize {
        match self {
            Self::Aorta(_) => FILL_WINDOW,
            Self::Kamailio(_) => FILL_WINDOW_KAMAILIO,
        }
    }
}
