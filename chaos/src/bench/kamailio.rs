//! Kamailio nodes that tell one another every change by DMQ, with the configuration beside this crate. They are measured as
//! our own nodes are.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use aorta::cli::layout;

use crate::kamailio::{self, Kamailio};

/// The configuration, as it is documented.
const CONFIGURATION: &str = include_str!("../../bench/kamailio.cfg");
/// Shared memory of a node, and memory of each of its processes alone, MiB.
const MEMORY_MIB: [&str; 4] = ["-m", "4096", "-M", "16"];
/// Worker processes for each socket and for DMQ, as when the figures in `targets` were taken: `chaos/README.md` compares others.
pub(super) const WORKERS: usize = 2;
/// Longest wait until every node knows all others.
const PATIENCE: Duration = Duration::from_secs(60);

/// Some nodes of one cluster. Dropped, they end.
#[derive(Debug)]
pub(super) struct KamailioNodes {
    nodes: Vec<Kamailio>,
    sips: Vec<SocketAddr>,
    /// Goes after them.
    _folder: layout::FreshFolder,
}

impl KamailioNodes {
    /// Whether Kamailio and its tool are installed.
    pub(super) fn is_here() -> bool {
        kamailio::is_here()
    }

    /// Starts so many and waits until each knows all others.
    ///
    /// # Errors
    /// When it is not installed, one ends, or they do not find one another.
    pub(super) fn start(count: usize, workers: usize) -> anyhow::Result<Self> {
        ensure!(Self::is_here(), "kamailio and kamcmd are not installed (Debian: kamailio)");
        let folder = layout::FreshFolder::make("kamailio-bench")?;
        let ports = layout::free_ports(count)?;
        let host = Ipv4Addr::LOCALHOST;
        let mut nodes: Vec<Kamailio> = Vec::new();
        for (number, here) in (1..).zip(&ports) {
            let mut defines = vec![
                format!("SIP_PORT={}", here.sip),
                format!("DMQ_PORT={}", here.cluster),
                format!("DMQ_ADDRESS=\"sip:{host}:{}\"", here.cluster),
                format!("WORKERS={workers}"),
            ];
            // The first other one: a node that is its own seed tells each change to itself as well.
            let seed = ports.iter().find(|other| other.cluster != here.cluster);
            defines.extend(seed.map(|seed| format!("SEED=\"sip:{host}:{}\"", seed.cluster)));
            let own = folder.path().join(format!("node{number}"));
            let spawn = |command: &mut Command| Ok(command.spawn()?);
            nodes.push(Kamailio::start(&own, CONFIGURATION, &defines, &MEMORY_MIB, spawn)?);
            // A node asks the seed once for the others.
            let known = |node: &Kamailio| node.lines("dmq.list_nodes", |line| line == "status: active");
            for node in &mut nodes {
                node.until("find its peers", PATIENCE, |node| known(node) == number)?;
            }
        }
        let sips = ports.iter().map(|ports| SocketAddr::from((host, ports.sip))).collect();
        Ok(Self { nodes, sips, _folder: folder })
    }

    pub(super) fn sips(&self) -> Vec<SocketAddr> {
        self.sips.clone()
    }

    /// The first process of each.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(Kamailio::pid).collect()
    }
}

impl Drop for KamailioNodes {
    fn drop(&mut self) {
        // All at once: each takes its time.
        self.nodes.iter().for_each(Kamailio::end);
    }
}
