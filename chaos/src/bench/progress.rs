//! What somebody who waits for a measurement sees: a line that moves on a terminal, a line now and then where there is none.

use std::cell::Cell;
use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two changes of the line.
const EVERY: Duration = Duration::from_millis(250);
/// Between two lines where there is no terminal.
const LINES_EVERY: Duration = Duration::from_secs(10);

/// A line that says what is being done.
#[derive(Debug)]
pub(super) struct Line {
    title: String,
    /// Where there is a terminal.
    bar: Option<ProgressBar>,
    /// When a line was last written, or this began.
    said: Cell<Instant>,
}

impl Line {
    pub(super) fn begin(title: &str) -> Self {
        let bar = stderr().is_terminal().then(|| bar(title));
        Self { title: title.to_owned(), bar, said: Cell::new(Instant::now()) }
    }

    pub(super) fn say(&self, what: String) {
        match &self.bar {
            Some(bar) => bar.set_message(what),
            None if self.said.get().elapsed() >= LINES_EVERY => {
                eprintln!("{}: {what}", self.title);
                self.said.set(Instant::now());
            }
            None => {}
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(title: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {elapsed} {prefix}  {msg}");
    let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.set_prefix(title.to_owned());
    bar.enable_steady_tick(EVERY);
    bar
}
