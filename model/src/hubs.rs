//! Hub correction: some photos are near every drawing, and stand in the way of the right ones.
//!
//! How near a photo is to drawings of anything is its mean inner product `b` with the nearest drawings of a bank: embeddings
//! of drawings that belong to the model. A corrected photo is stored so that its squared distance from every drawing is
//! greater by `2 · strength · (b − floor)` ([`crate::form`]): plain L2, which any index or engine ranks by.
//!
//! Source: Chowdhury et al., "Nearest Neighbor Normalization Improves Multimodal Retrieval", EMNLP 2024. There the bias is
//! subtracted from the score; of unit vectors that is the same.

use crate::digest::{self, Sha256Digest};
use crate::embedding::MAX_VALUE;
use crate::manifest::MAX_DIMENSION;
use crate::simd::total;
use ndarray::ArrayView2;
use std::iter;
use thiserror::Error;

/// The most values of a bank, 16 MB.
pub const MAX_VALUES: usize = 1 << 24;

/// The greatest strength of a correction; 0.5 is usual.
pub const MAX_STRENGTH: f32 = 100.0;

const MAGIC: &[u8; 16] = b"pg_sketch bank 1";
/// Bytes in front of the scales: the magic, then model, dimension, rows, neighbours, strength and floor.
const HEADER: usize = MAGIC.len() + 6 * 4;
/// The greatest magnitude of a stored value.
const STEPS: f32 = 127.0;

/// Why a bank could not be made, read or used.
#[derive(Debug, Error)]
pub enum BankError {
    #[error("bank is malformed")]
    Malformed,
    #[error("bank of {drawings} drawings and {dimension} dimensions is empty or too large")]
    Size { drawings: usize, dimension: usize },
    #[error("number of neighbours is {neighbours}, bank has {drawings} drawings")]
    Neighbours { neighbours: usize, drawings: usize },
    #[error("strength of the hub correction is {strength}, must be between 0 and 100")]
    Strength { strength: f32 },
    #[error("value {value} at position {position} is not a finite half-precision number")]
    Value { position: usize, value: f32 },
    #[error("embedding has {actual} dimensions, bank expects {expected}")]
    Dimension { actual: usize, expected: usize },
}

/// How near a photo may be to the drawings of a bank, and how that is corrected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correction {
    /// How many of the nearest drawings count.
    pub neighbours: usize,
    /// Share of the nearness that is taken off, unless a codebook says otherwise.
    pub strength: f32,
    /// Nearness of photos that are corrected by nothing: the least to be expected.
    pub floor: f32,
}

/// Embeddings of drawings, with 8 bits for each value.
#[derive(Clone, Debug, PartialEq)]
pub struct Bank {
    model: u32,
    dimension: usize,
    correction: Correction,
    /// One for each drawing: value = scale · step.
    scales: Vec<f32>,
    /// Shape `(n, d)`, row-major.
    steps: Vec<i8>,
}

impl Bank {
    /// Makes a bank of the embeddings of drawings, shape `(n, d)`; `model`: the tag of the model that made them.
    ///
    /// # Errors
    /// [`BankError`] for what is out of bounds.
    pub fn new(drawings: ArrayView2<f32>, model: u32, correction: Correction) -> Result<Self, BankError> {
        let (count, dimension) = drawings.dim();
        check_sizes(count, dimension)?;
        check_values(drawings.iter())?;
        let (mut scales, mut steps) = (Vec::with_capacity(count), Vec::with_capacity(count * dimension));
        for drawing in drawings.rows() {
            let greatest = drawing.iter().fold(0.0f32, |greatest, value| greatest.max(value.abs()));
            let scale = greatest / STEPS;
            scales.push(scale);
            steps.extend(drawing.iter().map(|value| if scale > 0.0 { (value / scale).round() as i8 } else { 0 }));
        }
        Self { model, dimension, correction, scales, steps }.checked()
    }

    fn checked(self) -> Result<Self, BankError> {
        let Correction { neighbours, strength, floor } = self.correction;
        check_sizes(self.drawings(), self.dimension)?;
        if !(1..=self.drawings()).contains(&neighbours) {
            return Err(BankError::Neighbours { neighbours, drawings: self.drawings() });
        }
        if !(0.0..=MAX_STRENGTH).contains(&strength) {
            return Err(BankError::Strength { strength });
        }
        check_values(self.scales.iter().chain([&floor]))?;
        Ok(self)
    }

    /// Reads a bank from what [`Bank::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`BankError`] for bytes of another form, or what is out of bounds.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BankError> {
        let (header, rest) = bytes.split_at_checked(HEADER).ok_or(BankError::Malformed)?;
        let (magic, numbers) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(BankError::Malformed);
        }
        let words = words(numbers);
        let (dimension, count) = (words[1] as usize, words[2] as usize);
        check_sizes(count, dimension)?;
        if rest.len() != count * (4 + dimension) {
            return Err(BankError::Malformed);
        }
        let (scales, steps) = rest.split_at(4 * count);
        let correction = Correction {
            neighbours: words[3] as usize,
            strength: f32::from_bits(words[4]),
            floor: f32::from_bits(words[5]),
        };
        Self {
            model: words[0],
            dimension,
            correction,
            scales: self::words(scales).into_iter().map(f32::from_bits).collect(),
            steps: steps.iter().map(|&byte| byte as i8).collect(),
        }
        .checked()
    }

    /// Writes the bank: a magic of 16 bytes; model, dimension, number of drawings and of neighbours (32-bit integers, little
    /// endian as all that follows); strength, floor and a scale for each drawing (32-bit floats); then the drawings, a byte
    /// for each value.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Correction { neighbours, strength, floor } = self.correction;
        let sizes = [self.model, self.dimension as u32, self.drawings() as u32, neighbours as u32];
        let floats = [strength, floor].into_iter().chain(self.scales.iter().copied()).map(f32::to_bits);
        let words = sizes.into_iter().chain(floats).flat_map(u32::to_le_bytes);
        MAGIC.iter().copied().chain(words).chain(self.steps.iter().map(|&step| step as u8)).collect()
    }

    /// Returns the SHA-256 of the bank's bytes.
    pub fn digest(&self) -> Sha256Digest {
        digest::sha256([self.to_bytes().as_slice()])
    }

    /// Returns the first four bytes of the digest, never 0.
    pub fn tag(&self) -> u32 {
        digest::tag(&self.digest())
    }

    /// The tag of the model whose embeddings these are.
    pub fn model(&self) -> u32 {
        self.model
    }

    /// The length of an embedding, `d`.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The number of drawings, `n`.
    pub fn drawings(&self) -> usize {
        self.scales.len()
    }

    /// How photos are corrected.
    pub fn correction(&self) -> Correction {
        self.correction
    }

    /// Returns the mean inner product of an embedding, shape `(d,)`, with the nearest drawings; the same on every machine,
    /// to the bit.
    ///
    /// # Errors
    /// [`BankError::Dimension`] if it is not `d` long, [`BankError::Value`] for NaN and infinities.
    pub fn nearness(&self, embedding: &[f32]) -> Result<f32, BankError> {
        if embedding.len() != self.dimension {
            return Err(BankError::Dimension { actual: embedding.len(), expected: self.dimension });
        }
        check_values(embedding)?;
        let rows = self.steps.chunks_exact(self.dimension);
        let mut products: Vec<f32> =
            iter::zip(&self.scales, rows).map(|(scale, row)| scale * dot(embedding, row)).collect();
        let neighbours = self.correction.neighbours;
        let descending = |a: &f32, b: &f32| b.total_cmp(a);
        products.select_nth_unstable_by(neighbours - 1, descending);
        products.truncate(neighbours);
        // A sum depends on its order.
        products.sort_unstable_by(descending);
        Ok(products.iter().sum::<f32>() / neighbours as f32)
    }

    /// Returns what is added to the squared distances of a photo: `2 · strength · (nearness − floor)`, at least 0.
    ///
    /// # Errors
    /// As [`Bank::nearness`].
    pub fn bias(&self, embedding: &[f32], strength: f32) -> Result<f32, BankError> {
        let above = (self.nearness(embedding)? - self.correction.floor).max(0.0);
        Ok(2.0 * strength * above)
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

fn check_sizes(drawings: usize, dimension: usize) -> Result<(), BankError> {
    let values = drawings.saturating_mul(dimension);
    // One channel more must fit.
    if (1..=MAX_VALUES).contains(&values) && dimension < MAX_DIMENSION {
        return Ok(());
    }
    Err(BankError::Size { drawings, dimension })
}

fn check_values<'a>(values: impl IntoIterator<Item = &'a f32>) -> Result<(), BankError> {
    match iter::zip(0.., values).find(|(_, value)| !(-MAX_VALUE..=MAX_VALUE).contains(*value)) {
        Some((position, &value)) => Err(BankError::Value { position, value }),
        None => Ok(()),
    }
}

/// Inner product with additions in one fixed order, which compilers vectorise without changing its bits.
fn dot(values: &[f32], steps: &[i8]) -> f32 {
    const LANES: usize = 16;
    let (value_blocks, value_rest) = values.as_chunks::<LANES>();
    let (step_blocks, step_rest) = steps.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (values, steps) in iter::zip(value_blocks, step_blocks) {
        for i in 0..LANES {
            sums[i] += values[i] * f32::from(steps[i]);
        }
    }
    for (sum, (value, step)) in iter::zip(&mut sums, iter::zip(value_rest, step_rest)) {
        *sum += value * f32::from(*step);
    }
    total(&mut sums)
}
