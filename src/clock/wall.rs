//! How this node's wall clock runs, and how the wall clocks of the cluster compare. Only says so: cluster time needs no
//! wall clock once a node runs, and nothing here touches what is served. But logs, Date headers and certificates go by
//! wall clocks, and so does the first start of a cluster. Reads no clock.

use std::collections::BTreeMap;

use aorta_proto::NodeId;

use super::Now;

/// So many looks in a row must agree before a clock is called wrong: cluster time may just have been moved, and gossip
/// takes a moment to tell how each wall clock stands to it now.
const LOOKS_IN_A_ROW: u32 = 3;

/// What is gossiped of this node's wall clock is renewed when it changed by so much, µs: drift alone would have everybody
/// gossip for ever.
const TOLD_STEP_US: i64 = 250_000;

/// What an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WallEvent {
    /// Somebody set this node's wall clock, by so many µs.
    Jumped {
        /// Forward, or (negative) back.
        by_us: i64,
    },
    /// A wall clock is off by more than the bound.
    Off {
        /// A sentence that names node and time.
        note: String,
    },
    /// It is right again.
    Right {
        /// Whose.
        node: NodeId,
    },
}

/// The wall clocks of a cluster, as one node sees them.
#[derive(Debug)]
pub struct WallClocks {
    me: NodeId,
    bound_us: i64,
    /// Wall clock minus monotonic clock at the last look, µs.
    last_us: Option<i64>,
    told_us: Option<i64>,
    /// By how much each is ahead of cluster time, µs; this node's among them.
    ahead_us: BTreeMap<NodeId, i64>,
    off: BTreeMap<NodeId, Off>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Off {
    by_us: i64,
    looks: u32,
    said: bool,
}

impl WallClocks {
    /// Of node `me`; differences of more than `bound_s` seconds are worth a word (`clock_skew_warn_s`).
    #[must_use]
    pub fn new(me: NodeId, bound_s: u32) -> Self {
        let bound_us = i64::from(bound_s) * 1_000_000;
        Self { me, bound_us, last_us: None, told_us: None, ahead_us: BTreeMap::new(), off: BTreeMap::new() }
    }

    /// Looks at this node's wall clock, µs since 1970, and at what the others say of theirs: by how much each is ahead of
    /// cluster time, µs. Call it once a second; what it gives are turns, each said once.
    pub fn look(&mut self, wall_us: u64, now: Now, others: BTreeMap<NodeId, i64>) -> Vec<WallEvent> {
        let mut events = Vec::new();
        let over_mono_us = difference(wall_us, now.mono_us);
        let by_us = self.last_us.replace(over_mono_us).map_or(0, |last_us| over_mono_us - last_us);
        if by_us.abs() > self.bound_us {
            events.push(WallEvent::Jumped { by_us });
        }
        self.ahead_us = others;
        if now.cluster_us > now.mono_us {
            self.ahead_us.insert(self.me.clone(), difference(wall_us, now.cluster_us));
        }
        self.judge(&mut events);
        events
    }

    /// What to gossip: by how much this node's wall clock is ahead of cluster time, µs; `None` while that is told already,
    /// or not known.
    pub fn news(&mut self) -> Option<i64> {
        let ahead_us = *self.ahead_us.get(&self.me)?;
        if self.told_us.is_some_and(|told_us| (told_us - ahead_us).abs() < TOLD_STEP_US) {
            return None;
        }
        self.told_us.replace(ahead_us);
        Some(ahead_us)
    }

    /// By how much each other node's wall clock is ahead of this one's, µs.
    #[must_use]
    pub fn skews_us(&self) -> BTreeMap<NodeId, i64> {
        let Some(mine_us) = self.ahead_us.get(&self.me) else { return BTreeMap::new() };
        let others = self.ahead_us.iter().filter(|(node, _)| **node != self.me);
        others.map(|(node, ahead_us)| (node.clone(), ahead_us - mine_us)).collect()
    }

    /// Sentences that name who is off by how much; empty when all agree.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.off.iter().filter(|(_, off)| off.said).map(|(node, off)| self.note(node, off.by_us)).collect()
    }

    /// Who is off: of three or more, who differs from the middle one; of two nobody can tell, so it is the other.
    fn judge(&mut self, events: &mut Vec<WallEvent>) {
        let mut sorted: Vec<i64> = self.ahead_us.values().copied().collect();
        sorted.sort_unstable();
        let of_two = self.ahead_us.get(&self.me).copied().filter(|_| sorted.len() == 2);
        let Some(right_us) = of_two.or_else(|| sorted.get(sorted.len().saturating_sub(1) / 2).copied()) else { return };
        self.off.retain(|node, _| self.ahead_us.contains_key(node));
        for (node, ahead_us) in &self.ahead_us {
            let off = self.off.entry(node.clone()).or_default();
            off.by_us = ahead_us - right_us;
            // Between half the bound and the bound it stays what it was called last.
            let is_off = off.by_us.abs() > if off.said { self.bound_us / 2 } else { self.bound_us };
            off.looks = if is_off == off.said { 0 } else { off.looks + 1 };
        }
        let turned: Vec<NodeId> =
            self.off.iter().filter(|(_, off)| off.looks >= LOOKS_IN_A_ROW).map(|(n, _)| n.clone()).collect();
        for node in turned {
            let Some(off) = self.off.get_mut(&node) else { continue };
            (off.looks, off.said) = (0, !off.said);
            let Off { by_us, said, .. } = *off;
            events.push(if said {
                WallEvent::Off { note: self.note(&node, by_us) }
            } else {
                WallEvent::Right { node }
            });
        }
    }

    fn note(&self, node: &NodeId, by_us: i64) -> String {
        let whose = if *node == self.me { "this node's".to_owned() } else { format!("{node}'s") };
        let than = if self.ahead_us.len() > 2 { "the others'" } else { "this node's" };
        let direction = if by_us < 0 { "behind" } else { "ahead of" };
        format!("{whose} wall clock is {:.1} s {direction} {than}", by_us.unsigned_abs() as f64 / 1e6)
    }
}

fn difference(one_us: u64, two_us: u64) -> i64 {
    let us = i64::try_from(one_us.abs_diff(two_us)).unwrap_or(i64::MAX);
    if one_us < two_us { -us } else { us }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: i64 = 1_000_000;
    const WALL_US: u64 = 1_700_000_000_000_000;

    fn id(name: &str) -> NodeId {
        NodeId::new(name).expect("a node id")
    }

    /// A look after so many seconds at a wall clock that is off by `own_us`.
    fn look(clocks: &mut WallClocks, second: u64, own_us: i64, others: &[(&str, i64)]) -> Vec<WallEvent> {
        let now = Now { mono_us: 5_000_000 + second * 1_000_000, cluster_us: WALL_US + second * 1_000_000 };
        let others = others.iter().map(|(name, ahead_us)| (id(name), *ahead_us)).collect();
        clocks.look(now.cluster_us.saturating_add_signed(own_us), now, others)
    }

    #[test]
    fn a_clock_that_is_set_while_the_node_runs_is_seen_once_and_a_slow_one_never() {
        let mut clocks = WallClocks::new(id("n1"), 5);
        for second in 0..100 {
            assert_eq!(look(&mut clocks, second, second as i64 * 1000, &[]), []);
        }
        let hour_us = 3600 * SECOND_US;
        let events = look(&mut clocks, 100, 100_000 - hour_us, &[]);
        assert_eq!(events, [WallEvent::Jumped { by_us: 1000 - hour_us }]);
        assert_eq!(look(&mut clocks, 101, 101_000 - hour_us, &[]), []);
    }

    #[test]
    fn of_three_the_one_that_differs_is_named_once_and_again_when_it_is_right() {
        let mut clocks = WallClocks::new(id("n1"), 5);
        let off = [("n2", -3600 * SECOND_US), ("n3", 40_000)];
        for second in 0..2 {
            assert_eq!(look(&mut clocks, second, 0, &off), [], "cluster time may just have moved");
        }
        let note = "n2's wall clock is 3600.0 s behind the others'".to_owned();
        assert_eq!(look(&mut clocks, 2, 0, &off), [WallEvent::Off { note: note.clone() }]);
        for second in 3..20 {
            assert_eq!(look(&mut clocks, second, 0, &off), []);
        }
        assert_eq!(clocks.notes(), [note]);
        assert_eq!(clocks.skews_us().get(&id("n2")), Some(&(-3600 * SECOND_US)));
        let nearly = [("n2", -4 * SECOND_US), ("n3", 0)];
        (20..30).for_each(|second| assert_eq!(look(&mut clocks, second, 0, &nearly), [], "no flapping"));
        let right = [("n2", SECOND_US), ("n3", 0)];
        let events: Vec<WallEvent> = (30..40).flat_map(|second| look(&mut clocks, second, 0, &right)).collect();
        assert_eq!(events, [WallEvent::Right { node: id("n2") }]);
        assert!(clocks.notes().is_empty());
    }

    #[test]
    fn a_node_learns_that_it_is_itself_the_one_and_of_two_nobody_can_tell() {
        let mut clocks = WallClocks::new(id("n1"), 5);
        let others = [("n2", 0), ("n3", 0)];
        (0..5).for_each(|second| drop(look(&mut clocks, second, 60 * SECOND_US, &others)));
        assert_eq!(clocks.notes(), ["this node's wall clock is 60.0 s ahead of the others'"]);
        let mut clocks = WallClocks::new(id("n1"), 5);
        (0..5).for_each(|second| drop(look(&mut clocks, second, 60 * SECOND_US, &others[..1])));
        assert_eq!(clocks.notes(), ["n2's wall clock is 60.0 s behind this node's"]);
    }

    #[test]
    fn what_is_gossiped_is_renewed_only_when_it_changed() {
        let mut clocks = WallClocks::new(id("n1"), 5);
        assert_eq!(clocks.news(), None);
        drop(look(&mut clocks, 0, 700, &[]));
        assert_eq!(clocks.news(), Some(700));
        drop(look(&mut clocks, 1, 900, &[]));
        assert_eq!(clocks.news(), None);
        drop(look(&mut clocks, 2, -2 * SECOND_US, &[]));
        assert_eq!(clocks.news(), Some(-2 * SECOND_US));
    }
}
