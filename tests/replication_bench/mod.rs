//! A bench for a few cores: perfect links, one clock that the test turns, gossip that is always fresh. Judges nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aorta::clock::{Clock, Now};
use aorta::location::Location;
use aorta::replication::{ClusterView, Effects, Event, Linked, Member, Replication, Settings, Start, TICK_US};
use aorta_proto::frame::{Class, Header};
use aorta_proto::{Aor, Binding, BindingParts, BootId, ContactKey, Entry, NodeId, Record, Value};

/// Some moment, µs since 1970.
pub(crate) const EPOCH_US: u64 = 1_700_000_000_000_000;

struct Core {
    mono: Arc<AtomicU64>,
    clock: Arc<Clock>,
    location: Arc<Location>,
    replication: Replication<u32>,
    released: Vec<(u32, bool)>,
    events: Vec<Event>,
    disk: BTreeMap<Aor, Record>,
    commit_due: bool,
}

#[derive(Default)]
pub(crate) struct Bench {
    cores: BTreeMap<NodeId, Core>,
    links: BTreeSet<(NodeId, NodeId)>,
    /// Links with something to fetch.
    due: BTreeSet<(NodeId, NodeId, Class)>,
    now_us: u64,
    /// Processes that started so far.
    boots: u64,
    /// Nodes that gossip shows nobody yet.
    pub(crate) unheard: BTreeSet<NodeId>,
    /// Nodes to which gossip brings no news: what it showed them last.
    stale: BTreeMap<NodeId, Vec<Member>>,
    /// Nodes whose disk takes nothing.
    pub(crate) full: BTreeSet<NodeId>,
    /// Bytes of all frames.
    pub(crate) bytes: u64,
    /// Nodes that are reached by so many bytes a second.
    pub(crate) slow: BTreeMap<NodeId, u64>,
    /// When a path to a slow node takes the next frames, µs.
    taken_until_us: BTreeMap<(NodeId, NodeId), u64>,
}

pub(crate) fn id(name: &str) -> NodeId {
    NodeId::new(name).expect("a node id")
}

fn record(phone: u32, clock: &Clock) -> (Aor, Record) {
    let key = ContactKey::uri(b"sip:phone@192.0.2.1");
    let entry = Entry { key, stamp: clock.draw(), call_id_hash: 1, cseq: 1, uri_hash: 1, value: Value::Gone };
    (aor(phone), Record::from(entry))
}

fn aor(phone: u32) -> Aor {
    Aor::from_canonical(&format!("u{phone}@example.com"))
}

impl Bench {
    /// Three nodes that started together and are ready.
    pub(crate) fn of_three() -> Self {
        let mut bench = Self::default();
        for name in ["n1", "n2", "n3"] {
            bench.start_with(name, 2);
        }
        bench.link_all();
        bench.pass(2_000_000);
        for name in ["n1", "n2", "n3"] {
            assert!(bench.is_ready(name), "{name}: {:?}", bench.reason(name));
        }
        bench
    }

    pub(crate) fn start(&mut self, name: &str, settle: impl FnOnce(&mut Settings), start: Start) {
        let mono = Arc::new(AtomicU64::new(self.now_us + 1_000_000));
        self.boots += 1;
        let mut settings = Settings::new(id(name), BootId(self.boots));
        settle(&mut settings);
        let clock = Arc::new(Clock::manual(Arc::clone(&mono), settings.boot));
        let location = Arc::new(Location::new([7; 16], true));
        let (table, time) = (Arc::clone(&location), Arc::clone(&clock));
        let replication = Replication::new(settings, start, table, time, clock.now());
        let (released, events, disk, commit_due) = (Vec::new(), Vec::new(), BTreeMap::new(), false);
        let core = Core { mono, clock, location, replication, released, events, disk, commit_due };
        self.cores.insert(id(name), core);
    }

    /// Starts one with an empty disk that starts a cluster of no fewer nodes.
    pub(crate) fn start_with(&mut self, name: &str, min_nodes: usize) {
        let start = Start { wall_us: EPOCH_US, ..Start::default() };
        self.start(name, |settings| settings.bootstrap_min_nodes = min_nodes, start);
    }

    pub(crate) fn core(&self, name: &str) -> &Replication<u32> {
        &self.cores[&id(name)].replication
    }

    pub(crate) fn now(&self, name: &str) -> Now {
        self.cores[&id(name)].clock.now()
    }

    pub(crate) fn cluster_us(&self, name: &str) -> u64 {
        self.now(name).cluster_us
    }

    pub(crate) fn is_ready(&self, name: &str) -> bool {
        self.core(name).serving().requests
    }

    pub(crate) fn reason(&self, name: &str) -> String {
        self.core(name).readiness(self.now(name)).reason.unwrap_or_default()
    }

    pub(crate) fn view(&self, name: &str) -> ClusterView {
        self.core(name).view(self.now(name))
    }

    /// Replies that went out since the last time: which, and whether short.
    pub(crate) fn released(&mut self, name: &str) -> Vec<(u32, bool)> {
        self.cores.get_mut(&id(name)).map(|core| std::mem::take(&mut core.released)).unwrap_or_default()
    }

    /// What happened since the last time.
    pub(crate) fn events(&mut self, name: &str) -> Vec<Event> {
        self.cores.get_mut(&id(name)).map(|core| std::mem::take(&mut core.events)).unwrap_or_default()
    }

    pub(crate) fn knows(&self, name: &str, phone: u32) -> bool {
        self.cores[&id(name)].location.get(&aor(phone), |record| record.is_some())
    }

    /// Whether its disk has what the table has of a phone.
    pub(crate) fn has_on_disk(&self, name: &str, phone: u32) -> bool {
        let core = &self.cores[&id(name)];
        core.location.get(&aor(phone), |record| record.is_some() && record == core.disk.get(&aor(phone)))
    }

    /// Commits where one is due, and the disk takes it; whether there was one.
    fn commit_all(&mut self) -> bool {
        let due = |(node, core): &(&NodeId, &Core)| core.commit_due && !self.full.contains(node);
        let due: Vec<NodeId> = self.cores.iter().filter(due).map(|(node, _)| node.clone()).collect();
        for node in &due {
            let Some(core) = self.cores.get_mut(node) else { continue };
            core.commit_due = false;
            let commit = core.replication.begin_commit();
            for tag in core.location.take_awaited() {
                core.disk.extend(core.location.take_records(tag));
            }
            let effects = core.replication.committed(commit, core.clock.now());
            self.take(node.as_str(), effects);
        }
        !due.is_empty()
    }

    /// Writes at one node and tells nobody.
    pub(crate) fn write(&mut self, name: &str, phone: u32) {
        let core = &self.cores[&id(name)];
        // The stamp decides, so that equal writes at several nodes are one write.
        let key = ContactKey::uri(b"sip:phone@192.0.2.1");
        let mut stamp = core.clock.draw();
        (stamp.time_us, stamp.boot) = (EPOCH_US + u64::from(phone), BootId(1));
        let entry = Entry { key, stamp, call_id_hash: 1, cseq: 1, uri_hash: 1, value: Value::Gone };
        core.location.apply(&aor(phone), Record::from(entry));
    }

    /// Writes at one node and publishes, as a registrar does.
    pub(crate) fn register(&mut self, name: &str, phone: u32) {
        let (aor, delta) = record(phone, &self.cores[&id(name)].clock);
        self.publish(name, phone, &aor, &delta);
    }

    /// The same of a contact that rings for so many seconds.
    pub(crate) fn grant(&mut self, name: &str, phone: u32, granted_s: u32) {
        let (aor, mut delta) = record(phone, &self.cores[&id(name)].clock);
        let binding = Binding::from(&BindingParts {
            first: delta.entries[0].stamp,
            granted_s,
            uri: b"sip:phone@192.0.2.1",
            params: b"",
            q: None,
            path: &[],
            call_id: b"call-id",
            user_agent: b"",
            source: b"",
            accepted_by: &id(name),
        });
        delta.entries[0].value = Value::Live(Arc::new(binding));
        self.publish(name, phone, &aor, &delta);
    }

    fn publish(&mut self, name: &str, phone: u32, aor: &Aor, delta: &Record) {
        let core = &self.cores[&id(name)];
        let slot = core.replication.reserve().expect("a place");
        core.location.update(aor, |_| delta, |delta| Some(delta));
        let effects = core.replication.publish(slot, aor, delta, phone, core.clock.now());
        self.take(name, effects);
    }

    /// Publishes what the table has already, as a registrar does at a retransmission.
    pub(crate) fn repeat(&mut self, name: &str, phone: u32) {
        let core = &self.cores[&id(name)];
        let stored = core.location.get(&aor(phone), |record| record.cloned()).expect("known");
        let slot = core.replication.reserve().expect("a place");
        let effects = core.replication.publish(slot, &aor(phone), &stored, phone, core.clock.now());
        self.take(name, effects);
    }

    pub(crate) fn take(&mut self, name: &str, effects: Effects<u32>) {
        let me = id(name);
        self.due.extend(effects.wake.into_iter().map(|(peer, class)| (me.clone(), peer, class)));
        if let Some(core) = self.cores.get_mut(&me) {
            core.released.extend(effects.released.into_iter().map(|released| (released.reply, released.short)));
            core.events.extend(effects.events);
            core.commit_due |= effects.commit_due;
        }
    }

    /// Links everybody who is not linked yet.
    pub(crate) fn link_all(&mut self) {
        let ids: Vec<NodeId> = self.cores.keys().cloned().collect();
        for one in &ids {
            for two in ids.iter().filter(|two| *two > one) {
                if self.links.insert((one.clone(), two.clone())) {
                    self.link(one, two);
                }
            }
        }
    }

    /// Links these two only.
    pub(crate) fn link_two(&mut self, one: &str, two: &str) {
        let (one, two) = (id(one).min(id(two)), id(one).max(id(two)));
        assert!(self.links.insert((one.clone(), two.clone())), "were not linked");
        self.link(&one, &two);
    }

    fn link(&mut self, one: &NodeId, two: &NodeId) {
        for class in [Class::Live, Class::Bulk] {
            for (from, to) in [(one, two), (two, one)] {
                let hello = self.core(from.as_str()).hello(self.now(from.as_str()));
                let (linked, effects) = self.core(to.as_str()).linked(from, class, &hello, self.now(to.as_str()));
                assert_eq!(linked, Linked::Accepted);
                self.take(to.as_str(), effects);
            }
        }
    }

    pub(crate) fn unlink(&mut self, one: &str, two: &str) {
        let (one, two) = (id(one).min(id(two)), id(one).max(id(two)));
        assert!(self.links.remove(&(one.clone(), two.clone())), "were linked");
        for class in [Class::Live, Class::Bulk] {
            self.lose(one.as_str(), two.as_str(), class);
        }
    }

    /// One connection of a link is lost, at both ends.
    pub(crate) fn lose(&mut self, one: &str, two: &str, class: Class) {
        for (node, peer) in [(one, two), (two, one)] {
            let effects = self.core(node).unlinked(&id(peer), class, self.now(node));
            self.take(node, effects);
        }
    }

    /// A process is gone; the others do not hear of it.
    pub(crate) fn kill(&mut self, name: &str) {
        self.cores.remove(&id(name));
    }

    /// Lets time pass: timers, gossip, and every frame at once.
    pub(crate) fn pass(&mut self, us: u64) {
        let until_us = self.now_us + us;
        self.carry_and_commit();
        while self.now_us < until_us {
            self.now_us = (self.now_us + TICK_US).min(until_us);
            for core in self.cores.values() {
                core.mono.store(self.now_us + 1_000_000, Ordering::Release);
            }
            let ids: Vec<NodeId> = self.cores.keys().cloned().collect();
            for node in &ids {
                let effects = self.core(node.as_str()).timeout(self.now(node.as_str()));
                self.take(node.as_str(), effects);
                let view = self.members_of(node);
                let effects = self.core(node.as_str()).members(view, self.now(node.as_str()));
                self.take(node.as_str(), effects);
            }
            self.carry_and_commit();
        }
    }

    fn carry_and_commit(&mut self) {
        self.carry();
        while self.commit_all() {
            self.carry();
        }
    }

    /// Lets time pass in which no frame gets through; no link breaks.
    pub(crate) fn stall(&mut self, us: u64) {
        let until_us = self.now_us + us;
        while self.now_us < until_us {
            self.now_us = (self.now_us + TICK_US).min(until_us);
            let ids: Vec<NodeId> = self.cores.keys().cloned().collect();
            for node in &ids {
                self.cores[node].mono.store(self.now_us + 1_000_000, Ordering::Release);
                let effects = self.core(node.as_str()).timeout(self.now(node.as_str()));
                self.take(node.as_str(), effects);
            }
        }
    }

    /// Time passes in which nobody runs.
    pub(crate) fn stop_all(&mut self, us: u64) {
        self.now_us += us;
        for core in self.cores.values() {
            core.mono.store(self.now_us + 1_000_000, Ordering::Release);
        }
    }

    /// From here on gossip brings a node no news, until [`Self::hears_again`].
    pub(crate) fn hears_no_news(&mut self, name: &str) {
        let members = self.members_of(&id(name));
        self.stale.insert(id(name), members);
    }

    pub(crate) fn hears_again(&mut self, name: &str) {
        assert!(self.stale.remove(&id(name)).is_some(), "heard no news");
    }

    /// All are members of each other's view who are linked with anybody.
    fn members_of(&self, node: &NodeId) -> Vec<Member> {
        if self.unheard.contains(node) {
            return Vec::new();
        }
        if let Some(members) = self.stale.get(node) {
            return members.clone();
        }
        let linked = |id: &NodeId| self.links.iter().any(|(one, two)| one == id || two == id);
        let members = self.cores.iter().filter(|(id, _)| linked(id));
        members.filter_map(|(id, core)| Member::from_keys(id.clone(), &core.replication.gossip()).ok()).collect()
    }

    fn carry(&mut self) {
        let mut waiting = BTreeSet::new();
        while let Some((from, to, class)) = self.due.pop_first() {
            let until_us = self.slow.get(&to).and(self.taken_until_us.get(&(from.clone(), to.clone())));
            if until_us.is_some_and(|until_us| self.now_us < *until_us) {
                waiting.insert((from, to, class));
                continue;
            }
            let linked = self.links.contains(&(from.clone().min(to.clone()), from.clone().max(to.clone())));
            let mut bytes = Vec::new();
            let (Some(sender), true) = (self.cores.get(&from), linked) else { continue };
            if !sender.replication.transmit(&to, class, &mut bytes, sender.clock.now()) {
                continue;
            }
            self.due.insert((from.clone(), to.clone(), class));
            self.bytes += bytes.len() as u64;
            if let Some(per_second) = self.slow.get(&to) {
                let until_us = self.now_us + bytes.len() as u64 * 1_000_000 / per_second;
                self.taken_until_us.insert((from.clone(), to.clone()), until_us);
            }
            let mut rest = bytes.as_slice();
            while let Ok(Some(header)) = Header::read(rest) {
                let (frame, after) = rest.split_at(header.frame_bytes());
                rest = after;
                let Some(receiver) = self.cores.get(&to) else { break };
                let effects = receiver.replication.received(&from, class, frame, receiver.clock.now());
                let effects = effects.unwrap_or_else(|why| panic!("{to} refuses a frame of {from}: {why}"));
                self.take(to.as_str(), effects);
            }
        }
        self.due.extend(waiting);
    }
}
