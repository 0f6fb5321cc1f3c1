//! What a table of some size costs: memory for each contact, the time until an empty node has joined, and what phones notice
//! of that, the time until a node is back from its disk. Ours only.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::cores::Cores;
use super::load::{Latencies, Mix, Pace, Population, Running, Tally, Work};
use super::measure::{Meter, own_processor};
use super::nodes::AortaNodes;
use super::processes::{self, Watch};

/// Refreshes a second of phones at the other nodes while one joins.
const JOIN_RATE: f64 = 2000.0;
/// How long they are measured before: while all three nodes serve, and while the joiner is gone.
const CALM: Duration = Duration::from_secs(5);
/// How long after: the joiner's disk takes what it was given.
const AFTER: Duration = Duration::from_secs(4);
/// Records that changed since the last snapshot or the one before it, each second one, while those refreshes go on.
const UNDER_WAY: f64 = 2.0 * JOIN_RATE;
/// Longest wait for nodes that hold and have written everything.
const SETTLED_PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Until an allocator has given back what was freed: jemalloc's `dirty_decay_ms` is 10 s, and its thread looks now and then.
const GIVES_BACK: Duration = Duration::from_secs(15);
/// Until the others no longer count a killed node as a member.
const DROPPED: Duration = Duration::from_secs(3);
/// Joins under load, one after another: one alone tells little, for a stop of the machine by some milliseconds decides it.
const TURNS: usize = 3;
/// Requests in flight while phones register.
const FILL_WINDOW: usize = 256;

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// Contacts of every node.
    pub contacts: u32,
    /// Memory of a node without contacts, MiB.
    pub empty_mib: f64,
    /// Bytes for each contact of a node that has joined and written everything: all of its memory.
    pub joined_bytes: f64,
    /// The same of a node that has read its disk.
    pub restarted_bytes: f64,
    /// The same, on average, of the nodes at which the phones registered.
    pub grown_bytes: f64,
    /// From the start of an empty node's process until it is ready, seconds; without load.
    pub join_s: f64,
    /// The same under refreshes at the other nodes, in the typical one of three turns, as all of the following.
    pub join_loaded_s: f64,
    /// Latencies of those while all three nodes served.
    pub whole: Latencies,
    /// Latencies of those after one of them was gone, before it came back empty.
    pub calm: Latencies,
    /// Latencies of those from the start of the process until it is ready.
    pub joining: Latencies,
    /// Latencies of those of the 4 s after that.
    pub after_join: Latencies,
    /// Requests that failed while it joined and in those 4 s, in all turns.
    pub join_failed: u64,
    /// From the start of a process whose disk holds everything until it is ready, seconds.
    pub restart_s: f64,
    /// Registrations a second while the table was filled.
    pub fill_per_s: f64,
    /// Why it must not be believed.
    pub void: Vec<String>,
}

/// The node that comes and goes.
const JOINER: usize = 2;

/// Measures a table of so many contacts on three nodes.
///
/// # Errors
/// When a node ends, or something takes too long.
pub(super) fn measure(
    meter: &Meter,
    mut nodes: AortaNodes,
    contacts: u32,
    say: impl Fn(String),
) -> anyhow::Result<Size> {
    let cores = &meter.cores;
    nodes.start(0..=JOINER)?;
    let mut size = Size { contacts, empty_mib: mib(&nodes, JOINER)?, ..Size::default() };
    let begun = Instant::now();
    let filled = meter.fill(&nodes.sips(), Population::new(contacts), contacts, FILL_WINDOW, |registered| {
        say(format!("{registered} of {contacts} phones registered"));
    })?;
    size.fill_per_s = f64::from(contacts) / begun.elapsed().as_secs_f64();
    say("waiting until all is on disk".to_owned());
    settle(&nodes, contacts, 0.0)?;
    size.grown_bytes = (mib(&nodes, 0)? + mib(&nodes, 1)?) / 2.0 * f64::from(1 << 20) / f64::from(contacts);

    say("restarting a node".to_owned());
    nodes.kill(JOINER, false)?;
    thread::sleep(DROPPED);
    size.restart_s = watched(&mut size.void, &mut nodes, cores)?;
    settle(&nodes, contacts, 0.0)?;
    size.restarted_bytes = per_contact(&nodes, contacts)?;

    say("an empty node joins".to_owned());
    nodes.kill(JOINER, true)?;
    thread::sleep(DROPPED);
    size.join_s = watched(&mut size.void, &mut nodes, cores)?;
    settle(&nodes, contacts, 0.0)?;
    size.joined_bytes = per_contact(&nodes, contacts)?;

    let running = Running::start(refreshes(&nodes, contacts), filled, cores)?;
    let mut turns = Vec::new();
    for turn in 1..=TURNS {
        say(format!("an empty node joins under load, turn {turn} of {TURNS}"));
        settle(&nodes, contacts, UNDER_WAY)?;
        turns.push(join_under_load(&running, &mut nodes, cores)?);
    }
    running.stop()?;
    size.take(turns);
    Ok(size)
}

/// Of phones at the nodes that stay.
fn refreshes(nodes: &AortaNodes, contacts: u32) -> Work {
    Work {
        targets: nodes.sips()[..JOINER].to_vec(),
        sources: 8,
        pace: Pace::Open { per_s: JOIN_RATE, poisson: false },
        mix: Mix::REFRESH,
        known: 0..contacts,
        new_until: 0,
        ack: false,
        segments: true,
    }
}

/// One join under load.
#[derive(Debug, Default)]
struct Turn {
    whole: Latencies,
    calm: Latencies,
    joining: Latencies,
    after: Latencies,
    took_s: f64,
    failed: u64,
    void: Vec<String>,
}

impl Size {
    /// The turn in the middle, by how much p99 rose, of those that may be believed. Where none may be, this says why.
    fn take(&mut self, turns: Vec<Turn>) {
        self.join_failed = turns.iter().map(|turn| turn.failed).sum();
        let none_is_sound = turns.iter().all(|turn| !turn.void.is_empty());
        let mut turns: Vec<Turn> = turns.into_iter().filter(|turn| none_is_sound || turn.void.is_empty()).collect();
        let rise = |turn: &Turn| turn.joining.p99_rise(&turn.calm);
        turns.sort_by(|one, two| rise(one).total_cmp(&rise(two)));
        let middle = turns.len() / 2;
        self.void.extend(turns.iter().flat_map(|turn| turn.void.iter().cloned()));
        if let Some(turn) = turns.get(middle) {
            (self.whole, self.calm) = (turn.whole, turn.calm);
            (self.joining, self.after_join) = (turn.joining, turn.after);
            self.join_loaded_s = turn.took_s;
        }
    }
}

/// The joiner goes, and comes back empty.
fn join_under_load(running: &Running, nodes: &mut AortaNodes, cores: &Cores) -> anyhow::Result<Turn> {
    let mut void = Vec::new();
    let whole = undisturbed(&mut void, running, nodes, cores)?;
    nodes.kill(JOINER, true)?;
    thread::sleep(DROPPED);
    let calm = undisturbed(&mut void, running, nodes, cores)?;
    let took_s = watched(&mut void, nodes, cores)?;
    let joining = running.look()?;
    thread::sleep(AFTER);
    let after = running.look()?;
    void.extend(own_processor(&joining));
    let failed = joining.failed() + after.failed();
    Ok(Turn {
        whole: whole.latencies(),
        calm: calm.latencies(),
        joining: joining.latencies(),
        after: after.latencies(),
        took_s,
        failed,
        void,
    })
}

/// What phones notice of nothing. One that something disturbed makes what follows look better than it is.
fn undisturbed(void: &mut Vec<String>, running: &Running, nodes: &AortaNodes, cores: &Cores) -> anyhow::Result<Tally> {
    running.look()?;
    let watch = Watch::begin(&cores.servers, &nodes.pids());
    thread::sleep(CALM);
    void.extend(watch.end(&nodes.pids()).void());
    let calm = running.look()?;
    let failed = calm.failed();
    void.extend((failed > 0).then(|| format!("{failed} of {} requests failed before the join", calm.sent)));
    void.extend(own_processor(&calm));
    Ok(calm)
}

/// Starts the joiner and waits until it is ready: how long that took, seconds; and why that must not be believed.
fn watched(void: &mut Vec<String>, nodes: &mut AortaNodes, cores: &Cores) -> anyhow::Result<f64> {
    let watch = Watch::begin(&cores.servers, &nodes.pids());
    let took_s = nodes.start(JOINER..=JOINER)?.as_secs_f64();
    void.extend(watch.end(&nodes.pids()).void());
    Ok(took_s)
}

/// Waits until every node holds all contacts and has written them, but for so many.
fn settle(nodes: &AortaNodes, contacts: u32, unwritten_max: f64) -> anyhow::Result<()> {
    let begun = Instant::now();
    for node in 0..=JOINER {
        loop {
            let (held, dirty) = (nodes.metric(node, "aorta_contacts")?, nodes.metric(node, "aorta_records_dirty")?);
            if held >= f64::from(contacts) && dirty <= unwritten_max {
                break;
            }
            let waited = begun.elapsed();
            ensure!(
                waited < SETTLED_PATIENCE,
                "node{} holds {held}, {dirty} of them unwritten, after {waited:?}",
                node + 1
            );
            thread::sleep(LOOK_AGAIN);
        }
    }
    Ok(())
}

fn mib(nodes: &AortaNodes, node: usize) -> anyhow::Result<f64> {
    let bytes = processes::memory_bytes(&[nodes.pid(node)?]).context("a node's memory")?;
    Ok(bytes as f64 / f64::from(1 << 20))
}

/// Of the joiner, once it has given back what it needed to come so far: an allocator does so a while after.
fn per_contact(nodes: &AortaNodes, contacts: u32) -> anyhow::Result<f64> {
    thread::sleep(GIVES_BACK);
    Ok(mib(nodes, JOINER)? * f64::from(1 << 20) / f64::from(contacts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(rise: f64, void: &[&str]) -> Turn {
        let p99 = |p99_ms| Latencies { p99_ms, ..Latencies::default() };
        let void = void.iter().map(|why| (*why).to_owned()).collect();
        Turn { calm: p99(0.5), joining: p99(0.5 * rise), took_s: rise, failed: 1, void, ..Turn::default() }
    }

    fn taken(turns: Vec<Turn>) -> Size {
        let mut size = Size::default();
        size.take(turns);
        size
    }

    #[test]
    fn of_three_joins_the_one_in_the_middle_counts_and_of_their_failures_all() {
        let size = taken(vec![turn(60.0, &[]), turn(1.5, &[]), turn(1.8, &[])]);
        assert_eq!((size.join_loaded_s, size.join_failed, size.void.len()), (1.8, 3, 0));
        assert!((size.joining.p99_rise(&size.calm) - 1.8).abs() < 1e-9);
    }

    #[test]
    fn a_join_that_was_disturbed_counts_only_when_all_were_and_then_it_is_said() {
        let size = taken(vec![turn(1.2, &["the host took 18 %"]), turn(3.0, &[]), turn(2.0, &[])]);
        assert_eq!((size.join_loaded_s, size.void.len()), (3.0, 0));
        let size = taken(vec![turn(1.2, &["one"]), turn(3.0, &["two"]), turn(2.0, &["three"])]);
        assert_eq!((size.join_loaded_s, size.void.len()), (2.0, 3));
    }
}
