//! `sketch_stat`: what was embedded, by model, device and place.

use crate::network;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use sketch_model::inference::stat::Place;

/// Microseconds since the server's epoch; the same clock in all processes.
pub fn now() -> u64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }.max(0) as u64
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
    let table = super::stat_table();
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
    network::reset_counters();
    super::stat_table().reset(now());
}
