//! A Kamailio with the configuration of `deploy/sbc`, in the network of the phones, in front of the nodes. It judges nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use crate::kamailio::{self, Kamailio};
use crate::lab::{Home, NotHere};

/// The configuration, as operators get it.
const CONFIGURATION: &str = include_str!("../../../deploy/sbc/kamailio.cfg");
/// Where it listens.
const PORT: u16 = 5_060;
/// Longest wait until it uses all nodes.
const PATIENCE: Duration = Duration::from_secs(20);

/// The SBC; it ends with this.
#[derive(Debug)]
pub(super) struct KamailioSbc {
    /// Held until then.
    _process: Kamailio,
    address: SocketAddr,
}

impl KamailioSbc {
    /// Starts it in front of these nodes, its files in `folder`, and waits until it uses all of them.
    pub(super) fn start(home: &Home, nodes: &[SocketAddr], folder: &Path) -> anyhow::Result<Self> {
        if !kamailio::is_here() {
            return Err(NotHere::Program("kamailio").into());
        }
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let file = folder.join("dispatcher.list");
        let list: String = nodes.iter().map(|node| format!("1 sip:{node}\n")).collect();
        std::fs::write(&file, list)?;
        let defines = [
            format!("SBC_HOST={}", home.address()),
            format!("SBC_PORT={PORT}"),
            "PROBE_INTERVAL_S=1".to_owned(),
            "WORKERS=4".to_owned(),
            format!("NODES_FILE=\"{}\"", file.display()),
        ];
        let spawn = |command: &mut std::process::Command| Ok(home.enter(|| command.spawn())??);
        let mut process = Kamailio::start(folder, CONFIGURATION, &defines, &[], spawn)?;
        let in_use = |process: &Kamailio| process.lines("dispatcher.list", |line| line.starts_with("FLAGS: A"));
        process.until("use all nodes", PATIENCE, |process| in_use(process) >= nodes.len())?;
        Ok(Self { _process: process, address: SocketAddr::new(home.address(), PORT) })
    }

    /// Where calls go.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}
