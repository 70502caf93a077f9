//! From the bytes of a photo or drawing to the pixels that the network takes.

pub mod ahead;
mod container;
mod coverage;
pub mod decode;
pub mod drawing;
mod ink;
mod jpeg;
mod paper;
pub mod preprocess;
mod raster;
pub mod resize;
mod sheet;
pub mod strokes;
pub mod svg;
mod svg_guard;
mod thickness;
pub mod vector;

/// What the fuzzer holds against another rasteriser.
#[cfg(fuzzing)]
pub mod probe {
    use super::coverage::Coverage;
    use tiny_skia::{FillRule, Path};

    /// Coverage of the pixels of a square, row by row, by a filled path.
    pub fn fill(path: &Path, rule: FillRule, size: usize) -> Vec<f32> {
        let mut coverage = Coverage::new(size);
        coverage.fill(path, rule);
        taken(coverage, size)
    }

    /// The same of a line along a path, with round caps and joins.
    pub fn stroke(path: &Path, width: f32, size: usize) -> Vec<f32> {
        let mut coverage = Coverage::new(size);
        coverage.stroke(path, width);
        taken(coverage, size)
    }

    fn taken(mut coverage: Coverage, size: usize) -> Vec<f32> {
        let mut values = vec![0.0; size * size];
        coverage.take(|index, value| values[index] = value);
        values
    }
}
