//! What must hold, each a sentence. Its model is what phones sent and heard, and nothing else.

use super::phones::Must;
use super::world::World;

impl World {
    /// At any time in which nothing is cut: a node that serves never denies a binding whose full 200 was sent, and never
    /// serves one whose removal was answered in full.
    pub(super) fn judge_answers(&mut self) -> Result<(), String> {
        for node in 0..self.nodes.len() {
            let (now_us, ahead_us) = (self.now_us, self.ahead_us);
            let id = self.nodes[node].id.clone();
            let Some((process, now)) = self.nodes[node].awake(now_us) else { continue };
            let serving = process.replication.serving();
            if !serving.requests {
                continue;
            }
            let (location, cluster_us) = (&process.location, now.cluster_us);
            for phone in &self.phones {
                let rings = location.get(&phone.aor, |record| phone.rings(record, cluster_us));
                let known = location.get(&phone.aor, |record| record.is_some());
                match phone.must(now_us, ahead_us) {
                    Must::Ring if !rings && (serving.denies_unknown || (known && self.judge_ghosts)) => {
                        return Err(format!("{id} denies {phone:?}, which was acknowledged"));
                    }
                    Must::NotRing if rings && self.judge_ghosts => {
                        return Err(format!("{id} serves {phone:?}, whose removal was acknowledged"));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Whether all that run are ready without reservations, and hold the same.
    pub(super) fn is_settled(&mut self) -> Result<(), String> {
        let mut root = None;
        for node in 0..self.nodes.len() {
            let now_us = self.now_us;
            let id = self.nodes[node].id.clone();
            let Some((process, now)) = self.nodes[node].awake(now_us) else { continue };
            let readiness = process.replication.readiness(now);
            if !readiness.ready || readiness.reason.is_some() {
                return Err(format!("{id} is not ready: {}", readiness.reason.unwrap_or_default()));
            }
            let mine = process.location.root();
            if *root.get_or_insert(mine) != mine {
                return Err(format!("the digest of {id} is another one"));
            }
        }
        Ok(())
    }

    /// Bounds that hold whatever happens.
    pub(super) fn judge_bounds(&mut self) -> Result<(), String> {
        for node in 0..self.nodes.len() {
            let now_us = self.now_us;
            let id = self.nodes[node].id.clone();
            let Some((process, now)) = self.nodes[node].awake(now_us) else { continue };
            let view = process.replication.view(now);
            if view.outbox_bytes > OUTBOX_BYTES_MAX || view.replies_waiting > REPLIES_MAX {
                let (bytes, replies) = (view.outbox_bytes, view.replies_waiting);
                return Err(format!("{id} keeps {bytes} bytes for others and {replies} replies"));
            }
        }
        Ok(())
    }
}

/// The outbox bound of the simulated nodes, bytes.
const OUTBOX_BYTES_MAX: usize = 64 << 20;

/// Replies that may wait at a simulated node.
const REPLIES_MAX: usize = 65_536;
