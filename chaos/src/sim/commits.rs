//! Group commits onto the simulated disk (`ack = "disk"`): begun when somebody waits, on disk some time later, lost with the
//! process in between. One at a time, as the thread that writes makes them. Where one storage is behind all machines, all
//! disks may stall at once.

use aorta::replication::Commit;
use aorta_proto::{Aor, Record};

use super::world::{Happening, World};

/// How long a disk takes, µs.
const WRITES_US: std::ops::Range<u64> = 200..5_000;

/// What a process that is stopped, or a disk that stalls, has written is looked at again after this, µs.
const LOOK_AGAIN_US: u64 = 100_000;

/// What a process writes just now.
#[derive(Debug, Default)]
pub(super) struct Writing {
    under_way: Option<(Commit, Vec<(Aor, Record)>)>,
    /// Somebody waits for the next one.
    again: bool,
}

impl World {
    /// A commit is due; in a process that is stopped, as soon as it goes on.
    pub(super) fn commit(&mut self, node: usize) {
        if self.nodes[node].process.as_ref().is_some_and(|process| process.asleep) {
            return self.after(LOOK_AGAIN_US, Happening::Commit { node });
        }
        let boot = self.with(node, |process, _| {
            if process.writing.under_way.is_some() {
                process.writing.again = true;
                return (None, Default::default());
            }
            let commit = process.replication.begin_commit();
            let taken = process.location.take_awaited();
            let records = taken.into_iter().flat_map(|tag| process.location.take_records(tag));
            process.writing.under_way = Some((commit, records.collect()));
            (Some(process.boot), Default::default())
        });
        let Some(boot) = boot.flatten() else { return };
        let us = self.rng.u64(WRITES_US);
        self.after(us, Happening::Committed { node, boot });
    }

    /// It is on disk, if the process that began it lives and the disk does not stall; while it is stopped nobody is told.
    pub(super) fn committed(&mut self, node: usize, boot: u64) {
        let Some(process) = self.nodes[node].process.as_mut().filter(|process| process.boot == boot) else { return };
        if process.asleep || self.disks_stall {
            return self.after(LOOK_AGAIN_US, Happening::Committed { node, boot });
        }
        let Some((commit, records)) = process.writing.under_way.take() else { return };
        let again = std::mem::take(&mut process.writing.again);
        self.nodes[node].disk.take(records);
        self.with(node, |process, now| ((), process.replication.committed(commit, now)));
        if again {
            self.after(1, Happening::Commit { node });
        }
    }
}
