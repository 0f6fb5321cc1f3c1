//! The whole benchmark: every experiment that a target names, several times; then the curves. Kamailio does each right after
//! our nodes: what a host gives a machine changes by the minute, and ratios are of neighbours.

use anyhow::ensure;

use super::Options;
use super::catalogue::{self, Experiment};
use super::curves::Curves;
use super::experiment;
use super::kamailio::KamailioNodes;
use super::measure::Meter;
use super::report::Report;
use super::servers::Kind;
use super::targets::Findings;

/// Measured of our nodes.
const OURS: [&str; 9] =
    ["refresh", "refresh-sbc", "refresh-64", "new", "refresh-open", "lookup", "lag", "size", "snapshot"];
/// Measured of Kamailio: what a target compares, and what tells whether the run is valid.
const KAMAILIO: [&str; 9] =
    ["refresh", "refresh-64", "new", "refresh-open", "lookup", "lag", "memory", "new-one", "refresh-one"];

/// Does all of it; whether every target was met in a valid run.
///
/// # Errors
/// When something cannot be started, or the report cannot be written.
pub(super) fn run(meter: &mut Meter, options: &Options, ours: Kind<'_>, mut report: Report) -> anyhow::Result<bool> {
    let beside = beside(options)?;
    for nth in 1..=options.runs {
        println!("run {nth} of {}\n{:9}{}", options.runs, "", super::HEAD);
        let mut found = (Findings::new(), Findings::new());
        for (name, is_ours) in in_turns(beside) {
            let (kind, found) = if is_ours { (ours, &mut found.0) } else { (Kind::Kamailio, &mut found.1) };
            let experiment: Experiment = catalogue::named(name)?;
            let finding = experiment::run(meter, options, &experiment, kind)?;
            println!("{:9}{}", kind.name(), super::told(&experiment, &finding));
            found.insert(name.to_owned(), finding);
        }
        report.runs.push(found);
        // What was measured is there, whatever comes.
        report.write(&options.out)?;
    }
    if !options.no_curves {
        report.curves = draw(meter, options, ours, beside)?;
    }
    let file = report.write(&options.out)?;
    println!("\n{}\n{}", report.table(), file.display());
    Ok(report.has_passed())
}

/// Only the curves; there is no target in them that could be missed.
///
/// # Errors
/// As [`run`].
pub(super) fn curves(meter: &mut Meter, options: &Options, ours: Kind<'_>, mut report: Report) -> anyhow::Result<bool> {
    report.curves = draw(meter, options, ours, beside(options)?)?;
    println!("{}", report.write(&options.out)?.display());
    Ok(true)
}

fn draw(meter: &mut Meter, options: &Options, ours: Kind<'_>, beside: bool) -> anyhow::Result<Curves> {
    let kinds: Vec<Kind<'_>> = [ours].into_iter().chain(beside.then_some(Kind::Kamailio)).collect();
    Curves::measure(meter, options, &kinds)
}

/// Whether Kamailio is measured beside our nodes.
fn beside(options: &Options) -> anyhow::Result<bool> {
    let beside = !options.no_kamailio && !options.kamailio;
    ensure!(
        !beside || KamailioNodes::is_here(),
        "kamailio is not installed (Debian: kamailio): install it, or give --no-kamailio"
    );
    Ok(beside)
}

/// Every experiment in its turn, and whether it is of our nodes: each of Kamailio right after the same of ours, those of it
/// alone at the end.
fn in_turns(beside: bool) -> impl Iterator<Item = (&'static str, bool)> {
    let theirs = |name| (name, false);
    let both = OURS
        .into_iter()
        .flat_map(move |name| [(name, true)].into_iter().chain(KAMAILIO.contains(&name).then_some(theirs(name))));
    let alone = KAMAILIO.into_iter().filter(|name| !OURS.contains(name)).map(theirs);
    both.chain(alone).filter(move |(_, is_ours)| *is_ours || beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_an_experiment() {
        for name in OURS.iter().chain(&KAMAILIO) {
            assert!(catalogue::named(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn kamailio_does_each_right_after_our_nodes() {
        let turns: Vec<(&str, bool)> = in_turns(true).collect();
        assert_eq!(turns[..3], [("refresh", true), ("refresh", false), ("refresh-sbc", true)]);
        let of = |ours| turns.iter().filter(|(_, is_ours)| *is_ours == ours).map(|(name, _)| *name).collect();
        let (ours, mut theirs): (Vec<&str>, Vec<&str>) = (of(true), of(false));
        assert_eq!(ours, OURS);
        theirs.sort_unstable();
        let mut all = KAMAILIO;
        all.sort_unstable();
        assert_eq!(theirs, all, "each of them once");
        assert_eq!(in_turns(false).map(|(name, _)| name).collect::<Vec<_>>(), OURS);
    }
}
