//! An exact, ordered index of embeddings: it returns all rows in the order of their distances, at a recall of 1.
//!
//! Rows lie in lists around the centroids of a k-means, each coded against the centroid of its list, in stages from coarse to
//! fine. Every stage gives a guaranteed lower bound of a row's distance, so that a search skips only what cannot be among
//! the answers. PostgreSQL's executor computes the exact distances of the rows that are returned.
//!
//! | look in | for |
//! | --- | --- |
//! | [`Quantizer`] (`quantizer`, `train`) | what rows are coded against: rotation, centroids, scales; how they are fitted |
//! | [`Coder`] (`code`) | from an embedding to a coded row; proof of the bounds |
//! | [`Search`] (`search`, `query`) | rounds of rows in order of their bounds |
//! | [`calibrate()`] | how much a search must allow for to find a part of the nearest rows |
//! | [`Writer`], [`insert()`], [`remove`], [`check()`] | bulk build, insertion, removal, verification |
//! | [`Pages`] (`pages`, `layout`, `segment`) | page layout |
//! | `rounding`, [`simd`](crate::simd) | rounding that keeps a bound valid; inner loops |
//!
//! Sources: inverted lists after Sivic, Zisserman, "Video Google", 2003; codes of residuals after Jégou, Douze, Schmid,
//! "Product quantization for nearest neighbor search", 2011; lower bounds from codes after Weber, Schek, Blott, "A
//! quantitative analysis and performance study for similarity-search methods in high-dimensional spaces", 1998 (VA-file).

mod build;
mod calibrate;
mod check;
mod code;
mod insert;
mod layout;
mod pages;
mod quantizer;
mod query;
mod rounding;
mod search;
mod segment;
mod train;
mod vacuum;

pub use crate::origin::Origin;
pub use build::Writer;
pub use calibrate::{Calibration, calibrate, queries as calibration_queries};
pub use check::{Checked, StoredRow, check};
pub use code::{Coded, Coder};
pub use insert::{initialize, insert, insert_coded};
pub use pages::{MemoryPages, PAGE_SIZE, Pages};
pub use quantizer::Quantizer;
pub use search::{Allowance, Hit, Search, SearchOptions, Visits};
pub use vacuum::{Removed, remove};

use std::ops::ControlFlow;
use thiserror::Error;

/// The most lists of an index.
pub const MAX_LISTS: usize = 65_536;

/// Why an index could not be built or read.
#[derive(Debug, Error)]
pub enum IndexError {
    /// A page holds invalid content.
    #[error("index is damaged")]
    Damaged { page: u32, what: &'static str },
    /// Another version of the extension wrote the pages.
    #[error("index has format {found}, expected {expected}")]
    Version { found: u16, expected: u16 },
    /// The index has another dimension than the embedding.
    #[error("embedding has {actual} dimensions, index expects {expected}")]
    Dimension { expected: usize, actual: usize },
    /// The caller's check asked to stop.
    #[error("building of the index was interrupted")]
    Interrupted,
}

/// Long computations call this regularly; `Break` stops them.
pub type Check<'a> = &'a mut dyn FnMut() -> ControlFlow<()>;

/// Position of a row in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId {
    pub block: u32,
    pub offset: u16,
}

/// How to build an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildOptions {
    /// Number of lists; 0 chooses it by the number of rows.
    pub lists: usize,
    /// Bits of a code for each channel: 4, or 8.
    pub bits: u8,
    pub seed: u64,
}

impl BuildOptions {
    /// The number of lists for this many rows.
    ///
    /// Twice the root of the rows: more lists hardly prune more, and cost size and build time (docs/index.md).
    pub fn lists_for(&self, rows: f64) -> usize {
        let chosen = if self.lists > 0 { self.lists } else { (2.0 * rows.max(1.0).sqrt()) as usize };
        chosen.clamp(1, MAX_LISTS)
    }

    /// The number of rows to sample.
    pub fn sample_for(&self, rows: f64) -> usize {
        (self.lists_for(rows) * train::SAMPLE_PER_LIST).max(10_000)
    }
}
