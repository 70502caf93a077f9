//! Variants of drawings as users send them: different pens, paper, and place on the sheet.

use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageFormat, Luma};
use sketch_model::limits::Limits;
use sketch_model::render::drawing::{Drawing, DrawingError};
use sketch_model::render::preprocess::{Crop, PreprocessError, SketchPreprocessing};

use crate::metrics::mix;

/// Side of the sheet, in pixels: a small canvas in a web page.
const SHEET: u32 = 448;
/// Normal stroke width on the sheet; scaled to 224 pixels, it is the width of rendered vector drawings.
const STROKE: f32 = 6.0;

/// Why a variant could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VariantError {
    #[error(transparent)]
    Drawing(#[from] DrawingError),
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    #[error("could not encode a drawing as PNG")]
    Encode(#[from] image::ImageError),
}

/// What happens to a vector drawing before the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Nothing: it stays a vector drawing.
    Strokes,
    /// A bitmap with strokes of normal width.
    Bitmap,
    Thin,
    Thick,
    /// Like a photo of a pencil drawing: grey paper that darkens to one side, grain, pale ink.
    GreyPaper,
    /// A third of the size, in a corner.
    OffCentre,
    WhiteOnBlack,
}

impl Variant {
    /// All variants that are bitmaps.
    pub const BITMAPS: [Self; 6] =
        [Self::Bitmap, Self::Thin, Self::Thick, Self::GreyPaper, Self::OffCentre, Self::WhiteOnBlack];

    pub fn name(self) -> &'static str {
        match self {
            Self::Strokes => "strokes",
            Self::Bitmap => "bitmap",
            Self::Thin => "thin strokes",
            Self::Thick => "thick strokes",
            Self::GreyPaper => "grey paper",
            Self::OffCentre => "off centre",
            Self::WhiteOnBlack => "white on black",
        }
    }

    /// The variant of a vector drawing, encoded.
    ///
    /// `drawing`: strokes as JSON, or an SVG. Returns the same bytes for [`Variant::Strokes`], a PNG for all others.
    ///
    /// # Errors
    /// [`VariantError`] if `drawing` is not a drawing, or blank.
    pub fn apply(self, drawing: &[u8]) -> Result<Vec<u8>, VariantError> {
        let sheet = match self {
            Self::Strokes => return Ok(drawing.to_vec()),
            Self::Bitmap => draw(drawing, SHEET, STROKE)?,
            Self::Thin => draw(drawing, SHEET, STROKE / 4.0)?,
            Self::Thick => draw(drawing, SHEET, STROKE * 3.0)?,
            Self::GreyPaper => on_grey_paper(&draw(drawing, SHEET, STROKE)?),
            Self::OffCentre => in_a_corner(&draw(drawing, SHEET / 3, STROKE / 3.0)?),
            Self::WhiteOnBlack => {
                let mut sheet = draw(drawing, SHEET, STROKE)?;
                image::imageops::invert(&mut sheet);
                sheet
            }
        };
        let mut png = Cursor::new(Vec::new());
        sheet.write_to(&mut png, ImageFormat::Png)?;
        Ok(png.into_inner())
    }
}

fn draw(drawing: &[u8], side: u32, stroke: f32) -> Result<GrayImage, VariantError> {
    let drawing = Drawing::decode(drawing, &Limits::default())?;
    let style =
        SketchPreprocessing { frame: Crop::Ink { margin: 0.1 }, vector_stroke: stroke, ..SketchPreprocessing::exact() };
    Ok(DynamicImage::ImageRgb8(style.apply(&drawing, side)?).into_luma8())
}

fn on_grey_paper(sheet: &GrayImage) -> GrayImage {
    GrayImage::from_fn(sheet.width(), sheet.height(), |x, y| {
        let paper = 210.0 - 60.0 * (x + y) as f32 / (sheet.width() + sheet.height()) as f32;
        let ink = 1.0 - f32::from(sheet.get_pixel(x, y).0[0]) / 255.0;
        let grain = (mix(u64::from(y) << 32 | u64::from(x)) % 17) as f32 - 8.0;
        Luma([(paper - 90.0 * ink + grain).clamp(0.0, 255.0) as u8])
    })
}

fn in_a_corner(small: &GrayImage) -> GrayImage {
    let mut sheet = GrayImage::from_pixel(SHEET, SHEET, Luma([255]));
    let (left, top) = (SHEET - small.width() - SHEET / 20, SHEET / 20);
    image::imageops::replace(&mut sheet, small, left.into(), top.into());
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    const CROSS: &[u8] = b"[[[0,100],[0,100]],[[0,100],[100,0]]]";

    fn ink(variant: Variant) -> f64 {
        let png = variant.apply(CROSS).unwrap();
        let sheet = image::load_from_memory(&png).unwrap().into_luma8();
        assert_eq!(sheet.dimensions(), (SHEET, SHEET));
        sheet.pixels().map(|pixel| 1.0 - f64::from(pixel.0[0]) / 255.0).sum::<f64>() / f64::from(SHEET * SHEET)
    }

    #[test]
    fn variants_are_what_they_are_called() {
        assert_eq!(Variant::Strokes.apply(CROSS).unwrap(), CROSS);
        let usual = ink(Variant::Bitmap);
        assert!((0.2..0.3).contains(&(ink(Variant::Thin) / usual)));
        assert!((2.5..3.2).contains(&(ink(Variant::Thick) / usual)));
        assert!((0.08..0.14).contains(&(ink(Variant::OffCentre) / usual)));
        assert!((ink(Variant::WhiteOnBlack) - (1.0 - usual)).abs() < 1e-6);
        assert!((0.25..0.45).contains(&ink(Variant::GreyPaper)));
        assert!(matches!(Variant::Thin.apply(b"[]"), Err(VariantError::Drawing(_))));
    }
}
