//! A member in this process: replication and a table on real links. No SIP, no disk: what it is asked to write is the
//! test's, and what a disk would remember of members is handed to its next start.

use std::net::SocketAddr;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use aorta::clock::{Clock, wall_us};
use aorta::cluster::{Cluster, ClusterSettings, GossipMember, Identity, Peers};
use aorta::location::Location;
use aorta::replication::{Effects, Linked, Member, Released, Replication, Settings, Start};
use aorta_proto::frame::{Class, LastKnown};
use aorta_proto::{Aor, BootId, ContactKey, Entry, NodeId, Record, Value};
use tokio::runtime::Runtime;

/// Between two looks at what time brings.
const TICK: Duration = Duration::from_millis(10);

/// Whether a write was acknowledged by all, in words of the reply.
pub(crate) type Reply = SyncSender<Released<()>>;

/// What its threads share.
pub(crate) struct Core {
    clock: Arc<Clock>,
    pub(crate) location: Arc<Location>,
    pub(crate) replication: Replication<Reply>,
    cluster: OnceLock<Weak<Cluster>>,
    lags_us: Mutex<Vec<u64>>,
}

pub(crate) struct Running {
    pub(crate) core: Arc<Core>,
    cluster: Arc<Cluster>,
    runtime: Runtime,
    ticker: Option<(SyncSender<()>, JoinHandle<()>)>,
    pub(crate) address: SocketAddr,
}

/// How a member is started.
pub(crate) struct Build {
    pub(crate) identity: Identity,
    pub(crate) wire_version_max: u8,
    pub(crate) boot: u64,
    pub(crate) listen: SocketAddr,
    pub(crate) seeds: Vec<SocketAddr>,
    pub(crate) last_known: Vec<LastKnown>,
}

impl Build {
    pub(crate) fn run(self) -> Running {
        let boot = BootId(self.boot);
        let clock = Arc::new(Clock::system(boot));
        let location = Arc::new(Location::new([7; 16], false));
        let settings = Settings {
            wire_version_max: self.wire_version_max,
            bootstrap_min_nodes: 2,
            ..Settings::new(self.identity.bearer.node.clone(), boot)
        };
        let seeds: Vec<String> = self.seeds.iter().map(ToString::to_string).collect();
        let seeds_unreached = seeds.clone();
        let start = Start { wall_us: wall_us(), last_known: self.last_known, seeds_unreached, ..Start::default() };
        let replication = Replication::new(settings, start, Arc::clone(&location), Arc::clone(&clock), clock.now());
        let (cluster, lags_us) = (OnceLock::new(), Mutex::default());
        let core = Arc::new(Core { clock, location, replication, cluster, lags_us });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let settings = ClusterSettings {
            listen: self.listen,
            advertise: None,
            seeds,
            last_known: Vec::new(),
            boot,
            generation: wall_us(),
            gossip: core.replication.gossip(),
            bulk: runtime.handle().clone(),
        };
        let peers = Arc::clone(&core) as Arc<dyn Peers>;
        let cluster = Arc::new(runtime.block_on(Cluster::start(settings, self.identity, peers)).expect("a cluster"));
        core.cluster.set(Arc::downgrade(&cluster)).expect("once");
        let address = cluster.local();
        let ticker = Some(tick(&core));
        Running { core, cluster, runtime, ticker, address }
    }
}

fn tick(core: &Arc<Core>) -> (SyncSender<()>, JoinHandle<()>) {
    let (stop, stopped) = mpsc::sync_channel::<()>(1);
    let core = Arc::clone(core);
    let thread = std::thread::spawn(move || {
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(TICK) {
            core.act(core.replication.timeout(core.clock.now()));
        }
    });
    (stop, thread)
}

impl Running {
    /// Dies without a word; its replies are never given.
    pub(crate) fn kill(mut self) -> Vec<LastKnown> {
        self.stop_ticking();
        let Self { core, cluster, runtime, .. } = self;
        runtime.shutdown_timeout(Duration::from_secs(5));
        drop(cluster);
        core.replication.last_known()
    }

    /// Leaves in order, as a drain does once nothing is left that others lack.
    pub(crate) fn leave(mut self) -> Vec<LastKnown> {
        self.core.act(self.core.replication.leave(self.core.clock.now()));
        self.runtime.block_on(self.cluster.close(&[]));
        self.stop_ticking();
        self.core.replication.last_known()
    }

    fn stop_ticking(&mut self) {
        if let Some((stop, thread)) = self.ticker.take() {
            drop(stop);
            thread.join().expect("a ticker");
        }
    }
}

impl Core {
    /// Writes as a registrar does; the answer, if there is one, says by whom it is held.
    pub(crate) fn write(&self, aor: &Aor, reply: Reply) {
        let Some(slot) = self.replication.reserve().filter(|_| self.replication.serving().requests) else { return };
        let key = ContactKey::uri(b"sip:phone@192.0.2.1");
        let stamp = self.clock.draw();
        let entry = Entry { key, stamp, call_id_hash: 1, cseq: 1, uri_hash: 1, value: Value::Gone };
        let delta = Record::from(entry);
        self.location.update(aor, |_| &delta, |delta| Some(delta));
        self.act(self.replication.publish(slot, aor, &delta, reply, self.clock.now()));
    }

    /// The wire version that it writes.
    pub(crate) fn writes(&self) -> u8 {
        self.replication.view(self.clock.now()).wire_version
    }

    /// Whether it shows, of any peer, how long its last changes took.
    pub(crate) fn shows_lag(&self) -> bool {
        self.replication.view(self.clock.now()).peers.iter().any(|peer| peer.lag_us.is_some())
    }

    /// What it measured since the last time, µs.
    pub(crate) fn take_lags(&self) -> Vec<u64> {
        std::mem::take(&mut self.lags_us.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn reason(&self) -> String {
        format!("{:?}", self.replication.readiness(self.clock.now()))
    }

    fn act(&self, effects: Effects<Reply>) {
        if let Some(cluster) = self.cluster.get().and_then(Weak::upgrade) {
            effects.wake.iter().for_each(|(peer, class)| cluster.wake(peer, *class));
            for (key, value) in self.replication.gossip().iter().filter(|_| effects.gossip_changed) {
                cluster.gossip(key, value).expect("small keys");
            }
        }
        self.lags_us.lock().unwrap_or_else(PoisonError::into_inner).extend(effects.lags.iter().map(|(_, us)| us));
        for Released { reply, short, got, asked } in effects.released {
            // Who asked may be gone.
            let _ = reply.try_send(Released { reply: (), short, got, asked });
        }
    }
}

impl Peers for Core {
    fn hello(&self, _to: &NodeId) -> Vec<u8> {
        self.replication.hello(self.clock.now())
    }

    fn linked(&self, peer: &NodeId, _boot: BootId, class: Class, hello: &[u8]) -> Result<(), String> {
        let (linked, effects) = self.replication.linked(peer, class, hello, self.clock.now());
        self.act(effects);
        if linked == Linked::Accepted { Ok(()) } else { Err(format!("{linked:?}")) }
    }

    fn unlinked(&self, peer: &NodeId, class: Class, _why: &str) {
        self.act(self.replication.unlinked(peer, class, self.clock.now()));
    }

    fn received(&self, peer: &NodeId, class: Class, frame: &[u8]) -> Result<(), String> {
        self.act(self.replication.received(peer, class, frame, self.clock.now())?);
        Ok(())
    }

    fn transmit(&self, peer: &NodeId, class: Class, buf: &mut Vec<u8>) -> bool {
        self.replication.transmit(peer, class, buf, self.clock.now())
    }

    fn seeds_unreached(&self, seeds: Vec<String>) {
        self.act(self.replication.seeds_unreached(seeds, self.clock.now()));
    }

    fn members(&self, view: Vec<GossipMember>) {
        let members = view.iter().filter_map(|member| Member::from_keys(member.node.clone(), &member.values).ok());
        self.act(self.replication.members(members.collect(), self.clock.now()));
    }
}
