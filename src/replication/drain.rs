//! Leaving without taking anything along: grace, in which probes already see 503; then no new requests; then the replies
//! that wait; then one exchange, which ends with nothing that another node lacks.

use aorta_proto::NodeId;
use aorta_proto::frame::{Class, PeerState};
use aorta_proto::mutant::{Mutant, is};

use super::effects::{Event, Purpose};
use super::live::Live;
use super::peer::Peer;
use super::readiness::Mode;
use crate::clock::Now;

/// How far a node has left.
#[derive(Debug)]
pub(super) struct Draining {
    phase: Phase,
    deadline_us: u64,
    /// Entries that the last exchange found to be only here.
    only_here: Option<u64>,
    retry_us: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Grace { until_us: u64 },
    Finishing,
    Done,
    Failed,
}

/// A broken exchange is tried again after so long, µs.
const RETRY_US: u64 = 100_000;

impl Draining {
    pub(super) fn in_grace(&self) -> bool {
        matches!(self.phase, Phase::Grace { .. })
    }

    /// An exchange for leaving ended.
    pub(super) fn exchanged(&mut self, only_here: Option<u64>, now_us: u64) {
        match only_here {
            Some(entries) => {
                self.only_here = Some(entries);
                self.phase = Phase::Done;
            }
            None => self.retry_us = now_us + RETRY_US,
        }
    }
}

impl<R> Live<R> {
    /// Begins to leave. Again: skips what is left of the grace.
    pub(super) fn drain(&mut self, grace_us: u64, timeout_us: u64, now: Now) {
        match &mut self.mode {
            Mode::Left => {}
            Mode::Draining(drain) => {
                if drain.in_grace() {
                    drain.phase = Phase::Finishing;
                }
            }
            Mode::Ready | Mode::Joining(_) => {
                // A node that serves nobody has nobody to give time to.
                let grace_us = if matches!(self.mode, Mode::Ready) { grace_us } else { 0 };
                self.schedule.cancel();
                self.mode = Mode::Draining(Draining {
                    phase: Phase::Grace { until_us: now.mono_us + grace_us },
                    deadline_us: now.mono_us + grace_us + timeout_us,
                    only_here: None,
                    retry_us: 0,
                });
                self.announce();
            }
        }
        self.advance_drain(now);
    }

    /// Goes on with leaving.
    pub(super) fn advance_drain(&mut self, now: Now) {
        let Mode::Draining(drain) = &mut self.mode else { return };
        if let Phase::Grace { until_us } = drain.phase {
            if now.mono_us < until_us {
                return;
            }
            drain.phase = Phase::Finishing;
        }
        if drain.phase != Phase::Finishing {
            return;
        }
        if now.mono_us >= drain.deadline_us {
            drain.phase = Phase::Failed;
            let counts = self.location.counts();
            let only_here = drain.only_here.unwrap_or(counts.live + counts.gone);
            self.schedule.cancel();
            self.effects.events.push(Event::DrainTimeout { only_here });
            return;
        }
        let may_try = now.mono_us >= drain.retry_us;
        if !self.replies.is_empty() || self.schedule.running_with().is_some() || !may_try {
            return;
        }
        let nobody = self.members.last_known.is_empty() && self.links().next().is_none();
        if nobody || is(Mutant::DrainWithoutExchange) {
            self.drain_done();
        } else if let Some(heir) = self.heir() {
            self.begin_exchange(&heir, Purpose::Drain);
        }
    }

    /// Says once that nothing holds this node back.
    pub(super) fn drain_done(&mut self) {
        if let Mode::Draining(drain) = &mut self.mode {
            drain.phase = Phase::Done;
            self.effects.events.push(Event::Drained);
        }
    }

    /// Who is to have everything: a ready node that stays; when all leave, one that leaves after this one, and the
    /// greatest id leaves last.
    fn heir(&self) -> Option<NodeId> {
        let linked = || self.peers.iter().filter(|(_, peer)| peer.link.is_some() && peer.bulk);
        let stays = linked().find(|(_, peer)| peer.state.is == PeerState::Ready);
        let leaves_later =
            |(id, peer): &(&NodeId, &Peer)| peer.state.is == PeerState::Draining && **id > self.settings.node;
        stays.or_else(|| linked().find(leaves_later)).map(|(id, _)| id.clone())
    }

    /// Says good-bye to everybody linked. The links may close once [`Self::said_good_bye`].
    pub(super) fn leave(&mut self) {
        self.mode = Mode::Left;
        self.schedule.cancel();
        for link in self.peers.values_mut().filter_map(|peer| peer.link.as_mut()) {
            link.bye_due = true;
            link.awake = false;
        }
        let bulk: Vec<NodeId> = self.links().cloned().collect();
        self.effects.wake.extend(bulk.into_iter().map(|id| (id, Class::Bulk)));
        self.effects.gossip_changed = true;
    }

    /// Whether every link has taken the good-bye.
    pub(super) fn said_good_bye(&self) -> bool {
        let waits = |peer: &Peer| peer.link.as_ref().is_some_and(|link| link.bye_due);
        matches!(self.mode, Mode::Left) && !self.peers.values().any(waits)
    }
}
