//! `sketch_check_index`: whether an index is what it should be.

use super::pages::IndexPages;
use super::{build, cache, cost, from_embedding, name, tid};
use crate::embedding::Embedding;
use crate::error::{Result, SqlError};
use crate::role::Acting;
use pgrx::PgMemoryContexts;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use sketch_model::index::{self, Checked, Coder, Quantizer, RowId, StoredRow};
use std::collections::HashSet;
use std::ffi::CStr;

/// An index of fewer rows is fast anyhow.
const FEW_ROWS: u64 = 1000;
/// How many times faster or smaller an index must become for a hint.
const WORTH_IT: f64 = 1.5;

/// Verifies all pages of an index, and that it has one entry, and the right one, for every row of its table that is
/// visible and not NULL.
#[pg_extern(volatile, strict, parallel_unsafe)]
#[allow(clippy::type_complexity)]
fn sketch_check_index(
    index: pg_sys::Oid,
) -> Result<
    TableIterator<
        'static,
        (
            name!(lists, i64),
            name!(rows, i64),
            name!(visible, i64),
            name!(free, i64),
            name!(pages, i64),
            name!(unused_pages, i64),
        ),
    >,
    ErrorReport,
> {
    let opened = Opened::new(index)?;
    // SAFETY: both relations are open until `opened` is dropped.
    let (checked, visible) = unsafe { check(&opened)? };
    let Checked { lists, rows, free, pages, unused_pages } = checked;
    Ok(TableIterator::once((lists as i64, rows as i64, visible as i64, free as i64, pages as i64, unused_pages as i64)))
}

/// An index and its table, with locks that keep neither readers nor writers away.
///
/// While it is open the table's owner acts: expressions and predicate of the index are functions that the owner chose, and the
/// caller may be a superuser.
struct Opened {
    index: pg_sys::Relation,
    heap: pg_sys::Relation,
    _owner: Acting,
}

impl Opened {
    const LOCK: i32 = pg_sys::AccessShareLock as i32;

    fn new(index: pg_sys::Oid) -> Result<Self> {
        // SAFETY: the server raises an error if there is no such relation. The table is locked first, as everywhere.
        unsafe {
            let heap = pg_sys::IndexGetRelation(index, true);
            if heap == pg_sys::InvalidOid {
                return Err(wrong_kind(index));
            }
            if !owns(index) {
                let name = pg_sys::get_rel_name(index);
                pg_sys::aclcheck_error(pg_sys::AclResult::ACLCHECK_NOT_OWNER, pg_sys::ObjectType::OBJECT_INDEX, name);
            }
            let heap = pg_sys::table_open(heap, Self::LOCK);
            let owner = Acting::restricted((*(*heap).rd_rel).relowner);
            let index = pg_sys::relation_open(index, Self::LOCK);
            let opened = Self { index, heap, _owner: owner };
            // Another index may have taken the OID while nothing was locked.
            if pg_sys::IndexGetRelation((*index).rd_id, true) != (*heap).rd_id {
                return Err(wrong_kind((*index).rd_id));
            }
            let routine = (*index).rd_indam.as_ref();
            if routine.is_none_or(|routine| routine.ambuild.map(|f| f as *const ()) != Some(build::build as *const ()))
            {
                return Err(wrong_kind((*index).rd_id));
            }
            if (*(*index).rd_rel).relkind as u8 == pg_sys::RELKIND_PARTITIONED_INDEX {
                return Err(SqlError::new(
                    PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                    format!("index \"{}\" is partitioned", name(index)),
                )
                .hint("Check the index of each partition."));
            }
            if !(*(*index).rd_index).indisvalid {
                return Err(SqlError::new(
                    PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("index \"{}\" is not valid", name(index)),
                )
                .hint("REINDEX it, or DROP it."));
            }
            Ok(opened)
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: both are open.
            unsafe {
                pg_sys::relation_close(self.index, Self::LOCK);
                pg_sys::table_close(self.heap, Self::LOCK);
            }
        }
    }
}

/// Whether the user may do as the owner of a relation.
unsafe fn owns(relation: pg_sys::Oid) -> bool {
    // SAFETY: plain look-ups in the catalog.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::pg_class_ownercheck(relation, pg_sys::GetUserId());
        #[cfg(not(feature = "pg15"))]
        return pg_sys::object_ownercheck(pg_sys::RelationRelationId, relation, pg_sys::GetUserId());
    }
}

fn wrong_kind(relation: pg_sys::Oid) -> SqlError {
    // SAFETY: the server returns null or a null-terminated name.
    let name = unsafe {
        let name = pg_sys::get_rel_name(relation);
        if name.is_null() {
            // It was dropped, by REINDEX CONCURRENTLY for one, since its name was looked up.
            let message = format!("index with OID {relation} does not exist");
            return SqlError::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, message);
        }
        CStr::from_ptr(name).to_string_lossy()
    };
    SqlError::new(
        PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
        format!("\"{name}\" is not an index of access method \"ivfexact\""),
    )
}

fn corrupted(index: pg_sys::Relation, row: RowId, what: &str) -> SqlError {
    // SAFETY: the index is open.
    let name = unsafe { name(index) };
    SqlError::new(PgSqlErrorCode::ERRCODE_INDEX_CORRUPTED, format!("index \"{name}\" does not agree with its table"))
        .detail(format!("Row ({},{}) {what}.", row.block, row.offset))
        .hint("REINDEX it.")
}

/// Says when a REINDEX would pay: for few lists, for much that is free, for an index that knows no recalls.
fn advise(name: &str, quantizer: &Quantizer, checked: &Checked) {
    if checked.rows < FEW_ROWS {
        return;
    }
    let notice = |message: String, hint: String| {
        SqlError::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message).hint(hint).notice();
    };
    let gain = cost::gain_of_reindex(checked.rows as f64, quantizer.lists() as f64);
    let spare = (checked.rows + checked.free) as f64 / checked.rows as f64;
    if gain >= WORTH_IT {
        let message = format!("index \"{name}\" has {} lists for {} rows", quantizer.lists(), checked.rows);
        notice(message, format!("REINDEX it: a scan would read about {gain:.1} times fewer rows."));
    } else if spare >= WORTH_IT {
        let message = format!("index \"{name}\" has room for {spare:.1} times its rows");
        notice(message, "Insertion uses it; REINDEX it if there is not much to be inserted.".to_owned());
    } else if !quantizer.calibration().is_known() {
        let message = format!("index \"{name}\" is not calibrated, so that pg_sketch.recall has no effect on it");
        notice(message, "REINDEX it if you want fewer than all of the nearest rows.".to_owned());
    }
}

/// Checks pages, then entries against rows, then rows against entries. Returns the number of visible rows, too.
///
/// # Safety
/// Both relations are open.
unsafe fn check(opened: &Opened) -> Result<(Checked, u64)> {
    // SAFETY: the caller's promise. The snapshot is the statement's: what it sees was there before we look at the index,
    // and is not removed meanwhile.
    unsafe {
        let pages = IndexPages::new(opened.index);
        let quantizer = cache::quantizer(opened.index, &pages)?;
        let mut coder = Coder::new(&quantizer);
        let mut rows = Rows::new(opened);
        let mut entries = HashSet::new();
        let checked = index::check(&pages, &quantizer, |row, origin, stored: StoredRow<'_>| {
            pgrx::check_for_interrupts!();
            let agrees = rows.fetch(row, |embedding| {
                let (same, values) = (embedding.origin() == origin, embedding.values_for_index(quantizer.dimension()));
                Ok(same && quantizer.dimension() == values.len() && stored.matches(&mut coder, &values)?)
            })?;
            match agrees {
                Some(false) => Err(corrupted(opened.index, row, "has an entry that is not of its embedding")),
                Some(true) if !entries.insert(row) => Err(corrupted(opened.index, row, "has two entries")),
                // What the snapshot does not see may be gone, and another row in its place, while we look.
                Some(true) | None => Ok(()),
            }
        })?;
        drop(rows);
        let mut visible = 0;
        let mut missing = None;
        build::each_visible(opened.heap, opened.index, |row| {
            visible += 1;
            if !entries.contains(&row) {
                missing.get_or_insert(row);
            }
        });
        match missing {
            Some(row) => Err(corrupted(opened.index, row, "has no entry")),
            None => {
                advise(&name(opened.index), &quantizer, &checked);
                Ok((checked, visible))
            }
        }
    }
}

/// Rows of a table, by the place that an entry names.
struct Rows {
    info: *mut pg_sys::IndexInfo,
    fetch: *mut pg_sys::IndexFetchTableData,
    slot: *mut pg_sys::TupleTableSlot,
    estate: *mut pg_sys::EState,
}

impl Rows {
    /// # Safety
    /// Both relations are open until the result is dropped.
    unsafe fn new(opened: &Opened) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            Self {
                info: pg_sys::BuildIndexInfo(opened.index),
                fetch: pg_sys::table_index_fetch_begin(opened.heap),
                slot: pg_sys::table_slot_create(opened.heap, std::ptr::null_mut()),
                estate: pg_sys::CreateExecutorState(),
            }
        }
    }

    /// Looks at the embedding of the row at a place, if one is visible there; it should not be NULL.
    fn fetch(&mut self, row: RowId, look: impl FnOnce(Embedding<'_>) -> Result<bool>) -> Result<Option<bool>> {
        let mut tid = tid(row);
        let (mut again, mut all_dead) = (false, false);
        let (mut value, mut is_null) = (pg_sys::Datum::null(), true);
        // SAFETY: all that was made by `new`; the index has one column.
        unsafe {
            let snapshot = pg_sys::GetActiveSnapshot();
            let found =
                pg_sys::table_index_fetch_tuple(self.fetch, &mut tid, snapshot, self.slot, &mut again, &mut all_dead);
            if !found {
                return Ok(None);
            }
            let context = if (*self.estate).es_per_tuple_exprcontext.is_null() {
                pg_sys::MakePerTupleExprContext(self.estate)
            } else {
                (*self.estate).es_per_tuple_exprcontext
            };
            (*context).ecxt_scantuple = self.slot;
            let memory = (*context).ecxt_per_tuple_memory;
            let looked = PgMemoryContexts::For(memory).switch_to(|_| {
                pg_sys::FormIndexDatum(self.info, self.slot, self.estate, &mut value, &mut is_null);
                if is_null { Ok(Some(false)) } else { from_embedding(value, look).map(Some) }
            });
            pg_sys::MemoryContextReset(memory);
            pg_sys::ExecClearTuple(self.slot);
            looked
        }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: all was made by `new`.
            unsafe {
                pg_sys::ExecDropSingleTupleTableSlot(self.slot);
                pg_sys::table_index_fetch_end(self.fetch);
                pg_sys::FreeExecutorState(self.estate);
            }
        }
    }
}
