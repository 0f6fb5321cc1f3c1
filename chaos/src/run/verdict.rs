//! What a run is worth: every promise a rule, every rule a reason to fail. It sees the story and the scenario only.

use serde::{Deserialize, Serialize};

use super::scenario::{Bounds, Scenario};
use super::story::{LOOK_S, Story, Totals};

/// Complaints that a reason quotes.
const QUOTED_MAX: usize = 3;

/// Of all looks, those after a standstill of the machine at most, for short 200s to be laid to it.
const STANDSTILLS_SHARE_MAX: f64 = 0.1;

/// What came out of a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "why")]
pub enum Verdict {
    /// All held.
    Passed,
    /// It did not; each reason a sentence.
    Failed(Vec<String>),
    /// It could not be run here.
    Skipped(String),
}

impl Verdict {
    /// The verdict on a run.
    #[must_use]
    pub fn on(scenario: &Scenario, story: &Story) -> Self {
        let reasons = reasons(scenario, story);
        if reasons.is_empty() { Self::Passed } else { Self::Failed(reasons) }
    }

    /// Why it is not passed, each a sentence.
    #[must_use]
    pub fn reasons(&self) -> &[String] {
        match self {
            Self::Passed => &[],
            Self::Failed(reasons) => reasons,
            Self::Skipped(why) => std::slice::from_ref(why),
        }
    }

    /// In one word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "FAILED",
            Self::Skipped(_) => "skipped",
        }
    }
}

/// Why a run fails; nothing when it passes.
fn reasons(scenario: &Scenario, story: &Story) -> Vec<String> {
    let bounds = &scenario.bounds;
    let mut found = Vec::new();
    found.extend(nothing_lost_no_ghosts(story));
    found.extend(short_only_after_a_fault(bounds, story));
    found.extend(every_heal_converges(scenario, story));
    found.extend(repair_is_cheap(bounds, story));
    found.extend(calls_complete(bounds, story));
    found.extend(load_was_there(scenario, story));
    found.extend(lifetimes_are_kept(bounds, story));
    found.extend(nodes_are_calm(bounds, story));
    found.extend(story.accidents.iter().map(|words| format!("a node ended, or panicked: {words}")));
    if story.rss_mib() > bounds.rss_mib_max {
        found.push(format!("a node took {} MiB of memory, at most {}", story.rss_mib(), bounds.rss_mib_max));
    }
    found
}

fn nothing_lost_no_ghosts(story: &Story) -> Option<String> {
    let totals = &story.totals;
    if totals.lost == 0 && totals.ghosts == 0 && totals.wrong == 0 && story.complaints.is_empty() {
        return None;
    }
    let quoted: Vec<String> =
        story.complaints.iter().take(QUOTED_MAX).map(|said| format!("at {:.1} s {}", said.at_s, said.text)).collect();
    let Totals { lost, lost_short, ghosts, wrong, .. } = totals;
    let counts = format!("{lost} lost ({lost_short} of them short), {ghosts} ghosts, {wrong} wrong answers");
    Some(format!("{counts}, {} complaints: {}", story.complaints.len(), quoted.join("; ")))
}

/// Short 200s outside the time that a fault, and its end, are given to be noticed: nodes that meet again await one another
/// before they have told each other all. A machine that stood still is a fault, too, if that was rare.
fn short_only_after_a_fault(bounds: &Bounds, story: &Story) -> Option<String> {
    let standstills: Vec<f64> = story.standstills_s().collect();
    let are_rare = standstills.len() as f64 <= story.samples.len() as f64 * STANDSTILLS_SHARE_MAX;
    let allowed = |at_s: f64| {
        let noticed = |from_s: f64| (from_s..=from_s + bounds.short_after_fault_s + LOOK_S).contains(&at_s);
        let stood_still = are_rare && standstills.iter().any(|still_s| noticed(still_s - LOOK_S));
        stood_still
            || story.bands.iter().any(|band| {
                let throughout =
                    !bounds.short_while_it_lasts.is_empty() && (band.from_s..=story.over_s(band)).contains(&at_s);
                throughout || noticed(band.from_s) || noticed(band.until_s) || band.again_s.iter().copied().any(noticed)
            })
    };
    let mut outside = 0;
    let mut first_s = None;
    let pairs = story.samples.iter().zip(story.samples.iter().skip(1));
    for (before, after) in pairs.filter(|(before, after)| after.short > before.short && !allowed(after.at_s)) {
        outside += after.short - before.short;
        first_s.get_or_insert(after.at_s);
    }
    let first_s = first_s?;
    let limit = bounds.short_after_fault_s;
    let mut why =
        format!("{outside} short 200s more than {limit} s after a fault began or ended, the first at {first_s:.1} s");
    if !are_rare {
        why.push_str("; the host took this machine's processors too often to say why: run it again when it is calmer");
    }
    Some(why)
}

fn every_heal_converges(scenario: &Scenario, story: &Story) -> Vec<String> {
    let bound = scenario.bounds.converge_s;
    let mut found = Vec::new();
    let cycles = scenario.cycles().count();
    if story.heals.len() != cycles {
        found.push(format!("{} of {cycles} cycles were healed", story.heals.len()));
    }
    for heal in &story.heals {
        match heal.converged_s {
            Some(took_s) if took_s <= bound => {}
            Some(took_s) => found.push(format!("{took_s:.2} s to convergence after {}, at most {bound}", heal.of)),
            None => found.push(format!("no convergence after {}: {}", heal.of, heal.disagreement)),
        }
    }
    found
}

fn repair_is_cheap(bounds: &Bounds, story: &Story) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(most) = bounds.repair_bytes_max {
        let dear = story.heals.iter().filter(|heal| heal.repair_bytes > most);
        found.extend(
            dear.map(|heal| format!("repair after {} cost {} bytes, at most {most}", heal.of, heal.repair_bytes)),
        );
    }
    match (bounds.idle_bytes_per_s_max, story.idle_bytes_per_s) {
        (Some(most), Some(seen)) if seen > most => {
            found.push(format!("an idle node spends {seen:.0} bytes/s on anti-entropy, at most {most:.0}"));
        }
        (Some(_), None) => found.push("the idle cluster was not measured".to_owned()),
        _ => {}
    }
    found
}

fn calls_complete(bounds: &Bounds, story: &Story) -> Option<String> {
    let (tried, completed) = (story.totals.calls_tried, story.totals.calls_completed);
    let least = bounds.calls_completed_percent;
    let share = 100.0 * completed as f64 / (tried as f64).max(1.0);
    if tried == 0 {
        return Some("no call was tried".to_owned());
    }
    (share < least).then(|| format!("{completed} of {tried} calls completed: {share:.2} %, at least {least}"))
}

/// Lives that were too short or too long are lost ones and ghosts; where clocks are wrong enough of them must have been seen.
fn lifetimes_are_kept(bounds: &Bounds, story: &Story) -> Option<String> {
    let lapses = story.totals.lapses;
    let seen = lapses.before.min(lapses.after);
    (seen < bounds.lapses_min).then(|| format!("{lapses}; at least {} of each are to be looked at", bounds.lapses_min))
}

fn nodes_are_calm(bounds: &Bounds, story: &Story) -> Option<String> {
    let (flaps, most) = (story.totals.flaps, bounds.flaps_max?);
    (flaps.sum() > most).then(|| format!("nodes flap: {flaps}; at most {most} in all"))
}

/// A run with less load than it names proves less than it says.
fn load_was_there(scenario: &Scenario, story: &Story) -> Vec<String> {
    let totals = &story.totals;
    let mut found = Vec::new();
    let answered = totals.full + totals.short + totals.refused;
    let share = 100.0 * answered as f64 / (totals.due as f64).max(1.0);
    let least = scenario.bounds.answered_percent;
    if share < least {
        found.push(format!("{answered} of {} requests due were answered: {share:.1} %, at least {least}", totals.due));
    }
    if totals.full == 0 {
        found.push("no REGISTER was acknowledged in full".to_owned());
    }
    if totals.judged == 0 {
        found.push("nobody was asked at the end".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::story::{Band, Complaint, Heal, Lapses, Sample};

    const TEXT: &str =
        "about = \"x\"\n[[cycle]]\ntimes = 3\nlasts_s = 5\nfaults = [{ do = \"kill\", who = \"turn\" }]\n";

    fn scenario(more: &str) -> Scenario {
        Scenario::parse("sample", &format!("{TEXT}{more}")).expect("sound")
    }

    /// A story in which all is well.
    fn sound() -> Story {
        let bands = [2.0, 10.0, 18.0].map(|from_s| Band {
            label: "x".into(),
            from_s,
            until_s: from_s + 5.0,
            ..Band::default()
        });
        let heals =
            [7.0, 15.0, 23.0].map(|at_s| Heal { of: "x".into(), at_s, converged_s: Some(0.5), ..Heal::default() });
        let sample = |n: u32| Sample { at_s: f64::from(n) * LOOK_S, rss_mib: 100, ..Sample::default() };
        let totals =
            Totals { due: 100, full: 100, calls_tried: 100, calls_completed: 100, judged: 300, ..Totals::default() };
        Story {
            bands: bands.into(),
            heals: heals.into(),
            samples: (0..100).map(sample).collect(),
            totals,
            ..Story::default()
        }
    }

    fn judged(more: &str, spoil: impl Fn(&mut Story)) -> String {
        let mut story = sound();
        spoil(&mut story);
        match Verdict::on(&scenario(more), &story) {
            Verdict::Failed(reasons) => reasons.join("\n"),
            other => other.word().to_owned(),
        }
    }

    #[test]
    fn a_sound_story_passes() {
        assert_eq!(judged("", |_| {}), "passed");
    }

    #[test]
    fn a_lost_binding_a_ghost_and_a_complaint_fail() {
        assert!(judged("", |story| story.totals.lost = 1).contains("1 lost"));
        assert!(judged("", |story| story.totals.ghosts = 1).contains("1 ghosts"));
        assert!(judged("", |story| story.totals.wrong = 1).contains("1 wrong"));
        let complaint = Complaint { at_s: 3.0, text: "node2 denies phone 7".into() };
        assert!(judged("", |story| story.complaints.push(complaint.clone())).contains("at 3.0 s node2 denies phone 7"));
    }

    #[test]
    fn a_short_200_fails_unless_a_fault_has_just_begun() {
        let short_from = |at_s: f64| {
            move |story: &mut Story| story.samples.iter_mut().filter(|s| s.at_s >= at_s).for_each(|s| s.short = 4)
        };
        assert_eq!(judged("", short_from(2.5)), "passed");
        assert!(judged("", short_from(1.5)).contains("4 short 200s"));
        assert!(judged("", short_from(5.0)).contains("the first at 5.0 s"));
        assert_eq!(judged("[bounds]\nshort_while_it_lasts = \"why\"\n", short_from(5.0)), "passed");
        let calm_soon = "[bounds]\nshort_after_fault_s = 1.0\n";
        assert_eq!(judged(calm_soon, short_from(8.0)), "passed");
        assert!(judged(calm_soon, short_from(8.5)).contains("the first at 8.5 s"));
        let excused = format!("{calm_soon}short_while_it_lasts = \"why\"\n");
        assert!(judged(&excused, short_from(8.5)).contains("short"));
        let again = |story: &mut Story| {
            story.bands[0].again_s = vec![4.0];
            short_from(5.0)(story);
        };
        assert_eq!(judged("", again), "passed");
        let still = |looks: usize| {
            move |story: &mut Story| {
                story.samples.iter_mut().skip(18).take(looks).for_each(|sample| sample.taken_ms = 100);
                short_from(5.0)(story);
            }
        };
        assert_eq!(judged("", still(1)), "passed");
        assert_eq!(judged("", still(10)), "passed");
        assert!(judged("", still(11)).contains("too often"));
    }

    #[test]
    fn a_heal_that_is_late_never_or_missing_fails() {
        assert!(judged("", |story| story.heals[1].converged_s = Some(2.01)).contains("2.01 s to convergence"));
        assert!(judged("", |story| story.heals[1].converged_s = None).contains("no convergence"));
        assert!(judged("", |story| _ = story.heals.pop()).contains("2 of 3 cycles"));
    }

    #[test]
    fn dear_repair_and_a_talkative_idle_cluster_fail() {
        let more = "[bounds]\nrepair_bytes_max = 1000\nidle_bytes_per_s_max = 2000.0\n";
        assert!(judged(more, |_| {}).contains("not measured"));
        assert_eq!(judged(more, |story| story.idle_bytes_per_s = Some(2000.0)), "passed");
        assert!(judged(more, |story| story.idle_bytes_per_s = Some(2001.0)).contains("2001 bytes/s"));
        let dear = |story: &mut Story| {
            story.idle_bytes_per_s = Some(1.0);
            story.heals[0].repair_bytes = 1001;
        };
        assert!(judged(more, dear).contains("cost 1001 bytes"));
    }

    #[test]
    fn calls_that_fail_and_load_that_was_not_there_fail() {
        assert!(judged("", |story| story.totals.calls_completed = 98).contains("98 of 100 calls"));
        assert!(judged("", |story| story.totals.calls_tried = 0).contains("no call"));
        assert!(judged("", |story| story.totals.due = 200).contains("100 of 200 requests"));
        assert!(judged("", |story| story.totals.judged = 0).contains("nobody was asked"));
        let all_short = |story: &mut Story| (story.totals.short, story.totals.full) = (100, 0);
        assert!(judged("", all_short).contains("in full"));
    }

    #[test]
    fn lifetimes_hardly_looked_at_and_flaps_fail() {
        let lapses = Lapses { before: 1000, after: 999, ..Lapses::default() };
        assert_eq!(judged("", |_| {}), "passed");
        let more = "[bounds]\nlapses_min = 1000\n";
        assert!(judged(more, |story| story.totals.lapses = lapses).contains("0 of 999"));
        assert_eq!(judged(more, |story| story.totals.lapses = Lapses { after: 1000, ..lapses }), "passed");
        let flap = |story: &mut Story| story.totals.flaps.unlinked = 1;
        assert_eq!(judged("", flap), "passed");
        assert!(judged("[bounds]\nflaps_max = 0\n", flap).contains("1 links ended"));
        assert_eq!(judged("[bounds]\nflaps_max = 1\n", flap), "passed");
    }

    #[test]
    fn a_crash_and_a_glutton_fail() {
        assert!(judged("", |story| story.accidents.push("node1: signal 6".into())).contains("signal 6"));
        assert!(judged("", |story| story.samples[5].rss_mib = 1025).contains("1025 MiB"));
    }
}
