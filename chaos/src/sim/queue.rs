//! What is to happen, in the order of time, and of what was planned first. Decides nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Planned happenings. Only small keys are sorted: a run plans tens of thousands.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// When, which one in the order of planning, and its place.
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    places: Vec<T>,
    free: Vec<u32>,
}

impl<T: Copy> Queue<T> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), places: Vec::new(), free: Vec::new() }
    }

    /// Plans something; `order` is above that of whatever was planned before.
    pub(super) fn push(&mut self, at_us: u64, order: u64, what: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(what);
            self.places.len() as u32 - 1
        });
        self.places[place as usize] = what;
        self.heap.push(Reverse((at_us, order, place)));
    }

    /// Takes what comes next, if that is not after `until_us`: when, its order, what.
    pub(super) fn pop(&mut self, until_us: u64) -> Option<(u64, u64, T)> {
        self.heap.peek().filter(|Reverse((at_us, _, _))| *at_us <= until_us)?;
        let Reverse((at_us, order, place)) = self.heap.pop()?;
        self.free.push(place);
        Some((at_us, order, self.places[place as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_planned_first_for_a_moment_comes_first() {
        let mut queue = Queue::new();
        for (order, at_us) in [5, 3, 5, 1].into_iter().enumerate() {
            queue.push(at_us, order as u64, order);
        }
        assert_eq!(queue.pop(0), None);
        assert_eq!(queue.pop(4), Some((1, 3, 3)));
        queue.push(2, 4, 9);
        let rest: Vec<usize> = std::iter::from_fn(|| queue.pop(9)).map(|(_, _, what)| what).collect();
        assert_eq!(rest, [9, 1, 0, 2]);
        assert_eq!(queue.pop(u64::MAX), None);
    }
}
