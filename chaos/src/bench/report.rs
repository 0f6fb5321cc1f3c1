//! What a whole benchmark leaves for people and programs: the table of targets on the terminal, as Markdown and JSON, and
//! pictures. It measures and judges nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::curves::Curves;
use super::finding::Finding;
use super::targets::{self, Baseline, Findings, Line, short};
use crate::run::{self, catalogue};

/// A whole benchmark.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The day, as 2026-11-21.
    pub date: String,
    /// Processors.
    pub machine: String,
    /// Who ran where.
    pub cores: String,
    /// What our nodes ran.
    pub program: String,
    /// Run by run: ours, and Kamailio's.
    pub runs: Vec<(Findings, Findings)>,
    /// How cost and delays grow.
    pub curves: Curves,
}

impl Report {
    /// Of this program, here and today; nothing measured yet.
    #[must_use]
    pub fn of(program: &Path) -> Self {
        let version = Command::new(program).arg("--version").output().ok();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        let program = version.filter(|version| !version.is_empty()).unwrap_or_else(|| "aorta".to_owned());
        Self { date: catalogue::today(), machine: run::machine(), program, ..Self::default() }
    }

    /// Medians of our findings and of Kamailio's.
    fn medians(&self) -> (Findings, Findings) {
        let of = |kind: fn(&(Findings, Findings)) -> &Findings| -> Findings {
            let names: std::collections::BTreeSet<&String> =
                self.runs.iter().flat_map(|run| kind(run).keys()).collect();
            let median = |name: &&String| {
                let runs: Vec<Finding> = self.runs.iter().filter_map(|run| kind(run).get(*name).cloned()).collect();
                ((*name).clone(), Finding::median(&runs))
            };
            names.iter().map(median).collect()
        };
        (of(|run| &run.0), of(|run| &run.1))
    }

    /// The table of targets.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        targets::lines(&self.medians(), &self.runs)
    }

    /// Kamailio beside its baselines.
    #[must_use]
    pub fn baselines(&self) -> Vec<Baseline> {
        targets::baselines(&self.medians().1)
    }

    /// Whether Kamailio was measured, so that all of it may be believed, and is near its baselines.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let near = self.baselines().iter().all(|baseline| baseline.is_near);
        near && targets::unknown(&self.medians().1).is_empty()
    }

    /// Whether the run is valid and every target was met.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.is_valid() && self.lines().iter().all(|line| line.verdict.holds())
    }

    /// The table for people.
    #[must_use]
    pub fn markdown(&self) -> String {
        let Self { date, machine, cores, program, runs, .. } = self;
        if runs.is_empty() {
            return format!("{date}, {machine}; {cores}; {program}.\n");
        }
        let runs = runs.len();
        let mut text = format!("{date}, {machine}; {cores}; {program}; medians of {runs} runs.\n\n");
        text.push_str(
            "| work | measured | target | Kamailio | times better | at least | |\n|---|--:|--:|--:|--:|--:|---|\n",
        );
        for line in self.lines() {
            let value = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), short);
            let with_unit = |number: Option<f64>| {
                number.map_or_else(String::new, |number| format!("{} {}", short(number), line.unit))
            };
            let times = |ratio: Option<f64>| ratio.map_or_else(String::new, |ratio| format!("{} ×", short(ratio)));
            text.push_str(&format!(
                "| {} | {} {} | {} | {} | {} | {} | {} |\n",
                line.work,
                value(line.measured),
                line.unit,
                line.asked,
                with_unit(line.kamailio),
                times(line.ratio),
                times(line.ratio_asked),
                line.verdict.word(),
            ));
        }
        text.push_str(&self.validity());
        text.push_str(&self.voids());
        text
    }

    fn validity(&self) -> String {
        let baselines = self.baselines();
        if baselines.is_empty() {
            return "\nKamailio was not measured: nothing says that the machine was fit for it.\n".to_owned();
        }
        let word = if self.is_valid() { "valid" } else { "NOT valid" };
        let each = baselines.iter().map(|baseline| {
            let Baseline { name, measured, expected, is_near } = baseline;
            let sign = if *is_near { "" } else { " (too far)" };
            format!("{name} {} where {} was expected{sign}", short(*measured), short(*expected))
        });
        let unknown = targets::unknown(&self.medians().1).into_iter();
        let unknown = unknown.map(|name| format!("{name} was not measured, or is void"));
        format!("\nThe run is {word}: Kamailio's {}.\n", each.chain(unknown).collect::<Vec<_>>().join("; "))
    }

    fn voids(&self) -> String {
        let (ours, kamailio) = self.medians();
        let mut text = String::new();
        for (whose, findings) in [("", ours), ("Kamailio's ", kamailio)] {
            for (name, finding) in findings.iter().filter(|(_, finding)| !finding.void.is_empty()) {
                text.push_str(&format!("\n{whose}{name} is void: {}.\n", finding.void.join("; ")));
            }
        }
        text
    }

    /// The same for a terminal: columns aligned.
    #[must_use]
    pub fn table(&self) -> String {
        let markdown = self.markdown();
        let rows: Vec<Vec<&str>> = markdown
            .lines()
            .filter(|line| line.starts_with('|') && !line.starts_with("|---"))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        let width =
            |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
        let mut text = String::new();
        for row in &rows {
            for (nth, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let room = " ".repeat(width - cell.chars().count());
                // Words to the left, numbers to the right.
                let is_words = nth == 0 || nth + 1 == columns;
                text.push_str(&if is_words { format!("{cell}{room}  ") } else { format!("{room}{cell}  ") });
            }
            text.push('\n');
        }
        let rest: Vec<&str> = markdown.lines().filter(|line| !line.starts_with('|')).collect();
        format!("{text}{}\n", rest.join("\n").trim_end())
    }

    /// Writes `bench.md`, `bench.json` and the pictures, or `curves.md` and so on when only these were measured; where the
    /// Markdown is.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let put = |name: &str, text: &str| {
            let file = folder.join(name);
            std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
        };
        let mut markdown = self.markdown();
        for (name, chart) in self.curves.charts() {
            if chart.curves.iter().any(|curve| curve.points.len() > 1) {
                put(&format!("{name}.svg"), &chart.draw())?;
                markdown.push_str(&format!("\n![{}]({name}.svg)\n", chart.title));
            }
        }
        let name = if self.runs.is_empty() { "curves" } else { "bench" };
        put(&format!("{name}.md"), &markdown)?;
        put(&format!("{name}.json"), &serde_json::to_string_pretty(self)?)?;
        Ok(folder.join(format!("{name}.md")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let finding = |cpu_us, per_s| Finding::default().with("cpu_us", cpu_us).with("per_s", per_s);
        let ours = |cpu_us| Findings::from([("refresh".to_owned(), finding(cpu_us, 250_000.0))]);
        let theirs = || {
            Findings::from([
                ("lookup".to_owned(), finding(17.0, 94_000.0)),
                ("refresh".to_owned(), finding(110.0, 25_000.0)),
                ("refresh-64".to_owned(), finding(119.0, 24_500.0)),
                ("new-one".to_owned(), finding(240.0, 3000.0)),
                ("refresh-one".to_owned(), finding(190.0, 3000.0)),
            ])
        };
        let runs = vec![(ours(9.0), theirs()), (ours(30.0), theirs()), (ours(8.0), theirs())];
        Report { date: "2026-11-21".to_owned(), runs, ..Report::default() }
    }

    #[test]
    fn the_table_shows_medians_targets_ratios_and_whether_the_run_is_valid() {
        let report = report();
        assert!(report.is_valid() && !report.has_passed(), "most was not measured");
        let text = report.markdown();
        let row = "| 9 µs | ≤ 10.0 | 110 µs | 12.2 × | 10.0 × | met |";
        assert!(text.contains(row) && text.contains("The run is valid"), "{text}");
        let table = report.table();
        assert!(table.contains("12.2 ×") && !table.contains('|'), "{table}");
    }

    #[test]
    fn a_kamailio_far_from_its_baselines_makes_a_run_invalid() {
        let mut report = report();
        for (_, kamailio) in &mut report.runs {
            kamailio.insert("refresh-64".to_owned(), Finding::default().with("cpu_us", 200.0));
        }
        assert!(!report.is_valid() && report.markdown().contains("NOT valid"));
    }

    #[test]
    fn a_kamailio_that_may_not_be_believed_makes_a_run_invalid() {
        let mut report = report();
        for (_, kamailio) in &mut report.runs {
            kamailio.get_mut("new-one").expect("there").void.push("busy".to_owned());
        }
        let text = report.markdown();
        assert!(!report.is_valid() && text.contains("NOT valid") && text.contains("new-one cpu_us was not measured"));
    }

    #[test]
    fn what_is_written_is_read_again() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let report = report();
        report.write(folder.path())?;
        let text = std::fs::read_to_string(folder.path().join("bench.json"))?;
        assert_eq!(serde_json::from_str::<Report>(&text)?, report);
        Ok(())
    }
}
