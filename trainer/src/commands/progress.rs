//! Progress on the terminal.

use indicatif::{ProgressBar, ProgressStyle};
use sketch_trainer::progress::Progress;

/// A bar that shows how many steps are done, how fast, and how long the rest takes.
///
/// Goes to standard error, and only if that is a terminal.
pub struct Bar(ProgressBar);

impl Bar {
    pub fn new() -> Self {
        let style = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {per_sec:>12} {eta:>5}");
        Self(ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    /// A bar for one phase.
    pub fn of(phase: &str, total: usize) -> Self {
        let bar = Self::new();
        bar.begin(phase, total as u64);
        bar
    }
}

impl Progress for Bar {
    fn begin(&self, phase: &str, total: u64) {
        self.0.set_length(total);
        self.0.set_message(phase.to_owned());
        self.0.reset();
    }

    fn advance(&self, count: u64) {
        self.0.inc(count);
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }

    fn status(&self, text: &str) {
        self.0.set_message(text.to_owned());
    }

    fn log(&self, line: &str) {
        self.0.suspend(|| eprintln!("{line}"));
    }
}
