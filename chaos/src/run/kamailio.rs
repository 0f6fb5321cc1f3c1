//! A Kamailio with the configuration of `deploy/sbc`, in the network of the phones, in front of the nodes. It judges nothing.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Home, NotHere};

/// The configuration, as operators get it.
const CONFIGURATION: &str = include_str!("../../../deploy/sbc/kamailio.cfg");
/// Where it listens.
const PORT: u16 = 5_060;
/// Longest wait until it uses all nodes, and until it has ended.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The process; it ends with this.
#[derive(Debug)]
pub(super) struct Kamailio {
    child: Child,
    address: SocketAddr,
}

impl Kamailio {
    /// Starts it in front of these nodes, its files in `folder`, and waits until it uses all of them.
    pub(super) fn start(home: &Home, nodes: &[SocketAddr], folder: &Path) -> anyhow::Result<Self> {
        if Command::new("kamailio").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            return Err(NotHere::Program("kamailio").into());
        }
        std::fs::create_dir_all(folder.join("run")).with_context(|| format!("making {}", folder.display()))?;
        let file = |name: &str| folder.join(name);
        let list: String = nodes.iter().map(|node| format!("1 sip:{node}\n")).collect();
        std::fs::write(file("dispatcher.list"), list)?;
        std::fs::write(file("kamailio.cfg"), CONFIGURATION)?;
        let log = File::create(file("log"))?;
        let control = Control(file("control"));
        let quoted = |name: &str, value: String| format!("{name}=\"{value}\"");
        let defines = [
            format!("SBC_HOST={}", home.address()),
            format!("SBC_PORT={PORT}"),
            "PROBE_INTERVAL_S=1".to_owned(),
            "WORKERS=4".to_owned(),
            quoted("NODES_FILE", file("dispatcher.list").display().to_string()),
            quoted("CONTROL_SOCKET", control.name()),
        ];
        let mut command = Command::new("kamailio");
        command.args(["-DD", "-E", "-f"]).arg(file("kamailio.cfg"));
        command.args(defines.iter().flat_map(|define| ["-A", define]));
        command.arg("-Y").arg(file("run")).arg("-P").arg(file("run/pid"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = home.enter(|| command.spawn())?.context("starting kamailio")?;
        let mut kamailio = Self { child, address: SocketAddr::new(home.address(), PORT) };
        let begun = Instant::now();
        while control.nodes_in_use() < nodes.len() {
            let ended = kamailio.child.try_wait()?;
            ensure!(ended.is_none(), "kamailio ended: see {}", file("log").display());
            ensure!(begun.elapsed() < PATIENCE, "kamailio does not use all nodes: see {}", file("log").display());
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(kamailio)
    }

    /// Where calls go.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        // The first process ends the others; killed, it would leave them.
        let ended = i32::try_from(self.child.id()).is_ok_and(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM).is_ok());
        let begun = Instant::now();
        while ended && begun.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Its control socket.
struct Control(PathBuf);

impl Control {
    fn name(&self) -> String {
        format!("unix:{}", self.0.display())
    }

    fn nodes_in_use(&self) -> usize {
        let output = Command::new("kamcmd").args(["-s", &self.name(), "dispatcher.list"]).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.lines().filter(|line| line.trim().starts_with("FLAGS: A")).count()
    }
}
