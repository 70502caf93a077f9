//! Preprocessing of drawings and photos for the network.
//!
//! Every step is a field of the model's manifest, so that training, evaluation and serving do the same. For the effect
//! of each step see docs/preprocessing.md.

use std::borrow::Cow;

use image::metadata::Orientation;
use image::{DynamicImage, Rgb, RgbImage};
use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::render::decode::{DecodeError, Photo, decode_photo};
use crate::render::drawing::Drawing;
use crate::render::ink;
use crate::render::raster::{self, Layout, NotDrawn};
use crate::render::resize::{self, Filter, Region};
pub use crate::render::sheet::Colours;
use crate::render::sheet::{self, Sheet};
use crate::render::thickness;
use crate::render::vector::VectorDrawing;

/// Why a drawing cannot be shown to the network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PreprocessError {
    /// Nothing stands out from the paper, or all ink is one dot.
    #[error("drawing is blank")]
    Blank,
    #[error("drawing has too many large shapes")]
    TooComplex,
}

/// Bitmaps are reduced to this many times the network's input before anything else is done with them:
/// enough that a stroke of the target width is some 8 pixels wide, and a bound on memory and time.
const WORKING_SCALE: u32 = 4;

/// Ink wider than this, in pixels of the network's input, is no stroke but a filled area.
const WIDEST_STROKE: f32 = 16.0;

/// Ink counts from a quarter of full darkness on: a pen line reduced to less than a pixel still shows.
const INK_THRESHOLD: u8 = 192;

/// Preprocessing of drawings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SketchPreprocessing {
    /// Whether light ink on dark paper is inverted.
    pub polarity: Polarity,
    pub colours: Colours,
    /// Whether shadows and the surroundings of the sheet are removed from the photo of a drawing.
    #[serde(default)]
    pub clean_paper: bool,
    /// Whether paper is mapped to white and ink to black.
    pub stretch_contrast: bool,
    /// What part of the drawing is shown.
    pub frame: Crop,
    /// Width of the strokes of vector drawings, in pixels of the network's input.
    pub vector_stroke: f32,
    /// Width that the usual stroke of a bitmap is widened or narrowed to, in the same pixels; `None` leaves it.
    #[serde(default)]
    pub bitmap_stroke: Option<f32>,
    pub filter: Filter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Polarity {
    Keep,
    DarkOnLight,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Crop {
    /// The whole sheet, width and height each scaled to the input.
    Whole,
    /// The ink in the middle of a white square, with `margin` of its longer side blank on each side.
    Ink { margin: f32 },
}

impl SketchPreprocessing {
    /// The default, which docs/preprocessing.md explains.
    pub fn best() -> Self {
        Self {
            polarity: Polarity::DarkOnLight,
            colours: Colours::Darkest,
            clean_paper: true,
            stretch_contrast: true,
            frame: Crop::Ink { margin: 0.1 },
            vector_stroke: 3.0,
            bitmap_stroke: Some(2.5),
            filter: Filter::Triangle,
        }
    }

    /// As in the paper: the whole picture is resized to the input, nothing else.
    pub fn exact() -> Self {
        Self {
            polarity: Polarity::Keep,
            colours: Colours::Keep,
            clean_paper: false,
            stretch_contrast: false,
            frame: Crop::Whole,
            vector_stroke: 3.0,
            bitmap_stroke: None,
            filter: Filter::Triangle,
        }
    }

    /// Whether all sizes are in range.
    pub fn is_in_range(&self) -> bool {
        const LARGEST_MARGIN: f32 = 2.0;
        const STROKES: std::ops::RangeInclusive<f32> = 0.1..=64.0;
        let margin = match self.frame {
            Crop::Whole => 0.0,
            Crop::Ink { margin } => margin,
        };
        (0.0..=LARGEST_MARGIN).contains(&margin)
            && STROKES.contains(&self.vector_stroke)
            && self.bitmap_stroke.is_none_or(|width| STROKES.contains(&width))
    }

    /// Returns the network's input: `size` x `size` pixels, dark ink on white paper.
    ///
    /// The sizes must be in range.
    ///
    /// # Errors
    /// [`PreprocessError::Blank`] if nothing is drawn, [`PreprocessError::TooComplex`] for an SVG whose shapes cover the
    /// picture thousands of times.
    pub fn apply(&self, drawing: &Drawing, size: u32) -> Result<RgbImage, PreprocessError> {
        match drawing {
            Drawing::Bitmap(picture) => self.bitmap(picture, size),
            Drawing::Vector(drawing) => self.vector(drawing, size),
        }
    }

    fn vector(&self, drawing: &VectorDrawing, size: u32) -> Result<RgbImage, PreprocessError> {
        let layout = Layout {
            size,
            stroke: self.vector_stroke,
            margin: match self.frame {
                Crop::Whole => None,
                Crop::Ink { margin } => Some(margin),
            },
            turn_over: self.polarity == Polarity::DarkOnLight,
        };
        let rgb = raster::draw(drawing, &layout).map_err(|reason| match reason {
            NotDrawn::Blank => PreprocessError::Blank,
            NotDrawn::TooMuchPaint => PreprocessError::TooComplex,
        })?;
        let mut sheet = Sheet::new(rgb, self.colours);
        self.check_not_blank(&sheet)?;
        if self.stretch_contrast {
            sheet.stretch_contrast();
        }
        Ok(sheet.into_rgb())
    }

    fn bitmap(&self, picture: &DynamicImage, size: u32) -> Result<RgbImage, PreprocessError> {
        let mut rgb = match self.frame {
            Crop::Whole => sheet::over_paper(picture, size, size, self.filter),
            Crop::Ink { .. } => sheet::reduce(picture, size * WORKING_SCALE, self.filter),
        };
        if self.polarity == Polarity::DarkOnLight && ink::is_light_on_dark(&sheet::luma(&rgb)) {
            image::imageops::invert(&mut rgb);
        }
        let mut sheet = Sheet::new(rgb, self.colours);
        if self.clean_paper {
            sheet.clean_paper();
        }
        self.check_not_blank(&sheet)?;
        if self.stretch_contrast {
            sheet.stretch_contrast();
        }
        if let Crop::Ink { margin } = self.frame {
            let ink = ink::ink_box(sheet.analysed(), INK_THRESHOLD).ok_or(PreprocessError::Blank)?;
            if ink.right - ink.left <= 1 && ink.bottom - ink.top <= 1 {
                return Err(PreprocessError::Blank);
            }
            sheet = sheet.framed(ink, margin);
        }
        Ok(self.with_stroke(sheet, size).resized(size, self.filter).into_rgb())
    }

    fn check_not_blank(&self, sheet: &Sheet) -> Result<(), PreprocessError> {
        // Faint ink is distinguished from grain only where ink is known to be darker.
        let is_faint = self.polarity == Polarity::DarkOnLight && !sheet.has_ink();
        if is_faint || sheet::is_constant(sheet.analysed()) { Err(PreprocessError::Blank) } else { Ok(()) }
    }

    /// Brings the strokes of a grey sheet to the target width, at twice the size of the input.
    fn with_stroke(&self, sheet: Sheet, size: u32) -> Sheet {
        const SCALE: u32 = 2;
        let (Some(width), Some(_)) = (self.bitmap_stroke, sheet.grey()) else { return sheet };
        let sheet = sheet.resized(SCALE * size, self.filter);
        let in_pixels = |width: f32| SCALE as f32 * width;
        let shift = |plane| thickness::shift(plane, 128, in_pixels(width), in_pixels(WIDEST_STROKE));
        sheet.grey().and_then(shift).map(Sheet::of_grey).unwrap_or(sheet)
    }
}

/// A photo is decoded at a size that is at least so many times that of the network's input.
const SLACK: f64 = 1.4;

/// Preprocessing of photos.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhotoPreprocessing {
    pub fit: Fit,
    pub filter: Filter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fit {
    /// Width and height each scaled to the input.
    Squash,
    /// The largest square in the middle.
    CentreCrop,
    /// The whole photo in the middle of a square of this colour.
    Pad { colour: [u8; 3] },
}

impl PhotoPreprocessing {
    /// The default, which docs/preprocessing.md explains.
    pub fn best() -> Self {
        Self { fit: Fit::Squash, filter: Filter::Triangle }
    }

    /// As in the paper: the whole photo is resized to the input.
    pub fn exact() -> Self {
        Self { fit: Fit::Squash, filter: Filter::Triangle }
    }

    /// Decodes a photo, no larger than it is needed, and returns the network's input: `size` x `size` pixels, transparency
    /// laid over white.
    ///
    /// # Errors
    /// Those of [`decode_image`](crate::render::decode::decode_image).
    pub fn render(&self, bytes: &[u8], limits: &Limits, size: u32) -> Result<RgbImage, DecodeError> {
        let most = |width, height| self.reduction(width, height, size) / SLACK;
        Ok(self.fitted(&decode_photo(bytes, limits, most)?, size))
    }

    /// Returns the network's input of a photo that was decoded as a whole.
    pub fn apply(&self, photo: &DynamicImage, size: u32) -> RgbImage {
        let region = Region::whole(photo.width(), photo.height());
        self.fitted(&Photo { picture: Cow::Borrowed(photo), region, orientation: Orientation::NoTransforms }, size)
    }

    /// How many pixels of a photo become one, along the side where they are fewer.
    fn reduction(&self, width: u32, height: u32, size: u32) -> f64 {
        let side = match self.fit {
            Fit::Squash | Fit::CentreCrop => width.min(height),
            Fit::Pad { .. } => width.max(height),
        };
        f64::from(side) / f64::from(size)
    }

    fn fitted(&self, photo: &Photo, size: u32) -> RgbImage {
        const PAPER: [u8; 3] = [255; 3];
        // A small picture is turned faster than a large one.
        let resized = |region, width, height| {
            let mut resized = resize::picture(&photo.picture, region, width, height, self.filter, PAPER).into();
            DynamicImage::apply_orientation(&mut resized, photo.orientation);
            resized.into_rgb8()
        };
        let whole = photo.region;
        match self.fit {
            Fit::Squash => resized(whole, size, size),
            Fit::CentreCrop => {
                let side = whole.width.min(whole.height);
                let centre = Region {
                    left: (whole.width - side) / 2.0,
                    top: (whole.height - side) / 2.0,
                    width: side,
                    height: side,
                };
                resized(centre, size, size)
            }
            Fit::Pad { colour } => {
                let scale = f64::from(size) / whole.width.max(whole.height).max(1.0);
                let scaled = |extent: f64| ((extent * scale).round() as u32).clamp(1, size);
                let inner = resized(whole, scaled(whole.width), scaled(whole.height));
                let mut square = RgbImage::from_pixel(size, size, Rgb(colour));
                let (left, top) = ((size - inner.width()) / 2, (size - inner.height()) / 2);
                image::imageops::replace(&mut square, &inner, left.into(), top.into());
                square
            }
        }
    }
}
