//! What was embedded: the counters of this connection, and those of all processes in `sketch_stat`.

use super::shared::{Shared, now};
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use sketch_model::inference::stat::{Place, StatTable};
use std::cell::Cell;
use std::sync::OnceLock;

/// What this connection has done so far.
#[derive(Clone, Copy, Default)]
pub struct Counters {
    /// Drawings that went through the network.
    pub sketches: u64,
    /// Photos that went through the network.
    pub photos: u64,
    /// Images whose embedding was cached by an earlier call.
    pub reused: u64,
}

thread_local! {
    static COUNTERS: Cell<Counters> = const { Cell::new(Counters { sketches: 0, photos: 0, reused: 0 }) };
}

/// The counters of this connection.
pub fn counters() -> Counters {
    COUNTERS.get()
}

/// Changes the counters of this connection.
pub fn count(change: impl FnOnce(&mut Counters)) {
    let mut counters = COUNTERS.get();
    change(&mut counters);
    COUNTERS.set(counters);
}

/// The counters of all processes or, without shared memory, of this one.
pub fn table() -> &'static StatTable {
    static OWN: OnceLock<Box<StatTable>> = OnceLock::new();
    match Shared::get() {
        Some(shared) => shared.stat(),
        None => OWN.get_or_init(|| {
            let table = Box::<StatTable>::default();
            table.reset(now());
            table
        }),
    }
}

#[pg_extern(volatile, parallel_safe)]
// pgrx reads the names of the columns from the type.
#[allow(clippy::type_complexity)]
fn stat_counters() -> TableIterator<
    'static,
    (
        name!(model_id, Option<i64>),
        name!(device, Option<String>),
        name!(place, Option<String>),
        name!(requests, i64),
        name!(images, i64),
        name!(batches, i64),
        name!(wait_time, f64),
        name!(run_time, f64),
        name!(errors, i64),
        name!(left_alone, i64),
        name!(stats_reset, TimestampWithTimeZone),
    ),
> {
    const MILLISECOND: f64 = 1000.0;
    let table = table();
    let reset = TimestampWithTimeZone::try_from(table.reset_at() as i64).ok();
    let rows: Vec<_> = table
        .counts()
        .into_iter()
        .filter_map(|(key, counts)| {
            let place = |place| match place {
                Place::Connection => "connection".to_owned(),
                Place::Worker => "worker".to_owned(),
            };
            Some((
                key.map(|key| i64::from(key.model)),
                key.map(|key| key.device.to_string()),
                key.map(|key| place(key.place)),
                counts.requests as i64,
                counts.images as i64,
                counts.batches as i64,
                counts.wait as f64 / MILLISECOND,
                counts.run as f64 / MILLISECOND,
                counts.errors as i64,
                counts.left as i64,
                reset?,
            ))
        })
        .collect();
    TableIterator::new(rows)
}

#[pg_extern(volatile, parallel_restricted)]
fn stat_reset() {
    COUNTERS.set(Counters::default());
    table().reset(now());
}
