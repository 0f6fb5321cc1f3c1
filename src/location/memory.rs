//! What the table takes of the machine's memory, and for whom that leaves room. Numbers only: it allocates nothing, and
//! refuses nobody itself.
//!
//! **2026-11, what is counted.** The pieces of memory that the table holds, each as large as the allocator makes it: packed
//! records, buckets, AoRs that wait for the disk. Not the process's resident set: that does not shrink when contacts are
//! forgotten, for the allocator keeps what was freed, and holds what else the process needs (outboxes, buffers, the disk's
//! cache), which other bounds are for. Not counted either: [words](super::packed), 2 MiB at most.

/// Bytes that the allocator takes for a piece of memory: it has four sizes between two powers of two, and 16 bytes between
/// small ones.
pub(super) const fn taken(bytes: usize) -> usize {
    if bytes <= 8 {
        // Nothing for nothing.
        return if bytes == 0 { 0 } else { 8 };
    }
    let step = bytes.next_power_of_two() / 8;
    bytes.next_multiple_of(if step < 16 { 16 } else { step })
}

/// Which AoRs the memory of a node, or of the whole cluster, has room for. The greater, the stricter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Any.
    #[default]
    ForAll,
    /// Those of which anything is known, be it a removal: what comes back finds most of its memory taken already.
    ForKnown,
    /// Those with a live contact.
    ForRegistered,
}

impl Room {
    /// From the loosest.
    pub const ALL: [Self; 3] = [Self::ForAll, Self::ForKnown, Self::ForRegistered];
}

/// Above so many hundredths of its limit a table has room for fewer AoRs, step by step.
///
/// The second step is for phones that unregister before they register: of such a one something is known, whoever it is.
const STEPS_PERCENT: [u64; 2] = [100, 110];

/// A step is taken back when the table is so many hundredths of its limit below it, so that it does not go to and fro.
const BACK_PERCENT: u64 = 5;

/// A limit, and how the table stands to it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Budget {
    max_bytes: u64,
    room: Room,
}

impl Budget {
    /// Of `memory_max_mb`, here in bytes; 0 for no limit.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        Self { max_bytes, room: Room::ForAll }
    }

    /// The limit, bytes; 0 for none.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Whom the table has room for.
    #[must_use]
    pub fn room(&self) -> Room {
        self.room
    }

    /// The table takes so many bytes now.
    pub fn see(&mut self, bytes: u64) {
        if self.max_bytes == 0 {
            return;
        }
        let percent = u128::from(bytes) * 100 / u128::from(self.max_bytes);
        let passed = |(step, room): &(u64, Room)| {
            let back = if self.room >= *room { BACK_PERCENT } else { 0 };
            percent >= u128::from(step - back)
        };
        let rooms = STEPS_PERCENT.into_iter().zip([Room::ForKnown, Room::ForRegistered]);
        self.room = rooms.take_while(passed).last().map_or(Room::ForAll, |(_, room)| room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_takes_the_next_size_of_the_allocator() {
        let taken_of = [0, 1, 8, 9, 16, 17, 100, 128, 129, 160, 161, 257, 320, 1025, 4097, 20_480, 20_481];
        let sizes = [0, 8, 8, 16, 16, 32, 112, 128, 160, 160, 192, 320, 320, 1280, 5120, 20_480, 24_576];
        assert_eq!(taken_of.map(taken), sizes);
    }

    #[test]
    fn without_a_limit_there_is_room_for_all() {
        let mut budget = Budget::new(0);
        budget.see(u64::MAX);
        assert_eq!(budget.room(), Room::ForAll);
    }

    #[test]
    fn steps_are_taken_at_once_and_taken_back_a_little_below() {
        let mut budget = Budget::new(1_000_000);
        let turns = [
            (999_999, Room::ForAll),
            (1_000_000, Room::ForKnown),
            (960_000, Room::ForKnown),
            (1_099_999, Room::ForKnown),
            (1_100_000, Room::ForRegistered),
            (1_050_000, Room::ForRegistered),
            (1_049_999, Room::ForKnown),
            (1_090_000, Room::ForKnown),
            (950_000, Room::ForKnown),
            (949_999, Room::ForAll),
            (990_000, Room::ForAll),
            (9_000_000, Room::ForRegistered),
            (0, Room::ForAll),
        ];
        for (bytes, room) in turns {
            budget.see(bytes);
            assert_eq!(budget.room(), room, "{bytes}");
        }
    }
}
