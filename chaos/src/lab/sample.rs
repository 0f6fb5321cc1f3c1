//! What can be seen of a node from outside, four times a second: readiness, a few metrics, memory, processor time.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aorta::cli::fleet::Fleet;

use super::home::Home;
use crate::host::time_in_ticks;

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(250);

/// Longest wait for an answer: a node that takes longer is as good as silent.
const PATIENCE: Duration = Duration::from_millis(200);

/// Bytes of an answer at most.
const ANSWER_MAX: u64 = 1 << 20;

/// Metrics that are kept: the beginnings of their names.
const WATCHED: [&str; 25] = [
    "aorta_ready",
    "aorta_contacts",
    "aorta_aors",
    "aorta_entries_gone",
    "aorta_members",
    "aorta_links",
    "aorta_suspects",
    "aorta_suspected_total",
    "aorta_replies_pending",
    "aorta_replies_short_total",
    "aorta_replies_failed_total",
    "aorta_outbox_bytes",
    "aorta_overflows_total",
    "aorta_fenced_total",
    "aorta_sleeps_total",
    "aorta_stamps_ahead_total",
    "aorta_clock_moved_seconds_total",
    "aorta_deltas_published_total",
    "aorta_deltas_received_total",
    "aorta_exchanges_total",
    "aorta_exchange_bytes_total",
    "aorta_exchange_records_total",
    "aorta_conflicts_total",
    "aorta_udp_socket_drops_total",
    "aorta_snapshot_failed_total",
];

/// One look at a node.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// When; `None` before the first look.
    pub at: Option<Instant>,
    /// Whether its process is there.
    pub runs: bool,
    /// Whether it says that it is ready; `None` when it did not answer.
    pub ready: Option<bool>,
    /// What it says to that.
    pub reason: String,
    /// Metrics by series, as `aorta_exchange_bytes_total{direction="in"}`.
    pub series: BTreeMap<String, f64>,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Processor time since its start.
    pub cpu: Duration,
}

impl Sample {
    /// The sum of a metric over its series that hold `label`; 0 when there is none.
    #[must_use]
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let its =
            self.series.iter().filter(|(series, _)| series.split('{').next() == Some(name) && series.contains(label));
        its.map(|(_, value)| value).sum()
    }
}

/// The thread that looks, and what it saw last.
#[derive(Debug)]
pub(super) struct Sampler {
    http: SocketAddr,
    last: Arc<Mutex<Sample>>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Sampler {
    pub(super) fn new(http: SocketAddr) -> Self {
        Self { http, last: Arc::default(), stop: Arc::default(), thread: Mutex::default() }
    }

    pub(super) fn last(&self) -> Sample {
        locked(&self.last).clone()
    }

    /// Begins to look, if it does not yet.
    pub(super) fn run(&self, home: &Arc<Home>, fleet: &Arc<Mutex<Fleet>>) -> anyhow::Result<()> {
        let mut thread = locked(&self.thread);
        if thread.is_some() {
            return Ok(());
        }
        let (http, last, stop) = (self.http, Arc::clone(&self.last), Arc::clone(&self.stop));
        let (home, fleet) = (Arc::clone(home), Arc::clone(fleet));
        let look = move || {
            while !stop.load(Ordering::Acquire) {
                let due = Instant::now() + EVERY;
                let pid = { locked(&fleet).nodes()[0].pid() };
                *locked(&last) = look(pid, http);
                thread::park_timeout(due.saturating_duration_since(Instant::now()));
            }
        };
        *thread = Some(thread::Builder::new().name("sampler".to_owned()).spawn(move || home.stay(look))?);
        Ok(())
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = locked(&self.thread).take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look(pid: Option<u32>, http: SocketAddr) -> Sample {
    let at = Some(Instant::now());
    let Some(pid) = pid else { return Sample { at, ..Sample::default() } };
    let readiness = get(http, "/readyz");
    let metrics = readiness.as_ref().and_then(|_| get(http, "/metrics"));
    Sample {
        at,
        runs: true,
        ready: readiness.as_ref().map(|(status, _)| *status == 200),
        reason: readiness.map(|(_, body)| body.trim().to_owned()).unwrap_or_default(),
        series: metrics.map(|(_, body)| watched(&body)).unwrap_or_default(),
        rss_bytes: rss_bytes(pid).unwrap_or_default(),
        cpu: time_in_ticks(pid).unwrap_or_default(),
    }
}

/// GET by hand, for an answer within [`PATIENCE`] or none: status and body.
pub(super) fn get(http: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&http, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {http}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn watched(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    let named = lines.filter(|(series, _)| WATCHED.contains(&series.split('{').next().unwrap_or(series)));
    named.filter_map(|(series, value)| Some((series.to_owned(), value.parse().ok()?))).collect()
}

fn rss_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_kept_and_summed_by_name_and_label() {
        let text = "# TYPE aorta_links gauge\naorta_links 3\naorta_linksx 9\n\
                    aorta_exchange_bytes_total{direction=\"in\"} 5\naorta_exchange_bytes_total{direction=\"out\"} 7\n";
        let sample = Sample { series: watched(text), ..Sample::default() };
        assert_eq!(sample.series.len(), 3);
        assert!((sample.metric("aorta_exchange_bytes_total", "") - 12.0).abs() < 1e-9);
        assert!((sample.metric("aorta_exchange_bytes_total", "out") - 7.0).abs() < 1e-9);
        assert!((sample.metric("aorta_links", "") - 3.0).abs() < 1e-9);
    }

    #[test]
    fn this_process_has_memory() {
        let own = std::process::id();
        assert!(rss_bytes(own).is_some_and(|bytes| bytes > 100_000));
        assert!(time_in_ticks(own).is_some());
    }
}
