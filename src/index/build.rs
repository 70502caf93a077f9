//! CREATE INDEX and REINDEX: a quantizer is trained on a sample of the rows, all rows are coded against it, by several
//! processes if the server grants them, sorted by list, and written.

mod parallel;
mod sample;
mod sort;

use super::pages::IndexPages;
use super::{cache, from_embedding, options, raise, row_id};
use crate::embedding::Embedding;
use crate::error::{Result, SqlError};
use half::f16;
use parallel::Team;
use pgrx::prelude::*;
use sample::Sample;
use sketch_model::index::{self, BuildOptions, Coder, IndexError, Quantizer, RowId, Writer};
use sort::Sort;
use std::borrow::Cow;
use std::ffi::{CStr, c_void};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Fewer rows than this make poor lists.
const FEW_ROWS: f64 = 1000.0;
/// Rows between two reports of progress.
const REPORTED: u64 = 1000;

/// What `pg_stat_progress_create_index` shows.
#[derive(Clone, Copy)]
enum Phase {
    // The server's own PROGRESS_CREATEIDX_SUBPHASE_INITIALIZE.
    Initialize = 1,
    Sample,
    Cluster,
    Code,
    Sort,
    Write,
    Calibrate,
}

/// Names a phase.
#[pg_guard]
pub unsafe extern "C-unwind" fn phase_name(phase: i64) -> *mut std::ffi::c_char {
    const NAMES: [(Phase, &CStr); 7] = [
        (Phase::Initialize, c"initializing"),
        (Phase::Sample, c"sampling"),
        (Phase::Cluster, c"clustering"),
        (Phase::Code, c"coding rows"),
        (Phase::Sort, c"sorting"),
        (Phase::Write, c"writing"),
        (Phase::Calibrate, c"calibrating"),
    ];
    let name = NAMES.iter().find(|(known, _)| *known as i64 == phase);
    name.map_or(std::ptr::null_mut(), |(_, name)| name.as_ptr().cast_mut())
}

fn progress(parameter: u32, value: i64) {
    // SAFETY: a parameter of CREATE INDEX, while one runs.
    unsafe { pg_sys::pgstat_progress_update_param(parameter as i32, value) };
}

fn enter(phase: Phase) {
    progress(pg_sys::PROGRESS_CREATEIDX_SUBPHASE, phase as i64);
}

/// Rows of the table, and those that have an entry.
#[derive(Clone, Copy, Default)]
struct Counts {
    heap: f64,
    index: u64,
}

/// A build in progress: what the server passed.
#[derive(Clone, Copy)]
struct Build {
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
}

/// Builds an index.
#[pg_guard]
pub unsafe extern "C-unwind" fn build(
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
) -> *mut pg_sys::IndexBuildResult {
    // SAFETY: the server passes open relations; palloc0 returns as much memory as asked for.
    unsafe {
        let counts = raise(Build { heap, index, info }.run());
        let result = pg_sys::palloc0(size_of::<pg_sys::IndexBuildResult>()).cast::<pg_sys::IndexBuildResult>();
        (*result).heap_tuples = counts.heap;
        (*result).index_tuples = counts.index as f64;
        result
    }
}

/// Writes the file from which an unlogged index starts again after a crash.
#[pg_guard]
pub unsafe extern "C-unwind" fn build_empty(index: pg_sys::Relation) {
    // SAFETY: the server passes the open index, and nobody else knows of it.
    unsafe {
        let mut pages = IndexPages::build(index, pg_sys::ForkNumber::INIT_FORKNUM);
        raise(Quantizer::empty(&options::options(index)).create(&mut pages));
        raise(pages.log());
    }
}

impl Build {
    /// # Safety
    /// The relations are open, and no other backend writes the index.
    unsafe fn run(self) -> Result<Counts> {
        // SAFETY: the caller's promise.
        let (options, mut pages) =
            unsafe { (options::options(self.index), IndexPages::build(self.index, pg_sys::ForkNumber::MAIN_FORKNUM)) };
        let (quantizer, queries) = self.quantizer(&options)?;
        quantizer.create(&mut pages)?;
        // As it was written: with the pages that it has.
        let quantizer = Arc::new(Quantizer::load(&pages)?);
        enter(Phase::Code);
        let counts = if quantizer.dimension() == 0 {
            self.insert_rows(&mut pages)
        } else if let Some(team) = Team::start(self) {
            let (counts, sort) = team.code_rows(self, &quantizer);
            write(&quantizer, &mut pages, counts, sort)?;
            team.finish();
            counts
        } else {
            let (counts, sort) = code_rows(self, &quantizer, Sort::new(sort::memory(), None), std::ptr::null_mut());
            write(&quantizer, &mut pages, counts, sort)?;
            counts
        };
        enter(Phase::Calibrate);
        index::calibrate(&mut pages, &quantizer, &queries, || {
            pgrx::check_for_interrupts!();
        })?;
        pages.log()?;
        Ok(counts)
    }

    /// Trains a quantizer on a sample of the rows; that of no rows is empty. Returns queries to calibrate with, too.
    fn quantizer(self, options: &BuildOptions) -> Result<(Quantizer, Vec<Vec<f16>>)> {
        enter(Phase::Sample);
        let sample = Sample::read(self, options);
        let few = if options.lists == 0 { FEW_ROWS } else { options.lists as f64 };
        if sample.rows < few {
            notice_few_rows(self.index, sample.rows);
        }
        if let Some(memory) = sample.memory_wanted() {
            let message = "maintenance_work_mem has no room for a sample that makes good lists";
            notice(message, format!("Answers are exact all the same. Raise it to {memory} MB for faster ones."));
        }
        let Some(values) = sample.values() else { return Ok((Quantizer::empty(options), Vec::new())) };
        enter(Phase::Cluster);
        let mut check = || {
            pgrx::check_for_interrupts!();
            ControlFlow::Continue(())
        };
        let quantizer = Quantizer::train(values, sample.rows, options, &mut check)?;
        Ok((quantizer, index::calibration_queries(values, options.seed)))
    }

    /// Adds rows one by one to an index that had none when it was sampled: there are some only if they were added since.
    fn insert_rows(self, pages: &mut IndexPages) -> Counts {
        let mut index = 0;
        let heap = self.scan(std::ptr::null_mut(), |embedding, row, _| {
            // SAFETY: the index is open.
            let mut quantizer = unsafe { cache::quantizer(self.index, pages)? };
            if quantizer.dimension() == 0 {
                index::initialize(pages, embedding.values().len())?;
                quantizer = unsafe { cache::quantizer(self.index, pages)? };
            }
            index += 1;
            let values = embedding.values_for_index(quantizer.dimension());
            index::insert(pages, &quantizer, &values, embedding.origin(), row)
        });
        Counts { heap, index }
    }

    /// Calls `each` for every row that belongs into the index and whose embedding is not NULL, with whether it is alive.
    /// Returns how many rows the table has.
    fn scan<F: FnMut(Embedding<'_>, RowId, bool) -> Result<()>>(self, scan: pg_sys::TableScanDesc, mut each: F) -> f64 {
        // SAFETY: the relations are open; `each` is used by the callback alone, and while this call lasts.
        unsafe {
            pg_sys::table_index_build_scan(
                self.heap,
                self.index,
                self.info,
                true,
                true,
                Some(visit::<F>),
                (&raw mut each).cast(),
                scan,
            )
        }
    }
}

/// Calls `each` for every row that the active snapshot sees and whose embedding is not NULL, with the place that an
/// entry of it names.
///
/// # Safety
/// Both relations are open.
pub unsafe fn each_visible(heap: pg_sys::Relation, index: pg_sys::Relation, mut each: impl FnMut(RowId)) {
    // SAFETY: the caller's promise. A concurrent build's scan takes rows as a snapshot sees them, and ends the scan.
    unsafe {
        let info = pg_sys::BuildIndexInfo(index);
        (*info).ii_Concurrent = true;
        let snapshot = pg_sys::GetActiveSnapshot();
        let scan = pg_sys::table_beginscan_strat(heap, snapshot, 0, std::ptr::null_mut(), true, false);
        let build = Build { heap, index, info };
        build.scan(scan, |_, row, _| {
            each(row);
            Ok(())
        });
    }
}

/// Passes a row of the server's scan on to a closure of type `F`.
#[pg_guard]
unsafe extern "C-unwind" fn visit<F: FnMut(Embedding<'_>, RowId, bool) -> Result<()>>(
    _index: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    values: *mut pg_sys::Datum,
    isnull: *mut bool,
    alive: bool,
    each: *mut c_void,
) {
    // SAFETY: the server passes one value, of type embedding, and what it was told to pass to a callback of this type.
    unsafe {
        if !*isnull {
            let each = &mut *each.cast::<F>();
            raise(from_embedding(*values, |embedding| each(embedding, row_id(tid), alive)));
        }
    }
}

/// Codes the rows of a scan into `sort`, and sorts them.
fn code_rows(build: Build, quantizer: &Quantizer, mut sort: Sort, scan: pg_sys::TableScanDesc) -> (Counts, Sort) {
    let mut coder = Coder::new(quantizer);
    let mut index = 0;
    let heap = build.scan(scan, |embedding, row, alive| {
        let Some(values) = check_dimension(build.info, quantizer.dimension(), embedding, alive)? else { return Ok(()) };
        let coded = coder.code(&values)?;
        sort.put(coded.list, coded.order, row, embedding.origin(), coded.bytes);
        index += 1;
        Ok(())
    });
    enter(Phase::Sort);
    sort.perform();
    (Counts { heap, index }, sort)
}

/// The values of a row to be coded. A dead row of another dimension is left out, and the index kept from those who still
/// might see that row.
///
/// # Errors
/// [`IndexError::Dimension`] if the row is alive.
fn check_dimension<'a>(
    info: *mut pg_sys::IndexInfo,
    expected: usize,
    embedding: Embedding<'a>,
    alive: bool,
) -> Result<Option<Cow<'a, [f16]>>> {
    let values = embedding.values_for_index(expected);
    let actual = values.len();
    if actual == expected {
        return Ok(Some(values));
    }
    if alive {
        return Err(SqlError::from(IndexError::Dimension { expected, actual })
            .hint("Index the rows of one dimension alone: CREATE INDEX ... WHERE sketch_dimension(...) = ..."));
    }
    // SAFETY: the server's, for this build.
    unsafe { (*info).ii_BrokenHotChain = true };
    Ok(None)
}

/// Writes the sorted rows.
fn write(quantizer: &Quantizer, pages: &mut IndexPages, counts: Counts, sort: Sort) -> Result<()> {
    enter(Phase::Write);
    progress(pg_sys::PROGRESS_CREATEIDX_TUPLES_TOTAL, counts.index as i64);
    let mut writer = Writer::new(quantizer, pages);
    let mut done = 0;
    sort.drain(|list, row, origin, bytes| {
        writer.push(list, row, origin, bytes)?;
        done += 1;
        if done % REPORTED == 0 {
            pgrx::check_for_interrupts!();
            progress(pg_sys::PROGRESS_CREATEIDX_TUPLES_DONE, done as i64);
        }
        Ok(())
    })?;
    progress(pg_sys::PROGRESS_CREATEIDX_TUPLES_DONE, done as i64);
    writer.finish()
}

fn notice_few_rows(index: pg_sys::Relation, rows: f64) {
    // SAFETY: the index is open.
    let name = unsafe { super::name(index) };
    notice(
        &format!("index \"{name}\" is built from {rows} rows, too few for good lists"),
        "Answers are exact all the same. REINDEX it when the table has many more rows, and they come faster."
            .to_owned(),
    );
}

fn notice(message: &str, hint: String) {
    SqlError::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message).hint(hint).notice();
}
