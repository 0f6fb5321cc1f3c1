//! What somebody who waits for a measurement sees: a line that moves on a terminal, nothing where there is none.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Between two changes of the line.
const EVERY: Duration = Duration::from_millis(250);

/// A line that says what is being done.
#[derive(Debug)]
pub(super) struct Line(ProgressBar);

impl Line {
    pub(super) fn begin(title: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.set_style(
            ProgressStyle::with_template("{spinner} {elapsed} {prefix}  {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        bar.set_prefix(title.to_owned());
        bar.enable_steady_tick(EVERY);
        Self(bar)
    }

    pub(super) fn say(&self, what: String) {
        self.0.set_message(what);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
