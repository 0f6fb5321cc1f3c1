//! Which links stay: at most one a peer and class, one process a node id. Holds the table of links and what all parts of
//! this room share; moves no byte itself.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aorta_proto::{BootId, NodeId};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{Admission, Offer, Refused};
use super::greeting::Greeting;
use super::link::Close;
use super::membership::Gossip;
use super::refusals::{Refusal, RefusalKind, RefusalLog};
use super::session::{SILENT, Session};
use super::{Class, ClusterSettings, LinkView, Peers};

/// Nodes that may be linked. A full mesh of more has other limits first.
const PEERS_MAX: usize = 256;

/// How long a bulk connection waits for the live one to be agreed on at this end.
const LIVE_WAIT: Duration = Duration::from_secs(1);

/// The links with one node.
struct Entry {
    boot: BootId,
    links: [Option<Arc<Session>>; 2],
}

fn slot(class: Class) -> usize {
    match class {
        Class::Live => 0,
        Class::Bulk => 1,
    }
}

/// What all parts of the cluster room share.
pub(super) struct Switchboard {
    me: NodeId,
    boot: BootId,
    generation: u64,
    advertise: SocketAddr,
    peers: Arc<dyn Peers>,
    gossip: Arc<Gossip>,
    table: RwLock<HashMap<NodeId, Entry>>,
    turns: AtomicU64,
    last_known: Mutex<Vec<SocketAddr>>,
    /// Who refused a link that this node had already, and when.
    shunned: Mutex<HashMap<NodeId, Instant>>,
    changed: watch::Sender<u64>,
    /// Sessions were called.
    calls: Notify,
    refusals: RefusalLog,
    tasks: TaskTracker,
    bulk: Handle,
    leaving: CancellationToken,
    stop: CancellationToken,
}

impl Switchboard {
    pub(super) fn new(
        settings: &ClusterSettings,
        advertise: SocketAddr,
        me: &NodeId,
        peers: Arc<dyn Peers>,
        gossip: Arc<Gossip>,
    ) -> Self {
        Self {
            me: me.clone(),
            boot: settings.boot,
            generation: settings.generation,
            advertise,
            peers,
            gossip,
            table: RwLock::default(),
            turns: AtomicU64::new(1),
            last_known: Mutex::new(settings.last_known.clone()),
            shunned: Mutex::default(),
            changed: watch::Sender::new(0),
            calls: Notify::new(),
            refusals: RefusalLog::default(),
            tasks: TaskTracker::new(),
            bulk: settings.bulk.clone(),
            leaving: CancellationToken::new(),
            stop: CancellationToken::new(),
        }
    }

    pub(super) fn peers(&self) -> &Arc<dyn Peers> {
        &self.peers
    }

    pub(super) fn gossip(&self) -> &Gossip {
        &self.gossip
    }

    pub(super) fn advertise(&self) -> SocketAddr {
        self.advertise
    }

    /// Runs `task` until it ends or the cluster stops.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Runs a link, which ends by itself when the cluster stops and is told why.
    pub(super) fn spawn_link(&self, link: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(link);
    }

    /// Where a link is read, written and driven.
    pub(super) fn runtime(&self, class: Class) -> Handle {
        match class {
            Class::Live => Handle::current(),
            Class::Bulk => self.bulk.clone(),
        }
    }

    /// Runs `attempt` unless the cluster stops first.
    pub(super) async fn unless_stopped<T>(&self, attempt: impl Future<Output = Option<T>>) -> Option<T> {
        tokio::select! {
            () = self.stop.cancelled() => None,
            result = attempt => result,
        }
    }

    /// Counts up at each change of the table and of what is to be dialled.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn change(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled()
    }

    /// Stops every task; nobody is told.
    pub(super) fn stop(&self) {
        self.leaving.cancel();
        self.stop.cancel();
    }

    /// Says good-bye on every live link and waits until it was read, at most `wait`.
    pub(super) async fn leave(&self, good_bye: &[u8], wait: Duration) {
        self.leaving.cancel();
        let live: Vec<_> = self.sessions().into_iter().filter(|session| session.class == Class::Live).collect();
        let farewells = futures_util::future::join_all(live.iter().map(|session| session.leave(good_bye)));
        if timeout(wait, farewells).await.is_err() {
            tracing::warn!("not every peer read the good-bye in time");
        }
    }

    /// Stops every task and waits until each has ended, at most `wait`.
    pub(super) async fn stopped(&self, wait: Duration) {
        self.stop();
        self.tasks.close();
        if timeout(wait, self.tasks.wait()).await.is_err() {
            tracing::warn!("a task of the cluster room did not end in time");
        }
    }

    // ---- who may link -------------------------------------------------------------------------------------------

    /// The greeting of this node to `peer`, with its Hello.
    pub(super) fn greeting(&self, peer: &NodeId, class: Class) -> Vec<u8> {
        let linked = self.session(peer, class).is_some_and(|session| session.is_healthy());
        let (boot, generation, advertise) = (self.boot, self.generation, self.advertise);
        Greeting { class, linked, boot, generation, advertise }.encode(&self.peers.hello(peer))
    }

    /// Whether this node decides which connections with `peer` stay.
    pub(super) fn decides(&self, peer: &NodeId) -> bool {
        self.me < *peer
    }

    /// Whether of the two nodes of a live link this one is to dial for bulk: the one that began later, for what comes then
    /// comes to it.
    pub(super) fn dials_bulk_first(&self, live: &Session) -> bool {
        (live.theirs.generation, &live.peer) < (self.generation, &self.me)
    }

    /// Refuses a peer whose node id a living process has: this one, or one that is linked and answers. One that is
    /// linked and does not answer is gone: its links end here.
    pub(super) async fn check_twin(&self, peer: &NodeId, theirs: &Greeting, at: SocketAddr) -> Result<(), Refused> {
        if *peer == self.me {
            if theirs.boot == self.boot {
                return Err(Refused::Quietly(Close::Own));
            }
            return Err(twin(peer, at, self.advertise));
        }
        let Some((boot, old)) = self.entry(peer) else { return Ok(()) };
        if boot == theirs.boot {
            return Ok(());
        }
        let Some(first) = old.first() else { return Ok(()) };
        if first.answers().await {
            return Err(twin(peer, at, first.view().address));
        }
        for session in &old {
            session.end(Close::Replaced, "a new process has its node id, and it did not answer");
            session.ended().await;
        }
        Ok(())
    }

    /// The decider's choice: takes the connection unless a healthy link of its class is there. Ends the one it replaces.
    ///
    /// `theirs.linked` false means that the peer lost its end of the link; one younger than [`SILENT`] may not have
    /// reached it yet.
    pub(super) async fn claim(self: &Arc<Self>, offer: Offer) -> Result<Admission, Refused> {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let peer_lost_it = !offer.theirs.linked;
        self.take(offer, turn, |current| {
            let replaceable = !current.is_healthy() || (peer_lost_it && current.age() >= SILENT);
            if replaceable { Ok(()) } else { Err(Refused::Quietly(Close::Duplicate)) }
        })
        .await
    }

    /// The other side's part: takes the connection that the decider chose, unless it chose a later one since.
    pub(super) async fn follow(self: &Arc<Self>, offer: Offer, turn: u64) -> Result<Admission, Refused> {
        self.take(
            offer,
            turn,
            |current| {
                if current.turn < turn { Ok(()) } else { Err(Refused::Quietly(Close::Duplicate)) }
            },
        )
        .await
    }

    async fn take(
        self: &Arc<Self>,
        offer: Offer,
        turn: u64,
        judge: impl FnOnce(&Session) -> Result<(), Refused>,
    ) -> Result<Admission, Refused> {
        if offer.theirs.class == Class::Bulk {
            self.wait_for_live(&offer).await?;
        }
        let session = Arc::new(offer.session(turn, self.stop.child_token()));
        let old = {
            let mut table = self.table.write();
            if self.is_leaving() {
                return Err(Refused::Quietly(Close::GoodBye));
            }
            if table.len() >= PEERS_MAX && !table.contains_key(&session.peer) {
                let why = format!("{PEERS_MAX} nodes are linked already");
                return Err(Refused::Loudly(RefusalKind::Hello, Close::Refused, why));
            }
            let entry = table
                .entry(session.peer.clone())
                .or_insert_with(|| Entry { boot: session.boot(), links: [None, None] });
            if entry.links.iter().all(Option::is_none) {
                entry.boot = session.boot();
            }
            if entry.boot != session.boot() {
                // Another process of this name was faster; the next attempt will find it, living or dead.
                return Err(Refused::Quietly(Close::Duplicate));
            }
            let place = &mut entry.links[slot(session.class)];
            if let Some(current) = place {
                judge(current)?;
            }
            place.replace(Arc::clone(&session))
        };
        let admission = Admission { board: Arc::clone(self), session };
        if let Some(old) = old {
            old.end(Close::Replaced, "a later link takes its place");
            old.ended().await;
        }
        Ok(admission)
    }

    /// A bulk link belongs to a live one with the same process, which may be a moment behind at this end.
    async fn wait_for_live(&self, offer: &Offer) -> Result<(), Refused> {
        let mut changes = self.changes();
        let found = async {
            loop {
                changes.mark_unchanged();
                if self
                    .session(&offer.peer, Class::Live)
                    .is_some_and(|live| live.is_open() && live.boot() == offer.theirs.boot)
                {
                    return;
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        timeout(LIVE_WAIT, found).await.map_err(|_| Refused::Quietly(Close::NoLive))
    }

    // ---- the table ----------------------------------------------------------------------------------------------

    fn entry(&self, peer: &NodeId) -> Option<(BootId, Vec<Arc<Session>>)> {
        let table = self.table.read();
        table.get(peer).map(|entry| (entry.boot, entry.links.iter().flatten().cloned().collect()))
    }

    pub(super) fn session(&self, peer: &NodeId, class: Class) -> Option<Arc<Session>> {
        self.table.read().get(peer).and_then(|entry| entry.links[slot(class)].clone())
    }

    /// All sessions, by node id and class.
    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        let table = self.table.read();
        let mut all: Vec<_> = table.values().flat_map(|entry| entry.links.iter().flatten().cloned()).collect();
        all.sort_by(|a, b| (&a.peer, a.class).cmp(&(&b.peer, b.class)));
        all
    }

    pub(super) fn views(&self) -> Vec<LinkView> {
        self.sessions().iter().map(|session| session.view()).collect()
    }

    /// Has a link look for what is to be sent. What is published goes to all peers: to wake a task from another thread costs
    /// a system call, so one task is woken for all live links, and wakes them where they run.
    pub(super) fn wake(&self, peer: &NodeId, class: Class) {
        if let Some(session) = self.table.read().get(peer).and_then(|entry| entry.links[slot(class)].as_ref()) {
            match class {
                Class::Live => {
                    session.call();
                    self.calls.notify_one();
                }
                Class::Bulk => session.wake(),
            }
        }
    }

    /// Wakes the links that were called, where live links run.
    pub(super) async fn answer_calls(self: Arc<Self>) {
        loop {
            self.calls.notified().await;
            for session in self.table.read().values().filter_map(|entry| entry.links[slot(Class::Live)].as_ref()) {
                session.wake_if_called();
            }
        }
    }

    pub(super) fn unlink(&self, peer: &NodeId, why: &str) {
        for session in self.entry(peer).map(|(_, sessions)| sessions).unwrap_or_default() {
            session.end(Close::Refused, why);
        }
    }

    /// Takes a session that has ended out of the table. A bulk link does not outlive its live one.
    pub(super) fn release(&self, session: &Arc<Session>) {
        session.set_ended();
        let mut table = self.table.write();
        if let Some(entry) = table.get_mut(&session.peer) {
            let place = &mut entry.links[slot(session.class)];
            if place.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
                *place = None;
                if let Some(bulk) = entry.links[slot(Class::Bulk)].as_ref().filter(|_| session.class == Class::Live) {
                    bulk.end(Close::NoLive, "the live link has ended");
                }
            }
            if entry.links.iter().all(Option::is_none) {
                table.remove(&session.peer);
            }
        }
        drop(table);
        self.change();
    }

    // ---- dialling and refusals ----------------------------------------------------------------------------------

    pub(super) fn last_known(&self) -> Vec<SocketAddr> {
        self.last_known.lock().clone()
    }

    pub(super) fn set_last_known(&self, addresses: Vec<SocketAddr>) {
        *self.last_known.lock() = addresses;
        self.change();
    }

    /// Whether the peer refused a link within the last `pause`: it will again, until someone acts.
    pub(super) fn shuns_us(&self, peer: &NodeId, pause: Duration) -> bool {
        self.shunned.lock().get(peer).is_some_and(|at| at.elapsed() < pause)
    }

    /// The peer ended a link that it had, and said that it does not want this node.
    pub(super) fn shunned(&self, session: &Session, why: &str) {
        let mut shunned = self.shunned.lock();
        if shunned.len() >= PEERS_MAX {
            shunned.clear();
        }
        shunned.insert(session.peer.clone(), Instant::now());
        drop(shunned);
        let (peer, address) = (Some(session.peer.clone()), session.view().address);
        self.refuse(&Refusal { address, peer, kind: RefusalKind::ByPeer, why: why.to_owned() });
    }

    /// Logs a refusal, once a minute, and tells the rooms above.
    pub(super) fn refuse(&self, refusal: &Refusal) {
        self.refusals.say(refusal);
        self.peers.refused(refusal);
    }
}

fn twin(peer: &NodeId, newcomer: SocketAddr, at: SocketAddr) -> Refused {
    let why = format!(
        "a process with the node id '{peer}' is alive at {at}, so the one at {newcomer} is its twin; \
         give each node its own node_id, certificate and data_dir"
    );
    Refused::Loudly(RefusalKind::Twin, Close::Twin, why)
}
