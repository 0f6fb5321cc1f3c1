//! Requests in flight: which answer belongs to which, and which wait too long (RFC 3261 §17.1.2). It sends nothing.

use super::message::Values;

/// Requests in flight at most.
const PLACES: usize = 1 << 15;
/// First wait before a request is sent again, nanoseconds (RFC 3261 T1).
const T1_NS: u64 = 500_000_000;
/// Longest such wait (T2).
const T2_NS: u64 = 4_000_000_000;
/// After this long it is given up (64 T1).
const GIVEN_UP_NS: u64 = 64 * T1_NS;

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Register or refresh.
    Register,
    /// Ask for the bindings.
    Query,
    /// INVITE: where is it?
    Lookup,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) kind: Kind,
    pub(super) values: Values,
    pub(super) target: usize,
    pub(super) socket: usize,
    /// When it was due or, in a closed loop, sent.
    pub(super) due_ns: u64,
    again_ns: u64,
    wait_ns: u64,
}

/// What is to be done with a request that waits too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// Send it again.
    Again,
    /// Give it up; its place is free.
    GivenUp,
}

/// All requests in flight. Allocates nothing after its making.
#[derive(Debug)]
pub(super) struct Flight {
    places: Vec<Option<Request>>,
    free: Vec<usize>,
    /// Tells the next request from all before.
    generation: u64,
}

impl Flight {
    /// `generation`: whatever no earlier load of the same servers used.
    pub(super) fn new(generation: u64) -> Self {
        Self { places: vec![None; PLACES], free: (0..PLACES).rev().collect(), generation: generation % (1 << 40) }
    }

    /// Requests in flight.
    pub(super) fn len(&self) -> usize {
        PLACES - self.free.len()
    }

    /// Whether one more finds a place.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Takes a place, and completes the request with its branch; `None` when there is none.
    pub(super) fn begin(&mut self, mut request: Request, now_ns: u64) -> Option<Request> {
        let place = self.free.pop()?;
        self.generation += 1;
        request.values.branch = self.generation * PLACES as u64 + place as u64;
        (request.wait_ns, request.again_ns) = (T1_NS, now_ns + T1_NS);
        self.places[place] = Some(request);
        Some(request)
    }

    /// The request of this branch, which is then no longer in flight; `None` for the answer to a retransmission.
    pub(super) fn end(&mut self, branch: u64) -> Option<Request> {
        let place = (branch % PLACES as u64) as usize;
        let request = self.places[place].filter(|request| request.values.branch == branch)?;
        self.places[place] = None;
        self.free.push(place);
        Some(request)
    }

    /// When they were due, of all that have been sent again: they have waited for longer than anybody should.
    pub(super) fn overdue_ns(&self) -> impl Iterator<Item = u64> + '_ {
        self.places.iter().flatten().filter(|request| request.wait_ns > T1_NS).map(|request| request.due_ns)
    }

    /// Hands over every request that waited too long.
    pub(super) fn late(&mut self, now_ns: u64, mut each: impl FnMut(Request, Late)) {
        for (place, held) in self.places.iter_mut().enumerate() {
            let Some(request) = held.as_mut().filter(|request| request.again_ns <= now_ns) else { continue };
            if now_ns.saturating_sub(request.due_ns) >= GIVEN_UP_NS {
                each(*request, Late::GivenUp);
                *held = None;
                self.free.push(place);
            } else {
                request.wait_ns = (request.wait_ns * 2).min(T2_NS);
                request.again_ns = now_ns + request.wait_ns;
                each(*request, Late::Again);
            }
        }
    }
}

impl Request {
    /// One that has no branch yet.
    pub(super) fn new(
        kind: Kind,
        phone: u32,
        cseq: u32,
        target: usize,
        (socket, port): (usize, u16),
        due_ns: u64,
    ) -> Self {
        let values = Values { branch: 0, port, phone, cseq };
        Self { kind, values, target, socket, due_ns, again_ns: 0, wait_ns: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(phone: u32) -> Request {
        Request::new(Kind::Register, phone, 1, 0, (0, 40_000), 0)
    }

    #[test]
    fn an_answer_ends_its_request_once() {
        let mut flight = Flight::new(u64::MAX);
        let first = flight.begin(request(1), 0).expect("room");
        let second = flight.begin(request(2), 0).expect("room");
        assert_eq!(flight.end(second.values.branch).map(|request| request.values.phone), Some(2));
        assert!(flight.end(second.values.branch).is_none());
        let third = flight.begin(request(3), 0).expect("room");
        assert!(third.values.branch != second.values.branch, "though its place is the same");
        assert!(flight.end(second.values.branch).is_none());
        assert_eq!(flight.end(first.values.branch).map(|request| request.values.phone), Some(1));
        assert_eq!(flight.len(), 1);
        while flight.has_room() {
            assert!(flight.begin(request(4), 0).is_some());
        }
        assert!(flight.begin(request(5), 0).is_none());
    }

    #[test]
    fn what_was_sent_again_is_overdue_until_it_is_answered() {
        let mut flight = Flight::new(0);
        let first = flight.begin(request(1), 0).expect("room");
        flight.begin(request(2), 300_000_000).expect("room");
        flight.late(499_999_999, |_, _| panic!("nothing is late yet"));
        assert_eq!(flight.overdue_ns().count(), 0);
        flight.late(500_000_000, |request, _| assert_eq!(request.values.phone, 1));
        assert_eq!(flight.overdue_ns().collect::<Vec<_>>(), [0]);
        flight.end(first.values.branch);
        assert_eq!(flight.overdue_ns().count(), 0);
    }

    #[test]
    fn what_waits_is_sent_again_ever_more_seldom_and_then_given_up() {
        let mut flight = Flight::new(0);
        flight.begin(request(1), 0).expect("room");
        let mut said = Vec::new();
        for ms in (0..40_000_u64).step_by(100) {
            flight.late(ms * 1_000_000, |_, late| said.push((ms, late)));
        }
        assert_eq!(flight.overdue_ns().count(), 0, "given up");
        let again: Vec<u64> = said.iter().filter(|(_, late)| *late == Late::Again).map(|(ms, _)| *ms).collect();
        assert_eq!(again[..5], [500, 1500, 3500, 7500, 11_500]);
        assert_eq!(said.last().map(|(_, late)| *late), Some(Late::GivenUp));
        assert_eq!(flight.len(), 0);
    }
}
