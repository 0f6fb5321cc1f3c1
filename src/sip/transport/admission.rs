//! Seats for TCP connections: so many in all, so many for one source address. Decides nothing else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts connections against their bounds.
#[derive(Debug)]
pub(super) struct Admission {
    total_max: usize,
    per_source_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// One connection's seat, given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    admission: Arc<Admission>,
    source: IpAddr,
}

impl Admission {
    pub(super) fn new(total_max: usize, per_source_max: usize) -> Arc<Self> {
        Arc::new(Self { total_max, per_source_max, taken: Mutex::default() })
    }

    /// A seat for a connection from or to `source`, if one is free.
    pub(super) fn seat(self: &Arc<Self>, source: IpAddr) -> Option<Seat> {
        let mut taken = self.taken.lock();
        let of_source = taken.by_source.get(&source).copied().unwrap_or_default();
        if taken.total >= self.total_max || of_source >= self.per_source_max {
            return None;
        }
        taken.total += 1;
        taken.by_source.insert(source, of_source + 1);
        Some(Seat { admission: Arc::clone(self), source })
    }

    /// Seats taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.lock().total
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.admission.taken.lock();
        taken.total -= 1;
        let of_source = taken.by_source.get(&self.source).copied().unwrap_or_default();
        if of_source > 1 {
            taken.by_source.insert(self.source, of_source - 1);
        } else {
            taken.by_source.remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_by_source_and_in_all_and_come_back() {
        let admission = Admission::new(3, 2);
        let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = admission.seat(one).expect("free");
        let _second = admission.seat(one).expect("free");
        assert!(admission.seat(one).is_none(), "a third of one source");
        let _third = admission.seat(two).expect("free");
        assert!(admission.seat(two).is_none(), "a fourth in all");
        drop(first);
        assert_eq!(admission.taken(), 2);
        assert!(admission.seat(two).is_some());
    }
}
