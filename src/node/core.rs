//! What the parts of a running node share: the table, its clock, replication, the SIP server, and what follows when
//! replication says that something is to be done. Opens no socket and starts no thread.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use aorta_proto::NodeId;
use aorta_proto::frame::{Class, LastKnown};
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::disk::Bell;
use super::gauges::Gauges;
use super::members::KeptMember;
use crate::clock::{Clock, Now, WallClocks};
use crate::cluster::{Cluster, GossipMember};
use crate::location::{Counts, Location};
use crate::replication::{Effects, Event, Released, Replication};
use crate::sip::message::ViaTarget;
use crate::sip::transport::{Replies, ReplyPath};
use crate::sip::uas::{Acks, Serving, Uas};

/// A reply that waits for acks.
#[derive(Debug)]
pub(super) enum Waiting {
    /// To a phone.
    Sip {
        /// The response.
        bytes: Vec<u8>,
        /// Its way back.
        path: ReplyPath,
        /// What the Via says of that way.
        via: ViaTarget,
        /// When its change was made, monotonic microseconds.
        since_us: u64,
    },
    /// To an operator: whether it left short.
    Operator(oneshot::Sender<bool>),
}

/// How leaving stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Nobody said anything about leaving.
    #[default]
    Not,
    /// Nothing is left here that others lack.
    Drained,
    /// It took too long; so many entries are, as far as known, only here.
    TimedOut {
        /// How many.
        only_here: u64,
    },
}

/// The shared part. Threads of SIP, links and HTTP call into it; none of its calls waits for anything but short locks.
pub(super) struct Core {
    pub(super) location: Arc<Location>,
    pub(super) clock: Arc<Clock>,
    pub(super) replication: Replication<Waiting>,
    pub(super) uas: Uas,
    pub(super) gauges: Gauges,
    /// How the wall clocks of this and the other nodes compare.
    pub(super) wall_clocks: Mutex<WallClocks>,
    /// There once the endpoint is bound, gone once it is closed.
    pub(super) cluster: ArcSwapOption<Cluster>,
    /// The disk holds a time ceiling of this process, or has said that it cannot: stamps may be drawn.
    pub(super) ceiling_kept: AtomicBool,
    /// The members to remember changed since they were last written.
    pub(super) members_changed: AtomicBool,
    /// Somebody waits for a commit.
    pub(super) commit_due: AtomicBool,
    /// Wakes the thread that makes it.
    pub(super) disk_bell: OnceLock<Bell>,
    /// Why nothing can be written, while that is so.
    pub(super) disk_trouble: ArcSwapOption<String>,
    /// How often gossip about this node had to change.
    gossip_turn: AtomicU64,
    pub(super) leaving: watch::Sender<Leaving>,
    pub(super) serves: watch::Sender<bool>,
    /// Orders to leave: the first drains, each further one skips the grace.
    pub(super) leave_orders: watch::Sender<u32>,
    /// Where members are, or last were, as gossip had it.
    addresses: Mutex<BTreeMap<NodeId, SocketAddr>>,
    /// What gossip says beside replication's own keys.
    pub(super) own_addresses: Vec<(&'static str, Option<SocketAddr>)>,
}

/// The gossip key of a node's HTTP address.
pub(super) const HTTP_KEY: &str = "http";
/// The gossip key of a node's version.
pub(super) const VERSION_KEY: &str = "version";
/// The gossip key of what a node holds: root of its digest in hex, contacts, AoRs, bytes, and how many it may. Builds that
/// know less read what they know.
pub(super) const TABLE_KEY: &str = "table";

impl Core {
    /// What may be served now.
    pub(super) fn serving(&self) -> Serving {
        let serving = self.replication.serving();
        // The ceiling is on disk ahead of the first stamp, so that no later process draws one below it.
        let requests = serving.requests && self.ceiling_kept.load(Ordering::Acquire);
        let (absence, room) = (serving.denies_unknown, serving.room);
        Serving { probes: serving.options && requests, requests, absence, room }
    }

    /// Carries out what replication wants done.
    pub(super) fn act(&self, effects: Effects<Waiting>, now: Now) {
        let Effects { wake, released, events, lags, gossip_changed, last_known_changed, commit_due } = effects;
        if !wake.is_empty() || gossip_changed {
            let cluster = self.cluster.load();
            if let Some(cluster) = &*cluster {
                for (peer, class) in &wake {
                    cluster.wake(peer, *class);
                }
                if gossip_changed {
                    self.gossip(cluster);
                }
            }
        }
        let mut replies = Replies::default();
        for released in released {
            self.release(released, &mut replies, now);
        }
        replies.send();
        for event in &events {
            super::events::log(event);
            self.gauges.event(event);
            self.note(event);
        }
        for (peer, lag_us) in &lags {
            self.gauges.lagged(peer, *lag_us);
        }
        if last_known_changed {
            self.members_changed.store(true, Ordering::Release);
        }
        if commit_due {
            self.commit_due.store(true, Ordering::Release);
            if let Some(bell) = self.disk_bell.get() {
                bell.ring();
            }
        }
    }

    /// Wakes every link and says all again: for an endpoint that has just been started, which missed earlier effects.
    pub(super) fn introduce(&self, cluster: &Cluster) {
        self.gossip(cluster);
        for link in cluster.links() {
            cluster.wake(&link.peer, Class::Live);
            cluster.wake(&link.peer, Class::Bulk);
        }
    }

    /// The keys that gossip starts with.
    pub(super) fn gossip_keys(&self) -> BTreeMap<String, String> {
        let mut keys = self.replication.gossip();
        keys.insert(VERSION_KEY.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        for (key, address) in &self.own_addresses {
            if let Some(address) = address {
                keys.insert((*key).to_owned(), address.to_string());
            }
        }
        keys
    }

    /// Gossips what this node holds, for operators who can ask only one node.
    pub(super) fn tell_table(&self, counts: Counts, root: u128) {
        let Some(cluster) = &*self.cluster.load() else { return };
        let max_bytes = self.replication.memory_max_bytes();
        let table = format!("{root:032x} {} {} {} {max_bytes}", counts.live, counts.aors, counts.bytes);
        if let Err(error) = cluster.gossip(TABLE_KEY, &table) {
            tracing::debug!(%error, "what this node holds was not gossiped");
        }
    }

    /// Two threads may see a change each; whoever reads the keys last must also be the one who writes last.
    fn gossip(&self, cluster: &Cluster) {
        loop {
            let turn = self.gossip_turn.fetch_add(1, Ordering::AcqRel) + 1;
            for (key, value) in self.replication.gossip() {
                if let Err(error) = cluster.gossip(&key, &value) {
                    tracing::error!(%error, key, "a gossip key was not published");
                }
            }
            if self.gossip_turn.load(Ordering::Acquire) == turn {
                return;
            }
        }
    }

    fn release(&self, released: Released<Waiting>, replies: &mut Replies, now: Now) {
        let Released { reply, short, got, asked } = released;
        if short {
            self.gauges.short();
        }
        match reply {
            Waiting::Sip { mut bytes, path, via, since_us } => {
                self.uas.say_acks(&mut bytes, Acks { got, asked, short }, || !self.serving().absence);
                replies.push(&path, bytes, &via);
                self.gauges.acked(now.mono_us.saturating_sub(since_us));
            }
            // An operator who went away needs no answer.
            Waiting::Operator(told) => drop(told.send(short)),
        }
    }

    fn note(&self, event: &Event) {
        match event {
            Event::Ready => drop(self.serves.send_replace(true)),
            Event::Fenced { .. } => drop(self.serves.send_replace(false)),
            Event::Drained => drop(self.leaving.send_replace(Leaving::Drained)),
            Event::DrainTimeout { only_here } => {
                self.leaving.send_replace(Leaving::TimedOut { only_here: *only_here });
            }
            _ => {}
        }
    }

    /// An order to leave, from a signal or an operator.
    pub(super) fn order_to_leave(&self) {
        self.leave_orders.send_modify(|orders| *orders += 1);
    }

    /// Of parts that others put together.
    pub(super) fn new(
        location: Arc<Location>,
        clock: Arc<Clock>,
        replication: Replication<Waiting>,
        uas: Uas,
        gauges: Gauges,
        wall_clocks: WallClocks,
        own_addresses: Vec<(&'static str, Option<SocketAddr>)>,
    ) -> Self {
        Self {
            location,
            clock,
            replication,
            uas,
            gauges,
            wall_clocks: Mutex::new(wall_clocks),
            cluster: ArcSwapOption::empty(),
            ceiling_kept: AtomicBool::new(false),
            members_changed: AtomicBool::new(false),
            commit_due: AtomicBool::new(false),
            disk_bell: OnceLock::new(),
            disk_trouble: ArcSwapOption::empty(),
            gossip_turn: AtomicU64::new(0),
            leaving: watch::Sender::new(Leaving::Not),
            serves: watch::Sender::new(false),
            leave_orders: watch::Sender::new(0),
            addresses: Mutex::default(),
            own_addresses,
        }
    }

    /// Takes what the disk remembers of where members were.
    pub(super) fn remember_addresses(&self, kept: Vec<KeptMember>) {
        let known = kept.into_iter().filter_map(|kept| Some((kept.known.node, kept.address?)));
        self.addresses.lock().extend(known);
    }

    /// Gossip shows these members: remembers where they are, and has those that were there dialled until they are linked.
    pub(super) fn seen_at(&self, members: &[GossipMember]) {
        let mut addresses = self.addresses.lock();
        let known: BTreeSet<NodeId> = self.replication.last_known().into_iter().map(|known| known.node).collect();
        let before = addresses.clone();
        addresses.extend(members.iter().map(|member| (member.node.clone(), member.address)));
        addresses.retain(|node, _| known.contains(node));
        if *addresses == before {
            return;
        }
        self.members_changed.store(true, Ordering::Release);
        if let Some(cluster) = &*self.cluster.load() {
            cluster.dial(addresses.values().copied().collect());
        }
    }

    /// Where remembered members were.
    pub(super) fn known_addresses(&self) -> Vec<SocketAddr> {
        self.addresses.lock().values().copied().collect()
    }

    /// What the disk is to remember of members.
    pub(super) fn kept_members(&self) -> Vec<KeptMember> {
        let addresses = self.addresses.lock();
        let kept = |known: LastKnown| KeptMember { address: addresses.get(&known.node).copied(), known };
        self.replication.last_known().into_iter().map(kept).collect()
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("location", &self.location).finish_non_exhaustive()
    }
}
