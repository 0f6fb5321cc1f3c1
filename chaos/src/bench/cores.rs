//! Which processors serve and which generates the load. It measures nothing.

use std::fmt;

use anyhow::{Context as _, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::host;

/// Processors that serve, where there are enough.
const SERVERS: usize = 3;

/// Who runs where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cores {
    /// Where the nodes run.
    pub servers: Vec<usize>,
    /// Where the load is generated; nothing else should run there.
    pub generator: usize,
}

impl Cores {
    /// Of the processors that this process may use.
    ///
    /// # Errors
    /// When the system does not say, or there is only one: load and servers would measure each other.
    pub fn here() -> anyhow::Result<Self> {
        Self::of(&host::processors().context("asking for this process's processors")?)
    }

    fn of(allowed: &[usize]) -> anyhow::Result<Self> {
        ensure!(allowed.len() >= 2, "a benchmark wants two processors at least, one of them for the load alone");
        let servers = SERVERS.min(allowed.len() - 1);
        Ok(Self { servers: allowed[..servers].to_vec(), generator: allowed[servers] })
    }

    /// Whether there are fewer processors than the targets were written for.
    #[must_use]
    pub fn is_scaled_down(&self) -> bool {
        self.servers.len() < SERVERS
    }

    /// Keeps the calling thread, and what it starts, on the servers' processors.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn enter_servers(&self) -> anyhow::Result<()> {
        confine(&self.servers)
    }

    /// Keeps the calling thread on the generator's processor.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn enter_generator(&self) -> anyhow::Result<()> {
        confine(&[self.generator])
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "servers on processors {:?}, load on {}", self.servers, self.generator)?;
        if self.is_scaled_down() {
            write!(f, " (scaled down: the targets are for {SERVERS} and one)")?;
        }
        Ok(())
    }
}

/// Keeps the calling thread on these processors.
pub(super) fn confine(cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().try_for_each(|core| set.set(*core)).context("naming a processor")?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("keeping a thread on processors {cores:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_serve_where_there_are_four_and_all_but_one_where_there_are_fewer() {
        let cores = Cores::of(&[0, 1, 2, 3, 4, 5]).expect("enough");
        assert_eq!((cores.servers.as_slice(), cores.generator), ([0, 1, 2].as_slice(), 3));
        assert!(!cores.is_scaled_down());
        let cores = Cores::of(&[2, 3]).expect("enough");
        assert_eq!((cores.servers.as_slice(), cores.generator), ([2].as_slice(), 3));
        assert!(cores.is_scaled_down() && cores.to_string().contains("scaled down"));
        assert!(Cores::of(&[0]).is_err());
    }
}
