//! The access method `ivfexact`: an exact, ordered index of embeddings.
//!
//! What the index is, page by page, is [`sketch_model::index`]; here is how Postgres builds, reads and cleans it.
//!
//! | look in | for |
//! | --- | --- |
//! | [`handler`] | what the access method can do, and its routines |
//! | [`options`] | `WITH (lists = …, bits = …)` |
//! | [`pages`] | pages in Postgres's buffers: locks, write-ahead log |
//! | [`cache`] | what a backend keeps of an index from scan to scan |
//! | [`build`] | CREATE INDEX and REINDEX |
//! | [`insert`] | new rows |
//! | [`scan`] | `ORDER BY column <-> query` |
//! | [`vacuum`] | removal of dead rows |
//! | [`cost`] | what the planner is told |
//! | [`check`] | `sketch_check_index` |

mod build;
mod cache;
mod check;
mod cost;
mod handler;
mod insert;
pub mod options;
mod pages;
mod scan;
mod vacuum;

use crate::embedding::Embedding;
use crate::error::Result;
use pgrx::pg_sys::panic::{ErrorReport, ErrorReportable};
use pgrx::prelude::*;
use sketch_model::index::RowId;
use std::ffi::CStr;

/// Raises an error, in a routine that the server calls.
fn raise<T>(result: Result<T>) -> T {
    result.map_err(ErrorReport::from).unwrap_or_report()
}

/// Reads a value of type embedding, and frees what that took.
///
/// # Safety
/// `datum` is a value of type embedding, not NULL.
unsafe fn from_embedding<R>(datum: pg_sys::Datum, use_it: impl FnOnce(Embedding<'_>) -> R) -> R {
    // SAFETY: the caller's promise. A value that was stored short or compressed was copied.
    unsafe {
        let embedding = Embedding::from_datum(datum, false).expect("not NULL");
        let result = use_it(embedding);
        if embedding.datum() != datum {
            pg_sys::pfree(embedding.datum().cast_mut_ptr());
        }
        result
    }
}

/// The number of lists of an index, and how many it would have if it were built now.
///
/// # Errors
/// If the index is damaged.
pub fn lists(index: pg_sys::Oid) -> Result<(usize, usize)> {
    // SAFETY: the caller names an index of this access method; its table is locked, or its rows are counted from 0.
    unsafe {
        let relation = pgrx::PgRelation::with_lock(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let pages = pages::IndexPages::new(relation.as_ptr());
        let quantizer = cache::quantizer(relation.as_ptr(), &pages)?;
        let heap = pg_sys::IndexGetRelation(index, false);
        let rows = pgrx::PgRelation::with_lock(heap, pg_sys::AccessShareLock as pg_sys::LOCKMODE).reltuples();
        let rows = f64::from(rows.unwrap_or(0.0).max(0.0));
        Ok((quantizer.lists(), options::options(relation.as_ptr()).lists_for(rows)))
    }
}

/// The place of a row, from the server's form.
///
/// # Safety
/// `tid` points to a valid item pointer.
unsafe fn row_id(tid: pg_sys::ItemPointer) -> RowId {
    // SAFETY: the caller's promise.
    let (block, offset) = pgrx::itemptr::item_pointer_get_both(unsafe { *tid });
    RowId { block, offset }
}

/// The place of a row, in the server's form.
fn tid(RowId { block, offset }: RowId) -> pg_sys::ItemPointerData {
    let mut tid = pg_sys::ItemPointerData::default();
    pgrx::itemptr::item_pointer_set_all(&mut tid, block, offset);
    tid
}

/// The name of a relation.
///
/// # Safety
/// `relation` is open.
unsafe fn name(relation: pg_sys::Relation) -> String {
    // SAFETY: a relation's name is null-terminated.
    unsafe { CStr::from_ptr((&raw const (*(*relation).rd_rel).relname.data).cast()) }.to_string_lossy().into_owned()
}
