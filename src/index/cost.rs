//! What a scan costs, in the planner's units.
//!
//! A scan first reads the centroids of all lists, then the coded rows of the lists that may hold near rows, a few bits
//! of each; then it looks closer at some. All of that comes before the first row. Each row that is fetched costs a visit
//! of the heap, which the server adds itself.

use super::options;
use super::pages::IndexPages;
use crate::settings;
use pgrx::prelude::*;
use sketch_model::index::{BuildOptions, Quantizer};

/// Share of the coded rows that are looked at before the first row comes out, with as many lists as an index chooses itself:
/// 0.36 of 100,000 photos, 0.21 of a million (`make bench-index`).
const VISITED: f64 = 0.3;
/// The same at a recall of less than 1: a hundredth at a recall of 0.95.
const VISITED_APPROXIMATELY: f64 = 0.02;
/// Bytes of a coded row that a first look reads.
const FIRST_LOOK: f64 = 56.0;
/// Operators' worth of a first look at a coded row, closer looks at some of them included: a seventh of what a
/// sequential scan takes for a row.
const OPERATORS_PER_LOOK: f64 = 8.0;
/// Pages that every scan reads: the first one, and a list's. Estimated.
const FIXED_PAGES: f64 = 2.0;
/// Operators' worth of a list's centroid: a distance in full precision.
const OPERATORS_PER_LIST: f64 = 5.0;
/// Operators' worth of a row that is returned: closer looks at it and at others, in each of the rounds that it takes to
/// get there, a visit of the heap out of order, the exact distance, and a place in the executor's queue. 1,000 to 100,000
/// rows out of a million took 5 to 6 µs each, as long as 25 rows of a sequential scan.
const OPERATORS_PER_ROW: f64 = 1200.0;

/// Estimates what a scan costs.
#[pg_guard]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C-unwind" fn estimate(
    _root: *mut pg_sys::PlannerInfo,
    path: *mut pg_sys::IndexPath,
    _loop_count: f64,
    startup_cost: *mut pg_sys::Cost,
    total_cost: *mut pg_sys::Cost,
    selectivity: *mut pg_sys::Selectivity,
    correlation: *mut f64,
    pages: *mut f64,
) {
    // SAFETY: the server passes a path of an index of ours, and places for the results.
    unsafe {
        let info = &*(*path).indexinfo;
        *selectivity = 1.0;
        *correlation = 0.0;
        *pages = f64::from(info.pages);
        if (*path).indexorderbys.is_null() {
            #[cfg(feature = "pg18")]
            {
                (*path).path.disabled_nodes = 2;
            }
            *startup_cost = f64::INFINITY;
            *total_cost = f64::INFINITY;
            return;
        }
        let prices = Prices::of(info.reltablespace);
        let rows = info.tuples.max(1.0);
        (*startup_cost, *total_cost) = prices.scan(rows, lists(info, rows), f64::from(info.pages).max(1.0));
    }
}

/// How many lists an index has: as its meta page says, or, if that is damaged, as its options say.
///
/// # Safety
/// The server plans with the index, and so holds a lock on it.
unsafe fn lists(info: &pg_sys::IndexOptInfo, rows: f64) -> f64 {
    if info.hypothetical {
        return BuildOptions { lists: 0, bits: 8, seed: 0 }.lists_for(rows) as f64;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let relation = pg_sys::index_open(info.indexoid, pg_sys::NoLock as i32);
        let lists = match Quantizer::lists_of(&IndexPages::new(relation)) {
            Ok(lists) => lists,
            Err(_) => options::options(relation).lists_for(rows),
        };
        pg_sys::index_close(relation, pg_sys::NoLock as i32);
        lists.max(1) as f64
    }
}

/// How many times fewer rows a scan would look at if the index were built anew.
pub fn gain_of_reindex(rows: f64, lists: f64) -> f64 {
    visited(rows, lists) / visited(rows, BuildOptions { lists: 0, bits: 8, seed: 0 }.lists_for(rows) as f64)
}

/// Share of the rows that a scan looks at: all those of few lists. Half as many lists cost some half more. Estimated.
fn visited(rows: f64, lists: f64) -> f64 {
    let share = if settings::recall() < 1.0 { VISITED_APPROXIMATELY } else { VISITED };
    let usual = BuildOptions { lists: 0, bits: 8, seed: 0 }.lists_for(rows) as f64;
    (share * (usual / lists).sqrt()).clamp(share, 1.0)
}

/// What the server's settings say that work costs.
struct Prices {
    random_page: f64,
    sequential_page: f64,
    row: f64,
    operator: f64,
}

impl Prices {
    fn of(tablespace: pg_sys::Oid) -> Self {
        let (mut random_page, mut sequential_page) = (0.0, 0.0);
        // SAFETY: both are places for a number; the costs are settings, read by the server's only thread.
        unsafe {
            pg_sys::get_tablespace_page_costs(tablespace, &mut random_page, &mut sequential_page);
            Self {
                random_page,
                sequential_page,
                row: pg_sys::cpu_index_tuple_cost,
                operator: pg_sys::cpu_operator_cost,
            }
        }
    }

    /// Costs before the first row, and of a scan of all rows.
    fn scan(&self, rows: f64, lists: f64, pages: f64) -> (f64, f64) {
        let page_size = f64::from(pg_sys::BLCKSZ);
        let visited = visited(rows, lists);
        // A centroid is as wide as four rows of codes of one byte a dimension, of which the index mostly consists.
        let centroid_pages = 4.0 * lists * pages / (rows + 4.0 * lists);
        let first_look_pages = (visited * rows * FIRST_LOOK / page_size).min(pages);
        let startup = (FIXED_PAGES + visited * lists) * self.random_page
            + (centroid_pages + first_look_pages) * self.sequential_page
            + lists * self.operator * OPERATORS_PER_LIST
            + visited * rows * OPERATORS_PER_LOOK * self.operator;
        let total = startup + pages * self.sequential_page + rows * (self.row + OPERATORS_PER_ROW * self.operator);
        (startup, total)
    }
}
