//! `sketch_wait`: until the background worker has embedded all photos of a gallery.

use super::Gallery;
use crate::error::{Result, SqlError};
use crate::inference::{WaitEvent, wait_for_latch};
use crate::role::as_owner;
use crate::{catalog, wakeup};
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

/// How often the queue is looked at.
const POLL: Duration = Duration::from_millis(50);

#[pg_extern(volatile, strict, parallel_unsafe)]
fn sketch_wait(photos: pg_sys::Oid, timeout: Interval) -> Result<bool, ErrorReport> {
    let gallery = Gallery::of(photos)?;
    // For whoever may read the table.
    Spi::run(&format!("SELECT FROM {} LIMIT 0", catalog::relation_name(photos)?)).map_err(SqlError::from)?;
    let micros = timeout.as_micros().clamp(0, i64::MAX.into()) as u64;
    let deadline = Instant::now().checked_add(Duration::from_micros(micros));
    if waits(&gallery, "AND xmin OPERATOR(pg_catalog.=) pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.xid")? {
        return Err(SqlError::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "cannot wait for photos of the same transaction",
        )
        .hint("Commit first.")
        .into());
    }
    while waits(&gallery, "")? {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            if !wakeup::is_there() {
                SqlError::new(PgSqlErrorCode::ERRCODE_WARNING, "no background worker is running").hint(HINT).warn();
            }
            return Ok(false);
        }
        wait_for_latch(POLL, WaitEvent::Background);
    }
    Ok(true)
}

/// What to do without a background worker.
pub const HINT: &str =
    "Add pg_sketch to shared_preload_libraries and restart the server, or CALL sketch_maintain after each import.";

/// Whether the queue has photos of a gallery that have not failed for good, as of now.
fn waits(gallery: &Gallery, condition: &str) -> Result<bool> {
    let query = format!(
        "SELECT EXISTS (SELECT FROM sketch.queue WHERE gallery OPERATOR(pg_catalog.=) $1 \
         AND due_at OPERATOR(pg_catalog.<) 'infinity' {condition})"
    );
    // A statement that may write sees what has been committed since the last.
    let waits = as_owner(|| {
        Ok(Spi::connect_mut(|client| {
            client.update(query.as_str(), Some(1), &[gallery.relation.into()])?.first().get_one::<bool>()
        })?)
    })?;
    Ok(waits.unwrap_or(false))
}
