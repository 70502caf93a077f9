//! The inference worker: one process that holds the networks and embeds for all connections.
//!
//! It runs if the library is in `shared_preload_libraries`. Connections decode and prepare images; pixels go to the
//! worker through slots in shared memory ([`shared`]), embeddings come back the same way. What a slot is, how batches are
//! made and what runs them is `sketch_model::inference`, which knows no Postgres.

pub mod client;
pub mod shared;
mod stat;
mod wait;
mod worker;

pub use shared::stat_table;
pub use wait::{Bell, WaitEvent, wait_for_bell};

use crate::settings;
use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use std::time::Duration;

/// How soon a worker that has ended is started again.
const RESTART: Duration = Duration::from_secs(1);

/// Asks for shared memory and a worker, while the postmaster loads its libraries; does nothing at any other time.
pub fn init() {
    if !settings::is_preloading() || !settings::worker() {
        return;
    }
    shared::request();
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
