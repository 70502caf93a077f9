//! The launcher: starts a worker in every database that asks for one.

use crate::inference::{WaitEvent, wait_for_latch};
use crate::settings;
use crate::wakeup::{Wanted, shared};
use pgrx::bgworkers::{
    BackgroundWorker, BackgroundWorkerBuilder, BackgroundWorkerStatus, BgWorkerStartTime, DynamicBackgroundWorker,
    SignalWakeFlags,
};
use pgrx::pg_guard;
use pgrx::prelude::*;
use std::time::Duration;

/// Longest sleep; whoever asks wakes the launcher.
const SLEEP: Duration = Duration::from_secs(60);
/// How soon the postmaster starts a launcher again that has ended.
const RESTART: Duration = Duration::from_secs(1);

/// Asks the postmaster, which is loading its libraries, for a launcher.
pub fn register() {
    BackgroundWorkerBuilder::new("pg_sketch background launcher")
        .set_type("pg_sketch background launcher")
        .set_library("pg_sketch")
        .set_function("pg_sketch_launcher_main")
        .enable_spi_access()
        // A standby cannot write embeddings.
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(RESTART))
        .load();
}

/// The postmaster starts the launcher here.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_sketch_launcher_main(_arg: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    // No database: it reads their list, and nothing else.
    BackgroundWorker::connect_worker_to_spi(None, None);
    shared::become_launcher();
    // A worker ends at once where there is nothing to do.
    BackgroundWorker::transaction(databases).into_iter().for_each(|database| shared::ask(database, Wanted::Galleries));
    let mut running: Vec<(pg_sys::Oid, DynamicBackgroundWorker)> = Vec::new();
    while !BackgroundWorker::sigterm_received() {
        if BackgroundWorker::sighup_received() {
            // SAFETY: between two steps, nothing depends on what a setting was.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
        }
        running.retain(|(database, worker)| match worker.pid() {
            Err(BackgroundWorkerStatus::Stopped) => {
                // Does nothing if the worker has left as it should.
                shared::failed(*database);
                false
            }
            _ => true,
        });
        let rest = start_due(&mut running);
        wait_for_latch(rest.unwrap_or(SLEEP).min(SLEEP), WaitEvent::Background);
    }
}

/// Starts workers for the databases whose time has come, as many as the settings allow. Returns when the next is due.
fn start_due(running: &mut Vec<(pg_sys::Oid, DynamicBackgroundWorker)>) -> Option<Duration> {
    let room = settings::background_workers().saturating_sub(running.len());
    // One that is due while its worker runs has to wait for that to end; it has said that it leaves.
    let is_running = |database: &pg_sys::Oid| running.iter().any(|(other, _)| other == database);
    let due: Vec<_> = shared::due().0.into_iter().filter(|database| !is_running(database)).take(room).collect();
    let existing = if due.is_empty() { Vec::new() } else { BackgroundWorker::transaction(databases) };
    for database in due {
        if !existing.contains(&database) {
            shared::forget(database);
            continue;
        }
        shared::started(database);
        // SAFETY: a plain number, set when the process started.
        let me = unsafe { pg_sys::MyProcPid };
        let worker =
            BackgroundWorkerBuilder::new(&format!("pg_sketch background worker for database {}", database.to_u32()))
                .set_type("pg_sketch background worker")
                .set_library("pg_sketch")
                .set_function("pg_sketch_background_main")
                .enable_spi_access()
                .set_start_time(BgWorkerStartTime::RecoveryFinished)
                .set_restart_time(None)
                .set_argument(Some(pg_sys::Datum::from(database)))
                .set_notify_pid(me)
                .load_dynamic();
        match worker {
            Ok(worker) => running.push((database, worker)),
            // All of max_worker_processes are taken; there may be room later.
            Err(_) => shared::failed(database),
        }
    }
    // One that could not be started is due again.
    shared::due().1
}

/// The databases that can be connected to.
fn databases() -> Vec<pg_sys::Oid> {
    let mut databases = Vec::new();
    // SAFETY: `pg_database` is a shared catalogue, which can be scanned without a database, in a transaction.
    unsafe {
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let database = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            // A template is copied, which a connection would prevent; -2 marks one that was dropped half.
            if database.datallowconn && !database.datistemplate && database.datconnlimit != -2 {
                databases.push(database.oid);
            }
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
    }
    databases
}
