//! All nodes killed at once under load, again and again: what was acknowledged is there when they come back from their
//! disks. With `ack = "disk"` all of it; by default all that was acknowledged earlier than the stated bound, the snapshot
//! interval plus the time one snapshot takes. (What the kernel has outlives a kill; that commits go further is
//! `location::snapshot`'s affair.)

use crate::cluster::{Cluster, SOON, await_state, figure};
use crate::power_phones::{Desk, Told};
use aorta_phones::Nodes;
use aorta_phones::stats::Latency;
use std::sync::Arc;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(500);
/// Acknowledged changes in each round, at least.
const CHANGES: u64 = 2000;
const PHONES: usize = 900;
const SOCKETS: usize = 3;
/// A snapshot is not expected to be faster than this on a busy machine; those that are logged may be slower.
const SNAPSHOT_TAKES: Duration = Duration::from_millis(100);
/// No reply may leave short here: the phones could not tell, and a short one promises less.
const EXTRA: &str = "ack_timeout_ms = 10000\nsnapshot_interval_ms = 500\nlog.filter = \"info,aorta::node::disk=debug\"";

/// What one round did.
#[derive(Debug, Default)]
struct Round {
    changes: u64,
    per_second: f64,
    latency: Latency,
    /// Phones of which a node said something that was overtaken by what they were told.
    lost: Vec<Told>,
}

/// Longest snapshot that the nodes logged so far.
fn longest_snapshot(cluster: &Cluster) -> Duration {
    let took = |log: String| {
        let words = log.split_whitespace().filter_map(|word| word.split_once("took_us=")?.1.parse().ok());
        words.max().unwrap_or(0_u64)
    };
    Duration::from_micros((0..3).map(|node| took(cluster.log(node))).max().unwrap_or(0))
}

/// Load, until the nodes are killed at a moment of chance; a restart; and what each node says of each phone. Guaranteed is
/// what was acknowledged longer than `bound` before the kill.
async fn round(cluster: &mut Cluster, desk: &mut Desk, rng: &mut fastrand::Rng, bound: Option<Duration>) -> Round {
    let nodes = Arc::new(Nodes::new(&cluster.sips(3)).expect("nodes"));
    let (told, load) = desk.start(&nodes, rng.u64(..));
    let moment = Duration::from_micros(rng.u64(0..2 * INTERVAL.as_micros() as u64));
    let killed = tokio::task::block_in_place(|| {
        await_state("enough changes are acknowledged", SOON, || told.count() >= CHANGES);
        std::thread::sleep(moment);
        let killed = Instant::now();
        (0..3).for_each(|node| cluster.kill(node));
        told.stop();
        killed
    });
    let stats = load.await.expect("the load ended");
    desk.take(told.done());
    tokio::task::block_in_place(|| cluster.start_all());
    let mut round = Round { changes: told.count(), latency: stats.latency, ..Round::default() };
    round.per_second = told.count() as f64 / killed.duration_since(told.began()).as_secs_f64();
    // While the nodes were killed one after the other, no reply left short.
    let until = bound.map_or(Instant::now(), |bound| killed.checked_sub(bound).unwrap_or(told.began()));
    let mut said = Vec::new();
    for node in cluster.sips(3) {
        said.push(desk.ask(node).await);
        round.lost.extend(desk.judge(said.last().expect("asked"), killed, until));
    }
    assert!(said.iter().all(|one| *one == said[0]), "nodes that are ready agree");
    desk.settle(&said[0]);
    round
}

async fn rounds(ack: &str, bound: Option<Duration>) {
    let mut cluster = Cluster::started(3, &format!("ack = \"{ack}\"\n{EXTRA}"));
    let mut desk = Desk::new(PHONES, SOCKETS);
    let mut rng = fastrand::Rng::with_seed(6);
    let (mut latency, mut changes, mut rates, mut late) = (Latency::default(), 0, Vec::new(), Duration::ZERO);
    let count = figure(3, 50);
    for nth in 0..count {
        let bound = bound.map(|interval| interval + longest_snapshot(&cluster).max(SNAPSHOT_TAKES));
        let round = round(&mut cluster, &mut desk, &mut rng, bound).await;
        let oldest = round.lost.iter().map(|told| told.before_kill).max().unwrap_or_default();
        let (changes_now, per_second, lost) = (round.changes, round.per_second, round.lost.len());
        println!(
            "round {nth}: {changes_now} changes, {per_second:.0} a second, {lost} lost, {oldest:?} before the kill"
        );
        let wrong: Vec<&Told> = round.lost.iter().filter(|told| told.guaranteed).take(10).collect();
        assert!(wrong.is_empty(), "round {nth}: {wrong:?} …\n{}", cluster.last_words());
        late = late.max(oldest);
        changes += round.changes;
        rates.push(round.per_second);
        latency.merge(&round.latency);
    }
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    println!(
        "ack = {ack}: {count} rounds, {changes} changes acknowledged, none lost that was promised (bound {bound:?}); the \
         oldest that was lost had been acknowledged {late:?} before; {mean:.0} a second, p50 {:?}, p99 {:?}; longest \
         snapshot {:?}",
        latency.quantile(0.5),
        latency.quantile(0.99),
        longest_snapshot(&cluster),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_ack_disk_nothing_that_was_acknowledged_is_lost_when_all_nodes_die() {
    rounds("disk", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_nothing_is_lost_that_was_acknowledged_before_the_last_snapshot_could_begin() {
    rounds("all", Some(INTERVAL)).await;
}
