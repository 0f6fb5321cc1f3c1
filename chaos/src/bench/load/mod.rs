//! The load: phones and callers of one thread that owns its processor. It allocates nothing per request, never sleeps
//! while it runs, and knows neither what serves nor what a good answer is worth.
//!
//! `message`: what is sent · [`Population`]: who asks · [`Pace`]: when · `flight`: which answer belongs to which request ·
//! `sockets`: many datagrams a system call · `generator`: all of it together · [`Tally`]: what was met · `probe`:
//! delays of single requests.

mod flight;
mod generator;
mod message;
mod pace;
mod population;
mod probe;
mod sockets;
mod tally;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::cores::Cores;
use generator::Generator;

pub use message::PHONES_MAX;
pub use pace::Pace;
pub use population::Population;
pub use probe::{Delays, delays};
pub use tally::{Latencies, Tally};

/// Longest wait for a figure of the load's thread.
const PATIENCE: Duration = Duration::from_secs(60);

/// What phones and callers do, in parts of the whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mix {
    /// REGISTER of a phone that nobody knows.
    pub new: u32,
    /// REGISTER of one that is registered.
    pub refresh: u32,
    /// REGISTER without a Contact.
    pub query: u32,
    /// INVITE, answered 302.
    pub lookup: u32,
}

impl Mix {
    /// Refreshes only.
    pub const REFRESH: Self = Self { new: 0, refresh: 1, query: 0, lookup: 0 };
    /// New registrations only.
    pub const NEW: Self = Self { new: 1, refresh: 0, query: 0, lookup: 0 };
    /// Questions of phones only.
    pub const QUERY: Self = Self { new: 0, refresh: 0, query: 1, lookup: 0 };
    /// Calls only.
    pub const LOOKUP: Self = Self { new: 0, refresh: 0, query: 0, lookup: 1 };
}

/// A load.
#[derive(Debug, Clone)]
pub struct Work {
    /// Who is asked, in turns.
    pub targets: Vec<SocketAddr>,
    /// Ports that requests come from; 1 is one SBC.
    pub sources: usize,
    /// How they follow one another.
    pub pace: Pace,
    /// What is asked.
    pub mix: Mix,
    /// Registered phones that refresh, ask and are called.
    pub known: Range<u32>,
    /// New phones are those up to this one; the load ends when all are there, if it does nothing else.
    pub new_until: u32,
    /// Whether a 302 is acknowledged, as a caller does.
    pub ack: bool,
    /// Whether the kernel may cut datagrams (UDP_SEGMENT).
    pub segments: bool,
}

/// What the load's thread and its owner tell each other.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// Looks asked for.
    looks: AtomicU64,
    stop: AtomicBool,
    /// Answers since the beginning.
    answered: AtomicU64,
}

/// A load at work. Dropped, it ends.
#[derive(Debug)]
pub struct Running {
    board: Arc<Board>,
    tallies: Receiver<Tally>,
    thread: Option<JoinHandle<anyhow::Result<Population>>>,
}

impl Running {
    /// Puts a load on, on its own processor.
    ///
    /// # Errors
    /// When there are no sockets or threads to be had.
    pub fn start(work: Work, population: Population, cores: &Cores) -> anyhow::Result<Self> {
        let board = Arc::<Board>::default();
        let (hand_over, tallies) = mpsc::sync_channel(4);
        let cores = cores.clone();
        let its = Arc::clone(&board);
        let run = move || {
            cores.enter_generator()?;
            Generator::new(work, population)?.run(&its, &hand_over)
        };
        let thread = thread::Builder::new().name("load".to_owned()).spawn(run).context("starting the load")?;
        Ok(Self { board, tallies, thread: Some(thread) })
    }

    /// What was met since the last look.
    ///
    /// # Errors
    /// When the load has ended.
    pub fn look(&self) -> anyhow::Result<Tally> {
        self.board.looks.fetch_add(1, Ordering::Release);
        self.tallies.recv_timeout(PATIENCE).context("the load has ended")
    }

    /// Answers since the beginning.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.board.answered.load(Ordering::Relaxed)
    }

    /// Whether it has nothing left to do, or failed.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Takes the load off: what was met since the last look, and the phones.
    ///
    /// # Errors
    /// What the load died of.
    pub fn stop(mut self) -> anyhow::Result<(Tally, Population)> {
        self.board.stop.store(true, Ordering::Release);
        let thread = self.thread.take().context("it was stopped already")?;
        let population = thread.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        let tally = self.tallies.try_iter().last().context("the load told nothing")?;
        Ok((tally, population))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.board.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
