//! The wall clocks of the cluster, looked at once a second: gossips how this node's stands, counts and logs what turned.
//! What is judged of them is `clock::wall`'s.

use std::collections::BTreeMap;

use aorta_proto::NodeId;

use super::core::Core;
use crate::clock::{WallEvent, wall_us};

/// The gossip key of a node's wall clock: by how many microseconds it is ahead of cluster time.
pub(super) const WALL_KEY: &str = "wall_ahead_us";

impl Core {
    /// One look; once a second.
    pub(super) fn compare_clocks(&self) {
        let members = self.gauges.members();
        let said = members.iter().filter_map(|member| {
            let ahead_us = member.values.get(WALL_KEY)?.parse().ok()?;
            Some((member.node.clone(), ahead_us))
        });
        let (events, news, skews_us) = {
            let mut clocks = self.wall_clocks.lock();
            let events = clocks.look(wall_us(), self.clock.now(), said.collect());
            (events, clocks.news(), clocks.skews_us())
        };
        self.gauges.skews(&skews_us);
        for event in &events {
            self.gauges.wall_clock(event);
            log(event);
        }
        if let (Some(ahead_us), Some(cluster)) = (news, &*self.cluster.load())
            && let Err(error) = cluster.gossip(WALL_KEY, &ahead_us.to_string())
        {
            tracing::debug!(%error, "how this node's wall clock stands was not gossiped");
        }
    }

    /// Who is off by how much; empty when all agree.
    pub(super) fn clock_notes(&self) -> Vec<String> {
        self.wall_clocks.lock().notes()
    }

    /// By how much other nodes' wall clocks are ahead of this one's, µs.
    pub(super) fn clock_skews_us(&self) -> BTreeMap<NodeId, i64> {
        self.wall_clocks.lock().skews_us()
    }
}

fn log(event: &WallEvent) {
    match event {
        WallEvent::Jumped { by_us } => {
            tracing::warn!(by_us, "this node's wall clock was set; contacts do not go by it");
        }
        WallEvent::Off { note } => tracing::warn!("{note}; contacts do not go by it, but logs and certificates do"),
        WallEvent::Right { node } => tracing::info!(%node, "its wall clock is right again"),
    }
}
