//! Edge maps that look like line drawings.
//!
//! Source: Canny, "A Computational Approach to Edge Detection", 1986. Thresholds are quantiles of each photo's own
//! gradient, so that a foggy photo gets about as much ink as a sharp one; strong blur and leaving out short edges keep
//! outlines and lose texture.

use std::collections::HashMap;

use image::imageops::FilterType;
use image::{DynamicImage, GrayImage, Luma};
use imageproc::edges::canny;
use imageproc::filter::gaussian_blur_f32;
use imageproc::gradients::sobel_gradients;
use imageproc::region_labelling::{Connectivity, connected_components};

use super::{Augmentation, Rng};

/// Longer side of the picture in which edges are looked for, in pixels.
const SIDE: u32 = 256;
/// Blur that the detector adds of itself, in pixels.
const DETECTOR_BLUR: f32 = 1.4;
/// The threshold that continues an edge, in shares of the one that begins it.
const CONTINUES: f32 = 0.45;
/// Fewer pixels of ink than this show nothing.
const LEAST_INK: usize = 50;

/// The edges of a photo as dark lines on white; none if it has no edge that is long enough.
pub(super) fn trace(photo: &DynamicImage, by: &Augmentation, rng: &mut Rng) -> Option<GrayImage> {
    let grey = photo.resize(SIDE, SIDE, FilterType::Triangle).into_luma8();
    let blurred = gaussian_blur_f32(&grey, rng.uniform(by.blur[0], by.blur[1]).max(0.1));
    let begins = quantile(&blurred, rng.uniform(by.faint[0], by.faint[1])).max(1.0);
    let mut edges = canny(&blurred, CONTINUES * begins, begins);
    drop_short(&mut edges, rng.uniform(by.short[0], by.short[1]) as usize);
    let ink = edges.pixels().filter(|pixel| pixel.0[0] > 0).count();
    image::imageops::invert(&mut edges);
    (ink >= LEAST_INK).then_some(edges)
}

/// The gradient that the share `at` of all pixels does not reach, as the detector will measure it.
fn quantile(picture: &GrayImage, at: f32) -> f32 {
    let gradients = sobel_gradients(&gaussian_blur_f32(picture, DETECTOR_BLUR));
    let mut values: Vec<u16> = gradients.pixels().map(|pixel| pixel.0[0]).collect();
    let position = ((values.len() as f32 * at) as usize).min(values.len().saturating_sub(1));
    if values.is_empty() { 0.0 } else { f32::from(*values.select_nth_unstable(position).1) }
}

fn drop_short(edges: &mut GrayImage, length: usize) {
    let labels = connected_components(edges, Connectivity::Eight, Luma([0]));
    let mut sizes: HashMap<u32, usize> = HashMap::new();
    for label in labels.pixels() {
        *sizes.entry(label.0[0]).or_default() += 1;
    }
    for (pixel, label) in edges.pixels_mut().zip(labels.pixels()) {
        if sizes[&label.0[0]] < length {
            *pixel = Luma([0]);
        }
    }
}
