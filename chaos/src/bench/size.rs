//! What a table of some size costs: memory for each contact, the time until an empty node has joined, and what phones notice
//! of that, the time until a node is back from its disk. Ours only.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::cores::Cores;
use super::load::{Latencies, Mix, Pace, Population, Running, Work};
use super::measure::{Meter, own_processor};
use super::nodes::AortaNodes;
use super::processes::{self, Watch};

/// Refreshes a second of phones at the other nodes while one joins.
const JOIN_RATE: f64 = 2000.0;
/// How long they are measured before.
const CALM: Duration = Duration::from_secs(5);
/// How long after: the joiner's disk takes what it was given.
const AFTER: Duration = Duration::from_secs(4);
/// Longest wait for nodes that hold and have written everything.
const SETTLED_PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Until an allocator has given back what was freed: jemalloc's `dirty_decay_ms` is 10 s, and its thread looks now and then.
const GIVES_BACK: Duration = Duration::from_secs(15);
/// Until the others no longer count a killed node as a member.
const DROPPED: Duration = Duration::from_secs(3);
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
    /// The same under refreshes at the other nodes.
    pub join_loaded_s: f64,
    /// Latencies of those before.
    pub calm: Latencies,
    /// Latencies of those from the start of the process until it is ready.
    pub joining: Latencies,
    /// Latencies of those of the 4 s after that.
    pub after_join: Latencies,
    /// Requests that failed while it joined and in those 4 s.
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
    settle(&nodes, contacts)?;
    size.grown_bytes = (mib(&nodes, 0)? + mib(&nodes, 1)?) / 2.0 * f64::from(1 << 20) / f64::from(contacts);

    say("restarting a node".to_owned());
    nodes.kill(JOINER, false)?;
    thread::sleep(DROPPED);
    size.restart_s = watched(&mut size.void, &mut nodes, cores)?;
    settle(&nodes, contacts)?;
    size.restarted_bytes = per_contact(&nodes, contacts)?;

    say("an empty node joins".to_owned());
    nodes.kill(JOINER, true)?;
    thread::sleep(DROPPED);
    size.join_s = watched(&mut size.void, &mut nodes, cores)?;
    settle(&nodes, contacts)?;
    size.joined_bytes = per_contact(&nodes, contacts)?;

    say("an empty node joins under load".to_owned());
    nodes.kill(JOINER, true)?;
    thread::sleep(DROPPED);
    join_under_load(&mut size, &mut nodes, filled, cores)?;
    Ok(size)
}

fn join_under_load(size: &mut Size, nodes: &mut AortaNodes, filled: Population, cores: &Cores) -> anyhow::Result<()> {
    let work = Work {
        targets: nodes.sips()[..JOINER].to_vec(),
        sources: 8,
        pace: Pace::Open { per_s: JOIN_RATE, poisson: false },
        mix: Mix::REFRESH,
        known: 0..size.contacts,
        new_until: 0,
        ack: false,
        segments: true,
    };
    let running = Running::start(work, filled, cores)?;
    thread::sleep(Duration::from_secs(1));
    running.look()?;
    let watch = Watch::begin(&cores.servers, &nodes.pids());
    thread::sleep(CALM);
    // A calm that something disturbed makes what follows look better than it is.
    size.void.extend(watch.end(&nodes.pids()).void());
    let calm = running.look()?;
    size.join_loaded_s = watched(&mut size.void, nodes, cores)?;
    let joining = running.look()?;
    thread::sleep(AFTER);
    let after = running.look()?;
    running.stop()?;
    (size.calm, size.joining, size.after_join) = (calm.latencies(), joining.latencies(), after.latencies());
    size.join_failed = joining.failed() + after.failed();
    let before = calm.failed();
    size.void.extend((before > 0).then(|| format!("{before} of {} requests failed before the join", calm.sent)));
    size.void.extend(own_processor(&calm).or_else(|| own_processor(&joining)));
    Ok(())
}

/// Starts the joiner and waits until it is ready: how long that took, seconds; and why that must not be believed.
fn watched(void: &mut Vec<String>, nodes: &mut AortaNodes, cores: &Cores) -> anyhow::Result<f64> {
    let watch = Watch::begin(&cores.servers, &nodes.pids());
    let took_s = nodes.start(JOINER..=JOINER)?.as_secs_f64();
    void.extend(watch.end(&nodes.pids()).void());
    Ok(took_s)
}

/// Waits until every node holds all contacts and has written them.
fn settle(nodes: &AortaNodes, contacts: u32) -> anyhow::Result<()> {
    let begun = Instant::now();
    for node in 0..=JOINER {
        loop {
            let (held, dirty) = (nodes.metric(node, "aorta_contacts")?, nodes.metric(node, "aorta_records_dirty")?);
            if held >= f64::from(contacts) && dirty < 1.0 {
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
