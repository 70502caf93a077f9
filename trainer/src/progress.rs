//! How far long work has come.

/// Observes work that takes long. The library reports to it; the command line shows a bar.
pub trait Progress: Sync {
    /// A phase of `total` steps begins.
    fn begin(&self, _phase: &str, _total: u64) {}

    /// `count` more steps of the phase are done.
    fn advance(&self, _count: u64) {}

    /// The phase has ended.
    fn end(&self) {}

    /// Replaces the text beside the bar.
    fn status(&self, _text: &str) {}

    /// A line worth keeping.
    fn log(&self, _line: &str) {}
}

/// Reports nothing.
impl Progress for () {}
