//! Cleans the photo of a drawing: removes shadows and the surroundings of the sheet.

use image::GrayImage;

use crate::render::ink::{histogram, otsu, quantile};
use crate::render::resize::{self, Filter};

/// Paper whose brightness spreads over more grey levels than this was photographed; drawn on a screen it has one.
const EVEN: u8 = 12;
/// Cells of a coarse picture along its longer side, to look at paper rather than at ink.
const CELLS: u32 = 96;
/// What paper becomes: white but for room above it, which shows how coarse its grain is.
const PAPER: u8 = 220;

/// Whitens the paper of a photo; clean pictures do not change.
pub(crate) fn clean(grey: &mut GrayImage) {
    if is_even(grey) {
        return;
    }
    flatten(grey);
    whiten_surroundings(grey);
}

fn is_even(grey: &GrayImage) -> bool {
    let histogram = histogram(grey);
    let light = usize::from(otsu(&histogram)) + 1;
    let level = |share| quantile(&histogram, light..256, share);
    level(0.9) - level(0.1) <= EVEN
}

fn coarse(grey: &GrayImage) -> GrayImage {
    let longest = grey.width().max(grey.height()).max(1);
    let cells = |extent: u32| (extent * CELLS.min(longest)).div_ceil(longest).max(1);
    resize::grey(grey, cells(grey.width()), cells(grey.height()), Filter::Area)
}

/// Divides by the brightness of the paper around each pixel.
///
/// The paper is what is brightest within an eighth of the longer side: strokes do not count as paper.
fn flatten(grey: &mut GrayImage) {
    const REACH: u32 = CELLS / 8;
    let paper = smoothed(&brightest_around(&coarse(grey), REACH), REACH);
    let paper = resize::grey(&paper, grey.width(), grey.height(), Filter::Triangle);
    for (value, &paper) in grey.iter_mut().zip(paper.as_raw()) {
        *value = (u32::from(*value) * u32::from(PAPER) / u32::from(paper.max(1))).min(255) as u8;
    }
}

fn brightest_around(grey: &GrayImage, reach: u32) -> GrayImage {
    along_both(grey, reach, |values| values.iter().copied().max().unwrap_or(255))
}

fn smoothed(grey: &GrayImage, reach: u32) -> GrayImage {
    along_both(grey, reach, |values| {
        let sum: usize = values.iter().map(|&value| usize::from(value)).sum();
        (sum / values.len().max(1)) as u8
    })
}

/// Replaces each value by a property of those within `reach`, first along rows and then along columns.
fn along_both(grey: &GrayImage, reach: u32, of: impl Fn(&[u8]) -> u8) -> GrayImage {
    let along_rows = |grey: &GrayImage| {
        GrayImage::from_fn(grey.width(), grey.height(), |x, y| {
            let row = &grey.as_raw()[(y * grey.width()) as usize..][..grey.width() as usize];
            let (from, to) = (x.saturating_sub(reach), (x + reach + 1).min(grey.width()));
            image::Luma([of(&row[from as usize..to as usize])])
        })
    };
    let turned = image::imageops::rotate90(&along_rows(grey));
    image::imageops::rotate270(&along_rows(&turned))
}

/// Whitens dark areas that take up a good part of a side of the picture: the table, or a shadow.
fn whiten_surroundings(grey: &mut GrayImage) {
    let coarse = coarse(grey);
    let threshold = otsu(&histogram(&coarse));
    let dark: Vec<bool> = coarse.as_raw().iter().map(|&value| value <= threshold).collect();
    let mut outside = GrayImage::new(coarse.width(), coarse.height());
    for part in border_parts(&dark, &coarse) {
        for at in part {
            let (x, y) = (at % coarse.width(), at / coarse.width());
            // Cells at the edge of the part are half paper, half table.
            for y in y.saturating_sub(1)..(y + 2).min(coarse.height()) {
                for x in x.saturating_sub(1)..(x + 2).min(coarse.width()) {
                    outside.put_pixel(x, y, image::Luma([PAPER]));
                }
            }
        }
    }
    let outside = resize::grey(&outside, grey.width(), grey.height(), Filter::Triangle);
    for (value, &outside) in grey.iter_mut().zip(outside.as_raw()) {
        *value = (*value).max(outside);
    }
}

/// Connected dark cells that lie along at least a fifth of one side.
fn border_parts(dark: &[bool], coarse: &GrayImage) -> Vec<Vec<u32>> {
    const SHARE: f64 = 0.2;
    let (width, height) = coarse.dimensions();
    let mut seen = vec![false; dark.len()];
    let mut parts = Vec::new();
    let sides = (0..width).flat_map(|x| [x, (height - 1) * width + x]);
    for start in sides.chain((0..height).flat_map(|y| [y * width, y * width + width - 1])) {
        let part = connected(dark, &mut seen, start, width, height);
        let along = |at_side: &dyn Fn(u32) -> bool| part.iter().filter(|&&at| at_side(at)).count() as f64;
        let lies_along = along(&|at| at < width).max(along(&|at| at >= (height - 1) * width))
            >= SHARE * f64::from(width)
            || along(&|at| at % width == 0).max(along(&|at| at % width == width - 1)) >= SHARE * f64::from(height);
        if !part.is_empty() && lies_along {
            parts.push(part);
        }
    }
    parts
}

/// Dark cells connected with `start` that were not seen before.
fn connected(dark: &[bool], seen: &mut [bool], start: u32, width: u32, height: u32) -> Vec<u32> {
    let mut part = Vec::new();
    let mut open = vec![start];
    while let Some(at) = open.pop() {
        if !dark[at as usize] || std::mem::replace(&mut seen[at as usize], true) {
            continue;
        }
        part.push(at);
        let (x, y) = (at % width, at / width);
        open.extend((x > 0).then(|| at - 1));
        open.extend((x + 1 < width).then(|| at + 1));
        open.extend((y > 0).then(|| at - width));
        open.extend((y + 1 < height).then(|| at + width));
    }
    part
}
