//! The background worker: embeds the photos of galleries in mode `background`, and maintains these galleries.
//!
//! One launcher for the server starts a worker in each database that has something to do, at most
//! `pg_sketch.background_workers` at a time. A worker ends soon after it has nothing left to do, so that it is not in the
//! way of DROP DATABASE. Whoever commits a photo to the queue wakes it.
//!
//! | look in | for |
//! | --- | --- |
//! | [`launcher`] | which database gets a worker, and when |
//! | [`worker`] | the worker of a database: queue first, then maintenance |
//! | [`shared`] | what launcher, workers and connections tell each other |
//!
//! What is done with a gallery is in [`crate::gallery`].

mod launcher;
mod shared;
mod worker;

pub use shared::is_there;

use crate::settings;
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

/// Requests shared memory and the launcher, while the postmaster loads its libraries; does nothing at any other time.
pub fn init() {
    if settings::is_preloading() {
        shared::request();
        launcher::register();
    }
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
