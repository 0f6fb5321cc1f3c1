//! One node of a lab: its process, clock, disk and files. It knows no other node and no link.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aorta::admin::ClusterView;
use aorta::cli::client::Client;
use aorta::cli::fleet::{Fleet, told};
use aorta::cli::layout::{self, Place};
use aorta_proto::NodeId;

use super::desk::{Desk, Entry};
use super::disk::{self, Damage, DiskCopy};
use super::flood::Target;
use super::home::Home;
use super::sample::{self, Sample, Sampler};
use super::wall_clock::WallClock;
use super::{LabPlan, NodePlan, NotHere};

/// Time between two looks at a state that is awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Ports of a node in a namespace of its own.
const SIP: u16 = 5060;
const HTTP: u16 = 8060;
const CLUSTER: u16 = 7060;

/// A node's place and all that is wrong with it.
#[derive(Debug)]
pub(super) struct Seat {
    place: Place,
    entry: Entry,
    lab_extra: String,
    own: Mutex<Own>,
    fleet: Arc<Mutex<Fleet>>,
    status: Mutex<Option<ExitStatus>>,
    clock: Option<WallClock>,
    ballast: Option<PathBuf>,
    copies: AtomicU32,
    sampler: Sampler,
    left: AtomicBool,
    home: Arc<Home>,
}

/// What may differ from one start to the next.
#[derive(Debug)]
struct Own {
    program: PathBuf,
    extra: String,
}

impl Seat {
    /// Makes folders, certificate, clock and disk of a node; starts nothing.
    pub(super) fn new(
        lab: &LabPlan,
        desk: &Desk,
        plan: NodePlan,
        home: Home,
        number: usize,
        twin: Option<&Seat>,
    ) -> anyhow::Result<Self> {
        let place = place(desk.folder(), number, &home)?;
        let node = match twin {
            Some(twin) => twin.entry.node.clone(),
            None => NodeId::new(&place.name)?,
        };
        let disk = place.folder.join("disk");
        std::fs::create_dir_all(&disk).with_context(|| format!("making folder {}", disk.display()))?;
        let home = Arc::new(home);
        let ballast = plan.disk_bytes.map(|bytes| limited(&home, &disk, bytes)).transpose()?;
        let entry = Entry {
            node,
            folder: place.folder.clone(),
            data: disk.join("data"),
            sip: place.sip,
            http: place.http,
            cluster: place.cluster,
        };
        match twin {
            Some(twin) => twin.lend(&home, &entry)?,
            None => {
                desk.issue(&entry.node, &place.folder)?;
                desk.note(place.cluster);
            }
        }
        let clock = plan.clock_offset_s.map(|offset_s| WallClock::new(&place.folder, offset_s)).transpose()?;
        let program = plan.program.unwrap_or_else(|| lab.program.clone());
        let fleet = Arc::new(Mutex::new(Fleet::new(&program, vec![place.clone()])));
        Ok(Self {
            entry,
            lab_extra: lab.extra.clone(),
            own: Mutex::new(Own { program, extra: plan.extra }),
            fleet,
            status: Mutex::new(None),
            clock,
            ballast,
            copies: AtomicU32::new(0),
            sampler: Sampler::new(place.http),
            left: AtomicBool::new(false),
            home,
            place,
        })
    }

    /// Gives a clone this node's certificate and a copy of its disk.
    fn lend(&self, clone: &Home, entry: &Entry) -> anyhow::Result<()> {
        for file in ["node.pem", "node.key"] {
            std::fs::copy(self.entry.folder.join(file), entry.folder.join(file)).context("copying a certificate")?;
        }
        let copy = self.copy_disk()?;
        clone.enter(|| disk::replace(&entry.data, Some(copy.folder())))?
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    pub(super) fn set_program(&self, program: &Path) {
        locked(&self.own).program = program.to_path_buf();
    }

    pub(super) fn set_extra(&self, extra: &str) {
        locked(&self.own).extra = extra.to_owned();
    }

    pub(super) fn fleet(&self) -> MutexGuard<'_, Fleet> {
        locked(&self.fleet)
    }

    pub(super) fn start(&self, desk: &Desk) -> anyhow::Result<()> {
        self.is_down("started")?;
        let own = locked(&self.own);
        desk.write(&self.place.config, &self.entry, &[&self.lab_extra, &own.extra])?;
        let mut fleet = Fleet::new(&own.program, vec![self.place.clone()]);
        if let Some(clock) = &self.clock {
            fleet.set_environment(0, clock.environment());
        }
        *self.fleet() = fleet;
        *locked(&self.status) = None;
        let fleet = Arc::clone(&self.fleet);
        self.home.reside(move || locked(&fleet).start(0))??;
        self.sampler.run(&self.home, &self.fleet)
    }

    /// Its process id while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        let mut fleet = self.fleet();
        if let Ok(Some(status)) = fleet.ended(0) {
            *locked(&self.status) = Some(status);
        }
        fleet.nodes()[0].pid()
    }

    pub(super) fn wait_ready(&self, within: Duration) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let client = Client::new(&self.place.http.to_string(), None);
        self.home.enter(|| {
            loop {
                let reason = match client.readiness() {
                    Ok(Ok(())) => return Ok(begun.elapsed()),
                    Ok(Err(reason)) => reason,
                    Err(error) => format!("{error:#}"),
                };
                let name = &self.place.name;
                if self.pid().is_none() {
                    let how = locked(&self.status).map_or("never started, or killed".to_owned(), told);
                    anyhow::bail!("{name} does not run ({how}):\n{}", self.last_words());
                }
                let waits = begun.elapsed() <= within;
                anyhow::ensure!(waits, "{name} is not ready after {within:?}: {reason}\n{}", self.last_words());
                thread::sleep(LOOK_AGAIN);
            }
        })?
    }

    pub(super) fn wait_ended(&self, within: Duration) -> anyhow::Result<ExitStatus> {
        let begun = Instant::now();
        while self.pid().is_some() {
            anyhow::ensure!(begun.elapsed() <= within, "{} still runs after {within:?}", self.place.name);
            thread::sleep(LOOK_AGAIN);
        }
        locked(&self.status).with_context(|| format!("{} was killed, or never started", self.place.name))
    }

    pub(super) fn last_words(&self) -> String {
        self.fleet().nodes()[0].last_words()
    }

    pub(super) fn sample(&self) -> Sample {
        self.sampler.last()
    }

    /// What it says of itself and the others.
    pub(super) fn view(&self) -> Option<ClusterView> {
        if self.has_left() {
            return None;
        }
        let answer = self.home.enter(|| sample::get(self.place.http, "/v1/cluster")).ok().flatten();
        answer.filter(|(status, _)| *status == 200).and_then(|(_, body)| serde_json::from_str(&body).ok())
    }

    pub(super) fn as_target(&self) -> Target {
        Target { node: self.entry.node.clone(), address: self.place.cluster }
    }

    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Release);
    }

    pub(super) fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    pub(super) fn jump_clock(&self, by_s: i64) -> anyhow::Result<()> {
        let clock = self.clock.as_ref();
        clock.with_context(|| format!("{} was given no clock of its own", self.place.name))?.jump(by_s)
    }

    pub(super) fn fill_disk(&self) -> anyhow::Result<()> {
        let ballast = self.ballast()?;
        self.home.enter(|| disk::fill(ballast))?
    }

    pub(super) fn free_disk(&self) -> anyhow::Result<()> {
        let ballast = self.ballast()?;
        self.home.enter(|| disk::free(ballast))?
    }

    fn ballast(&self) -> anyhow::Result<&Path> {
        self.ballast.as_deref().with_context(|| format!("{} was given no disk of its own", self.place.name))
    }

    pub(super) fn damage_disk(&self, damage: Damage) -> anyhow::Result<String> {
        self.is_down("damaged")?;
        self.home.enter(|| disk::damage(&self.entry.data, damage))?
    }

    pub(super) fn copy_disk(&self) -> anyhow::Result<DiskCopy> {
        let number = self.copies.fetch_add(1, Ordering::Relaxed);
        let folder = self.place.folder.join(format!("copy{number}"));
        self.home.enter(|| DiskCopy::take(&self.entry.data, folder))?
    }

    pub(super) fn restore_disk(&self, copy: Option<&DiskCopy>) -> anyhow::Result<()> {
        self.is_down("restored")?;
        self.home.enter(|| disk::replace(&self.entry.data, copy.map(DiskCopy::folder)))?
    }

    fn is_down(&self, to_be: &str) -> anyhow::Result<()> {
        anyhow::ensure!(self.pid().is_none(), "{} runs and cannot be {to_be}", self.place.name);
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _ = self.fleet().kill(0);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Mounts a disk of so many bytes there; where its ballast goes.
fn limited(home: &Home, disk: &Path, bytes: u64) -> anyhow::Result<PathBuf> {
    if let Some(why) = home.refuses_mounts() {
        return Err(NotHere::Disk(anyhow::anyhow!(why)).into());
    }
    let folder = disk.to_path_buf();
    home.reside(move || disk::mount_limited(&folder, bytes))?.map_err(NotHere::Disk)?;
    Ok(disk.join("ballast"))
}

fn place(folder: &Path, number: usize, home: &Home) -> anyhow::Result<Place> {
    let name = format!("node{}", number + 1);
    let folder = folder.join(&name);
    let ports = if home.is_apart() {
        layout::Ports { sip: SIP, http: HTTP, cluster: CLUSTER }
    } else {
        layout::free_ports(1)?[0]
    };
    Ok(Place {
        config: folder.join("aorta.toml"),
        log: folder.join("log"),
        name,
        sip: SocketAddr::new(home.address(), ports.sip),
        http: SocketAddr::from((Ipv4Addr::LOCALHOST, ports.http)),
        cluster: SocketAddr::new(home.address(), ports.cluster),
        folder,
    })
}
