//! Redraws a stroke with an unsteady hand.

use tiny_skia::{Path, PathBuilder, PathSegment, Point, Transform};

use super::Rng;
use super::options::SketchOptions;

/// Sine waves whose sum is a stroke's wobble.
const WAVES: usize = 4;
/// Range of their wavelengths, relative to the drawing's longer side: from movements of fingers to those of the arm.
const WAVE_LENGTHS: [f32; 2] = [0.15, 0.8];
/// Longest straight segment of a wobbling line, relative to the drawing's longer side.
const STEP: f32 = 0.03;
/// Most segments of a line.
const MAX_PIECES: f32 = 256.0;

/// The distortion of one stroke.
pub(super) struct Hand {
    place: Transform,
    waves: [Wave; WAVES],
    /// In units of the drawing, as is `step`.
    tremor: f32,
    step: f32,
}

/// Displaces points by `by · sin(along · point + phase)`.
#[derive(Clone, Copy)]
struct Wave {
    along: Point,
    phase: f32,
    by: Point,
}

impl Hand {
    /// `middle`: the stroke's centre. `side`: the drawing's longer side.
    pub(super) fn draw(middle: Point, side: f32, by: &SketchOptions, rng: &mut Rng) -> Self {
        let scale = rng.within(by.scale).exp();
        let place = Transform::from_translate(-middle.x, -middle.y)
            .post_concat(Transform::from_rotate(rng.within(by.rotation)).post_scale(scale, scale))
            .post_translate(middle.x + rng.within(by.shift) * side, middle.y + rng.within(by.shift) * side);
        let step = if by.wobble > 0.0 { STEP * side } else { f32::INFINITY };
        Self { place, waves: [(); WAVES].map(|()| Wave::draw(side, by.wobble, rng)), tremor: by.tremor * side, step }
    }

    /// The distorted stroke; none if its points are no longer finite.
    pub(super) fn stroke(&self, path: &Path, rng: &mut Rng) -> Option<Path> {
        let mut builder = PathBuilder::with_capacity(path.len(), path.points().len());
        let (mut start, mut at) = (Point::zero(), Point::zero());
        for segment in path.segments() {
            match segment {
                PathSegment::MoveTo(p) => {
                    at = self.tremble(p, rng);
                    start = at;
                    let p = self.map(at);
                    builder.move_to(p.x, p.y);
                }
                PathSegment::LineTo(p) => {
                    let p = self.tremble(p, rng);
                    self.line(&mut builder, at, p);
                    at = p;
                }
                PathSegment::QuadTo(p, q) => {
                    at = self.tremble(q, rng);
                    let (p, q) = (self.map(p), self.map(at));
                    builder.quad_to(p.x, p.y, q.x, q.y);
                }
                PathSegment::CubicTo(p, q, r) => {
                    at = self.tremble(r, rng);
                    let (p, q, r) = (self.map(p), self.map(q), self.map(at));
                    builder.cubic_to(p.x, p.y, q.x, q.y, r.x, r.y);
                }
                PathSegment::Close => {
                    self.line(&mut builder, at, start);
                    builder.close();
                    at = start;
                }
            }
        }
        builder.finish()
    }

    fn line(&self, builder: &mut PathBuilder, from: Point, to: Point) {
        let along = to - from;
        let pieces = (along.length() / self.step).ceil().clamp(1.0, MAX_PIECES) as usize;
        for piece in 1..=pieces {
            let share = piece as f32 / pieces as f32;
            let p = self.map(Point::from_xy(from.x + share * along.x, from.y + share * along.y));
            builder.line_to(p.x, p.y);
        }
    }

    fn tremble(&self, p: Point, rng: &mut Rng) -> Point {
        Point::from_xy(p.x + self.tremor * rng.normal(), p.y + self.tremor * rng.normal())
    }

    fn map(&self, mut p: Point) -> Point {
        self.place.map_point(&mut p);
        self.waves.iter().fold(p, |moved, wave| moved + wave.at(p))
    }
}

impl Wave {
    /// `deviation`: standard deviation of the sum of all waves along each axis, relative to `side`.
    fn draw(side: f32, deviation: f32, rng: &mut Rng) -> Self {
        let (sin, cos) = rng.uniform(0.0, std::f32::consts::TAU).sin_cos();
        let frequency = std::f32::consts::TAU / (rng.log_uniform(WAVE_LENGTHS) * side);
        // The mean square of a sine is a half.
        let amplitude = deviation * side * (2.0 / WAVES as f32).sqrt();
        Self {
            along: Point::from_xy(cos * frequency, sin * frequency),
            phase: rng.uniform(0.0, std::f32::consts::TAU),
            by: Point::from_xy(amplitude * rng.normal(), amplitude * rng.normal()),
        }
    }

    fn at(&self, p: Point) -> Point {
        let sin = (self.along.dot(p) + self.phase).sin();
        Point::from_xy(self.by.x * sin, self.by.y * sin)
    }
}
