//! The quantizer of an index: a rotation, the centroids of the lists, and a scale for each channel.

use super::calibrate::Calibration;
use super::layout::{self, HEADER, Kind, Layout, ListEntry, Meta, NONE, start_page};
use super::{BuildOptions, IndexError, PAGE_SIZE, Pages, rounding};
use crate::simd::{self, BLOCK, Kernel};
use half::f16;
use half::slice::HalfFloatSliceExt;
use ndarray::{Array2, Axis};

/// Rotates embeddings so that the rows of a list differ mostly in the first channels.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotation {
    /// Shape `(padded, padded)`, row-major; empty for none.
    matrix: Vec<f32>,
    /// Frobenius norm of `matrix · matrixᵀ − I`: how far it is from a rotation.
    defect: f32,
}

impl Rotation {
    pub fn none() -> Self {
        Self { matrix: Vec::new(), defect: 0.0 }
    }

    /// `basis`: shape `(d, d)`, orthonormal rows.
    pub fn new(basis: Array2<f32>) -> Self {
        let wide = basis.mapv(f64::from);
        let mut gram = wide.dot(&wide.t());
        gram.diag_mut().mapv_inplace(|value| value - 1.0);
        let defect = gram.iter().map(|value| value * value).sum::<f64>().sqrt();
        let (d, padded) = (basis.nrows(), basis.nrows().next_multiple_of(BLOCK));
        let mut matrix = vec![0.0; padded * padded];
        for (row, out) in basis.axis_iter(Axis(0)).zip(matrix.chunks_mut(padded)) {
            out[..d].iter_mut().zip(row).for_each(|(out, value)| *out = *value);
        }
        Self { matrix, defect: rounding::up(defect) }
    }

    /// `values`, `out`: shape `(padded,)`.
    pub fn apply(&self, values: &[f32], out: &mut [f32]) {
        if self.matrix.is_empty() {
            return out.copy_from_slice(values);
        }
        let kernel = simd::widest();
        for (row, out) in self.matrix.chunks_exact(values.len()).zip(out) {
            *out = kernel.dot(row, values);
        }
    }

    /// Error bounds, as shares of a vector's length: of the computed rotation, and of the rotation's effect on lengths.
    ///
    /// A channel is an inner product that [`Kernel::dot`] rounds.
    pub fn slack(&self, padded: usize) -> (f64, f64) {
        if self.matrix.is_empty() {
            return (0.0, 0.0);
        }
        let channel = (padded as f64 / 32.0 + 7.0) * f64::from(f32::EPSILON) / 2.0;
        ((padded as f64).sqrt() * channel * 1.01, f64::from(self.defect))
    }
}

/// The centroids of the lists, rotated, in half precision.
///
/// The first two blocks of channels are stored apart from the others: they suffice to skip most lists.
#[derive(Clone, Debug, PartialEq)]
pub struct Centroids {
    count: usize,
    head: usize,
    heads: Vec<f16>,
    tails: Vec<f16>,
    tail_norms: Vec<f32>,
    /// Length of the longest.
    longest: f32,
}

impl Centroids {
    /// `rows`: shape `(lists, padded)`.
    pub fn new(rows: Array2<f32>) -> Self {
        let (count, padded) = rows.dim();
        let mut halves = vec![f16::ZERO; count * padded];
        let held = |value: f32| value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32());
        let values: Vec<f32> = rows.iter().map(|value| held(*value)).collect();
        halves.convert_from_f32_slice(&values);
        Self::from_halves(&halves, padded)
    }

    fn from_halves(halves: &[f16], padded: usize) -> Self {
        let head = padded.min(2 * BLOCK);
        let (mut heads, mut tails, mut tail_norms) = (Vec::new(), Vec::new(), Vec::new());
        let mut longest = 0.0f64;
        for row in halves.chunks_exact(padded) {
            let squares = |part: &[f16]| part.iter().map(|value| value.to_f64().powi(2)).sum::<f64>();
            longest = longest.max(squares(row).sqrt());
            heads.extend_from_slice(&row[..head]);
            tails.extend_from_slice(&row[head..]);
            tail_norms.push(squares(&row[head..]).sqrt() as f32);
        }
        Self { count: halves.len() / padded, head, heads, tails, tail_norms, longest: rounding::up(longest) }
    }

    pub fn longest(&self) -> f32 {
        self.longest
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn head(&self, list: usize) -> &[f16] {
        &self.heads[list * self.head..][..self.head]
    }

    pub fn tail(&self, list: usize) -> &[f16] {
        let width = self.tails.len() / self.count.max(1);
        &self.tails[list * width..][..width]
    }

    /// Writes a lower bound of the squared distance of `query`, shape `(padded,)`, to every centroid, but for rounding.
    pub fn bounds(&self, query: &[f32], out: &mut Vec<f32>) {
        let kernel = simd::widest();
        let (head, tail) = query.split_at(self.head);
        let tail_norm = norm(tail);
        out.clear();
        out.extend(self.tail_norms.iter().enumerate().map(|(list, norm)| {
            let gap = tail_norm - norm;
            kernel.l2_squared_mixed(head, self.head(list)) + gap * gap
        }));
    }

    /// Squared distance of `query` to a centroid.
    pub fn distance(&self, kernel: &Kernel, query: &[f32], list: usize) -> f32 {
        let (head, tail) = query.split_at(self.head);
        kernel.l2_squared_mixed(head, self.head(list)) + kernel.l2_squared_mixed(tail, self.tail(list))
    }

    /// The nearest list of a row; `bounds` is scratch.
    pub fn nearest(&self, row: &[f32], bounds: &mut Vec<f32>) -> usize {
        self.bounds(row, bounds);
        let kernel = simd::widest();
        let least = |a: (usize, f32), b: (usize, f32)| if b.1 < a.1 { b } else { a };
        let start = bounds.iter().copied().enumerate().fold((0, f32::INFINITY), least).0;
        let mut best = (start, self.distance(&kernel, row, start));
        for (list, bound) in bounds.iter().enumerate() {
            if *bound < best.1 {
                best = least(best, (list, self.distance(&kernel, row, list)));
            }
        }
        best.0
    }
}

fn norm(values: &[f32]) -> f32 {
    simd::widest().dot(values, values).sqrt()
}

/// Rotation, centroids and scales, by which all rows of an index are coded.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantizer {
    dimension: usize,
    bits: u8,
    id: u64,
    pub(super) layout: Layout,
    pub(super) rotation: Rotation,
    /// Shape `(padded,)`: a code counts in parts of it.
    pub(super) scales: Vec<f32>,
    pub(super) centroids: Centroids,
    pub(super) entries_page: u32,
    calibration: Calibration,
}

impl Quantizer {
    /// The quantizer of an index without rows; [`initialize`](super::initialize) makes one with its first.
    pub fn empty(options: &BuildOptions) -> Self {
        let centroids = Centroids::new(Array2::zeros((0, BLOCK)));
        Self::assemble(0, options.bits, options.seed, Rotation::none(), vec![1.0; BLOCK], centroids)
    }

    /// One list around zero, nothing rotated.
    pub(super) fn plain(dimension: usize, bits: u8, id: u64) -> Self {
        let padded = Layout::new(dimension, bits).padded;
        let scales = vec![1.0 / (dimension as f32).sqrt(); padded];
        let centroids = Centroids::new(Array2::zeros((1, padded)));
        Self::assemble(dimension, bits, id, Rotation::none(), scales, centroids)
    }

    pub(super) fn assemble(
        dimension: usize,
        bits: u8,
        id: u64,
        rotation: Rotation,
        scales: Vec<f32>,
        centroids: Centroids,
    ) -> Self {
        let layout = Layout::new(dimension, bits);
        Self {
            dimension,
            bits,
            id,
            layout,
            rotation,
            scales,
            centroids,
            entries_page: NONE,
            calibration: Calibration::default(),
        }
    }

    /// Dimension of the embeddings, 0 before the first one.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    pub fn lists(&self) -> usize {
        self.centroids.count()
    }

    /// How searches find a part of the nearest rows.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// Bits of a code for each channel.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// # Errors
    /// [`IndexError::Dimension`] if an embedding of `actual` values does not fit the index.
    pub(super) fn expect(&self, actual: usize) -> Result<(), IndexError> {
        let expected = self.dimension;
        if actual == expected { Ok(()) } else { Err(IndexError::Dimension { expected, actual }) }
    }

    /// Writes the quantizer of an index: all its pages, if it has none yet; else those of its quantizer alone, and then the meta page.
    ///
    /// # Errors
    /// If a page cannot be added.
    pub fn create<P: Pages>(&self, pages: &mut P) -> Result<(), P::Error> {
        let mut meta = Meta {
            bits: self.bits,
            dimension: self.dimension as u32,
            lists: self.lists() as u32,
            id: self.id,
            quantizer_page: NONE,
            quantizer_bytes: 0,
            entries_page: NONE,
            calibration: Calibration::default(),
        };
        if pages.count()? == 0 {
            pages.add(|page| meta.write(page))?;
        }
        if self.dimension == 0 {
            return Ok(());
        }
        let bytes = self.to_bytes();
        meta.quantizer_bytes = bytes.len() as u64;
        for (number, part) in bytes.chunks(PAGE_SIZE - HEADER).enumerate() {
            let page = pages.add(|page| {
                start_page(page, Kind::Quantizer, number as u32);
                layout::put(page, HEADER, part);
            })?;
            follows(&mut meta.quantizer_page, number, page)?;
        }
        for number in 0..self.lists().div_ceil(ListEntry::PER_PAGE) {
            let page = pages.add(|page| {
                start_page(page, Kind::Entries, number as u32);
                for entry in 0..ListEntry::PER_PAGE as u32 {
                    ListEntry::EMPTY.write(page, ListEntry::place(entry).1);
                }
            })?;
            follows(&mut meta.entries_page, number, page)?;
        }
        pages.change([0], |[page]| {
            meta.write(page);
            Ok(())
        })
    }

    /// Reads the quantizer of an index.
    ///
    /// # Errors
    /// [`IndexError::Damaged`], [`IndexError::Version`] if there is none.
    pub fn load<P: Pages>(pages: &P) -> Result<Self, P::Error> {
        let meta = pages.read(0, Meta::read)??;
        let options = BuildOptions { lists: 0, bits: meta.bits, seed: meta.id };
        if meta.dimension == 0 {
            return Ok(Self::empty(&options));
        }
        let count = u64::from(pages.count()?);
        let firsts = [meta.quantizer_page, meta.entries_page].map(u64::from);
        if firsts.into_iter().zip(meta.page_counts()).any(|(first, pages)| first + pages > count) {
            return Err(IndexError::Damaged { page: 0, what: "meta page leads beyond the end" }.into());
        }
        let mut bytes = Vec::with_capacity(meta.quantizer_bytes as usize);
        let mut page = meta.quantizer_page;
        while (bytes.len() as u64) < meta.quantizer_bytes {
            let left = (meta.quantizer_bytes - bytes.len() as u64) as usize;
            pages.read(page, |content| {
                layout::expect_kind(content, page, Kind::Quantizer)?;
                bytes.extend_from_slice(&content[HEADER..][..left.min(PAGE_SIZE - HEADER)]);
                Ok::<_, IndexError>(())
            })??;
            page += 1;
        }
        let quantizer = Self::from_bytes(&bytes, &meta).ok_or(IndexError::Damaged {
            page: meta.quantizer_page,
            what: "quantizer has another length than its parts",
        })?;
        if !quantizer.is_possible() {
            let what = "quantizer has a number that is out of range";
            return Err(IndexError::Damaged { page: meta.quantizer_page, what }.into());
        }
        Ok(Self { entries_page: meta.entries_page, calibration: meta.calibration, ..quantizer })
    }

    /// A random number that identifies the quantizer.
    ///
    /// # Errors
    /// As [`Quantizer::load`].
    pub fn id<P: Pages>(pages: &P) -> Result<u64, P::Error> {
        Ok(pages.read(0, Meta::read)??.id)
    }

    /// Reads how many lists an index has; an empty one has none.
    ///
    /// # Errors
    /// As [`Quantizer::load`].
    pub fn lists_of<P: Pages>(pages: &P) -> Result<usize, P::Error> {
        Ok(pages.read(0, Meta::read)??.lists as usize)
    }

    /// Reads the entry of a list.
    pub(super) fn entry<P: Pages>(&self, pages: &P, list: u32) -> Result<ListEntry, P::Error> {
        let (page, at) = self.entry_place(list);
        pages
            .read(page, |content| {
                layout::expect_kind(content, page, Kind::Entries)?;
                Ok::<_, IndexError>(ListEntry::read(content, at))
            })?
            .map_err(P::Error::from)
    }

    /// Page and offset of a list's entry.
    pub(super) fn entry_place(&self, list: u32) -> (u32, usize) {
        let (page, at) = ListEntry::place(list);
        (self.entries_page + page, at)
    }

    /// Whether all numbers are such as training makes them: what is coded by others has no bounds.
    fn is_possible(&self) -> bool {
        let Rotation { matrix, defect } = &self.rotation;
        let positive = self.scales.iter().all(|scale| scale.is_finite() && *scale > 0.0);
        let Centroids { heads, tails, .. } = &self.centroids;
        positive
            && defect.is_finite()
            && *defect >= 0.0
            && matrix.iter().all(|value| value.is_finite())
            && heads.iter().chain(tails).all(|value| value.is_finite())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.rotation.defect.to_le_bytes());
        let floats = self.scales.iter().chain(&self.rotation.matrix);
        bytes.extend(floats.flat_map(|value| value.to_le_bytes()));
        for list in 0..self.lists() {
            let halves = self.centroids.head(list).iter().chain(self.centroids.tail(list));
            bytes.extend(halves.flat_map(|value| value.to_le_bytes()));
        }
        bytes
    }

    fn from_bytes(bytes: &[u8], meta: &Meta) -> Option<Self> {
        let layout = Layout::new(meta.dimension as usize, meta.bits);
        let padded = layout.padded;
        let floats =
            |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect() };
        let (defect, rest) = bytes.split_at_checked(4)?;
        let (scales, rest) = rest.split_at_checked(4 * padded)?;
        let centroids = 2 * padded * meta.lists as usize;
        let (matrix, centroids) = rest.split_at_checked(rest.len().checked_sub(centroids)?)?;
        if !matrix.is_empty() && matrix.len() != 4 * padded * padded {
            return None;
        }
        let halves: Vec<f16> = centroids.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect();
        let rotation = Rotation { matrix: floats(matrix), defect: floats(defect)[0] };
        let centroids = Centroids::from_halves(&halves, padded);
        Some(Self::assemble(meta.dimension as usize, meta.bits, meta.id, rotation, floats(scales), centroids))
    }
}

/// Stores the first of a sequence of pages, and checks that the others follow it.
fn follows(first: &mut u32, number: usize, page: u32) -> Result<(), IndexError> {
    if number == 0 {
        *first = page;
    }
    if *first + number as u32 == page {
        Ok(())
    } else {
        Err(IndexError::Damaged { page, what: "page was added out of turn" })
    }
}
