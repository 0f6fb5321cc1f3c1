//! What is asked of our nodes, beside what Kamailio does in the same run; and the figures that Kamailio showed once, by which
//! a run is told from one on a machine that was busy, or with a Kamailio that was set up badly. It measures nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::finding::{Finding, middle};

/// Findings by the name of their experiment.
pub type Findings = BTreeMap<String, Finding>;

/// Three nodes on loopback, servers on three processors, the load on a fourth, `ack = "all"`, TLS on.
const TARGETS: [Target; 18] = [
    target(
        "refreshes at all nodes, closed loop: CPU of the cluster",
        "refresh",
        "cpu_us",
        "µs",
        Most(10.0),
        Less(10.0),
    ),
    target("the same: throughput", "refresh", "per_s", "/s", Least(240_000.0), More(8.0)),
    target("the same, all from one address and port", "refresh-sbc", "per_s", "/s", LeastOfRefresh(0.8), Alone),
    target(
        "new REGISTERs at all nodes, closed loop: CPU of the cluster",
        "new",
        "cpu_us",
        "µs",
        Most(14.0),
        Less(10.0),
    ),
    target("refreshes, 4000/s, open loop: CPU of the cluster", "refresh-open", "cpu_us", "µs", Most(60.0), Less(3.0)),
    target("the same: p99", "refresh-open", "p99_ms", "ms", Most(1.0), Alone),
    target("INVITE → 302 and its ACK, one node, closed loop: CPU", "lookup", "cpu_us", "µs", Most(6.0), Less(2.5)),
    target("the same: throughput", "lookup", "per_s", "/s", Least(220_000.0), Alone),
    target("200 OK → known at the last node, longest", "lag", "visible_max_ms", "ms", Most(0.0), Alone),
    target("200 OK, idle: p50", "lag", "answer_p50_ms", "ms", Most(0.4), Alone),
    target("memory of a contact, fresh process", "size", "joined_bytes", "B", Most(350.0), LessThanMemory(1.0 / 0.6)),
    target("join of an empty node", "size", "join_s", "s", Most(4.0), Alone),
    target("the same under load: p99 of phones at the others, times", "size", "join_p99_rise", "×", Most(2.0), Alone),
    target("the same: requests that failed", "size", "join_failed", "", Most(0.0), Alone),
    target("restart from the disk", "size", "restart_s", "s", Most(3.0), Alone),
    target("snapshots at 20 000 refreshes/s: p99, times", "snapshot", "p99_rise", "×", Most(1.5), Alone),
    target("memory over all updates: growth", "snapshot", "growth_percent", "%", Most(5.0), Alone),
    target(
        "refreshes at all nodes, closed loop of 64: CPU of the cluster",
        "refresh-64",
        "cpu_us",
        "µs",
        Nothing,
        Less(10.0),
    ),
];

use Absolute::{Least, LeastOfRefresh, Most, Nothing};
use Relative::{Alone, Less, LessThanMemory, More};

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Absolute {
    Most(f64),
    Least(f64),
    /// At least this share of the throughput of refreshes from many ports.
    LeastOfRefresh(f64),
    Nothing,
}

/// What it must be beside Kamailio's.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Relative {
    Alone,
    /// So many times less.
    Less(f64),
    /// So many times more.
    More(f64),
    /// So many times less than a contact takes there.
    LessThanMemory(f64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Target {
    work: &'static str,
    experiment: &'static str,
    figure: &'static str,
    unit: &'static str,
    absolute: Absolute,
    relative: Relative,
}

const fn target(
    work: &'static str,
    experiment: &'static str,
    figure: &'static str,
    unit: &'static str,
    absolute: Absolute,
    relative: Relative,
) -> Target {
    Target { work, experiment, figure, unit, absolute, relative }
}

/// What became of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As asked.
    Met,
    /// So many times better than Kamailio as asked, on a slower machine than the absolute figures are of.
    InRatio,
    /// Not as asked.
    Missed,
    /// Measured, and not to be believed.
    Void,
    /// Not measured.
    Absent,
}

impl Verdict {
    /// Whether what was asked holds.
    #[must_use]
    pub fn holds(self) -> bool {
        matches!(self, Self::Met | Self::InRatio)
    }

    /// As people read it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::InRatio => "met (times)",
            Self::Missed => "MISSED",
            Self::Void => "void",
            Self::Absent => "–",
        }
    }
}

/// A target with what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// What was done.
    pub work: String,
    /// The unit of its values.
    pub unit: String,
    /// Ours.
    pub measured: Option<f64>,
    /// What was asked, as text.
    pub asked: String,
    /// Kamailio's.
    pub kamailio: Option<f64>,
    /// By how many times ours is better.
    pub ratio: Option<f64>,
    /// By how many it should be.
    pub ratio_asked: Option<f64>,
    /// Whether it is.
    pub verdict: Verdict,
}

/// One run: of our nodes, and of Kamailio's.
pub type Run = (Findings, Findings);

/// Every target beside what was found: `median` of all `runs`.
#[must_use]
pub fn lines(median: &Run, runs: &[Run]) -> Vec<Line> {
    TARGETS.iter().map(|target| target.line(median, runs)).collect()
}

impl Target {
    fn line(&self, (ours, kamailio): &Run, runs: &[Run]) -> Line {
        let finding = ours.get(self.experiment);
        let measured = figure(ours, self.experiment, self.figure);
        let (experiment, name) = self.other();
        let other = figure(kamailio, experiment, name);
        let (ratio, ratio_asked) = (self.ratio(runs), self.relative.asked());
        let bound = self.bound(ours);
        let in_bound = match (measured, bound) {
            (Some(value), Some((true, most))) => value <= most,
            (Some(value), Some((false, least))) => value >= least,
            (_, None) => true,
            (None, _) => false,
        };
        let in_ratio = ratio.is_none_or(|ratio| ratio >= ratio_asked.unwrap_or_default());
        let verdict = match finding {
            None => Verdict::Absent,
            Some(_) if measured.is_none() => Verdict::Absent,
            Some(finding) if !finding.void.is_empty() => Verdict::Void,
            // Both were measured, and never both to be believed.
            Some(_) if ratio_asked.is_some() && other.is_some() && ratio.is_none() => Verdict::Void,
            Some(_) if in_bound && in_ratio => Verdict::Met,
            Some(_) if ratio.is_some() && in_ratio && self.relative.is_of_speed() && scale(kamailio) > SLOWER => {
                Verdict::InRatio
            }
            Some(_) => Verdict::Missed,
        };
        let asked = match bound {
            Some((true, most)) => format!("≤ {}", short(most)),
            Some((false, least)) => format!("≥ {}", short(least)),
            None => String::new(),
        };
        let (work, unit) = (self.work.to_owned(), self.unit.to_owned());
        Line { work, unit, measured, asked, kamailio: other, ratio, ratio_asked, verdict }
    }

    /// Whether it is an upper bound, and which.
    fn bound(&self, ours: &Findings) -> Option<(bool, f64)> {
        match self.absolute {
            Most(most) => Some((true, most)),
            Least(least) => Some((false, least)),
            LeastOfRefresh(share) => figure(ours, "refresh", "per_s").map(|per_s| (false, per_s * share)),
            Nothing => None,
        }
    }

    /// What it is held against of Kamailio's: experiment and figure.
    fn other(&self) -> (&'static str, &'static str) {
        match self.relative {
            LessThanMemory(_) => ("memory", "contact_bytes"),
            Alone | Less(_) | More(_) => (self.experiment, self.figure),
        }
    }

    /// By how many times ours is better, the median of those runs in which both may be believed. Within a run the two follow
    /// each other at once; from run to run the host gives more or less.
    fn ratio(&self, runs: &[Run]) -> Option<f64> {
        self.relative.asked()?;
        let (experiment, name) = self.other();
        let times = |(ours, kamailio): &Run| {
            let ours = sound(ours, self.experiment, self.figure).filter(|ours| *ours > 0.0)?;
            let theirs = sound(kamailio, experiment, name).filter(|theirs| *theirs > 0.0)?;
            Some(if matches!(self.relative, More(_)) { ours / theirs } else { theirs / ours })
        };
        middle(runs.iter().filter_map(times).collect())
    }
}

impl Relative {
    /// By how many times ours should be better.
    fn asked(self) -> Option<f64> {
        match self {
            Alone => None,
            Less(asked) | More(asked) | LessThanMemory(asked) => Some(asked),
        }
    }

    /// Whether a slower machine changes it. Of memory it does not.
    fn is_of_speed(self) -> bool {
        !matches!(self, LessThanMemory(_))
    }
}

fn figure(findings: &Findings, experiment: &str, figure: &str) -> Option<f64> {
    findings.get(experiment).and_then(|finding| finding.figure(figure))
}

/// A value that may be believed.
fn sound(findings: &Findings, experiment: &str, figure: &str) -> Option<f64> {
    findings.get(experiment).filter(|finding| finding.void.is_empty()).and_then(|finding| finding.figure(figure))
}

/// Kamailio 5.6.3 as it was measured when the targets were written (2026-11, four processors): experiment, figure, value.
const BASELINES: [(&str, &str, f64); 5] = [
    ("new-one", "cpu_us", 238.0),
    ("refresh-one", "cpu_us", 198.0),
    ("refresh-64", "cpu_us", 121.0),
    ("refresh-64", "per_s", 23_852.0),
    ("lookup", "cpu_us", LOOKUP_BASELINE_US),
];

/// Its INVITE → 302: by this the others are scaled to the machine.
const LOOKUP_BASELINE_US: f64 = 17.0;

/// A machine on which it takes so many times as long is a slower one than that of the targets: there the ratios rule.
const SLOWER: f64 = 1.1;

/// How far Kamailio may be from its baselines.
const BASELINE_TOLERANCE: f64 = 0.25;

/// Kamailio's figure beside its baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Experiment and figure.
    pub name: String,
    /// Now.
    pub measured: f64,
    /// As it was, scaled to this machine.
    pub expected: f64,
    /// Whether they are near enough.
    pub is_near: bool,
}

/// How many times as long as on the machine of the targets everything takes here; 1 when that is not known.
fn scale(kamailio: &Findings) -> f64 {
    figure(kamailio, "lookup", "cpu_us").map_or(1.0, |cpu_us| cpu_us / LOOKUP_BASELINE_US)
}

/// Of which of its baselines there is no figure that may be believed.
#[must_use]
pub fn unknown(kamailio: &Findings) -> Vec<String> {
    let is_unknown = |(experiment, name, _): &&(&str, &str, f64)| sound(kamailio, experiment, name).is_none();
    BASELINES.iter().filter(is_unknown).map(|(experiment, name, _)| format!("{experiment} {name}")).collect()
}

/// Kamailio's figures beside their baselines, as far as there are any that may be believed.
#[must_use]
pub fn baselines(kamailio: &Findings) -> Vec<Baseline> {
    let scale = scale(kamailio);
    let beside = |(experiment, name, then): &(&str, &str, f64)| {
        let measured = sound(kamailio, experiment, name)?;
        // A machine that takes longer for each request takes fewer of them.
        let expected = if *name == "per_s" { then / scale } else { then * scale };
        let is_near = (measured / expected - 1.0).abs() <= BASELINE_TOLERANCE;
        Some(Baseline { name: format!("{experiment} {name}"), measured, expected, is_near })
    };
    BASELINES.iter().filter_map(beside).collect()
}

/// A number as short as it can be without a lie.
#[must_use]
pub fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => {
            let digits = format!("{value:.0}");
            let groups: Vec<&str> =
                digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
            groups.join(" ")
        }
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(values: &[(&str, &str, f64)]) -> Findings {
        let mut findings = Findings::new();
        for (experiment, figure, value) in values {
            let finding = findings.remove(*experiment).unwrap_or_default();
            findings.insert((*experiment).to_owned(), finding.with(figure, *value));
        }
        findings
    }

    fn verdict(ours: &Findings, kamailio: &Findings, nth: usize) -> (Verdict, Option<f64>) {
        let line = &of_one_run(ours, kamailio)[nth];
        (line.verdict, line.ratio)
    }

    fn of_one_run(ours: &Findings, kamailio: &Findings) -> Vec<Line> {
        let run = (ours.clone(), kamailio.clone());
        lines(&run, std::slice::from_ref(&run))
    }

    #[test]
    fn a_target_is_met_by_its_bound_and_its_ratio() {
        let kamailio = found(&[("refresh", "cpu_us", 121.0), ("refresh", "per_s", 24_000.0)]);
        let ours = |cpu_us, per_s| found(&[("refresh", "cpu_us", cpu_us), ("refresh", "per_s", per_s)]);
        assert_eq!(verdict(&ours(10.0, 250_000.0), &kamailio, 0), (Verdict::Met, Some(12.1)));
        assert_eq!(verdict(&ours(10.1, 250_000.0), &kamailio, 0).0, Verdict::Missed);
        assert_eq!(verdict(&ours(9.0, 250_000.0), &found(&[("refresh", "cpu_us", 80.0)]), 0).0, Verdict::Missed);
        assert_eq!(verdict(&ours(9.0, 250_000.0), &kamailio, 1).0, Verdict::Met);
        assert_eq!(verdict(&ours(9.0, 239_000.0), &kamailio, 1).0, Verdict::Missed);
        let mut void = ours(1.0, 1e6);
        void.get_mut("refresh").expect("there").void.push("busy".to_owned());
        assert_eq!(verdict(&void, &kamailio, 0).0, Verdict::Void);
        assert_eq!(verdict(&Findings::new(), &kamailio, 0).0, Verdict::Absent);
    }

    #[test]
    fn on_a_slower_machine_the_ratio_rules() {
        let kamailio = |lookup| found(&[("refresh", "cpu_us", 180.0), ("lookup", "cpu_us", lookup)]);
        let ours = |cpu_us| found(&[("refresh", "cpu_us", cpu_us), ("snapshot", "growth_percent", 6.0)]);
        assert_eq!(verdict(&ours(17.0), &kamailio(24.0), 0).0, Verdict::InRatio);
        assert_eq!(verdict(&ours(19.0), &kamailio(24.0), 0).0, Verdict::Missed, "not ten times");
        assert_eq!(verdict(&ours(17.0), &kamailio(17.5), 0).0, Verdict::Missed, "as fast a machine");
        let growth = of_one_run(&ours(17.0), &kamailio(24.0)).into_iter().find(|line| line.unit == "%");
        assert_eq!(growth.map(|line| line.verdict), Some(Verdict::Missed), "there is no ratio");
    }

    #[test]
    fn memory_is_no_matter_of_speed() {
        let kamailio = found(&[("memory", "contact_bytes", 2000.0), ("lookup", "cpu_us", 24.0)]);
        let of = |bytes| {
            let lines = of_one_run(&found(&[("size", "joined_bytes", bytes)]), &kamailio);
            let line = lines.into_iter().find(|line| line.unit == "B").expect("a target of memory");
            (line.verdict, line.ratio)
        };
        assert_eq!([of(300.0), of(400.0)], [(Verdict::Met, Some(2000.0 / 300.0)), (Verdict::Missed, Some(5.0))]);
    }

    #[test]
    fn only_what_was_measured_side_by_side_is_compared() {
        let run = |ours, kamailio, void: &[&str]| {
            let mut theirs = found(&[("refresh", "cpu_us", kamailio)]);
            theirs.get_mut("refresh").expect("there").void.extend(void.iter().map(|why| (*why).to_owned()));
            (found(&[("refresh", "cpu_us", ours)]), theirs)
        };
        // The host gives the second run half of the time; the medians, 15 and 160, would say 10.7.
        let runs = [run(10.0, 110.0, &[]), run(20.0, 230.0, &[]), run(15.0, 160.0, &[])];
        let line = &lines(&run(15.0, 160.0, &[]), &runs)[0];
        assert_eq!(line.ratio, Some(11.0));
        let runs = [run(10.0, 110.0, &["busy"]), run(20.0, 240.0, &[])];
        assert_eq!(lines(&run(15.0, 240.0, &[]), &runs)[0].ratio, Some(12.0));
        let runs = [run(9.0, 110.0, &["busy"])];
        let line = &lines(&runs[0], &runs)[0];
        assert_eq!((line.ratio, line.verdict), (None, Verdict::Void), "met by its bound, with nothing to compare");
    }

    #[test]
    fn one_source_is_held_against_many() {
        let ours = |one| found(&[("refresh", "per_s", 100_000.0), ("refresh-sbc", "per_s", one)]);
        assert_eq!(verdict(&ours(80_000.0), &Findings::new(), 2).0, Verdict::Met);
        assert_eq!(verdict(&ours(79_000.0), &Findings::new(), 2).0, Verdict::Missed);
    }

    #[test]
    fn baselines_are_scaled_to_the_machine() {
        let twice =
            found(&[("lookup", "cpu_us", 34.0), ("refresh-64", "cpu_us", 240.0), ("refresh-64", "per_s", 8000.0)]);
        let near: Vec<(String, bool)> = baselines(&twice).into_iter().map(|line| (line.name, line.is_near)).collect();
        let expected = [("refresh-64 cpu_us", true), ("refresh-64 per_s", false), ("lookup cpu_us", true)];
        assert_eq!(near, expected.map(|(name, near)| (name.to_owned(), near)));
        assert_eq!(unknown(&twice), ["new-one cpu_us", "refresh-one cpu_us"]);
        let mut void = twice;
        void.get_mut("refresh-64").expect("there").void.push("busy".to_owned());
        assert_eq!((baselines(&void).len(), unknown(&void).len()), (1, 4));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 0.4, 9.96, 14.0, 350.4, 240_000.0, 1_234_567.0].map(short),
            ["0", "0.4", "9.96", "14.0", "350", "240 000", "1 234 567"]
        );
    }
}
