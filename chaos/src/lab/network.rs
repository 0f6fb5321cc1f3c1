//! Links between the homes of a lab: what they do to packets, settable at any time, and what passed. The forwarding itself
//! is `switch`'s, the decisions are `link`'s.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::home::Home;
use super::switch::Switch;

/// Who is at an end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// Phones and SBC.
    Phones,
    /// A node.
    Node(usize),
    /// A peer that floods.
    Peer(usize),
}

/// Nodes that a lab has addresses for.
pub const NODES_MAX: usize = 180;
/// Flooding peers that it has addresses for.
pub const PEERS_MAX: usize = 50;

impl End {
    /// Its address: 10.77.0.1 are the phones, nodes follow from .11 on, peers from .201.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        let host = match self {
            End::Phones => 1,
            End::Node(number) => 11 + number % NODES_MAX,
            End::Peer(number) => 201 + number % PEERS_MAX,
        };
        Ipv4Addr::new(10, 77, 0, u8::try_from(host).unwrap_or(u8::MAX))
    }
}

/// What one direction of a link does to packets. The default passes all at once.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkProfile {
    /// Time that a packet takes.
    pub delay: Duration,
    /// It is up to this much shorter or longer, evenly; packets overtake one another by it.
    pub jitter: Duration,
    /// Share of packets that get lost, 0 to 1.
    pub loss: f64,
    /// Share that arrives twice.
    pub duplicate: f64,
    /// Share that is overtaken by those which follow within 20 ms.
    pub reorder: f64,
    /// Bits a second; `None` is unlimited.
    pub bandwidth_bits_s: Option<u64>,
    /// Bytes that wait for their turn at that bandwidth; what comes beyond is dropped.
    pub queue_bytes: u64,
    /// Nothing passes.
    pub cut: bool,
}

/// What a home router keeps for a slow line.
const QUEUE_BYTES: u64 = 64 * 1024;

impl Default for LinkProfile {
    fn default() -> Self {
        Self::PLAIN
    }
}

impl LinkProfile {
    /// Nothing passes.
    pub const CUT: Self = Self { cut: true, ..Self::PLAIN };

    /// All passes at once.
    pub const PLAIN: Self = Self {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        loss: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
        bandwidth_bits_s: None,
        queue_bytes: QUEUE_BYTES,
        cut: false,
    };

    /// Whether packets just pass.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self { queue_bytes: self.queue_bytes, ..Self::PLAIN }
    }
}

/// What was sent on one direction of a link since the lab began, and what became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Traffic {
    /// Packets sent.
    pub packets: u64,
    /// Bytes sent, IP headers included.
    pub bytes: u64,
    /// Dropped because the link was cut.
    pub cut: u64,
    /// Dropped by its loss.
    pub lost: u64,
    /// Dropped because its queue was full.
    pub overflowed: u64,
    /// Dropped because the receiver's kernel did not take them.
    pub refused: u64,
    /// Delivered twice.
    pub duplicated: u64,
}

/// All links of a lab.
#[derive(Debug)]
pub struct Network {
    switch: Switch,
}

impl Network {
    /// A switch without homes.
    pub(super) fn new(seed: u64) -> anyhow::Result<Self> {
        Ok(Self { switch: Switch::start(seed)? })
    }

    /// Makes a home at this end.
    pub(super) fn settle(&self, end: End) -> anyhow::Result<Home> {
        let name = match end {
            End::Phones => "phones".to_owned(),
            End::Node(number) => format!("node{}", number + 1),
            End::Peer(number) => format!("peer{}", number + 1),
        };
        let fits = match end {
            End::Phones => true,
            End::Node(number) => number < NODES_MAX,
            End::Peer(number) => number < PEERS_MAX,
        };
        anyhow::ensure!(fits, "a lab has addresses for {NODES_MAX} nodes and {PEERS_MAX} peers, none for {name}");
        let (home, device) = Home::apart(&name, end.address())?;
        Ok(home.plugged(self.switch.plug(end, device)?))
    }

    /// Sets what the direction `from` → `to` does from now on. Packets on their way arrive as they were to.
    pub fn set(&self, from: End, to: End, profile: &LinkProfile) {
        self.switch.set(from, to, profile);
    }

    /// Sets both directions.
    pub fn set_both(&self, one: End, other: End, profile: &LinkProfile) {
        self.set(one, other, profile);
        self.set(other, one, profile);
    }

    /// Sets all links between nodes, both directions.
    pub fn set_between_nodes(&self, profile: &LinkProfile) {
        let nodes: Vec<End> = self.ends().into_iter().filter(|end| matches!(end, End::Node(_))).collect();
        for (from, to) in pairs(&nodes) {
            self.set(from, to, profile);
        }
    }

    /// Sets both directions of all links of this end, to phones and peers too where `all`, else to nodes only.
    pub fn set_around(&self, end: End, profile: &LinkProfile, all: bool) {
        for other in self.ends() {
            if other != end && (all || matches!(other, End::Node(_))) {
                self.set_both(end, other, profile);
            }
        }
    }

    /// All links pass everything again.
    pub fn heal(&self) {
        for (from, to) in pairs(&self.ends()) {
            self.set(from, to, &LinkProfile::PLAIN);
        }
    }

    /// What was sent from `from` to `to`.
    #[must_use]
    pub fn traffic(&self, from: End, to: End) -> Traffic {
        self.switch.traffic(from, to)
    }

    /// Everybody that is plugged in.
    #[must_use]
    pub fn ends(&self) -> Vec<End> {
        self.switch.ends()
    }

    /// Bytes that nodes sent one another so far.
    #[must_use]
    pub fn bytes_between_nodes(&self) -> u64 {
        let nodes: Vec<End> = self.ends().into_iter().filter(|end| matches!(end, End::Node(_))).collect();
        pairs(&nodes).map(|(from, to)| self.traffic(from, to).bytes).sum()
    }
}

/// Every ordered pair of different ends.
fn pairs(ends: &[End]) -> impl Iterator<Item = (End, End)> {
    ends.iter().flat_map(move |from| ends.iter().filter(move |to| *to != from).map(move |to| (*from, *to)))
}
