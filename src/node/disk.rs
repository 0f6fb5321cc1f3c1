//! The threads that write: the time ceiling ahead of its use, and what changed at each snapshot interval. What goes to
//! disk, and how, is `location::snapshot`'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::core::Core;
use super::members::encode;
use crate::clock::wall_us;
use crate::location::snapshot::{CEILING_RENEW_US, Ceiling, Snapshot, SnapshotError};

/// While the cluster's time is not known there is no ceiling to write; so often it is looked whether it has become known.
const CLOCK_LOOK: Duration = Duration::from_millis(5);

/// After a write that failed, commits are tried again so often; each try opens the database anew.
const COMMIT_RETRY_US: u64 = 500_000;

/// After each block a save rests so many times as long as it took, so that whoever answers phones finds a processor: in one
/// go, a second's changes keep one busy for some ten milliseconds.
const REST_TIMES: u64 = 3;

/// It does not rest any more when this part of the interval has passed.
const REST_SHARE: u64 = 2;

/// A thread that works at intervals, or when its bell rings, until it is told to stop.
#[derive(Debug)]
pub(super) struct Worker {
    stop: Arc<AtomicBool>,
    bell: Bell,
    thread: JoinHandle<()>,
}

/// How a [`Worker`] waits.
#[derive(Debug)]
pub(super) struct Rest {
    stop: Arc<AtomicBool>,
    rings: Receiver<()>,
}

impl Rest {
    /// Waits so long, or until the bell rings. Not at all when the worker was told to stop.
    fn wait(&self, longest: Duration) {
        if !self.is_over() {
            // Whoever rings looks for what is due; a bell that is gone was that of a worker that nobody can stop any more.
            match self.rings.recv_timeout(longest) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.stop.store(true, Ordering::Release),
            }
        }
    }

    /// Whether the worker was told to stop.
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// Makes a [`Worker`] work now.
#[derive(Debug, Clone)]
pub(super) struct Bell(SyncSender<()>);

impl Bell {
    /// Never waits; one that was not heard yet rings for both.
    pub(super) fn ring(&self) {
        match self.0.try_send(()) {
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }
}

impl Worker {
    /// Runs `work`, which says when it wants to run again, until [`Worker::stop`]; then once more, when its [`Rest`] is over.
    pub(super) fn spawn(name: &str, mut work: impl FnMut(&Rest) -> Duration + Send + 'static) -> std::io::Result<Self> {
        let (bell, rings): (SyncSender<()>, Receiver<()>) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let rest = Rest { stop: Arc::clone(&stop), rings };
        let run = move || {
            let mut wait = Duration::ZERO;
            loop {
                rest.wait(wait);
                if rest.is_over() {
                    break;
                }
                wait = work(&rest);
            }
            work(&rest);
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { stop, bell: Bell(bell), thread })
    }

    /// What makes it work now.
    pub(super) fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// Lets it work once more, and waits until it has.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.bell.ring();
        if self.thread.join().is_err() {
            tracing::error!("a thread of the node ended in a panic");
        }
    }
}

/// Keeps the ceiling on disk ahead of cluster time.
pub(super) fn keep_ceiling(core: &Arc<Core>, mut ceiling: Ceiling) -> std::io::Result<Worker> {
    let core = Arc::clone(core);
    let mut trouble = false;
    Worker::spawn("ceiling", move |_rest| {
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

/// Writes what changed, each `interval`; what somebody waits for, at once.
pub(super) fn keep_snapshot(core: &Arc<Core>, snapshot: Snapshot, interval: Duration) -> std::io::Result<Worker> {
    let interval_us = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
    let pen = Pen { core: Arc::clone(core), trouble: false, commit_again_us: None };
    let mut saver = Saver { pen, snapshot, interval_us, next_save_us: 0 };
    let worker = Worker::spawn("snapshot", move |rest| saver.work(rest))?;
    if core.disk_bell.set(worker.bell()).is_ok() {
        // Whoever asked before there was a bell.
        worker.bell().ring();
    }
    Ok(worker)
}

/// The open snapshot, and when what is written.
struct Saver {
    pen: Pen,
    snapshot: Snapshot,
    interval_us: u64,
    next_save_us: u64,
}

/// What a write brings about.
struct Pen {
    core: Arc<Core>,
    trouble: bool,
    /// A commit failed: another is made then, monotonic microseconds, asked for or not.
    commit_again_us: Option<u64>,
}

impl Saver {
    fn work(&mut self, rest: &Rest) -> Duration {
        let Self { pen, snapshot, .. } = self;
        // What it says was noted.
        drop(pen.commit_if_due(snapshot));
        let begun_us = pen.now_us();
        if rest.is_over() || begun_us >= self.next_save_us {
            pen.save(snapshot, (rest, begun_us + self.interval_us / REST_SHARE));
            let took_us = pen.now_us().saturating_sub(begun_us);
            // At least a breath between two, or a slow disk would never let the table's locks alone.
            self.next_save_us = begun_us + self.interval_us.max(took_us + self.interval_us / 8);
        }
        let next_us = self.pen.commit_again_us.into_iter().chain([self.next_save_us]).min();
        Duration::from_micros(next_us.unwrap_or_default().saturating_sub(self.pen.now_us()))
    }
}

impl Pen {
    fn now_us(&self) -> u64 {
        self.core.clock.now().mono_us
    }

    /// Rests, but for commits.
    fn commit_until(&mut self, snapshot: &mut Snapshot, rest: &Rest, until_us: u64) -> Result<(), SnapshotError> {
        loop {
            self.commit_if_due(snapshot)?;
            let left_us = until_us.saturating_sub(self.now_us());
            if left_us == 0 || rest.is_over() {
                return Ok(());
            }
            rest.wait(Duration::from_micros(left_us));
        }
    }

    /// One group commit, if somebody waits: all that came while the one before was written is written by this one.
    fn commit_if_due(&mut self, snapshot: &mut Snapshot) -> Result<(), SnapshotError> {
        let begun_us = self.now_us();
        match self.commit_again_us {
            Some(at_us) if at_us > begun_us => return Ok(()),
            None if !self.core.commit_due.load(Ordering::Acquire) => return Ok(()),
            _ => {}
        }
        self.core.commit_due.store(false, Ordering::Release);
        let commit = self.core.replication.begin_commit();
        match snapshot.commit(&self.core.location) {
            Ok(saved) => {
                let now = self.core.clock.now();
                self.commit_again_us = None;
                self.core.gauges.committed(saved.written, now.mono_us.saturating_sub(begun_us));
                let effects = self.core.replication.committed(commit, now);
                self.core.act(effects, now);
                Ok(())
            }
            Err(error) => {
                self.commit_again_us = Some(self.now_us() + COMMIT_RETRY_US);
                self.failed(&error);
                Err(error)
            }
        }
    }

    /// Writes what changed, with rests until `rest_until_us`, in which it commits what somebody waits for.
    fn save(&mut self, snapshot: &mut Snapshot, (rest, rest_until_us): (&Rest, u64)) {
        let begun_us = self.now_us();
        let mut kept = Ok(());
        if self.core.members_changed.swap(false, Ordering::AcqRel) {
            kept = snapshot.keep_members(&encode(&self.core.kept_members()));
            if kept.is_err() {
                self.core.members_changed.store(true, Ordering::Release);
            }
        }
        let core = Arc::clone(&self.core);
        let mut worked_since_us = begun_us;
        let saved = snapshot.save_and(&core.location, |snapshot| {
            let now_us = self.now_us();
            let rested_us =
                now_us.saturating_add(now_us.saturating_sub(worked_since_us) * REST_TIMES).min(rest_until_us);
            self.commit_until(snapshot, rest, rested_us)?;
            worked_since_us = self.now_us();
            Ok(())
        });
        match saved.and_then(|saved| kept.map(|()| saved)) {
            Ok(saved) => {
                if std::mem::take(&mut self.trouble) {
                    self.core.disk_trouble.store(None);
                    tracing::info!("snapshots are written again");
                }
                let now_us = self.now_us();
                tracing::debug!(saved.written, took_us = now_us.saturating_sub(begun_us), "snapshot");
                self.core.gauges.saved(saved.written, now_us.saturating_sub(begun_us), now_us);
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Says so, once until it works again.
    fn failed(&mut self, error: &SnapshotError) {
        self.core.gauges.not_saved();
        if !std::mem::replace(&mut self.trouble, true) {
            self.core.disk_trouble.store(Some(Arc::new(error.to_string())));
            tracing::error!(%error, "the snapshot cannot be written: service goes on, and it is tried again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_works_once_more_when_it_is_stopped() {
        let (sender, received) = sync_channel(10);
        let worker = Worker::spawn("test", move |rest| {
            sender.send(rest.is_over()).expect("the test listens");
            Duration::from_secs(3600)
        });
        let worker = worker.expect("a thread");
        assert_eq!(received.recv(), Ok(false));
        worker.stop();
        assert_eq!(received.recv(), Ok(true));
        assert!(received.recv().is_err());
    }

    #[test]
    fn a_rest_ends_when_the_bell_rings_and_when_the_worker_is_to_stop() {
        let (sender, received) = sync_channel(10);
        let worker = Worker::spawn("test", move |rest| {
            sender.send("works").expect("the test listens");
            rest.wait(Duration::from_secs(3600));
            sender.send(if rest.is_over() { "is over" } else { "rested" }).expect("the test listens");
            rest.wait(Duration::from_secs(3600));
            Duration::from_secs(3600)
        });
        let worker = worker.expect("a thread");
        assert_eq!(received.recv(), Ok("works"));
        worker.bell().ring();
        assert_eq!(received.recv(), Ok("rested"));
        worker.stop();
        assert_eq!((received.recv(), received.recv()), (Ok("works"), Ok("is over")));
        assert!(received.recv().is_err());
    }
}
