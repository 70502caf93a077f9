//! Photos: another part of them, mirrored, in other light.

use image::{DynamicImage, RgbImage};

use super::{Augmentation, Rng};

/// A photo as it might have been taken.
pub(super) fn vary(photo: DynamicImage, by: &Augmentation, rng: &mut Rng) -> DynamicImage {
    let (width, height) = (photo.width(), photo.height());
    let side = rng.uniform(by.crop, 1.0).sqrt();
    let part = |length: u32, rng: &mut Rng| {
        let kept = ((length as f32 * side) as u32).clamp(1, length);
        (rng.index((length - kept + 1) as usize) as u32, kept)
    };
    let ((left, width), (top, height)) = (part(width, rng), part(height, rng));
    let mut seen = photo.crop_imm(left, top, width, height);
    if rng.chance(by.mirror) {
        seen = seen.fliph();
    }
    let (contrast, lift) = (1.0 + rng.uniform(-by.light, by.light), rng.uniform(-by.light, by.light) * 127.5);
    if by.light == 0.0 { seen } else { DynamicImage::ImageRgb8(relit(seen.into_rgb8(), contrast, lift)) }
}

fn relit(mut photo: RgbImage, contrast: f32, lift: f32) -> RgbImage {
    for value in photo.iter_mut() {
        *value = ((f32::from(*value) - 127.5) * contrast + 127.5 + lift).clamp(0.0, 255.0) as u8;
    }
    photo
}
