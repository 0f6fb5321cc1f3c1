//! The demo's steps, in order. Each does one thing to the cluster, checks what is promised of it, and says a figure.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aorta_phones::judges::{Expect, TickPlan, Ticker};
use aorta_phones::{Pace, Turn};

use super::show::{Show, bytes, many, took};
use super::stage::{NEWCOMERS, Stage, timers};

/// One step: its title and what it does.
pub(super) type Step = (&'static str, fn(&mut Stage, &mut Show) -> anyhow::Result<()>);

/// All of them.
pub(super) const STEPS: [Step; 7] = [
    ("Three nodes start and find one another", start),
    ("Phones register, each at any node; every node knows every phone", register),
    ("A small SBC calls phones, asking the nodes in turn", call),
    ("A node is killed (kill -9) while calls come in; the SBC fails over", kill),
    ("That node comes back with what is on its disk and catches up with what it missed", restart),
    ("A fourth, empty node joins while calls are put to it", join),
    ("Two nodes drain and leave while calls come in", leave),
];

/// The three nodes that start together.
const FIRST: [usize; 3] = [0, 1, 2];
/// The one that is killed.
const VICTIM: usize = 1;
/// Those that live on.
const SURVIVORS: [usize; 2] = [0, 2];
/// The one that joins.
const FOURTH: usize = 3;
/// All.
const ALL: [usize; 4] = [0, 1, 2, 3];
/// Those that leave in the end.
const LEAVERS: [usize; 2] = [0, 2];
/// Those that stay.
const STAYERS: [usize; 2] = [1, 3];

/// Longest time until a node is ready.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// Longest time until a draining node has left.
const LEFT_WITHIN: Duration = Duration::from_secs(20);
/// What phones ask for, seconds.
const EXPIRES_S: u32 = 3600;
/// Calls a second.
const CALLS_PER_S: u32 = 250;
/// Longest run of calls that ends when told to.
const CALLS_LONGEST: Duration = Duration::from_secs(40);
/// Set-up may take the SBC's own timer and this.
const FAILOVER_SLACK: Duration = Duration::from_millis(500);

fn start(stage: &mut Stage, show: &mut Show) -> anyhow::Result<()> {
    show.wait("waiting until they are ready");
    let begun = Instant::now();
    for index in FIRST {
        stage.nodes.start(index)?;
    }
    for index in FIRST {
        stage.nodes.wait_ready(index, READY_WITHIN)?;
    }
    let ready = begun.elapsed();
    stage.agree(&FIRST)?;
    show.held(&format!("ready after {}, linked with each other, in sync", took(ready)));
    Ok(())
}

fn register(stage: &mut Stage, show: &mut Show) -> anyhow::Result<()> {
    show.count("phones register");
    let report = stage.turn(Turn::Register(EXPIRES_S), 0..stage.first, &FIRST)?;
    let (rate, p99) = (report.stats.per_second(), report.stats.latency.quantile(0.99));
    show.held(&format!(
        "{} phones have their 200, {} a second, 99 % within {}; a 200 waits until all three nodes know",
        many(stage.first),
        rate.round(),
        took(p99)
    ));
    show.count("every node is asked for every phone");
    let answers = stage.all_know_all(&FIRST)?;
    let contacts = stage.contacts(&FIRST)?;
    stage.agree(&FIRST)?;
    show.held(&format!("{} lookups: every node was asked for every phone, and was right", many(answers)));
    show.held(&format!("{} contacts on each node, and equal digests", many(contacts)));
    Ok(())
}

fn call(stage: &mut Stage, show: &mut Show) -> anyhow::Result<()> {
    show.wait("calls");
    let calls = stage.call(&FIRST, &Pace::new(CALLS_PER_S, Duration::from_secs(3)))?;
    let calls = stage.ended(calls)?;
    anyhow::ensure!(calls.by_node.len() == FIRST.len(), "not every node was asked: {calls}");
    show.held(&format!(
        "{} calls, each redirected right; set-up {} (median), {} (slowest)",
        many(usize::try_from(calls.completed)?),
        took(calls.setup.quantile(0.5)),
        took(calls.setup.max())
    ));
    Ok(())
}

fn kill(stage: &mut Stage, show: &mut Show) -> anyhow::Result<()> {
    show.wait("calls, and a node dies");
    let pace = Pace::new(CALLS_PER_S, Duration::from_secs(5));
    let calls = stage.call(&FIRST, &pace)?;
    std::thread::sleep(Duration::from_secs(1));
    stage.nodes.kill(VICTIM)?;
    let calls = stage.ended(calls)?;
    let slowest = calls.setup.max();
    let limit = timers().node + FAILOVER_SLACK;
    anyhow::ensure!(slowest <= limit, "a call took {slowest:?} to set up, more than {limit:?}");
    anyhow::ensure!(calls.failed_over > 0, "no call met the dead node: {calls}");
    show.held(&format!(
        "{} calls, {} of them met the dead node and went on at another, none failed; slowest set-up {}",
        many(usize::try_from(calls.completed)?),
        calls.failed_over,
        took(slowest)
    ));
    Ok(())
}

fn restart(stage: &mut Stage, show: &mut Show) -> anyhow::Result<()> {
    show.count("meanwhile phones come and go");
    stage.turn(Turn::Register(EXPIRES_S), stage.first..stage.first + NEWCOMERS, &SURVIVORS)?;
    stage.turn(Turn::Unregister, 0..NEWCOMERS, &SURVIVORS)?;
    show.wait("the node restarts");
    let begun = Instant::now();
    stage.nodes.start(VICTIM)?;
    stage.nodes.wait_ready(VICTIM, READY_WITHIN)?;
    let ready = begun.elapsed();
    let client = stage.nodes.nodes()[VICTIM].client();
    stage.caught_up_bytes = client.metric("aorta_exchange_bytes_total", "direction=\"in\"")?;
    let records = client.metric("aorta_exchange_records_total", "direction=\"in\"")?;
    show.count("it is asked for every phone");
    stage.all_know_all(&[VICTIM])?;
    stage.agree(&FIRST)?;
    let missed = many(2 * NEWCOMERS);
    #[allow(clippy::cast_precision_loss, reason = "phones are far fewer than 2^52")]
    let share = records / stage.first as f64;
    anyhow::ensure!(share < 0.5, "it fetched {records} records to learn of {missed} changes: it came back empty");
    show.held(&format!(
        "ready after {}; of {missed} changes that it missed it knows all, for {} over the wire ({records:.0} records)",
        took(ready),
        bytes(stage.caught_up_bytes)
    ));
    show.held("what was removed while it was away stays removed");
    Ok(())
}

fn join(stage: &mut Stage, show: &mut Show) -> anyhow::Result<()> {
    show.wait("the node joins");
    let plan = TickPlan {
        node: stage.sip(&[FOURTH])[0],
        who: stage.phones.bound(),
        expect: Expect::Bound,
        every: Duration::from_millis(10),
        longest: READY_WITHIN * 2,
    };
    let ticker = {
        let _inside = stage.runtime().enter();
        Ticker::start(stage.phones.household(), plan)?
    };
    let begun = Instant::now();
    stage.nodes.start(FOURTH)?;
    stage.nodes.wait_ready(FOURTH, READY_WITHIN)?;
    let ready = begun.elapsed();
    let fetched = stage.nodes.nodes()[FOURTH].client().metric("aorta_exchange_bytes_total", "direction=\"in\"")?;
    show.count("it is asked for every phone");
    stage.all_know_all(&[FOURTH])?;
    let ticks = stage.runtime().block_on(ticker.stop())?;
    anyhow::ensure!(ticks.wrong.is_empty(), "it answered wrongly while it joined: {}", ticks.wrong);
    anyhow::ensure!(ticks.right > 0, "it never redirected a call");
    stage.agree(&ALL)?;
    let contacts = stage.contacts(&ALL)?;
    show.held(&format!(
        "ready after {} with all {} contacts, {} over the wire",
        took(ready),
        many(contacts),
        bytes(fetched)
    ));
    show.held(&format!(
        "called every 10 ms from before its start: {} times no answer yet, {} times 503, {} times the right redirect, never a 404",
        ticks.silent, ticks.not_ready, ticks.right
    ));
    anyhow::ensure!(
        stage.caught_up_bytes < fetched,
        "the restarted node fetched {}, no less than a new one",
        bytes(stage.caught_up_bytes)
    );
    let share = 100.0 * stage.caught_up_bytes / fetched.max(1.0);
    show.held(&format!("the restarted node had needed {share:.0} % of that"));
    Ok(())
}

fn leave(stage: &mut Stage, show: &mut Show) -> anyhow::Result<()> {
    show.wait("two nodes drain");
    let pace = Pace::new(CALLS_PER_S, CALLS_LONGEST);
    let calls = stage.call(&ALL, &pace)?;
    for index in LEAVERS {
        stage.nodes.nodes()[index].client().post("/v1/drain")?;
    }
    let mut left = Vec::new();
    for index in LEAVERS {
        left.push((index, stage.nodes.wait_ended(index, LEFT_WITHIN)));
    }
    pace.stop.store(true, Ordering::Relaxed);
    let calls = stage.ended(calls)?;
    for (index, status) in left {
        let name = stage.nodes.nodes()[index].place.name.clone();
        let status = status?;
        anyhow::ensure!(status.success(), "{name} left badly:\n{}", stage.nodes.nodes()[index].last_words());
    }
    show.held(&format!(
        "{} calls meanwhile, none failed; both left with exit code 0",
        many(usize::try_from(calls.completed)?)
    ));
    show.count("those that stay are asked for every phone");
    let answers = stage.all_know_all(&STAYERS)?;
    stage.agree(&STAYERS)?;
    let contacts = stage.contacts(&STAYERS)?;
    show.held(&format!(
        "{} lookups at the two that stay, all right; {} contacts on each: nothing was lost",
        many(answers),
        many(contacts)
    ));
    Ok(())
}
