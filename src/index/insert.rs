//! Insertion of rows.

use super::pages::{IndexPages, InsertLock};
use super::{cache, from_embedding, raise, row_id};
use crate::embedding::Embedding;
use crate::error::Result;
use pgrx::prelude::*;
use sketch_model::index::{self, Coder, RowId};

/// Adds an entry for a new row, unless its embedding is NULL.
#[pg_guard]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C-unwind" fn insert(
    relation: pg_sys::Relation,
    values: *mut pg_sys::Datum,
    isnull: *mut bool,
    tid: pg_sys::ItemPointer,
    _heap: pg_sys::Relation,
    _check_unique: pg_sys::IndexUniqueCheck::Type,
    _index_unchanged: bool,
    _info: *mut pg_sys::IndexInfo,
) -> bool {
    // SAFETY: the server passes the open index, the value of its one column, and the row's place in the heap.
    unsafe {
        if !*isnull {
            raise(from_embedding(*values, |embedding| insert_row(relation, embedding, row_id(tid))));
        }
    }
    false
}

/// # Safety
/// `relation` is an open index of this access method.
unsafe fn insert_row(relation: pg_sys::Relation, embedding: Embedding<'_>, row: RowId) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let mut pages = IndexPages::new(relation);
        let mut quantizer = cache::quantizer(relation, &pages)?;
        if quantizer.dimension() == 0 {
            let _lock = InsertLock::take(relation);
            index::initialize(&mut pages, embedding.values().len())?;
            quantizer = cache::quantizer(relation, &pages)?;
        }
        // Most of the work, and others may insert meanwhile: the quantizer of an index stays what it is.
        let mut coder = Coder::new(&quantizer);
        let coded = coder.code(&embedding.values_for_index(quantizer.dimension()))?;
        let _lock = InsertLock::take(relation);
        index::insert_coded(&mut pages, &quantizer, &coded, embedding.origin(), row)
    }
}
