//! How the demo tells its story: a line a step, a bar while it takes time, ✓ or ✗ with a figure. It checks nothing.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Lines of a reason that are shown.
const WHY_LINES: usize = 12;

/// Time between two turns of the spinner.
const SPIN: Duration = Duration::from_millis(120);

/// The terminal.
pub(super) struct Show {
    bar: ProgressBar,
    number: usize,
    title: String,
    begun: Instant,
}

impl Show {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new(1);
        let style = ProgressStyle::with_template("    {spinner} {wide_bar} {pos}/{len} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, number: 0, title: String::new(), begun: Instant::now() }
    }

    /// The bar of the step that runs: whoever makes progress moves it.
    pub(super) fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    pub(super) fn say(&self, text: &str) {
        self.bar.suspend(|| println!("{text}"));
    }

    /// Begins a step.
    pub(super) fn begin(&mut self, title: &str) {
        self.number += 1;
        self.title = title.to_owned();
        self.begun = Instant::now();
        self.say(&format!("\n{} · {title}", self.number));
        self.bar.reset();
        self.wait("");
    }

    /// The step waits for something that cannot be counted.
    pub(super) fn wait(&self, what: &str) {
        self.bar.set_length(1);
        self.bar.set_position(0);
        self.bar.set_message(what.to_owned());
        self.bar.enable_steady_tick(SPIN);
    }

    /// The step does something that is counted.
    pub(super) fn count(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// One thing held.
    pub(super) fn held(&self, what: &str) {
        self.say(&format!("    ✓ {what}"));
    }

    /// The step ended well.
    pub(super) fn done(&self) {
        self.say(&format!("      {}", took(self.begun.elapsed())));
    }

    /// The step ended badly. What went wrong a thousand times is shown a few times.
    pub(super) fn failed(&self, why: &str) {
        let mut lines = why.lines();
        let shown: Vec<&str> = lines.by_ref().take(WHY_LINES).collect();
        let more = lines.count();
        self.say(&format!("    ✗ {}", shown.join("\n      ")));
        if more > 0 {
            self.say(&format!("      … and {more} lines more"));
        }
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Bytes for people.
pub(super) fn bytes(count: f64) -> String {
    match count {
        c if c < 10_000.0 => format!("{c:.0} B"),
        c if c < 10_000_000.0 => format!("{:.0} kB", c / 1e3),
        c => format!("{:.1} MB", c / 1e6),
    }
}

/// A time for people.
pub(super) fn took(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

/// A count with thin gaps: `10 000`.
pub(super) fn many(count: usize) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::{Duration, bytes, many, took};

    #[test]
    fn figures_are_readable() {
        assert_eq!([many(0), many(999), many(10_000), many(1_234_567)], ["0", "999", "10 000", "1 234 567"]);
        assert_eq!(
            [3_400, 340_000, 3_400_000].map(|us| took(Duration::from_micros(us))),
            ["3.4 ms", "340 ms", "3.4 s"]
        );
        assert_eq!([bytes(120.0), bytes(120_000.0), bytes(12e6)], ["120 B", "120 kB", "12.0 MB"]);
    }
}
