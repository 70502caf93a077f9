//! An exact, ordered index of embeddings.

mod pages;

pub use pages::{MemoryPages, PAGE_SIZE, Pages};

use half::f16;
use ndarray::ArrayView2;
use std::ops::ControlFlow;
use std::sync::Arc;
use thiserror::Error;

/// Why an index could not be made or read.
#[derive(Debug, Error)]
pub enum IndexError {
    /// A page holds what no index writes.
    #[error("index page {page} is damaged")]
    Damaged { page: u32, what: &'static str },
    #[error("index has format {found}, expected {expected}")]
    Version { found: u16, expected: u16 },
    #[error("embedding has {actual} dimensions, index expects {expected}")]
    Dimension { expected: usize, actual: usize },
    #[error("building of the index was interrupted")]
    Interrupted,
    #[error("index is full")]
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId {
    pub block: u32,
    pub offset: u16,
}
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin {
    pub model: u32,
    pub codebook: u32,
}
#[derive(Clone, Copy, Debug)]
pub struct BuildOptions {
    pub lists: usize,
    pub bits: u8,
    pub seed: u64,
}
impl BuildOptions {
    pub fn lists_for(&self, _rows: f64) -> usize {
        todo!()
    }
    pub fn sample_for(&self, _rows: f64) -> usize {
        todo!()
    }
}
pub type Check<'a> = &'a mut dyn FnMut() -> ControlFlow<()>;
pub struct Frame {}
impl Frame {
    pub fn train(
        _sample: ArrayView2<f32>,
        _rows: f64,
        _options: &BuildOptions,
        _check: Check,
    ) -> Result<Frame, IndexError> {
        todo!()
    }
    pub fn empty(_options: &BuildOptions) -> Frame {
        todo!()
    }
    pub fn create<P: Pages>(&self, _pages: &mut P) -> Result<(), P::Error> {
        todo!()
    }
    pub fn load<P: Pages>(_pages: &P) -> Result<Frame, P::Error> {
        todo!()
    }
    pub fn id<P: Pages>(_pages: &P) -> Result<u64, P::Error> {
        todo!()
    }
    pub fn dimension(&self) -> usize {
        todo!()
    }
    pub fn lists(&self) -> usize {
        todo!()
    }
    /// Bytes of a coded row.
    pub fn row_size(&self) -> usize {
        todo!()
    }
}
pub struct Coder<'f> {
    _frame: &'f Frame,
}
pub struct Coded<'a> {
    pub list: u32,
    pub order: f32,
    pub bytes: &'a [u8],
}
impl<'f> Coder<'f> {
    pub fn new(_frame: &'f Frame) -> Self {
        todo!()
    }
    pub fn code(&mut self, _values: &[f16]) -> Result<Coded<'_>, IndexError> {
        todo!()
    }
}
pub struct Writer<'a, P: Pages> {
    _pages: &'a mut P,
}
impl<'a, P: Pages> Writer<'a, P> {
    pub fn new(_frame: &'a Frame, _pages: &'a mut P) -> Self {
        todo!()
    }
    pub fn push(&mut self, _list: u32, _row: RowId, _origin: Origin, _bytes: &[u8]) -> Result<(), P::Error> {
        todo!()
    }
    pub fn finish(self) -> Result<(), P::Error> {
        todo!()
    }
}
pub fn insert<P: Pages>(
    _pages: &mut P,
    _frame: &Frame,
    _values: &[f16],
    _origin: Origin,
    _row: RowId,
) -> Result<(), P::Error> {
    todo!()
}
pub fn found<P: Pages>(_pages: &mut P, _dimension: usize) -> Result<(), P::Error> {
    todo!()
}
pub struct SearchOptions {
    pub max_lists: u32,
    pub memory: usize,
}
#[derive(Clone, Copy, Debug, Default)]
pub struct Visits {
    pub lists: u64,
    pub rows: u64,
    pub refined: u64,
    pub pages: u64,
    pub rounds: u64,
}
pub struct Hit {
    pub row: RowId,
    pub bound: f64,
}
pub struct Search {}
impl Search {
    pub fn new(
        _frame: Arc<Frame>,
        _query: &[f16],
        _origin: Origin,
        _options: SearchOptions,
    ) -> Result<Search, IndexError> {
        todo!()
    }
    pub fn next<P: Pages>(&mut self, _pages: &P) -> Result<Option<Hit>, P::Error> {
        todo!()
    }
    pub fn visits(&self) -> Visits {
        todo!()
    }
}
pub struct Removed {
    pub removed: u64,
    pub left: u64,
}
pub fn remove<P: Pages>(_pages: &mut P, _dead: impl FnMut(RowId) -> bool) -> Result<Removed, P::Error> {
    todo!()
}
pub struct Checked {
    pub lists: u64,
    pub rows: u64,
    pub free: u64,
    pub pages: u64,
    pub unused_pages: u64,
}
pub struct StoredRow<'a> {
    _bytes: &'a [u8],
}
impl StoredRow<'_> {
    pub fn matches(&self, _coder: &mut Coder, _values: &[f16]) -> Result<bool, IndexError> {
        todo!()
    }
}
pub fn check<P: Pages>(
    _pages: &P,
    _frame: &Frame,
    _each: impl FnMut(RowId, Origin, StoredRow<'_>) -> Result<(), P::Error>,
) -> Result<Checked, P::Error> {
    todo!()
}
