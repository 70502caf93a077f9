//! Resizing with anti-aliasing.
//!
//! `fast_image_resize` takes half the time of `image` for a photo of 640 x 480 and gives the same picture: both
//! widen the filter's support by the factor of reduction, as Pillow does.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, GenericImageView, GrayImage, Rgb, RgbImage, Rgba};
use serde::{Deserialize, Serialize};

/// The kernel that weighs source pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Mean of the area that an output pixel covers.
    Area,
    /// Called bilinear by Pillow and torchvision (with `antialias=True`).
    Triangle,
    CatmullRom,
    Lanczos3,
}

impl Filter {
    fn options(self) -> ResizeOptions {
        ResizeOptions::new().resize_alg(ResizeAlg::Convolution(match self {
            Self::Area => FilterType::Box,
            Self::Triangle => FilterType::Bilinear,
            Self::CatmullRom => FilterType::CatmullRom,
            Self::Lanczos3 => FilterType::Lanczos3,
        }))
    }
}

/// A part of a picture in pixels of that picture; it must lie inside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Region {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

impl Region {
    pub(crate) fn whole(width: u32, height: u32) -> Self {
        Self { left: 0.0, top: 0.0, width: f64::from(width), height: f64::from(height) }
    }

    /// The same part of a picture reduced by blocks of `side` pixels.
    fn reduced(self, side: u32, picture: &DynamicImage) -> Self {
        let side = f64::from(side);
        let (left, top) = (self.left / side, self.top / side);
        Self {
            left,
            top,
            width: (self.width / side).min(f64::from(picture.width()) - left),
            height: (self.height / side).min(f64::from(picture.height()) - top),
        }
    }
}

/// Resizes a region of `picture` to `width` x `height`, transparency laid over `paper`.
///
/// Pictures of 8 bits without transparency are read where they lie. Of others a copy is needed, so a large one is
/// first reduced by whole blocks of pixels, to no less than twice the result.
pub(crate) fn picture(
    picture: &DynamicImage,
    region: Region,
    width: u32,
    height: u32,
    filter: Filter,
    paper: [u8; 3],
) -> RgbImage {
    let is_plain = matches!(picture, DynamicImage::ImageLuma8(_) | DynamicImage::ImageRgb8(_));
    let block = (region.width / f64::from(width)).min(region.height / f64::from(height)) as u32 / 2;
    if !is_plain && block > 1 {
        let reduced = DynamicImage::ImageRgb8(blocks(picture, block, paper));
        return self::picture(&reduced, region.reduced(block, &reduced), width, height, filter, paper);
    }
    let source = (picture.width(), picture.height());
    let convert = |pixels: &[u8], kind: PixelType| {
        over(paper, &resample(pixels, source, kind, region, (width, height), filter), kind)
    };
    let rgb = match picture {
        DynamicImage::ImageLuma8(pixels) => convert(pixels.as_raw(), PixelType::U8),
        DynamicImage::ImageLumaA8(pixels) => convert(pixels.as_raw(), PixelType::U8x2),
        DynamicImage::ImageRgb8(pixels) => convert(pixels.as_raw(), PixelType::U8x3),
        DynamicImage::ImageRgba8(pixels) => convert(pixels.as_raw(), PixelType::U8x4),
        deep if deep.color().has_alpha() => convert(deep.to_rgba8().as_raw(), PixelType::U8x4),
        deep => convert(deep.to_rgb8().as_raw(), PixelType::U8x3),
    };
    RgbImage::from_raw(width, height, rgb).unwrap_or_else(|| RgbImage::from_pixel(width, height, Rgb(paper)))
}

/// Means of blocks of `side` x `side` pixels over `paper`; blocks at the right and lower edge may be smaller.
fn blocks(picture: &DynamicImage, side: u32, paper: [u8; 3]) -> RgbImage {
    let columns = picture.width().div_ceil(side);
    let mut reduced = RgbImage::new(columns, picture.height().div_ceil(side));
    let mut sums = vec![[0u64; 4]; columns as usize];
    for (row, line) in reduced.rows_mut().enumerate() {
        sums.fill([0; 4]);
        let top = row as u32 * side;
        for y in top..(top + side).min(picture.height()) {
            for x in 0..picture.width() {
                let Rgba([red, green, blue, alpha]) = picture.get_pixel(x, y);
                let sum = &mut sums[(x / side) as usize];
                for (sum, (value, paper)) in sum.iter_mut().zip([red, green, blue].into_iter().zip(paper)) {
                    *sum += u64::from(blend(value, paper, alpha));
                }
                sum[3] += 1;
            }
        }
        for (pixel, sum) in line.zip(&sums) {
            *pixel = Rgb([0, 1, 2].map(|channel| ((sum[channel] + sum[3] / 2) / sum[3].max(1)) as u8));
        }
    }
    reduced
}

/// Resizes a whole grey picture.
pub(crate) fn grey(picture: &GrayImage, width: u32, height: u32, filter: Filter) -> GrayImage {
    let region = Region::whole(picture.width(), picture.height());
    let pixels = resample(picture.as_raw(), picture.dimensions(), PixelType::U8, region, (width, height), filter);
    GrayImage::from_raw(width, height, pixels).unwrap_or_else(|| GrayImage::new(width, height))
}

fn resample(
    pixels: &[u8],
    source: (u32, u32),
    kind: PixelType,
    region: Region,
    target: (u32, u32),
    filter: Filter,
) -> Vec<u8> {
    let mut resized = Image::new(target.0, target.1, kind);
    let options = filter.options().crop(region.left, region.top, region.width, region.height);
    let view = ImageRef::new(source.0, source.1, pixels, kind).expect("the buffer has width * height pixels");
    Resizer::new().resize(&view, &mut resized, &options).expect("one pixel type, and the region lies inside");
    resized.into_vec()
}

fn blend(value: u8, paper: u8, alpha: u8) -> u8 {
    let (value, paper, alpha) = (u32::from(value), u32::from(paper), u32::from(alpha));
    ((value * alpha + paper * (255 - alpha) + 127) / 255) as u8
}

/// Lays pixels over an opaque `paper`; returns RGB.
fn over(paper: [u8; 3], pixels: &[u8], kind: PixelType) -> Vec<u8> {
    match kind {
        PixelType::U8 => pixels.iter().flat_map(|&value| [value; 3]).collect(),
        PixelType::U8x2 => pixels
            .chunks_exact(2)
            .flat_map(|pixel| [0, 1, 2].map(|channel| blend(pixel[0], paper[channel], pixel[1])))
            .collect(),
        PixelType::U8x4 => pixels
            .chunks_exact(4)
            .flat_map(|pixel| [0, 1, 2].map(|channel| blend(pixel[channel], paper[channel], pixel[3])))
            .collect(),
        _ => pixels.to_vec(),
    }
}
