//! Who gives way. A node that is out of step answers 503 until it has caught up, if others serve meanwhile. What it knows of
//! the others is late, by as much as whatever keeps them apart: two that accuse each other would both give way, or three in a
//! circle, and nobody serve. So one order holds, and whoever goes against it does so on a promise.
//!
//! * A node gives way at once to an accuser with a smaller id; not to one that lost most members while it did not itself.
//!   The smallest of those that serve so gives way to nobody.
//! * It gives way to any other accuser that has promised to stay for it, in gossip, for [`STAYS_US`]: a node whose accusation
//!   stood for [`STANDS_US`], or is of one that lost most members, so that it is not the one that is to go.
//! * Otherwise it stays, an open suspect: its accuser's answers are short until it has acked all, or gives way.

use std::collections::BTreeMap;

use aorta_proto::NodeId;
use aorta_proto::frame::{PeerState, RejoinReason};
use aorta_proto::mutant::{Mutant, is};

use super::effects::Event;
use super::live::Live;
use super::readiness::{Joining, Mode};
use crate::clock::Now;

/// An accuser that hears nothing of the kind from the accused for so long is not accused by it, µs: with gossip's way.
const STANDS_US: u64 = 500_000;

/// A promise holds for so long, µs. Gossip shows nothing that is older than half of it.
const STAYS_US: u64 = 4_000_000;

/// This node stays for another one, which may give way to it.
#[derive(Debug)]
pub(super) struct Promise {
    /// The epoch of the other as a subscriber that this is about; with the next it has given way, or stays by itself.
    pub(super) epoch: u64,
    /// It is over then, monotonic µs.
    until_us: u64,
}

impl<R> Live<R> {
    /// Another node says that this one did not keep up.
    pub(super) fn accused(&mut self, accuser: &NodeId, reason: RejoinReason, now: Now) {
        let why = match reason {
            RejoinReason::Suspect => "another node says that this one did not keep up",
            RejoinReason::Overflow => "it fell behind what another node keeps for it",
        };
        // What is no longer kept for it comes by an exchange only; the rest comes, late, and makes it trusted again.
        let has_gap = reason == RejoinReason::Overflow || matches!(self.mode, Mode::Joining(_));
        let gives_way = self.gives_way_to(accuser);
        if gives_way || has_gap {
            self.start_over(why, Some(accuser), gives_way, now);
        } else if let Some(link) = self.peers.get_mut(accuser).and_then(|peer| peer.link.as_mut()) {
            // It may have all by now, and the accuser have nothing to say that would be acked.
            link.ack_due = true;
        }
    }

    /// Changes of another node are missing here.
    pub(super) fn has_gap(&mut self, why: &str, of: &NodeId, now: Now) {
        let gives_way = self.gives_way_to(of);
        self.start_over(why, Some(of), gives_way, now);
    }

    /// Starts over: a new epoch on every link, and, if others can serve meanwhile, 503 until this node is in sync again.
    pub(super) fn rejoin(&mut self, why: &str, now: Now) {
        self.start_over(why, None, self.somebody_serves(), now);
    }

    /// The same of a node that others may have given up meanwhile: what it knows of them is from before. Those that were
    /// joining may have started the cluster without it, and answered in full. So may members that it did not hear, for a
    /// node that is silent for so long is not waited for.
    pub(super) fn rejoin_unless_alone(&mut self, why: &str, silent_us: u64, now: Now) {
        let joining_may = !is(Mutant::OldStatesTrusted);
        let may_serve = |peer: &super::peer::Peer| match peer.state.is {
            PeerState::Ready => true,
            PeerState::Joining => joining_may,
            PeerState::Draining | PeerState::Left => false,
        };
        let others_may_serve = self.peers.values().any(|peer| peer.link.is_some() && may_serve(peer));
        if let Mode::Joining(joining) = &mut self.mode {
            // Others were not silent while it slept; it heard nobody.
            joining.since_us = now.mono_us;
        }
        let unheard = self.members.last_known.keys().any(|id| !self.is_linked(id));
        let others_began = unheard && silent_us >= self.settings.seed_fallback_us && joining_may;
        self.start_over(why, None, others_may_serve || others_began, now);
    }

    fn start_over(&mut self, why: &str, accuser: Option<&NodeId>, others_can_serve: bool, now: Now) {
        self.epoch += u64::from(!is(Mutant::RejoinInOldEpoch));
        for peer in self.peers.values_mut() {
            peer.intake.marked = false;
            if let Some(link) = &mut peer.link {
                link.subscribe_due = true;
            }
        }
        match &mut self.mode {
            Mode::Joining(joining) => (joining.exchanged_at, joining.epoch_since_us) = (None, now.mono_us),
            Mode::Ready if others_can_serve => {
                self.shorten_for_the_unawaited();
                self.mode = Mode::Joining(Joining::again(why, now.mono_us));
                self.schedule.cancel();
                self.effects.events.push(Event::Fenced { why: why.to_owned() });
                self.announce();
            }
            _ => {
                let linked: Vec<NodeId> = self.links().cloned().collect();
                for id in linked.iter().filter(|id| accuser.is_none_or(|accuser| accuser == *id)) {
                    self.schedule.repair(id);
                }
            }
        }
    }

    fn somebody_serves(&self) -> bool {
        self.peers.values().any(|peer| peer.link.is_some() && peer.state.is == PeerState::Ready)
    }

    fn gives_way_to(&self, accuser: &NodeId) -> bool {
        if is(Mutant::GivesWayToAnybody) {
            return self.somebody_serves() && self.is_in_sync(accuser);
        }
        if !self.somebody_serves() || !self.says_everywhere_that_it_serves(accuser) {
            return false;
        }
        let promised = self
            .members
            .shown(accuser)
            .is_some_and(|shown| shown.stays_for.get(&self.settings.node) == Some(&self.epoch));
        let is_the_one_to_stay = *accuser < self.settings.node && (self.cut_off || !self.is_cut_off(accuser));
        promised || (is_the_one_to_stay && self.promises.is_empty())
    }

    /// An accuser that is out of step itself is no judge, and of its link and gossip one may show it earlier.
    fn says_everywhere_that_it_serves(&self, id: &NodeId) -> bool {
        self.is_in_sync(id) && self.members.shown(id).is_none_or(|shown| shown.state.is_in_sync())
    }

    /// Whether a node has lost most members, as it says on its link, or as whom it accuses shows.
    fn is_cut_off(&self, id: &NodeId) -> bool {
        let says_so = self.peers.get(id).is_some_and(|peer| peer.state.cut_off);
        let accuses = self.members.view.get(id).map_or(0, |member| member.suspects.len());
        says_so || self.members.are_most(accuses)
    }

    /// Promises to stay for those that are to give way to this node, against the order of ids. What was promised is kept, also
    /// when it is accused itself; but for a process that slept.
    pub(super) fn keep_promises(&mut self, now_us: u64) {
        let said = self.stays_for();
        let before = std::mem::take(&mut self.promises);
        if matches!(self.mode, Mode::Ready) {
            let is_kept = |(id, promise): &(NodeId, Promise)| now_us < promise.until_us && !self.is_back(id, promise);
            let kept: BTreeMap<NodeId, Promise> = before.into_iter().filter(is_kept).collect();
            let due = self.promises_due(&kept, now_us);
            self.promises = kept.into_iter().chain(due).collect();
        }
        self.effects.gossip_changed |= said != self.stays_for();
    }

    /// For whom it stays, in which epoch of theirs, as gossip tells it.
    pub(super) fn stays_for(&self) -> BTreeMap<NodeId, u64> {
        self.promises.iter().map(|(id, promise)| (id.clone(), promise.epoch)).collect()
    }

    /// Whether a node that was to give way serves again.
    fn is_back(&self, id: &NodeId, promise: &Promise) -> bool {
        let place = self.peers.get(id).and_then(|peer| peer.subscriber.as_ref());
        place.is_some_and(|place| place.epoch > promise.epoch) && self.says_everywhere_that_it_serves(id)
    }

    fn promises_due(&self, promises: &BTreeMap<NodeId, Promise>, now_us: u64) -> Vec<(NodeId, Promise)> {
        if self.cut_off {
            return Vec::new();
        }
        let smaller = self.whom_it_accuses().take_while(|(id, _)| **id < self.settings.node);
        let due = smaller.filter_map(|(id, place)| {
            let stands = now_us.saturating_sub(place.suspected_us) >= STANDS_US || self.is_cut_off(id);
            let is_new = promises.get(id).is_none_or(|promise| promise.epoch != place.epoch);
            let promise = Promise { epoch: place.epoch, until_us: now_us + STAYS_US };
            (stands && is_new && self.says_everywhere_that_it_serves(id)).then(|| (id.clone(), promise))
        });
        due.collect()
    }
}
