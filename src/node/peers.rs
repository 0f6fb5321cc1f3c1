//! Between the links, which carry bytes, and replication, which thinks. Judges nothing.

use aorta_proto::frame::Class;
use aorta_proto::{BootId, NodeId};

use crate::cluster::{GossipMember, Peers, Refusal, RefusalKind};
use crate::replication::{Linked, Member};

use super::core::Core;

impl Peers for Core {
    fn hello(&self, _to: &NodeId) -> Vec<u8> {
        self.replication.hello(self.clock.now())
    }

    fn linked(&self, peer: &NodeId, _boot: BootId, class: Class, hello: &[u8]) -> Result<(), String> {
        let now = self.clock.now();
        let (linked, effects) = self.replication.linked(peer, class, hello, now);
        self.act(effects, now);
        match linked {
            Linked::Accepted => Ok(()),
            Linked::Refused(why) => Err(why),
            Linked::Myself => Err("it is this very process".to_owned()),
            Linked::AskAgain { .. } => {
                Err("another process under this name is being asked whether it lives".to_owned())
            }
        }
    }

    fn unlinked(&self, peer: &NodeId, class: Class, why: &str) {
        tracing::debug!(%peer, ?class, why, "link ended");
        let now = self.clock.now();
        let effects = self.replication.unlinked(peer, class, now);
        self.act(effects, now);
    }

    fn received(&self, peer: &NodeId, class: Class, frame: &[u8]) -> Result<(), String> {
        let now = self.clock.now();
        let effects = self.replication.received(peer, class, frame, now)?;
        self.act(effects, now);
        Ok(())
    }

    fn transmit(&self, peer: &NodeId, class: Class, buf: &mut Vec<u8>) -> bool {
        self.replication.transmit(peer, class, buf, self.clock.now())
    }

    fn seeds_unreached(&self, seeds: Vec<String>) {
        let now = self.clock.now();
        let effects = self.replication.seeds_unreached(seeds, now);
        self.act(effects, now);
    }

    fn members(&self, view: Vec<GossipMember>) {
        let now = self.clock.now();
        let members = view.iter().filter_map(|member| {
            let typed = Member::from_keys(member.node.clone(), &member.values);
            typed
                .inspect_err(|why| tracing::debug!(node = %member.node, why, "gossip of a member is not whole yet"))
                .ok()
        });
        let effects = self.replication.members(members.collect(), now);
        self.act(effects, now);
        self.seen_at(&view);
        self.gauges.seen(view);
    }

    fn refused(&self, refusal: &Refusal) {
        self.gauges.refused(refusal.kind);
        // A stranger that knocks says nothing about this node; being refused, or meeting a twin, does.
        if matches!(refusal.kind, RefusalKind::ByPeer | RefusalKind::Twin) {
            let who = refusal.peer.as_ref().map_or_else(|| refusal.address.to_string(), ToString::to_string);
            self.replication.refused(&who, &refusal.why, self.clock.now());
        }
    }
}
