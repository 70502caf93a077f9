//! Random affine maps of whole drawings: rotation, stretch, shear, mirror.

use super::{Augmentation, Rng};
use tiny_skia::Transform;

/// A random linear map, without scale and shift, because preprocessing crops to the ink.
pub(super) fn draw(by: &Augmentation, rng: &mut Rng) -> Transform {
    let sketch = &by.sketch;
    let (sin, cos) = rng.within(sketch.turn).to_radians().sin_cos();
    let slant = rng.within(sketch.slant);
    let mirrored = if rng.chance(by.mirror) { -1.0 } else { 1.0 };
    let width = rng.within(sketch.stretch).exp() * mirrored;
    let height = rng.within(sketch.stretch).exp();
    Transform::from_row(cos * width, sin * width, (cos * slant - sin) * height, (sin * slant + cos) * height, 0.0, 0.0)
}
