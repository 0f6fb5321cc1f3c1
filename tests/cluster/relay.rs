//! A network that can be cut: a UDP relay in front of each node, which others know only by the relay's address.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aorta::cli::layout;
use aorta_proto::frame::Class;

use super::{CLUSTER, Ca, DEADLINE, Node, Start};

const LOOK_EVERY: Duration = Duration::from_millis(20);

struct Relay {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cut: AtomicBool,
    stopped: AtomicBool,
}

/// Below the ports that the system gives to whoever asks for any.
fn free() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, layout::free_ports(1).unwrap()[0].cluster).into()
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LOOK_EVERY)).unwrap();
    socket
}

impl Relay {
    fn to(target: SocketAddr) -> Self {
        let front = socket();
        let address = front.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let mut backs: HashMap<SocketAddr, UdpSocket> = HashMap::new();
            let mut bytes = [0; 65_536];
            while !shared.stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = front.recv_from(&mut bytes) else { continue };
                let back = backs.entry(from).or_insert_with(|| {
                    let back = socket();
                    let (front, reader, shared) =
                        (front.try_clone().unwrap(), back.try_clone().unwrap(), Arc::clone(&shared));
                    std::thread::spawn(move || answers(&reader, &front, from, &shared));
                    back
                });
                if !shared.cut.load(Ordering::Relaxed) {
                    let _ = back.send_to(&bytes[..length], target);
                }
            }
        });
        Self { address, state }
    }

    fn cut(&self, cut: bool) {
        self.state.cut.store(cut, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Relaxed);
    }
}

fn answers(from: &UdpSocket, front: &UdpSocket, to: SocketAddr, state: &State) {
    let mut bytes = [0; 65_536];
    while !state.stopped.load(Ordering::Relaxed) {
        let Ok((length, _)) = from.recv_from(&mut bytes) else { continue };
        if !state.cut.load(Ordering::Relaxed) {
            let _ = front.send_to(&bytes[..length], to);
        }
    }
}

struct Net {
    relays: [Relay; 2],
    a: Node,
    b: Node,
}

impl Net {
    fn new() -> Self {
        let ca = Ca::new(CLUSTER);
        let at = [free(), free()];
        let relays = at.map(Relay::to);
        let start = |name, boot, n: usize, seeds: &[SocketAddr]| {
            Start::new(name, boot, seeds).at(at[n]).advertise(relays[n].address).run(ca.identity(name))
        };
        let a = start("a", 1, 0, &[]);
        let b = start("b", 2, 1, &[relays[0].address]);
        a.above.until("linked", |above| above.has("b"));
        b.above.until("linked", |above| above.has("a"));
        Self { relays, a, b }
    }

    fn cut(&self, cut: bool) {
        self.relays.iter().for_each(|relay| relay.cut(cut));
    }

    fn until(&self, what: &str, met: impl Fn(&Self) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !met(self) {
            assert!(Instant::now() < end, "not in time: {what}; {:#?}", self.a.cluster().links());
            std::thread::yield_now();
        }
    }

    /// Mends the network; returns how long it took until frames pass both ways.
    fn mend(&self) -> Duration {
        let before = Instant::now();
        let (linked_a, linked_b) =
            (self.a.above.received("b", Class::Live).len(), self.b.above.received("a", Class::Live).len());
        self.cut(false);
        // Said again whenever a link is new, as the cursor of the rooms above does.
        let end = before + DEADLINE;
        while self.a.above.received("b", Class::Live).len() == linked_a
            || self.b.above.received("a", Class::Live).len() == linked_b
        {
            assert!(Instant::now() < end, "frames do not pass: {:#?}", self.a.cluster().links());
            self.a.say(&self.b, Class::Live, 1);
            self.b.say(&self.a, Class::Live, 1);
            std::thread::yield_now();
        }
        before.elapsed()
    }
}

#[test]
fn a_short_cut_heals_within_a_race() {
    let net = Net::new();
    net.cut(true);
    net.until("silence", |net| net.a.cluster().links().iter().all(|link| link.silent > Duration::from_millis(2500)));
    let took = net.mend();
    assert!(took < Duration::from_millis(1200), "took {took:?}");
    net.until("healthy", |net| {
        let links = net.a.cluster().links();
        links.len() == 2 && links.iter().all(|link| link.silent < Duration::from_millis(500))
    });
}

#[test]
fn a_long_cut_ends_the_links_and_heals_as_fast() {
    let net = Net::new();
    net.cut(true);
    net.a.above.until("unlinked", |above| above.unlinked("b", Class::Live) == 1);
    net.b.above.until("unlinked", |above| above.unlinked("a", Class::Live) == 1);
    net.a.above.until("not shown", |above| above.members().is_empty());
    let took = net.mend();
    assert!(took < Duration::from_millis(1200), "took {took:?}");
    net.a.above.until("linked", |above| above.has("b") && above.members().len() == 1);
    net.b.above.until("linked", |above| above.has("a") && above.members().len() == 1);
}
