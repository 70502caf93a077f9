//! What a scan costs, in the planner's units.
//!
//! A scan first reads the centroids of all lists, then the coded rows of the lists that may hold near rows, a few bits
//! of each; then it looks closer at some. All of that comes before the first row. Each row that is fetched costs a visit
//! of the heap, which the server adds itself.

use pgrx::prelude::*;
use sketch_model::index::BuildOptions;

/// Share of the coded rows that are looked at before the first row comes out: 0.42 of 100,000 photos, 0.26 of a million
/// (`make bench-index`).
const VISITED: f64 = 0.3;
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
        (*startup_cost, *total_cost) = prices.scan(info.tuples.max(1.0), f64::from(info.pages).max(1.0));
    }
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
    fn scan(&self, rows: f64, pages: f64) -> (f64, f64) {
        let page_size = f64::from(pg_sys::BLCKSZ);
        // As an index has them that chose their number itself.
        let lists = BuildOptions { lists: 0, bits: 8, seed: 0 }.lists_for(rows) as f64;
        // A centroid is as wide as four rows of codes of one byte a dimension, of which the index mostly consists.
        let centroid_pages = 4.0 * lists * pages / (rows + 4.0 * lists);
        let first_look_pages = (VISITED * rows * FIRST_LOOK / page_size).min(pages);
        let startup = (FIXED_PAGES + VISITED * lists) * self.random_page
            + (centroid_pages + first_look_pages) * self.sequential_page
            + lists * self.operator * OPERATORS_PER_LIST
            + VISITED * rows * OPERATORS_PER_LOOK * self.operator;
        let total = startup + pages * self.sequential_page + rows * (self.row + OPERATORS_PER_ROW * self.operator);
        (startup, total)
    }
}
