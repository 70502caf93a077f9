//! Data augmentation: views of images, deterministic for a seed.
//!
//! A view goes through the preprocessing of the manifest, as when serving. Drawings vary in strokes, pen, slant and frame;
//! photos in crop, light and colours. The edges of a photo can stand in for a sketch of it ([`Kind::PseudoSketch`]), so that
//! photos without drawings can be used, too.

mod affine;
mod bitmap;
mod edges;
mod hand;
mod options;
mod photo;
mod rng;
mod trace;
mod vector;

use image::imageops;
use image::{DynamicImage, RgbImage, Rgba, RgbaImage};
use sketch_model::limits::Limits;
use sketch_model::manifest::Manifest;
use sketch_model::render::decode::{DecodeError, decode_image};
use sketch_model::render::drawing::{Drawing, DrawingError};
use sketch_model::render::preprocess::{Crop, PreprocessError, SketchPreprocessing};

pub use options::{Augmentation, EdgeOptions, PhotoOptions, SketchOptions};
pub use rng::Rng;

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

/// What a view shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Sketch,
    Photo,
    /// The edges of a photo, drawn as lines.
    PseudoSketch,
}

impl Augmentation {
    /// One view of an image.
    ///
    /// `bytes`: an image file, or strokes as JSON. The options must be in range ([`Augmentation::is_in_range`]). Returns
    /// `manifest.input.size` pixels squared, prepared as `manifest` says, with varied frame, stroke width and fit. The same `rng`
    /// gives the same pixels.
    ///
    /// # Errors
    /// [`AugmentError`] if `bytes` are not such an image, or blank.
    pub fn view(&self, bytes: &[u8], kind: Kind, manifest: &Manifest, rng: &mut Rng) -> Result<RgbImage, AugmentError> {
        let (limits, size) = (Limits::default(), manifest.input.size);
        let drawing = match kind {
            Kind::Photo => {
                let photo = photo::vary(decode_image(bytes, &limits)?, self, rng);
                return Ok(photo::style(&manifest.photo, &self.photo, rng).apply(&photo, size));
            }
            Kind::PseudoSketch => {
                let edges = edges::trace(decode_image(bytes, &limits)?, &self.edges, rng);
                Drawing::Vector(vector::vary(&edges.ok_or(AugmentError::NoEdges)?, self, rng))
            }
            Kind::Sketch => match Drawing::decode(bytes, &limits)? {
                Drawing::Vector(drawing) => Drawing::Vector(vector::vary(&drawing, self, rng)),
                Drawing::Bitmap(picture) => Drawing::Bitmap(bitmap::vary(picture, self, rng)),
            },
        };
        Ok(self.sketch.style(&manifest.sketch, rng).apply(&drawing, size)?)
    }
}

impl SketchOptions {
    /// The manifest's preprocessing with a varied pen and margin.
    fn style(&self, usual: &SketchPreprocessing, rng: &mut Rng) -> SketchPreprocessing {
        let width = (self.stroke[0] > 0.0).then(|| rng.log_uniform(self.stroke));
        let change = rng.within(self.margin);
        let frame = match usual.frame {
            Crop::Whole => Crop::Whole,
            Crop::Ink { margin } => Crop::Ink { margin: (margin + change).max(0.0) },
        };
        SketchPreprocessing {
            vector_stroke: width.unwrap_or(usual.vector_stroke),
            bitmap_stroke: usual.bitmap_stroke.map(|usual| width.unwrap_or(usual)),
            frame,
            ..usual.clone()
        }
    }
}

/// The image without augmentation, as when serving; for a pseudo-sketch, the edges of [`Augmentation::none`].
///
/// # Errors
/// As [`Augmentation::view`].
pub fn plain_view(bytes: &[u8], kind: Kind, manifest: &Manifest) -> Result<RgbImage, AugmentError> {
    let (limits, size) = (Limits::default(), manifest.input.size);
    match kind {
        Kind::Photo => Ok(manifest.photo.apply(&decode_image(bytes, &limits)?, size)),
        Kind::Sketch => Ok(manifest.sketch.apply(&Drawing::decode(bytes, &limits)?, size)?),
        Kind::PseudoSketch => Augmentation::none().view(bytes, kind, manifest, &mut Rng::new(&[])),
    }
}

/// The mirrored image, otherwise as when serving.
///
/// # Errors
/// As [`Augmentation::view`].
pub fn mirrored_view(bytes: &[u8], kind: Kind, manifest: &Manifest) -> Result<RgbImage, AugmentError> {
    Ok(imageops::flip_horizontal(&plain_view(bytes, kind, manifest)?))
}

/// The picture with transparency over white.
fn opaque(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let mut paper = RgbaImage::from_pixel(picture.width(), picture.height(), Rgba([255; 4]));
    imageops::overlay(&mut paper, &picture.into_rgba8(), 0, 0);
    DynamicImage::ImageRgba8(paper).into_rgb8()
}

#[cfg(test)]
mod tests;
