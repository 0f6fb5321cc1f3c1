//! A network and mount namespace without a name, and the ways into it. It knows nothing of nodes and forwards nothing.
//!
//! A thread of its own unshares the namespaces, makes a TUN device there, and stays: processes that must die with the lab
//! are started from it, for the kernel ends them when the thread that started them does. When the home is dropped the
//! last file descriptors of its namespaces close, and devices and mounts are gone.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::switch::Plug;

/// Bytes of a packet at most, on every device.
pub(super) const MTU: u16 = 1500;

/// Packets that a device keeps for the switch; beyond them the sender's kernel drops. The stock 500 are one burst of deltas.
const DEVICE_QUEUE: u32 = 4000;

/// Bits of the network that all homes of a lab share.
const PREFIX: u8 = 24;

/// Something that the resident thread does.
type Job = Box<dyn FnOnce() + Send>;

/// A place to run processes and threads in.
#[derive(Debug)]
pub struct Home {
    address: Ipv4Addr,
    spaces: Option<Spaces>,
    /// The other end of its device: an open device would keep the namespace.
    plug: Option<Plug>,
    jobs: Option<SyncSender<Job>>,
    resident: Option<JoinHandle<()>>,
}

/// The namespaces, held open.
#[derive(Debug)]
struct Spaces {
    net: File,
    /// `None` with the reason where mounting is not allowed.
    mounts: Result<File, String>,
}

impl Home {
    /// A home on this machine's own network, with loopback's address.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(super) fn here(name: &str) -> anyhow::Result<Self> {
        let (jobs, resident, ()) = settle(name, || Ok(()))?;
        Ok(Self { address: Ipv4Addr::LOCALHOST, spaces: None, plug: None, jobs: Some(jobs), resident: Some(resident) })
    }

    /// A home in namespaces of its own, and the device by which it reaches others.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub(super) fn apart(name: &str, address: Ipv4Addr) -> anyhow::Result<(Self, SyncDevice)> {
        let (jobs, resident, (spaces, device)) = settle(name, move || unshared(address))?;
        Ok((Self { address, spaces: Some(spaces), plug: None, jobs: Some(jobs), resident: Some(resident) }, device))
    }

    /// With its device in the switch.
    pub(super) fn plugged(mut self, plug: Plug) -> Self {
        self.plug = Some(plug);
        self
    }

    /// The address by which others reach what runs here.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address.into()
    }

    /// Whether it has a network of its own.
    #[must_use]
    pub fn is_apart(&self) -> bool {
        self.spaces.is_some()
    }

    /// Runs `f` on a thread that is in the namespaces; sockets opened there stay there.
    ///
    /// # Errors
    /// When no thread can be had, or it cannot enter.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                if let Some(spaces) = &self.spaces {
                    spaces.enter()?;
                }
                Ok(f())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `f` on the calling thread, which stays in the namespaces; not at all when it cannot enter.
    pub(super) fn stay(&self, f: impl FnOnce()) {
        if self.spaces.as_ref().is_none_or(|spaces| spaces.enter().is_ok()) {
            f();
        }
    }

    /// A Tokio runtime whose threads are in the network namespace. What is *spawned* on it is there too; `block_on` polls
    /// on the calling thread, so call it from within [`Home::enter`].
    ///
    /// # Errors
    /// When threads cannot be had or cannot enter.
    pub fn runtime(&self, threads: usize) -> anyhow::Result<tokio::runtime::Runtime> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads.max(1)).enable_all();
        if let Some(spaces) = &self.spaces {
            let net = spaces.net.try_clone().context("keeping a namespace")?;
            // A thread left outside would talk to nobody and look like a network fault.
            builder.on_thread_start(move || {
                setns(&net, CloneFlags::CLONE_NEWNET).unwrap_or_else(|error| panic!("entering a namespace: {error}"));
            });
        }
        self.enter(|| builder.build())?.context("starting a runtime")
    }

    /// Runs `f` on the resident thread, one at a time: for starting processes that are to end with the home.
    ///
    /// # Errors
    /// When the resident thread is gone.
    pub(super) fn reside<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        let (answer, answered) = mpsc::sync_channel(1);
        let job = Box::new(move || drop(answer.send(f())));
        self.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).context("the home's thread is gone")?;
        answered.recv().context("the home's thread ended within a job")
    }

    /// Why nothing can be mounted here; `None` when it can.
    pub(super) fn refuses_mounts(&self) -> Option<String> {
        match &self.spaces {
            None => Some("this lab runs on loopback".to_owned()),
            Some(spaces) => spaces.mounts.as_ref().err().cloned(),
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(resident) = self.resident.take() {
            let _ = resident.join();
        }
    }
}

impl Spaces {
    /// Moves the calling thread there. Mounts want a thread that shares its folders with no other.
    fn enter(&self) -> anyhow::Result<()> {
        setns(&self.net, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
        if let Ok(mounts) = &self.mounts {
            unshare(CloneFlags::CLONE_FS).context("leaving the other threads' folders")?;
            let folder = std::env::current_dir();
            setns(mounts, CloneFlags::CLONE_NEWNS).context("entering a mount namespace")?;
            if let Ok(folder) = folder {
                std::env::set_current_dir(folder).context("returning to the folder")?;
            }
        }
        Ok(())
    }
}

/// Starts a thread, lets it prepare itself, and leaves it waiting for jobs.
fn settle<T: Send + 'static>(
    name: &str,
    prepare: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<(SyncSender<Job>, JoinHandle<()>, T)> {
    let (jobs, inbox) = mpsc::sync_channel::<Job>(1);
    let (answer, answered) = mpsc::sync_channel(1);
    let resident = thread::Builder::new().name(format!("home-{name}")).spawn(move || {
        let prepared = prepare();
        let settled = prepared.is_ok();
        drop(answer.send(prepared));
        if settled {
            inbox.iter().for_each(|job| job());
        }
    })?;
    let prepared = answered.recv().context("the home's thread ended at once")??;
    Ok((jobs, resident, prepared))
}

/// Puts the calling thread into new namespaces, with loopback and a device of this address.
fn unshared(address: Ipv4Addr) -> anyhow::Result<(Spaces, SyncDevice)> {
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
    // The switch forwards IPv4; where this cannot be written, the kernel's IPv6 greetings are dropped there.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).output().context("running ip (Debian: iproute2)")?;
    anyhow::ensure!(up.status.success(), "ip link set lo up: {}", String::from_utf8_lossy(&up.stderr).trim());
    let device = DeviceBuilder::new()
        .name("lab0")
        .ipv4(address, PREFIX, None)
        .mtu(MTU)
        .with(|options| _ = options.tx_queue_len(DEVICE_QUEUE))
        .build_sync()
        .context("making a TUN device")?;
    device.set_nonblocking(true).context("making a TUN device non-blocking")?;
    let net = File::open("/proc/thread-self/ns/net").context("holding a network namespace")?;
    let mounts = own_mounts().map_err(|error| format!("{error:#}"));
    Ok((Spaces { net, mounts }, device))
}

/// Gives the calling thread mounts of its own, of which no other hears.
fn own_mounts() -> anyhow::Result<File> {
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace")?;
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).context("making mounts private")?;
    File::open("/proc/thread-self/ns/mnt").context("holding a mount namespace")
}
