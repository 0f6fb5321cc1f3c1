//! `ack = "disk"`: which changes are on whose disk. A commit is the caller's: it takes what is in the table, writes it, and
//! tells when it is there. Writes nothing itself.
//!
//! Two levels of ack, because they say different things. `Ack` (merged) says that a peer lives and keeps up: whoever leaves
//! it out is a suspect and must rejoin. `Saved` says that its disk has what it merged: whoever leaves that out serves as
//! well as any, so it is neither suspect nor fenced; only replies leave short, and say so.
//!
//! Who answers for a reply decides what it waits for: a node with `ack = "disk"` asks its peers ([`Frame::AskSaved`]), and
//! they commit whatever their own `ack` is. So its 200 keeps its promise also while the members' configurations differ, as
//! they do when one is changed node by node. Refused: each node committing by its own configuration, which needs everybody
//! to know everybody's, and makes a 200 promise less than its sender says until they agree.
//!
//! [`Frame::AskSaved`]: aorta_proto::frame::Frame::AskSaved

use aorta_proto::frame::SAVED_SINCE;
use aorta_proto::mutant::{Mutant, is};
use aorta_proto::{BootId, NodeId};

use super::effects::Event;
use super::live::Live;
use super::settings::AckMode;

/// How far one disk has this node's changes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OnDisk {
    /// Changes up to this are on it.
    saved: u64,
    /// Replies of changes up to here do not wait for it: it was not awaited when they were published.
    awaited_from: u64,
    /// It did not keep up: no reply waits for it before it has this.
    late_until: Option<u64>,
}

impl OnDisk {
    /// One that is awaited for every change after `head`.
    pub(super) fn from(head: u64) -> Self {
        Self { awaited_from: head, ..Self::default() }
    }

    /// Whether it has change `seq`.
    pub(super) fn has(&self, seq: u64) -> bool {
        self.saved >= seq
    }

    /// Up to which change no reply waits for it.
    pub(super) fn covers(&self) -> u64 {
        if self.is_late() { u64::MAX } else { self.saved.max(self.awaited_from) }
    }

    pub(super) fn is_late(&self) -> bool {
        self.late_until.is_some()
    }

    /// It has changes up to `seq`; whether it has so caught up.
    fn advance(&mut self, seq: u64) -> bool {
        self.saved = self.saved.max(seq);
        self.late_until.take_if(|until| *until <= self.saved).is_some()
    }
}

/// This node's own disk.
#[derive(Debug, Default)]
pub(super) struct OwnDisk {
    /// Its own changes there.
    pub(super) own: OnDisk,
    /// The caller was told that a commit is due, and has not begun one since.
    called: bool,
}

/// What a commit covers: everything that was in the table when it began. Dropped when it fails.
#[must_use = "what it covers is on disk only once replication is told"]
#[derive(Debug)]
pub struct Commit {
    /// Own changes up to this.
    own: u64,
    /// Changes of others: whose, in which epoch, up to which.
    taken: Vec<(NodeId, BootId, u64, u64)>,
}

impl<R> Live<R> {
    /// Whether replies wait for disks.
    pub(super) fn awaits_disks(&self) -> bool {
        self.settings.ack == AckMode::Disk
    }

    /// Something came into the table that somebody wants on disk.
    pub(super) fn call_commit(&mut self) {
        self.effects.commit_due |= !std::mem::replace(&mut self.disk.called, true);
    }

    /// See [`super::Replication::begin_commit`].
    pub(super) fn begin_commit(&mut self) -> Commit {
        self.disk.called = false;
        if is(Mutant::SavedBeforeCommit) {
            self.disk.own.advance(self.outbox.head());
        }
        let asked = self.peers.iter().filter(|(_, peer)| peer.link.as_ref().is_some_and(|link| link.saved_asked));
        let taken = asked.filter(|(_, peer)| peer.intake.epoch == self.epoch).map(|(id, peer)| {
            let up_to = peer.intake.next.saturating_sub(1);
            (id.clone(), peer.boot, peer.intake.epoch, up_to)
        });
        Commit { taken: taken.collect(), own: self.outbox.head() }
    }

    /// See [`super::Replication::committed`].
    pub(super) fn committed(&mut self, commit: Commit) {
        for (peer_id, boot, epoch, up_to) in commit.taken {
            let Some(peer) = self.peers.get_mut(&peer_id).filter(|peer| peer.boot == boot) else { continue };
            if peer.intake.epoch == epoch && peer.intake.saved < up_to {
                peer.intake.saved = up_to;
                if let Some(link) = peer.link.as_mut() {
                    link.saved_due = link.saved_asked;
                }
            }
        }
        if self.disk.own.advance(commit.own) {
            self.effects.events.push(Event::DiskCaughtUp { node: self.settings.node.clone() });
        }
        self.release();
    }

    /// A peer wants to be told what of its changes is on this disk. What came from it before was not written with haste.
    pub(super) fn saved_asked(&mut self, peer_id: &NodeId) {
        if let Some(link) = self.peers.get_mut(peer_id).and_then(|peer| peer.link.as_mut()) {
            link.saved_asked = true;
            link.saved_due = true;
            self.call_commit();
        }
    }

    /// A peer's disk has everything of its epoch up to `seq`.
    pub(super) fn saved(&mut self, peer_id: &NodeId, epoch: u64, seq: u64) -> Result<(), String> {
        let head = self.outbox.head();
        let Some(peer) = self.peers.get_mut(peer_id) else { return Ok(()) };
        let Some(place) = peer.subscriber.as_mut().filter(|place| place.epoch == epoch && !place.overtaken) else {
            return Ok(());
        };
        if seq > head {
            return Err("has on disk what was never sent".into());
        }
        if place.disk.advance(seq) {
            self.effects.events.push(Event::DiskCaughtUp { node: peer_id.clone() });
        }
        self.release();
        Ok(())
    }

    /// Disks that left one reply waiting for too long are not waited for until they have caught up.
    pub(super) fn find_late_disks(&mut self, now_us: u64) {
        let overdue = self.next_late_us().is_some_and(|at_us| at_us <= now_us);
        let Some(seq) = self.replies.front().map(|waiting| waiting.seq).filter(|_| overdue) else { return };
        let head = self.outbox.head();
        let mut late = Vec::new();
        let places = self.peers.iter_mut().filter_map(|(id, peer)| Some((id, peer.subscriber.as_mut()?)));
        for (id, place) in places.filter(|(_, place)| place.awaited && place.disk.covers() < seq) {
            late.push((id.clone(), place.disk.covers()));
            place.disk.late_until = Some(head);
        }
        if self.disk.own.covers() < seq {
            late.push((self.settings.node.clone(), self.disk.own.covers()));
            self.disk.own.late_until = Some(head);
        }
        for (node, covers) in late {
            self.shorten_after(covers);
            self.effects.events.push(Event::DiskLate { node });
        }
        self.release();
    }

    /// When the next disk is late unless it has what it is waited for, monotonic µs.
    pub(super) fn next_late_us(&self) -> Option<u64> {
        let oldest = self.replies.front().filter(|_| self.awaits_disks())?;
        Some(self.overdue(oldest.published_us))
    }

    /// What an operator is told of them.
    pub(super) fn late_disks_reason(&self) -> Option<String> {
        if self.awaits_disks() && self.version() < SAVED_SINCE && self.links().next().is_some() {
            return Some(format!(
                "replies leave short: a member speaks a wire version below {SAVED_SINCE}, without words for disks"
            ));
        }
        let late: Vec<&str> = self.late_disks().into_iter().map(NodeId::as_str).collect();
        (!late.is_empty()).then(|| format!("replies leave short: the disk of {} does not keep up", late.join(", ")))
    }

    /// The nodes whose disks no reply waits for because they did not keep up, this one among them.
    pub(super) fn late_disks(&self) -> Vec<&NodeId> {
        let late = |place: &super::peer::Subscriber| place.awaited && place.disk.is_late();
        let peers = self.peers.iter().filter(|(_, peer)| peer.subscriber.as_ref().is_some_and(late)).map(|(id, _)| id);
        let own = self.disk.own.is_late().then_some(&self.settings.node);
        if self.awaits_disks() { own.into_iter().chain(peers).collect() } else { Vec::new() }
    }
}
