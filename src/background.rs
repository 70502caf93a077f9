//! The background worker: embeds the photos of galleries in mode `background`, and maintains these galleries.
//!
//! One launcher for the server starts a worker in each database that has something to do, at most
//! `pg_sketch.background_workers` at a time. A worker ends soon after it has nothing left to do, so that it is not in the
//! way of DROP DATABASE. Whoever commits a photo to the queue wakes it ([`crate::wakeup`]).
//!
//! | look in | for |
//! | --- | --- |
//! | [`launcher`] | which database gets a worker, and when |
//! | [`worker`] | the worker of a database: queue first, then maintenance |
//!
//! What is done with a gallery is in [`crate::gallery`].

mod launcher;
mod worker;

use crate::{settings, wakeup};

/// Requests shared memory and the launcher, while the postmaster loads its libraries; does nothing at any other time.
pub fn init() {
    if settings::is_preloading() {
        wakeup::shared::request();
        launcher::register();
    }
}
