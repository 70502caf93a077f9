//! Vector drawings: strokes left out, moved, unsteady; the whole turned, stretched, slanted, mirrored.

use sketch_model::drawing::{Shape, VectorDrawing};
use tiny_skia::{Path, PathBuilder, PathSegment, Point, Transform};

use super::{Augmentation, Rng};

/// A drawing as another hand would have made it.
pub(super) fn vary(drawing: &VectorDrawing, by: &Augmentation, rng: &mut Rng) -> VectorDrawing {
    let side = drawing.shapes.iter().map(|shape| longer_side(&shape.path)).fold(1.0, f32::max);
    let [[a, b], [c, d]] = by.linear(rng);
    let whole = Transform::from_row(a, c, b, d, 0.0, 0.0);
    let shapes = kept(&drawing.shapes, by.drop, rng)
        .into_iter()
        .map(|shape| {
            let shift = [(); 2].map(|()| rng.uniform(-by.shift, by.shift) * side);
            let path = unsteady(&shape.path, by.wobble * side, rng).unwrap_or_else(|| shape.path.clone());
            let moved = path.transform(Transform::from_translate(shift[0], shift[1]).post_concat(whole));
            Shape { path: moved.unwrap_or_else(|| shape.path.clone()), ..shape.clone() }
        })
        .collect();
    // A canvas of the drawing as it was would frame it wrongly now.
    VectorDrawing { shapes, canvas: None }
}

fn longer_side(path: &Path) -> f32 {
    path.bounds().width().max(path.bounds().height())
}

/// All shapes but those left out; the longest is never left out.
fn kept<'a>(shapes: &'a [Shape], drop: f32, rng: &mut Rng) -> Vec<&'a Shape> {
    let length = |shape: &Shape| shape.path.len();
    let longest = (0..shapes.len()).max_by_key(|&i| length(&shapes[i]));
    let stays = |(i, _): &(usize, &Shape)| !rng.chance(drop) || Some(*i) == longest;
    shapes.iter().enumerate().filter(stays).map(|(_, shape)| shape).collect()
}

/// Moves every point by a random step; none if the path degenerates.
fn unsteady(path: &Path, deviation: f32, rng: &mut Rng) -> Option<Path> {
    if deviation == 0.0 {
        return None;
    }
    let mut moved =
        |point: Point| Point::from_xy(point.x + deviation * rng.normal(), point.y + deviation * rng.normal());
    let mut builder = PathBuilder::new();
    for segment in path.segments() {
        match segment {
            PathSegment::MoveTo(p) => {
                let p = moved(p);
                builder.move_to(p.x, p.y);
            }
            PathSegment::LineTo(p) => {
                let p = moved(p);
                builder.line_to(p.x, p.y);
            }
            PathSegment::QuadTo(p, q) => {
                let (p, q) = (moved(p), moved(q));
                builder.quad_to(p.x, p.y, q.x, q.y);
            }
            PathSegment::CubicTo(p, q, r) => {
                let (p, q, r) = (moved(p), moved(q), moved(r));
                builder.cubic_to(p.x, p.y, q.x, q.y, r.x, r.y);
            }
            PathSegment::Close => builder.close(),
        }
    }
    builder.finish()
}
