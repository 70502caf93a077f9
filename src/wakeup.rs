//! Which databases want a background worker: whoever commits something for it asks here, and [`crate::background`] looks.

pub mod shared;

pub use shared::is_there;

use pgrx::pg_guard;
use pgrx::prelude::*;
use std::cell::Cell;

thread_local! {
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
    static WANTED: Cell<Option<Wanted>> = const { Cell::new(None) };
}

/// What this transaction has for the worker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// Photos in the queue.
    Photos,
    /// Galleries that are new, or were restored: maintenance.
    Galleries,
}

/// Wakes the worker of this database once the transaction has committed.
pub fn wake_at_commit(wanted: Wanted) {
    if !is_there() {
        return;
    }
    if !REGISTERED.replace(true) {
        // SAFETY: the callback matches, and takes no argument.
        unsafe { pg_sys::RegisterXactCallback(Some(at_end_of_transaction), std::ptr::null_mut()) };
    }
    WANTED.set(WANTED.get().max(Some(wanted)));
}

#[pg_guard]
unsafe extern "C-unwind" fn at_end_of_transaction(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    match event {
        XACT_EVENT_COMMIT => {
            if let Some(wanted) = WANTED.take() {
                // SAFETY: a plain number, set when the process started.
                shared::ask(unsafe { pg_sys::MyDatabaseId }, wanted);
            }
        }
        // What a prepared transaction leaves in the queue is found when the worker looks by itself.
        XACT_EVENT_ABORT | XACT_EVENT_PREPARE => WANTED.set(None),
        _ => {}
    }
}

/// Fires when a gallery is made, changed or restored.
#[pg_trigger]
fn wake_worker<'a>(
    _trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, pgrx::AllocatedByRust>>, std::convert::Infallible> {
    wake_at_commit(Wanted::Galleries);
    Ok(None)
}
