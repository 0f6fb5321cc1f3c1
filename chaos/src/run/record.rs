//! The thread that looks at everybody four times a second, and what it saw. It does nothing to anybody.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aorta_phones::crowd::{Running, Tally};
use aorta_phones::stats::Latency;

use super::story::{Flaps, LOOK_S, Quantiles, Sample};
use crate::host::Host;
use crate::lab::Lab;

/// A crowd at work, while it is.
pub(super) type Load = Arc<Mutex<Option<Running>>>;

/// Who is meant to be there, as the stage says.
#[derive(Debug, Clone, Default)]
pub(super) struct Cast {
    /// Members.
    pub(super) members: Vec<usize>,
    /// A fault lasts, or is healed and not yet got over.
    pub(super) under_fault: bool,
}

/// All that was seen so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) samples: Vec<Sample>,
    pub(super) tally: Tally,
    /// What had been told before the load.
    pub(super) first: Tally,
    /// Latencies without a fault, and under one.
    calm: Latency,
    faulty: Latency,
    counters: BTreeMap<(usize, &'static str), Growing>,
    /// What nodes had counted when the load began.
    before: Option<[f64; COUNTERS.len()]>,
}

/// A counter that starts anew with its process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Growing {
    last: f64,
    sum: f64,
}

impl Growing {
    fn see(&mut self, value: f64) {
        self.sum += if value < self.last { value } else { value - self.last };
        self.last = value;
    }
}

/// The thread.
#[derive(Debug)]
pub(super) struct Recorder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    lab: Arc<Lab>,
    load: Load,
    begun: Instant,
    cast: Mutex<Cast>,
    seen: Mutex<Seen>,
    host: Mutex<Host>,
    stop: AtomicBool,
}

impl Recorder {
    /// Begins to look.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(super) fn start(lab: &Arc<Lab>, load: &Load, begun: Instant, cast: Cast) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            lab: Arc::clone(lab),
            load: Arc::clone(load),
            begun,
            cast: Mutex::new(cast),
            seen: Mutex::default(),
            host: Mutex::new(Host::here()),
            stop: AtomicBool::new(false),
        });
        let looking = Arc::clone(&shared);
        let look = move || {
            let mut due = Instant::now();
            while !looking.stop.load(Ordering::Acquire) {
                looking.look();
                due = (due + Duration::from_secs_f64(LOOK_S)).max(Instant::now());
                thread::park_timeout(due.saturating_duration_since(Instant::now()));
            }
        };
        let thread = thread::Builder::new().name("recorder".to_owned()).spawn(look)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Changes who is meant to be there.
    pub(super) fn cast(&self, change: impl FnOnce(&mut Cast)) {
        change(&mut locked(&self.shared.cast));
    }

    /// The last look.
    pub(super) fn last(&self) -> Sample {
        locked(&self.shared.seen).samples.last().cloned().unwrap_or_default()
    }

    /// One more look, now.
    pub(super) fn look(&self) -> Sample {
        self.shared.look();
        self.last()
    }

    /// Bytes of exchanges that this node has sent so far.
    pub(super) fn repair_bytes(&self, node: usize) -> f64 {
        self.shared.look();
        locked(&self.shared.seen).counters.get(&(node, REPAIR_BYTES)).map_or(0.0, |growing| growing.sum)
    }

    /// Stops looking and gives what was seen.
    pub(super) fn finish(mut self) -> Seen {
        self.end();
        std::mem::take(&mut locked(&self.shared.seen))
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.end();
    }
}

impl Seen {
    /// All nodes together, whatever began anew.
    fn counted(&self) -> [f64; COUNTERS.len()] {
        COUNTERS.map(|(name, _)| {
            let its = self.counters.iter().filter(|((_, counter), _)| *counter == name);
            its.map(|(_, growing)| growing.sum).sum()
        })
    }

    /// The same since the load began.
    fn grown(&self) -> [u64; COUNTERS.len()] {
        let (counted, before) = (self.counted(), self.before.unwrap_or_default());
        std::array::from_fn(|nth| (counted[nth] - before[nth]) as u64)
    }

    /// How often nodes lost confidence, as they count it and as was seen.
    pub(super) fn flaps(&self) -> Flaps {
        let [.., suspected, fenced] = self.grown();
        let pairs = self.samples.iter().zip(self.samples.iter().skip(1));
        let dropped = pairs.map(|(before, after)| after.uncounted.saturating_sub(before.uncounted)).sum();
        Flaps { suspected, fenced, dropped, unlinked: 0 }
    }

    /// Latencies without a fault, and under one.
    pub(super) fn quantiles(&self) -> (Quantiles, Quantiles) {
        (quantiles(&self.calm), quantiles(&self.faulty))
    }
}

impl Shared {
    fn look(&self) {
        // Two may look at once: nothing is read before its turn has come, so what is seen never goes back.
        let mut seen = locked(&self.seen);
        let Some(tally) = locked(&self.load).as_ref().map(Running::tally) else { return };
        let cast = locked(&self.cast).clone();
        let mut sample =
            Sample { at_s: self.begun.elapsed().as_secs_f64(), members: cast.members.len(), ..Sample::default() };
        sample.taken_ms = u64::try_from(locked(&self.host).taken_since().as_millis()).unwrap_or(u64::MAX);
        for node in 0..self.lab.nodes() {
            self.look_at(node, &mut seen, &mut sample);
        }
        let counted = seen.counted();
        seen.before.get_or_insert(counted);
        let [bytes, records, ..] = seen.grown();
        (sample.repair_bytes, sample.repair_records) = (bytes, records);
        tell(&tally, &mut sample);
        let window = tally.latency.since(&seen.tally.latency);
        if window.count() > 0 {
            sample.p50_ms = Some(ms(window.quantile(0.5)));
            sample.p99_ms = Some(ms(window.quantile(0.99)));
        }
        if cast.under_fault { &mut seen.faulty } else { &mut seen.calm }.merge(&window);
        if seen.samples.is_empty() {
            seen.first.clone_from(&tally);
        }
        seen.tally = tally;
        seen.samples.push(sample);
    }

    fn look_at(&self, node: usize, seen: &mut Seen, sample: &mut Sample) {
        let at = self.lab.sample(node);
        if !at.series.is_empty() {
            for (name, label) in COUNTERS {
                seen.counters.entry((node, name)).or_default().see(at.metric(name, label));
            }
        }
        sample.rss_mib = sample.rss_mib.max(at.rss_bytes >> 20);
        if at.ready != Some(true) {
            return;
        }
        sample.ready += 1;
        // A node counts once a second: one that has just begun has not yet.
        let held = Some(at.metric("aorta_contacts", "") as u64).filter(|held| *held > 0);
        sample.served_least = [sample.served_least, held].into_iter().flatten().min();
        sample.served_most = sample.served_most.max(held);
        sample.suspects += at.metric("aorta_suspects", "") as u64;
        let counted = at.metric("aorta_members", "") as usize;
        if counted > 0 {
            sample.uncounted = sample.uncounted.max(sample.members.saturating_sub(counted) as u64);
        }
    }
}

const REPAIR_BYTES: &str = "aorta_exchange_bytes_total";

/// What nodes count: bytes and records of exchanges, suspects, and how often they fenced themselves; each with its label.
const COUNTERS: [(&str, &str); 4] = [
    (REPAIR_BYTES, "out"),
    ("aorta_exchange_records_total", "out"),
    ("aorta_suspected_total", ""),
    ("aorta_fenced_total", ""),
];

/// What the phones were told so far.
fn tell(tally: &Tally, sample: &mut Sample) {
    sample.registered = tally.bound;
    sample.lost = tally.lost.count + tally.lost_after_short.count;
    sample.ghosts = tally.ghosts.count + tally.ghosts_after_short.count;
    sample.wrong = tally.wrong.count;
    sample.full = tally.full;
    sample.short = tally.short;
    sample.refused = tally.refused.values().sum();
    sample.unanswered = tally.timeouts;
    sample.calls = tally.calls_completed;
}

fn quantiles(latency: &Latency) -> Quantiles {
    let at = |p| ms(latency.quantile(p));
    Quantiles { count: latency.count(), p50_ms: at(0.5), p99_ms: at(0.99) }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_starts_anew_goes_on_growing() {
        let mut growing = Growing::default();
        [5.0, 7.0, 7.0, 1.0, 3.0].into_iter().for_each(|value| growing.see(value));
        assert_eq!(growing, Growing { last: 3.0, sum: 10.0 });
    }
}
