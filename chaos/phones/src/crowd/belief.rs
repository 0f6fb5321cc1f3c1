//! What may be true of one phone's binding, given what it sent and what it was told. The certainty model. Pure: times are
//! milliseconds since any fixed instant.
//!
//! Every REGISTER of a phone is total: whatever was before, once it is done the phone is at one port, or nowhere. So what
//! may be true is the last thing that a 200 settled, or what any request since then asked for: while a request is open,
//! and after it ended without a 200, it may have been done or not.

/// Around the moment of its lapse a binding may be there or not, ms.
pub(crate) const LAPSE_TOLERANCE_MS: u64 = 1000;

/// Ports of a phone: it moves between these.
pub(crate) const PORTS: u8 = 8;

/// One way in which things may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum World {
    /// Not registered.
    Gone,
    /// Registered at a port; lapses within this span.
    At {
        /// Which port.
        port: u8,
        /// Not before this.
        from_ms: u64,
        /// Not after this.
        to_ms: u64,
    },
}

/// What must be said about a phone at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Must {
    /// It is served.
    Ring,
    /// It is not.
    NotRing,
    /// Nobody can know.
    Either,
}

/// Where a phone surely is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    /// At this port.
    Port(u8),
    /// Nowhere.
    Nowhere,
    /// Not sure.
    Unsure,
}

impl World {
    fn must(self, port: u8, now_ms: u64) -> Must {
        match self {
            World::At { port: at, from_ms, to_ms } if at == port => {
                if now_ms + LAPSE_TOLERANCE_MS < from_ms {
                    Must::Ring
                } else if now_ms > to_ms + LAPSE_TOLERANCE_MS {
                    Must::NotRing
                } else {
                    Must::Either
                }
            }
            _ => Must::NotRing,
        }
    }
}

/// All ways in which things may stand with one phone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Belief {
    /// What the last 200 settled; `None` = not registered.
    settled: Option<World>,
    /// What was asked since.
    asked: Vec<World>,
}

impl Belief {
    /// A request for this begins.
    pub(crate) fn asks(&mut self, wish: World) {
        // The same port again: one way with a wider span, so that this list is never longer than there are ports.
        for known in &mut self.asked {
            match (known, wish) {
                (World::Gone, World::Gone) => return,
                (
                    World::At { port, from_ms, to_ms },
                    World::At { port: wished, from_ms: wished_from_ms, to_ms: wished_to_ms },
                ) if *port == wished => {
                    *from_ms = (*from_ms).min(wished_from_ms);
                    *to_ms = (*to_ms).max(wished_to_ms);
                    return;
                }
                _ => {}
            }
        }
        self.asked.push(wish);
    }

    /// A 200 says that this is so.
    pub(crate) fn settles(&mut self, world: World) {
        self.settled = Some(world);
        self.asked.clear();
    }

    fn worlds(&self) -> impl Iterator<Item = World> {
        std::iter::once(self.settled.unwrap_or(World::Gone)).chain(self.asked.iter().copied())
    }

    /// What must be said about this port.
    pub(crate) fn must(&self, port: u8, now_ms: u64) -> Must {
        let mut worlds = self.worlds().map(|world| world.must(port, now_ms));
        let first = worlds.next().unwrap_or(Must::NotRing);
        if worlds.all(|must| must == first) { first } else { Must::Either }
    }

    /// Where the phone is.
    pub(crate) fn is_where(&self, now_ms: u64) -> Where {
        let mut sure = Where::Nowhere;
        for port in 0..PORTS {
            match self.must(port, now_ms) {
                Must::Ring => sure = Where::Port(port),
                Must::Either => return Where::Unsure,
                Must::NotRing => {}
            }
        }
        sure
    }

    /// The ports where it may be, as bits: what a total request must name.
    pub(crate) fn ports(&self, now_ms: u64) -> u8 {
        (0..PORTS).filter(|port| self.must(*port, now_ms) != Must::NotRing).fold(0, |bits, port| bits | 1 << port)
    }

    /// The port where the phone surely is or was last, and the span (ms) in which it lapses; `None` while anything else may
    /// be true.
    pub(crate) fn lapses(&self) -> Option<(u8, u64, u64)> {
        match self.settled {
            Some(World::At { port, from_ms, to_ms }) if self.is_settled() => Some((port, from_ms, to_ms)),
            _ => None,
        }
    }

    /// Whether a 200 answered the last thing that was asked.
    pub(crate) fn is_settled(&self) -> bool {
        self.asked.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(port: u8, lapse_ms: u64) -> World {
        World::At { port, from_ms: lapse_ms, to_ms: lapse_ms }
    }

    #[test]
    fn only_a_200_settles_anything() {
        let mut belief = Belief::default();
        assert_eq!(belief.is_where(0), Where::Nowhere);
        belief.asks(at(0, 60_000));
        assert_eq!((belief.must(0, 0), belief.must(1, 0)), (Must::Either, Must::NotRing));
        belief.settles(at(0, 60_000));
        assert_eq!(belief.is_where(1), Where::Port(0));
        belief.asks(at(1, 70_000));
        assert_eq!((belief.is_where(2), belief.ports(2)), (Where::Unsure, 0b11));
        belief.asks(World::Gone);
        assert_eq!(belief.must(0, 2), Must::Either);
        belief.settles(World::Gone);
        assert_eq!((belief.is_where(3), belief.ports(3)), (Where::Nowhere, 0));
    }

    #[test]
    fn a_binding_lapses_within_a_second_of_its_time() {
        let mut belief = Belief::default();
        belief.settles(World::At { port: 3, from_ms: 10_000, to_ms: 12_000 });
        let seen: Vec<Must> = [8_999, 9_000, 13_000, 13_001].map(|now| belief.must(3, now)).to_vec();
        assert_eq!(seen, [Must::Ring, Must::Either, Must::Either, Must::NotRing]);
    }

    #[test]
    fn an_unanswered_refresh_keeps_the_port_sure_while_both_would() {
        let mut belief = Belief::default();
        belief.settles(at(0, 60_000));
        belief.asks(at(0, 90_000));
        assert_eq!(belief.must(0, 10_000), Must::Ring);
        assert_eq!(belief.must(0, 70_000), Must::Either);
        assert_eq!(belief.must(0, 92_000), Must::NotRing);
    }

    /// One request: what it asks for, whether it is done, whether a 200 comes back.
    fn step() -> impl Strategy<Value = (Option<(u8, u64)>, bool, bool, u64)> {
        (proptest::option::of((0..PORTS, 1_u64..20_000)), any::<bool>(), any::<bool>(), 0_u64..5_000)
    }

    proptest! {
        /// A registrar that does what it says, at any moment within the request's time, is never accused; one that does
        /// not is, wherever the model is sure.
        #[test]
        fn what_an_honest_registrar_does_is_always_allowed(steps in proptest::collection::vec(step(), 1..40)) {
            let (mut belief, mut truth, mut now) = (Belief::default(), None::<(u8, u64)>, 0_u64);
            for (wish, done, answered, took) in steps {
                let (sent, ends) = (now, now + took);
                let world = |till: u64| wish.map_or(World::Gone, |(port, lives)| {
                    World::At { port, from_ms: sent + lives, to_ms: till + lives }
                });
                belief.asks(world(ends));
                let before = truth;
                if done || answered {
                    // Stamped at any time between: half way.
                    truth = wish.map(|(port, lives)| (port, sent + took / 2 + lives));
                }
                now = ends;
                if answered {
                    belief.settles(world(ends));
                }
                let live = |binding: Option<(u8, u64)>, port: u8| binding.is_some_and(|(p, lapse)| p == port && now < lapse);
                for port in 0..PORTS {
                    match belief.must(port, now) {
                        Must::Ring => prop_assert!(live(truth, port)),
                        Must::NotRing => prop_assert!(!live(truth, port)),
                        Must::Either => prop_assert!(!answered || truth.is_some_and(|(p, _)| p == port)),
                    }
                }
                prop_assert_eq!(belief.is_settled(), answered);
                prop_assert!(belief.asked.len() <= usize::from(PORTS) + 1);
                if !answered && !done && before.is_some_and(|(_, lapse)| lapse > now) {
                    prop_assert!(belief.ports(now) != 0 || !belief.is_settled());
                }
            }
        }
    }
}
