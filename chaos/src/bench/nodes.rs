//! The Aorta nodes that are measured: real processes of the deployed build, on loopback, with TLS between them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use aorta::cli::fleet::{self, Fleet};
use aorta::cli::layout;
use toml::{Table, Value};

/// Longest wait for a node that starts.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// Longest wait for nodes that end.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a node that starts.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// What every node's configuration says: a drain is not waited for.
const EXTRA: &str = "drain_grace_s = 0\n";

/// Some nodes of one cluster. Dropped, they end.
#[derive(Debug)]
pub(super) struct AortaNodes {
    fleet: Fleet,
    _folder: layout::FreshFolder,
}

impl AortaNodes {
    /// Makes places for so many; starts none. `config` is TOML that goes into every node's configuration.
    ///
    /// # Errors
    /// When files cannot be written or `config` is no TOML.
    pub(super) fn place(program: &Path, count: usize, config: &str) -> anyhow::Result<Self> {
        let folder = layout::FreshFolder::make("aorta-bench")?;
        let places = layout::write(folder.path(), &layout::free_ports(count)?, EXTRA)?;
        let more: Table = config.parse().context("--node-config is no TOML")?;
        for place in &places {
            let text = std::fs::read_to_string(&place.config)?;
            let mut whole: Table = text.parse().with_context(|| format!("reading {}", place.config.display()))?;
            merge(&mut whole, &more);
            std::fs::write(&place.config, whole.to_string())?;
        }
        Ok(Self { fleet: Fleet::new(program, places), _folder: folder })
    }

    /// Starts these and waits until they are ready; how long the last of them took. The calling thread must live as long
    /// as they do, and they run on its processors.
    ///
    /// # Errors
    /// When one ends or is not ready in time.
    pub(super) fn start(&mut self, which: impl Iterator<Item = usize> + Clone) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        for node in which.clone() {
            self.fleet.start(node)?;
        }
        for node in which {
            self.wait_ready(node)?;
        }
        Ok(begun.elapsed())
    }

    fn wait_ready(&mut self, node: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        let client = self.fleet.nodes()[node].client();
        while !matches!(client.readiness(), Ok(Ok(()))) {
            let name = self.fleet.nodes()[node].place.name.clone();
            let words = || self.fleet.nodes()[node].last_words();
            ensure!(begun.elapsed() < START_PATIENCE, "{name} is not ready after {START_PATIENCE:?}:\n{}", words());
            let ended = self.fleet.ended(node)?;
            ensure!(ended.is_none(), "{name} ended:\n{}", self.fleet.nodes()[node].last_words());
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    pub(super) fn sips(&self) -> Vec<SocketAddr> {
        self.fleet.nodes().iter().map(|node| node.place.sip).collect()
    }

    /// Process ids of those that run.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.fleet.nodes().iter().filter_map(|node| node.pid()).collect()
    }

    /// Why nodes did not serve since they were ready first, as they wrote it: which one, when, why.
    pub(super) fn left_service(&self) -> Vec<String> {
        let told = |node: &fleet::Node| {
            let log = std::fs::read_to_string(&node.place.log).unwrap_or_default();
            let name = node.place.name.clone();
            log.lines()
                .filter_map(move |line| left_service(line).map(|what| format!("{name} {what}")))
                .collect::<Vec<_>>()
        };
        self.fleet.nodes().iter().flat_map(told).collect()
    }

    /// The process id of one.
    ///
    /// # Errors
    /// When it does not run.
    pub(super) fn pid(&self, node: usize) -> anyhow::Result<u32> {
        self.fleet.nodes()[node].pid().context("the node does not run")
    }

    /// The sum of a metric of one node.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) fn metric(&self, node: usize, name: &str) -> anyhow::Result<f64> {
        self.fleet.nodes()[node].client().metric(name, "")
    }

    /// Ends one at once; `empty`: its disk goes, too.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn kill(&mut self, node: usize, empty: bool) -> anyhow::Result<()> {
        self.fleet.kill(node)?;
        let data: PathBuf = self.fleet.nodes()[node].place.folder.join("data");
        if empty && data.exists() {
            std::fs::remove_dir_all(&data).with_context(|| format!("removing {}", data.display()))?;
        }
        Ok(())
    }
}

impl Drop for AortaNodes {
    fn drop(&mut self) {
        // What they would write goes away with their folders.
        for node in 0..self.fleet.nodes().len() {
            let _ = self.fleet.kill(node);
        }
        let _ = self.fleet.stop(STOP_PATIENCE);
    }
}

/// When and why a node did not serve from then on, if that is what this line of its log says.
fn left_service(line: &str) -> Option<String> {
    let (before, why) = line.split_once("not ready: rejoins why=")?;
    let at = before.split_whitespace().next()?;
    Some(format!("left service at {at}: {}", why.trim_matches('"')))
}

/// Puts keys of one table into another, section by section.
fn merge(whole: &mut Table, more: &Table) {
    for (key, value) in more {
        match (whole.get_mut(key), value) {
            (Some(Value::Table(section)), Value::Table(more)) => merge(section, more),
            _ => drop(whole.insert(key.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_when_and_why_its_node_left_service() {
        let line = "2026-11-22T10:00:22.942447Z  WARN aorta::node::events: not ready: rejoins why=\"it slept\"";
        let told = left_service(line).expect("it does");
        assert_eq!(told, "left service at 2026-11-22T10:00:22.942447Z: it slept");
        assert_eq!(left_service("2026-11-22T10:00:22.9Z  INFO aorta::node::events: ready: this node serves"), None);
    }

    #[test]
    fn keys_go_into_their_sections() {
        let mut whole: Table = "a = 1\n[sip]\nlisten = [\"x\"]\n".parse().expect("sound");
        let more: Table = "a = 2\n[sip]\nthreads = 3\n[log]\nfilter = \"warn\"".parse().expect("sound");
        merge(&mut whole, &more);
        let text = whole.to_string();
        assert!(text.contains("a = 2") && text.contains("listen") && text.contains("threads = 3"), "{text}");
        assert!(text.contains("[log]"), "{text}");
    }
}
