//! Connections of the simulated world: who dials, what travels, what breaks. The rules of a real link are the nodes' own.

use aorta::replication::{Effects, Linked};
use aorta_proto::frame::Class;

use super::net::{IDLE_US, Pair, end_of, pair};
use super::world::{Happening, World};

/// Between two looks whether a path passes again, µs.
const STALLED_US: u64 = 10_000;

/// Of so many dials in 256, those of which nothing comes: a node is linked with one peer well before the next.
const DIALS_LOST_IN_256: u8 = 64;

impl World {
    pub(super) fn is_idle(&self, node: usize, pair: Pair) -> bool {
        let end = self.net.get(pair).map(|connection| &connection.ends[end_of(node, pair)]);
        end.is_some_and(|end| self.now_us.saturating_sub(end.heard_us) > IDLE_US)
    }

    /// Breaks a connection; an end whose process is stopped hears of it when it goes on.
    pub(super) fn close(&mut self, pair: Pair) {
        self.say(|| format!("the {:?} link of n{} and n{} breaks", pair.2, pair.0 + 1, pair.1 + 1));
        for node in [pair.0, pair.1] {
            let Some(connection) = self.net.get_mut(pair) else { return };
            let end = &mut connection.ends[end_of(node, pair)];
            end.clear();
            if !end.open || !self.nodes[node].is_awake() {
                continue;
            }
            end.open = false;
            let peer = self.nodes[pair.0 + pair.1 - node].id.clone();
            self.with(node, |process, now| ((), process.replication.unlinked(&peer, pair.2, now)));
        }
        let gone = self.net.get(pair).is_some_and(|connection| connection.ends.iter().all(|end| !end.open));
        if gone {
            self.net.remove(pair);
        }
    }

    /// Keep-alives, and dials where nothing is connected.
    pub(super) fn look_after_connections(&mut self) {
        for one in 0..self.nodes.len() {
            for two in one + 1..self.nodes.len() {
                for class in [Class::Live, Class::Bulk] {
                    self.look_after(one, two, class);
                }
            }
        }
    }

    fn look_after(&mut self, one: usize, two: usize, class: Class) {
        let pair = pair(one, two, class);
        let both_awake = self.nodes[one].is_awake() && self.nodes[two].is_awake();
        let both_open = self.net.get(pair).is_some_and(|connection| connection.ends.iter().all(|end| end.open));
        if both_open && both_awake {
            for (from, to) in [(one, two), (two, one)] {
                let passes = self.net.passes(from, to);
                let now_us = self.now_us;
                if let Some(connection) = self.net.get_mut(pair).filter(|_| passes) {
                    connection.ends[end_of(to, pair)].heard_us = now_us;
                }
            }
            return;
        }
        if both_awake && self.net.passes_both_ways(one, two) && !both_open {
            self.dial(pair);
        }
    }

    fn dial(&mut self, pair: Pair) {
        let (one, two, class) = pair;
        if self.rng.u8(..) < DIALS_LOST_IN_256 {
            return;
        }
        if self.nodes[one].process.as_ref().is_none_or(|process| process.leaving)
            || self.nodes[two].process.as_ref().is_none_or(|process| process.leaving)
        {
            return;
        }
        let mut accepted = Vec::new();
        for (from, to) in [(one, two), (two, one)] {
            let id = self.nodes[from].id.clone();
            let Some(hello) = self.with(from, |process, now| (process.replication.hello(now), Effects::default()))
            else {
                return;
            };
            let linked = self.with(to, |process, now| process.replication.linked(&id, class, &hello, now));
            if linked == Some(Linked::Accepted) {
                self.versions.hears(to, from);
                accepted.push((to, id));
            } else {
                self.say(|| format!("n{} takes no {class:?} link of {id}: {linked:?}", to + 1));
            }
        }
        if accepted.len() == 2 {
            let now_us = self.now_us;
            self.net.open(pair, now_us);
            self.say(|| format!("n{} and n{} are linked, {class:?}", one + 1, two + 1));
            if class == Class::Live {
                self.judge_return([one, two]);
            }
            for (from, to) in [(one, two), (two, one)] {
                self.after(1, Happening::Pump { from, to, class });
            }
            return;
        }
        // Who accepted gave up its old connection, and learns that the other did not.
        for (node, peer) in accepted {
            if let Some(connection) = self.net.get_mut(pair) {
                connection.ends[end_of(node, pair)].open = false;
            }
            self.with(node, |process, now| ((), process.replication.unlinked(&peer, class, now)));
        }
    }

    pub(super) fn pump(&mut self, from: usize, to: usize, class: Class) {
        let pair = pair(from, to, class);
        if !self.net.is_open(from, pair) {
            return;
        }
        let stopped = self.nodes[from].process.as_ref().is_some_and(|process| process.asleep);
        let full = self.thin.as_ref().is_some_and(|thin| thin.is_full(from, self.now_us));
        if stopped || full || !self.net.has_room(from, to, class) {
            self.after(STALLED_US, Happening::Pump { from, to, class });
            return;
        }
        let peer = self.nodes[to].id.clone();
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.clear();
        let wrote = self.with(from, |process, now| {
            (process.replication.transmit(&peer, class, &mut bytes, now), Effects::default())
        });
        if wrote == Some(true) {
            self.put_on_its_way((from, to, class), &bytes);
            self.after(50, Happening::Pump { from, to, class });
        }
        self.buffer = bytes;
    }

    /// Frames that a node wrote for another one.
    fn put_on_its_way(&mut self, (from, to, class): (usize, usize, Class), bytes: &[u8]) {
        let delay_us = if self.rng.u8(..) < 8 { self.rng.u64(1_000..60_000) } else { self.rng.u64(100..2_000) };
        let slow_us = if self.slow == Some(from) { self.rng.u64(200_000..700_000) } else { 0 };
        let sluggish = self.sluggish.is_some_and(|(one, other)| one == from && (other == to || other == from));
        // What has to wait for room is under way twice as long.
        let most_us = if self.net.is_narrow() { 110_000 } else { 200_000 };
        let sluggish_us = if sluggish { self.rng.u64(50_000..most_us) } else { 0 };
        // Of both the longer: with the way back it is less than an ack is awaited for.
        let delayed_us = slow_us + delay_us.max(sluggish_us);
        let pair = pair(from, to, class);
        for frame in frames(bytes) {
            let leaves_us = match self.thin.as_mut().filter(|thin| thin.node == from) {
                Some(thin) => thin.takes(frame.len(), self.now_us),
                None => self.now_us,
            };
            let arrives_us = leaves_us + delayed_us;
            self.alarm = self.alarm.take().or(self.versions.judge_written(from, frame).err());
            self.traffic.sends(from, class, frame);
            if let Some((id, at_us)) = self.net.send(from, to, class, frame.to_vec(), arrives_us) {
                self.at(at_us, Happening::Arrival { pair, id, end: end_of(to, pair) });
            }
        }
    }

    pub(super) fn arrive(&mut self, pair: Pair, id: u64, end: usize) {
        let to = if end == 0 { pair.0 } else { pair.1 };
        let from = pair.0 + pair.1 - to;
        let stalled =
            !self.net.passes(from, to) || self.nodes[to].process.as_ref().is_some_and(|process| process.asleep);
        let Some(connection) = self.net.get_mut(pair).filter(|connection| connection.id == id) else {
            return;
        };
        if stalled {
            self.after(STALLED_US, Happening::Arrival { pair, id, end });
            return;
        }
        let side = &mut connection.ends[end];
        if !side.open {
            return;
        }
        let Some((bytes, next_us)) = side.take() else { return };
        side.heard_us = self.now_us;
        if let Some(at_us) = next_us {
            self.at(at_us.max(self.now_us), Happening::Arrival { pair, id, end });
        }
        self.figures.frames += 1;
        self.note(bytes.len() as u64);
        self.alarm = self.alarm.take().or(self.versions.judge_read(to, &bytes).err());
        let peer = self.nodes[from].id.clone();
        let judged = self.with(to, |process, now| match process.replication.received(&peer, pair.2, &bytes, now) {
            Ok(effects) => (Ok(()), effects),
            Err(why) => (Err(why), Effects::default()),
        });
        if let Some(Err(why)) = judged {
            self.say(|| format!("n{} closes its link to {peer}: {why}", to + 1));
            self.close(pair);
        }
        let brittle = self.brittle.filter(|(node, _)| *node == from || *node == to);
        if brittle.is_some_and(|(_, in_256)| self.rng.u8(..) < in_256) {
            self.close(pair);
        }
    }
}

/// Cuts a buffer into its frames.
fn frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Ok(Some(header)) = aorta_proto::frame::Header::read(bytes) {
        let Some((frame, rest)) = bytes.split_at_checked(header.frame_bytes()) else { break };
        frames.push(frame);
        bytes = rest;
    }
    debug_assert!(bytes.is_empty(), "whole frames");
    frames
}
