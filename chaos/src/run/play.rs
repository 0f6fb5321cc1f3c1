//! One scenario from beginning to end: cycle by cycle, each healed and its convergence measured, then everybody judged.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use aorta_phones::crowd::{Fault as Wrong, Finding, Observation, Tally};

use super::act::Ongoing;
use super::fault::{Fault, Who};
use super::program::Programs;
use super::scenario::{Cycle, Scenario};
use super::stage::{Ending, Stage};
use super::story::{Band, Complaint, Heal, Lapses, Sample, Story, Totals};

/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(10);
/// Silence before an idle cluster is measured: what is in flight arrives, what lapses is slimmed.
const SETTLE: Duration = Duration::from_secs(1);

/// What an executor says while it works.
pub trait Watcher {
    /// So many seconds into the load, this is being done, and the last look was this.
    fn doing(&self, at_s: f64, what: &str, last: &Sample);
}

/// Runs a scenario; its nodes' files go into `folder`.
///
/// # Errors
/// When the lab cannot be set up, or a fault cannot be done; never for what the nodes did.
pub fn play(
    scenario: &Scenario,
    programs: &Programs,
    seed: u64,
    folder: &Path,
    watcher: &dyn Watcher,
) -> anyhow::Result<Story> {
    let begun = Instant::now();
    watcher.doing(0.0, "starts nodes, registers phones", &Sample::default());
    let mut stage = Stage::set(scenario, programs, seed, folder)?;
    let mut story = Story {
        scenario: scenario.name.clone(),
        about: scenario.about.clone(),
        answers: scenario.answers.clone(),
        seed,
        phones: scenario.phones,
        requests_per_s: scenario.requests_per_s,
        ..Story::default()
    };
    go_on(&stage, Duration::from_secs_f64(scenario.warm_up_s), "warms up", watcher);
    for (turn, cycle) in scenario.cycles() {
        play_cycle(&mut stage, turn, cycle, &mut story, watcher)?;
    }
    let last = stage.recorder().last();
    watcher.doing(stage.now_s(), "asks every node for every phone", &last);
    conclude(stage.end()?, &mut story);
    story.took_s = begun.elapsed().as_secs_f64();
    Ok(story)
}

fn go_on(stage: &Stage<'_>, time: Duration, what: &str, watcher: &dyn Watcher) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        watcher.doing(stage.now_s(), what, &stage.recorder().last());
        thread::sleep(TICK.min(until.saturating_duration_since(Instant::now())));
    }
}

fn play_cycle(
    stage: &mut Stage<'_>,
    turn: usize,
    cycle: &Cycle,
    story: &mut Story,
    watcher: &dyn Watcher,
) -> anyhow::Result<()> {
    let members = stage.members.clone();
    let label = cycle.faults.iter().map(|fault| fault.label(|who| told(who, turn, &members))).collect::<Vec<_>>();
    let mut band =
        Band { label: label.join(" + "), from_s: stage.now_s(), is_split: cycle.splits(), ..Band::default() };
    let is_quiet = cycle.faults.contains(&Fault::Quiet {});
    stage.mark_traffic();
    stage.recorder().cast(|cast| cast.under_fault = true);
    let before = stage.recorder().look();
    let until = Instant::now() + Duration::from_secs_f64(cycle.lasts_s);
    let mut ongoing = Ongoing::default();
    for fault in &cycle.faults {
        watcher.doing(stage.now_s(), &band.label, &stage.recorder().last());
        band.again_s.extend(ongoing.begin(stage, fault, turn)?);
    }
    if cycle.faults == [Fault::Quiet {}] {
        measure_idle(stage, until, story, watcher);
    }
    while Instant::now() < until {
        if ongoing.tick(stage, turn)? {
            band.again_s.push(stage.now_s());
        }
        watcher.doing(stage.now_s(), &band.label, &stage.recorder().last());
        notice(stage, &mut band);
        thread::sleep(TICK);
    }
    let at_heal = stage.recorder().look();
    let (healed, at_s) = (Instant::now(), stage.now_s());
    band.until_s = at_s;
    ongoing.heal(stage)?;
    let found = stage.converge(healed, is_quiet);
    stage.untouch_all();
    stage.recorder().cast(|cast| cast.under_fault = false);
    // Nodes count once a second: what the repair took is known by the end of the rest.
    go_on(stage, Duration::from_secs_f64(cycle.rest_s), "rests", watcher);
    let after = stage.recorder().look();
    if is_quiet {
        // What was repaired is known; only now may anything else change.
        stage.hold(false);
    }
    story.heals.push(Heal {
        of: band.label.clone(),
        at_s,
        ready_s: found.ready_s,
        converged_s: found.converged_s,
        changed: (at_heal.full + at_heal.short).saturating_sub(before.full + before.short),
        repair_bytes: after.repair_bytes.saturating_sub(at_heal.repair_bytes),
        repair_records: after.repair_records.saturating_sub(at_heal.repair_records),
        disagreement: found.disagreement,
    });
    story.bands.push(band);
    Ok(())
}

/// Anti-entropy of an idle cluster, the dearest node: by what the nodes count, for their links carry gossip as well.
fn measure_idle(stage: &Stage<'_>, until: Instant, story: &mut Story, watcher: &dyn Watcher) {
    go_on(stage, SETTLE, "settles", watcher);
    let (begun, before) = (Instant::now(), stage.repair_bytes_by_node());
    let wire_before = stage.bytes_between_nodes();
    go_on(stage, until.saturating_duration_since(Instant::now()), "no load", watcher);
    let seconds = begun.elapsed().as_secs_f64();
    let after = stage.repair_bytes_by_node();
    let most = before.iter().zip(&after).map(|(before, after)| after - before).fold(0.0, f64::max) / seconds;
    story.idle_bytes_per_s = Some(story.idle_bytes_per_s.unwrap_or_default().max(most));
    if let (Some(before), Some(after)) = (wire_before, stage.bytes_between_nodes()) {
        let each = (after - before) as f64 / seconds / stage.members.len() as f64;
        stage.note(format!(
            "idle: {most:.0} bytes/s of anti-entropy at the dearest node, {each:.0} bytes/s a node on the wire"
        ));
    }
}

/// Whom a fault means, by name.
fn told(who: Who, turn: usize, members: &[usize]) -> String {
    match who {
        Who::Phones => "phones".to_owned(),
        Who::Donor => "the donor".to_owned(),
        Who::All => "all".to_owned(),
        Who::Others => "others".to_owned(),
        _ => who.nodes(turn, members).iter().map(|node| format!("node{}", node + 1)).collect::<Vec<_>>().join(", "),
    }
}

/// What was seen becomes figures.
fn conclude(ending: Ending, story: &mut Story) {
    let (tally, before) = (&ending.seen.tally, &ending.seen.first);
    (story.calm, story.under_faults) = ending.seen.quantiles();
    story.samples.clone_from(&ending.seen.samples);
    story.nodes = ending.nodes;
    story.accidents = ending.accidents;
    story.notes = ending.notes;
    let first = story.samples.first().cloned().unwrap_or_default();
    let last = story.samples.last().cloned().unwrap_or_default();
    // The crowd's clock began before the load.
    let ahead_s = tally.at.as_secs_f64() - last.at_s;
    let across = |value: fn(&Sample) -> u64| across_cuts(story, value);
    let [lost_across, ghosts_across, wrong_across] =
        [across(|sample| sample.lost), across(|sample| sample.ghosts), across(|sample| sample.wrong)];
    let judged = |fault: Wrong| ending.judgement.count(fault);
    let lost_seen = (last.lost - first.lost).saturating_sub(lost_across);
    let ghosts_seen = (last.ghosts - first.ghosts).saturating_sub(ghosts_across);
    let short = |finding: &&Finding| finding.seen.told.as_ref().is_some_and(|told| !told.full);
    story.totals = Totals {
        due: tally.registers() + tally.not_made - before.registers() - before.not_made,
        full: tally.full - before.full,
        short: tally.short - before.short,
        refused: tally.refused.values().sum::<u64>() - before.refused.values().sum::<u64>(),
        unanswered: tally.timeouts - before.timeouts,
        failovers: tally.failovers - before.failovers,
        calls_tried: tally.calls,
        calls_completed: tally.calls_completed,
        judged: ending.judgement.asked,
        open: ending.judgement.unsure,
        across_cuts: lost_across + ghosts_across + wrong_across,
        lost: lost_seen + judged(Wrong::Missing),
        lost_short: ending.judgement.findings.iter().filter(|found| found.fault == Wrong::Missing).filter(short).count()
            as u64,
        ghosts: ghosts_seen + judged(Wrong::Ghost),
        wrong: (last.wrong - first.wrong).saturating_sub(wrong_across)
            + judged(Wrong::Wrong)
            + judged(Wrong::Unanswered),
        lapses: Lapses {
            before: tally.lapses.before - before.lapses.before,
            early: tally.lapses.early - before.lapses.early,
            after: tally.lapses.after - before.lapses.after,
            late: tally.lapses.late - before.lapses.late,
        },
        flaps: ending.flaps,
    };
    story.complaints = complaints(tally, ahead_s, story);
    let end_s = last.at_s;
    story.complaints.extend(
        ending.judgement.findings.iter().map(|found| Complaint {
            at_s: end_s,
            text: format!("{:?} at the end: {}", found.fault, said(&found.seen)),
        }),
    );
    story.complaints.extend(ending.wrong.into_iter().map(|text| Complaint { at_s: end_s, text }));
}

/// What the crowd saw while it worked, what one side of a cut could not know apart.
fn complaints(tally: &Tally, ahead_s: f64, story: &Story) -> Vec<Complaint> {
    let kinds = [
        (&tally.lost, "lost"),
        (&tally.lost_after_short, "lost after a short 200"),
        (&tally.ghosts, "ghost"),
        (&tally.ghosts_after_short, "ghost after a short 200"),
        (&tally.wrong, "wrong"),
    ];
    let mut found = Vec::new();
    for (counted, kind) in kinds {
        for seen in &counted.examples {
            let at_s = seen.at.as_secs_f64() - ahead_s;
            if at_s >= 0.0 && !story.in_a_split(at_s) {
                found.push(Complaint { at_s, text: format!("{kind}: {}", said(seen)) });
            }
        }
    }
    found.sort_by(|one, other| one.at_s.total_cmp(&other.at_s));
    found
}

fn said(seen: &Observation) -> String {
    let told = seen.told.as_ref().map_or_else(
        || "was told nothing".to_owned(),
        |told| {
            format!("{} {} by {}", if told.full { "full 200 to" } else { "short 200 to" }, told.deed.name(), told.by)
        },
    );
    format!("{} says of {}: {} ({told})", seen.node, seen.aor, seen.what)
}

/// By how much a count grew while a cut kept nodes from one another.
fn across_cuts(story: &Story, count: fn(&Sample) -> u64) -> u64 {
    let pairs = story.samples.iter().zip(story.samples.iter().skip(1));
    let inside = pairs.filter(|(_, after)| story.in_a_split(after.at_s));
    inside.map(|(before, after)| count(after).saturating_sub(count(before))).sum()
}

/// When those that go on noticed that others do not.
fn notice(stage: &Stage<'_>, band: &mut Band) {
    if band.dropped_s.is_some() {
        return;
    }
    let since_s = stage.now_s() - band.from_s;
    if let Some((is_suspect, are_gone)) = stage.noticed() {
        if is_suspect {
            band.suspect_s.get_or_insert(since_s);
        }
        band.dropped_s = are_gone.then_some(since_s);
    }
}
