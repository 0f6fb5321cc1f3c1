//! Whom to dial, and when: every seed, every last-known member, every member that gossip shows, until each has a healthy
//! link of both classes. Greets nobody itself (see `endpoint`).
//!
//! A dial that is not answered, and a link that falls silent, is raced by a fresh dial every [`RACE_EVERY`]: after a cut
//! heals, QUIC's own back-off would cost seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aorta_proto::NodeId;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::net::lookup_host;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Class;
use super::endpoint::{Dialled, Endpoint};
use super::link::canonical;
use super::session::Session;
use super::switchboard::Switchboard;

/// A dial unanswered for this long is raced by the next.
const RACE_EVERY: Duration = Duration::from_millis(500);

/// How often it is looked who is missing.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// After a refusal nothing changes until someone acts; a twin may have ended, though.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);

/// An address that led to this node itself is tried again after this: a name may be given to another node.
const OWN_PAUSE: Duration = Duration::from_secs(60);

/// How often names among the seeds are asked again, and how long an answer may take.
const RESOLVE_EVERY: Duration = Duration::from_secs(5);

/// Addresses dialled in all, and those that one name may yield.
const ADDRESSES_MAX: usize = 256;

/// Dials under way to one address: what a race of one attempt's length needs.
const DIALS_MAX: usize = 6;

/// Addresses of what to dial, and how each last went.
pub(super) struct Dialer {
    seeds: Vec<String>,
    board: Arc<Switchboard>,
    endpoint: Arc<Endpoint>,
    tries: Arc<Mutex<BTreeMap<(SocketAddr, Class), Try>>>,
    resolved: Arc<Mutex<Resolved>>,
    /// The seeds of which the rooms above know that nobody is linked there.
    told: Option<Vec<String>>,
}

/// How dialling an address goes.
#[derive(Debug, Default)]
struct Try {
    /// Not before.
    pause: Option<Instant>,
    under_way: usize,
    /// Who answered there.
    peer: Option<NodeId>,
    /// This node itself answered there.
    own: bool,
}

impl Dialer {
    pub(super) fn new(seeds: Vec<String>, board: Arc<Switchboard>, endpoint: Arc<Endpoint>) -> Self {
        Self { seeds, board, endpoint, tries: Arc::default(), resolved: Arc::default(), told: None }
    }

    /// Dials until it is stopped.
    pub(super) async fn run(mut self) {
        self.board.spawn(resolve(self.seeds.clone(), Arc::clone(&self.resolved), Arc::clone(&self.board)));
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = self.board.changes();
        loop {
            tokio::select! {
                _ = look.tick() => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
            if self.board.is_leaving() {
                return;
            }
            self.look(Instant::now());
            self.tell_unreached();
        }
    }

    /// Tells which seeds lead to nobody who is linked, if that changed.
    fn tell_unreached(&mut self) {
        let unreached = self.unreached();
        if self.told.as_ref() != Some(&unreached) {
            self.told = Some(unreached.clone());
            self.board.peers().seeds_unreached(unreached);
        }
    }

    fn unreached(&self) -> Vec<String> {
        let (resolved, tries) = (self.resolved.lock().clone(), self.tries.lock());
        let sessions = self.board.sessions();
        let reached = |address: &SocketAddr| {
            let this = tries.get(&(*address, Class::Live));
            let peer = this.and_then(|this| this.peer.as_ref());
            *address == self.board.advertise()
                || this.is_some_and(|this| this.own)
                || sessions.iter().any(|session| session.is_open() && leads(session, *address, peer))
        };
        let of = |seed: &String| match resolved.get(seed) {
            Some(found) => found.iter().filter(|address| !reached(address)).map(ToString::to_string).collect(),
            None => vec![seed.clone()],
        };
        self.seeds.iter().flat_map(of).collect()
    }

    fn look(&self, now: Instant) {
        let due = {
            let addresses = self.addresses();
            let mut tries = self.tries.lock();
            tries.retain(|(address, class), this| {
                this.under_way > 0 || *class == Class::Bulk || addresses.contains(address)
            });
            let live = addresses.into_iter().map(|address| (address, Class::Live));
            let bulk = self.bulk_due();
            tries.retain(|key, this| this.under_way > 0 || key.1 == Class::Live || bulk.contains_key(&key.0));
            let bulk = bulk.into_iter().map(|(address, first)| ((address, Class::Bulk), first));
            let mut due = Vec::new();
            for (key, first) in live.map(|key| (key, true)).chain(bulk) {
                let this = tries
                    .entry(key)
                    .or_insert_with(|| Try { pause: (!first).then(|| now + RACE_EVERY), ..Try::default() });
                let shunned = this.peer.as_ref().is_some_and(|peer| self.board.shuns_us(peer, REFUSED_PAUSE));
                let waits = shunned || this.under_way >= DIALS_MAX || this.pause.is_some_and(|until| now < until);
                if waits || (key.1 == Class::Live && self.is_linked(key.0, this.peer.as_ref())) {
                    continue;
                }
                this.pause = Some(now + RACE_EVERY);
                this.under_way += 1;
                due.push((key, first && key.1 == Class::Bulk));
            }
            due
        };
        for ((address, class), aside) in due {
            self.dial(address, class, aside);
        }
    }

    /// Everything that may be a member's address, without this node's own.
    fn addresses(&self) -> BTreeSet<SocketAddr> {
        let mut all: BTreeSet<SocketAddr> = self.resolved.lock().values().flatten().copied().collect();
        all.extend(self.board.last_known());
        all.extend(self.board.gossip().addresses());
        all.extend(self.board.sessions().iter().map(|session| session.dial));
        all.remove(&self.board.advertise());
        all.into_iter().take(ADDRESSES_MAX).collect()
    }

    /// Whether a healthy live link leads to whoever is at `address`.
    fn is_linked(&self, address: SocketAddr, peer: Option<&NodeId>) -> bool {
        self.board.sessions().iter().any(|session| session.is_healthy() && leads(session, address, peer))
    }

    /// Where a bulk link is missing beside a healthy live one, and whether this side dials first: the other dials only when that
    /// has not helped, so that there are rarely two, and from where it listens, so that who takes nothing from other ports can
    /// be linked all the same.
    fn bulk_due(&self) -> BTreeMap<SocketAddr, bool> {
        let sessions = self.board.sessions();
        let live = sessions.iter().filter(|session| session.class == Class::Live && session.is_healthy());
        live.filter(|live| !self.board.session(&live.peer, Class::Bulk).is_some_and(|bulk| bulk.is_healthy()))
            .map(|live| (live.dial, self.board.dials_bulk_first(live)))
            .collect()
    }

    fn dial(&self, address: SocketAddr, class: Class, aside: bool) {
        let (board, endpoint, tries) = (Arc::clone(&self.board), Arc::clone(&self.endpoint), Arc::clone(&self.tries));
        self.board.spawn(async move {
            let dialled = endpoint.dial(address, class, aside, &board).await;
            if let Some(this) = tries.lock().get_mut(&(address, class)) {
                this.remember(dialled, Instant::now());
            }
        });
    }
}

impl Try {
    fn remember(&mut self, dialled: Dialled, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        self.own = matches!(dialled, Dialled::Own);
        match dialled {
            Dialled::Peer(peer) => self.peer = Some(peer),
            Dialled::Own => self.pause = Some(now + OWN_PAUSE),
            Dialled::Refused => self.pause = Some(now + REFUSED_PAUSE),
            Dialled::Lost => self.peer = None,
        }
    }
}

/// Whether a live session is with whoever is at `address`; `peer` answered there last.
fn leads(session: &Session, address: SocketAddr, peer: Option<&NodeId>) -> bool {
    let same = session.theirs.advertise == address || session.dial == address || Some(&session.peer) == peer;
    same && session.class == Class::Live
}

/// What each seed leads to, once it resolved.
type Resolved = BTreeMap<String, BTreeSet<SocketAddr>>;

/// Keeps the addresses of the seeds fresh.
async fn resolve(seeds: Vec<String>, resolved: Arc<Mutex<Resolved>>, board: Arc<Switchboard>) {
    let unknown: Mutex<BTreeSet<&str>> = Mutex::default();
    let mut again = interval(RESOLVE_EVERY);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        again.tick().await;
        let asked = seeds.iter().map(async |seed| match addresses(seed).await {
            Ok(found) => {
                unknown.lock().remove(seed.as_str());
                let mut resolved = resolved.lock();
                if resolved.get(seed) != Some(&found) {
                    tracing::debug!(seed, addresses = ?found, "seed resolved");
                    resolved.insert(seed.clone(), found);
                    drop(resolved);
                    board.change();
                }
            }
            // The addresses that it had stay: a name server that is down is no reason to lose a peer.
            Err(why) if unknown.lock().insert(seed) => tracing::warn!(seed, why, "seed does not resolve"),
            Err(_) => {}
        });
        join_all(asked).await;
        if seeds.iter().all(|seed| seed.parse::<SocketAddr>().is_ok()) {
            return;
        }
    }
}

/// The addresses of one seed.
async fn addresses(seed: &str) -> Result<BTreeSet<SocketAddr>, String> {
    match timeout(RESOLVE_EVERY, lookup_host(seed)).await {
        Ok(Ok(found)) => Ok(found.map(canonical).take(ADDRESSES_MAX).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".into()),
    }
}
