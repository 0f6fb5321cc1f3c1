//! What comes in on a Live link. Changes themselves pass by: they are applied without the lock, between
//! [`Live::admit_changes`] and [`Live::changes_applied`].

use aorta_proto::frame::{Frame, Header, PeerState};
use aorta_proto::mutant::{Mutant, is};
use aorta_proto::{NodeId, Record};

use super::effects::Event;
use super::live::Live;
use super::readiness::Mode;
use crate::clock::Now;

/// A clock that is moved forward by more than this is worth a line in the log, µs.
const CLOCK_MOVE_SAID_US: u64 = 1_000_000;

impl<R> Live<R> {
    /// Every frame and Hello carries its sender's time: linked nodes stay in step within a network delay.
    ///
    /// # Errors
    /// When a node that is in sync is told a time further ahead than is allowed.
    pub(super) fn hear_time(&mut self, peer_id: &NodeId, sent_us: u64, now: Now) -> Result<(), String> {
        if sent_us == 0 {
            return Ok(());
        }
        let is_set = self.clock.is_set();
        let ahead_us = sent_us.saturating_sub(now.cluster_us);
        if is_set && !matches!(self.mode, Mode::Joining(_)) && ahead_us > self.settings.clock_ahead_max_us() {
            return Err(format!("its cluster time is {} s ahead of this node's", ahead_us / 1_000_000));
        }
        if !is_set {
            return self.take_time_from(peer_id, sent_us);
        }
        let by_us = self.clock.adopt(sent_us);
        if by_us > CLOCK_MOVE_SAID_US {
            self.effects.events.push(Event::ClockMoved { peer: peer_id.clone(), by_us });
        }
        Ok(())
    }

    /// The first time this process hears; its own disk must not be far ahead of it.
    fn take_time_from(&mut self, peer_id: &NodeId, sent_us: u64) -> Result<(), String> {
        let ceiling_us = self.start.clock_ceiling_us.unwrap_or(0);
        let ahead_us = ceiling_us.saturating_sub(sent_us);
        if ahead_us > self.settings.clock_ahead_max_us() {
            let why = format!("this node's disk is {} s ahead of the cluster time of {peer_id}", ahead_us / 1_000_000);
            self.ahead = Some(why.clone());
            return Err(why);
        }
        self.ahead = None;
        // Not raised to the ceiling: what this disk really holds moves the others' time when they merge it, and a
        // restart must not make every contact lapse early.
        self.set_clock(sent_us);
        Ok(())
    }

    /// Sets cluster time for the first time.
    pub(super) fn set_clock(&mut self, cluster_us: u64) {
        let cluster_us = if is(Mutant::WallClockHlc) { self.start.wall_us } else { cluster_us };
        self.clock.adopt(cluster_us);
        self.effects.events.push(Event::ClockSet { cluster_us });
    }

    /// Takes a frame that is not about changes.
    ///
    /// # Errors
    /// What a correct peer never says; the link is closed.
    pub(super) fn handle_frame(
        &mut self,
        peer_id: &NodeId,
        header: Header,
        frame: Frame<'_>,
        now: Now,
    ) -> Result<(), String> {
        self.heard(peer_id, header, now)?;
        match frame {
            Frame::Subscribe { epoch } => self.subscribe(peer_id, epoch)?,
            Frame::Backlog { epoch, first_seq } => self.handle_backlog(peer_id, epoch, first_seq, now)?,
            Frame::Mark { epoch } if epoch == self.epoch => self.handle_mark(peer_id),
            Frame::Ack { epoch, seq } => self.acked(peer_id, epoch, seq)?,
            Frame::AskSaved => self.saved_asked(peer_id),
            Frame::Saved { epoch, seq } => self.saved(peer_id, epoch, seq)?,
            Frame::State(state) => {
                self.learn(peer_id, &state, now);
                self.learn_offers(header, &state);
                let became = state.is;
                let before = self.peers.get_mut(peer_id).map(|peer| std::mem::replace(&mut peer.state, state));
                self.shorten_for_the_named(now.mono_us);
                if became == PeerState::Left {
                    self.part(peer_id, now);
                } else if before.is_some_and(|before| before.is != became) {
                    self.met_again(peer_id);
                }
            }
            Frame::Rejoin { epoch, why } if epoch == self.epoch && !is(Mutant::SuspectUnmoved) => {
                self.accused(peer_id, why, now);
            }
            Frame::Ping { nonce } => {
                if let Some(link) = self.peers.get_mut(peer_id).and_then(|peer| peer.link.as_mut()) {
                    link.pong_due = Some(nonce);
                }
            }
            Frame::Pong { nonce } => {
                if let Some(probe) = self.peers.get_mut(peer_id).and_then(|peer| peer.probe.as_mut()) {
                    probe.answered |= probe.nonce == nonce;
                }
            }
            // Of one that is linked here its own link tells.
            Frame::Forget { node } if !self.is_linked(&node) && !self.members.stays(&node) => self.forget(&node, now),
            Frame::Forget { .. } => {}
            Frame::Bye => {
                self.part(peer_id, now);
                self.pass_on_good_bye(peer_id);
            }
            Frame::Mark { .. } | Frame::Rejoin { .. } => {}
            Frame::Hello(_) => return Err("says Hello twice".into()),
            _ => return Err("a frame of the other connection".into()),
        }
        Ok(())
    }

    fn heard(&mut self, peer_id: &NodeId, header: Header, now: Now) -> Result<(), String> {
        let peer = self.peers.get_mut(peer_id).filter(|peer| peer.link.is_some());
        let peer = peer.ok_or("a frame without a link")?;
        peer.heard_us = now.mono_us;
        let both_know = header.sent_us > 0 && self.clock.is_set();
        peer.cluster_time_offset_us = both_know.then(|| header.sent_us.wrapping_sub(now.cluster_us).cast_signed());
        self.members.alive(peer_id, now.mono_us);
        self.hear_time(peer_id, header.sent_us, now)
    }

    fn handle_backlog(&mut self, peer_id: &NodeId, epoch: u64, first_seq: u64, now: Now) -> Result<(), String> {
        if epoch != self.epoch {
            return Ok(());
        }
        if first_seq == 0 {
            return Err("numbers changes from 0".into());
        }
        let Some(peer) = self.peers.get_mut(peer_id) else { return Ok(()) };
        if peer.intake.epoch == epoch && peer.intake.next < first_seq {
            self.has_gap("changes of another node were lost between two links", peer_id, now);
        } else if peer.intake.epoch != epoch {
            // That one no longer keeps what lies between. A joiner asks its donor, and then everybody.
            if peer.intake.epoch > 0 && peer.intake.next < first_seq && matches!(self.mode, Mode::Ready) {
                self.schedule.repair(peer_id);
            }
            peer.intake.epoch = epoch;
            peer.intake.next = first_seq;
            peer.intake.saved = 0;
            if peer.link.as_ref().is_some_and(|link| link.saved_asked) {
                // What was told of the epoch before does not count in this one.
                self.call_commit();
            }
        }
        Ok(())
    }

    fn handle_mark(&mut self, peer_id: &NodeId) {
        self.marks += 1;
        if let Some(peer) = self.peers.get_mut(peer_id) {
            peer.intake.marked = true;
        }
    }

    /// Whether changes may be applied, before they are, and how.
    ///
    /// # Errors
    /// A gap before them: what comes after it must never be acked.
    pub(super) fn admit_changes(
        &mut self,
        peer_id: &NodeId,
        header: Header,
        epoch: u64,
        first_seq: u64,
        now: Now,
    ) -> Result<Admitted, String> {
        self.heard(peer_id, header, now)?;
        let epoch_now = self.epoch;
        let intake = self.peers.get(peer_id).map(|peer| &peer.intake);
        if epoch == epoch_now && intake.is_none_or(|intake| intake.epoch != epoch || intake.next < first_seq) {
            return Err(format!("a gap before change {first_seq}"));
        }
        let link = self.peers.get(peer_id).and_then(|peer| peer.link.as_ref());
        let awaited_on_disk = link.is_some_and(|link| link.saved_asked);
        Ok(Admitted { up_to_us: self.stamps_up_to_us(), awaited_on_disk })
    }

    /// Stamps above this are refused, µs of cluster time. A node that is not in sync yet follows.
    pub(super) fn stamps_up_to_us(&self) -> u64 {
        match self.mode {
            Mode::Joining(_) => u64::MAX,
            _ => self.clock.now().cluster_us.saturating_add(self.settings.clock_ahead_max_us()),
        }
    }

    /// How long changes that are in the table now took from their publication at the peer.
    pub(super) fn note_lag(&mut self, peer_id: &NodeId, header: Header, waited_us: Option<u64>) {
        let Some(peer) = self.peers.get_mut(peer_id) else { return };
        let known = waited_us.filter(|_| self.clock.is_set() && header.sent_us > 0);
        let under_way_us = self.clock.now().cluster_us.saturating_sub(header.sent_us);
        peer.lag_us = known.map(|waited_us| waited_us.saturating_add(under_way_us));
        self.effects.lags.extend(peer.lag_us.map(|lag_us| (peer_id.clone(), lag_us)));
    }

    /// Changes up to `next - 1` are in the table.
    pub(super) fn changes_applied(&mut self, peer_id: &NodeId, epoch: u64, next: u64, took: Took) {
        self.note_took(peer_id, took);
        let Some(peer) = self.peers.get_mut(peer_id) else { return };
        if peer.intake.epoch == epoch {
            peer.intake.next = peer.intake.next.max(next);
            if let Some(link) = &mut peer.link {
                link.ack_due = true;
                if link.saved_asked {
                    if is(Mutant::SavedBeforeCommit) {
                        (peer.intake.saved, link.saved_due) = (peer.intake.next - 1, true);
                    }
                    self.call_commit();
                }
            }
        }
    }

    /// A frame of an exchange came; its entries, if any, are applied.
    ///
    /// # Errors
    /// A time too far ahead.
    pub(super) fn handle_bulk(&mut self, peer_id: &NodeId, header: Header, took: Took, now: Now) -> Result<(), String> {
        self.note_took(peer_id, took);
        self.hear_time(peer_id, header.sent_us, now)
    }

    /// Raises the alarms that applying gave cause for.
    pub(super) fn note_took(&mut self, peer_id: &NodeId, took: Took) {
        if took.latest_us > 0 && self.clock.is_set() && !is(Mutant::StampsMoveNoClock) {
            self.clock.adopt(took.latest_us);
        }
        if took.ahead > 0 {
            self.effects.events.push(Event::StampAhead { peer: peer_id.clone(), count: took.ahead });
        }
        if took.conflicts > 0 {
            self.effects.events.push(Event::Conflict { peer: peer_id.clone(), count: took.conflicts });
        }
    }
}

/// How changes may be applied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admitted {
    /// The limit for their stamps, µs.
    pub(super) up_to_us: u64,
    /// Their sender waits until they are on disk.
    pub(super) awaited_on_disk: bool,
}

/// What applying changes came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Took {
    /// Changes decoded.
    pub(super) records: u64,
    /// Changes refused because their stamps lie too far ahead.
    pub(super) ahead: u64,
    /// Changes in which one stamp had two values.
    pub(super) conflicts: u64,
    /// The latest stamp taken, µs.
    pub(super) latest_us: u64,
}

impl Took {
    /// Whether a record is to be merged; what came of it is noted.
    pub(super) fn admits(&mut self, record: &Record, up_to_us: u64) -> bool {
        let latest_us = record.latest().map_or(0, |stamp| stamp.time_us);
        if latest_us > up_to_us {
            self.ahead += 1;
            return false;
        }
        self.latest_us = self.latest_us.max(latest_us);
        !cfg!(feature = "break-replication")
    }
}
