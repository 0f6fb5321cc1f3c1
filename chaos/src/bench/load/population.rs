//! The phones of a load: which of them asks next, and what it said last. It sends nothing.

use std::ops::Range;

use super::message::{FIRST_CSEQ, PHONES_MAX};

/// Steps through the phones so far apart that neighbours do not follow one another; a prime.
const STRIDE: u64 = 7_368_787;

/// Phones `0..capacity`, of which the first ones are registered.
#[derive(Debug)]
pub struct Population {
    /// The CSeq of the last REGISTER of each.
    cseqs: Vec<u32>,
    /// Whose REGISTER is not answered yet.
    asking: Vec<bool>,
    /// Phones below this were registered.
    registered: u32,
    cursor: u64,
    /// Whose REGISTER was refused; tried again as if they were new.
    refused: Vec<u32>,
}

/// Refused phones that are remembered.
const REFUSED_MAX: usize = 1 << 16;

impl Population {
    /// Nobody is registered.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        let capacity = capacity.min(PHONES_MAX) as usize;
        Self {
            cseqs: vec![FIRST_CSEQ; capacity],
            asking: vec![false; capacity],
            registered: 0,
            cursor: 0,
            refused: Vec::with_capacity(REFUSED_MAX),
        }
    }

    /// So many, all registered.
    #[must_use]
    pub fn all_registered(count: u32) -> Self {
        let mut all = Self::new(count);
        all.registered = all.capacity();
        all
    }

    /// How many were registered.
    #[must_use]
    pub fn registered(&self) -> u32 {
        self.registered
    }

    /// How many there may be.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.cseqs.len()).unwrap_or(PHONES_MAX)
    }

    /// The next phone that is not registered, with its CSeq; `None` when all are.
    pub(super) fn newcomer(&mut self, until: u32) -> Option<(u32, u32)> {
        if let Some(phone) = self.refused.pop() {
            self.asking[phone as usize] = true;
            self.cseqs[phone as usize] += 1;
            return Some((phone, self.cseqs[phone as usize]));
        }
        let phone = self.registered;
        (phone < until.min(self.capacity())).then(|| {
            self.registered += 1;
            self.asking[phone as usize] = true;
            (phone, self.cseqs[phone as usize])
        })
    }

    /// A registered phone of these that asks for nothing now, with its next CSeq; `None` when there is none.
    pub(super) fn refresher(&mut self, among: &Range<u32>) -> Option<(u32, u32)> {
        let tries = among.end.min(self.registered).saturating_sub(among.start);
        for _ in 0..tries {
            let phone = self.anybody(among)?;
            let asking = &mut self.asking[phone as usize];
            if !*asking {
                *asking = true;
                let cseq = &mut self.cseqs[phone as usize];
                *cseq += 1;
                return Some((phone, *cseq));
            }
        }
        None
    }

    /// A registered phone of these.
    pub(super) fn anybody(&mut self, among: &Range<u32>) -> Option<u32> {
        let end = among.end.min(self.registered);
        let count = end.checked_sub(among.start).filter(|count| *count > 0)?;
        // A stride that the count divides would meet few of them.
        let stride = if STRIDE.is_multiple_of(count.into()) { 1 } else { STRIDE };
        self.cursor = (self.cursor + stride) % u64::from(count);
        Some(among.start + self.cursor as u32)
    }

    /// Its REGISTER was answered.
    pub(super) fn answered(&mut self, phone: u32) {
        self.asking[phone as usize] = false;
    }

    /// Its REGISTER was refused, or given up.
    pub(super) fn failed(&mut self, phone: u32) {
        self.answered(phone);
        if self.refused.len() < REFUSED_MAX {
            self.refused.push(phone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn everybody_registers_once_and_then_has_a_turn_in_each_round() {
        let mut phones = Population::new(1000);
        let new: Vec<_> = std::iter::from_fn(|| phones.newcomer(900)).collect();
        assert_eq!((new.len(), new[0], new[899].0), (900, (0, FIRST_CSEQ), 899));
        assert_eq!(phones.refresher(&(0..900)), None, "all of them ask");
        phones.failed(5);
        assert_eq!(phones.newcomer(900), Some((5, FIRST_CSEQ + 1)), "once more");
        assert_eq!(phones.newcomer(900), None);
        (0..900).for_each(|phone| phones.answered(phone));
        let round: BTreeSet<_> = (0..900).filter_map(|_| phones.refresher(&(0..900))).collect();
        assert_eq!((round.len(), round.first()), (900, Some(&(0, FIRST_CSEQ + 1))));
        phones.answered(17);
        assert_eq!(phones.refresher(&(0..900)), Some((17, FIRST_CSEQ + 2)));
        let few: BTreeSet<_> = (0..60).filter_map(|_| phones.anybody(&(10..40))).collect();
        assert_eq!((few.len(), few.first(), few.last()), (30, Some(&10), Some(&39)));
        assert_eq!(phones.anybody(&(950..1000)), None, "not registered yet");
    }
}
