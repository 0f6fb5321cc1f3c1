//! Which exchange is made when: one at a time as its opener. To become ready or to leave, at once after something went
//! amiss, and for the rest on a timer, with each linked peer in turn. An idle cluster exchanges only roots.

use std::collections::BTreeSet;

use aorta_proto::NodeId;
use aorta_proto::frame::PeerState;
use aorta_proto::mutant::{Mutant, is};

use super::bulk::{Command, Ended};
use super::effects::{Event, Purpose};
use super::live::Live;
use super::readiness::Mode;
use crate::clock::Now;

/// While two members are not linked with each other, everybody compares with everybody linked this often, µs: changes
/// are not relayed.
const CUT_INTERVAL_US: u64 = 1_000_000;

/// After an exchange broke off the next one begins no earlier, µs.
const RETRY_US: u64 = 100_000;

/// What is due, and what is under way.
#[derive(Debug)]
pub(super) struct Schedule {
    running: Option<Running>,
    last_id: u64,
    /// Peers with whom something may be amiss.
    amiss: BTreeSet<NodeId>,
    cancelled: bool,
    interval_us: u64,
    next_routine_us: u64,
    next_cut_look_us: u64,
    retry_us: u64,
    last_peer: Option<NodeId>,
}

#[derive(Debug)]
struct Running {
    id: u64,
    peer: NodeId,
    purpose: Purpose,
    marks: u64,
    /// What the peer knew to be missing when it began.
    missing: Vec<NodeId>,
}

impl Schedule {
    pub(super) fn new(now_us: u64, interval_us: u64) -> Self {
        Self {
            running: None,
            last_id: 0,
            amiss: BTreeSet::new(),
            cancelled: false,
            interval_us,
            next_routine_us: now_us + interval_us,
            next_cut_look_us: now_us,
            retry_us: now_us,
            last_peer: None,
        }
    }

    /// With whom an exchange is under way.
    pub(super) fn running_with(&self) -> Option<&NodeId> {
        self.running.as_ref().map(|running| &running.peer)
    }

    /// Something may be amiss with a peer.
    pub(super) fn repair(&mut self, peer: &NodeId) {
        self.amiss.insert(peer.clone());
    }

    /// Breaks off what is under way.
    pub(super) fn cancel(&mut self) {
        self.cancelled |= self.running.take().is_some();
    }

    /// Begins anew as a node that is in sync.
    pub(super) fn reset(&mut self, now_us: u64) {
        self.next_routine_us = now_us + self.interval_us;
    }
}

impl<R> Live<R> {
    pub(super) fn begin_exchange(&mut self, peer: &NodeId, purpose: Purpose) {
        self.schedule.last_id += 1;
        let id = self.schedule.last_id;
        self.schedule.cancelled = false;
        let missing = self.peers.get(peer).map(|peer| peer.state.missing.clone()).unwrap_or_default();
        self.schedule.running = Some(Running { id, peer: peer.clone(), purpose, marks: self.marks, missing });
        // Replaces what may still be under way.
        self.commands.push(Command::Begin { id, peer: peer.clone(), purpose });
    }

    /// Gives the orders for [`super::bulk::Bulk`].
    pub(super) fn take_commands(&mut self) -> Vec<Command> {
        if std::mem::take(&mut self.schedule.cancelled) {
            self.commands.push(Command::Cancel);
        }
        std::mem::take(&mut self.commands)
    }

    /// An exchange ended, well or not.
    pub(super) fn exchange_ended(&mut self, ended: Ended, now: Now) {
        let Ended { id, result } = ended;
        let Some(running) = self.schedule.running.take_if(|running| running.id == id) else { return };
        let (peer, purpose) = (running.peer.clone(), running.purpose);
        let only_here = result.as_ref().ok().map(|moved| moved.entries_out);
        let fine = result.is_ok();
        if !fine {
            self.schedule.retry_us = now.mono_us + RETRY_US;
        }
        self.effects.events.push(match result {
            Ok(moved) => Event::ExchangeDone { peer: peer.clone(), purpose, moved },
            Err(why) => Event::ExchangeFailed { peer: peer.clone(), purpose, why },
        });
        match purpose {
            Purpose::Join | Purpose::ColdStart => self.join_exchange_ended(running, fine, now),
            Purpose::Repair if fine => self.heard_out(&peer),
            Purpose::Repair => self.schedule.repair(&peer),
            Purpose::Routine => {}
            Purpose::Drain => {
                if let Mode::Draining(drain) = &mut self.mode {
                    drain.exchanged(only_here, now.mono_us);
                }
                if fine {
                    self.drain_done();
                }
            }
        }
    }

    fn join_exchange_ended(&mut self, running: Running, fine: bool, now: Now) {
        let Running { peer, purpose, marks, missing, .. } = running;
        let donors = self.peers.iter().filter(|(id, _)| self.is_linked(id) && self.is_in_sync(id));
        let donors: BTreeSet<NodeId> = donors.map(|(id, _)| id.clone()).collect();
        let Mode::Joining(joining) = &mut self.mode else { return };
        if !fine {
            joining.retry_us = now.mono_us + RETRY_US;
            joining.tried.insert(peer.clone());
            if donors.is_subset(&joining.tried) {
                joining.tried = BTreeSet::from([peer]);
            }
        } else if purpose == Purpose::ColdStart {
            joining.gathered.insert(peer);
        } else {
            joining.exchanged_at = Some(marks);
            joining.tried.clear();
            // What the donor knows to be missing is missing here; but for one that has said good-bye since.
            let me = self.settings.node.clone();
            let missing = missing.into_iter().filter(|id| *id != me && !is(Mutant::PartialNotPassedOn));
            self.partial = missing.filter(|id| self.members.last_known.contains_key(id)).collect();
        }
    }

    /// What a member held that was missing at the cold start is here now.
    fn heard_out(&mut self, peer: &NodeId) {
        if self.partial.remove(peer) {
            self.announce();
        }
        self.caught_up();
    }

    /// A peer came (back) in sync: what either wrote meanwhile may be missing at the other. One of the two looks.
    pub(super) fn met_again(&mut self, peer: &NodeId) {
        let in_sync = self.peers.get(peer).is_some_and(|peer| peer.state.is == PeerState::Ready);
        let mine = self.settings.node < *peer || self.cut_off;
        if in_sync && matches!(self.mode, Mode::Ready) && mine && !is(Mutant::MeetingWithoutRepair) {
            self.schedule.repair(peer);
        }
    }

    /// Begins what is due.
    pub(super) fn plan_exchanges(&mut self, now: Now) {
        if !matches!(self.mode, Mode::Ready) || self.schedule.running.is_some() {
            return;
        }
        let schedule = &mut self.schedule;
        schedule.amiss.retain(|id| self.peers.get(id).is_some_and(|peer| peer.link.is_some()));
        let looks = now.mono_us >= schedule.next_cut_look_us && self.members.shows_a_cut;
        if !looks && schedule.amiss.is_empty() && now.mono_us < schedule.next_routine_us {
            return;
        }
        let able: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.link.is_some() && peer.bulk && peer.state.is != PeerState::Left)
            .map(|(id, _)| id.clone())
            .collect();
        if looks {
            schedule.next_cut_look_us = now.mono_us + CUT_INTERVAL_US;
            schedule.amiss.extend(able.iter().cloned());
        }
        if let Some(peer) = able.iter().find(|id| schedule.amiss.contains(*id)) {
            if now.mono_us >= schedule.retry_us {
                schedule.amiss.remove(peer);
                self.begin_exchange(peer, Purpose::Repair);
            }
            return;
        }
        if now.mono_us >= schedule.next_routine_us {
            schedule.next_routine_us = now.mono_us + schedule.interval_us;
            let after = schedule.last_peer.take();
            let next = able.iter().find(|id| Some(*id) > after.as_ref()).or(able.first());
            schedule.last_peer = next.cloned();
            if let Some(peer) = next {
                self.begin_exchange(peer, Purpose::Routine);
            }
        }
    }
}
