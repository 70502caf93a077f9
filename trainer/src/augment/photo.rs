//! Augments photos: crop, mirror, light and colours.

use image::{DynamicImage, Rgb, RgbImage};
use imageproc::filter::gaussian_blur_f32;
use sketch_model::render::preprocess::{Fit, PhotoPreprocessing};

use super::options::PhotoOptions;
use super::{Augmentation, Rng, opaque};

/// Colour of padding: grey, which normalises to about 0.
const BORDER: [u8; 3] = [128; 3];
/// Source: ITU-R BT.601.
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];
/// Blur below this has no effect.
const LEAST_BLUR: f32 = 0.3;

/// Augments a photo.
pub(super) fn vary(photo: DynamicImage, by: &Augmentation, rng: &mut Rng) -> DynamicImage {
    let mut seen = part(&photo, &by.photo, rng);
    if rng.chance(by.mirror) {
        seen = seen.fliph();
    }
    let light = Light::draw(&by.photo, rng);
    if light != Light::NEUTRAL {
        seen = DynamicImage::ImageRgb8(light.on(opaque(seen)));
    }
    let blurred = rng.chance(by.photo.blurred);
    let sigma = rng.uniform(LEAST_BLUR, by.photo.blur.max(LEAST_BLUR));
    if blurred && by.photo.blur > 0.0 {
        seen = DynamicImage::ImageRgb8(gaussian_blur_f32(&opaque(seen), sigma));
    }
    seen
}

/// The manifest's preprocessing, or with the other fit.
pub(super) fn style(usual: &PhotoPreprocessing, by: &PhotoOptions, rng: &mut Rng) -> PhotoPreprocessing {
    let fit = match usual.fit {
        usual if !rng.chance(by.refit) => usual,
        Fit::Squash => Fit::Pad { colour: BORDER },
        Fit::CentreCrop | Fit::Pad { .. } => Fit::Squash,
    };
    PhotoPreprocessing { fit, ..usual.clone() }
}

/// A random crop of the photo.
fn part(photo: &DynamicImage, by: &PhotoOptions, rng: &mut Rng) -> DynamicImage {
    let side = rng.uniform(by.crop, 1.0).sqrt();
    let wider = (rng.within(by.aspect) / 2.0).exp();
    let mut place = |length: u32, share: f32| {
        let kept = ((length as f32 * share).round() as u32).clamp(1, length.max(1));
        (rng.index((length - kept + 1) as usize) as u32, kept)
    };
    let ((left, width), (top, height)) = (place(photo.width(), side * wider), place(photo.height(), side / wider));
    photo.crop_imm(left, top, width, height)
}

/// An affine map of colours: `matrix · rgb + lift`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Light {
    matrix: [[f32; 3]; 3],
    lift: f32,
}

impl Light {
    const NEUTRAL: Self = Self { matrix: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], lift: 0.0 };

    fn draw(by: &PhotoOptions, rng: &mut Rng) -> Self {
        let contrast = 1.0 + rng.within(by.contrast);
        let brightness = 255.0 * rng.within(by.brightness);
        let saturation = 1.0 + rng.within(by.saturation);
        let hue = rng.within(by.hue).to_radians();
        let saturation = if rng.chance(by.grey) { 0.0 } else { saturation };
        Self { matrix: colours(hue, saturation, contrast), lift: 127.5 * (1.0 - contrast) + brightness }
    }

    fn on(&self, mut photo: RgbImage) -> RgbImage {
        for Rgb(channels) in photo.pixels_mut() {
            let [red, green, blue] = channels.map(f32::from);
            for (channel, row) in channels.iter_mut().zip(self.matrix) {
                let value = row[0] * red + row[1] * green + row[2] * blue + self.lift;
                *channel = value.round().clamp(0.0, 255.0) as u8;
            }
        }
        photo
    }
}

/// Rotates hues around the grey axis by `hue` radians, then scales the distance from grey, then from middle grey.
fn colours(hue: f32, saturation: f32, contrast: f32) -> [[f32; 3]; 3] {
    let (sin, cos) = hue.sin_cos();
    let (third, side) = ((1.0 - cos) / 3.0, sin / 3f32.sqrt());
    let around = [third + cos, third - side, third + side];
    let turned = |row: usize, column: usize| around[(3 + column - row) % 3];
    let grey = |column: usize| (0..3).map(|row| LUMA[row] * turned(row, column)).sum::<f32>();
    let entry = |row, column| contrast * (saturation * turned(row, column) + (1.0 - saturation) * grey(column));
    [0, 1, 2].map(|row| [0, 1, 2].map(|column| entry(row, column)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: [[f32; 3]; 3], b: [[f32; 3]; 3]) -> bool {
        a.as_flattened().iter().zip(b.as_flattened()).all(|(a, b)| (a - b).abs() < 1e-5)
    }

    #[test]
    fn colours_turn_and_fade() {
        assert!(close(colours(0.0, 1.0, 1.0), Light::NEUTRAL.matrix));
        let third = colours(std::f32::consts::TAU / 3.0, 1.0, 1.0);
        assert!(close(third, [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), "red becomes green");
        assert!(close(colours(0.0, 0.0, 1.0), [LUMA; 3]));
        // Greys stay what they are, however colours turn.
        assert!(colours(0.7, 1.3, 1.0).iter().all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
    }

    #[test]
    fn parts_are_as_large_as_asked() {
        let photo = DynamicImage::ImageRgb8(RgbImage::new(200, 100));
        let by = PhotoOptions { crop: 0.5, aspect: 0.2, ..PhotoOptions::none() };
        let mut least = 1.0f32;
        for seed in 0..500 {
            let seen = part(&photo, &by, &mut Rng::new(&[seed]));
            least = least.min((seen.width() * seen.height()) as f32 / 20_000.0);
        }
        assert!((0.45..0.55).contains(&least), "{least}");
    }
}
