//! Real node processes on this machine: start, watch, kill, stop. It knows nothing of SIP.

use std::fs::OpenOptions;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client::Client;
use super::layout::Place;

/// Time between two looks at a process or its readiness.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Time between two orders to stop.
const STOP_AGAIN: Duration = Duration::from_millis(100);

/// Lines of a node's log that an error message shows.
const LOG_TAIL: usize = 8;

/// Several nodes. Whoever drops it ends them.
#[derive(Debug)]
pub struct Fleet {
    program: PathBuf,
    nodes: Vec<Node>,
}

/// One node, running or not.
#[derive(Debug)]
pub struct Node {
    /// Where its things are.
    pub place: Place,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Node {
    /// A client of its HTTP interface.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.place.http.to_string(), None)
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The last lines that it wrote.
    #[must_use]
    pub fn last_words(&self) -> String {
        let text = std::fs::read(&self.place.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }
}

impl Fleet {
    /// Nodes at these places, none of them started. `program` is the `aorta` to run.
    #[must_use]
    pub fn new(program: &Path, places: Vec<Place>) -> Self {
        let nodes = places.into_iter().map(|place| Node { place, environment: Vec::new(), child: None }).collect();
        Self { program: program.to_path_buf(), nodes }
    }

    /// As [`Fleet::new`], running this very program.
    ///
    /// # Errors
    /// When the system does not say where this program is.
    pub fn of_this_program(places: Vec<Place>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding this program's own file")?;
        Ok(Self::new(&program, places))
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What a node finds in its environment, beside what this process has, from its next start on.
    pub fn set_environment(&mut self, index: usize, environment: Vec<(String, String)>) {
        self.nodes[index].environment = environment;
    }

    /// Starts a node, its output appended to its log. It dies when this process does. Call it from a thread that lives
    /// as long as the node should: the kernel watches the thread.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(&mut self, index: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[index];
        let place = &node.place;
        let log = OpenOptions::new().create(true).append(true).open(&place.log);
        let log = log.with_context(|| format!("opening {}", place.log.display()))?;
        let child = Command::new(&self.program)
            .args(["node", "--with-parent", &std::process::id().to_string(), "--config"])
            .arg(&place.config)
            .envs(node.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A Ctrl-C on the terminal is for the command that started the nodes.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        node.child = Some(child);
        Ok(())
    }

    /// Whether the node's process has ended, and how; `None` while it runs or when it was never started.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self, index: usize) -> anyhow::Result<Option<ExitStatus>> {
        let node = &mut self.nodes[index];
        let Some(child) = &mut node.child else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            node.child = None;
        }
        Ok(status)
    }

    /// Waits until the node says that it is ready; how long that took.
    ///
    /// # Errors
    /// When its process ends, or is not ready by then: with its reason and its last words.
    pub fn wait_ready(&mut self, index: usize, within: Duration) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let client = self.nodes[index].client();
        let name = self.nodes[index].place.name.clone();
        loop {
            let reason = match client.readiness() {
                Ok(Ok(())) => return Ok(begun.elapsed()),
                Ok(Err(reason)) => reason,
                Err(error) => format!("{error:#}"),
            };
            if let Some(status) = self.ended(index)? {
                anyhow::bail!("{name} ended ({}):\n{}", told(status), self.nodes[index].last_words());
            }
            if begun.elapsed() > within {
                anyhow::bail!("{name} is not ready after {within:?}: {reason}\n{}", self.nodes[index].last_words());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Ends the node at once, as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        if let Some(mut child) = self.nodes[index].child.take() {
            child.kill().context("killing a node")?;
            child.wait().context("waiting for a killed node")?;
        }
        Ok(())
    }

    /// Sends a signal to a node that runs.
    ///
    /// # Errors
    /// When it does not run, or the system refuses.
    pub fn signal(&mut self, index: usize, signal: Signal) -> anyhow::Result<()> {
        let pid = self.nodes[index].pid().context("the node does not run")?;
        kill(Pid::from_raw(i32::try_from(pid)?), signal).with_context(|| format!("sending {signal} to a node"))
    }

    /// Waits until a node's process has ended; how.
    ///
    /// # Errors
    /// When it still runs by then.
    pub fn wait_ended(&mut self, index: usize, within: Duration) -> anyhow::Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.ended(index)? {
                return Ok(status);
            }
            let name = &self.nodes[index].place.name;
            anyhow::ensure!(begun.elapsed() <= within, "{name} still runs after {within:?}");
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Ends all nodes: each may write its last snapshot within this time, then it is killed. Returns who was killed.
    pub fn stop(&mut self, within: Duration) -> Vec<String> {
        let deadline = Instant::now() + within;
        let all = 0..self.nodes.len();
        while all.clone().any(|index| self.nodes[index].child.is_some()) && Instant::now() < deadline {
            for index in all.clone() {
                // Again and again: the second one that a node sees skips the grace, and two at once are one.
                let _ = self.signal(index, Signal::SIGTERM);
            }
            std::thread::sleep(STOP_AGAIN);
            for index in all.clone() {
                let _ = self.ended(index);
            }
        }
        let late: Vec<usize> = all.filter(|index| self.nodes[*index].child.is_some()).collect();
        for index in &late {
            let _ = self.kill(*index);
        }
        late.into_iter().map(|index| self.nodes[index].place.name.clone()).collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for index in 0..self.nodes.len() {
            let _ = self.kill(index);
        }
    }
}

/// An exit status in words.
#[must_use]
pub fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    }
}
