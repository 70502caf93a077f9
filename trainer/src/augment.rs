//! Views: an image as another person might have drawn or taken it, the same for the same seed.
//!
//! A view goes through the preprocessing of the manifest, as an image does when the network is served. Drawings vary in
//! strokes, pen, slant and frame; photos in what part of them is seen, and in light; an edge map of a photo passes for a
//! sketch of it ([`Kind::PseudoSketch`]), so that photos without any drawing teach, too.

mod bitmap;
mod edges;
mod photo;
mod vector;

use image::RgbImage;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use sketch_model::decode::{DecodeError, decode_image};
use sketch_model::drawing::{Drawing, DrawingError};
use sketch_model::limits::Limits;
use sketch_model::manifest::Manifest;
use sketch_model::preprocess::{Frame, PreprocessError, SketchPreprocessing};

use crate::metrics::mix;

/// Why an image has no view.
#[derive(Debug, thiserror::Error)]
pub enum AugmentError {
    #[error(transparent)]
    Drawing(#[from] DrawingError),
    #[error(transparent)]
    Photo(#[from] DecodeError),
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    #[error("photo shows no edges")]
    NoEdges,
}

/// As what an image is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Sketch,
    Photo,
    /// The edges of a photo, drawn as lines.
    PseudoSketch,
}

/// How far views are from the image as it is; 0 switches a change off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Range of stroke widths, in pixels of the network's input; the logarithm is uniform.
    pub stroke: [f32; 2],
    /// Share of strokes that are left out; the longest never is.
    pub drop: f32,
    /// How far a stroke is drawn from its place, in shares of the drawing's longer side.
    pub shift: f32,
    /// How unsteady the hand is: deviation of each point, in the same shares.
    pub wobble: f32,
    /// Share of bitmap sketches of which a patch is rubbed out.
    pub erase: f32,
    /// Greatest turn to either side, in degrees.
    pub turn: f32,
    /// Greatest change of width and of height, as a logarithm.
    pub stretch: f32,
    /// Greatest slant, in columns a row.
    pub slant: f32,
    /// Range of the margin around the ink, in shares of the longer side.
    pub margin: [f32; 2],
    /// Share of images that are mirrored.
    pub mirror: f32,
    /// Least share of a photo's area that is seen.
    pub crop: f32,
    /// Greatest change of brightness, and of contrast, of a photo.
    pub light: f32,
    /// Range of the blur before edges are looked for, in pixels of a photo whose longer side is 256.
    pub blur: [f32; 2],
    /// Range of the share of pixels whose gradient is too weak to begin an edge.
    pub faint: [f32; 2],
    /// Range of the length below which an edge is left out, in the same pixels.
    pub short: [f32; 2],
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            stroke: [1.5, 6.0],
            drop: 0.12,
            shift: 0.02,
            wobble: 0.004,
            erase: 0.3,
            turn: 15.0,
            stretch: 0.2,
            slant: 0.15,
            margin: [0.04, 0.16],
            mirror: 0.5,
            crop: 0.6,
            light: 0.2,
            blur: [1.2, 3.0],
            faint: [0.88, 0.95],
            short: [12.0, 36.0],
        }
    }
}

impl Augmentation {
    /// One view of an image.
    ///
    /// `bytes`: a picture file, or strokes as JSON. Returns `size` × `size` pixels, prepared as `manifest` says but for
    /// what varies: frame and stroke width. Equal `rng`, equal pixels.
    ///
    /// # Errors
    /// [`AugmentError`] if `bytes` are no such image, or show nothing.
    pub fn view(&self, bytes: &[u8], kind: Kind, manifest: &Manifest, rng: &mut Rng) -> Result<RgbImage, AugmentError> {
        let (limits, size) = (Limits::default(), manifest.input.size);
        match kind {
            Kind::Photo => {
                let photo = decode_image(bytes, &limits)?;
                Ok(manifest.photo.apply(&photo::vary(photo, self, rng), size))
            }
            Kind::PseudoSketch => {
                let edges = edges::trace(&decode_image(bytes, &limits)?, self, rng).ok_or(AugmentError::NoEdges)?;
                let style = SketchPreprocessing { clean_paper: false, ..self.style(&manifest.sketch, rng) };
                Ok(style.apply(&bitmap::vary(edges, self, rng), size)?)
            }
            Kind::Sketch => {
                let drawing = match Drawing::decode(bytes, &limits)? {
                    Drawing::Vector(drawing) => Drawing::Vector(vector::vary(&drawing, self, rng)),
                    Drawing::Bitmap(picture) => bitmap::vary(picture.into_luma8(), self, rng),
                };
                Ok(self.style(&manifest.sketch, rng).apply(&drawing, size)?)
            }
        }
    }

    /// The manifest's preprocessing with another pen and another margin.
    fn style(&self, usual: &SketchPreprocessing, rng: &mut Rng) -> SketchPreprocessing {
        let width = rng.log_uniform(self.stroke);
        let margin = rng.uniform(self.margin[0], self.margin[1]);
        let frame = match usual.frame {
            Frame::Whole => Frame::Whole,
            Frame::Ink { .. } => Frame::Ink { margin },
        };
        SketchPreprocessing {
            vector_stroke: width,
            bitmap_stroke: usual.bitmap_stroke.and(Some(width)),
            frame,
            ..usual.clone()
        }
    }

    /// A random linear map: `[[a, b], [c, d]]` takes `(x, y)` to `(ax + by, cx + dy)`.
    fn linear(&self, rng: &mut Rng) -> [[f32; 2]; 2] {
        let (sin, cos) = rng.uniform(-self.turn, self.turn).to_radians().sin_cos();
        let slant = rng.uniform(-self.slant, self.slant);
        let mirrored = if rng.chance(self.mirror) { -1.0 } else { 1.0 };
        let width = rng.uniform(-self.stretch, self.stretch).exp() * mirrored;
        let height = rng.uniform(-self.stretch, self.stretch).exp();
        [[cos * width, (cos * slant - sin) * height], [sin * width, (sin * slant + cos) * height]]
    }
}

/// The image without variation, as it is served.
///
/// # Errors
/// As [`Augmentation::view`].
pub fn plain_view(bytes: &[u8], kind: Kind, manifest: &Manifest) -> Result<RgbImage, AugmentError> {
    let (limits, size) = (Limits::default(), manifest.input.size);
    match kind {
        Kind::Photo => Ok(manifest.photo.apply(&decode_image(bytes, &limits)?, size)),
        _ => Ok(manifest.sketch.apply(&Drawing::decode(bytes, &limits)?, size)?),
    }
}

/// Random numbers that depend on nothing but the numbers that they are seeded with.
pub struct Rng(Xoshiro256PlusPlus);

impl Rng {
    /// `parts`: what the numbers are for, such as seed, image and view.
    pub fn new(parts: &[u64]) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(parts.iter().fold(0, |seed, &part| mix(seed ^ mix(part)))))
    }

    /// From `low` to `high`.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.share()
    }

    /// From 0 to below 1.
    pub fn share(&mut self) -> f32 {
        (self.0.next_u64() >> 40) as f32 / (1u64 << 24) as f32
    }

    pub fn chance(&mut self, probability: f32) -> bool {
        self.share() < probability
    }

    /// From 0 to below `count`, which is not 0.
    pub fn index(&mut self, count: usize) -> usize {
        ((u128::from(self.0.next_u64()) * count as u128) >> 64) as usize
    }

    /// With mean 0 and deviation 1.
    ///
    /// Source: Box, Muller, "A Note on the Generation of Random Normal Deviates", 1958.
    pub fn normal(&mut self) -> f32 {
        let (radius, angle) = (1.0 - self.share(), self.share() * std::f32::consts::TAU);
        (-2.0 * radius.ln()).sqrt() * angle.cos()
    }

    fn log_uniform(&mut self, [low, high]: [f32; 2]) -> f32 {
        self.uniform(low.ln(), high.ln()).exp()
    }
}

#[cfg(test)]
mod tests;
