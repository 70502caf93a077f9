//! Augments bitmap drawings: affine maps, erased patches.

use image::{DynamicImage, GrayImage, Luma, Rgb, imageops};
use imageproc::geometric_transformations::{Interpolation, Projection, warp_into};
use tiny_skia::Transform;

use super::{Augmentation, Rng, affine, opaque};

const PAPER: Luma<u8> = Luma([255]);
/// Darker is ink.
const INK: u8 = 128;
/// Most patches that are erased.
const PATCHES: usize = 3;
/// Range of the side of a patch, relative to the sheet's longer side.
const PATCH: [f32; 2] = [0.04, 0.12];
/// A patch with a larger share of the ink is not erased: the drawing must stay recognisable.
const MOST: f32 = 0.25;

/// Augments a drawing, dark on light.
pub(super) fn vary(picture: DynamicImage, by: &Augmentation, rng: &mut Rng) -> DynamicImage {
    let whole = affine::draw(by, rng);
    let erased = rng.chance(by.sketch.erased);
    if whole.is_identity() && !erased {
        return picture;
    }
    let grey = darkest(picture);
    if grey.windows(2).all(|pair| pair[0] == pair[1]) {
        // Blank; on the sheet, the picture's border would look like a drawing.
        return DynamicImage::ImageLuma8(grey);
    }
    let mut sheet = warped(&grey, whole);
    for _ in 0..if erased { 1 + rng.index(PATCHES) } else { 0 } {
        erase_patch(&mut sheet, rng);
    }
    DynamicImage::ImageLuma8(sheet)
}

/// Greyscale by the darkest channel, so that ink of every colour is dark.
fn darkest(picture: DynamicImage) -> GrayImage {
    match picture {
        DynamicImage::ImageLuma8(grey) => grey,
        coloured => {
            let rgb = opaque(coloured);
            let values = rgb.pixels().map(|Rgb([red, green, blue])| *red.min(green).min(blue)).collect();
            GrayImage::from_raw(rgb.width(), rgb.height(), values).unwrap_or_default()
        }
    }
}

/// The warped picture on a sheet that just contains it.
fn warped(picture: &GrayImage, whole: Transform) -> GrayImage {
    let Transform { sx: a, kx: b, ky: c, sy: d, .. } = whole;
    // The warp does not interpolate beyond the last pixel; a frame of paper makes it.
    let (width, height) = (picture.width() + 2, picture.height() + 2);
    let mut framed = GrayImage::from_pixel(width, height, PAPER);
    imageops::replace(&mut framed, picture, 1, 1);
    let (width, height) = (width as f32, height as f32);
    let extent = |x: f32, y: f32| (x.abs() * width + y.abs() * height).ceil().max(1.0);
    let (columns, rows) = (extent(a, b), extent(c, d));
    let mut sheet = GrayImage::from_pixel(columns as u32, rows as u32, PAPER);
    // Coordinates refer to pixel centres.
    let to_origin = Projection::translate((1.0 - width) / 2.0, (1.0 - height) / 2.0);
    let to_middle = Projection::translate((columns - 1.0) / 2.0, (rows - 1.0) / 2.0);
    if let Some(linear) = Projection::from_matrix([a, b, 0.0, c, d, 0.0, 0.0, 0.0, 1.0]) {
        warp_into(&framed, &(to_middle * linear * to_origin), Interpolation::Bilinear, PAPER, &mut sheet);
    }
    sheet
}

/// Erases a patch around some ink.
fn erase_patch(sheet: &mut GrayImage, rng: &mut Rng) {
    let ink: Vec<usize> = (0..sheet.len()).filter(|&at| sheet.as_raw()[at] < INK).collect();
    if ink.is_empty() {
        return;
    }
    let side = rng.uniform(PATCH[0], PATCH[1]) * sheet.width().max(sheet.height()) as f32;
    let (width, half) = (sheet.width() as usize, (side / 2.0).max(1.0) as usize);
    let middle = ink[rng.index(ink.len())];
    let inside =
        |at: usize| (at % width).abs_diff(middle % width) <= half && (at / width).abs_diff(middle / width) <= half;
    let lost = ink.iter().filter(|&&at| inside(at)).count();
    if (lost as f32) <= MOST * ink.len() as f32 {
        sheet.iter_mut().enumerate().filter(|(at, _)| inside(*at)).for_each(|(_, value)| *value = PAPER.0[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cross() -> GrayImage {
        GrayImage::from_fn(64, 48, |x, y| Luma([if x.abs_diff(30) < 3 || y.abs_diff(20) < 2 { 0 } else { 255 }]))
    }

    /// The sheet that holds `picture` and the frame around it.
    fn framed(picture: &GrayImage) -> GrayImage {
        let mut framed = GrayImage::from_pixel(picture.width() + 2, picture.height() + 2, PAPER);
        imageops::replace(&mut framed, picture, 1, 1);
        framed
    }

    #[test]
    fn the_identity_and_two_mirrors_change_nothing() {
        let mirror = Transform::from_scale(-1.0, 1.0);
        assert!(warped(&cross(), Transform::identity()) == framed(&cross()));
        assert!(warped(&cross(), mirror) == framed(&imageops::flip_horizontal(&cross())));
        assert!(warped(&warped(&cross(), mirror), mirror) == framed(&framed(&cross())));
    }

    #[test]
    fn a_quarter_turn_loses_no_ink() {
        let turned = warped(&cross(), Transform::from_row(0.0, 1.0, -1.0, 0.0, 0.0, 0.0));
        assert!(turned == framed(&imageops::rotate90(&cross())));
    }

    #[test]
    fn most_ink_survives_the_rubber() {
        let ink = |sheet: &GrayImage| sheet.iter().filter(|value| **value < INK).count() as f32;
        let mut less = 0;
        for seed in 0..100 {
            let mut sheet = cross();
            erase_patch(&mut sheet, &mut Rng::new(&[seed]));
            assert!(ink(&sheet) >= (1.0 - MOST) * ink(&cross()));
            less += usize::from(ink(&sheet) < ink(&cross()));
        }
        assert!(less > 90, "{less}");
    }
}
