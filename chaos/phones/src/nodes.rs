//! The nodes as an SBC sees them: addresses, which of them answer, whose turn it is. It probes nothing itself.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// SIP addresses of a cluster. All are up until somebody (the prober of [`crate::Sbc`]) says otherwise.
#[derive(Debug)]
pub struct Nodes {
    addresses: Vec<SocketAddr>,
    up: Vec<AtomicBool>,
    turn: AtomicUsize,
}

/// Nodes at most: a round of failover tracks them in one word.
pub const NODES_MAX: usize = 64;

impl Nodes {
    /// # Errors
    /// No address, more than [`NODES_MAX`], one that is not loopback, or IPv4 and IPv6 mixed (one socket serves all).
    pub fn new(addresses: &[SocketAddr]) -> anyhow::Result<Self> {
        let Some(first) = addresses.first() else { anyhow::bail!("no node to talk to") };
        anyhow::ensure!(addresses.len() <= NODES_MAX, "more than {NODES_MAX} nodes");
        for address in addresses {
            anyhow::ensure!(address.ip().is_loopback(), "{address} is not loopback: phones talk to this machine only");
            anyhow::ensure!(address.is_ipv4() == first.is_ipv4(), "IPv4 and IPv6 nodes in one list");
        }
        let up = addresses.iter().map(|_| AtomicBool::new(true)).collect();
        Ok(Nodes { addresses: addresses.to_vec(), up, turn: AtomicUsize::new(0) })
    }

    /// The addresses, in order.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Is this node known to answer?
    #[must_use]
    pub fn is_up(&self, node: usize) -> bool {
        self.up[node].load(Ordering::Relaxed)
    }

    /// Notes whether a node answers; returns whether that is news.
    pub fn set_up(&self, node: usize, up: bool) -> bool {
        self.up[node].swap(up, Ordering::Relaxed) != up
    }

    /// The next node in turn that is not in `tried` (bits): one that is up, else any; `None` when all were tried.
    #[must_use]
    pub fn pick(&self, tried: u64) -> Option<usize> {
        let count = self.addresses.len();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let untried = || (0..count).map(|n| (turn + n) % count).filter(|n| tried >> n & 1 == 0);
        untried().find(|&n| self.is_up(n)).or_else(|| untried().next())
    }

    /// Any local address from which these nodes can be reached.
    pub(crate) fn local(&self) -> &'static str {
        if self.addresses[0].is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }
    }
}

#[cfg(test)]
mod tests {
    use super::Nodes;

    #[test]
    fn turns_skip_what_is_down_and_what_was_tried() {
        let addresses: Vec<_> = (1..4).map(|n| std::net::SocketAddr::from(([127, 0, 0, 1], n))).collect();
        let nodes = Nodes::new(&addresses).expect("loopback");
        nodes.set_up(1, false);
        let picks: Vec<_> = (0..6).filter_map(|_| nodes.pick(0)).collect();
        assert!(picks.contains(&0) && picks.contains(&2) && !picks.contains(&1), "{picks:?}");
        assert_eq!(nodes.pick(0b101), Some(1), "better a node that seems down than none");
        assert_eq!(nodes.pick(0b111), None);
        assert!(Nodes::new(&[([192, 0, 2, 1], 5060).into()]).is_err());
    }
}
