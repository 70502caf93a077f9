//! Ink and paper in a bitmap: polarity, contrast, extent.

use std::ops::Range;

use image::GrayImage;

/// Share of the shorter side that counts as the border of a picture.
const BORDER: f64 = 0.05;

/// Splits grey values into dark and light where the variance between the two is largest.
///
/// Returns the largest value of the dark class.
///
/// Source: Otsu, "A threshold selection method from gray-level histograms", 1979.
pub(crate) fn otsu(histogram: &[u64; 256]) -> u8 {
    let total: u64 = histogram.iter().sum();
    let sum: f64 = histogram.iter().enumerate().map(|(value, &count)| value as f64 * count as f64).sum();
    let mut best = (0.0, 0u8);
    let (mut dark, mut dark_sum) = (0u64, 0.0);
    for (value, &count) in histogram.iter().enumerate() {
        dark += count;
        dark_sum += value as f64 * count as f64;
        let light = total - dark;
        if dark == 0 || light == 0 {
            continue;
        }
        let distance = dark_sum / dark as f64 - (sum - dark_sum) / light as f64;
        let variance = dark as f64 * light as f64 * distance * distance;
        if variance > best.0 {
            best = (variance, value as u8);
        }
    }
    best.1
}

pub(crate) fn histogram(grey: &GrayImage) -> [u64; 256] {
    let mut histogram = [0; 256];
    for &value in grey.as_raw() {
        histogram[usize::from(value)] += 1;
    }
    histogram
}

/// The grey values of paper: those of the light class, or all if the two classes are close.
///
/// Of a sheet with few lines [`otsu`] separates not ink from paper, but darker grain from lighter.
fn paper_values(histogram: &[u64; 256]) -> Range<usize> {
    /// The least distance of the classes' medians that grain does not reach.
    const APART: u8 = 64;
    let light = usize::from(otsu(histogram)) + 1;
    if histogram[..light].iter().all(|&count| count == 0) || histogram[light..].iter().all(|&count| count == 0) {
        return 0..256;
    }
    let distance = quantile(histogram, light..256, 0.5) - quantile(histogram, 0..light, 0.5);
    if distance < APART { 0..256 } else { light..256 }
}

/// Whether the drawing is light on dark.
///
/// Ink covers the smaller part of a drawing and seldom touches its border, so the paper is the class of [`otsu`] that
/// holds the larger share of both, border and whole weighted equally: a photo of paper on a dark table has a dark border,
/// and a filled silhouette covers most of its picture. If the classes are hardly apart, ink is what departs furthest
/// from the median.
pub(crate) fn is_light_on_dark(grey: &GrayImage) -> bool {
    let histogram = histogram(grey);
    let light = paper_values(&histogram).start;
    if light > 0 {
        return dark_share(grey, light) + dark_share(&border(grey), light) > 1.0;
    }
    let median = f64::from(quantile(&histogram, 0..256, 0.5));
    let moment: f64 =
        histogram.iter().enumerate().map(|(value, &count)| (value as f64 - median).powi(3) * count as f64).sum();
    moment > 0.0
}

fn dark_share(grey: &GrayImage, light: usize) -> f64 {
    let dark = grey.as_raw().iter().filter(|&&value| usize::from(value) < light).count();
    dark as f64 / grey.as_raw().len().max(1) as f64
}

/// The pixels along the four sides, in one row.
fn border(grey: &GrayImage) -> GrayImage {
    let (width, height) = grey.dimensions();
    let depth = (f64::from(width.min(height)) * BORDER).ceil() as u32;
    let near = |at: u32, end: u32| at < depth || at + depth >= end;
    let pixels = grey.enumerate_pixels().filter(|(x, y, _)| near(*x, width) || near(*y, height));
    let values: Vec<u8> = pixels.map(|(_, _, pixel)| pixel.0[0]).collect();
    GrayImage::from_raw(values.len() as u32, 1, values).unwrap_or_default()
}

/// The grey values of paper and of full ink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Levels {
    pub ink: u8,
    pub paper: u8,
}

impl Levels {
    /// Measures them.
    ///
    /// Paper is the median of its values less twice the spread of their brighter half, so that grain becomes white too;
    /// the darker half holds edges of strokes. Ink is what the darkest quarter of all that is clearly darker does not
    /// exceed; the lighter three quarters are edges of strokes. Without ink both are the same.
    pub(crate) fn of(grey: &GrayImage) -> Self {
        /// Darker than paper by less than this is no ink, however even the paper is.
        const LEAST: u8 = 12;
        let histogram = histogram(grey);
        let values = paper_values(&histogram);
        let middle = quantile(&histogram, values.clone(), 0.5);
        let grain = quantile(&histogram, values.clone(), 0.95) - middle;
        let paper = middle.saturating_sub(grain.saturating_mul(2));
        let dark = 0..usize::from(paper.saturating_sub(grain.max(LEAST)));
        let inked: u64 = histogram[dark.clone()].iter().sum();
        Self { ink: if inked == 0 { paper } else { quantile(&histogram, dark, 0.25) }, paper }
    }

    /// The difference of ink and paper.
    pub(crate) fn contrast(self) -> u8 {
        self.paper.saturating_sub(self.ink)
    }

    /// Maps ink to black and paper to white.
    pub(crate) fn stretch(self, grey: &mut GrayImage) {
        let (ink, range) = (f32::from(self.ink), f32::from(self.contrast().max(1)));
        let table: Vec<u8> =
            (0..=255u8).map(|value| ((f32::from(value) - ink) / range * 255.0).round() as u8).collect();
        for value in grey.iter_mut() {
            *value = table[usize::from(*value)];
        }
    }
}

pub(crate) fn quantile(histogram: &[u64; 256], values: Range<usize>, share: f64) -> u8 {
    let total: u64 = histogram[values.clone()].iter().sum();
    let wanted = (total as f64 * share).ceil().max(1.0) as u64;
    let mut seen = 0;
    for value in values.clone() {
        seen += histogram[value];
        if seen >= wanted {
            return value as u8;
        }
    }
    (values.end - 1) as u8
}

/// A box of whole pixels, `right` and `bottom` excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PixelBox {
    pub left: u32,
    pub top: u32,
    pub right: u32,
    pub bottom: u32,
}

/// The smallest box that holds every pixel darker than `threshold`.
pub(crate) fn ink_box(grey: &GrayImage, threshold: u8) -> Option<PixelBox> {
    let width = grey.width() as usize;
    let is_ink = |value: &u8| *value < threshold;
    let rows = || grey.as_raw().chunks_exact(width.max(1));
    let top = rows().position(|row| row.iter().any(is_ink))?;
    let bottom = rows().rposition(|row| row.iter().any(is_ink))? + 1;
    let inside = || rows().take(bottom).skip(top);
    let left = inside().filter_map(|row| row.iter().position(is_ink)).min()?;
    let right = inside().filter_map(|row| row.iter().rposition(is_ink)).max()? + 1;
    Some(PixelBox { left: left as u32, top: top as u32, right: right as u32, bottom: bottom as u32 })
}
