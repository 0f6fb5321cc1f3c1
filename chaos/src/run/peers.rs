//! The table of the README: faults seen in other registrars, and what the same faults did here. Their figures are fixed;
//! ours come from stories.

use std::fmt::Write as _;

use super::report::{Judged, Report};
use super::story::Story;
use super::verdict::Verdict;

/// What was seen in others: OpenSIPS 3.6.8 and 4.0.1 with full sharing, Kamailio 5.6.3 with DMQ, three nodes each on loopback.
struct Seen {
    fault: &'static str,
    opensips: &'static str,
    kamailio: &'static str,
}

/// Row by row; a scenario names the rows that it answers, counted from 1.
const ROWS: [Seen; 9] = [
    Seen {
        fault: "burst of new registrations at one node, counted at all",
        opensips: "3.6.8: 13000 / 10133 / 10134; 4.0.1: 3301 / 1371 / 1238, every node \"Up\" and \"Ok\"",
        kamailio: "9.5 KB a pending update: 17 → 408 MB for 20 000",
    },
    Seen {
        fault: "one node cut off while others register, refresh, remove; heal",
        opensips: "updates lost for good; a removal stays on the peers, a manual sync brings it back",
        kamailio: "new binding missing, refreshed one expired, removed one still served; all `active`",
    },
    Seen {
        fault: "REGISTER at one node, unregister at the next right after the 200",
        opensips: "2.6 % ghosts",
        kamailio: "53 % ghosts",
    },
    Seen {
        fault: "the same contact changed on both sides of a cut; heal",
        opensips: "stays different until the next REGISTER",
        kamailio: "a later removal at one side leaves it at the other",
    },
    Seen {
        fault: "the last contact that this node knows is removed, another node holds one more",
        opensips: "the other contact is erased everywhere",
        kamailio: "–",
    },
    Seen {
        fault: "donor dies or stalls during a join",
        opensips: "\"not synced\", no retry",
        kamailio: "every node is asked; 20 000 contacts cost 80 000 transferred updates",
    },
    Seen {
        fault: "kill -9 of a peer: until it is no longer written to",
        opensips: "~6 s at one peer, longer at another",
        kamailio: "7 to 56 s",
    },
    Seen { fault: "INVITE at a node that is still syncing", opensips: "404", kamailio: "404" },
    Seen {
        fault: "one hour of clock skew at one node",
        opensips: "live contacts expire there",
        kamailio: "live contacts expire there",
    },
];

/// The table, with the day and the machine of the run.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut text = format!(
        "Aorta: {}, {}, {} phones and more at 2000 requests/s. OpenSIPS 3.6.8 and 4.0.1 (full sharing) and Kamailio 5.6.3 \
         (DMQ): three nodes each on loopback.\n\n| fault | OpenSIPS | Kamailio | Aorta |\n|---|---|---|---|\n",
        report.date,
        report.machine,
        report.runs.iter().map(|run| run.story.phones).filter(|phones| *phones > 0).min().unwrap_or_default()
    );
    for (number, seen) in (1..).zip(&ROWS) {
        let ours = ours(number, report);
        let _ = writeln!(text, "| {} | {} | {} | {ours} |", seen.fault, seen.opensips, seen.kamailio);
    }
    text
}

/// What happened here, by the scenarios that answer a row.
fn ours(number: u8, report: &Report) -> String {
    let ran = |run: &&Judged| run.story.answers.contains(&number) && !matches!(run.verdict, Verdict::Skipped(_));
    let runs: Vec<&Judged> = report.runs.iter().filter(ran).collect();
    if runs.is_empty() {
        return "not run".to_owned();
    }
    let sum = |count: fn(&Story) -> u64| runs.iter().map(|run| count(&run.story)).sum::<u64>();
    let slowest = |times: &mut dyn Iterator<Item = Option<f64>>| times.flatten().fold(0.0, f64::max);
    let converged = slowest(&mut runs.iter().flat_map(|run| &run.story.heals).map(|heal| heal.converged_s));
    let mut text = format!(
        "{} lost, {} ghosts of {} acknowledged; all equal within {converged:.2} s of a heal",
        sum(|story| story.totals.lost),
        sum(|story| story.totals.ghosts),
        sum(|story| story.totals.full + story.totals.short),
    );
    let across = sum(|story| story.totals.across_cuts);
    if across > 0 {
        let _ = write!(text, "; {across} answers during cuts did not know the other side");
    }
    let bands = || runs.iter().flat_map(|run| &run.story.bands);
    match number {
        1 => _ = write!(text, "; at most {} MiB a node", runs.iter().map(|run| run.story.rss_mib()).max().unwrap_or(0)),
        7 => {
            let suspect = slowest(&mut bands().map(|band| band.suspect_s));
            let dropped = slowest(&mut bands().map(|band| band.dropped_s));
            let _ = write!(text, "; not awaited after {suspect:.2} s, no member after {dropped:.2} s");
        }
        8 => text.push_str("; 503 until it is in sync"),
        9 => runs.iter().for_each(|run| _ = write!(text, "; {}", run.story.totals.lapses)),
        _ => {}
    }
    let names: Vec<String> = runs
        .iter()
        .map(|run| format!("`{}`{}", run.story.scenario, if run.verdict == Verdict::Passed { "" } else { " FAILED" }))
        .collect();
    let _ = write!(text, " ({})", names.join(", "));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::story::{Heal, Totals};

    #[test]
    fn a_row_sums_up_what_answers_it() {
        let story = |lost: u64, converged_s: f64| Story {
            scenario: "cut-one".into(),
            answers: vec![2],
            totals: Totals { lost, full: 10, ..Totals::default() },
            heals: vec![Heal { converged_s: Some(converged_s), ..Heal::default() }],
            ..Story::default()
        };
        let failed = Judged { story: story(3, 0.5), verdict: Verdict::Failed(vec!["3 lost".into()]) };
        let passed = Judged { story: story(0, 0.25), verdict: Verdict::Passed };
        let report = Report { runs: vec![passed, failed], ..Report::default() };
        let said = ours(2, &report);
        assert!(said.starts_with("3 lost, 0 ghosts of 20 acknowledged; all equal within 0.50 s"), "{said}");
        assert!(said.ends_with("(`cut-one`, `cut-one` FAILED)"), "{said}");
        assert_eq!(ours(9, &report), "not run");
        assert_eq!(table(&report).lines().filter(|line| line.starts_with("| ")).count(), 1 + ROWS.len());
    }
}
