//! The whole benchmark: every experiment that a target names, ours and Kamailio's in turns, several times; then the curves.

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
        println!("run {nth} of {}", options.runs);
        let mut found = (Findings::new(), Findings::new());
        experiments(meter, options, ours, &OURS, &mut found.0)?;
        if beside {
            experiments(meter, options, Kind::Kamailio, &KAMAILIO, &mut found.1)?;
        }
        report.runs.push(found);
        // What was measured is there, whatever comes.
        report.write(&options.out)?;
    }
    if !options.no_curves {
        report.curves = draw(meter, options, ours)?;
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
    report.curves = draw(meter, options, ours)?;
    println!("{}", report.write(&options.out)?.display());
    Ok(true)
}

fn draw(meter: &mut Meter, options: &Options, ours: Kind<'_>) -> anyhow::Result<Curves> {
    let kinds: Vec<Kind<'_>> = [ours].into_iter().chain(beside(options)?.then_some(Kind::Kamailio)).collect();
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

fn experiments(
    meter: &mut Meter,
    options: &Options,
    kind: Kind<'_>,
    names: &[&str],
    found: &mut Findings,
) -> anyhow::Result<()> {
    println!("{}\n{}", kind.name(), super::HEAD);
    for name in names {
        let experiment: Experiment = catalogue::named(name)?;
        let finding = experiment::run(meter, options, &experiment, kind)?;
        println!("{}", super::told(&experiment, &finding));
        found.insert((*name).to_owned(), finding);
    }
    Ok(())
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
}
