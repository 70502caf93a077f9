//! Thumbnails of drawings and photos.

use image::{DynamicImage, RgbImage};
use sketch_model::limits::Limits;
use sketch_model::render::decode::{DecodeError, decode_image};
use sketch_model::render::drawing::{Drawing, DrawingError};
use sketch_model::render::preprocess::{Crop, PreprocessError, SketchPreprocessing};

/// Side of a picture in lists, in pixels.
pub const SIDE: u32 = 96;

/// Why a drawing has no thumbnail.
#[derive(Debug, thiserror::Error)]
pub enum ThumbnailError {
    #[error(transparent)]
    Drawing(#[from] DrawingError),
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
}

/// A drawing as it was sent; vector drawings are rendered at `side` pixels.
///
/// # Errors
/// [`ThumbnailError`] if the bytes are not a drawing, or blank.
pub fn drawing(bytes: &[u8], side: u32) -> Result<DynamicImage, ThumbnailError> {
    match Drawing::decode(bytes, &Limits::default())? {
        Drawing::Bitmap(picture) => Ok(picture),
        drawing @ Drawing::Vector(_) => {
            let style = SketchPreprocessing {
                frame: Crop::Ink { margin: 0.1 },
                // As wide, relative to the picture, as the network sees it.
                vector_stroke: side as f32 / 60.0,
                ..SketchPreprocessing::exact()
            };
            Ok(DynamicImage::ImageRgb8(style.apply(&drawing, side)?))
        }
    }
}

/// A photo at full size.
///
/// # Errors
/// [`DecodeError`] if the bytes are not a photo.
pub fn photo(bytes: &[u8]) -> Result<DynamicImage, DecodeError> {
    decode_image(bytes, &Limits::default())
}

/// Scales a picture to fit into a square of `side` pixels, with transparency over white.
pub fn fit(picture: &DynamicImage, side: u32) -> RgbImage {
    let small = picture.thumbnail(side, side).to_rgba8();
    let over_white = |pixel: &image::Rgba<u8>| {
        let [r, g, b, alpha] = pixel.0.map(u32::from);
        image::Rgb([r, g, b].map(|channel| ((channel * alpha + 255 * (255 - alpha)) / 255) as u8))
    };
    RgbImage::from_fn(small.width(), small.height(), |x, y| over_white(small.get_pixel(x, y)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgba, RgbaImage};

    #[test]
    fn pictures_fit_and_stand_on_white() {
        let picture = DynamicImage::ImageRgba8(RgbaImage::from_pixel(40, 20, Rgba([0, 0, 0, 0])));
        let small = fit(&picture, 10);
        assert_eq!(small.dimensions(), (10, 5));
        assert!(small.pixels().all(|pixel| pixel.0 == [255; 3]));
        assert!(drawing(b"[]", 10).is_err() && photo(b"no photo").is_err());
    }
}
