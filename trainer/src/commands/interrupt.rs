//! Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

/// Set by the first Ctrl-C; the second ends the program at once.
pub static STOP: AtomicBool = AtomicBool::new(false);

/// Lets a training finish and keep its current step on Ctrl-C.
pub fn listen() -> anyhow::Result<()> {
    let handler = || {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(handler).context("could not listen for interrupts")
}
