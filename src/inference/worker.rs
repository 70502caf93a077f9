//! The inference worker's process: its registration, start, loop and end.

mod model;
mod service;

use super::shared::Shared;
use super::wait::{Bell, WaitEvent, wait_for_bell};
use crate::error::SqlError;
use crate::process;
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, SignalWakeFlags};
use pgrx::pg_guard;
use pgrx::pg_sys;
use pgrx::prelude::*;
use service::Service;
use sketch_model::inference::slot::State;
use std::time::Duration;

/// Longest sleep of the worker; whoever sends a request wakes it.
const SLEEP: Duration = Duration::from_secs(60);
/// How long the worker waits for its networks to stop before it ends without them.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// How soon the postmaster starts a worker again that has ended.
const RESTART: Duration = Duration::from_secs(1);

/// Asks the postmaster, which is loading its libraries, for a worker.
pub fn register() {
    BackgroundWorkerBuilder::new("pg_sketch inference worker")
        .set_library("pg_sketch")
        .set_function("pg_sketch_worker_main")
        // Connected to no database, but seen in pg_stat_activity.
        .enable_spi_access()
        // On a standby, too.
        .set_start_time(BgWorkerStartTime::ConsistentState)
        .set_restart_time(Some(RESTART))
        .load();
}

/// The postmaster starts the worker here.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_sketch_worker_main(_arg: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    // No database: the worker reads nothing but requests and model files.
    BackgroundWorker::connect_worker_to_spi(None, None);
    let Some(shared) = Shared::get().filter(|shared| shared.become_worker()) else {
        ereport!(
            FATAL,
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "another inference worker is running"
        );
    };
    // SAFETY: the callbacks match. The first runs at the very end.
    unsafe {
        pg_sys::on_proc_exit(Some(exit_at_once), pg_sys::Datum::null());
        pg_sys::before_shmem_exit(Some(resign), pg_sys::Datum::null());
    }
    process::disable_telemetry();
    process::return_large_blocks();
    pgrx::log!("pg_sketch inference worker started");
    serve(shared);
    // The postmaster does not restart a worker that exits with 0.
    // SAFETY: the process holds no locks.
    unsafe { pg_sys::proc_exit(1) };
}

fn serve(shared: Shared) {
    let bell = match Bell::new() {
        Ok(bell) => bell,
        Err(error) => return error.warn(),
    };
    let mut service = Service::new(shared, bell.ringer());
    while !BackgroundWorker::sigterm_received() {
        if BackgroundWorker::sighup_received() {
            // SAFETY: between two steps, nothing depends on what a setting was.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
        }
        let rest = service.step();
        wait_for_bell(&bell, rest.unwrap_or(SLEEP).min(SLEEP), WaitEvent::WorkerMain);
    }
    pgrx::log!("pg_sketch inference worker is shutting down");
    service.end(SHUTDOWN);
}

/// Fails the requests that the worker has taken; those in the queue wait for the next worker.
#[pg_guard]
unsafe extern "C-unwind" fn resign(_code: i32, _arg: pg_sys::Datum) {
    let Some(shared) = Shared::get() else { return };
    let stopped = || {
        SqlError::new(PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN, "the inference worker was stopped")
            .hint("It is started again; try the statement again.")
    };
    for (index, slot) in shared.slots().iter().enumerate() {
        if matches!(slot.state(), State::Taken | State::Left) {
            shared.answer(index, Err(stopped()));
        }
    }
    shared.notice().write("");
    shared.resign();
}

/// Ends the process without the exit handlers of libraries, which would free what threads of ONNX Runtime still use.
#[pg_guard]
unsafe extern "C-unwind" fn exit_at_once(code: i32, _arg: pg_sys::Datum) {
    // SAFETY: all that the server does at exit is done: callbacks run in reverse order, and this was the first.
    unsafe { libc::_exit(code) };
}
