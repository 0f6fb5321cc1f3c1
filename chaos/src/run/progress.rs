//! What somebody who waits for a run sees: a line that moves on a terminal, lines otherwise. It decides nothing.

use std::cell::RefCell;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::play::Watcher;
use super::report::Judged;
use super::story::Sample;

/// Between two changes of the line.
const EVERY: Duration = Duration::from_millis(250);

/// The line of one run.
pub(super) struct Line {
    bar: Option<ProgressBar>,
    shown: RefCell<(Option<Instant>, String)>,
}

impl Line {
    /// Begins scenario number `nth` of so many.
    pub(super) fn begin(nth: usize, of: usize, name: &str) -> Self {
        let title = format!("{nth:>2}/{of} {name}");
        let bar = std::io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(
                ProgressStyle::with_template("{spinner} {prefix}  {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.set_prefix(title.clone());
            bar
        });
        if bar.is_none() {
            println!("{title}");
        }
        Self { bar, shown: RefCell::default() }
    }

    /// Ends it with the verdict.
    pub(super) fn end(&self, judged: &Judged) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let Judged { story, verdict } = judged;
        let mut reasons = verdict.reasons().iter();
        let first = reasons.next().map(|reason| format!(": {reason}")).unwrap_or_default();
        println!("      {} {}{first}", verdict.word(), story.scenario);
        reasons.for_each(|reason| println!("        ✗ {reason}"));
        if story.totals.due > 0 {
            let (took_s, slowest_s) = (story.took_s, story.slowest_s());
            println!("        {took_s:.0} s · {} · convergence at most {slowest_s:.2} s", story.totals);
        }
    }
}

impl Watcher for Line {
    fn doing(&self, at_s: f64, what: &str, last: &Sample) {
        let mut shown = self.shown.borrow_mut();
        let Some(bar) = &self.bar else {
            if shown.1 != what {
                what.clone_into(&mut shown.1);
                println!("      {at_s:6.1} s  {what}");
            }
            return;
        };
        if shown.0.is_none_or(|at| at.elapsed() >= EVERY) {
            shown.0 = Some(Instant::now());
            bar.set_message(format!(
                "{at_s:5.1} s  ready {}/{}  200s {} + {} short  lost {} ghosts {}  {what}",
                last.ready, last.members, last.full, last.short, last.lost, last.ghosts
            ));
            bar.tick();
        }
    }
}
