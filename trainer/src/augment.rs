//! Views: an image as another person might have drawn or taken it, the same for the same seed.
//!
//! A view goes through the preprocessing of the manifest, as an image does when the network is served. Drawings vary in
//! strokes, pen, slant and frame; photos in what part of them is seen, in light and colours; an edge map of a photo
//! passes for a sketch of it ([`Kind::PseudoSketch`]), so that photos without any drawing teach, too.

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

/// As what an image is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Sketch,
    Photo,
    /// The edges of a photo, drawn as lines.
    PseudoSketch,
}

impl Augmentation {
    /// One view of an image.
    ///
    /// `bytes`: a picture file, or strokes as JSON. The options are in range ([`Augmentation::is_in_range`]). Returns
    /// `manifest.input.size` pixels squared, prepared as `manifest` says but for what varies: frame, stroke width and
    /// fit. Equal `rng`, equal pixels.
    ///
    /// # Errors
    /// [`AugmentError`] if `bytes` are no such image, or show nothing.
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
    /// The manifest's preprocessing with another pen and another margin.
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

/// The image without variation, as it is served; of a pseudo-sketch, the edges of [`Augmentation::none`].
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

/// The image as it is served, seen in a mirror.
///
/// # Errors
/// As [`Augmentation::view`].
pub fn mirrored_view(bytes: &[u8], kind: Kind, manifest: &Manifest) -> Result<RgbImage, AugmentError> {
    Ok(imageops::flip_horizontal(&plain_view(bytes, kind, manifest)?))
}

/// The picture, transparency laid over white.
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
