//! Every stamp that a simulated node drew, for what, and whether tables hold any other. Draws none.

use std::collections::{BTreeMap, BTreeSet};

use aorta_proto::{Record, Stamp};

/// All stamps of a run.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    /// For which AoR each was drawn.
    drawn: BTreeMap<Stamp, usize>,
    /// The greatest that each machine drew, whatever became of its processes and disks.
    last: BTreeMap<usize, Stamp>,
}

impl Stamps {
    /// A machine draws one for an AoR. It is no other's, and later than each that this machine drew before, whatever
    /// became of its clocks meanwhile.
    pub(super) fn draws(&mut self, machine: usize, aor: usize, stamp: Stamp) -> Result<(), String> {
        if self.drawn.insert(stamp, aor).is_some() {
            return Err(format!("n{} draws {stamp:?}, which was drawn before", machine + 1));
        }
        let last = self.last.entry(machine).or_insert(stamp);
        if stamp < *last {
            return Err(format!("n{} draws {stamp:?}, and had drawn {last:?}", machine + 1));
        }
        *last = stamp.max(*last);
        Ok(())
    }

    /// A machine begins to serve: what it draws from now on must be later than whatever it drew before.
    pub(super) fn serves(&self, machine: usize, cluster_us: u64) -> Result<(), String> {
        match self.last.get(&machine) {
            Some(last) if last.time_us > cluster_us => {
                Err(format!("n{} begins to serve at {cluster_us}, and had drawn {last:?}", machine + 1))
            }
            _ => Ok(()),
        }
    }

    /// What a table holds was drawn, and for that AoR; a machine's own removal is one above what it removes.
    pub(super) fn knows(&self, aor: usize, record: &Record) -> Result<(), String> {
        let stamps = record.entries.iter().map(|entry| entry.stamp).chain(record.cleared.map(|cleared| cleared.stamp));
        for stamp in stamps.collect::<BTreeSet<_>>() {
            let judged = Stamp { counter: stamp.counter & !1, ..stamp };
            if self.drawn.get(&judged) != Some(&aor) {
                return Err(format!("a table holds {stamp:?}, which nobody drew for that AoR"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aorta_proto::BootId;
    use aorta_proto::record::Cleared;

    fn at(time_us: u64) -> Stamp {
        Stamp { time_us, counter: 0, boot: BootId(1) }
    }

    #[test]
    fn a_stamp_is_drawn_once_and_never_earlier() {
        let mut stamps = Stamps::default();
        assert_eq!(stamps.draws(0, 0, at(10)), Ok(()));
        assert!(stamps.draws(1, 0, at(10)).is_err());
        assert!(stamps.draws(0, 0, at(9)).is_err());
        assert_eq!(stamps.draws(1, 1, at(8)), Ok(()));
        assert!(stamps.draws(1, 1, at(7)).is_err());
    }

    #[test]
    fn nobody_serves_at_a_time_before_its_stamps() {
        let mut stamps = Stamps::default();
        stamps.draws(0, 0, at(10)).expect("the first");
        assert_eq!((stamps.serves(0, 10), stamps.serves(1, 3)), (Ok(()), Ok(())));
        assert!(stamps.serves(0, 9).is_err());
    }

    #[test]
    fn a_table_holds_what_was_drawn_for_it() {
        let mut stamps = Stamps::default();
        stamps.draws(0, 7, at(10)).expect("the first");
        let cleared =
            |stamp| Record { cleared: Some(Cleared { stamp, call_id_hash: 0, cseq: 0 }), entries: Vec::new() };
        assert_eq!(stamps.knows(7, &cleared(at(10))), Ok(()));
        assert_eq!(stamps.knows(7, &cleared(at(10).machine_made())), Ok(()));
        assert!(stamps.knows(8, &cleared(at(10))).is_err());
        assert!(stamps.knows(7, &cleared(at(11))).is_err());
    }
}
