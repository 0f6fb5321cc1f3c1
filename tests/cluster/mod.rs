//! Nodes of a cluster room on loopback, with rooms above that only write down what they are told.

mod hostile;
mod poison;
mod raw;
mod refusals;
mod relay;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aorta::cluster::certificate::{AUTHORITY_DAYS, Authority, Issued, NODE_DAYS};
use aorta::cluster::{Cluster, ClusterError, ClusterSettings, GossipMember, Identity, IdentityFiles, Peers, Refusal};
use aorta_proto::frame::{Class, Envelope, Frame, VERSION_MAX};
use aorta_proto::{BootId, NodeId};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) const DEADLINE: Duration = Duration::from_secs(15);
pub(crate) const CLUSTER: &str = "blue";

pub(crate) fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

pub(crate) fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// A CA and the folder where it issues.
pub(crate) struct Ca {
    pub(crate) pem: Issued,
    pub(crate) authority: Authority,
    dir: TempDir,
}

impl Ca {
    pub(crate) fn new(cluster: &str) -> Self {
        let pem = Authority::create(cluster, now_s(), AUTHORITY_DAYS).unwrap();
        let authority = Authority::load(&pem.certificate, &pem.key).unwrap();
        Self { pem, authority, dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Files for `node`, issued at `issued_s`, trusting `trusted`.
    pub(crate) fn files(&self, node: &str, issued_s: i64, trusted: &str) -> IdentityFiles {
        let issued = self.authority.issue(&id(node), issued_s, NODE_DAYS).unwrap();
        let at = |name: &str| self.path().join(format!("{node}.{name}"));
        let files = IdentityFiles { ca: at("ca"), certificate: at("pem"), key: at("key") };
        std::fs::write(&files.ca, trusted).unwrap();
        std::fs::write(&files.certificate, issued.certificate).unwrap();
        std::fs::write(&files.key, issued.key).unwrap();
        files
    }

    pub(crate) fn identity(&self, node: &str) -> Identity {
        self.identity_at(node, now_s())
    }

    /// A certificate that this CA's key signed for another cluster.
    pub(crate) fn identity_in(&self, cluster: &str, node: &str) -> Identity {
        let files = self.files(node, now_s(), &self.pem.certificate);
        let issuer =
            Issuer::from_ca_cert_pem(&self.pem.certificate, KeyPair::from_pem(&self.pem.key).unwrap()).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(format!("urn:aorta:{cluster}:{node}").try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        std::fs::write(&files.certificate, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        Identity::load(&files, Some(&id(node))).unwrap()
    }

    pub(crate) fn identity_at(&self, node: &str, issued_s: i64) -> Identity {
        let files = self.files(node, issued_s, &self.pem.certificate);
        Identity::load(&files, Some(&id(node))).unwrap()
    }
}

/// What the rooms above were told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Linked(NodeId, BootId, Class, Vec<u8>),
    Unlinked(NodeId, Class, String),
    Received(NodeId, Class, Vec<u8>),
    Refused(Refusal),
}

#[derive(Default)]
struct Notes {
    told: Vec<Told>,
    members: Vec<GossipMember>,
    seeds_unreached: Option<Vec<String>>,
    queued: BTreeMap<(NodeId, Class), VecDeque<Vec<u8>>>,
    refuse: Option<String>,
}

/// The rooms above.
pub(crate) struct Above {
    name: String,
    notes: Mutex<Notes>,
    changed: Condvar,
}

impl Above {
    fn note(&self, note: impl FnOnce(&mut Notes)) {
        note(&mut self.notes.lock().unwrap());
        self.changed.notify_all();
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.notes.lock().unwrap().told.clone()
    }

    pub(crate) fn members(&self) -> Vec<GossipMember> {
        self.notes.lock().unwrap().members.clone()
    }

    /// The seeds with which nobody is linked, once that is known.
    pub(crate) fn seeds_unreached(&self) -> Option<Vec<String>> {
        self.notes.lock().unwrap().seeds_unreached.clone()
    }

    /// Refuses every Hello from now on.
    pub(crate) fn refuse(&self, why: &str) {
        self.note(|notes| notes.refuse = Some(why.into()));
    }

    pub(crate) fn linked(&self, peer: &str, class: Class) -> usize {
        let linked = |told: &&Told| matches!(told, Told::Linked(p, _, c, _) if p.as_str() == peer && *c == class);
        self.told().iter().filter(linked).count()
    }

    pub(crate) fn unlinked(&self, peer: &str, class: Class) -> usize {
        let unlinked = |told: &&Told| matches!(told, Told::Unlinked(p, c, _) if p.as_str() == peer && *c == class);
        self.told().iter().filter(unlinked).count()
    }

    /// Linked in both classes, as the rooms above see it.
    pub(crate) fn has(&self, peer: &str) -> bool {
        CLASSES.iter().all(|class| self.linked(peer, *class) > self.unlinked(peer, *class))
    }

    pub(crate) fn received(&self, peer: &str, class: Class) -> Vec<Vec<u8>> {
        let told = self.told().into_iter();
        told.filter_map(|told| match told {
            Told::Received(p, c, frame) if p.as_str() == peer && c == class => Some(frame),
            _ => None,
        })
        .collect()
    }

    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        let told = self.told().into_iter();
        told.filter_map(|told| if let Told::Refused(refusal) = told { Some(refusal) } else { None }).collect()
    }

    /// Waits until `met` holds of what was told.
    pub(crate) fn until(&self, what: &str, met: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        // Between the look and the wait something may be told: hence the short turns.
        while !met(self) {
            if Instant::now() > deadline {
                panic!("{}: not in time: {what}; told {:#?}, members {:#?}", self.name, self.told(), self.members());
            }
            let notes = self.notes.lock().unwrap();
            drop(self.changed.wait_timeout(notes, Duration::from_millis(5)).unwrap());
        }
    }
}

pub(crate) const CLASSES: [Class; 2] = [Class::Live, Class::Bulk];

impl Peers for Above {
    fn hello(&self, _to: &NodeId) -> Vec<u8> {
        format!("hello from {}", self.name).into_bytes()
    }

    fn linked(&self, peer: &NodeId, boot: BootId, class: Class, hello: &[u8]) -> Result<(), String> {
        if let Some(why) = self.notes.lock().unwrap().refuse.clone() {
            return Err(why);
        }
        self.note(|notes| notes.told.push(Told::Linked(peer.clone(), boot, class, hello.to_vec())));
        Ok(())
    }

    fn unlinked(&self, peer: &NodeId, class: Class, why: &str) {
        self.note(|notes| notes.told.push(Told::Unlinked(peer.clone(), class, why.into())));
    }

    fn received(&self, peer: &NodeId, class: Class, frame: &[u8]) -> Result<(), String> {
        self.note(|notes| notes.told.push(Told::Received(peer.clone(), class, frame.to_vec())));
        Ok(())
    }

    fn transmit(&self, peer: &NodeId, class: Class, buf: &mut Vec<u8>) -> bool {
        let mut notes = self.notes.lock().unwrap();
        let Some(queue) = notes.queued.get_mut(&(peer.clone(), class)) else { return false };
        let Some(frame) = queue.pop_front() else { return false };
        buf.extend_from_slice(&frame);
        true
    }

    fn seeds_unreached(&self, seeds: Vec<String>) {
        self.note(|notes| notes.seeds_unreached = Some(seeds));
    }

    fn members(&self, view: Vec<GossipMember>) {
        self.note(|notes| notes.members = view);
    }

    fn refused(&self, refusal: &Refusal) {
        self.note(|notes| notes.told.push(Told::Refused(refusal.clone())));
    }
}

/// What is on every frame.
pub(crate) const ENVELOPE: Envelope = Envelope { version: VERSION_MAX, sent_us: 7 };

/// A frame that a number can be told from.
pub(crate) fn frame(class: Class, number: u64) -> Vec<u8> {
    let frame = match class {
        Class::Live => Frame::Ack { epoch: 1, seq: number },
        Class::Bulk => Frame::Done { id: number, batch: 1 },
    };
    let mut bytes = Vec::new();
    frame.encode(ENVELOPE, &mut bytes).unwrap();
    bytes
}

/// A node with a runtime of its own, so that it can die without a word.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) above: Arc<Above>,
    cluster: Option<Cluster>,
    runtime: Option<Runtime>,
    pub(crate) address: SocketAddr,
}

pub(crate) struct Start<'a> {
    pub(crate) name: &'a str,
    pub(crate) boot: u64,
    pub(crate) listen: SocketAddr,
    pub(crate) advertise: Option<SocketAddr>,
    pub(crate) seeds: Vec<String>,
}

impl<'a> Start<'a> {
    pub(crate) fn new(name: &'a str, boot: u64, seeds: &[SocketAddr]) -> Self {
        let seeds = seeds.iter().map(ToString::to_string).collect();
        Self { name, boot, listen: "127.0.0.1:0".parse().unwrap(), advertise: None, seeds }
    }

    pub(crate) fn at(self, listen: SocketAddr) -> Self {
        Self { listen, ..self }
    }

    pub(crate) fn advertise(self, address: SocketAddr) -> Self {
        Self { advertise: Some(address), ..self }
    }

    pub(crate) fn run(self, identity: Identity) -> Node {
        self.try_run(identity).unwrap()
    }

    pub(crate) fn try_run(self, identity: Identity) -> Result<Node, ClusterError> {
        capture();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let name = self.name.to_owned();
        let above = Arc::new(Above { name: name.clone(), notes: Mutex::default(), changed: Condvar::new() });
        let settings = ClusterSettings {
            listen: self.listen,
            advertise: self.advertise,
            seeds: self.seeds,
            last_known: Vec::new(),
            boot: BootId(self.boot),
            generation: self.boot,
            gossip: BTreeMap::from([("state".to_owned(), format!("{} is up", self.name))]),
            bulk: runtime.handle().clone(),
        };
        let cluster = runtime.block_on(Cluster::start(settings, identity, Arc::clone(&above) as Arc<dyn Peers>))?;
        let address = cluster.local();
        Ok(Node { name, above, cluster: Some(cluster), runtime: Some(runtime), address })
    }
}

impl Node {
    pub(crate) fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().unwrap()
    }

    pub(crate) fn say(&self, to: &Node, class: Class, number: u64) {
        self.above.note(|notes| {
            notes.queued.entry((id(&to.name), class)).or_default().push_back(frame(class, number));
        });
        self.cluster().wake(&id(&to.name), class);
    }

    /// Dies at once: no good-bye, no close; the port is free afterwards.
    pub(crate) fn kill(mut self) -> SocketAddr {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
        self.cluster.take();
        self.address
    }

    /// Leaves in order.
    pub(crate) fn leave(mut self, good_bye: &[u8]) {
        let (runtime, cluster) = (self.runtime.take().unwrap(), self.cluster.take().unwrap());
        runtime.block_on(cluster.close(good_bye));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.cluster.take();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

static LINES: OnceLock<Lines> = OnceLock::new();

fn capture() {
    LINES.get_or_init(|| {
        let lines = Lines::default();
        let writer = lines.clone();
        let _ = tracing_subscriber::fmt()
            .with_env_filter("info,chitchat=error")
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .try_init();
        lines
    });
}

/// Log lines of this process with all of `parts` in them.
pub(crate) fn logged(parts: &[&str]) -> Vec<String> {
    let lines = LINES.get().map(|lines| lines.0.lock().unwrap().clone()).unwrap_or_default();
    let text = String::from_utf8_lossy(&lines).into_owned();
    text.lines().filter(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned).collect()
}
