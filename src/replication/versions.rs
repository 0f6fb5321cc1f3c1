//! Which wire version this node writes: the highest that every last-known member has offered to read. Encodes nothing.
//!
//! A member that is not there now counts with what it offered last, and as the lowest version while this process has not
//! heard: one that was down while the others were upgraded may come back as the build that it was. `aorta forget` strikes
//! one that will not come back. A member that comes back older says so in its Hello, before anything is written to it.

use aorta_proto::NodeId;
use aorta_proto::frame::{Envelope, Header, Hello, State, VERSION_MIN};
use aorta_proto::mutant::{Mutant, is};

use super::effects::Event;
use super::live::Live;

impl<R> Live<R> {
    /// The version that is written, to everybody.
    pub(super) fn version(&self) -> u8 {
        if is(Mutant::VersionBeforeOffers) {
            return self.settings.wire_version_max;
        }
        let own_max = self.settings.wire_version_max;
        // One connection of the two is enough to be read from.
        let linked = self.peers.values().filter(|peer| peer.link.is_some() || peer.bulk);
        let lowest = linked.map(|peer| peer.wire_version_max).fold(own_max, u8::min);
        if is(Mutant::AbsentOffersIgnored) {
            return lowest;
        }
        let others = self.members.last_known.keys().chain(self.members.view.keys()).filter(|id| !self.is_linked(id));
        others.map(|id| self.offer_of(id)).fold(lowest, u8::min)
    }

    /// What is put on every frame.
    pub(super) fn envelope(&self) -> Envelope {
        let sent_us = if self.clock.is_set() { self.clock.now().cluster_us } else { 0 };
        Envelope { version: self.version(), sent_us }
    }

    /// The highest version that a member reads, as far as is known: the Hello of its link; without a link the lowest of
    /// its last Hello and of what gossip shows, which may be of an earlier or later process. Without a Hello what gossip
    /// showed last counts: one that left while this process joined said no good-bye to it, and is missing from then on.
    pub(super) fn offer_of(&self, id: &NodeId) -> u8 {
        let heard = self.peers.get(id).map(|peer| peer.wire_version_max).or_else(|| self.members.offer_told_of(id));
        let shown = self.members.view.get(id).map(|member| member.wire_version_max).filter(|_| !self.is_linked(id));
        heard.into_iter().chain(shown).min().unwrap_or(VERSION_MIN)
    }

    /// A State of version N says that everybody in it has offered N at least to its sender. Of those that this process never heard
    /// itself, that counts.
    pub(super) fn learn_offers(&mut self, header: Header, state: &State) {
        for known in state.last_known.iter().filter(|known| !self.peers.contains_key(&known.node)) {
            self.members.tell_offer(&known.node, header.version);
        }
    }

    /// Whether the other side and this node have a version in common.
    ///
    /// # Errors
    /// In words for both sides' operators.
    pub(super) fn judge_versions(&mut self, peer_id: &NodeId, hello: &Hello) -> Result<(), String> {
        let (min, max, own_max) = (hello.version_min, hello.version_max, self.settings.wire_version_max);
        if min <= own_max && max >= VERSION_MIN {
            return Ok(());
        }
        let older = if min > own_max { self.settings.node.clone() } else { peer_id.clone() };
        let why = format!(
            "speaks wire versions {min} to {max}, this node {VERSION_MIN} to {own_max}: upgrade {older}, release by release"
        );
        self.effects.events.push(Event::VersionRefused { peer: peer_id.clone(), why: why.clone() });
        Err(why)
    }
}
