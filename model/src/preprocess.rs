//! What a drawing or a photo becomes before the network sees it.
//!
//! Every step is a field, and the fields live in the manifest of a model, so that training, evaluation and
//! serving do the same. What each step is worth: docs/preprocessing.md.

use image::{DynamicImage, GrayImage, Rgb, RgbImage};
use serde::{Deserialize, Serialize};

use crate::drawing::{Drawing, VectorDrawing};
use crate::ink::{self, Levels, PixelBox};
use crate::raster::{self, Layout, NotDrawn};
use crate::resize::{self, Filter, Region};

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

/// Grey levels that ink must stand out from paper: the noise of a JPEG of an empty sheet stays below.
const MIN_CONTRAST: u8 = 24;

/// Ink counts from a quarter of full darkness on: a pen line reduced to less than a pixel still shows.
const INK_THRESHOLD: u8 = 192;

/// How a drawing is prepared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SketchPreprocessing {
    /// Whether light ink on dark paper is turned over.
    pub polarity: Polarity,
    /// What becomes of colours.
    pub colours: Colours,
    /// Whether paper is brought to white and ink to black.
    pub stretch_contrast: bool,
    /// What part of the drawing is shown.
    pub frame: Frame,
    /// Width of the strokes of vector drawings, in pixels of the network's input.
    pub vector_stroke: f32,
    pub filter: Filter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Polarity {
    Keep,
    DarkOnLight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Colours {
    Keep,
    /// Grey by the darkest of the three channels, so that red, blue and yellow ink are all black.
    Darkest,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Frame {
    /// The whole sheet, width and height each scaled to the input.
    Whole,
    /// The ink in the middle of a white square, with `margin` of its longer side blank on each side.
    Ink { margin: f32 },
}

impl SketchPreprocessing {
    /// What retrieves best over the validation classes, see docs/preprocessing.md.
    pub fn best() -> Self {
        Self {
            polarity: Polarity::DarkOnLight,
            colours: Colours::Darkest,
            stretch_contrast: true,
            frame: Frame::Ink { margin: 0.1 },
            vector_stroke: 3.0,
            filter: Filter::Triangle,
        }
    }

    /// What the paper did: the whole picture is resized to the input, nothing else.
    pub fn exact() -> Self {
        Self {
            polarity: Polarity::Keep,
            colours: Colours::Keep,
            stretch_contrast: false,
            frame: Frame::Whole,
            vector_stroke: 3.0,
            filter: Filter::Triangle,
        }
    }

    /// Makes the picture that the network sees: `size` x `size` pixels, dark ink on white paper.
    ///
    /// # Errors
    /// [`PreprocessError::Blank`] if nothing is drawn.
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
                Frame::Whole => None,
                Frame::Ink { margin } => Some(margin),
            },
            turn_over: self.polarity == Polarity::DarkOnLight,
        };
        let rgb = raster::draw(drawing, &layout).map_err(|reason| match reason {
            NotDrawn::Blank => PreprocessError::Blank,
            NotDrawn::TooMuchPaint => PreprocessError::TooComplex,
        })?;
        let mut sheet = Sheet::new(rgb, self.colours);
        check_not_blank(&sheet)?;
        if self.stretch_contrast {
            sheet.stretch_contrast();
        }
        Ok(sheet.into_rgb())
    }

    fn bitmap(&self, picture: &DynamicImage, size: u32) -> Result<RgbImage, PreprocessError> {
        let mut rgb = reduce(picture, size * WORKING_SCALE, self.filter);
        if self.polarity == Polarity::DarkOnLight && ink::is_light_on_dark(&luma(&rgb)) {
            image::imageops::invert(&mut rgb);
        }
        let mut sheet = Sheet::new(rgb, self.colours);
        check_not_blank(&sheet)?;
        if self.stretch_contrast {
            sheet.stretch_contrast();
        }
        if let Frame::Ink { margin } = self.frame {
            let ink = ink::ink_box(sheet.analysed(), INK_THRESHOLD).ok_or(PreprocessError::Blank)?;
            if ink.right - ink.left <= 1 && ink.bottom - ink.top <= 1 {
                return Err(PreprocessError::Blank);
            }
            sheet = sheet.framed(ink, margin);
        }
        Ok(sheet.resized(size, self.filter).into_rgb())
    }
}

/// Reduces `picture`, transparency laid over white, until its longer side is at most `longest`.
///
/// White ink on a transparent ground would vanish on white; it is laid over black instead.
fn reduce(picture: &DynamicImage, longest: u32, filter: Filter) -> RgbImage {
    let (width, height) = (picture.width(), picture.height());
    let scale = (f64::from(longest) / f64::from(width.max(height).max(1))).min(1.0);
    let reduced = |extent: u32| ((f64::from(extent) * scale).round() as u32).max(1);
    let region = Region::whole(width, height);
    let over = |paper| resize::picture(picture, region, reduced(width), reduced(height), filter, paper);
    let on_white = over([255; 3]);
    if picture.color().has_alpha() && is_constant(&luma(&on_white)) {
        return over([0; 3]);
    }
    on_white
}

fn is_constant(grey: &GrayImage) -> bool {
    let (low, high) = grey.as_raw().iter().fold((255, 0), |(low, high), &value| (value.min(low), value.max(high)));
    high < low || high - low < MIN_CONTRAST
}

fn check_not_blank(sheet: &Sheet) -> Result<(), PreprocessError> {
    if is_constant(sheet.analysed()) {
        return Err(PreprocessError::Blank);
    }
    Ok(())
}

/// Source: ITU-R BT.601, in 1/256.
fn luma(rgb: &RgbImage) -> GrayImage {
    grey_by(rgb, |[red, green, blue]| {
        ((77 * u32::from(red) + 150 * u32::from(green) + 29 * u32::from(blue) + 128) >> 8) as u8
    })
}

fn grey_by(rgb: &RgbImage, value: impl Fn([u8; 3]) -> u8) -> GrayImage {
    let values = rgb.pixels().map(|pixel| value(pixel.0)).collect();
    GrayImage::from_raw(rgb.width(), rgb.height(), values).unwrap_or_default()
}

/// A drawing under work: one grey plane, or three colour planes that are all treated alike.
struct Sheet {
    planes: Vec<GrayImage>,
    /// Brightness, if there are three planes.
    luma: Option<GrayImage>,
}

impl Sheet {
    fn new(rgb: RgbImage, colours: Colours) -> Self {
        match colours {
            Colours::Darkest => Self {
                planes: vec![grey_by(&rgb, |channels| channels[0].min(channels[1]).min(channels[2]))],
                luma: None,
            },
            Colours::Keep => Self {
                planes: (0..3).map(|channel| grey_by(&rgb, |channels| channels[channel])).collect(),
                luma: Some(luma(&rgb)),
            },
        }
    }

    /// The plane in which ink is looked for.
    fn analysed(&self) -> &GrayImage {
        self.luma.as_ref().unwrap_or(&self.planes[0])
    }

    fn map(self, change: impl Fn(&GrayImage) -> GrayImage) -> Self {
        Self { planes: self.planes.iter().map(&change).collect(), luma: self.luma.as_ref().map(&change) }
    }

    fn stretch_contrast(&mut self) {
        let levels = Levels::of(self.analysed());
        for plane in self.planes.iter_mut().chain(self.luma.as_mut()) {
            levels.stretch(plane);
        }
    }

    fn framed(self, ink: PixelBox, margin: f32) -> Self {
        self.map(|plane| framed(plane, ink, margin))
    }

    fn resized(self, size: u32, filter: Filter) -> Self {
        self.map(|plane| resize::grey(plane, size, size, filter))
    }

    fn into_rgb(self) -> RgbImage {
        let (width, height) = self.planes[0].dimensions();
        let plane = |channel: usize| self.planes[channel.min(self.planes.len() - 1)].as_raw();
        let (red, green, blue) = (plane(0), plane(1), plane(2));
        let values = (0..red.len()).flat_map(|at| [red[at], green[at], blue[at]]).collect();
        RgbImage::from_raw(width, height, values).unwrap_or_default()
    }
}

/// Puts the pixels of `ink`, and what lies around it on the sheet, in the middle of a white square.
fn framed(plane: &GrayImage, ink: PixelBox, margin: f32) -> GrayImage {
    let (width, height) = (ink.right - ink.left, ink.bottom - ink.top);
    let longest = width.max(height);
    let side = longest + 2 * (longest as f32 * margin).round() as u32;
    let mut square = GrayImage::from_pixel(side, side, image::Luma([255]));
    let (left, top) = ((side - width) / 2, (side - height) / 2);
    for y in 0..height {
        for x in 0..width {
            square.put_pixel(left + x, top + y, *plane.get_pixel(ink.left + x, ink.top + y));
        }
    }
    square
}

/// How a photo is prepared.
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
    /// What retrieves best over the validation classes, see docs/preprocessing.md.
    pub fn best() -> Self {
        Self { fit: Fit::Squash, filter: Filter::Triangle }
    }

    /// What the paper did: the whole photo is resized to the input.
    pub fn exact() -> Self {
        Self { fit: Fit::Squash, filter: Filter::Triangle }
    }

    /// Makes the picture that the network sees: `size` x `size` pixels, transparency laid over white.
    pub fn apply(&self, photo: &DynamicImage, size: u32) -> RgbImage {
        const PAPER: [u8; 3] = [255; 3];
        let (width, height) = (photo.width(), photo.height());
        let whole = Region::whole(width, height);
        match self.fit {
            Fit::Squash => resize::picture(photo, whole, size, size, self.filter, PAPER),
            Fit::CentreCrop => {
                let side = whole.width.min(whole.height);
                let centre = Region {
                    left: (whole.width - side) / 2.0,
                    top: (whole.height - side) / 2.0,
                    width: side,
                    height: side,
                };
                resize::picture(photo, centre, size, size, self.filter, PAPER)
            }
            Fit::Pad { colour } => {
                let scale = f64::from(size) / whole.width.max(whole.height).max(1.0);
                let scaled = |extent: f64| ((extent * scale).round() as u32).clamp(1, size);
                let (width, height) = (scaled(whole.width), scaled(whole.height));
                let inner = resize::picture(photo, whole, width, height, self.filter, PAPER);
                let mut square = RgbImage::from_pixel(size, size, Rgb(colour));
                let (left, top) = ((size - width) / 2, (size - height) / 2);
                image::imageops::replace(&mut square, &inner, left.into(), top.into());
                square
            }
        }
    }
}
