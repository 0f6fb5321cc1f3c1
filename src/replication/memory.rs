//! How full the memory of this node and of the others is, and whom that leaves room for. Every node holds every AoR, so what
//! one has no room for no other may accept. Counts nothing and refuses nobody itself; what comes from others is merged
//! whatever it says.
//!
//! A member counts as long as gossip shows it, whatever it does: one that joins, or is suspect, is to hold what is accepted
//! now. One that is gone holds nothing; when it comes back it says again how it stands, and until then its side of a cut
//! decides for itself.

use std::collections::BTreeSet;

use aorta_proto::NodeId;

use super::effects::Event;
use super::live::Live;
use super::readiness::names;
use crate::location::Room;

impl<R> Live<R> {
    /// This node's table takes so many bytes.
    pub(super) fn see_memory(&mut self, bytes: u64) {
        let before = self.budget.room();
        self.budget.see(bytes);
        self.effects.gossip_changed |= self.budget.room() != before;
        self.weigh_memory();
    }

    /// The nodes whose memory is full, this one included.
    pub(super) fn full(&self) -> BTreeSet<NodeId> {
        let others = self.members.view.values().map(|member| (&member.node, member.room));
        let all = others.chain([(&self.settings.node, self.budget.room())]);
        all.filter(|(_, room)| *room > Room::ForAll).map(|(node, _)| node.clone()).collect()
    }

    /// Finds whom every node has room for, after any of them said how it stands; tells when that is others than before.
    pub(super) fn weigh_memory(&mut self) {
        let room = self.members.view.values().map(|member| member.room).fold(self.budget.room(), Room::max);
        if room != self.room {
            self.room = room;
            self.effects.events.push(Event::Room { room, full: self.full().into_iter().collect() });
        }
    }

    /// What is refused for want of memory, in words.
    pub(super) fn memory_reason(&self) -> Option<String> {
        let refused = match self.room {
            Room::ForAll => return None,
            Room::ForKnown => "AoRs of which nothing is known",
            Room::ForRegistered => "AoRs without a contact",
        };
        Some(format!("memory is full at {}: {refused} get 403", names(&self.full())))
    }
}
