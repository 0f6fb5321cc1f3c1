//! One node's thinking about its peers, under one short lock: the ack set, the outbox, readiness. Applies no change to
//! the table and moves none in bulk: those are done without this lock (see [`super::Replication`] and [`super::bulk`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use aorta_proto::NodeId;
use aorta_proto::frame::{LastKnown, PeerState, RejoinReason, SAVED_SINCE, State};
use aorta_proto::mutant::{Mutant, is};
use aorta_proto::record::{floor_us, horizon_us};

use super::ack_set::Waiting;
use super::anti_entropy::Schedule;
use super::bulk::Command;
use super::commit::OwnDisk;
use super::effects::{Effects, Event};
use super::fencing::Promise;
use super::membership::{Member, Members};
use super::outbox::Outbox;
use super::peer::{Link, Peer, Subscriber};
use super::readiness::{Joining, Mode};
use super::settings::{Settings, Start};
use crate::clock::{Clock, Now};
use crate::location::{Budget, Location, Room};

/// A link that had nothing to say for so long says a Ping, µs: the other side hears that it lives, and what time it is.
pub(super) const PING_EVERY_US: u64 = 400_000;

/// A gap between two timeouts, in ack timeouts, that means that the process slept.
const SLEPT_ACK_TIMEOUTS: u64 = 2;

pub(super) struct Live<R> {
    pub(super) settings: Settings,
    pub(super) start: Start,
    pub(super) started_us: u64,
    pub(super) clock: Arc<Clock>,
    pub(super) location: Arc<Location>,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    pub(super) outbox: Outbox,
    pub(super) replies: VecDeque<Waiting<R>>,
    pub(super) disk: OwnDisk,
    pub(super) members: Members,
    pub(super) mode: Mode,
    /// When it began to serve, monotonic µs.
    pub(super) served_since_us: u64,
    /// Joiners with smaller ids that it did not hear when it began.
    pub(super) began_beside: BTreeSet<NodeId>,
    /// This node's epoch as a subscriber; rises at each rejoin.
    pub(super) epoch: u64,
    /// Counts Marks: an exchange makes ready only if none came after it began.
    pub(super) marks: u64,
    /// Members that were missing at the cold start and have not been heard out since.
    pub(super) partial: BTreeSet<NodeId>,
    pub(super) schedule: Schedule,
    /// For [`super::bulk::Bulk`], carried out by the caller of this lock.
    pub(super) commands: Vec<Command>,
    pub(super) effects: Effects<R>,
    /// Refused by or at another node, and when (monotonic µs): forbids a cold start.
    pub(super) refusal: Option<(String, u64)>,
    /// Seeds behind which nobody is linked: they may serve.
    pub(super) seeds_unreached: Vec<String>,
    /// Why this node may not start a cluster, said by the caller (a certificate out of its dates).
    pub(super) forbidden: Option<String>,
    /// This node's disk is further ahead than the cluster allows.
    pub(super) ahead: Option<String>,
    /// It lost more than half of the members, and has not caught up since.
    pub(super) cut_off: bool,
    /// For whom this node stays.
    pub(super) promises: BTreeMap<NodeId, Promise>,
    /// Until when (monotonic µs) this node doubts that what it does not know does not exist.
    pub(super) doubt_until_us: Option<u64>,
    /// How this node's table stands to its limit.
    pub(super) budget: Budget,
    /// Whom every node has room for, as [`Self::weigh_memory`] found last: each request asks.
    pub(super) room: Room,
    last_timeout_us: u64,
    pub(super) nonce: u64,
}

impl<R> Live<R> {
    pub(super) fn new(settings: Settings, start: Start, clock: Arc<Clock>, location: Arc<Location>, now: Now) -> Self {
        let mut members = Members::default();
        for known in start.last_known.iter().filter(|known| known.node != settings.node) {
            members.remember(known.clone());
        }
        Self {
            outbox: Outbox::new(settings.outbox_bytes_max),
            schedule: Schedule::new(now.mono_us, settings.anti_entropy_interval_us),
            budget: Budget::new(settings.memory_max_bytes),
            room: Room::ForAll,
            settings,
            seeds_unreached: start.seeds_unreached.clone(),
            start,
            started_us: now.mono_us,
            clock,
            location,
            peers: BTreeMap::new(),
            replies: VecDeque::new(),
            disk: OwnDisk::default(),
            members,
            mode: Mode::Joining(Joining::starting(now.mono_us)),
            served_since_us: now.mono_us,
            began_beside: BTreeSet::new(),
            epoch: 1,
            marks: 0,
            partial: BTreeSet::new(),
            commands: Vec::new(),
            effects: Effects::default(),
            refusal: None,
            forbidden: None,
            ahead: None,
            cut_off: false,
            promises: BTreeMap::new(),
            doubt_until_us: None,
            last_timeout_us: now.mono_us,
            nonce: 0,
        }
    }

    /// Where this node is in its life.
    pub(super) fn is(&self) -> PeerState {
        match &self.mode {
            Mode::Joining(_) => PeerState::Joining,
            Mode::Ready => PeerState::Ready,
            Mode::Draining(_) => PeerState::Draining,
            Mode::Left => PeerState::Left,
        }
    }

    /// What it says about itself.
    pub(super) fn state(&self) -> State {
        State {
            is: self.is(),
            expires_max_s: self.settings.expires_max_s,
            cut_off: self.cut_off,
            links: self.links().cloned().collect(),
            missing: self.partial.iter().cloned().collect(),
            last_known: self.members.last_known.values().cloned().collect(),
        }
    }

    /// The same for gossip.
    pub(super) fn member(&self) -> Member {
        Member {
            node: self.settings.node.clone(),
            boot: self.settings.boot,
            state: self.is(),
            expires_max_s: self.settings.expires_max_s,
            wire_version_max: self.settings.wire_version_max,
            links: self.links().cloned().collect(),
            room: self.budget.room(),
            suspects: self.whom_it_accuses().map(|(id, place)| (id.clone(), place.epoch)).collect(),
            stays_for: self.stays_for(),
        }
    }

    /// Suspects that are told so.
    pub(super) fn whom_it_accuses(&self) -> impl Iterator<Item = (&NodeId, &Subscriber)> {
        let places = self.peers.iter().filter_map(|(id, peer)| Some((id, peer.subscriber.as_ref()?)));
        places.filter(|(_, place)| place.accused)
    }

    /// Whether it hears most members no longer, or has given them up.
    fn has_lost_most(&self) -> bool {
        self.members.lost_most(self.whom_it_accuses().map(|(id, _)| id.clone()))
    }

    /// Whom it is linked with.
    pub(super) fn links(&self) -> impl Iterator<Item = &NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.link.is_some()).map(|(id, _)| id)
    }

    /// What a peer is: as its link says, else as gossip says; `None` when neither has said anything yet, or not since this
    /// process slept. But one that served when its other connection came up is not unheard of.
    pub(super) fn state_of(&self, id: &NodeId) -> Option<PeerState> {
        let peer = self.peers.get(id);
        let linked = peer.filter(|peer| peer.link.is_some()).map(|peer| peer.state.is);
        let shown = || self.members.shown(id).map(|member| member.state);
        let served = || peer.filter(|peer| peer.bulk).map(|peer| peer.state.is).filter(|state| state.is_in_sync());
        linked.or_else(shown).or_else(served)
    }

    /// Whether a peer is known to be in sync.
    pub(super) fn is_in_sync(&self, id: &NodeId) -> bool {
        self.state_of(id).is_some_and(PeerState::is_in_sync)
    }

    /// Something that others are told about this node changed.
    pub(super) fn announce(&mut self) {
        for link in self.peers.values_mut().filter_map(|peer| peer.link.as_mut()) {
            link.state_due = true;
        }
        self.effects.gossip_changed = true;
    }

    /// Remembers what a peer said of itself and of others.
    pub(super) fn learn(&mut self, peer_id: &NodeId, state: &State, now: Now) {
        let seen_us = now.cluster_us;
        let mut news =
            self.members.remember(LastKnown { node: peer_id.clone(), expires_max_s: state.expires_max_s, seen_us });
        let me = &self.settings.node;
        let hearsay = state.last_known.iter().filter(|known| known.node != *me && known.node != *peer_id);
        // A node that is in sync knows for itself.
        for known in hearsay.filter(|_| matches!(self.mode, Mode::Joining(_))) {
            news |= self.members.hearsay(known.clone());
        }
        self.effects.last_known_changed |= news;
        // It was away when they said good-bye, and would wait for them for ever.
        let parted = state.last_known.iter().filter(|known| self.members.is_known_to_part(known));
        if let Some(link) = self.peers.get_mut(peer_id).and_then(|peer| peer.link.as_mut()) {
            link.forget_due.extend(parted.map(|known| known.node.clone()));
        }
    }

    /// A member parted, or an operator says that it is gone for good.
    pub(super) fn part(&mut self, node: &NodeId, now: Now) -> bool {
        self.unsubscribe(node, true);
        self.partial.remove(node);
        let shown = self.members.view.get(node).map(|member| member.boot);
        let boot = self.peers.get(node).map(|peer| peer.boot).or(shown);
        let news = self.members.part(node, boot, now.cluster_us);
        if news {
            self.effects.last_known_changed = true;
            self.effects.events.push(Event::Parted { peer: node.clone() });
            self.announce();
        }
        news
    }

    /// A member is gone for good; everybody linked is told once.
    pub(super) fn forget(&mut self, node: &NodeId, now: Now) {
        if *node == self.settings.node || !self.part(node, now) {
            return;
        }
        for link in self.peers.values_mut().filter_map(|peer| peer.link.as_mut()) {
            link.forget_due.insert(node.clone());
        }
    }

    /// A member said good-bye here: who has no link to it cannot have heard it, and would wait for it for ever.
    pub(super) fn pass_on_good_bye(&mut self, node: &NodeId) {
        let hears = |peer: &Peer| peer.state.links.contains(node);
        for peer in self.peers.values_mut().filter(|peer| !hears(peer)) {
            if let Some(link) = &mut peer.link {
                link.forget_due.insert(node.clone());
            }
        }
    }

    /// Takes what gossip shows.
    pub(super) fn handle_members(&mut self, view: Vec<Member>, now: Now) {
        let me = self.settings.node.clone();
        let (left, view): (Vec<Member>, Vec<Member>) = view
            .into_iter()
            .filter(|member| member.node != me && !self.members.has_parted(member))
            .partition(|member| member.state == PeerState::Left);
        let left = left.into_iter().filter(|member| self.members.view.contains_key(&member.node));
        for member in left.collect::<Vec<_>>() {
            self.part(&member.node, now);
        }
        let accuses = |member: &&Member| member.suspects.get(&me) == Some(&self.epoch) && !is(Mutant::SuspectUnmoved);
        let accusers: Vec<NodeId> = view.iter().filter(accuses).map(|member| member.node.clone()).collect();
        for member in &view {
            let (node, expires_max_s) = (member.node.clone(), member.expires_max_s);
            let known = LastKnown { node, expires_max_s, seen_us: now.cluster_us };
            self.effects.last_known_changed |= self.clock.is_set() && self.members.remember(known);
        }
        let view = view.into_iter().map(|member| (member.node.clone(), member)).collect();
        for node in self.members.see(view, now.mono_us) {
            self.suspect(&node, "membership dropped it", now.mono_us);
            // Nobody asks its link any more, so its place is kept only in memory of what it had.
            self.trim();
            // Somebody may have heard its good-bye.
            self.announce();
        }
        self.weigh_losses(now.mono_us);
        self.weigh_memory();
        self.give_way_to_who_began_too(now);
        let epoch = self.epoch;
        for accuser in accusers {
            // With the first that it gives way to it starts over, and the others' accusations are of before.
            if self.epoch == epoch {
                self.accused(&accuser, RejoinReason::Suspect, now);
            }
        }
    }

    /// A node that lost most members may miss what they go on with: until it has caught up it says so, and for a while it
    /// denies nothing.
    pub(super) fn weigh_losses(&mut self, now_us: u64) {
        let lost = self.has_lost_most();
        if lost && !self.cut_off && !matches!(self.mode, Mode::Joining(_)) {
            self.cut_off = true;
            self.doubt_until_us = Some(now_us + self.settings.doubt_us).filter(|_| !is(Mutant::NothingDoubted));
            self.announce();
        } else if !lost && self.cut_off && matches!(self.mode, Mode::Ready) && self.schedule.running_with().is_none() {
            // All were silent for a moment and no link broke: nobody rejoins, so nothing else would ask what was missed.
            let asked = self.peers.iter().find(|(id, peer)| peer.link.is_some() && peer.bulk && self.is_in_sync(id));
            if let Some(peer) = asked.map(|(id, _)| id.clone()) {
                self.schedule.repair(&peer);
            }
        }
    }

    /// What others went on with is here now.
    pub(super) fn caught_up(&mut self) {
        if self.cut_off && !self.has_lost_most() {
            self.cut_off = false;
            self.doubt_until_us = None;
            self.announce();
        }
    }

    /// The process slept for `gap_us` or since its last timeout: what it holds may be old, and nobody waited for it.
    pub(super) fn handle_slept(&mut self, gap_us: u64, now: Now) {
        let gap_us = gap_us.max(now.mono_us.saturating_sub(self.last_timeout_us));
        self.last_timeout_us = now.mono_us;
        if is(Mutant::SleepUnnoticed) {
            return;
        }
        // Nobody gives up a node that has been silent for less than this, so nobody began to serve without it.
        if gap_us >= self.settings.ack_timeout_us {
            self.members.view_is_old = !is(Mutant::OldViewTrusted);
            self.rejoin_unless_alone("it slept", gap_us, now);
        } else {
            self.rejoin("it slept", now);
        }
    }

    /// What time brings.
    pub(super) fn handle_timeout(&mut self, now: Now) {
        let gap_us = now.mono_us.saturating_sub(self.last_timeout_us);
        if gap_us > self.settings.ack_timeout_us * SLEPT_ACK_TIMEOUTS {
            self.handle_slept(gap_us, now);
        }
        self.last_timeout_us = now.mono_us;
        self.find_suspects(now.mono_us);
        self.find_late_disks(now.mono_us);
        self.weigh_losses(now.mono_us);
        self.keep_promises(now.mono_us);
        self.ping_the_quiet(now.mono_us);
        let lasts = Some(self.settings.seed_fallback_us);
        self.refusal.take_if(|(_, at_us)| lasts.is_some_and(|lasts| now.mono_us.saturating_sub(*at_us) > lasts));
        if !matches!(self.mode, Mode::Joining(_)) {
            self.raise_floor(now);
        }
        self.plan_exchanges(now);
    }

    fn ping_the_quiet(&mut self, now_us: u64) {
        for link in self.peers.values_mut().filter_map(|peer| peer.link.as_mut()) {
            if now_us.saturating_sub(link.last_sent_us) >= PING_EVERY_US && link.ping_due.is_none() {
                self.nonce += 1;
                link.ping_due = Some(self.nonce);
            }
        }
    }

    /// Forgetting needs nobody's consent: the floor follows cluster time by the longest lifetime anybody grants. A node
    /// that is not in sync does not yet know the longest, and raises its floor only to that of a donor.
    fn raise_floor(&mut self, now: Now) {
        self.location.set_floor(floor_us(now.cluster_us, self.horizon_us(now)));
    }

    /// How long entries are remembered, µs.
    pub(super) fn horizon_us(&self, now: Now) -> u64 {
        let ahead_s = self.settings.clock_ahead_max_s;
        let linked = self.peers.values().filter(|peer| peer.link.is_some()).map(|peer| peer.state.expires_max_s);
        let shown = self.members.view.values().map(|member| member.expires_max_s);
        // However long it was silent: a member that did not part may serve where this node hears nothing of it, and what
        // it granted a moment ago comes with it when they meet again.
        let remembered = self.members.last_known.values().filter(|known| {
            let until_us = known.seen_us.saturating_add(horizon_us(known.expires_max_s, ahead_s));
            until_us >= now.cluster_us || !is(Mutant::SilentLifetimesForgotten)
        });
        let remembered = remembered.map(|known| known.expires_max_s);
        if is(Mutant::HorizonOfItsOwn) {
            return horizon_us(self.settings.expires_max_s, ahead_s);
        }
        let longest = linked.chain(shown).chain(remembered).max().unwrap_or(0);
        let granted_max_s = longest.max(self.settings.expires_max_s);
        self.location.horizon_us(granted_max_s, ahead_s, now.cluster_us)
    }

    /// When [`Self::handle_timeout`] is due at the latest, monotonic µs.
    pub(super) fn next_timeout_us(&self) -> u64 {
        let often = self.last_timeout_us + self.settings.ack_timeout_us / 8;
        let due = self.next_suspect_us().into_iter().chain(self.next_late_us()).min();
        due.map_or(often, |at_us| at_us.min(often))
    }

    /// Marks sleeping links that have something to send; their writers are woken by the caller.
    pub(super) fn wake(&mut self) {
        let head = self.outbox.head();
        let of_disks = self.peers.values().filter_map(|peer| peer.link.as_ref()).any(Link::has_disks_due);
        let of_disks = of_disks && self.version() >= SAVED_SINCE;
        for (id, peer) in &mut self.peers {
            let due = peer.has_due(head, of_disks);
            let Some(link) = peer.link.as_mut().filter(|link| due && !link.awake) else { continue };
            link.awake = true;
            self.effects.wake.push((id.clone(), aorta_proto::frame::Class::Live));
        }
    }
}
