//! When this node may serve. Ready = linked to every member that is in sync, Mark received on each link, and one
//! exchange that began after the last Mark is finished. Equality of digests is not asked for: changes are always under
//! way, and what changed since arrives live and is awaited. So an exchange counts only as long as all who serve are heard
//! live: of one that was not linked and then ceases to serve nobody asks a link any more, but what it published is answered.

use std::collections::BTreeSet;

use aorta_proto::NodeId;
use aorta_proto::frame::PeerState;
use aorta_proto::mutant::{Mutant, is};

use super::ack_set::ANNOUNCED_US;
use super::drain::Draining;
use super::effects::{Event, Purpose};
use super::live::Live;
use crate::clock::Now;
use crate::location::Room;

/// How long the Mark of a linked node that is itself not in sync is waited for in each epoch, µs. It answers no REGISTER,
/// so it can owe at most what it published before it stopped; unless that it began to serve is still on its way here.
const JOINING_MARK_WAIT_US: u64 = 1_000_000;

/// Where a node is in its life, with what it needs there.
#[derive(Debug)]
pub(super) enum Mode {
    Joining(Joining),
    Ready,
    Draining(Draining),
    Left,
}

/// What a node that is not in sync has done so far.
#[derive(Debug)]
pub(super) struct Joining {
    /// Why it is not in sync.
    pub(super) why: String,
    pub(super) since_us: u64,
    /// When it last subscribed anew everywhere, monotonic µs.
    pub(super) epoch_since_us: u64,
    /// It served until then, and has what it held.
    pub(super) served_before: bool,
    /// `marks` when the last finished exchange with a node in sync began.
    pub(super) exchanged_at: Option<u64>,
    /// Since that exchange began a node in sync was not linked, or owed its Mark: what it published may be missing here,
    /// though it is in sync no more.
    pub(super) missed_somebody: bool,
    /// Donors that broke off, to be tried last.
    pub(super) tried: BTreeSet<NodeId>,
    /// Cold start: whose table has been merged.
    pub(super) gathered: BTreeSet<NodeId>,
    /// The next exchange begins no earlier, monotonic µs.
    pub(super) retry_us: u64,
    /// Since when (monotonic µs) it lacks nothing, and lets another joiner begin first.
    pub(super) yields_since_us: Option<u64>,
}

impl Joining {
    /// A process that starts.
    pub(super) fn starting(now_us: u64) -> Self {
        Self { served_before: false, ..Self::again("starting", now_us) }
    }

    /// A node that served, and is out of step.
    pub(super) fn again(why: &str, now_us: u64) -> Self {
        Self {
            why: why.to_owned(),
            since_us: now_us,
            epoch_since_us: now_us,
            served_before: true,
            exchanged_at: None,
            missed_somebody: false,
            tried: BTreeSet::new(),
            gathered: BTreeSet::new(),
            retry_us: now_us,
            yields_since_us: None,
        }
    }
}

/// What a node that is not in sync does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing; why.
    Wait(String),
    /// An exchange.
    Exchange(NodeId, Purpose),
    /// Nothing until this joiner, with which it is not linked, serves, or could have been heard to.
    Yield(NodeId),
    /// It serves. `cold`: it starts the cluster.
    Serve { cold: bool },
}

/// What SIP may be told. One byte, so that each request reads it without a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    /// REGISTER, INVITE and the rest are served; otherwise 503.
    pub requests: bool,
    /// OPTIONS get 200; otherwise 503, so that probes see it.
    pub options: bool,
    /// An AoR that is unknown here is unknown: 404. Otherwise another node may know it: 503.
    pub denies_unknown: bool,
    /// Which AoRs every node's memory has room for; others get 403.
    pub room: Room,
}

/// Above the flags in the byte of [`Serving`].
const ROOM_SHIFT: u32 = 3;

impl Serving {
    pub(super) fn to_bits(self) -> u8 {
        let flags = u8::from(self.requests) | u8::from(self.options) << 1 | u8::from(self.denies_unknown) << 2;
        flags | (self.room as u8) << ROOM_SHIFT
    }

    pub(super) fn from_bits(bits: u8) -> Self {
        let room = Room::ALL.get(usize::from(bits >> ROOM_SHIFT)).copied().unwrap_or_default();
        Self { requests: bits & 1 != 0, options: bits & 2 != 0, denies_unknown: bits & 4 != 0, room }
    }
}

/// The answer of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Requests are served and OPTIONS get 200.
    pub ready: bool,
    /// Why not, or what is still missing though it is ready ("partial").
    pub reason: Option<String>,
}

impl<R> Live<R> {
    pub(super) fn serving(&self, now_us: u64) -> Serving {
        let doubt = self.doubt_until_us.is_some_and(|until_us| now_us < until_us);
        let (denies_unknown, room) = (!doubt && self.partial.is_empty(), self.room);
        match &self.mode {
            Mode::Joining(_) | Mode::Left => Serving { requests: false, options: false, denies_unknown: false, room },
            Mode::Ready => Serving { requests: true, options: true, denies_unknown, room },
            Mode::Draining(drain) => Serving { requests: drain.in_grace(), options: false, denies_unknown, room },
        }
    }

    pub(super) fn readiness(&self, now: Now) -> Readiness {
        let ready = matches!(self.mode, Mode::Ready);
        let reason = match &self.mode {
            Mode::Joining(joining) => {
                let waits = match self.step(joining, now) {
                    Step::Wait(why) => why,
                    Step::Exchange(peer, _) => format!("exchanges with {peer}"),
                    Step::Yield(id) => format!("lets {id} begin first, which it does not hear"),
                    Step::Serve { .. } => "about to serve".to_owned(),
                };
                Some(format!("{}: {waits}", joining.why))
            }
            Mode::Ready if !self.partial.is_empty() => Some(format!("partial: without {}", names(&self.partial))),
            Mode::Ready if self.serving(now.mono_us).denies_unknown => {
                let refused = self.refusal.as_ref().map(|(why, _)| format!("refused: {why}"));
                refused.or_else(|| self.late_disks_reason())
            }
            Mode::Ready => Some(format!("in doubt: lost {}", names(&self.members.lost))),
            Mode::Draining(_) => Some("draining".to_owned()),
            Mode::Left => Some("left".to_owned()),
        };
        let memory = self.memory_reason().filter(|_| ready);
        let reason = [reason, memory].into_iter().flatten().reduce(|one, two| format!("{one}; {two}"));
        Readiness { ready, reason }
    }

    /// Goes on until there is nothing to do but wait.
    pub(super) fn advance(&mut self, now: Now) {
        let misses_somebody = self.misses_somebody();
        if let Mode::Joining(joining) = &mut self.mode {
            joining.missed_somebody |= misses_somebody;
        }
        let Mode::Joining(joining) = &self.mode else { return };
        let step = self.step(joining, now);
        if let Mode::Joining(joining) = &mut self.mode {
            let yields = matches!(step, Step::Yield(_));
            joining.yields_since_us = yields.then(|| joining.yields_since_us.unwrap_or(now.mono_us));
        }
        match step {
            Step::Wait(_) | Step::Yield(_) => {}
            Step::Exchange(peer, purpose) => {
                self.set_start_clock_if(purpose == Purpose::ColdStart, now);
                if let Mode::Joining(joining) = &mut self.mode {
                    joining.missed_somebody = misses_somebody;
                }
                self.begin_exchange(&peer, purpose);
            }
            Step::Serve { cold } => {
                self.set_start_clock_if(cold, now);
                self.serve(cold, now);
            }
        }
    }

    fn step(&self, joining: &Joining, now: Now) -> Step {
        if let Some(why) = &self.ahead {
            return Step::Wait(why.clone());
        }
        let in_sync = self.in_sync();
        if in_sync.is_empty() {
            return self.cold_step(joining, now);
        }
        if let Some(id) = self.schedule.running_with() {
            return Step::Wait(format!("exchanges with {id}"));
        }
        if now.mono_us < joining.retry_us {
            return Step::Wait("an exchange broke off; the next one is near".into());
        }
        if let Some(id) = self.unmarked(joining, now.mono_us) {
            return Step::Wait(format!("waits for the Mark of {id}"));
        }
        let unlinked: Vec<&NodeId> =
            in_sync.into_iter().filter(|id| !self.is_linked(id) && !is(Mutant::ReadyWithoutLinks)).collect();
        let exchanged = joining.exchanged_at == Some(self.marks) || is(Mutant::ReadyBeforeExchange);
        let lacks_nothing = exchanged && !joining.missed_somebody;
        if lacks_nothing && unlinked.is_empty() && self.clock.is_set() {
            if let Some(id) = self.member_unheard_of(now.mono_us) {
                return Step::Wait(format!("waits to hear of {id}"));
            }
            return match self.begins_first(joining, now.mono_us) {
                Some(first) => Step::Yield(first.clone()),
                None => Step::Serve { cold: false },
            };
        }
        if lacks_nothing || (exchanged && !unlinked.is_empty()) {
            let name = unlinked.first().map_or("a clock", |id| id.as_str());
            return Step::Wait(format!("waits for a link to {name}"));
        }
        match self.donor(joining) {
            Some(donor) => Step::Exchange(donor, Purpose::Join),
            None => Step::Wait("waits for a link to a node that is in sync".into()),
        }
    }

    /// The nodes that serve, as far as this one can know: those that say so, and those that a node which serves is linked
    /// with and that have not been heard of here yet. Of these gossip will tell in a moment; to serve before that would be
    /// to answer for a change that one of them does not hold.
    fn in_sync(&self) -> BTreeSet<&NodeId> {
        let known = self.peers.keys().chain(self.members.view.keys()).filter(|id| self.is_in_sync(id));
        let serving = self.peers.iter().filter(|(id, peer)| peer.link.is_some() && self.is_in_sync(id));
        let named = serving.flat_map(|(_, peer)| &peer.state.links);
        let unheard = named.filter(|id| **id != self.settings.node && self.state_of(id).is_none());
        known.chain(unheard).collect()
    }

    /// A member of which this process has heard nothing, while gossip may still be about to tell: it comes with links. One that
    /// serves may have lost its link to the donor, so that not even that one names it.
    fn member_unheard_of(&self, now_us: u64) -> Option<&NodeId> {
        let linked_us = self.peers.values().filter(|peer| peer.link.is_some()).map(|peer| peer.linked_us).min()?;
        let may_be_told = now_us.saturating_sub(linked_us) < ANNOUNCED_US;
        let unheard = |id: &NodeId| self.state_of(id).is_none() && !self.members.was_alive(id);
        self.members.last_known.keys().find(|id| may_be_told && unheard(id))
    }

    pub(super) fn is_linked(&self, id: &NodeId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.link.is_some())
    }

    /// A linked node whose Mark of this epoch is still to come.
    fn unmarked(&self, joining: &Joining, now_us: u64) -> Option<&NodeId> {
        let owes = |(_, peer): &(&NodeId, &super::peer::Peer)| {
            let waited_us = now_us.saturating_sub(peer.linked_us.max(joining.epoch_since_us));
            peer.link.is_some()
                && !peer.intake.marked
                && !is(Mutant::ReadyWithoutMark)
                && (peer.state.is.is_in_sync() || waited_us < JOINING_MARK_WAIT_US)
        };
        self.peers.iter().find(owes).map(|(id, _)| id)
    }

    /// Whether what some node in sync publishes does not come here.
    fn misses_somebody(&self) -> bool {
        let forgiven = is(Mutant::ReadyOnOldExchange)
            || is(Mutant::ReadyBeforeExchange)
            || is(Mutant::ReadyWithoutMark)
            || is(Mutant::ReadyWithoutLinks);
        matches!(self.mode, Mode::Joining(_)) && !forgiven && !self.in_sync().into_iter().all(|id| self.hears(id))
    }

    /// Whether what a node publishes comes here: a link that it lost may seem to be there for another two seconds. On each
    /// link a Mark comes after its sender's Subscribe, so that what is published here goes there as well.
    fn hears(&self, id: &NodeId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.link.is_some() && peer.intake.marked)
    }

    /// Of two joiners that do not hear each other the one with the smaller id begins, and the other finds it in sync and
    /// waits for their link. Both at once would serve without one another, and each of their answers be short, for as long as
    /// they have no link: two that lost each other and both gave way. One that stays a joiner keeps nobody from serving.
    fn begins_first(&self, joining: &Joining, now_us: u64) -> Option<&NodeId> {
        let since_us = joining.yields_since_us.unwrap_or(now_us);
        if now_us.saturating_sub(since_us) >= ANNOUNCED_US {
            return None;
        }
        self.unheard_joiners().next()
    }

    /// Joiners with smaller ids whose changes do not come here.
    fn unheard_joiners(&self) -> impl Iterator<Item = &NodeId> {
        let joins = |id: &&NodeId| self.state_of(id) == Some(PeerState::Joining) && !self.hears(id);
        self.members.view.keys().filter(|id| **id < self.settings.node).filter(joins)
    }

    /// One that this node did not wait for any longer began a moment before or after it, and neither had heard of the other.
    pub(super) fn give_way_to_who_began_too(&mut self, now: Now) {
        if self.began_beside.is_empty() {
            return;
        }
        let began = |id: &&NodeId| self.state_of(id) == Some(PeerState::Ready) && !self.is_linked(id);
        if let Some(id) = self.began_beside.iter().find(began).cloned() {
            self.began_beside.clear();
            self.rejoin(&format!("it began at the same time as {id}, which it does not hear"), now);
        } else if now.mono_us.saturating_sub(self.served_since_us) > 2 * ANNOUNCED_US {
            self.began_beside.clear();
        }
    }

    /// The next donor: in sync, linked on both connections; first those that did not break off and stay, and among them
    /// the one after this node's own name, so that several joiners spread over several donors.
    fn donor(&self, joining: &Joining) -> Option<NodeId> {
        let me = &self.settings.node;
        let donors = self.peers.iter().filter(|(id, peer)| {
            peer.bulk && self.is_linked(id) && (self.is_in_sync(id) || is(Mutant::DonorOutOfSync))
        });
        let order = |(id, peer): &(&NodeId, &super::peer::Peer)| {
            (joining.tried.contains(*id), peer.state.is == PeerState::Draining, *id < me, (*id).clone())
        };
        donors.min_by_key(order).map(|(id, _)| id.clone())
    }

    /// From here on requests are served.
    pub(super) fn serve(&mut self, cold: bool, now: Now) {
        if cold && !is(Mutant::ColdStartDenies) {
            let missing = self.members.last_known.keys().filter(|id| !self.is_linked(id));
            self.partial = missing.cloned().collect();
        }
        self.began_beside = self.unheard_joiners().cloned().collect();
        self.mode = Mode::Ready;
        self.served_since_us = now.mono_us;
        self.await_all_linked();
        self.caught_up();
        self.schedule.reset(now.mono_us);
        // What only this node held, from its disk or from the time in which it was cut off, has one donor of it by now.
        let linked: Vec<NodeId> = self.links().cloned().collect();
        for id in self.partial.iter().chain(&linked) {
            self.schedule.repair(id);
        }
        self.effects.events.push(Event::Ready);
        self.announce();
    }

    /// An operator says that this node is to serve with what it has.
    pub(super) fn force_ready(&mut self, now: Now) {
        if !matches!(self.mode, Mode::Joining(_)) {
            return;
        }
        self.ahead = None;
        self.set_start_clock_if(true, now);
        if !self.clock.is_set() {
            self.set_clock(self.start.wall_us + now.mono_us.saturating_sub(self.started_us));
        }
        self.schedule.cancel();
        self.serve(true, now);
    }
}

pub(super) fn names<'a>(ids: impl IntoIterator<Item = &'a NodeId>) -> String {
    ids.into_iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ")
}
