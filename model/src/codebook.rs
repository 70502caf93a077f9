//! Codebooks: the prototypes of a gallery, and the fusing of photos with them.
//!
//! The channels of an embedding are cut into `m` subspaces, each `dsub = d / m` wide, and the photos of the gallery
//! are clustered in each. A prototype (the literature says centroid) is the centre of such a cluster.
//! A photo's fused embedding is `weight · embedding + (1 − weight) · prototypes`, with the nearest prototype of each
//! subspace side by side. Of a photo that is like no other it is short, and by L2 near to every drawing. What is done about
//! that is the codebook's [`Length`].
//!
//! Source: patent CN117131214B; "Distribution Aligned Feature Clustering for Zero-Shot Sketch-Based Image Retrieval".

mod json;
mod kmeans;
mod train;

pub use train::CodebookOptions;

use crate::digest::{self, Sha256Digest};
use crate::embedding::MAX_VALUE;
use crate::hubs::MAX_STRENGTH;
use crate::manifest::MAX_DIMENSION;
use crate::simd::total;
use kmeans::KMeansError;
use ndarray::{Array3, ArrayView3};
use std::iter;
use thiserror::Error;

/// The most prototypes of a subspace: a code numbers them in 16 bits.
pub const MAX_PROTOTYPES: usize = 1 << 16;

/// The most values of a codebook, 128 MiB: as many as the most prototypes of 512 dimensions.
pub const MAX_VALUES: usize = MAX_PROTOTYPES * 512;

/// Why a codebook could not be trained, read or used.
#[derive(Debug, Error)]
pub enum CodebookError {
    /// An embedding is not as long as the codebook's.
    #[error("embedding has {actual} dimensions, codebook expects {expected}")]
    Dimension { actual: usize, expected: usize },
    /// The dimension is 0 or beyond [`MAX_DIMENSION`], or does not fall into as many equal parts.
    #[error("{dimension} dimensions cannot be cut into {subspaces} subspaces")]
    Subspaces { dimension: usize, subspaces: usize },
    /// No prototypes, or more than [`MAX_PROTOTYPES`].
    #[error("number of prototypes is {prototypes}, must be between 1 and 65536")]
    Prototypes { prototypes: usize },
    /// More than [`MAX_VALUES`] values.
    #[error("codebook of {prototypes} prototypes and {dimension} dimensions is too large")]
    TooLarge { prototypes: usize, dimension: usize },
    /// The weight is not between 0 and 1.
    #[error("weight is {weight}, must be between 0 and 1")]
    Weight { weight: f32 },
    /// The strength of the hub correction is not between 0 and 100.
    #[error("strength of the hub correction is {strength}, must be between 0 and 100")]
    Strength { strength: f32 },
    /// A hub correction without a bank, or a bank without a correction.
    #[error("hub correction has strength {strength} and bank {bank}, expected both or neither")]
    Hubs { bank: u32, strength: f32 },
    /// A value is NaN or beyond ±[`MAX_VALUE`].
    #[error("value {value} at position {position} is not a finite half-precision number")]
    Value { position: usize, value: f32 },
    /// A code is not as long as the codebook has subspaces.
    #[error("code has {actual} elements, codebook has {expected} subspaces")]
    CodeLength { actual: usize, expected: usize },
    /// A code names a prototype that does not exist.
    #[error("code {code} of subspace {subspace} is out of range, codebook has {prototypes} prototypes")]
    Code { subspace: usize, code: u16, prototypes: usize },
    /// Fewer samples than prototypes.
    #[error("{samples} samples are too few for {prototypes} prototypes")]
    TooFewSamples { samples: usize, prototypes: usize },
    /// Too many samples are the same in a subspace; `distinct` prototypes would do.
    #[error("{distinct} distinct samples in subspace {subspace} are too few for {prototypes} prototypes")]
    TooFewDistinct { subspace: usize, distinct: usize, prototypes: usize },
    /// An option of the training is not positive.
    #[error("option \"{option}\" must be positive")]
    NotPositive { option: &'static str },
    /// The caller's check asked to stop.
    #[error("training of the codebook was interrupted")]
    Interrupted,
    /// The clustering failed.
    #[error("could not cluster the samples")]
    Clustering(#[from] KMeansError),
    /// The text is no codebook.
    #[error("could not read codebook")]
    Json(#[from] serde_json::Error),
    /// The text is a codebook of another format.
    #[error("codebook has format {format}, expected {expected}")]
    Format { format: u32, expected: u32 },
    /// The text announces another number of values than it holds.
    #[error("codebook has {actual} values, its sizes ask for {expected}")]
    ValueCount { actual: usize, expected: usize },
}

/// The prototypes of all subspaces, and the weight to fuse with.
#[derive(Clone, Debug, PartialEq)]
pub struct Codebook {
    /// Shape `(m, k, dsub)`, row-major; every value finite, none of them -0.0.
    centroids: Array3<f32>,
    weight: f32,
    length: Length,
    model: u32,
    hubs: Hubs,
}

/// What becomes of a fused embedding that is shorter than the photo's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Length {
    /// It stays short, as in the patent.
    Own,
    /// It is scaled to unit length, as in version 0.1.0: then it is as near to drawings as one that agrees with its
    /// prototypes.
    Scaled,
    /// One more channel makes up for what is missing ([`crate::form::Form`]), so that drawings are ranked by their inner
    /// product with the short one.
    #[default]
    Completed,
}

/// How photos that are fused with a codebook are corrected for hubs ([`crate::hubs`]).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Hubs {
    /// Tag of the bank, 0 for no correction.
    pub bank: u32,
    /// 0 for no correction.
    pub strength: f32,
}

impl Codebook {
    /// Makes a codebook of given prototypes; fused embeddings are normalised to unit length.
    ///
    /// `centroids`: shape `(m, k, dsub)`. `weight`: share of the photo's own embedding, 0 to 1.
    /// `model`: tag of the model whose embeddings were clustered, 0 if unknown.
    ///
    /// # Errors
    /// [`CodebookError::Subspaces`], [`CodebookError::Prototypes`], [`CodebookError::TooLarge`],
    /// [`CodebookError::Weight`] or [`CodebookError::Value`] (its position counts row-major) for what is out of bounds.
    pub fn new(centroids: Array3<f32>, weight: f32, model: u32) -> Result<Self, CodebookError> {
        let (subspaces, prototypes, width) = centroids.dim();
        check_sizes(subspaces, prototypes, subspaces.saturating_mul(width))?;
        check_weight(weight)?;
        check_values(centroids.iter())?;
        // SQL's numbers know no -0.0; without it, a codebook that went through SQL keeps its digest.
        let centroids = centroids.as_standard_layout().mapv(|value| value + 0.0);
        Ok(Self { centroids, weight: weight + 0.0, length: Length::default(), model, hubs: Hubs::default() })
    }

    /// Says what becomes of short fused embeddings.
    pub fn with_length(self, length: Length) -> Self {
        Self { length, ..self }
    }

    /// Says how fused embeddings are corrected for hubs; [`crate::form::Form`] does that.
    ///
    /// # Errors
    /// [`CodebookError::Strength`] out of range, [`CodebookError::Hubs`] for one of a bank and a strength without the other.
    pub fn with_hubs(self, hubs: Hubs) -> Result<Self, CodebookError> {
        let Hubs { bank, strength } = hubs;
        if !(0.0..=MAX_STRENGTH).contains(&strength) {
            return Err(CodebookError::Strength { strength });
        }
        if (bank == 0) != (strength == 0.0) {
            return Err(CodebookError::Hubs { bank, strength });
        }
        Ok(Self { hubs: Hubs { bank, strength: strength + 0.0 }, ..self })
    }

    /// How fused embeddings are corrected for hubs.
    pub fn hubs(&self) -> Hubs {
        self.hubs
    }

    /// What becomes of short fused embeddings.
    pub fn length(&self) -> Length {
        self.length
    }

    /// The number of subspaces, `m`.
    pub fn subspaces(&self) -> usize {
        self.centroids.dim().0
    }

    /// The number of prototypes of each subspace, `k`.
    pub fn prototypes(&self) -> usize {
        self.centroids.dim().1
    }

    /// The length of an embedding, `d`.
    pub fn dimension(&self) -> usize {
        self.subspaces() * self.width()
    }

    /// The share of the photo's own embedding in the fused one, 0 to 1.
    pub fn weight(&self) -> f32 {
        self.weight
    }

    /// The tag of the model whose embeddings were clustered; 0 if unknown.
    pub fn model(&self) -> u32 {
        self.model
    }

    /// The prototypes, shape `(m, k, dsub)`.
    pub fn centroids(&self) -> ArrayView3<'_, f32> {
        self.centroids.view()
    }

    /// The width of a subspace, `dsub`.
    fn width(&self) -> usize {
        self.centroids.dim().2
    }

    /// The prototypes of one subspace, `k · dsub` values, row-major.
    fn subspace(&self, subspace: usize) -> &[f32] {
        let size = self.prototypes() * self.width();
        // `new` made the array row-major.
        let values = self.centroids.as_slice().unwrap_or_default();
        &values[subspace * size..][..size]
    }

    fn prototype(&self, subspace: usize, prototype: u16) -> &[f32] {
        &self.subspace(subspace)[usize::from(prototype) * self.width()..][..self.width()]
    }

    /// Finds the nearest prototype of each subspace; of equally near ones, the first.
    ///
    /// `embedding`: shape `(d,)`. Returns shape `(m,)`. The same on every machine, to the bit.
    ///
    /// # Errors
    /// [`CodebookError::Dimension`] if `embedding.len() != d`, [`CodebookError::Value`] for NaN and infinities.
    pub fn encode(&self, embedding: &[f32]) -> Result<Vec<u16>, CodebookError> {
        self.check_embedding(embedding)?;
        let subvectors = embedding.chunks_exact(self.width()).enumerate();
        Ok(subvectors.map(|(subspace, subvector)| self.nearest(subspace, subvector)).collect())
    }

    fn nearest(&self, subspace: usize, subvector: &[f32]) -> u16 {
        let mut best = (f32::INFINITY, 0);
        for (code, prototype) in (0..=u16::MAX).zip(self.subspace(subspace).chunks_exact(self.width())) {
            let distance = l2_squared(subvector, prototype);
            if distance < best.0 {
                best = (distance, code);
            }
        }
        best.1
    }

    /// Puts the prototypes that `code` names side by side.
    ///
    /// `code`: shape `(m,)`. Returns shape `(d,)`.
    ///
    /// # Errors
    /// [`CodebookError::CodeLength`] if `code.len() != m`, [`CodebookError::Code`] if there is no such prototype.
    pub fn decode(&self, code: &[u16]) -> Result<Vec<f32>, CodebookError> {
        if code.len() != self.subspaces() {
            return Err(CodebookError::CodeLength { actual: code.len(), expected: self.subspaces() });
        }
        let prototypes = self.prototypes();
        if let Some((subspace, &code)) = iter::zip(0.., code).find(|&(_, &code)| usize::from(code) >= prototypes) {
            return Err(CodebookError::Code { subspace, code, prototypes });
        }
        Ok(iter::zip(0.., code).flat_map(|(subspace, &code)| self.prototype(subspace, code)).copied().collect())
    }

    /// Draws a photo's embedding towards its prototypes: `weight · embedding + (1 − weight) · prototypes`, which is then
    /// scaled to unit length if [`Length`] says so and it is not zero.
    ///
    /// `embedding`: shape `(d,)`. Returns shape `(d,)`. The same on every machine, to the bit.
    ///
    /// # Errors
    /// As [`Codebook::encode`].
    pub fn fuse(&self, embedding: &[f32]) -> Result<Vec<f32>, CodebookError> {
        let mut fused = self.decode(&self.encode(embedding)?)?;
        let rest = 1.0 - self.weight;
        for (value, own) in iter::zip(&mut fused, embedding) {
            *value = self.weight * own + rest * *value;
        }
        let length = squared_length(&fused).sqrt();
        if self.length == Length::Scaled && length > 0.0 {
            fused.iter_mut().for_each(|value| *value /= length);
        }
        Ok(fused)
    }

    /// Returns the SHA-256 of everything that affects fused embeddings.
    ///
    /// It is taken over `"pg_sketch codebook 1"` in ASCII, then, little endian: the model's tag, `m`, `k`, `d`
    /// (32-bit integers), 0 for the [`Length`] `Own`, 1 for `Scaled`, 2 for `Completed` (32-bit integer), the weight and the prototypes, row-major (bits of
    /// 32-bit floats); and with a hub correction the tag of its bank (32-bit integer) and the strength (32-bit float).
    pub fn digest(&self) -> Sha256Digest {
        let sizes = [self.subspaces(), self.prototypes(), self.dimension()];
        let header = iter::once(self.model).chain(sizes.map(|size| size as u32)).chain([self.length as u32]);
        let floats = iter::once(&self.weight).chain(&self.centroids).map(|value| value.to_bits());
        let hubs = [self.hubs.bank, self.hubs.strength.to_bits()].into_iter().filter(|_| self.hubs.bank != 0);
        let bytes: Vec<u8> = header.chain(floats).chain(hubs).flat_map(u32::to_le_bytes).collect();
        digest::sha256([b"pg_sketch codebook 1".as_slice(), &bytes])
    }

    /// Returns the tag that embeddings fused with this codebook carry: the digest's first four bytes, never 0.
    pub fn tag(&self) -> u32 {
        digest::tag(&self.digest())
    }

    fn check_embedding(&self, embedding: &[f32]) -> Result<(), CodebookError> {
        if embedding.len() != self.dimension() {
            return Err(CodebookError::Dimension { actual: embedding.len(), expected: self.dimension() });
        }
        check_values(embedding)
    }
}

fn check_sizes(subspaces: usize, prototypes: usize, dimension: usize) -> Result<(), CodebookError> {
    if !(1..=MAX_DIMENSION).contains(&dimension) || dimension.checked_rem(subspaces) != Some(0) {
        return Err(CodebookError::Subspaces { dimension, subspaces });
    }
    if !(1..=MAX_PROTOTYPES).contains(&prototypes) {
        return Err(CodebookError::Prototypes { prototypes });
    }
    if prototypes * dimension > MAX_VALUES {
        return Err(CodebookError::TooLarge { prototypes, dimension });
    }
    Ok(())
}

fn check_weight(weight: f32) -> Result<(), CodebookError> {
    if !(0.0..=1.0).contains(&weight) {
        return Err(CodebookError::Weight { weight });
    }
    Ok(())
}

fn check_values<'a>(values: impl IntoIterator<Item = &'a f32>) -> Result<(), CodebookError> {
    match iter::zip(0.., values).find(|(_, value)| !(-MAX_VALUE..=MAX_VALUE).contains(*value)) {
        Some((position, &value)) => Err(CodebookError::Value { position, value }),
        None => Ok(()),
    }
}

/// Returns the squared length of a vector.
pub(crate) fn squared_length(values: &[f32]) -> f32 {
    l2_squared(values, &vec![0.0; values.len()])
}

/// Returns the squared L2 distance of two subvectors of the same length.
///
/// The order of additions is fixed, and no multiply-add is fused, so that compilers vectorise it for any machine
/// and its bits are the same on all of them.
fn l2_squared(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in iter::zip(a_blocks, b_blocks) {
        for i in 0..LANES {
            sums[i] += (a[i] - b[i]) * (a[i] - b[i]);
        }
    }
    for (sum, (a, b)) in iter::zip(&mut sums, iter::zip(a_rest, b_rest)) {
        *sum += (a - b) * (a - b);
    }
    total(&mut sums)
}
