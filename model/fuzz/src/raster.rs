//! The rasteriser against tiny-skia's, a general one: both cover the same pixels.
//!
//! Two ways to sample disagree on slivers thinner than a sample. What they must agree on is what lies inside and what
//! outside: a pixel that is wholly covered or wholly free with all its neighbours.

use sketch_model::render::probe;
use tiny_skia::{FillRule, LineCap, LineJoin, Mask, Path, PathBuilder, Stroke, Transform};

const SIZE: u32 = 32;
/// The greatest coverage where the other sees nothing within a pixel's reach: a column of sample points of a sliver.
const SLIVER: f32 = 0.26;
/// The greatest mean difference of a picture.
const MEAN: f32 = 0.03;

pub fn run(data: &[u8]) {
    let [options, width, data @ ..] = data else { return };
    let Some(path) = path(data) else { return };
    let rule = if options & 1 == 0 { FillRule::Winding } else { FillRule::EvenOdd };
    let size = SIZE as usize;
    if options & 2 == 0 {
        let mut mask = Mask::new(SIZE, SIZE).expect("a size");
        mask.fill_path(&path, rule, true, Transform::identity());
        compare("fill", &probe::fill(&path, rule, size), &mask, &path);
    } else {
        let width = 1.0 + f32::from(*width) / 64.0;
        let stroke = Stroke { width, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() };
        let Some(outline) = path.stroke(&stroke, 4.0) else { return };
        let mut mask = Mask::new(SIZE, SIZE).expect("a size");
        mask.fill_path(&outline, FillRule::Winding, true, Transform::identity());
        compare("stroke", &probe::stroke(&path, width, size), &mask, &path);
    }
}

/// A path of few pieces, on the square and around it: each is a kind and its points.
fn path(mut data: &[u8]) -> Option<Path> {
    let mut point = || {
        let (x, rest) = data.split_first_chunk::<2>()?;
        let (y, rest) = rest.split_first_chunk::<2>()?;
        data = rest;
        let at = |bytes: &[u8; 2]| f32::from(i16::from_le_bytes(*bytes)) / 32_768.0 * 24.0 + 16.0;
        Some((at(x), at(y)))
    };
    let mut path = PathBuilder::new();
    let start = point()?;
    path.move_to(start.0, start.1);
    for _ in 0..6 {
        let Some(a) = point() else { break };
        // The lowest bits of a coordinate choose, so that every four bytes are a point.
        match (a.0.to_bits() ^ a.1.to_bits()) % 8 {
            0 => path.move_to(a.0, a.1),
            1 => {
                let Some(b) = point() else { break };
                path.quad_to(a.0, a.1, b.0, b.1);
            }
            2 => {
                let (Some(b), Some(c)) = (point(), point()) else { break };
                path.cubic_to(a.0, a.1, b.0, b.1, c.0, c.1);
            }
            3 => {
                path.line_to(a.0, a.1);
                path.close();
            }
            _ => path.line_to(a.0, a.1),
        }
    }
    path.finish()
}

fn compare(what: &str, ours: &[f32], theirs: &Mask, path: &Path) {
    let size = SIZE as i32;
    let theirs: Vec<f32> = theirs.data().iter().map(|value| f32::from(*value) / 255.0).collect();
    let around = |x: i32, y: i32| {
        let near = |at: i32| (at - 1).max(0)..=(at + 1).min(size - 1);
        near(y).flat_map(move |y| near(x).map(move |x| (y * size + x) as usize))
    };
    let mut total = 0.0;
    for (x, y) in (0..size).flat_map(|y| (0..size).map(move |x| (x, y))) {
        let value = ours[(y * size + x) as usize];
        total += (value - theirs[(y * size + x) as usize]).abs();
        let outside = around(x, y).all(|at| theirs[at] == 0.0);
        let inside = around(x, y).all(|at| theirs[at] == 1.0);
        assert!((-0.01..=1.01).contains(&value), "{what}: coverage {value} at {x}, {y} of {path:?}");
        assert!(!outside || value <= SLIVER, "{what}: {value} outside at {x}, {y} of {path:?}");
        assert!(!inside || value >= 1.0 - SLIVER, "{what}: {value} inside at {x}, {y} of {path:?}");
    }
    let mean = total / (size * size) as f32;
    assert!(mean <= MEAN, "{what}: mean difference {mean} of {path:?}");
}

pub fn seeds() -> Vec<Vec<u8>> {
    let points: [[i16; 12]; 3] = [
        [-20_000, -20_000, 20_000, -20_000, 20_000, 20_000, -20_000, 20_000, 0, 0, 100, -9_000],
        [0, -30_000, 9_000, 9_000, -9_000, 9_001, 30_000, 30_000, -31_000, 5, 20, 70],
        [1, 2, 3, 32_000, 5, -32_000, 7, 8, 9, 10, 11, 12],
    ];
    let seed = |options: u8, points: &[i16]| {
        [options, 64].into_iter().chain(points.iter().flat_map(|value| value.to_le_bytes())).collect()
    };
    (0..4).flat_map(|options| points.iter().map(move |points| seed(options, points))).collect()
}
