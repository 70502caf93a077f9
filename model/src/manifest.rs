//! What a network expects and returns: the part of a model that is not the graph.

use crate::digest::{Sha256Digest, sha256};
use crate::limits::Limits;
use crate::render::decode::DecodeError;
use crate::render::drawing::{Drawing, DrawingError};
use crate::render::preprocess::{PhotoPreprocessing, PreprocessError, SketchPreprocessing};
use image::RgbImage;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The manifest format that this version reads and writes.
pub const FORMAT: u32 = 1;
/// Widest embedding that a network may return.
pub const MAX_DIMENSION: usize = 16_000;
/// Side of the largest input image, in pixels.
pub const MAX_INPUT_SIZE: u32 = 1024;

/// Describes one ONNX network. Stored as JSON beside the graph; unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    pub name: String,
    /// Width `d` of the `embedding` output.
    pub dimension: usize,
    pub input: Input,
    /// Whether the graph takes `domain`, int64 of shape `(n,)`: 0 for a sketch, 1 for a photo.
    pub domain_input: bool,
    pub sketch: SketchPreprocessing,
    pub photo: PhotoPreprocessing,
    pub licence: String,
    pub origin: String,
    /// Whether a GPU may compute in half precision: faster, and embeddings differ in their last digits.
    ///
    /// Absent when false, so that the digests of models that are older than the field stay what they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub half_precision: bool,
}

/// The `image` input: float32 of shape `(n, 3, size, size)`, RGB, `(x / 255 - mean) / std`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Side of the square image, in pixels.
    pub size: u32,
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

/// Why a manifest is refused.
#[derive(Debug, Error)]
pub enum ManifestError {
    #[error("invalid model manifest")]
    Json(#[from] serde_json::Error),
    #[error("model manifest has format {found}, this version reads format {FORMAT}")]
    Format { found: u32 },
    #[error("model manifest has \"{field}\" out of range")]
    Range { field: &'static str },
}

/// Why a user's bytes did not become an input of the network.
#[derive(Debug, Error)]
pub enum PrepareError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Drawing(#[from] DrawingError),
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
}

impl Manifest {
    /// Reads and validates a manifest.
    ///
    /// # Errors
    /// [`ManifestError`] for JSON that is no manifest, another format, or sizes out of range.
    pub fn from_json(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_str(text)?;
        manifest.validate()?;
        Ok(manifest)
    }

    /// Returns the manifest as JSON, fields in the order of their declaration.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a manifest has string keys and finite numbers")
    }

    fn validate(&self) -> Result<(), ManifestError> {
        let in_range = |ok: bool, field| if ok { Ok(()) } else { Err(ManifestError::Range { field }) };
        if self.format != FORMAT {
            return Err(ManifestError::Format { found: self.format });
        }
        in_range(!self.name.is_empty() && self.name.len() < 64, "name")?;
        in_range((1..=MAX_DIMENSION).contains(&self.dimension), "dimension")?;
        in_range((16..=MAX_INPUT_SIZE).contains(&self.input.size), "input.size")?;
        in_range(self.sketch.is_in_range(), "sketch")?;
        in_range(self.input.mean.iter().all(|x| x.is_finite()), "input.mean")?;
        in_range(self.input.std.iter().all(|x| x.is_finite() && *x > 0.0), "input.std")
    }

    /// Returns the SHA-256 of graph and manifest together: whatever changes an embedding changes it.
    pub fn digest(&self, onnx: &[u8]) -> Sha256Digest {
        sha256([onnx, self.to_json().as_bytes()])
    }

    /// Number of values in one input image: `3 * size * size`.
    pub fn input_len(&self) -> usize {
        3 * (self.input.size as usize).pow(2)
    }

    /// Turns a drawing (PNG, JPEG, WebP, SVG, strokes as JSON, or a data URI) into one network input.
    ///
    /// Returns `input_len()` values, channels first.
    ///
    /// # Errors
    /// [`PrepareError`] if the bytes are no drawing, exceed `limits`, or show nothing.
    pub fn prepare_sketch(&self, bytes: &[u8], limits: &Limits) -> Result<Vec<f32>, PrepareError> {
        Ok(self.normalise(&self.render_sketch(bytes, limits)?))
    }

    /// Turns a photo (PNG, JPEG, WebP) into one network input.
    ///
    /// Returns `input_len()` values, channels first.
    ///
    /// # Errors
    /// [`PrepareError`] if the bytes are no photo or exceed `limits`.
    pub fn prepare_photo(&self, bytes: &[u8], limits: &Limits) -> Result<Vec<f32>, PrepareError> {
        Ok(self.normalise(&self.render_photo(bytes, limits)?))
    }

    /// Draws what the network sees of a drawing: `size` x `size` pixels, which [`normalise`](Self::normalise) turns into
    /// its input.
    ///
    /// # Errors
    /// As [`prepare_sketch`](Self::prepare_sketch).
    pub fn render_sketch(&self, bytes: &[u8], limits: &Limits) -> Result<RgbImage, PrepareError> {
        let drawing = Drawing::decode(bytes, limits)?;
        Ok(self.sketch.apply(&drawing, self.input.size)?)
    }

    /// Draws what the network sees of a photo: `size` x `size` pixels.
    ///
    /// # Errors
    /// As [`prepare_photo`](Self::prepare_photo).
    pub fn render_photo(&self, bytes: &[u8], limits: &Limits) -> Result<RgbImage, PrepareError> {
        Ok(self.photo.render(bytes, limits, self.input.size)?)
    }

    /// Turns a picture of the input's size into one network input: `input_len()` values, channels first.
    pub fn normalise(&self, image: &RgbImage) -> Vec<f32> {
        let mut tensor = Vec::with_capacity(self.input_len());
        self.normalise_into(image.as_raw(), &mut tensor);
        tensor
    }

    /// Appends the network's input of a picture to `tensor`; `rgb`: its pixels, `input_len()` bytes, row by row.
    pub fn normalise_into(&self, rgb: &[u8], tensor: &mut Vec<f32>) {
        let Input { mean, std, .. } = self.input;
        for c in 0..3 {
            let (scale, shift) = (1.0 / (255.0 * std[c]), mean[c] / std[c]);
            tensor.extend(rgb[c..].iter().step_by(3).map(move |&x| f32::from(x) * scale - shift));
        }
    }
}
