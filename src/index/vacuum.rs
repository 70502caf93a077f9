//! Removal of dead rows.

use super::pages::IndexPages;
use super::{cache, raise, tid};
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::prelude::*;
use sketch_model::index::{self, Pages, Removed};

/// Removes the entries of all rows that `callback` says are dead.
#[pg_guard]
pub unsafe extern "C-unwind" fn bulk_delete(
    info: *mut pg_sys::IndexVacuumInfo,
    stats: *mut pg_sys::IndexBulkDeleteResult,
    callback: pg_sys::IndexBulkDeleteCallback,
    callback_state: *mut std::ffi::c_void,
) -> *mut pg_sys::IndexBulkDeleteResult {
    let dead = callback.expect("the server passes one");
    // SAFETY: the server passes the open index, and statistics that it or we allocated.
    unsafe {
        let stats = or_new(stats);
        let mut pages = IndexPages::vacuum((*info).index, (*info).strategy);
        let quantizer = raise(cache::quantizer((*info).index, &pages));
        // Without a quantizer there was no row when we looked, hence none that is dead.
        let removed = if quantizer.dimension() == 0 {
            Removed::default()
        } else {
            raise(index::remove(&mut pages, &quantizer, |row| {
                let mut tid = tid(row);
                // It is the server's own, and may raise an error: CREATE INDEX CONCURRENTLY collects rows with it.
                pg_guard_ffi_boundary(|| dead(&mut tid, callback_state))
            }))
        };
        (*stats).num_pages = raise(pages.count());
        (*stats).tuples_removed += removed.removed as f64;
        (*stats).num_index_tuples = removed.left as f64;
        (*stats).estimated_count = false;
        stats
    }
}

/// Completes the statistics of a VACUUM, which may have had nothing to remove.
#[pg_guard]
pub unsafe extern "C-unwind" fn cleanup(
    info: *mut pg_sys::IndexVacuumInfo,
    stats: *mut pg_sys::IndexBulkDeleteResult,
) -> *mut pg_sys::IndexBulkDeleteResult {
    // SAFETY: as above.
    unsafe {
        if (*info).analyze_only {
            return stats;
        }
        let counted = !stats.is_null();
        let stats = or_new(stats);
        (*stats).num_pages = raise(IndexPages::new((*info).index).count());
        if !counted {
            // Rows without an embedding have no entry: this is no more than a guess, and marked as one.
            (*stats).num_index_tuples = (*info).num_heap_tuples;
            (*stats).estimated_count = true;
        }
        stats
    }
}

unsafe fn or_new(stats: *mut pg_sys::IndexBulkDeleteResult) -> *mut pg_sys::IndexBulkDeleteResult {
    if !stats.is_null() {
        return stats;
    }
    // SAFETY: palloc0 returns zeroed memory of that size; all fields are plain numbers.
    unsafe { pg_sys::palloc0(size_of::<pg_sys::IndexBulkDeleteResult>()).cast() }
}
