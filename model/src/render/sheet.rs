//! A drawing as pixels, between the user's picture and the network's input.

use image::{DynamicImage, GrayImage, RgbImage};
use serde::{Deserialize, Serialize};

use crate::render::ink::{Levels, PixelBox};
use crate::render::paper;
use crate::render::resize::{self, Filter, Region};

/// How colours are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Colours {
    Keep,
    /// Grey by the darkest of the three channels, so that red, blue and yellow ink are all black.
    Darkest,
}

/// Grey levels that ink must stand out from paper: the noise of a JPEG of an empty sheet stays below.
const MIN_CONTRAST: u8 = 24;

/// Reduces `picture` until its longer side is at most `longest`.
pub(crate) fn reduce(picture: &DynamicImage, longest: u32, filter: Filter) -> RgbImage {
    let (width, height) = (picture.width(), picture.height());
    let scale = (f64::from(longest) / f64::from(width.max(height).max(1))).min(1.0);
    let reduced = |extent: u32| ((f64::from(extent) * scale).round() as u32).max(1);
    over_paper(picture, reduced(width), reduced(height), filter)
}

/// Resizes `picture`, transparency laid over white.
///
/// White ink on a transparent ground would vanish on white; it is laid over black instead.
pub(crate) fn over_paper(picture: &DynamicImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    let region = Region::whole(picture.width(), picture.height());
    let over = |paper| resize::picture(picture, region, width, height, filter, paper);
    let on_white = over([255; 3]);
    if picture.color().has_alpha() && is_constant(&luma(&on_white)) {
        return over([0; 3]);
    }
    on_white
}

pub(crate) fn is_constant(grey: &GrayImage) -> bool {
    let (low, high) = grey.as_raw().iter().fold((255, 0), |(low, high), &value| (value.min(low), value.max(high)));
    high < low || high - low < MIN_CONTRAST
}

/// Source: ITU-R BT.601, in 1/256.
pub(crate) fn luma(rgb: &RgbImage) -> GrayImage {
    grey_by(rgb, |[red, green, blue]| {
        ((77 * u32::from(red) + 150 * u32::from(green) + 29 * u32::from(blue) + 128) >> 8) as u8
    })
}

fn grey_by(rgb: &RgbImage, value: impl Fn([u8; 3]) -> u8) -> GrayImage {
    let values = rgb.pixels().map(|pixel| value(pixel.0)).collect();
    GrayImage::from_raw(rgb.width(), rgb.height(), values).unwrap_or_default()
}

/// A drawing in progress: one grey plane, or three colour planes that get the same treatment.
pub(crate) struct Sheet {
    planes: Vec<GrayImage>,
    /// Brightness, if there are three planes.
    luma: Option<GrayImage>,
}

impl Sheet {
    pub(crate) fn of_grey(plane: GrayImage) -> Self {
        Self { planes: vec![plane], luma: None }
    }

    pub(crate) fn new(rgb: RgbImage, colours: Colours) -> Self {
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
    pub(crate) fn analysed(&self) -> &GrayImage {
        self.luma.as_ref().unwrap_or(&self.planes[0])
    }

    fn map(self, change: impl Fn(&GrayImage) -> GrayImage) -> Self {
        Self { planes: self.planes.iter().map(&change).collect(), luma: self.luma.as_ref().map(&change) }
    }

    /// Whether there is ink, darker than the paper.
    pub(crate) fn has_ink(&self) -> bool {
        Levels::of(self.analysed()).contrast() >= MIN_CONTRAST
    }

    pub(crate) fn stretch_contrast(&mut self) {
        let levels = Levels::of(self.analysed());
        if levels.contrast() >= MIN_CONTRAST {
            self.planes.iter_mut().chain(self.luma.as_mut()).for_each(|plane| levels.stretch(plane));
        }
    }

    pub(crate) fn clean_paper(&mut self) {
        self.planes.iter_mut().chain(self.luma.as_mut()).for_each(paper::clean);
    }

    pub(crate) fn framed(self, ink: PixelBox, margin: f32) -> Self {
        self.map(|plane| framed(plane, ink, margin))
    }

    /// The one plane of a sheet without colours.
    pub(crate) fn grey(&self) -> Option<&GrayImage> {
        self.luma.is_none().then(|| &self.planes[0])
    }

    pub(crate) fn resized(self, size: u32, filter: Filter) -> Self {
        self.map(|plane| resize::grey(plane, size, size, filter))
    }

    pub(crate) fn into_rgb(self) -> RgbImage {
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
