//! What is ink and what is paper in a bitmap: polarity, contrast, extent.

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

/// Whether the drawing is light on dark.
///
/// Ink covers the smaller part of a drawing and seldom touches its border, so the paper is the class of
/// [`otsu`] that holds the larger share of both, border and whole counted alike: a photo of paper on a dark
/// table has a dark border, and a filled silhouette covers most of its picture.
pub(crate) fn is_light_on_dark(grey: &GrayImage) -> bool {
    let threshold = otsu(&histogram(grey));
    let (width, height) = grey.dimensions();
    let border = (f64::from(width.min(height)) * BORDER).ceil() as u32;
    let mut dark = [0u64; 2];
    let mut all = [0u64; 2];
    for (x, y, pixel) in grey.enumerate_pixels() {
        let is_dark = u64::from(pixel.0[0] <= threshold);
        let at_border = x < border || y < border || x >= width - border.min(width) || y >= height - border.min(height);
        all[0] += 1;
        dark[0] += is_dark;
        all[1] += u64::from(at_border);
        dark[1] += is_dark * u64::from(at_border);
    }
    let share = |i: usize| dark[i] as f64 / all[i].max(1) as f64;
    share(0) + share(1) > 1.0
}

/// The grey values of paper and of full ink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Levels {
    pub ink: u8,
    pub paper: u8,
}

impl Levels {
    /// Measures them: the median of the light class of [`otsu`], and of the dark class the value that the
    /// darkest quarter does not exceed (the lighter ones are edges of strokes).
    pub(crate) fn of(grey: &GrayImage) -> Self {
        let histogram = histogram(grey);
        let threshold = usize::from(otsu(&histogram));
        Self { ink: quantile(&histogram, 0..threshold + 1, 0.25), paper: quantile(&histogram, threshold + 1..256, 0.5) }
    }

    /// How far ink stands out from paper.
    pub(crate) fn contrast(self) -> u8 {
        self.paper.saturating_sub(self.ink)
    }

    /// Brings ink to black and paper to white.
    pub(crate) fn stretch(self, grey: &mut GrayImage) {
        let (ink, range) = (f32::from(self.ink), f32::from(self.contrast().max(1)));
        let table: Vec<u8> =
            (0..=255u8).map(|value| ((f32::from(value) - ink) / range * 255.0).round() as u8).collect();
        for value in grey.iter_mut() {
            *value = table[usize::from(*value)];
        }
    }
}

fn quantile(histogram: &[u64; 256], values: std::ops::Range<usize>, share: f64) -> u8 {
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
