//! A laboratory: real `aorta` processes, one network namespace each, joined by a switch in user space; faults of network,
//! process, clock and disk on order. It sends no SIP and judges nothing.
//!
//! Nothing in it has a name that outlives it: namespaces are held open by threads and file descriptors of this process,
//! devices by their namespaces, node processes die with the thread that started them.
//!
//! [`home`] a namespace and its threads · [`network`] profiles and counters of links · `link` what becomes of one packet ·
//! `switch` the thread that forwards · `desk` configuration and certificates · `seat` a node's process · `wall_clock` ·
//! [`disk`] · [`sample`] · [`flood`] a peer that says too much.
//!
//! Where namespaces are not allowed, [`Lab::new`] says so, and [`Lab::on_loopback`] offers the rest.

mod desk;
pub mod disk;
pub mod flood;
pub mod home;
mod link;
pub mod network;
pub mod sample;
mod seat;
mod switch;
mod wall_clock;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
pub use aorta::admin::ClusterView;
use aorta::cli::client::Client;
pub use aorta::cli::layout::Place;
pub use nix::sys::signal::Signal;

use desk::Desk;
pub use disk::{Damage, DiskCopy};
pub use flood::{Flood, FloodPlan, FloodReport, Floods};
pub use home::Home;
pub use network::{End, LinkProfile, Network, Traffic};
pub use sample::Sample;
use seat::Seat;

/// Why a fault cannot be made here.
#[derive(Debug, thiserror::Error)]
pub enum NotHere {
    /// No namespaces, no TUN device, or no `ip`.
    #[error(
        "network faults need network namespaces and /dev/net/tun (root, or CAP_NET_ADMIN and CAP_SYS_ADMIN): {0:#}"
    )]
    Network(anyhow::Error),
    /// A lab on loopback has no links of its own.
    #[error("this lab runs on loopback, where links cannot fail")]
    Loopback,
    /// No mount namespace.
    #[error("a disk of limited size needs a mount namespace (root, or `unshare --user --map-root-user`): {0:#}")]
    Disk(anyhow::Error),
    /// No libfaketime.
    #[error("wrong clocks need libfaketime (Debian: apt-get install libfaketime)")]
    Clock,
    /// A program that stands in front of the nodes is not installed.
    #[error("{0} is not installed (Debian: apt-get install {0})")]
    Program(&'static str),
}

/// What a lab is made of.
#[derive(Debug, Clone)]
pub struct LabPlan {
    /// All random decisions of the links follow from it.
    pub seed: u64,
    /// Where configurations, certificates, data and logs go; nobody removes it.
    pub folder: PathBuf,
    /// The `aorta` that nodes run unless their plan says otherwise.
    pub program: PathBuf,
    /// TOML, sections allowed, that goes into every configuration; a node's own `extra` wins over it.
    pub extra: String,
}

/// What one node is made of.
#[derive(Debug, Clone, Default)]
pub struct NodePlan {
    /// Another `aorta` than the lab's.
    pub program: Option<PathBuf>,
    /// TOML, sections allowed, that wins over the lab's.
    pub extra: String,
    /// Its wall clock is this many seconds ahead (behind, if negative) and can jump; `None`: the machine's.
    pub clock_offset_s: Option<i64>,
    /// Its data lies on a disk of this size, bytes, that can be filled; `None`: the machine's.
    pub disk_bytes: Option<u64>,
    /// A clone: it has the name and the certificate of this node, and what its disk holds now, at an address of its own.
    pub twin_of: Option<usize>,
}

/// Real nodes and what can be done to them. All methods may be called from several threads.
#[derive(Debug)]
pub struct Lab {
    plan: LabPlan,
    desk: Desk,
    network: Option<Network>,
    phones: Arc<Home>,
    seats: RwLock<Vec<Arc<Seat>>>,
    floods: AtomicU32,
}

impl Lab {
    /// A lab with a namespace for each node and one for the phones.
    ///
    /// # Errors
    /// [`NotHere`] inside when namespaces are not allowed; else when files cannot be written.
    pub fn new(plan: LabPlan) -> anyhow::Result<Self> {
        let network = Network::new(plan.seed).map_err(NotHere::Network)?;
        let phones = network.settle(End::Phones).map_err(NotHere::Network)?;
        Self::with(plan, Some(network), phones)
    }

    /// A lab on free ports of this machine's loopback: everything but faults of links.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn on_loopback(plan: LabPlan) -> anyhow::Result<Self> {
        let phones = Home::here("phones")?;
        Self::with(plan, None, phones)
    }

    fn with(plan: LabPlan, network: Option<Network>, phones: Home) -> anyhow::Result<Self> {
        let desk = Desk::new(&plan.folder, phones.address())?;
        Ok(Self { plan, desk, network, phones: Arc::new(phones), seats: RwLock::default(), floods: AtomicU32::new(0) })
    }

    /// Adds a node, not yet started; its number. Nodes added before the first start are the seeds of all.
    ///
    /// # Errors
    /// [`NotHere`] inside when its plan wants what cannot be made here; else when files cannot be written.
    pub fn add(&self, plan: NodePlan) -> anyhow::Result<usize> {
        let mut seats = self.seats.write().unwrap_or_else(PoisonError::into_inner);
        let number = seats.len();
        let home = match &self.network {
            Some(network) => network.settle(End::Node(number))?,
            None => Home::here(&format!("node{}", number + 1))?,
        };
        let twin = plan.twin_of.map(|of| seats.get(of).context("a twin of nobody").cloned()).transpose()?;
        let seat = Seat::new(&self.plan, &self.desk, plan, home, number, twin.as_deref())?;
        seats.push(Arc::new(seat));
        Ok(number)
    }

    /// How many nodes were added.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.seats.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The links.
    ///
    /// # Errors
    /// On loopback there are none.
    pub fn network(&self) -> Result<&Network, NotHere> {
        self.network.as_ref().ok_or(NotHere::Loopback)
    }

    /// Where phones and SBC live.
    #[must_use]
    pub fn phones(&self) -> &Home {
        &self.phones
    }

    /// A node's files and addresses; its HTTP address is on the loopback of its own namespace: see [`Lab::at`].
    #[must_use]
    pub fn place(&self, node: usize) -> Place {
        self.seat(node).place().clone()
    }

    /// Where a node speaks SIP.
    #[must_use]
    pub fn sip(&self, node: usize) -> SocketAddr {
        self.seat(node).place().sip
    }

    /// The program that a node runs from its next start on.
    pub fn set_program(&self, node: usize, program: &Path) {
        self.seat(node).set_program(program);
    }

    /// What its configuration holds, from its next start on, beyond the lab's `extra`.
    pub fn set_extra(&self, node: usize, extra: &str) {
        self.seat(node).set_extra(extra);
    }

    /// Writes the node's configuration and starts its process.
    ///
    /// # Errors
    /// When it runs already, its `extra` is no TOML, or the process cannot be started.
    pub fn start(&self, node: usize) -> anyhow::Result<()> {
        self.seat(node).start(&self.desk)
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&self, node: usize) -> anyhow::Result<()> {
        self.seat(node).fleet().kill(0)
    }

    /// Sends a signal: `SIGSTOP`, `SIGCONT`, `SIGTERM` (drain; a second one skips the grace), …
    ///
    /// # Errors
    /// When the node does not run.
    pub fn signal(&self, node: usize, signal: Signal) -> anyhow::Result<()> {
        self.seat(node).fleet().signal(0, signal)
    }

    /// Whether its process runs (stopped ones too).
    #[must_use]
    pub fn runs(&self, node: usize) -> bool {
        self.seat(node).pid().is_some()
    }

    /// Waits until the node says that it is ready; how long that took.
    ///
    /// # Errors
    /// When its process ends, or is not ready by then: with its reason and its last words.
    pub fn ready(&self, node: usize, within: Duration) -> anyhow::Result<Duration> {
        self.seat(node).wait_ready(within)
    }

    /// Waits until the node's process has ended; how.
    ///
    /// # Errors
    /// When it still runs by then.
    pub fn ended(&self, node: usize, within: Duration) -> anyhow::Result<ExitStatus> {
        self.seat(node).wait_ended(within)
    }

    /// The last lines that it wrote.
    #[must_use]
    pub fn last_words(&self, node: usize) -> String {
        self.seat(node).last_words()
    }

    /// Does something with the node's HTTP interface, in its namespace, on a thread of its own.
    ///
    /// # Errors
    /// When the thread cannot enter the namespace.
    pub fn at<T: Send>(&self, node: usize, ask: impl FnOnce(&Client) -> T + Send) -> anyhow::Result<T> {
        let seat = self.seat(node);
        let client = Client::new(&seat.place().http.to_string(), None);
        seat.home().enter(|| ask(&client))
    }

    /// Runs `f` on a thread in the node's namespaces: for sockets, files of its disk, and commands that ask it.
    ///
    /// # Errors
    /// When the thread cannot enter.
    pub fn enter<T: Send>(&self, node: usize, f: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        self.seat(node).home().enter(f)
    }

    /// What was seen of a node last: every 250 ms from its first start on.
    #[must_use]
    pub fn sample(&self, node: usize) -> Sample {
        self.seat(node).sample()
    }

    /// Lets the node's wall clock jump by so many seconds, while it runs or not; it notices within a second.
    ///
    /// # Errors
    /// When its plan gave it no clock of its own.
    pub fn jump_clock(&self, node: usize, by_s: i64) -> anyhow::Result<()> {
        self.seat(node).jump_clock(by_s)
    }

    /// Fills the disk of a node until no byte fits.
    ///
    /// # Errors
    /// When its plan gave it no disk of its own.
    pub fn fill_disk(&self, node: usize) -> anyhow::Result<()> {
        self.seat(node).fill_disk()
    }

    /// Takes away what [`Lab::fill_disk`] wrote.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn free_disk(&self, node: usize) -> anyhow::Result<()> {
        self.seat(node).free_disk()
    }

    /// Damages what is on the disk of a node that does not run; what was done to which file.
    ///
    /// # Errors
    /// When the node runs, or there is nothing to damage.
    pub fn damage_disk(&self, node: usize, damage: Damage) -> anyhow::Result<String> {
        self.seat(node).damage_disk(damage)
    }

    /// A copy of the node's disk as it is now: of one that runs, as a crash at this moment would leave it, roughly.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn copy_disk(&self, node: usize) -> anyhow::Result<DiskCopy> {
        self.seat(node).copy_disk()
    }

    /// Replaces the disk of a node that does not run by an older copy; by an empty one for `None`.
    ///
    /// # Errors
    /// When the node runs, or the system refuses.
    pub fn restore_disk(&self, node: usize, copy: Option<&DiskCopy>) -> anyhow::Result<()> {
        self.seat(node).restore_disk(copy)
    }

    /// Starts a peer with a certificate of the cluster that says too much, or nonsense, to one node until it is stopped.
    ///
    /// # Errors
    /// When it cannot be set up.
    pub fn flood(&self, plan: FloodPlan) -> anyhow::Result<Flood> {
        let number = self.floods.fetch_add(1, Ordering::Relaxed);
        let home = match &self.network {
            Some(network) => network.settle(End::Peer(number as usize))?,
            None => Home::here("peer")?,
        };
        flood::start(plan, &self.desk, home, number, self.seat(plan.node).as_target())
    }

    /// Takes a node out for good: its process is killed if it still runs, and [`Lab::present`] names it no more.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(&self, node: usize) -> anyhow::Result<()> {
        self.seat(node).leave();
        self.kill(node)
    }

    /// The nodes that were not removed, running or not.
    #[must_use]
    pub fn present(&self) -> Vec<usize> {
        let seats = self.seats.read().unwrap_or_else(PoisonError::into_inner);
        (0..seats.len()).filter(|node| !seats[*node].has_left()).collect()
    }

    /// What each node, by its number, says of itself and the others (`/v1/cluster`), asked all at once; `None` of one that
    /// does not answer within 200 ms or was removed.
    #[must_use]
    pub fn views(&self) -> Vec<Option<ClusterView>> {
        let seats = self.seats.read().unwrap_or_else(PoisonError::into_inner).clone();
        std::thread::scope(|scope| {
            let asked: Vec<_> = seats.iter().map(|seat| scope.spawn(|| seat.view())).collect();
            asked.into_iter().map(|one| one.join().ok().flatten()).collect()
        })
    }

    fn seat(&self, node: usize) -> Arc<Seat> {
        Arc::clone(&self.seats.read().unwrap_or_else(PoisonError::into_inner)[node])
    }
}
