//! Links come and go: who is let in, which process is behind a name, what a new link starts with. Opens no connection.

use aorta_proto::NodeId;
use aorta_proto::frame::{Class, Frame, Hello, PeerState, VERSION_MIN};
use aorta_proto::mutant::{Mutant, is};

use super::bulk::Command;
use super::live::Live;
use super::peer::{Link, Peer, Probe};
use crate::clock::Now;

/// What came of a Hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Linked {
    /// The connection serves from now on; one that served this peer and class before is dead and must be closed.
    Accepted,
    /// Close it and say why, to the log and to the other side.
    Refused(String),
    /// It is this very process (one's own address among the seeds): close it silently.
    Myself,
    /// Another process is linked under this name and is being asked whether it lives. Keep the connection unanswered and
    /// ask again after so many microseconds, or close it and let the other side dial again.
    AskAgain {
        /// When, microseconds from now.
        after_us: u64,
    },
}

/// How long an old link may take to answer before a new process under its name replaces it, µs.
pub(super) const TWIN_ANSWER_US: u64 = 300_000;

/// An old link that said nothing for so long is not asked, µs.
const SILENT_US: u64 = 1_000_000;

/// A probe older than this is of another attempt, µs.
const PROBE_LASTS_US: u64 = 5_000_000;

impl<R> Live<R> {
    /// The Hello that opens each connection of this node.
    pub(super) fn hello(&self, now: Now) -> Vec<u8> {
        let since_us = now.mono_us.saturating_sub(self.started_us);
        let guess_us = self.start.clock_guess_us.filter(|_| !self.start.clock_only_from_peers);
        let hello = Hello {
            node: self.settings.node.clone(),
            boot: self.settings.boot,
            version_min: VERSION_MIN,
            version_max: self.settings.wire_version_max,
            digest_key_hash: self.settings.digest_key_hash,
            state: self.state(),
            clock_guess_us: guess_us.map(|guess_us| guess_us + since_us),
            clock_ceiling_us: self.start.clock_ceiling_us,
        };
        let mut bytes = Vec::new();
        // Bounded by MEMBERS_MAX names, far below the limit of a frame.
        drop(Frame::Hello(hello).encode(self.envelope(), &mut bytes));
        bytes
    }

    /// Judges the other side's Hello; see [`super::Replication::linked`].
    pub(super) fn handle_linked(&mut self, peer_id: &NodeId, class: Class, hello: &[u8], now: Now) -> Linked {
        let (header, hello) = match Frame::decode(hello, self.settings.wire_version_max) {
            Ok((header, Frame::Hello(hello))) => (header, hello),
            Ok(_) => return Linked::Refused("does not begin with Hello".into()),
            Err(error) => return Linked::Refused(error.to_string()),
        };
        if let Err(verdict) = self.judge_hello(peer_id, &hello) {
            return verdict;
        }
        if let Err(why) = self.judge_versions(peer_id, &hello) {
            self.refusal = Some((format!("{peer_id}: {why}"), now.mono_us));
            return Linked::Refused(why);
        }
        if let Some(verdict) = self.judge_boot(peer_id, &hello, now) {
            return verdict;
        }
        if let Err(why) = self.hear_time(peer_id, header.sent_us, now) {
            self.refusal = Some((format!("{peer_id}: {why}"), now.mono_us));
            return Linked::Refused(why);
        }
        match class {
            Class::Live => self.link_up(peer_id, hello, now),
            Class::Bulk => self.bulk_up(peer_id, hello, now),
        }
        Linked::Accepted
    }

    fn judge_hello(&self, peer_id: &NodeId, hello: &Hello) -> Result<(), Linked> {
        if hello.boot == self.settings.boot {
            return Err(Linked::Myself);
        }
        if hello.node == self.settings.node {
            return Err(Linked::Refused(format!("twin: another process runs as {}", hello.node)));
        }
        if hello.node != *peer_id {
            return Err(Linked::Refused(format!("says that it is {}, its certificate says {peer_id}", hello.node)));
        }
        if hello.digest_key_hash != self.settings.digest_key_hash {
            return Err(Linked::Refused("has another digest key: it is of another cluster".into()));
        }
        Ok(())
    }

    /// A known name with a new boot id: a restart, or a twin. The old link is asked; if it answers, it is a twin.
    fn judge_boot(&mut self, peer_id: &NodeId, hello: &Hello, now: Now) -> Option<Linked> {
        let peer = self.peers.get_mut(peer_id).filter(|peer| peer.boot != hello.boot)?;
        // Pings come several times within this.
        let silent = now.mono_us.saturating_sub(peer.heard_us) > SILENT_US;
        let Some(link) = peer.link.as_mut().filter(|_| !silent) else {
            self.replace_boot(peer_id, hello, now);
            return None;
        };
        let fresh =
            |probe: &&Probe| probe.boot == hello.boot && now.mono_us.saturating_sub(probe.asked_us) < PROBE_LASTS_US;
        let Some(probe) = peer.probe.as_ref().filter(fresh) else {
            self.nonce += 1;
            let probe = Probe { boot: hello.boot, nonce: self.nonce, asked_us: now.mono_us, answered: false };
            link.ping_due = Some(self.nonce);
            peer.probe = Some(probe);
            return Some(Linked::AskAgain { after_us: TWIN_ANSWER_US });
        };
        if probe.answered {
            peer.probe = None;
            return Some(Linked::Refused(format!("twin: another process already runs as {peer_id}, and it answers")));
        }
        let asked_us = now.mono_us.saturating_sub(probe.asked_us);
        if asked_us < TWIN_ANSWER_US {
            return Some(Linked::AskAgain { after_us: TWIN_ANSWER_US - asked_us });
        }
        self.replace_boot(peer_id, hello, now);
        None
    }

    /// The old process is gone; what it had not acked it will never ack.
    fn replace_boot(&mut self, peer_id: &NodeId, hello: &Hello, now: Now) {
        self.unsubscribe(peer_id, false);
        self.handle_unlinked(peer_id, Class::Live, now);
        self.handle_unlinked(peer_id, Class::Bulk, now);
        self.peers.insert(peer_id.clone(), Peer::new(hello.clone(), now.mono_us));
    }

    fn entry(&mut self, peer_id: &NodeId, hello: Hello, now: Now) -> &mut Peer {
        self.peers.entry(peer_id.clone()).or_insert_with(|| Peer::new(hello, now.mono_us))
    }

    fn link_up(&mut self, peer_id: &NodeId, hello: Hello, now: Now) {
        self.learn(peer_id, &hello.state, now);
        self.members.alive(peer_id, now.mono_us);
        let state = hello.state.clone();
        let ask_saved_due = self.awaits_disks();
        let peer = self.entry(peer_id, hello, now);
        let in_sync = state.is == PeerState::Ready;
        peer.state = state;
        peer.link = Some(Link { ask_saved_due, ..Link::new(now.mono_us) });
        (peer.heard_us, peer.linked_us) = (now.mono_us, now.mono_us);
        peer.intake.marked = false;
        peer.probe = None;
        self.announce();
        if in_sync {
            self.met_again(peer_id);
            if self.cut_off && !is(Mutant::CutOffGoesOn) {
                self.rejoin("it was cut off from most members", now);
            }
        }
        if self.partial.contains(peer_id) {
            self.schedule.repair(peer_id);
        }
    }

    fn bulk_up(&mut self, peer_id: &NodeId, hello: Hello, now: Now) {
        // Whoever was heard on either connection is a member, also if the other one never comes.
        // This connection may come up when the good-bye was said on the other one.
        if !self.members.is_gone(peer_id, hello.boot) {
            self.learn(peer_id, &hello.state, now);
        }
        self.entry(peer_id, hello, now).bulk = true;
        self.commands.push(Command::Up { peer: peer_id.clone() });
    }

    /// A connection is gone.
    pub(super) fn handle_unlinked(&mut self, peer_id: &NodeId, class: Class, _now: Now) {
        let Some(peer) = self.peers.get_mut(peer_id) else { return };
        match class {
            Class::Live => {
                peer.link = None;
                peer.intake.marked = false;
                if is(Mutant::LostLinkReleases) || !self.members.last_known.contains_key(peer_id) {
                    self.unsubscribe(peer_id, true);
                }
                self.announce();
            }
            Class::Bulk => {
                peer.bulk = false;
                self.commands.push(Command::Down { peer: peer_id.clone() });
            }
        }
        // Nothing is needed of one that parted. The other connection may be up, also that of a process that came instead:
        // what it said in its Hello it says once.
        let connected = |peer: &mut Peer| peer.link.is_some() || peer.bulk;
        if !self.members.last_known.contains_key(peer_id) && !self.peers.get_mut(peer_id).is_some_and(connected) {
            self.peers.remove(peer_id);
        }
        self.trim();
    }
}
