//! A peer with a certificate of the cluster that says too much, or nonsense, to one node as fast as it can. It keeps no
//! table, asks for no changes and acks none, so that nobody ever waits for it.
//!
//! It links as a node does, by the same code, and begins anew at once whenever it is closed: the pauses that a polite node
//! makes after a refusal are not its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aorta::cluster::identity::Bearer;
use aorta::cluster::{Class, Cluster, ClusterSettings, GossipMember, Identity, IdentityFiles, Peers};
use aorta_proto::frame::{
    Envelope, Frame, HEADER_BYTES, Header, Hello, Packed, PeerState, State, VERSION_MAX, VERSION_MIN, encode_changes,
    packed,
};
use aorta_proto::{BootId, ContactKey, Entry, NodeId, Record, Stamp, Value};

use super::desk::{self, Desk};
use super::home::Home;

/// Frames written at a time.
const BLOCK_FRAMES: u64 = 64;

/// Bytes of a garbage frame's body.
const NOISE_BYTES: usize = 100;

/// Questions on one exchange; a node closes on whoever has more than 16 under way.
const QUESTIONS: usize = 8;

/// Time between two looks at whether it goes on, and two portions of a limited flood.
const TICK: Duration = Duration::from_millis(10);

/// A session that gets no link for so long begins anew.
const PATIENCE: Duration = Duration::from_secs(3);

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floods {
    /// The same valid change, of the AoR `flood@lab`, again and again.
    Deltas,
    /// Valid exchanges, each left for the next after a few questions about the whole digest tree.
    Digests,
    /// Frames whose header is right and whose body is noise.
    Garbage,
}

/// To whom, and how much.
#[derive(Debug, Clone, Copy)]
pub struct FloodPlan {
    /// The node.
    pub node: usize,
    /// What it says.
    pub says: Floods,
    /// Frames a second at most; `None` for as many as the node takes.
    pub frames_s: Option<u32>,
    /// Decides over the noise.
    pub seed: u64,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FloodReport {
    /// Whole frames handed to QUIC.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How often it was linked with the node.
    pub links: u64,
    /// How often the node closed such a link.
    pub closed: u64,
    /// With which words, the last time.
    pub why: String,
}

/// A flood that goes on until it is stopped or dropped.
#[derive(Debug)]
pub struct Flood {
    said: Arc<Said>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Flood {
    /// What it has come to so far.
    #[must_use]
    pub fn report(&self) -> FloodReport {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let said = &self.said;
        FloodReport {
            frames: count(&said.frames),
            bytes: count(&said.bytes),
            links: count(&said.links),
            closed: count(&said.closed),
            why: said.why.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Ends it, with a good-bye.
    ///
    /// # Errors
    /// What kept it from going on.
    pub fn stop(mut self) -> anyhow::Result<FloodReport> {
        self.end()?;
        Ok(self.report())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = self.end();
        }
    }
}

/// Counters of all sessions.
#[derive(Debug, Default)]
struct Said {
    frames: AtomicU64,
    bytes: AtomicU64,
    links: AtomicU64,
    closed: AtomicU64,
    why: Mutex<String>,
}

/// Whom it floods.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) node: NodeId,
    pub(super) address: SocketAddr,
}

/// Starts the flood as peer number `number`, from `home`.
pub(super) fn start(plan: FloodPlan, desk: &Desk, home: Home, number: u32, target: Target) -> anyhow::Result<Flood> {
    let node = NodeId::new(&format!("peer{}", number + 1))?;
    let folder: PathBuf = desk.folder().join(node.as_str());
    desk.issue(&node, &folder)?;
    let files = IdentityFiles {
        ca: desk.ca().to_path_buf(),
        certificate: folder.join("node.pem"),
        key: folder.join("node.key"),
    };
    let bearer = Identity::load(&files, Some(&node))?.bearer;
    let said: Arc<Said> = Arc::default();
    let stop: Arc<AtomicBool> = Arc::default();
    let peer = Peer { plan, files, bearer, target, said: Arc::clone(&said), stop: Arc::clone(&stop) };
    let name = node.as_str().to_owned();
    let thread = thread::Builder::new().name(name).spawn(move || {
        let runtime = home.runtime(1)?;
        home.enter(|| runtime.block_on(peer.flood()))?
    })?;
    Ok(Flood { said, stop, thread: Some(thread) })
}

struct Peer {
    plan: FloodPlan,
    files: IdentityFiles,
    bearer: Bearer,
    target: Target,
    said: Arc<Said>,
    stop: Arc<AtomicBool>,
}

impl Peer {
    /// One session after the other.
    async fn flood(self) -> anyhow::Result<()> {
        let mut number = 0;
        while !self.stop.load(Ordering::Acquire) {
            number += 1;
            self.session(number).await?;
        }
        Ok(())
    }

    /// Links as a new process and floods until the node closes, or it is told to stop.
    async fn session(&self, number: u64) -> anyhow::Result<()> {
        let boot = BootId(self.plan.seed ^ desk::wall_us() ^ number << 48);
        let mouth = Arc::new(Mouth::new(self, boot)?);
        let settings = ClusterSettings {
            listen: SocketAddr::new(local(self.target.address), 0),
            advertise: None,
            seeds: vec![self.target.address.to_string()],
            last_known: Vec::new(),
            boot,
            generation: desk::wall_us(),
            gossip: BTreeMap::new(),
            bulk: tokio::runtime::Handle::current(),
        };
        let identity = Identity::load(&self.files, Some(&self.bearer.node))?;
        let peers: Arc<dyn Peers> = Arc::<Mouth>::clone(&mouth);
        let cluster = Cluster::start(settings, identity, peers).await.context("a flooding peer")?;
        let begun = Instant::now();
        while !self.stop.load(Ordering::Acquire) && !mouth.closed.load(Ordering::Acquire) {
            if !mouth.linked.load(Ordering::Acquire) && begun.elapsed() > PATIENCE {
                break;
            }
            tokio::time::sleep(TICK).await;
            mouth.refill(begun.elapsed());
            cluster.wake(&self.target.node, mouth.class());
        }
        let mut good_bye = Vec::new();
        Frame::Bye.encode(ENVELOPE, &mut good_bye)?;
        mouth.over.store(true, Ordering::Release);
        cluster.close(&good_bye).await;
        Ok(())
    }
}

/// The address of a flooding peer is that of its home: the system chooses it by the way to the node.
fn local(target: SocketAddr) -> std::net::IpAddr {
    let asked = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect(target).and_then(|()| socket.local_addr()));
    asked.map_or(std::net::Ipv4Addr::LOCALHOST.into(), |address| address.ip())
}

/// What is on every frame: the oldest version, which every node reads, and no time.
const ENVELOPE: Envelope = Envelope { version: VERSION_MIN, sent_us: 0 };

/// One session's end of a link.
struct Mouth {
    plan: FloodPlan,
    target: NodeId,
    hello: Vec<u8>,
    said: Arc<Said>,
    /// What is said again and again; empty until it may be said.
    block: Mutex<Vec<u8>>,
    /// Exchanges opened.
    exchanges: AtomicU64,
    /// Frames that a limited flood may still write, and those that it was given.
    left: AtomicI64,
    given: AtomicU64,
    linked: AtomicBool,
    closed: AtomicBool,
    over: AtomicBool,
    noise: AtomicU32,
}

impl Mouth {
    fn new(peer: &Peer, boot: BootId) -> anyhow::Result<Self> {
        let hello = Hello {
            node: peer.bearer.node.clone(),
            boot,
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            digest_key_hash: aorta::node::digest_key_hash(&peer.bearer.cluster),
            state: State {
                is: PeerState::Joining,
                expires_max_s: 60,
                cut_off: false,
                links: Vec::new(),
                missing: Vec::new(),
                last_known: Vec::new(),
            },
            clock_guess_us: None,
            clock_ceiling_us: None,
        };
        let mut bytes = Vec::new();
        Frame::Hello(hello).encode(ENVELOPE, &mut bytes)?;
        Ok(Self {
            plan: peer.plan,
            target: peer.target.node.clone(),
            hello: bytes,
            said: Arc::clone(&peer.said),
            block: Mutex::default(),
            exchanges: AtomicU64::new(0),
            left: AtomicI64::new(0),
            given: AtomicU64::new(0),
            linked: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            over: AtomicBool::new(false),
            noise: AtomicU32::new(0),
        })
    }

    /// The connection on which it floods.
    fn class(&self) -> Class {
        if self.plan.says == Floods::Digests { Class::Bulk } else { Class::Live }
    }

    /// Gives a limited flood what it may have said by now.
    fn refill(&self, after: Duration) {
        let Some(frames_s) = self.plan.frames_s else { return };
        let due = u64::from(frames_s) * u64::try_from(after.as_millis()).unwrap_or(0) / 1000;
        let more = due.saturating_sub(self.given.swap(due, Ordering::Relaxed));
        self.left.fetch_add(i64::try_from(more).unwrap_or(0), Ordering::Relaxed);
    }

    fn may_speak(&self) -> bool {
        let has_budget = self.plan.frames_s.is_none() || self.left.load(Ordering::Relaxed) > 0;
        has_budget && !self.over.load(Ordering::Acquire)
    }

    /// The node asks for changes of this epoch: they begin, and the same one follows without an end.
    fn subscribed(&self, epoch: u64, now_us: u64) -> anyhow::Result<()> {
        if self.plan.says != Floods::Deltas {
            return Ok(());
        }
        let changes = encode_changes("flood@lab", &change(now_us))?;
        let mut row = Vec::new();
        changes.iter().for_each(|change| packed::push(change, &mut row));
        let deltas = Frame::Deltas { epoch, first_seq: 1, waited_us: None, changes: Packed::new(&row)? };
        let mut block = Vec::new();
        Frame::Backlog { epoch, first_seq: 1 }.encode(ENVELOPE, &mut block)?;
        for _ in 1..BLOCK_FRAMES {
            deltas.encode(ENVELOPE, &mut block)?;
        }
        *self.block.lock().unwrap_or_else(PoisonError::into_inner) = block;
        Ok(())
    }

    /// Appends what is said at a time; how many frames.
    fn speak(&self, buf: &mut Vec<u8>) -> u64 {
        match self.plan.says {
            Floods::Deltas => {
                let block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
                buf.extend_from_slice(&block);
                if block.is_empty() { 0 } else { BLOCK_FRAMES }
            }
            Floods::Digests => self.exchange(buf),
            Floods::Garbage => self.garbage(buf),
        }
    }

    /// An exchange and its questions: whole levels of the tree.
    fn exchange(&self, buf: &mut Vec<u8>) -> u64 {
        let id = self.exchanges.fetch_add(1, Ordering::Relaxed) + 1;
        let ask = Frame::Ask { id, level: 3, indexes: (0..4096).collect() };
        let frames = [Frame::Begin { id, floor_us: 0 }].into_iter().chain((0..QUESTIONS).map(|_| ask.clone()));
        frames.filter(|frame| frame.encode(ENVELOPE, buf).is_ok()).count() as u64
    }

    fn garbage(&self, buf: &mut Vec<u8>) -> u64 {
        let turn = self.noise.fetch_add(1, Ordering::Relaxed);
        let mut rng = fastrand::Rng::with_seed(self.plan.seed ^ u64::from(turn));
        for _ in 0..BLOCK_FRAMES {
            buf.push(VERSION_MIN);
            // The kinds of the live connection that carry something.
            buf.push(rng.u8(2..=11));
            buf.extend_from_slice(&u32::try_from(NOISE_BYTES).unwrap_or_default().to_le_bytes());
            buf.extend_from_slice(&[0; HEADER_BYTES - 6]);
            buf.extend(std::iter::repeat_with(|| rng.u8(..)).take(NOISE_BYTES));
        }
        BLOCK_FRAMES
    }
}

/// A removal: it leaves no contact behind.
fn change(now_us: u64) -> Record {
    let key = ContactKey::uri(b"sip:flood@192.0.2.1");
    let stamp = Stamp { time_us: now_us, counter: 0, boot: BootId(1) };
    let entry = Entry { key, stamp, call_id_hash: 1, cseq: 1, uri_hash: 1, value: Value::Gone };
    Record { cleared: None, entries: vec![entry] }
}

impl Peers for Mouth {
    fn hello(&self, _to: &NodeId) -> Vec<u8> {
        self.hello.clone()
    }

    fn linked(&self, peer: &NodeId, _boot: BootId, class: Class, _hello: &[u8]) -> Result<(), String> {
        if *peer == self.target && class == self.class() {
            self.linked.store(true, Ordering::Release);
            self.said.links.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn unlinked(&self, peer: &NodeId, class: Class, why: &str) {
        if *peer == self.target && class == self.class() && !self.over.load(Ordering::Acquire) {
            self.said.closed.fetch_add(1, Ordering::Relaxed);
            *self.said.why.lock().unwrap_or_else(PoisonError::into_inner) = why.to_owned();
            self.closed.store(true, Ordering::Release);
        }
    }

    fn received(&self, peer: &NodeId, _class: Class, frame: &[u8]) -> Result<(), String> {
        let now_us = Header::read(frame).ok().flatten().map_or(0, |header| header.sent_us);
        match Frame::decode(frame, VERSION_MAX) {
            Ok((_, Frame::Subscribe { epoch })) if *peer == self.target => {
                self.subscribed(epoch, now_us).map_err(|error| error.to_string())
            }
            _ => Ok(()),
        }
    }

    fn transmit(&self, peer: &NodeId, class: Class, buf: &mut Vec<u8>) -> bool {
        if *peer != self.target || class != self.class() || !self.may_speak() {
            return false;
        }
        let before = buf.len();
        let frames = self.speak(buf);
        self.left.fetch_sub(i64::try_from(frames).unwrap_or(0), Ordering::Relaxed);
        self.said.frames.fetch_add(frames, Ordering::Relaxed);
        self.said.bytes.fetch_add((buf.len() - before) as u64, Ordering::Relaxed);
        frames > 0
    }

    fn members(&self, _view: Vec<GossipMember>) {}

    fn seeds_unreached(&self, _seeds: Vec<String>) {}
}
