//! Coding of rows: from an embedding to the bytes that an index keeps of it.
//!
//! A row is the rotated embedding's residual `r` from the centroid `c` of its list. A channel's code is a number `h` of
//! 4 bits, then maybe a lower half `l` of 4 more: `r ≈ scale · s · ((h − 7.5) / 8 + (l − 7.5) / 128)`, with a scale for
//! the row and `s` for the channel. Codes come in stages, near, middle, far and fine, and each stage has a `base` and
//! the norms of what it leaves out, so that for a query `q`
//!
//! ```text
//! ‖q − x‖² = ‖q − c‖² + ‖r‖² + 2⟨c, r⟩ − 2⟨q, r⟩  ≥  ‖q − c‖² + base − 2⟨q, r̂⟩ − 2 Σ ‖q − c‖ · ‖r − r̂‖
//! ```
//!
//! where `base = ‖r‖² + 2⟨c, r̂⟩`, and the last sum runs over the channels that the stage codes, taken together, and parts of
//! those that it does not: the Cauchy-Schwarz inequality, for each part.

use super::IndexError;
use super::layout::{ROW_BOUND, put};
use super::quantizer::Quantizer;
use super::rounding::{down, up, up_bf16};
use crate::simd::{BLOCK, BLOCK_BYTES, RESTS};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::ops::Range;

/// Where the parts of a coded row lie in its bytes.
#[derive(Clone, Copy, Debug)]
pub struct RowLayout {
    pub middle_codes: usize,
    pub far: usize,
    pub fine: usize,
    pub size: usize,
}

pub const SCALE: usize = 0;
pub const NEAR_ERROR: usize = 2;
pub const MIDDLE_ERROR: usize = 4;
pub const REST: usize = 6;
pub const NEAR_BASE: usize = REST + 2 * RESTS;
pub const MIDDLE_BASE: usize = NEAR_BASE + 4;
/// Distance from the centroid and length of the embedding; for segment and list, not kept with the row.
pub const DISTANCE: usize = MIDDLE_BASE + 4;
pub const NORM: usize = DISTANCE + 4;
pub const NEAR_CODES: usize = NORM + 4;

impl Quantizer {
    pub(super) fn row_layout(&self) -> RowLayout {
        let layout = &self.layout;
        let middle_codes = NEAR_CODES + BLOCK_BYTES;
        let far = middle_codes + layout.middle / 2;
        let fine = far + if layout.far > 0 { ROW_BOUND + layout.far / 2 } else { 0 };
        let size = fine + if layout.fine { ROW_BOUND + layout.padded / 2 } else { 0 };
        RowLayout { middle_codes, far, fine, size }
    }

    /// Bytes of a coded row.
    pub fn row_size(&self) -> usize {
        self.row_layout().size
    }
}

/// An embedding as its index keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Coded<'a> {
    pub list: u32,
    /// Sorts the rows of a list for [`Writer`](super::Writer): those far from the centroid first.
    pub order: f32,
    pub bytes: &'a [u8],
}

/// Codes rows, with buffers that are reused.
#[derive(Debug)]
pub struct Coder<'f> {
    quantizer: &'f Quantizer,
    row: RowLayout,
    values: Vec<f32>,
    rotated: Vec<f32>,
    bounds: Vec<f32>,
    centroid: Vec<f64>,
    residual: Vec<f64>,
    coded: Vec<f64>,
    codes: Vec<u8>,
    bytes: Vec<u8>,
}

impl<'f> Coder<'f> {
    pub fn new(quantizer: &'f Quantizer) -> Self {
        let (row, padded) = (quantizer.row_layout(), quantizer.layout.padded);
        Self {
            quantizer,
            row,
            values: vec![0.0; padded],
            rotated: vec![0.0; padded],
            bounds: Vec::new(),
            centroid: vec![0.0; padded],
            residual: vec![0.0; padded],
            coded: vec![0.0; padded],
            codes: vec![0; padded],
            bytes: vec![0; row.size],
        }
    }

    /// Codes an embedding in the list whose centroid is nearest.
    ///
    /// # Errors
    /// [`IndexError::Dimension`] if it has another dimension than the index.
    pub fn code(&mut self, values: &[f16]) -> Result<Coded<'_>, IndexError> {
        self.rotate(values)?;
        let list = self.quantizer.centroids.nearest(&self.rotated, &mut self.bounds);
        Ok(self.code_rotated(list as u32))
    }

    /// Codes an embedding in a list.
    ///
    /// # Errors
    /// As [`Coder::code`].
    pub fn code_in(&mut self, list: u32, values: &[f16]) -> Result<Coded<'_>, IndexError> {
        self.rotate(values)?;
        Ok(self.code_rotated(list))
    }

    fn rotate(&mut self, values: &[f16]) -> Result<(), IndexError> {
        self.quantizer.expect(values.len())?;
        values.convert_to_f32_slice(&mut self.values[..values.len()]);
        self.quantizer.rotation.apply(&self.values, &mut self.rotated);
        Ok(())
    }

    fn code_rotated(&mut self, list: u32) -> Coded<'_> {
        let centroids = &self.quantizer.centroids;
        let halves = centroids.head(list as usize).iter().chain(centroids.tail(list as usize));
        self.centroid.iter_mut().zip(halves).for_each(|(out, half)| *out = half.to_f64());
        for ((out, value), centroid) in self.residual.iter_mut().zip(&self.rotated).zip(&self.centroid) {
            *out = f64::from(*value) - centroid;
        }
        let scales = &self.quantizer.scales;
        let reach = self.residual.iter().zip(scales).map(|(r, s)| r.abs() / f64::from(*s)).fold(0.0, f64::max);
        let scale = up_bf16(reach);
        put(&mut self.bytes, SCALE, scale.to_le_bytes());
        let part = if reach > 0.0 { 1.0 / scale.to_f64() } else { 0.0 };
        for ((code, r), s) in self.codes.iter_mut().zip(&self.residual).zip(scales) {
            *code = ((r * part / f64::from(*s) + 1.0) * 128.0) as u8;
        }

        let padded = self.residual.len();
        let (near, middle) = (0..BLOCK, 0..BLOCK + self.quantizer.layout.middle);
        let length = norm(&self.residual, 0..padded);
        self.decode(scale.to_f64(), |code| (f64::from(code >> 4) - 7.5) / 8.0);
        self.put_bound([NEAR_BASE, NEAR_ERROR], length, near.clone());
        self.put_bound([MIDDLE_BASE, MIDDLE_ERROR], length, middle.clone());
        for part in 0..RESTS {
            let rest = norm(&self.residual, self.quantizer.layout.rest(part));
            put(&mut self.bytes, REST + 2 * part, up_bf16(rest).to_le_bytes());
        }
        put(&mut self.bytes, DISTANCE, up(length).to_le_bytes());
        let embedding = self.values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        put(&mut self.bytes, NORM, up(embedding * (1.0 + 1e-12)).to_le_bytes());

        let row = self.row;
        pack_near(&self.codes[near], &mut self.bytes[NEAR_CODES..row.middle_codes]);
        pack(&self.codes[BLOCK..middle.end], 4, &mut self.bytes[row.middle_codes..row.far]);
        if row.fine > row.far {
            self.put_bound([row.far, row.far + 4], length, 0..padded);
            pack(&self.codes[middle.end..], 4, &mut self.bytes[row.far + ROW_BOUND..row.fine]);
        }
        if row.size > row.fine {
            let halves = |code| (f64::from(code >> 4) - 7.5) / 8.0 + (f64::from(code & 15) - 7.5) / 128.0;
            self.decode(scale.to_f64(), halves);
            self.put_bound([row.fine, row.fine + 4], length, 0..padded);
            pack(&self.codes, 0, &mut self.bytes[row.fine + ROW_BOUND..]);
        }
        Coded { list, order: -up(length), bytes: &self.bytes }
    }

    fn decode(&mut self, scale: f64, value: impl Fn(u8) -> f64) {
        for ((out, code), s) in self.coded.iter_mut().zip(&self.codes).zip(&self.quantizer.scales) {
            *out = scale * f64::from(*s) * value(*code);
        }
    }

    /// Writes base and error of a stage that codes these channels.
    fn put_bound(&mut self, [base_at, error_at]: [usize; 2], length: f64, channels: Range<usize>) {
        let (mut product, mut error) = (0.0, 0.0);
        for i in channels {
            product += self.centroid[i] * self.coded[i];
            error += (self.residual[i] - self.coded[i]).powi(2);
        }
        put(&mut self.bytes, base_at, down(length * length + 2.0 * product).to_le_bytes());
        put(&mut self.bytes, error_at, up_bf16(error.sqrt()).to_le_bytes());
    }
}

fn norm(values: &[f64], channels: Range<usize>) -> f64 {
    values[channels].iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// Packs halves of codes, from the bit `shift` on, as [`Kernel::code_dot`](crate::simd::Kernel::code_dot) takes them.
fn pack(codes: &[u8], shift: u32, out: &mut [u8]) {
    for (codes, out) in codes.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<BLOCK_BYTES>().0) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = (codes[i] >> shift & 15) | ((codes[i + BLOCK_BYTES] >> shift & 15) << 4);
        }
    }
}

/// Packs the upper halves of near codes: 4 bytes for 8 channels.
fn pack_near(codes: &[u8], out: &mut [u8]) {
    for (codes, out) in codes.as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<4>().0) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = codes[i] >> 4 | codes[i + 4] & 0xf0;
        }
    }
}
