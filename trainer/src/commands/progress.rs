//! Progress lines.

use indicatif::{ProgressBar, ProgressStyle};

/// A line that shows how many of `total` are done, how fast, and how long the rest takes.
///
/// Goes to standard error, and only if that is a terminal.
pub fn bar(total: u64, message: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {per_sec:>12} {eta:>5}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style).with_message(message.to_owned())
}
