//! The network between simulated nodes: connections like QUIC's (ordered, reliable, or broken), with delay, and paths that
//! can be cut one way. Knows no node.

use std::collections::{BTreeSet, VecDeque};

use aorta_proto::frame::Class;

/// A connection that hears nothing for so long breaks, µs.
pub(super) const IDLE_US: u64 = 2_000_000;

/// Less than this is often under way, bytes.
const NARROW_BYTES: usize = 16 << 10;

/// One end of a connection.
#[derive(Debug, Default)]
pub(super) struct End {
    /// This end believes that the connection serves.
    pub(super) open: bool,
    /// When it last heard the other end, µs.
    pub(super) heard_us: u64,
    /// Frames on their way to it, and when they arrive.
    pub(super) inbound: VecDeque<(u64, Vec<u8>)>,
    inbound_bytes: usize,
}

impl End {
    /// Takes the first frame under way, and says when the next one arrives.
    pub(super) fn take(&mut self) -> Option<(Vec<u8>, Option<u64>)> {
        let (_, bytes) = self.inbound.pop_front()?;
        self.inbound_bytes -= bytes.len();
        Some((bytes, self.inbound.front().map(|(at_us, _)| *at_us)))
    }

    /// Nothing is under way any more.
    pub(super) fn clear(&mut self) {
        self.inbound.clear();
        self.inbound_bytes = 0;
    }
}

/// A connection of one class between two nodes, the lower index first.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) ends: [End; 2],
}

const CLASSES: [Class; 2] = [Class::Live, Class::Bulk];

/// Which connection: two nodes, lower index first, and the class.
pub(super) type Pair = (usize, usize, Class);

/// A node whose way out takes only so much.
#[derive(Debug)]
pub(super) struct Thin {
    pub(super) node: usize,
    bytes_per_s: u64,
    /// What waits for longer than this keeps the writers waiting, µs.
    holds_us: u64,
    /// When all that was sent has left, µs.
    free_us: u64,
}

impl Thin {
    /// Less than a busy node has to say, or a little more.
    pub(super) fn of(node: usize, rng: &mut fastrand::Rng) -> Self {
        Self { node, bytes_per_s: rng.u64(2_000..60_000), holds_us: rng.u64(50_000..1_500_000), free_us: 0 }
    }

    /// Whether a node has to wait before it can send.
    pub(super) fn is_full(&self, from: usize, now_us: u64) -> bool {
        from == self.node && self.waits_us(now_us) > self.holds_us
    }

    /// How long it takes until all that was sent has left, µs.
    pub(super) fn waits_us(&self, now_us: u64) -> u64 {
        self.free_us.saturating_sub(now_us)
    }

    /// When so many bytes have left, µs.
    pub(super) fn takes(&mut self, bytes: usize, now_us: u64) -> u64 {
        self.free_us = self.free_us.max(now_us) + bytes as u64 * 1_000_000 / self.bytes_per_s;
        self.free_us
    }
}

/// All paths and connections.
#[derive(Debug)]
pub(super) struct Net {
    nodes: usize,
    /// A place for each [`Pair`], in the order of pairs: each frame asks several times.
    connections: Vec<Option<Connection>>,
    /// Directed paths on which nothing passes.
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// Bytes that may be under way in one direction before the writer has to wait.
    window_bytes: usize,
    last_id: u64,
}

pub(super) fn pair(one: usize, two: usize, class: Class) -> Pair {
    (one.min(two), one.max(two), class)
}

/// Which end of the connection `node` is.
pub(super) fn end_of(node: usize, pair: Pair) -> usize {
    usize::from(node == pair.1)
}

impl Net {
    pub(super) fn new(nodes: usize, window_bytes: usize) -> Self {
        let connections = (0..nodes * nodes * CLASSES.len()).map(|_| None).collect();
        Self { nodes, connections, cut: BTreeSet::new(), window_bytes, last_id: 0 }
    }

    /// Whether writers often have to wait.
    pub(super) fn is_narrow(&self) -> bool {
        self.window_bytes < NARROW_BYTES
    }

    fn place(&self, (one, two, class): Pair) -> usize {
        (one * self.nodes + two) * CLASSES.len() + usize::from(class == Class::Bulk)
    }

    pub(super) fn get(&self, pair: Pair) -> Option<&Connection> {
        self.connections[self.place(pair)].as_ref()
    }

    pub(super) fn get_mut(&mut self, pair: Pair) -> Option<&mut Connection> {
        let place = self.place(pair);
        self.connections[place].as_mut()
    }

    /// Both ends gave it up.
    pub(super) fn remove(&mut self, pair: Pair) {
        let place = self.place(pair);
        self.connections[place] = None;
    }

    /// Whether something sent now would pass.
    pub(super) fn passes(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// Whether a connection can be made.
    pub(super) fn passes_both_ways(&self, one: usize, two: usize) -> bool {
        self.passes(one, two) && self.passes(two, one)
    }

    /// Opens a connection in place of whatever was there.
    pub(super) fn open(&mut self, pair: Pair, now_us: u64) {
        self.last_id += 1;
        let end = || End { open: true, heard_us: now_us, ..End::default() };
        let place = self.place(pair);
        self.connections[place] = Some(Connection { id: self.last_id, ends: [end(), end()] });
    }

    /// Puts a frame on its way; the connection's number and when the frame arrives, if it is the first one under way to
    /// this end: the others follow it. Order is kept.
    pub(super) fn send(
        &mut self,
        from: usize,
        to: usize,
        class: Class,
        bytes: Vec<u8>,
        arrives_us: u64,
    ) -> Option<(u64, u64)> {
        let pair = pair(from, to, class);
        let connection = self.get_mut(pair)?;
        let id = connection.id;
        let end = &mut connection.ends[end_of(to, pair)];
        let arrives_us = end.inbound.back().map_or(arrives_us, |(last_us, _)| arrives_us.max(*last_us));
        end.inbound_bytes += bytes.len();
        end.inbound.push_back((arrives_us, bytes));
        (end.inbound.len() == 1).then_some((id, arrives_us))
    }

    /// Whether the writer towards `to` has room.
    pub(super) fn has_room(&self, from: usize, to: usize, class: Class) -> bool {
        let pair = pair(from, to, class);
        let Some(connection) = self.get(pair) else { return false };
        connection.ends[end_of(to, pair)].inbound_bytes < self.window_bytes
    }

    /// Connections of a node on which its end is open.
    pub(super) fn of(&self, node: usize) -> impl Iterator<Item = Pair> {
        let others = (0..self.nodes).filter(move |other| *other != node);
        let pairs = others.flat_map(move |other| CLASSES.map(|class| pair(node, other, class)));
        pairs.filter(move |pair| self.is_open(node, *pair))
    }

    /// Whether a node's end of a connection is open.
    pub(super) fn is_open(&self, node: usize, pair: Pair) -> bool {
        self.get(pair).is_some_and(|connection| connection.ends[end_of(node, pair)].open)
    }
}
