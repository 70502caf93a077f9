//! Bitmap drawings: turned, stretched, slanted, mirrored; a patch rubbed out.

use image::{DynamicImage, GrayImage, Luma};
use imageproc::geometric_transformations::{Interpolation, Projection, warp_into};
use sketch_model::drawing::Drawing;

use super::{Augmentation, Rng};

const PAPER: Luma<u8> = Luma([255]);
/// Side of the sheet onto which a picture is laid, in shares of its own: no corner is lost when it is turned.
const SHEET: f32 = 1.6;
/// Side of a patch that is rubbed out, in shares of the sheet's.
const PATCH: f32 = 0.12;

/// A drawing, dark on light, as another hand would have made it.
pub(super) fn vary(picture: GrayImage, by: &Augmentation, rng: &mut Rng) -> Drawing {
    let mut sheet = warped(&picture, by.linear(rng));
    if rng.chance(by.erase) {
        rub_out(&mut sheet, rng);
    }
    Drawing::Bitmap(DynamicImage::ImageLuma8(sheet))
}

fn warped(picture: &GrayImage, [[a, b], [c, d]]: [[f32; 2]; 2]) -> GrayImage {
    let (width, height) = (picture.width() as f32, picture.height() as f32);
    let side = (width.max(height) * SHEET).ceil().max(1.0);
    let mut sheet = GrayImage::from_pixel(side as u32, side as u32, PAPER);
    let to_origin = Projection::translate(-width / 2.0, -height / 2.0);
    let to_middle = Projection::translate(side / 2.0, side / 2.0);
    if let Some(linear) = Projection::from_matrix([a, b, 0.0, c, d, 0.0, 0.0, 0.0, 1.0]) {
        let whole = to_middle * linear * to_origin;
        warp_into(picture, &whole, Interpolation::Bilinear, PAPER, &mut sheet);
    }
    sheet
}

/// Rubs out a patch near the middle. What remains is a drawing still: the patch is small beside the sheet.
fn rub_out(sheet: &mut GrayImage, rng: &mut Rng) {
    let side = sheet.width() as f32;
    let [left, top] = [(); 2].map(|()| (rng.uniform(0.25, 0.75 - PATCH) * side) as u32);
    let length = (PATCH * side) as u32;
    for y in top..top + length {
        for x in left..left + length {
            sheet.put_pixel(x, y, PAPER);
        }
    }
}
