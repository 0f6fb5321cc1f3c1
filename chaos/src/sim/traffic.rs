//! What travels between simulated nodes, and what it may cost: repair in proportion to the difference, nothing but roots
//! when nothing happens. Moves nothing.

use aorta_proto::frame::{Class, Frame, VERSION_MAX};

use super::world::World;

/// After a cut is over, each pair of nodes may cost so much though nothing differs, bytes.
const HEAL_PAIR_BYTES: u64 = 16_384;

/// And so much for each entry that differs between two of them: both may repair it, and whoever they repair with.
const HEAL_ENTRY_BYTES: u64 = 4_096;

/// After a cut is over, all digests are equal when each pair of nodes has made so many exchanges, on average.
const HEAL_PAIR_EXCHANGES: u64 = 6;

/// Who loses its place to an outbox that overflows after that makes so many more with each other node: it joins again, and
/// each compares with it.
const OVERFLOW_EXCHANGES: u64 = 2;

/// What an idle node may say to each other one, bytes a second: a root now and then, and that it lives.
const IDLE_BYTES_PER_S: u64 = 400;

/// What has travelled since it was last asked.
#[derive(Debug, Default, Clone)]
pub(super) struct Traffic {
    bulk_bytes: u64,
    bytes: u64,
    exchanges: u64,
    /// A frame that is nothing that an idle node says.
    busy: Option<String>,
    watches: bool,
}

impl Traffic {
    pub(super) fn sends(&mut self, from: usize, class: Class, frame: &[u8]) {
        self.bytes += frame.len() as u64;
        self.bulk_bytes += if class == Class::Bulk { frame.len() as u64 } else { 0 };
        if !self.watches || self.busy.is_some() {
            return;
        }
        let calm = matches!(
            Frame::decode(frame, VERSION_MAX),
            Ok((_, Frame::Ping { .. } | Frame::Pong { .. } | Frame::Begin { .. } | Frame::Root { .. }))
        );
        if !calm {
            self.busy = Some(format!("n{} says {:?}", from + 1, Frame::decode(frame, VERSION_MAX)));
        }
    }

    /// An exchange ended well.
    pub(super) fn exchanged(&mut self) {
        self.exchanges += 1;
    }
}

impl World {
    /// Of how many entries two nodes that run have different stamps, for each two of them, summed up.
    pub(super) fn difference(&mut self) -> u64 {
        let mut tables = Vec::new();
        let (now_us, lines) = (self.now_us, &self.lines);
        for process in self.nodes.iter_mut().filter_map(|node| node.awake(now_us)).map(|(process, _)| process) {
            let listed = lines.iter().enumerate().flat_map(|(line, of)| {
                let mut record = process.location.get(&of.aor, |record| record.cloned()).unwrap_or_default();
                let entries = std::mem::take(&mut record.entries).into_iter();
                let entries = entries.map(move |entry| (line, Some(entry.key), entry.stamp));
                entries.chain(record.cleared.map(|cleared| (line, None, cleared.stamp)))
            });
            tables.push(listed.collect::<std::collections::BTreeSet<_>>());
        }
        let pairs =
            tables.iter().enumerate().flat_map(|(at, one)| tables.iter().skip(at + 1).map(move |two| (one, two)));
        pairs.map(|(one, two)| one.symmetric_difference(two).count() as u64).sum()
    }

    /// What it cost to become the same again after a cut, against what was different when it was over and how many outboxes
    /// overflowed since.
    pub(super) fn judge_repair(&mut self, before: &Traffic, differed: u64, overflows: u64) -> Result<(), String> {
        let running = self.nodes.iter().filter(|node| node.is_awake()).count() as u64;
        let pairs = running * running.saturating_sub(1) / 2;
        let bytes = self.traffic.bulk_bytes - before.bulk_bytes;
        let exchanges = self.traffic.exchanges - before.exchanges;
        let figures = &mut self.figures;
        figures.heals += 1;
        figures.differed += differed;
        figures.repair_bytes += bytes;
        let most = HEAL_PAIR_BYTES * pairs + HEAL_ENTRY_BYTES * differed;
        if bytes > most {
            return Err(format!("{bytes} bytes repaired {differed} differences, at most {most} are due"));
        }
        if exchanges > HEAL_PAIR_EXCHANGES * pairs + OVERFLOW_EXCHANGES * running * overflows {
            return Err(format!("it took {exchanges} exchanges of {running} nodes to become the same"));
        }
        Ok(())
    }

    /// Nothing happens: what is said must be next to nothing.
    pub(super) fn judge_idle(&mut self, us: u64) -> Result<(), String> {
        let nodes = self.nodes.iter().filter(|node| node.is_awake()).count() as u64;
        let before = self.traffic.bytes;
        self.traffic.watches = true;
        self.run(us, |_| Ok(false))?;
        self.traffic.watches = false;
        if let Some(busy) = self.traffic.busy.take() {
            return Err(format!("nothing happens, and {busy}"));
        }
        let bytes = self.traffic.bytes - before;
        let most = IDLE_BYTES_PER_S * nodes * nodes.saturating_sub(1) * us / 1_000_000;
        if bytes > most {
            return Err(format!("nothing happens, and {nodes} nodes say {bytes} bytes in {us} µs"));
        }
        Ok(())
    }
}
