//! What a run leaves for people and programs: a table in Markdown, everything in JSON, a picture for each scenario. It
//! judges nothing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::peers;
use super::picture;
use super::story::{Heal, Quantiles, Story};
use super::verdict::Verdict;

/// A story and its verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// What was seen.
    pub story: Story,
    /// What it is worth.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// A run of some scenarios.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The day, as 2026-11-21.
    pub date: String,
    /// Processors and memory.
    pub machine: String,
    /// Scenario by scenario.
    pub runs: Vec<Judged>,
}

impl Report {
    /// Whether nothing failed; what was skipped did not.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        !self.runs.iter().any(|run| matches!(run.verdict, Verdict::Failed(_)))
    }

    /// Passed, failed and skipped in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let count = |word: &str| self.runs.iter().filter(|run| run.verdict.word() == word).count();
        let minutes = self.runs.iter().map(|run| run.story.took_s).sum::<f64>() / 60.0;
        format!(
            "{} passed, {} failed, {} skipped in {minutes:.1} minutes",
            count("passed"),
            count("FAILED"),
            count("skipped")
        )
    }

    /// The table for people.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text =
            format!("# Real processes, real faults\n\n{}, {}. {}.\n\n", self.date, self.machine, self.summary());
        text.push_str(TABLE_HEAD);
        for run in &self.runs {
            text.push_str(&row(run));
        }
        text.push_str(LEGEND);
        for run in &self.runs {
            text.push_str(&section(run));
        }
        text
    }

    /// Writes `report.md`, `report.json` and, for the README, `peers.md` into a folder.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        put(&folder.join("report.md"), &self.markdown())?;
        put(&folder.join("peers.md"), &peers::table(self))?;
        put(&folder.join("report.json"), &serde_json::to_string_pretty(self)?)
    }
}

impl Judged {
    /// Writes the picture of this run, and all that was seen of it, into a folder of its own.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        put(&folder.join("story.json"), &serde_json::to_string(self)?)?;
        let picture = folder.join("timeline.svg");
        put(&picture, &picture::draw(&self.story, &self.verdict))?;
        Ok(picture)
    }
}

fn put(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

const TABLE_HEAD: &str = "\
| scenario | verdict | 200 in full | short | lost | ghosts | calls completed of tried | converged after, s | repair, KiB | \
changed meanwhile | p50 / p99 calm, ms | p50 / p99 under faults, ms | suspect / dropped after, s | MiB |\n\
|---|---|--:|--:|--:|--:|--:|---|---|---|--:|--:|--:|--:|\n";

const LEGEND: &str = "\n\
*Short*: 200s that left with fewer acks than asked. *Lost*: bindings denied though a phone was certain of them, *ghosts*: \
served though certainly gone, during the run and at its end, when every node is asked for every phone; after short 200s too. \
*Converged*: from each heal (a start, SIGCONT, a mended link) until all nodes are ready and hold the same. *Repair*: bytes of \
all exchanges of all nodes from the heal to the end of the rest after it, beside the requests acknowledged while the fault lasted. Latencies \
count from the moment that a request was due.\n";

fn row(run: &Judged) -> String {
    let Judged { story, verdict } = run;
    if let Verdict::Skipped(why) = verdict {
        return format!("| {} | skipped: {why} | | | | | | | | | | | | |\n", story.scenario);
    }
    let each = |value: &dyn Fn(&Heal) -> String| story.heals.iter().map(value).collect::<Vec<_>>().join(" · ");
    let slowest = |times: Vec<Option<f64>>| {
        let slowest =
            times.into_iter().flatten().fold(None, |most: Option<f64>, time| Some(most.map_or(time, |m| m.max(time))));
        slowest.map_or_else(|| "–".to_owned(), |time| format!("{time:.2}"))
    };
    let suspect = slowest(story.bands.iter().map(|band| band.suspect_s).collect());
    let dropped = slowest(story.bands.iter().map(|band| band.dropped_s).collect());
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {suspect} / {dropped} | {} |\n",
        story.scenario,
        verdict.word(),
        story.totals.cells().join(" | "),
        each(&|heal| heal.converged_s.map_or_else(|| "never".to_owned(), |took_s| format!("{took_s:.2}"))),
        each(&|heal| format!("{:.0}", heal.repair_bytes as f64 / 1024.0)),
        each(&|heal| heal.changed.to_string()),
        latencies(story.calm),
        latencies(story.under_faults),
        story.rss_mib(),
    )
}

fn latencies(quantiles: Quantiles) -> String {
    if quantiles.count == 0 { "–".to_owned() } else { format!("{:.1} / {:.1}", quantiles.p50_ms, quantiles.p99_ms) }
}

/// What the table has no room for.
fn section(run: &Judged) -> String {
    let Judged { story, verdict } = run;
    let mut text = format!("\n## {}\n\n{}\n", story.scenario, story.about);
    if let Verdict::Skipped(why) = verdict {
        return format!("{text}\nSkipped: {why}\n");
    }
    verdict.reasons().iter().for_each(|reason| _ = write!(text, "\n* **failed**: {reason}"));
    let totals = &story.totals;
    let _ = write!(
        text,
        "\n* seed {}, {:.0} s in all; {} answers judged at the end, {} of them open; {} refused, {} unanswered, {} failovers",
        story.seed, story.took_s, totals.judged, totals.open, totals.refused, totals.unanswered, totals.failovers
    );
    if totals.across_cuts > 0 {
        let _ = write!(
            text,
            "\n* {} answers during cuts did not know what the other side had acknowledged",
            totals.across_cuts
        );
    }
    let _ = write!(text, "\n* {}\n* flaps: {}", totals.lapses, totals.flaps);
    if let Some(bytes) = story.idle_bytes_per_s {
        let _ = write!(text, "\n* idle: {bytes:.0} bytes/s of anti-entropy at the dearest node");
    }
    let standstills: Vec<f64> = story.standstills_s().collect();
    if let Some(first_s) = standstills.first() {
        let (looks, all) = (standstills.len(), story.samples.len());
        let _ =
            write!(text, "\n* the host took a processor for long: {looks} of {all} looks, the first at {first_s:.1} s");
    }
    for heal in &story.heals {
        let seconds = |time: Option<f64>| time.map_or_else(|| "never".to_owned(), |time| format!("{time:.2} s"));
        let _ = write!(
            text,
            "\n* {}, healed at {:.1} s: ready after {}, equal after {}, {} records in {} bytes of repair, {} changes meanwhile",
            heal.of,
            heal.at_s,
            seconds(heal.ready_s),
            seconds(heal.converged_s),
            heal.repair_records,
            heal.repair_bytes,
            heal.changed
        );
    }
    story.notes.iter().for_each(|note| _ = write!(text, "\n* {note}"));
    let _ = write!(text, "\n\n![{} over time]({}/timeline.svg)\n", story.scenario, story.scenario);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(name: &str, verdict: Verdict) -> Judged {
        let heal = Heal { converged_s: Some(0.5), repair_bytes: 2_048, changed: 7, ..Heal::default() };
        let story = Story { scenario: name.into(), heals: vec![heal, Heal::default()], ..Story::default() };
        Judged { story, verdict }
    }

    #[test]
    fn a_failure_fails_the_run_and_a_skip_does_not() {
        let mut report = Report { runs: vec![judged("one", Verdict::Passed)], ..Report::default() };
        report.runs.push(judged("two", Verdict::Skipped("no namespaces".into())));
        assert!(report.has_passed());
        report.runs.push(judged("three", Verdict::Failed(vec!["1 lost".into()])));
        assert!(!report.has_passed());
        assert!(report.summary().starts_with("1 passed, 1 failed, 1 skipped"));
    }

    #[test]
    fn every_row_has_as_many_cells_as_the_head() {
        let cells = |line: &str| line.matches('|').count();
        let head = cells(TABLE_HEAD.lines().next().expect("a line"));
        for verdict in [Verdict::Passed, Verdict::Skipped("x".into()), Verdict::Failed(vec!["y".into()])] {
            assert_eq!(cells(&row(&judged("one", verdict))), head);
        }
        assert!(row(&judged("one", Verdict::Passed)).contains("| 0.50 · never | 2 · 0 | 7 · 0 |"));
    }

    #[test]
    fn json_goes_both_ways() {
        let report = Report { runs: vec![judged("one", Verdict::Failed(vec!["1 lost".into()]))], ..Report::default() };
        let text = serde_json::to_string(&report).expect("written");
        assert_eq!(serde_json::from_str::<Report>(&text).expect("read"), report);
    }
}
