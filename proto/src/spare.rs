//! Memory that a thread uses again and again: in the steady state a REGISTER, and a change that comes from elsewhere, allocate
//! nothing. Changes nobody's value, and keeps a bounded amount.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{SeqAccess, Visitor};

/// Pieces of memory of each kind that one thread keeps: some more than are in use at a time.
const KEPT_MAX: usize = 16;

/// Vectors with more places are not kept.
const PLACES_MAX: usize = 64;

/// Vectors that were given back, empty.
pub(crate) struct Vecs<T>(RefCell<Vec<Vec<T>>>);

impl<T> Vecs<T> {
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    /// An empty one, with places if there is one.
    pub(crate) fn take(&self) -> Vec<T> {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps one for the next that is taken.
    pub(crate) fn keep(&self, mut done: Vec<T>) {
        done.clear();
        let mut spare = self.0.borrow_mut();
        if (1..=PLACES_MAX).contains(&done.capacity()) && spare.len() < KEPT_MAX {
            spare.push(done);
        }
    }
}

/// Shared values that a thread made: one that nobody else holds any more becomes the next.
pub(crate) struct Shared<T>(RefCell<Made<T>>);

struct Made<T> {
    values: Vec<Arc<T>>,
    /// The next that is let go.
    next: usize,
}

impl<T> Shared<T> {
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(Made { values: Vec::new(), next: 0 }))
    }

    /// One that `assign` makes out of an earlier value, or `new` makes if there is none.
    pub(crate) fn make(&self, assign: impl FnOnce(&mut T), new: impl FnOnce() -> T) -> Arc<T> {
        self.0.borrow_mut().make(assign, new)
    }
}

impl<T> Made<T> {
    fn make(&mut self, assign: impl FnOnce(&mut T), new: impl FnOnce() -> T) -> Arc<T> {
        for kept in &mut self.values {
            if let Some(value) = Arc::get_mut(kept) {
                assign(value);
                return Arc::clone(kept);
            }
        }
        let value = Arc::new(new());
        if self.values.len() < KEPT_MAX {
            self.values.push(Arc::clone(&value));
        } else if let Some(kept) = self.values.get_mut(self.next) {
            // All are held, maybe for long: one after the other is left to who holds it.
            *kept = Arc::clone(&value);
            self.next = (self.next + 1) % KEPT_MAX;
        }
        value
    }
}

/// Reads a row of `T` into memory that is there. However long the row says that it is, it gets no more before it comes.
pub(crate) struct Each<T, Row>(Row, PhantomData<T>);

impl<T, Row> Each<T, Row> {
    pub(crate) fn into(row: Row) -> Self {
        Self(row, PhantomData)
    }
}

impl<'de, T: Deserialize<'de>, Row: Extend<T>> Visitor<'de> for Each<T, Row> {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut row: A) -> Result<Row, A::Error> {
        while let Some(next) = row.next_element()? {
            self.0.extend(Some(next));
        }
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(texts: &Shared<String>, is: &str) -> Arc<String> {
        let assign = |text: &mut String| {
            text.clear();
            text.push_str(is);
        };
        texts.make(assign, || is.to_owned())
    }

    #[test]
    fn what_is_given_back_is_used_again_and_empty() {
        let vecs = Vecs::new();
        let mut one = vecs.take();
        one.extend([1, 2, 3]);
        let at = one.as_ptr();
        vecs.keep(one);
        let again = vecs.take();
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
        vecs.keep(vec![0; PLACES_MAX + 1]);
        assert_eq!(vecs.take().capacity(), 0);
    }

    #[test]
    fn a_value_that_somebody_holds_stays_what_it_is() {
        let texts = Shared::new();
        let held = text(&texts, "held");
        let at = Arc::as_ptr(&text(&texts, "gone"));
        let other = text(&texts, "next");
        assert_eq!((held.as_str(), other.as_str()), ("held", "next"));
        assert_eq!(Arc::as_ptr(&other), at);
    }

    #[test]
    fn those_that_are_held_for_long_do_not_take_all_places() {
        let texts = Shared::new();
        let held: Vec<_> = (0..KEPT_MAX).map(|n| text(&texts, &n.to_string())).collect();
        let at = Arc::as_ptr(&text(&texts, "one more"));
        assert!((0..3).all(|_| Arc::as_ptr(&text(&texts, "again")) == at));
        assert!(held.iter().enumerate().all(|(n, value)| **value == n.to_string()));
    }
}
