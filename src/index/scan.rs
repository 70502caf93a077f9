//! Ordered scans.
//!
//! The index gives rows in ascending order of a sure lower bound of their distance; the executor computes the distance
//! itself (`xs_recheckorderby`) and keeps a row back until no bound to come is lower.

use super::pages::IndexPages;
use super::{cache, from_embedding, raise, tid};
use crate::error::{Result, SqlError};
use crate::settings;
use half::f16;
use pgrx::iter::TableIterator;
use pgrx::{PgMemoryContexts, prelude::*};
use sketch_model::index::{Origin, Quantizer, Search, SearchOptions, Visits};
use std::cell::Cell;
use std::sync::Arc;

thread_local! {
    static LAST: Cell<Visits> = const { Cell::new(Visits { lists: 0, rows: 0, refined: 0, pages: 0, rounds: 0 }) };
}

/// A scan in progress. It lies outside of Postgres's memory, and is dropped with the memory context of the scan,
/// however that ends.
#[derive(Default)]
struct Scan {
    state: State,
    /// Of all finished rounds of a scan that is started anew for each outer row.
    before: Visits,
}

#[derive(Default)]
enum State {
    /// Nothing was read since the last (re)start.
    #[default]
    Start,
    Search {
        search: Box<Search>,
        distances: Distances,
    },
    /// There are no rows.
    Empty,
}

/// What the operator gives for the rows of a scan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Distances {
    Bounded,
    /// The query is of another dimension.
    Infinite,
    /// The query is NULL.
    Null,
}

impl Scan {
    fn visits(&self) -> Visits {
        match &self.state {
            State::Search { search, .. } => sum(self.before, search.visits()),
            State::Start | State::Empty => self.before,
        }
    }

    /// Forgets the search, and frees its memory.
    fn stop(&mut self) {
        self.before = self.visits();
        self.state = State::Start;
    }
}

fn sum(a: Visits, b: Visits) -> Visits {
    Visits {
        lists: a.lists + b.lists,
        rows: a.rows + b.rows,
        refined: a.refined + b.refined,
        pages: a.pages + b.pages,
        rounds: a.rounds + b.rounds,
    }
}

/// # Safety
/// `scan` was made by `begin` and is not ended.
unsafe fn state<'a>(scan: pg_sys::IndexScanDesc) -> &'a mut Scan {
    // SAFETY: `begin` put it there, it lives as long as the scan, and no two borrows of it overlap.
    unsafe { &mut *(*scan).opaque.cast::<Scan>() }
}

/// Begins a scan.
#[pg_guard]
pub unsafe extern "C-unwind" fn begin(
    relation: pg_sys::Relation,
    keys: std::ffi::c_int,
    orders: std::ffi::c_int,
) -> pg_sys::IndexScanDesc {
    // SAFETY: the server passes an open index; palloc returns what is asked for. The executor's memory context outlives
    // the scan.
    unsafe {
        let scan = pg_sys::RelationGetIndexScan(relation, keys, orders);
        (*scan).xs_orderbyvals = pg_sys::palloc0(size_of::<pg_sys::Datum>() * orders as usize).cast();
        (*scan).xs_orderbynulls = pg_sys::palloc0(size_of::<bool>() * orders as usize).cast();
        (*scan).opaque = PgMemoryContexts::CurrentMemoryContext.leak_and_drop_on_delete(Scan::default()).cast();
        scan
    }
}

/// Starts a scan, or starts it anew with another query.
#[pg_guard]
pub unsafe extern "C-unwind" fn rescan(
    scan: pg_sys::IndexScanDesc,
    _keys: pg_sys::ScanKey,
    key_count: std::ffi::c_int,
    orders: pg_sys::ScanKey,
    order_count: std::ffi::c_int,
) {
    if key_count > 0 || order_count == 0 {
        raise::<()>(Err(SqlError::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "access method \"ivfexact\" does only scans in order of distance",
        )));
    }
    // SAFETY: the server passes as many keys as `begin` was told of.
    unsafe {
        if !orders.is_null() {
            std::ptr::copy(orders, (*scan).orderByData, order_count as usize);
        }
        state(scan).stop();
    }
}

/// Finds the next row.
#[pg_guard]
pub unsafe extern "C-unwind" fn next(scan: pg_sys::IndexScanDesc, _direction: pg_sys::ScanDirection::Type) -> bool {
    // SAFETY: the server calls between `rescan` and `end`, with the index open.
    unsafe {
        let this = state(scan);
        let pages = IndexPages::new((*scan).indexRelation);
        if let State::Start = this.state {
            this.state = raise(start(scan, &pages));
        }
        let State::Search { search, distances } = &mut this.state else { return false };
        let hit = raise(search.next(&pages));
        let distances = *distances;
        LAST.set(this.visits());
        let Some(hit) = hit else { return false };
        (*scan).xs_heaptid = tid(hit.row);
        (*scan).xs_recheck = false;
        (*scan).xs_recheckorderby = true;
        let bound = if distances == Distances::Infinite { f64::INFINITY } else { hit.bound };
        for index in 0..(*scan).numberOfOrderBys as usize {
            // What ORDER BY names behind the first distance only decides between equal ones.
            let bound = if index == 0 { bound } else { f64::NEG_INFINITY };
            *(*scan).xs_orderbyvals.add(index) = pg_sys::Datum::from(bound.to_bits());
            *(*scan).xs_orderbynulls.add(index) = index == 0 && distances == Distances::Null;
        }
        true
    }
}

/// # Safety
/// As [`next`].
unsafe fn start(scan: pg_sys::IndexScanDesc, pages: &IndexPages) -> Result<State> {
    // SAFETY: the caller's promise.
    unsafe {
        check_snapshot((*scan).xs_snapshot)?;
        count_scan(scan);
        let relation = (*scan).indexRelation;
        let quantizer = cache::quantizer(relation, pages)?;
        if quantizer.dimension() == 0 {
            return Ok(State::Empty);
        }
        let order = &*(*scan).orderByData;
        // Without distances that differ, any order will do.
        let any = || search(&quantizer, &vec![f16::ZERO; quantizer.dimension()], Origin::default());
        let (search, distances) = if order.sk_flags & pg_sys::SK_ISNULL as i32 != 0 {
            (any()?, Distances::Null)
        } else {
            from_embedding(order.sk_argument, |query| -> Result<_> {
                let values = query.query_for_index(quantizer.dimension());
                if values.len() == quantizer.dimension() {
                    Ok((search(&quantizer, &values, query.origin())?, Distances::Bounded))
                } else {
                    Ok((any()?, Distances::Infinite))
                }
            })?
        };
        Ok(State::Search { search: Box::new(search), distances })
    }
}

fn search(quantizer: &Arc<Quantizer>, query: &[f16], origin: Origin) -> Result<Search> {
    // SAFETY: a setting of the server, read by its only thread.
    let memory = unsafe { pg_sys::work_mem } as usize * 1024;
    let allowance = quantizer.calibration().allowance(settings::recall());
    let options = SearchOptions { max_lists: settings::max_lists(), allowance, memory };
    Ok(Search::new(quantizer.clone(), query, origin, options)?)
}

/// An entry whose row was removed may lead to another row by the time that the heap is read: a snapshot of MVCC does
/// not see that one.
unsafe fn check_snapshot(snapshot: pg_sys::Snapshot) -> Result<()> {
    use pg_sys::SnapshotType::{SNAPSHOT_HISTORIC_MVCC, SNAPSHOT_MVCC};
    // SAFETY: null or the scan's snapshot.
    match unsafe { snapshot.as_ref() }.map(|snapshot| snapshot.snapshot_type) {
        Some(SNAPSHOT_MVCC | SNAPSHOT_HISTORIC_MVCC) => Ok(()),
        _ => Err(SqlError::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "access method \"ivfexact\" supports no snapshots but those of MVCC",
        )),
    }
}

/// Counts the scan in `pg_stat_user_indexes`, and on 18 in EXPLAIN, as the server's macros do.
unsafe fn count_scan(scan: pg_sys::IndexScanDesc) {
    // SAFETY: the scan and its index are open.
    unsafe {
        let relation = (*scan).indexRelation;
        if (*relation).pgstat_info.is_null() && (*relation).pgstat_enabled {
            pg_sys::pgstat_assoc_relation(relation);
        }
        if let Some(counters) = (*relation).pgstat_info.as_mut() {
            #[cfg(feature = "pg15")]
            {
                counters.t_counts.t_numscans += 1;
            }
            #[cfg(not(feature = "pg15"))]
            {
                counters.counts.numscans += 1;
            }
        }
        #[cfg(feature = "pg18")]
        if let Some(instrument) = (*scan).instrument.as_mut() {
            instrument.nsearches += 1;
        }
    }
}

/// Ends a scan.
#[pg_guard]
pub unsafe extern "C-unwind" fn end(scan: pg_sys::IndexScanDesc) {
    // SAFETY: the scan was begun.
    let this = unsafe { state(scan) };
    this.stop();
    // SAFETY: a look at settings.
    if unsafe { pg_sys::message_level_is_interesting(pg_sys::DEBUG1 as i32) } {
        let Visits { lists, rows, refined, pages, rounds } = this.before;
        debug1!("ivfexact visited {lists} lists, {rows} rows, {refined} refined, {pages} pages in {rounds} rounds");
    }
}

/// What the last scan of an index by this backend visited.
#[pg_extern(volatile, parallel_restricted)]
fn sketch_index_scan() -> TableIterator<
    'static,
    (name!(lists, i64), name!(rows, i64), name!(refined, i64), name!(pages, i64), name!(rounds, i64)),
> {
    let Visits { lists, rows, refined, pages, rounds } = LAST.get();
    TableIterator::once((lists as i64, rows as i64, refined as i64, pages as i64, rounds as i64))
}
