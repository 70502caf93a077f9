//! Drawings of the `val` classes, original and altered as users might send them.

use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage, imageops};
use sketch_model::limits::Limits;
use sketch_model::render::drawing::Drawing;
use sketch_model::render::preprocess::{Crop, SketchPreprocessing};
use sketch_trainer::data::{Item, QUICKDRAW, SKETCHY_SKETCHES};
use sketch_trainer::features::{FeatureError, Image};
use sketch_trainer::metrics::mix;

/// A set of queries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Queries {
    /// Unchanged images of any kind.
    Same,
    /// Sketches of Sketchy.
    Sketches,
    /// Drawings of QuickDraw, as strokes.
    Doodles,
    /// Sketches, altered.
    Altered(Alteration),
    /// Doodles as PNG of 448 pixels, with strokes of this width.
    Pen(f32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Alteration {
    WhiteOnBlack,
    /// Black ink on a transparent ground.
    Transparent,
    /// White ink on a transparent ground.
    TransparentWhite,
    Yellow,
    /// In the corner of a sheet of three times the size.
    Corner,
    /// All ink one pixel wider on each side, at 256 pixels.
    Thick,
    /// A photo of pencil on paper: shade, grain, a dark table at one side, JPEG.
    Pencil,
}

impl Queries {
    pub fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Sketches => "val",
            Self::Doodles => "val-doodle",
            Self::Pen(width) if width < 3.0 => "doodle, fine pen",
            Self::Pen(width) if width < 9.0 => "doodle, pen",
            Self::Pen(_) => "doodle, broad pen",
            Self::Altered(alteration) => match alteration {
                Alteration::WhiteOnBlack => "white on black",
                Alteration::Transparent => "transparent",
                Alteration::TransparentWhite => "transparent, white ink",
                Alteration::Yellow => "yellow ink",
                Alteration::Corner => "in a corner",
                Alteration::Thick => "thick",
                Alteration::Pencil => "pencil photo",
            },
        }
    }

    pub fn collection(self) -> &'static str {
        match self {
            Self::Doodles | Self::Pen(_) => QUICKDRAW,
            Self::Same | Self::Sketches | Self::Altered(_) => SKETCHY_SKETCHES,
        }
    }

    /// The item, altered and encoded.
    pub fn image(self, item: &Item) -> Result<Image, FeatureError> {
        let mut image = Image::of(item)?;
        match self {
            Self::Same | Self::Sketches | Self::Doodles => {}
            Self::Pen(width) => image.bytes = png(&draw(&image.bytes, width)),
            Self::Altered(alteration) => image.bytes = alteration.apply(&image.bytes),
        }
        Ok(image)
    }
}

fn draw(strokes: &[u8], width: f32) -> DynamicImage {
    const SHEET: u32 = 448;
    let pen =
        SketchPreprocessing { frame: Crop::Ink { margin: 0.1 }, vector_stroke: width, ..SketchPreprocessing::exact() };
    let drawing = Drawing::decode(strokes, &Limits::default()).expect("a drawing of the data set");
    DynamicImage::ImageRgb8(pen.apply(&drawing, SHEET).expect("a drawing of the data set"))
}

fn encode(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("memory");
    bytes.into_inner()
}

fn png(picture: &DynamicImage) -> Vec<u8> {
    encode(picture, ImageFormat::Png)
}

impl Alteration {
    fn apply(self, bytes: &[u8]) -> Vec<u8> {
        let sketch = image::load_from_memory(bytes).expect("a sketch of the data set").into_luma8();
        let (width, height) = sketch.dimensions();
        let ink = |x, y| 255 - sketch.get_pixel(x, y).0[0];
        match self {
            Self::WhiteOnBlack => png(&GrayImage::from_fn(width, height, |x, y| Luma([ink(x, y)])).into()),
            Self::Transparent => png(&RgbaImage::from_fn(width, height, |x, y| Rgba([0, 0, 0, ink(x, y)])).into()),
            Self::TransparentWhite => {
                png(&RgbaImage::from_fn(width, height, |x, y| Rgba([255, 255, 255, ink(x, y)])).into())
            }
            Self::Yellow => {
                png(&RgbImage::from_fn(width, height, |x, y| Rgb([255, 255 - ink(x, y) / 6, 255 - ink(x, y)])).into())
            }
            Self::Corner => {
                let mut sheet = GrayImage::from_pixel(3 * width, 3 * height, Luma([255]));
                imageops::replace(&mut sheet, &sketch, i64::from(2 * width) - 20, 20);
                png(&sheet.into())
            }
            Self::Thick => png(&GrayImage::from_fn(width, height, |x, y| Luma([darkest_around(&sketch, x, y)])).into()),
            Self::Pencil => encode(&pencil(&sketch).into(), ImageFormat::Jpeg),
        }
    }
}

fn darkest_around(sketch: &GrayImage, x: u32, y: u32) -> u8 {
    let range = |at: u32, end: u32| at.saturating_sub(1)..(at + 2).min(end);
    let rows = range(y, sketch.height());
    rows.flat_map(|y| range(x, sketch.width()).map(move |x| sketch.get_pixel(x, y).0[0])).min().unwrap_or(255)
}

fn pencil(sketch: &GrayImage) -> RgbImage {
    const SIDE: u32 = 800;
    const TABLE: u32 = 60;
    let large = imageops::resize(sketch, SIDE, SIDE, imageops::FilterType::CatmullRom);
    RgbImage::from_fn(SIDE + TABLE, SIDE, |x, y| {
        let grain = (mix(u64::from(y) << 32 | u64::from(x)) % 21) as f32 - 10.0;
        let light = 1.0 - 0.35 * (x + y) as f32 / (2 * SIDE) as f32;
        if x >= SIDE {
            return Rgb([60.0, 40.0, 30.0].map(|value: f32| (value + grain).clamp(0.0, 255.0) as u8));
        }
        let ink = 1.0 - f32::from(large.get_pixel(x, y).0[0]) / 255.0;
        Rgb([225.0, 220.0, 205.0]
            .map(|paper: f32| (paper * light * (1.0 - 0.45 * ink) + grain).clamp(0.0, 255.0) as u8))
    })
}
