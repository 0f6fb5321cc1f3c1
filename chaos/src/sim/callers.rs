//! How the simulated phones' requests reach nodes: as an SBC sends them, to one that serves, now and then to one that does
//! not answer.

use super::phones::Wish;
use super::world::World;

impl World {
    /// A phone asks some node, as an SBC would choose it: one that serves, now and then one that does not answer.
    pub(super) fn request(&mut self) {
        let now_us = self.now_us;
        let at = self.rng.usize(..self.phones.len());
        if self.phones[at].is_busy(now_us) {
            return;
        }
        let remove = self.phones[at].is_registered() && self.rng.u8(..) < 80;
        let granted_s = if self.rng.u8(..) < 40 { 8 } else { 3600 };
        let wish = if remove { Wish::Remove } else { Wish::Register { granted_s } };
        let nodes = self.nodes.len();
        let first = self.rng.usize(..nodes);
        for node in (0..nodes).map(|step| (first + step) % nodes) {
            let stopped = self.nodes[node].process.as_ref().is_some_and(|process| process.asleep);
            if stopped && self.rng.bool() {
                // Sent there and dropped as too old when the process goes on.
                self.order += 1;
                let id = self.order;
                self.phones[at].asks(id, wish, now_us);
                return;
            }
            if self.ask(at, wish, node) {
                return;
            }
        }
    }

    /// Whether the node took the request.
    fn ask(&mut self, at: usize, wish: Wish, node: usize) -> bool {
        let now_us = self.now_us;
        let serves = self.nodes[node].process.as_ref().is_some_and(|process| process.replication.serving().requests);
        if !serves || !self.nodes[node].is_awake() {
            return false;
        }
        self.order += 1;
        let id = self.order;
        self.phones[at].asks(id, wish, now_us);
        self.asked.insert(id, at);
        self.figures.requests += 1;
        let (aor, name) = (self.phones[at].aor.clone(), self.nodes[node].id.clone());
        let mut delta = None;
        let Some((process, now)) = self.nodes[node].awake(now_us) else { return false };
        let Some(slot) = process.replication.reserve() else { return false };
        let (clock, location) = (&process.clock, &process.location);
        let phone = &self.phones[at];
        location.update(&aor, |record| {
            let change = phone.delta(wish, record, clock.draw(), &name, id);
            delta = Some(change.clone());
            (Some(change), ())
        });
        let Some(delta) = delta else { return false };
        let effects = process.replication.publish(slot, &aor, &delta, id, now);
        self.carry_out(node, effects);
        true
    }
}
