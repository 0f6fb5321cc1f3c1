//! Nobody is ready: who may start the cluster from what the nodes have on their disks, and what time it is then.
//!
//! One of the nodes that see each other, the smallest id, merges the tables of all and becomes ready; the others then join
//! it like any ready node. No node is configured as special.
//!
//! Nobody here can know that nobody serves elsewhere, so those who see each other wait for all whom they know of, by their
//! seeds or from their disks, until each is linked or was silent for long enough. Else a few nodes with empty disks that
//! are restarted together would start a cluster of their own, by a wall clock, beside the one that serves.

use aorta_proto::NodeId;
use aorta_proto::frame::PeerState;
use aorta_proto::mutant::{Mutant, is};

use super::effects::Purpose;
use super::live::Live;
use super::peer::Peer;
use super::readiness::{Joining, Step, names};
use crate::clock::Now;

impl<R> Live<R> {
    pub(super) fn cold_step(&self, joining: &Joining, now: Now) -> Step {
        if !self.settings.cluster && self.members.last_known.is_empty() {
            return Step::Serve { cold: true };
        }
        if let Some(why) = &self.forbidden {
            return Step::Wait(format!("may not start the cluster: {why}"));
        }
        if let Some((why, _)) = &self.refusal {
            return Step::Wait(format!("may not start the cluster: refused: {why}"));
        }
        let group: Vec<(&NodeId, &Peer)> = self.group().collect();
        let present = group.len() + 1;
        if present < self.settings.bootstrap_min_nodes {
            let min = self.settings.bootstrap_min_nodes;
            return Step::Wait(format!("no node is ready; {present} of at least {min} nodes see each other"));
        }
        let gathers_since_us = gathers_since_us(joining, &group);
        if let Some(id) = self.still_awaited(gathers_since_us, now.mono_us) {
            return Step::Wait(format!("no node is ready; waits for last-known member {id}"));
        }
        let gathered_for_us = now.mono_us.saturating_sub(gathers_since_us);
        let seeds_may_answer = !joining.served_before && gathered_for_us < self.settings.seed_fallback_us;
        if let Some(seed) = self.seeds_unreached.first().filter(|_| seeds_may_answer) {
            return Step::Wait(format!("no node is ready; waits for seed {seed}"));
        }
        if let Some((one, two)) = self.strangers(&group) {
            return Step::Wait(format!("no node is ready; {one} and {two} do not see each other"));
        }
        if let Some((id, _)) = group.iter().find(|(id, _)| **id < self.settings.node) {
            return Step::Wait(format!("no node is ready; {id} is to start the cluster"));
        }
        // What one of them said before this node slept, or on a link that is lost and seems to be there, is no news: it may
        // serve meanwhile. What answers this epoch's Subscribe comes after all that it said before.
        if let Some((id, _)) = group.iter().find(|(_, peer)| peer.intake.epoch != self.epoch) {
            return Step::Wait(format!("no node is ready; waits to hear from {id}"));
        }
        if !self.clock.is_set() && self.start.clock_only_from_peers && self.guesses(now).is_empty() {
            return Step::Wait("its disk was full, so only another node can say what time it is".into());
        }
        self.gather(joining, &group, now)
    }

    /// Merges the table of each node of the group in turn, then serves.
    fn gather(&self, joining: &Joining, group: &[(&NodeId, &Peer)], now: Now) -> Step {
        if is(Mutant::ColdStartGathersNothing) {
            return Step::Serve { cold: true };
        }
        if let Some(id) = self.schedule.running_with() {
            return Step::Wait(format!("starts the cluster: exchanges with {id}"));
        }
        if now.mono_us < joining.retry_us {
            return Step::Wait("starts the cluster: an exchange broke off; the next one is near".into());
        }
        let mut left = group.iter().filter(|(id, _)| !joining.gathered.contains(*id));
        match left.find(|(_, peer)| peer.bulk) {
            Some((id, _)) => Step::Exchange((*id).clone(), Purpose::ColdStart),
            None if group.iter().all(|(id, _)| joining.gathered.contains(*id)) => Step::Serve { cold: true },
            None => {
                let left = group.iter().map(|(id, _)| *id).filter(|id| !joining.gathered.contains(*id));
                Step::Wait(format!("starts the cluster: waits for the bulk connections of {}", names(left)))
            }
        }
    }

    /// Linked nodes that are not in sync either.
    fn group(&self) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.peers.iter().filter(|(_, peer)| peer.link.is_some() && peer.state.is == PeerState::Joining)
    }

    /// A last-known member that is neither linked nor has been silent for long enough.
    fn still_awaited(&self, since_us: u64, now_us: u64) -> Option<&NodeId> {
        let for_us = now_us.saturating_sub(since_us);
        let silent_us = |id: &NodeId| self.members.silent_us(id, since_us, now_us).min(for_us);
        let awaited = |id: &&NodeId| !self.is_linked(id) && silent_us(id) < self.settings.seed_fallback_us;
        self.members.last_known.keys().find(awaited)
    }

    /// Two of the group that are not linked with each other.
    fn strangers<'a>(&'a self, group: &[(&'a NodeId, &'a Peer)]) -> Option<(&'a NodeId, &'a NodeId)> {
        for (one, peer) in group {
            let others = group.iter().map(|(id, _)| *id).filter(|id| id != one).chain([&self.settings.node]);
            for two in others {
                if !peer.state.links.contains(two) {
                    return Some((one, two));
                }
            }
        }
        None
    }

    /// What the disks of this node and of its group say the time is, µs.
    fn guesses(&self, now: Now) -> Vec<u64> {
        let since_us = now.mono_us.saturating_sub(self.started_us);
        let own = self.start.clock_guess_us.filter(|_| !self.start.clock_only_from_peers);
        let own = own.map(|guess_us| guess_us + since_us);
        let others = self.group().filter_map(|(_, peer)| peer.clock_guess_us);
        let others = others.map(|(guess_us, heard_us)| guess_us.saturating_add(now.mono_us.saturating_sub(heard_us)));
        let mut guesses: Vec<u64> = own.into_iter().chain(others).collect();
        guesses.sort_unstable();
        guesses
    }

    /// Sets the clock of a starting cluster, if it is `due` and not set yet: the median of what the disks say (of two the
    /// lower: a contact rather rings too long than too short), never below a time that was used before; nothing on any
    /// disk: the wall clock.
    pub(super) fn set_start_clock_if(&mut self, due: bool, now: Now) {
        if !due || self.clock.is_set() {
            return;
        }
        let guesses = self.guesses(now);
        let median = guesses.get(guesses.len().saturating_sub(1) / 2).copied();
        let wall_us = self.start.wall_us + now.mono_us.saturating_sub(self.started_us);
        let wall = Some(wall_us).filter(|_| !self.start.clock_only_from_peers);
        let Some(time_us) = median.or(wall) else { return };
        let ceilings = self.group().filter_map(|(_, peer)| peer.clock_ceiling_us).chain(self.start.clock_ceiling_us);
        let ceiling_us = ceilings.max().unwrap_or(0);
        self.set_clock(if is(Mutant::ColdStartBelowCeiling) { time_us } else { time_us.max(ceiling_us) });
    }
}

/// Since when those who start together do: the latest link among them, monotonic µs. Who comes to a network that was down
/// for long meets one of the others a moment before the next. Not so for nodes that served before and hold everything.
fn gathers_since_us(joining: &Joining, group: &[(&NodeId, &Peer)]) -> u64 {
    let met_us = group.iter().filter_map(|(_, peer)| peer.link.as_ref().map(|_| peer.linked_us)).max();
    met_us.filter(|_| !joining.served_before).map_or(joining.since_us, |met_us| met_us.max(joining.since_us))
}
