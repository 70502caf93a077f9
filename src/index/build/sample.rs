//! A random sample of a table's embeddings.

use super::{Build, check_dimension, sort, visit};
use crate::embedding::Embedding;
use crate::error::Result;
use half::slice::HalfFloatSliceExt;
use ndarray::ArrayView2;
use pgrx::prelude::*;
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use sketch_model::index::{BuildOptions, RowId};

/// Pages of the table that are read to learn how many rows a page has.
const PROBED: u32 = 100;
/// Rows of a page of a table that none of the probed ones tell of.
const ASSUMED_ROWS_OF_PAGE: f64 = 8.0;
/// Share of maintenance_work_mem for the sample; the training needs memory, too.
const MEMORY_SHARE: usize = 2;
/// A sample of any size needs some rows to be one.
const LEAST: usize = 256;

/// Rows that were drawn, each with the same probability.
pub struct Sample {
    values: Vec<f32>,
    dimension: usize,
    /// Estimated number of rows of the table that have an embedding.
    pub rows: f64,
    /// Rows that would make a good sample.
    asked: usize,
    /// Rows to draw: as many as were asked for and fit in memory.
    wanted: usize,
    seen: u64,
    random: SplitMix64,
}

impl Sample {
    /// Reads a sample: of some pages of a large table, of all of a small one.
    pub fn read(build: Build, options: &BuildOptions) -> Self {
        // SAFETY: the table is open.
        let blocks = unsafe { pg_sys::RelationGetNumberOfBlocksInFork(build.heap, pg_sys::ForkNumber::MAIN_FORKNUM) };
        let probe = Self::of_blocks(build, options, blocks, PROBED.min(blocks), usize::MAX);
        let density = probe.seen as f64 / f64::from(PROBED.min(blocks).max(1));
        let rows = density * f64::from(blocks);
        if blocks <= PROBED && probe.dimension * 4 * probe.seen as usize <= memory() {
            return Self { rows, ..probe };
        }
        let wanted = options.sample_for(if rows > 0.0 { rows } else { f64::from(blocks) * ASSUMED_ROWS_OF_PAGE });
        drop(probe);
        let needed = wanted as f64 / density;
        if needed < f64::from(blocks) {
            let sample = Self::of_blocks(build, options, blocks, (needed as u32).max(PROBED), wanted);
            return Self { rows, ..sample };
        }
        let mut sample = Self::new(options, wanted);
        sample.scan(build, 0, pg_sys::InvalidBlockNumber);
        let rows = sample.seen as f64;
        Self { rows, ..sample }
    }

    fn new(options: &BuildOptions, wanted: usize) -> Self {
        Self {
            values: Vec::new(),
            dimension: 0,
            rows: 0.0,
            asked: wanted,
            wanted,
            seen: 0,
            random: SplitMix64::seed_from_u64(options.seed),
        }
    }

    /// Draws from `count` pages chosen at random.
    fn of_blocks(build: Build, options: &BuildOptions, blocks: u32, count: u32, wanted: usize) -> Self {
        let mut sample = Self::new(options, wanted);
        let mut sampler = pg_sys::BlockSamplerData::default();
        // SAFETY: the sampler is initialised first.
        unsafe {
            pg_sys::BlockSampler_Init(&mut sampler, blocks, count as i32, options.seed as u32);
            while pg_sys::BlockSampler_HasMore(&mut sampler) {
                sample.scan(build, pg_sys::BlockSampler_Next(&mut sampler), 1);
            }
        }
        sample
    }

    fn scan(&mut self, build: Build, start: pg_sys::BlockNumber, count: pg_sys::BlockNumber) {
        pgrx::check_for_interrupts!();
        let info = build.info;
        range_scan(build, start, count, |embedding, _, alive| self.draw(info, embedding, alive));
    }

    /// Keeps a row, or throws it or another one away: Vitter's algorithm R.
    fn draw(&mut self, info: *mut pg_sys::IndexInfo, embedding: Embedding<'_>, alive: bool) -> Result<()> {
        if self.seen == 0 {
            if !alive {
                return Ok(());
            }
            self.dimension = embedding.values().len();
            self.wanted = self.wanted.min((memory() / (4 * self.dimension)).max(LEAST));
        }
        let Some(values) = check_dimension(info, self.dimension, embedding, alive)? else { return Ok(()) };
        self.seen += 1;
        if self.seen <= self.wanted as u64 {
            self.values.extend(values.to_f32_vec());
            return Ok(());
        }
        let place = (self.random.next_u64() % self.seen) as usize;
        if place < self.wanted {
            let start = place * self.dimension;
            values.convert_to_f32_slice(&mut self.values[start..start + self.dimension]);
        }
        Ok(())
    }

    /// Megabytes of `maintenance_work_mem` for as many rows as were asked for, if less than that was drawn.
    pub fn memory_wanted(&self) -> Option<usize> {
        let more = self.asked.min(self.seen as usize) > self.wanted && self.asked < usize::MAX;
        more.then(|| (self.asked * self.dimension * 4 * MEMORY_SHARE).div_ceil(1024 * 1024))
    }

    /// The rows, shape `(n, d)`; `None` if there are none.
    pub fn values(&self) -> Option<ArrayView2<'_, f32>> {
        let rows = self.values.len().checked_div(self.dimension).filter(|rows| *rows > 0)?;
        Some(ArrayView2::from_shape((rows, self.dimension), &self.values).expect("rows are of one length"))
    }
}

/// Bytes that a sample may take.
fn memory() -> usize {
    sort::memory() as usize * 1024 / MEMORY_SHARE
}

/// Calls `each` for the rows of some pages.
fn range_scan<F: FnMut(Embedding<'_>, RowId, bool) -> Result<()>>(
    build: Build,
    start: pg_sys::BlockNumber,
    count: pg_sys::BlockNumber,
    mut each: F,
) {
    // SAFETY: the relations are open; `each` is used by the callback alone, and while this call lasts.
    unsafe {
        pg_sys::table_index_build_range_scan(
            build.heap,
            build.index,
            build.info,
            false,
            true,
            false,
            start,
            count,
            Some(visit::<F>),
            (&raw mut each).cast(),
            std::ptr::null_mut(),
        );
    }
}
