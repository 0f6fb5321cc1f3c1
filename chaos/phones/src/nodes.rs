//! The nodes as an SBC sees them: addresses, which of them are in use and answer, whose turn it is. It probes nothing
//! itself.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// SIP addresses of a cluster. All are up until somebody (the prober of [`crate::Sbc`]) says otherwise.
#[derive(Debug)]
pub struct Nodes {
    /// A place that is taken once stays that node's.
    places: Vec<Place>,
    taken: Mutex<usize>,
    count: AtomicUsize,
    turn: AtomicUsize,
    local: IpAddr,
}

#[derive(Debug, Default)]
struct Place {
    address: OnceLock<SocketAddr>,
    used: AtomicBool,
    up: AtomicBool,
}

/// Nodes at most: a round of failover tracks them in one word.
pub const NODES_MAX: usize = 64;

impl Nodes {
    /// # Errors
    /// No address, more than [`NODES_MAX`], IPv4 and IPv6 mixed (one socket serves all), or one that is neither loopback
    /// nor, in a network namespace of this thread's own, private: phones talk to this machine only.
    pub fn new(addresses: &[SocketAddr]) -> anyhow::Result<Self> {
        let Some(first) = addresses.first() else { anyhow::bail!("no node to talk to") };
        check(first)?;
        let nodes = Nodes {
            places: (0..NODES_MAX).map(|_| Place::default()).collect(),
            taken: Mutex::new(0),
            count: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            local: towards(first)?,
        };
        nodes.set_used(addresses)?;
        Ok(nodes)
    }

    /// From now on these are in use, and no others; an address that is new takes a place of its own and counts as up.
    ///
    /// # Errors
    /// See [`Nodes::new`]; more than [`NODES_MAX`] in the course of time.
    pub fn set_used(&self, addresses: &[SocketAddr]) -> anyhow::Result<()> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |address: &SocketAddr| (0..*taken).any(|place| self.address(place) == *address);
        let mut fresh: Vec<SocketAddr> = addresses.iter().copied().filter(|address| !known(address)).collect();
        fresh.sort_unstable();
        fresh.dedup();
        anyhow::ensure!(*taken + fresh.len() <= NODES_MAX, "more than {NODES_MAX} nodes");
        for address in &fresh {
            check(address)?;
            anyhow::ensure!(address.is_ipv4() == self.local.is_ipv4(), "IPv4 and IPv6 nodes in one list");
        }
        // In the order given, so that the first of a list is the first.
        for address in addresses.iter().filter(|address| fresh.contains(address)) {
            if (0..*taken).any(|place| self.address(place) == *address) {
                continue;
            }
            let place = &self.places[*taken];
            // The lock is held: the place is free.
            let _ = place.address.set(*address);
            place.up.store(true, Ordering::Relaxed);
            *taken += 1;
        }
        self.count.store(*taken, Ordering::Release);
        for place in 0..*taken {
            self.places[place].used.store(addresses.contains(&self.address(place)), Ordering::Relaxed);
        }
        Ok(())
    }

    /// All that ever were in use: places count from 0.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Never: there is always one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The addresses, by place.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        (0..self.len()).map(|place| self.address(place)).collect()
    }

    /// The address at a place.
    #[must_use]
    pub fn address(&self, place: usize) -> SocketAddr {
        let address = self.places.get(place).and_then(|place| place.address.get());
        address.copied().unwrap_or_else(|| SocketAddr::new(self.local, 0))
    }

    /// Is this node to be asked at all?
    #[must_use]
    pub fn is_used(&self, node: usize) -> bool {
        self.places[node].used.load(Ordering::Relaxed)
    }

    /// Is this node known to answer?
    #[must_use]
    pub fn is_up(&self, node: usize) -> bool {
        self.places[node].up.load(Ordering::Relaxed)
    }

    /// Notes whether a node answers; returns whether that is news.
    pub fn set_up(&self, node: usize, up: bool) -> bool {
        self.places[node].up.swap(up, Ordering::Relaxed) != up
    }

    /// The next node in turn that is in use and not in `tried` (bits): one that is up, else any; `None` when all were
    /// tried.
    #[must_use]
    pub fn pick(&self, tried: u64) -> Option<usize> {
        let count = self.len();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let untried = || (0..count).map(|n| (turn + n) % count).filter(|n| tried >> n & 1 == 0 && self.is_used(*n));
        untried().find(|&n| self.is_up(n)).or_else(|| untried().next())
    }

    /// A free port on the local address from which these nodes are reached.
    pub(crate) fn local(&self) -> SocketAddr {
        SocketAddr::new(self.local, 0)
    }
}

/// The local address that a datagram to `node` would have.
fn towards(node: &SocketAddr) -> anyhow::Result<IpAddr> {
    let any: SocketAddr = if node.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(node)?;
    Ok(socket.local_addr()?.ip())
}

/// Loopback, or private in a namespace of one's own.
pub(crate) fn check(address: &SocketAddr) -> anyhow::Result<()> {
    let ip = address.ip();
    let private = match ip {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    };
    anyhow::ensure!(
        ip.is_loopback() || (private && is_own_network()),
        "{address} is not loopback: phones talk to this machine only, or to private addresses in a network namespace of \
         their own"
    );
    Ok(())
}

/// Whether this thread is in another network namespace than the first process of the machine, or than the first thread of
/// this one, where the other may not be looked at.
fn is_own_network() -> bool {
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).ok();
    let own = namespace("thread-self");
    own.is_some() && ["1", "self"].iter().filter_map(|of| namespace(of)).any(|first| Some(first) != own)
}

#[cfg(test)]
mod tests {
    use super::Nodes;
    use std::net::SocketAddr;

    fn addresses(ports: std::ops::Range<u16>) -> Vec<SocketAddr> {
        ports.map(|n| SocketAddr::from(([127, 0, 0, 1], n))).collect()
    }

    #[test]
    fn turns_skip_what_is_down_and_what_was_tried() {
        let nodes = Nodes::new(&addresses(1..4)).expect("loopback");
        nodes.set_up(1, false);
        let picks: Vec<_> = (0..6).filter_map(|_| nodes.pick(0)).collect();
        assert!(picks.contains(&0) && picks.contains(&2) && !picks.contains(&1), "{picks:?}");
        assert_eq!(nodes.pick(0b101), Some(1), "better a node that seems down than none");
        assert_eq!(nodes.pick(0b111), None);
        assert!(Nodes::new(&[([192, 0, 2, 1], 5060).into()]).is_err());
    }

    #[test]
    fn nodes_come_and_go_and_keep_their_places() {
        let nodes = Nodes::new(&addresses(1..3)).expect("loopback");
        nodes.set_used(&addresses(2..4)).expect("one more");
        assert_eq!(nodes.addresses(), addresses(1..4));
        let picks: Vec<_> = (0..6).filter_map(|_| nodes.pick(0)).collect();
        assert!(!picks.contains(&0) && picks.contains(&1) && picks.contains(&2), "{picks:?}");
        nodes.set_used(&addresses(1..2)).expect("an old one");
        assert_eq!((nodes.pick(0), nodes.len()), (Some(0), 3));
        assert!(nodes.set_used(&addresses(100..200)).is_err(), "too many");
    }
}
