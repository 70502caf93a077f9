//! The worker's process: its start, its loop, its end.

mod service;

use super::shared::Shared;
use super::wait::{Bell, WaitEvent, wait_for_bell};
use crate::error::SqlError;
use crate::process;
use pgrx::bgworkers::{BackgroundWorker, SignalWakeFlags};
use pgrx::pg_guard;
use pgrx::pg_sys;
use pgrx::prelude::*;
use service::Service;
use sketch_model::inference::slot::State;
use std::time::Duration;

/// Longest the worker sleeps; whoever wants something wakes it.
const SLEEP: Duration = Duration::from_secs(60);
/// How long the worker waits for its networks to stop before it ends without them.
const FAREWELL: Duration = Duration::from_secs(5);

/// The postmaster starts the worker here.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_sketch_worker_main(_arg: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    // No database: the worker reads nothing but what connections send.
    BackgroundWorker::connect_worker_to_spi(None, None);
    let Some(shared) = Shared::get().filter(|shared| shared.become_worker()) else {
        ereport!(
            FATAL,
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "another inference worker is running"
        );
    };
    // SAFETY: the callbacks match. The second runs at the very end.
    unsafe {
        pg_sys::on_proc_exit(Some(exit_at_once), pg_sys::Datum::null());
        pg_sys::before_shmem_exit(Some(resign), pg_sys::Datum::null());
    }
    process::disable_telemetry();
    process::return_large_blocks();
    pgrx::log!("pg_sketch inference worker started");
    serve(shared);
    // The postmaster does not start again what ends with 0.
    // SAFETY: the process holds no locks.
    unsafe { pg_sys::proc_exit(1) };
}

fn serve(shared: Shared) {
    let bell = match Bell::new() {
        Ok(bell) => bell,
        Err(error) => {
            SqlError::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, "could not make a pair of sockets")
                .detail(format!("{error}."))
                .warn();
            return;
        }
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
    service.end(FAREWELL);
}

/// Fails what the worker was doing; what is in the queue waits for the next worker.
#[pg_guard]
unsafe extern "C-unwind" fn resign(_code: i32, _arg: pg_sys::Datum) {
    let Some(shared) = Shared::get() else { return };
    let stopped = SqlError::new(PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN, "the inference worker was stopped")
        .hint("It is started again; try the statement again.")
        .to_bytes();
    for (index, slot) in shared.slots().iter().enumerate() {
        if matches!(slot.state(), State::Taken | State::Left) {
            service::answer(shared, index, Err(&stopped));
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
