//! Traces the edges of a photo as strokes.
//!
//! Source: Canny, "A Computational Approach to Edge Detection", 1986. Thresholds are quantiles of the photo's own gradients, and
//! only the strongest edges are kept, so that a low-contrast photo gets about as much ink as a sharp one. Strong blur and a
//! minimum length keep outlines and drop texture.

use std::cmp::Reverse;

use image::imageops::{self, FilterType};
use image::{DynamicImage, GrayImage};
use imageproc::edges::canny;
use imageproc::filter::gaussian_blur_f32;
use imageproc::gradients::sobel_gradients;
use sketch_model::render::vector::{Colour, Shape, VectorDrawing};

use super::options::EdgeOptions;
use super::trace::{Chain, chains, smoothed};
use super::{Rng, opaque};

/// Longer side of the image for edge detection, in pixels.
const SIDE: u32 = 256;
/// The detector's own blur, in pixels.
const DETECTOR_BLUR: f32 = 1.4;
/// Lower hysteresis threshold, relative to the upper one.
const CONTINUES: f32 = 0.35;
/// Least upper threshold, in Sobel units (4 for a step of one grey level): above the noise of a JPEG.
const FAINTEST: f32 = 20.0;

/// Edges within this distance of the border, in pixels, are ignored: they are often a frame.
const BORDER: usize = 5;

/// The edges of a photo as strokes, strongest first; none if no edge is long enough.
pub(super) fn trace(photo: DynamicImage, by: &EdgeOptions, rng: &mut Rng) -> Option<VectorDrawing> {
    let mut between = |[low, high]: [f32; 2]| rng.uniform(low, high);
    let (blur, faint, short, ink) = (between(by.blur), between(by.faint), between(by.short), between(by.ink));
    let grey = gaussian_blur_f32(&grey(photo), blur.max(0.1));
    let gradients: Vec<u16> = sobel_gradients(&gaussian_blur_f32(&grey, DETECTOR_BLUR)).into_raw();
    let begins = quantile(&gradients, faint).max(FAINTEST);
    let mut edges = chains(&without_border(canny(&grey, CONTINUES * begins, begins)));
    edges.retain(|chain| chain.len() as f32 >= short);
    let width = grey.width() as usize;
    let strength = |chain: &Chain| chain.iter().map(|p| u64::from(gradients[p.y * width + p.x])).sum::<u64>();
    edges.sort_by_cached_key(|chain| Reverse(strength(chain)));
    let mut left = ink * SIDE as f32;
    let strokes = edges.iter().take_while(|chain| {
        let enough = left <= 0.0;
        left -= chain.len() as f32;
        !enough
    });
    let shapes: Vec<Shape> = strokes.filter_map(smoothed).map(stroke).collect();
    (!shapes.is_empty()).then_some(VectorDrawing { shapes, canvas: None })
}

fn without_border(mut edges: GrayImage) -> GrayImage {
    let (width, height) = (edges.width() as usize, edges.height() as usize);
    let near = |at: usize, end: usize| at < BORDER || at + BORDER >= end;
    for (y, row) in edges.chunks_exact_mut(width.max(1)).enumerate() {
        row.iter_mut()
            .enumerate()
            .filter(|(x, _)| near(*x, width) || near(y, height))
            .for_each(|(_, value)| *value = 0);
    }
    edges
}

fn stroke(path: tiny_skia::Path) -> Shape {
    Shape { path, fill: None, stroke: Some(Colour::BLACK), stroke_first: false }
}

/// The photo in greyscale with a longer side of [`SIDE`] pixels.
fn grey(photo: DynamicImage) -> GrayImage {
    let grey = DynamicImage::ImageRgb8(opaque(photo)).into_luma8();
    let longer = grey.width().max(grey.height()).max(1);
    if longer == SIDE {
        return grey;
    }
    let scaled = |length: u32| (f64::from(length * SIDE) / f64::from(longer)).round().max(1.0) as u32;
    imageops::resize(&grey, scaled(grey.width()), scaled(grey.height()), FilterType::Triangle)
}

/// The quantile `at`, from 0 to 1.
fn quantile(values: &[u16], at: f32) -> f32 {
    let mut values = values.to_vec();
    let position = ((values.len() as f32 * at) as usize).min(values.len().saturating_sub(1));
    if values.is_empty() { 0.0 } else { f32::from(*values.select_nth_unstable(position).1) }
}
