//! The thread that forwards packets between the devices of a lab, by destination address. It decides nothing: `link` does.
//!
//! What passes goes out from the buffer it was read into; only what is held back is copied, into a buffer used before.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{ErrorKind, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use tun_rs::SyncDevice;

use super::home::MTU;
use super::link::{Fate, Link};
use super::network::{End, LinkProfile, Traffic};

/// By so much the thread goes before all that its lab starts, where that is allowed.
const NICER_BY: i32 = -5;

/// Packets read from one device before the others have their turn.
const BATCH: usize = 64;

/// Buffers kept for packets to come.
const POOL_MAX: usize = 4096;

/// Where the destination stands in an IPv4 header.
const DESTINATION: std::ops::Range<usize> = 16..20;

#[derive(Debug)]
pub(super) struct Switch {
    fabric: Arc<Mutex<Fabric>>,
    stop: Arc<AtomicBool>,
    /// Wakes the thread, so that it sees what is new.
    bell: PipeWriter,
    thread: Option<JoinHandle<()>>,
}

/// A device in the switch; it is taken out when this is dropped.
#[derive(Debug)]
pub(super) struct Plug {
    fabric: Arc<Mutex<Fabric>>,
    port: usize,
}

impl Drop for Plug {
    fn drop(&mut self) {
        self.fabric.lock().unwrap_or_else(PoisonError::into_inner).unplug(self.port);
    }
}

/// Devices and links. Ports are numbered as they were plugged in.
#[derive(Debug)]
struct Fabric {
    seed: u64,
    ports: Vec<Port>,
    /// Port by the last byte of its address.
    by_host: Box<[Option<usize>; 256]>,
    /// Port by end, while it is there.
    numbers: BTreeMap<End, usize>,
    /// Rises whenever a port comes or goes.
    version: u64,
    /// From each port to each port.
    links: Vec<Vec<Link>>,
    held: BinaryHeap<Reverse<Held>>,
    /// Numbers the packets that are held, so that of two due at once the earlier goes first.
    holds: u64,
    pool: Vec<Vec<u8>>,
}

struct Port {
    end: End,
    /// `None` once its home is gone.
    device: Option<Arc<SyncDevice>>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.end.fmt(f)
    }
}

/// A packet on its way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due_us: u64,
    number: u64,
    from: usize,
    to: usize,
    packet: Vec<u8>,
}

impl Switch {
    pub(super) fn start(seed: u64) -> anyhow::Result<Self> {
        let fabric = Arc::new(Mutex::new(Fabric::new(seed)));
        let stop = Arc::new(AtomicBool::new(false));
        let (rung, bell) = std::io::pipe().context("making a pipe")?;
        let (shared, stops) = (Arc::clone(&fabric), Arc::clone(&stop));
        let thread = thread::Builder::new().name("switch".to_owned()).spawn(move || forward(&shared, &stops, &rung))?;
        Ok(Self { fabric, stop, bell, thread: Some(thread) })
    }

    pub(super) fn plug(&self, end: End, device: SyncDevice) -> anyhow::Result<Plug> {
        let port = self.fabric().plug(end, Arc::new(device));
        (&self.bell).write_all(&[1]).context("waking the switch")?;
        Ok(Plug { fabric: Arc::clone(&self.fabric), port })
    }

    pub(super) fn set(&self, from: End, to: End, profile: &LinkProfile) {
        if let Some(link) = self.fabric().link(from, to) {
            link.set(profile.clone());
        }
    }

    pub(super) fn traffic(&self, from: End, to: End) -> Traffic {
        self.fabric().link(from, to).map(|link| link.traffic()).unwrap_or_default()
    }

    pub(super) fn ends(&self) -> Vec<End> {
        self.fabric().numbers.keys().copied().collect()
    }

    fn fabric(&self) -> MutexGuard<'_, Fabric> {
        self.fabric.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = (&self.bell).write_all(&[0]);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Forwards until told to stop. A wire that waits for a processor would be a fault that nobody asked for.
fn forward(shared: &Mutex<Fabric>, stop: &AtomicBool, rung: &PipeReader) {
    let _ = rustix::process::nice(NICER_BY);
    let begun = Instant::now();
    let now_us = || u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    let mut buffer = vec![0; usize::from(MTU) + 64];
    let mut devices: Vec<(usize, Arc<SyncDevice>)> = Vec::new();
    let mut version = 0;
    let mut ready: Vec<usize> = Vec::new();
    let mut wait = None;
    while !stop.load(Ordering::Acquire) {
        if wait_for(&devices, rung, wait, &mut ready) {
            let mut byte = [0];
            let _ = (&*rung).read(&mut byte);
        }
        let mut fabric = shared.lock().unwrap_or_else(PoisonError::into_inner);
        for port in ready.drain(..) {
            fabric.drain(port, &mut buffer, now_us());
        }
        wait = fabric.deliver(now_us()).map(|due_us| Duration::from_micros(due_us.saturating_sub(now_us())));
        if version != fabric.version {
            version = fabric.version;
            devices = fabric.devices();
        }
    }
}

/// Waits until a device has a packet, somebody rings or the time is over; whether somebody rang.
fn wait_for(
    devices: &[(usize, Arc<SyncDevice>)],
    rung: &PipeReader,
    time: Option<Duration>,
    ready: &mut Vec<usize>,
) -> bool {
    let readable = devices.iter().map(|(_, device)| PollFd::new(device.as_fd(), PollFlags::POLLIN));
    let mut fds: Vec<PollFd<'_>> = readable.collect();
    fds.push(PollFd::new(rung.as_fd(), PollFlags::POLLIN));
    let _ = ppoll(&mut fds, time.map(TimeSpec::from_duration), None);
    let has = |fd: &PollFd<'_>| fd.any().unwrap_or_default();
    ready.extend(devices.iter().zip(&fds).filter(|(_, fd)| has(fd)).map(|((port, _), _)| *port));
    fds.last().is_some_and(has)
}

impl Fabric {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            ports: Vec::new(),
            by_host: Box::new([None; 256]),
            numbers: BTreeMap::new(),
            version: 0,
            links: Vec::new(),
            held: BinaryHeap::new(),
            holds: 0,
            pool: Vec::new(),
        }
    }

    fn plug(&mut self, end: End, device: Arc<SyncDevice>) -> usize {
        let number = self.ports.len();
        let host = end.address().octets()[3];
        for (from, links) in self.links.iter_mut().enumerate() {
            links.push(Link::new(link_seed(self.seed, self.ports[from].end, end)));
        }
        self.ports.push(Port { end, device: Some(device) });
        self.version += 1;
        let seed = self.seed;
        self.links.push(self.ports.iter().map(|to| Link::new(link_seed(seed, end, to.end))).collect());
        self.by_host[usize::from(host)] = Some(number);
        self.numbers.insert(end, number);
        number
    }

    fn link(&mut self, from: End, to: End) -> Option<&mut Link> {
        let (from, to) = (*self.numbers.get(&from)?, *self.numbers.get(&to)?);
        self.links.get_mut(from)?.get_mut(to)
    }

    /// Reads what a device has, a batch at most, and passes it on.
    fn drain(&mut self, from: usize, buffer: &mut [u8], now_us: u64) {
        let Some(device) = self.ports[from].device.clone() else { return };
        for _ in 0..BATCH {
            match device.recv(buffer) {
                Ok(length) => self.pass(from, &buffer[..length], now_us),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // A device that fails once would be ready to fail for ever.
                Err(_) => return self.unplug(from),
            }
        }
    }

    fn unplug(&mut self, port: usize) {
        let end = self.ports[port].end;
        self.ports[port].device = None;
        self.version += 1;
        if self.numbers.get(&end) == Some(&port) {
            self.numbers.remove(&end);
            self.by_host[usize::from(end.address().octets()[3])] = None;
        }
    }

    /// What is there to read from, by port.
    fn devices(&self) -> Vec<(usize, Arc<SyncDevice>)> {
        let there = self.ports.iter().enumerate();
        there.filter_map(|(number, port)| Some((number, Arc::clone(port.device.as_ref()?)))).collect()
    }

    fn pass(&mut self, from: usize, packet: &[u8], now_us: u64) {
        let Some(to) = self.addressee(packet) else { return };
        let link = &mut self.links[from][to];
        match link.judge(packet.len(), now_us) {
            Fate::Lost => {}
            Fate::Arrives(at_us) => self.arrive(from, to, packet, at_us),
            Fate::Twice(first_us, second_us) => {
                self.arrive(from, to, packet, first_us);
                self.arrive(from, to, packet, second_us);
            }
        }
    }

    /// Whom an IPv4 packet is for.
    fn addressee(&self, packet: &[u8]) -> Option<usize> {
        if packet.first()? >> 4 != 4 {
            return None;
        }
        let address: [u8; 4] = packet.get(DESTINATION)?.try_into().ok()?;
        let to = self.by_host[usize::from(address[3])]?;
        (self.ports[to].end.address().octets() == address).then_some(to)
    }

    fn arrive(&mut self, from: usize, to: usize, packet: &[u8], at_us: u64) {
        if at_us == 0 {
            return self.hand_over(from, to, packet);
        }
        let mut copy = self.pool.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(packet);
        self.links[from][to].hold();
        self.holds += 1;
        self.held.push(Reverse(Held { due_us: at_us, number: self.holds, from, to, packet: copy }));
    }

    fn hand_over(&mut self, from: usize, to: usize, packet: &[u8]) {
        let device = self.ports[to].device.as_ref();
        if device.is_none_or(|device| device.send(packet).is_err()) {
            self.links[from][to].refused();
        }
    }

    /// Hands over what is due; when the next is.
    fn deliver(&mut self, now_us: u64) -> Option<u64> {
        while let Some(Reverse(next)) = self.held.peek() {
            if next.due_us > now_us {
                return Some(next.due_us);
            }
            let Reverse(Held { from, to, packet, .. }) = self.held.pop()?;
            self.links[from][to].release();
            self.hand_over(from, to, &packet);
            if self.pool.len() < POOL_MAX {
                self.pool.push(packet);
            }
        }
        None
    }
}

/// A seed of its own for each direction, the same whatever order ends are plugged in.
fn link_seed(seed: u64, from: End, to: End) -> u64 {
    let host = |end: End| u64::from(end.address().octets()[3]);
    let mut rng = fastrand::Rng::with_seed(seed ^ (host(from) << 8 | host(to)).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    rng.u64(..)
}
