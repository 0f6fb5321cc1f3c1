//! The threads that write: the time ceiling ahead of its use, and what changed at each snapshot interval. What goes to
//! disk, and how, is `location::snapshot`'s.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::core::Core;
use super::members::encode;
use crate::clock::wall_us;
use crate::location::snapshot::{CEILING_RENEW_US, Ceiling, Snapshot};

/// While the cluster's time is not known there is no ceiling to write; so often it is looked whether it has become known.
const CLOCK_LOOK: Duration = Duration::from_millis(5);

/// A thread that works at intervals until it is told to stop.
#[derive(Debug)]
pub(super) struct Worker {
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Runs `work`, which says when it wants to run again, until [`Worker::stop`]; then once more with `true`.
    pub(super) fn spawn(name: &str, mut work: impl FnMut(bool) -> Duration + Send + 'static) -> std::io::Result<Self> {
        let (stop, stopped): (SyncSender<()>, Receiver<()>) = sync_channel(1);
        let run = move || {
            let mut wait = Duration::ZERO;
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(wait) {
                wait = work(false);
            }
            work(true);
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { stop, thread })
    }

    /// Lets it work once more, and waits until it has.
    pub(super) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("a thread of the node ended in a panic");
        }
    }
}

/// Keeps the ceiling on disk ahead of cluster time.
pub(super) fn keep_ceiling(core: &Arc<Core>, mut ceiling: Ceiling) -> std::io::Result<Worker> {
    let core = Arc::clone(core);
    let mut trouble = false;
    Worker::spawn("ceiling", move |_last| {
        if !core.clock.is_set() {
            return CLOCK_LOOK;
        }
        let renewed = ceiling.renew(core.clock.now().cluster_us, wall_us());
        match &renewed {
            Ok(()) if trouble => tracing::info!("the time ceiling is on disk again"),
            Err(error) if !trouble => tracing::error!(
                %error,
                "the time ceiling cannot be written: service goes on, but after a restart this node waits for a peer's clock"
            ),
            _ => {}
        }
        trouble = renewed.is_err();
        core.ceiling_kept.store(true, Ordering::Release);
        Duration::from_micros(CEILING_RENEW_US)
    })
}

/// Writes what changed, each `interval`.
pub(super) fn keep_snapshot(core: &Arc<Core>, snapshot: Snapshot, interval: Duration) -> std::io::Result<Worker> {
    let mut saver = Saver { core: Arc::clone(core), snapshot, trouble: false };
    Worker::spawn("snapshot", move |_last| {
        let begun_us = saver.core.clock.now().mono_us;
        saver.save();
        let took = Duration::from_micros(saver.core.clock.now().mono_us.saturating_sub(begun_us));
        // At least a breath between two, or a slow disk would never let the table's locks alone.
        interval.saturating_sub(took).max(interval / 8)
    })
}

struct Saver {
    core: Arc<Core>,
    snapshot: Snapshot,
    trouble: bool,
}

impl Saver {
    fn save(&mut self) {
        let begun_us = self.core.clock.now().mono_us;
        let mut kept = Ok(());
        if self.core.members_changed.swap(false, Ordering::AcqRel) {
            kept = self.snapshot.keep_members(&encode(&self.core.kept_members()));
            if kept.is_err() {
                self.core.members_changed.store(true, Ordering::Release);
            }
        }
        let saved = self.snapshot.save(&self.core.location);
        let now_us = self.core.clock.now().mono_us;
        match saved.and_then(|saved| kept.map(|()| saved)) {
            Ok(saved) => {
                if std::mem::take(&mut self.trouble) {
                    tracing::info!("snapshots are written again");
                }
                self.core.gauges.saved(saved.written, now_us.saturating_sub(begun_us), now_us);
            }
            Err(error) => {
                self.core.gauges.not_saved();
                if !std::mem::replace(&mut self.trouble, true) {
                    tracing::error!(%error, "the snapshot cannot be written: service goes on, and it is tried again");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_works_once_more_when_it_is_stopped() {
        let (sender, received) = sync_channel(10);
        let worker = Worker::spawn("test", move |last| {
            sender.send(last).expect("the test listens");
            Duration::from_secs(3600)
        });
        let worker = worker.expect("a thread");
        assert_eq!(received.recv(), Ok(false));
        worker.stop();
        assert_eq!(received.recv(), Ok(true));
        assert!(received.recv().is_err());
    }
}
