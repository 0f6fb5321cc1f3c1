//! Whose acks a reply waits for, and when it may go out. A peer is in the ack set from its Subscribe on, ready or not;
//! it leaves by good-bye, by being dropped from membership, or as suspect. A lost link alone releases nothing: the peer
//! may live, serve, and not know what was answered.

use aorta_proto::frame::{FrameError, Lengths, PeerState, RejoinReason, append_changes, packed};
use aorta_proto::mutant::{Mutant, is};
use aorta_proto::{Aor, NodeId, Record};

use super::commit::OnDisk;
use super::effects::{Event, Released};
use super::live::Live;
use super::peer::{Peer, Subscriber};
use super::readiness::Mode;
use super::settings::AckMode;
use super::slot::Slot;

/// A node that begins to serve is known to do so, wherever gossip comes, within this, µs.
pub(super) const ANNOUNCED_US: u64 = 1_000_000;

/// Changes that are in this node's table, to be published together, as peers will read them.
#[derive(Debug)]
pub struct Publications<R> {
    bytes: Vec<u8>,
    each: Vec<Publication<R>>,
}

#[derive(Debug)]
struct Publication<R> {
    /// The place of the reply.
    slot: Slot,
    changes: Result<Lengths, FrameError>,
    /// Comes back in [`super::Effects::released`].
    reply: R,
}

/// Room for changes that is kept, bytes.
const KEPT_BYTES_MAX: usize = 256 << 10;

impl<R> Default for Publications<R> {
    fn default() -> Self {
        Self { bytes: Vec::new(), each: Vec::new() }
    }
}

impl<R> Publications<R> {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.each.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    pub(super) fn add(&mut self, slot: Slot, aor: &Aor, delta: &Record, reply: R) {
        let changes = append_changes(aor, delta, &mut self.bytes);
        self.each.push(Publication { slot, changes, reply });
    }
}

/// A reply that waits.
#[derive(Debug)]
pub(super) struct Waiting<R> {
    pub(super) seq: u64,
    pub(super) published_us: u64,
    reply: R,
    short: bool,
    asked: usize,
    /// Holds the place that `reserve` gave.
    _slot: Slot,
}

impl<R> Live<R> {
    /// Puts changes into the outbox and their replies in line, in one step with respect to the ack set; of what was published
    /// only the memory stays.
    pub(super) fn publish(&mut self, publications: &mut Publications<R>, now_us: u64) {
        let asked = self.awaited().count();
        let short = self.somebody_goes_without(asked, now_us);
        let mut bytes = publications.bytes.as_slice();
        for Publication { changes, slot, reply } in publications.each.drain(..) {
            let mut waiting = Waiting { seq: 0, published_us: now_us, reply, short, asked, _slot: slot };
            match changes {
                Ok(lengths) => {
                    for change in packed::each(&mut bytes, &lengths) {
                        self.outbox.push(change, now_us);
                    }
                }
                Err(error) => {
                    waiting.short = true;
                    let bytes = if let FrameError::TooLong(bytes) = error { bytes } else { 0 };
                    self.effects.events.push(Event::TooLarge { bytes });
                }
            }
            waiting.seq = self.outbox.head();
            if self.settings.ack == AckMode::None {
                self.effects.released.push(released(waiting, 0));
            } else {
                // In line before anybody is found overtaken: one of these very changes may have driven out what they lack.
                self.replies.push_back(waiting);
            }
        }
        publications.bytes.clear();
        publications.bytes.shrink_to(KEPT_BYTES_MAX);
        if self.awaits_disks() {
            self.call_commit();
        }
        self.find_overtaken(now_us);
        self.trim();
        self.release();
    }

    /// Whether a node that may be serving will not be awaited: with nobody to await though there are members, missing or
    /// about to start over, nobody but this node holds the change; and a suspect serves until it knows that it is one. Nor does a late disk have it.
    fn somebody_goes_without(&self, asked: usize, now_us: u64) -> bool {
        if is(Mutant::ShortCalledFull) {
            return false;
        }
        let named = self.began_just_now(now_us).then(|| self.named()).into_iter().flatten();
        let everybody = self.peers.keys().chain(self.members.view.keys()).chain(named);
        !self.late_disks().is_empty()
            || everybody.into_iter().any(|id| self.may_serve_without(id, now_us))
            || (asked == 0 && !is(Mutant::EmptyAckSetIsFull) && !self.members.last_known.is_empty())
    }

    /// Whether a node is not awaited, though it serves, or may before this one hears of it.
    fn may_serve_without(&self, id: &NodeId, now_us: u64) -> bool {
        let place = self.peers.get(id).and_then(|peer| peer.subscriber.as_ref());
        if place.is_some_and(|place| place.awaited) {
            return false;
        }
        // Of one whose link is lost gossip may still show what it was before it said that it serves.
        let said_so = self.peers.get(id).is_some_and(|peer| {
            let unheard_us = now_us.saturating_sub(peer.heard_us);
            peer.state.is.is_in_sync() && unheard_us < ANNOUNCED_US
        });
        if self.is_in_sync(id) || (said_so && !self.is_linked(id)) {
            // Its link may be so young that its Subscribe is still under way; one that said good-bye is a member no more.
            let will_subscribe = self.members.last_known.contains_key(id) && !is(Mutant::TwoBeginUnawaited);
            return place.is_some() || !self.is_linked(id) || will_subscribe;
        }
        // With its Mark a joiner lacks nothing that it must have from here, and as long as it has its link it may serve
        // before this node hears that it does. Of a link that was lost as soon as it came up gossip may know nothing yet.
        let had_all = place.is_some_and(|place| place.marked);
        let young = self.peers.get(id).is_some_and(|peer| now_us.saturating_sub(peer.linked_us) < ANNOUNCED_US);
        if had_all && young {
            return true;
        }
        // It awaits the Mark of a node that it knows to serve: of one that began just now it may not have heard, linked or
        // not. Nor may that one have heard of it, but from a peer of both.
        let unheard = self.began_just_now(now_us) && !is(Mutant::TwoBeginUnawaited);
        let linked = || self.members.view.get(id).is_some_and(|member| member.links.contains(&self.settings.node));
        match self.state_of(id) {
            Some(PeerState::Joining) => unheard || (had_all && (self.is_linked(id) || linked())),
            Some(_) => false,
            None => unheard && self.named().any(|named| named == id),
        }
    }

    /// Whether a node that waits for all who serve, as far as it knows, may not know yet that this one does.
    fn began_just_now(&self, now_us: u64) -> bool {
        now_us.saturating_sub(self.served_since_us) < ANNOUNCED_US
    }

    /// Those that linked peers are linked with.
    fn named(&self) -> impl Iterator<Item = &NodeId> {
        let linked = self.peers.values().filter(|peer| peer.link.is_some());
        linked.flat_map(|peer| &peer.state.links).filter(|id| **id != self.settings.node)
    }

    /// A peer has said whom it is linked with. What it acks from now on may be missing at one of them that has asked it before
    /// and begins to serve.
    pub(super) fn shorten_for_the_named(&mut self, now_us: u64) {
        let unknown = |id: &NodeId| self.state_of(id).is_none() && self.may_serve_without(id, now_us);
        if !self.replies.is_empty() && self.began_just_now(now_us) && self.named().any(unknown) {
            self.shorten_after(0);
        }
    }

    fn awaited(&self) -> impl Iterator<Item = &Subscriber> {
        let serves = |peer: &&Peer| peer.state.is != PeerState::Joining || !is(Mutant::JoinerUnawaited);
        self.peers.values().filter(serves).filter_map(|peer| peer.subscriber.as_ref()).filter(|place| place.awaited)
    }

    /// Lets every reply go that waits for nobody any more.
    pub(super) fn release(&mut self) {
        let everybody = self.awaited().map(|place| self.settles(place)).min();
        let anybody = self.awaited().map(|place| place.acked).max();
        let up_to = match self.settings.ack {
            AckMode::All if is(Mutant::OneAckSuffices) => anybody,
            AckMode::All => everybody,
            AckMode::Disk => everybody.into_iter().chain([self.disk.own.covers()]).min(),
            AckMode::One => anybody,
            AckMode::None => None,
        };
        let up_to = up_to.unwrap_or(self.outbox.head());
        let on_disk = self.awaits_disks();
        self.effects.released.reserve(self.replies.partition_point(|waiting| waiting.seq <= up_to));
        while let Some(waiting) = self.replies.pop_front_if(|waiting| waiting.seq <= up_to) {
            let seq = waiting.seq;
            let got = self.peers.values().filter_map(|peer| peer.subscriber.as_ref());
            let has = |place: &&Subscriber| if on_disk { place.disk.has(seq) } else { place.acked >= seq };
            let got = got.filter(|place| !place.overtaken && has(place)).count();
            self.effects.released.push(released(waiting, got));
        }
    }

    /// Up to which change no reply waits for a peer.
    fn settles(&self, place: &Subscriber) -> u64 {
        if self.awaits_disks() { place.covers().min(place.disk.covers()) } else { place.covers() }
    }

    /// A peer (re)subscribes: it is in the ack set from here on, and gets everything that is still kept.
    pub(super) fn subscribe(&mut self, peer_id: &NodeId, epoch: u64) -> Result<(), String> {
        let (front, head) = (self.outbox.front(), self.outbox.head());
        let Some(peer) = self.peers.get_mut(peer_id) else { return Ok(()) };
        let Some(link) = &mut peer.link else { return Ok(()) };
        link.subscribed = true;
        if let Some(place) = peer.subscriber.as_mut().filter(|place| place.epoch == epoch) {
            if place.overtaken || place.acked + 1 < front {
                // The same epoch goes on only without a gap.
                place.overtaken = true;
                link.rejoin_due = Some((epoch, RejoinReason::Overflow));
                return Ok(());
            }
            let held = if is(Mutant::NothingSentAgain) { place.sent } else { place.acked };
            place.sent = if is(Mutant::SentAgainFromNext) { head.min(held + 1) } else { held };
            place.mark_at = Some(head);
            link.backlog_due = Some(place.sent + 1);
            if place.accused {
                link.rejoin_due = Some((epoch, RejoinReason::Suspect));
            }
            return Ok(());
        }
        if peer.subscriber.as_ref().is_some_and(|place| place.epoch > epoch) {
            return Err("subscribes with an old epoch".into());
        }
        // Replies that waited for it before it started over go on waiting: it gets those changes again.
        let before = peer.subscriber.take().filter(|place| place.awaited);
        let disk = before.as_ref().map_or(OnDisk::from(head), |place| place.disk);
        let awaited_from = before.map_or(head, |place| place.covers());
        let sent = if is(Mutant::JoinerWithoutBacklog) { head } else { front - 1 };
        peer.subscriber = Some(Subscriber {
            epoch,
            sent,
            acked: sent,
            awaited_from,
            disk,
            awaited: true,
            accused: false,
            suspected_us: 0,
            trusted_at: 0,
            overtaken: false,
            mark_at: Some(head),
            marked: false,
        });
        link.backlog_due = Some(sent + 1);
        link.rejoin_due = None;
        self.effects.gossip_changed = true;
        Ok(())
    }

    /// A peer holds everything of its epoch up to `seq`.
    pub(super) fn acked(&mut self, peer_id: &NodeId, epoch: u64, seq: u64) -> Result<(), String> {
        let head = self.outbox.head();
        let Some(peer) = self.peers.get_mut(peer_id) else { return Ok(()) };
        let Some(place) = peer.subscriber.as_mut().filter(|place| place.epoch == epoch && !place.overtaken) else {
            return Ok(());
        };
        // An ack may overtake the loss of the link it answers, so what counts is what exists.
        if seq > head {
            return Err("acks what was never sent".into());
        }
        place.acked = place.acked.max(if is(Mutant::AckCountsNext) { head.min(seq + 1) } else { seq });
        place.sent = place.sent.max(seq);
        if !place.awaited && place.acked >= place.trusted_at {
            place.awaited = true;
            place.accused = false;
            place.awaited_from = head;
            place.disk = OnDisk::from(head);
            self.effects.events.push(Event::Trusted { peer: peer_id.clone() });
            self.effects.gossip_changed = true;
        }
        self.release();
        self.trim();
        Ok(())
    }

    /// Takes a peer out of the ack set as suspect; it is told, by link and by gossip.
    pub(super) fn suspect(&mut self, peer_id: &NodeId, why: &'static str, now_us: u64) {
        let head = self.outbox.head();
        let accused = !matches!(self.mode, Mode::Joining(_)) && !is(Mutant::SuspectUntold);
        let settled = self.peers.get(peer_id).and_then(|peer| peer.subscriber.as_ref());
        let settled = settled.map_or(0, |place| self.settles(place));
        let Some(peer) = self.peers.get_mut(peer_id) else { return };
        let Some(place) = peer.subscriber.as_mut().filter(|place| place.awaited) else { return };
        place.awaited = false;
        place.accused = accused;
        place.suspected_us = now_us;
        place.trusted_at = head;
        let epoch = place.epoch;
        if let Some(link) = peer.link.as_mut().filter(|_| accused) {
            link.rejoin_due = Some((epoch, RejoinReason::Suspect));
        }
        self.shorten_after(settled);
        self.effects.events.push(Event::Suspect { peer: peer_id.clone(), why });
        self.effects.gossip_changed = true;
        self.release();
        self.trim();
    }

    /// A node that begins to serve awaits everybody linked, also whom it gave up while it was out of step itself.
    pub(super) fn await_all_linked(&mut self) {
        let head = self.outbox.head();
        let linked = self.peers.values_mut().filter(|peer| peer.link.is_some());
        let given_up = linked.filter_map(|peer| peer.subscriber.as_mut());
        for place in given_up.filter(|place| !place.awaited && !place.accused && !place.overtaken) {
            place.awaited = true;
            place.awaited_from = head;
            place.disk = OnDisk::from(head);
        }
    }

    /// Takes a peer out of the ack set for good; `parted` when it took nothing with it.
    pub(super) fn unsubscribe(&mut self, peer_id: &NodeId, parted: bool) {
        let Some(place) = self.peers.get_mut(peer_id).and_then(|peer| peer.subscriber.take()) else { return };
        if place.awaited && !parted {
            self.shorten_after(self.settles(&place));
        }
        self.release();
        self.trim();
    }

    pub(super) fn shorten_after(&mut self, covers: u64) {
        if is(Mutant::SuspectShortensNothing) {
            return;
        }
        for waiting in self.replies.iter_mut().rev().take_while(|waiting| waiting.seq > covers) {
            waiting.short = true;
        }
    }

    /// A node that ceases to serve no longer keeps a joiner that it does not await from serving: what is still unanswered
    /// may not have reached the joiner's donor when that was asked.
    pub(super) fn shorten_for_the_unawaited(&mut self) {
        let place = |id: &NodeId| self.peers.get(id).and_then(|peer| peer.subscriber.as_ref());
        let unawaited = |id: &NodeId| !place(id).is_some_and(|place| place.awaited);
        if self.members.last_known.keys().any(unawaited) && !is(Mutant::FencedCalledFull) {
            self.shorten_after(0);
        }
    }

    /// Peers that left one change unacked for too long become suspect.
    pub(super) fn find_suspects(&mut self, now_us: u64) {
        let late =
            |place: &Subscriber| self.oldest_unacked_us(place).is_some_and(|at_us| self.overdue(at_us) <= now_us);
        let suspects: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.subscriber.as_ref().is_some_and(|place| place.awaited && late(place)))
            .map(|(id, _)| id.clone())
            .collect();
        for peer_id in suspects {
            self.suspect(&peer_id, "a change was not acked in time", now_us);
        }
    }

    /// When the next peer becomes suspect unless it acks, monotonic µs.
    pub(super) fn next_suspect_us(&self) -> Option<u64> {
        let unacked = self.awaited().filter_map(|place| self.oldest_unacked_us(place));
        unacked.map(|at_us| self.overdue(at_us)).min()
    }

    pub(super) fn overdue(&self, published_us: u64) -> u64 {
        published_us + self.settings.ack_timeout_us
    }

    fn oldest_unacked_us(&self, place: &Subscriber) -> Option<u64> {
        self.outbox.published_us(place.covers() + 1)
    }

    /// Peers whose place fell off the old end must start over.
    fn find_overtaken(&mut self, now_us: u64) {
        if is(Mutant::OverflowUnnoticed) {
            return;
        }
        let front = self.outbox.front();
        let lost = |place: &&mut Subscriber| !place.overtaken && place.acked + 1 < front;
        let mut overtaken = Vec::new();
        for (id, peer) in &mut self.peers {
            let Some(place) = peer.subscriber.as_mut().filter(lost) else { continue };
            place.overtaken = true;
            // A suspect without a link lost its place when it became one; that is no news.
            if place.awaited || peer.link.is_some() {
                overtaken.push(id.clone());
            }
        }
        for peer_id in overtaken {
            self.suspect(&peer_id, "its outbox overflowed", now_us);
            let Some(peer) = self.peers.get_mut(&peer_id) else { continue };
            if let (Some(link), Some(place)) = (&mut peer.link, &peer.subscriber) {
                link.rejoin_due = Some((place.epoch, RejoinReason::Overflow));
            }
            self.effects.events.push(Event::Overflow { peer: peer_id });
        }
    }

    /// Drops what everybody has. Kept is what an awaited peer, or a suspect whose link is up, has not acked.
    pub(super) fn trim(&mut self) {
        let keeps = self.peers.values().filter_map(|peer| {
            let place = peer.subscriber.as_ref().filter(|place| !place.overtaken)?;
            (place.awaited || peer.link.is_some()).then_some(place.acked + 1)
        });
        let keep_from = keeps.min().unwrap_or(self.outbox.head() + 1);
        self.outbox.trim(keep_from + u64::from(is(Mutant::TrimmedTooFar)));
    }
}

fn released<R>(waiting: Waiting<R>, got: usize) -> Released<R> {
    Released { reply: waiting.reply, short: waiting.short, got, asked: waiting.asked }
}
