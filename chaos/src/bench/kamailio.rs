//! Kamailio nodes that tell one another every change by DMQ, from Debian's packages, with the configuration beside this
//! crate. They are measured as our own nodes are.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use aorta::cli::layout;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The configuration, as it is documented.
const CONFIGURATION: &str = include_str!("../../bench/kamailio.cfg");
/// Shared memory of a node, MiB.
const SHARED_MIB: &str = "4096";
/// Memory of each of its processes alone, MiB.
const PRIVATE_MIB: &str = "16";
/// Worker processes for each socket and for DMQ, as when the figures in `targets` were taken; other numbers were not compared.
pub(super) const WORKERS: usize = 2;
/// Longest wait until every node knows all others, and until they have ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Some nodes of one cluster. Dropped, they end.
#[derive(Debug)]
pub(super) struct KamailioNodes {
    nodes: Vec<Node>,
    folder: layout::FreshFolder,
}

#[derive(Debug)]
struct Node {
    child: Child,
    sip: SocketAddr,
    control: String,
    log: PathBuf,
}

impl KamailioNodes {
    /// Whether Kamailio, its tool and its modules are installed.
    pub(super) fn is_here() -> bool {
        let runs = |tool| Command::new(tool).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        runs("kamailio") && runs("kamcmd")
    }

    /// Starts so many and waits until each knows all others.
    ///
    /// # Errors
    /// When it is not installed, one ends, or they do not find one another.
    pub(super) fn start(count: usize, workers: usize) -> anyhow::Result<Self> {
        ensure!(Self::is_here(), "kamailio and kamcmd are not installed (Debian: kamailio)");
        let folder = layout::FreshFolder::make("kamailio-bench")?;
        std::fs::write(folder.path().join("kamailio.cfg"), CONFIGURATION)?;
        let mut cluster = Self { nodes: Vec::new(), folder };
        let ports = layout::free_ports(count)?;
        let seed = ports.first().context("a cluster of no nodes")?.cluster;
        for (number, ports) in ports.iter().enumerate() {
            let node = Node::start(cluster.folder.path(), number + 1, *ports, seed, workers)?;
            cluster.nodes.push(node);
            // A node asks the seed once for the others.
            cluster.until_known(cluster.nodes.len())?;
        }
        Ok(cluster)
    }

    /// Waits until every node lists so many as active.
    fn until_known(&mut self, count: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        for node in &mut self.nodes {
            while node.known() < count {
                let ended = node.child.try_wait()?;
                ensure!(
                    ended.is_none() && begun.elapsed() < PATIENCE,
                    "kamailio does not find its peers: {}",
                    node.words()
                );
                std::thread::sleep(LOOK_AGAIN);
            }
        }
        Ok(())
    }

    pub(super) fn sips(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.sip).collect()
    }

    /// The first process of each.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.child.id()).collect()
    }
}

impl Node {
    fn start(folder: &Path, number: usize, ports: layout::Ports, seed: u16, workers: usize) -> anyhow::Result<Self> {
        let own = folder.join(format!("node{number}"));
        std::fs::create_dir(&own).with_context(|| format!("making {}", own.display()))?;
        let log = own.join("log");
        let output = File::create(&log)?;
        let control = format!("unix:{}", own.join("control").display());
        let host = Ipv4Addr::LOCALHOST;
        let defines = [
            format!("SIP_PORT={}", ports.sip),
            format!("DMQ_PORT={}", ports.cluster),
            format!("DMQ_ADDRESS=\"sip:{host}:{}\"", ports.cluster),
            format!("SEED=\"sip:{host}:{seed}\""),
            format!("WORKERS={workers}"),
            format!("CONTROL_SOCKET=\"{control}\""),
        ];
        let mut command = Command::new("kamailio");
        command.args(["-DD", "-E", "-m", SHARED_MIB, "-M", PRIVATE_MIB, "-f"]).arg(folder.join("kamailio.cfg"));
        command.args(defines.iter().flat_map(|define| ["-A", define]));
        command.arg("-Y").arg(&own).arg("-P").arg(own.join("pid"));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().context("starting kamailio")?;
        Ok(Self { child, sip: (host, ports.sip).into(), control, log })
    }

    fn ask(&self, what: &str) -> Option<String> {
        let output = Command::new("kamcmd").args(["-s", &self.control, what]).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Nodes that it knows to be there, itself one of them.
    fn known(&self) -> usize {
        let list = self.ask("dmq.list_nodes").unwrap_or_default();
        list.lines().filter(|line| line.trim() == "status: active").count()
    }

    fn words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().rev().take(8).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for KamailioNodes {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // The first process ends the others; killed, it would leave them.
            if let Ok(pid) = i32::try_from(node.child.id()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
        }
        let begun = Instant::now();
        for node in &mut self.nodes {
            while begun.elapsed() < PATIENCE && matches!(node.child.try_wait(), Ok(None)) {
                std::thread::sleep(LOOK_AGAIN);
            }
            let _ = node.child.kill();
            let _ = node.child.wait();
        }
    }
}
