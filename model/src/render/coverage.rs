//! How much of each pixel a stroke or a filled path covers.
//!
//! Both rasterisers take time in proportion to the pixels that they touch, whatever the path does. A general
//! renderer keeps sorted lists of edges, and took minutes over one path of 90,000 crossing curves.

use tiny_skia::{FillRule, Path, PathSegment, Point};

/// Largest distance of a curve from the lines that stand for it, in pixels.
const FLATNESS: f32 = 0.2;
/// Sample points of a filled pixel, along each side.
const SAMPLES: usize = 4;

/// Coverage of the pixels of a square, from 0 to 1, for one shape at a time.
pub(crate) struct Coverage {
    size: usize,
    values: Vec<f32>,
    /// For each row the columns that may be covered, the second excluded.
    touched: Vec<(usize, usize)>,
    winding: Vec<i32>,
}

impl Coverage {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, values: vec![0.0; size * size], touched: vec![(size, 0); size], winding: Vec::new() }
    }

    /// Calls `paint` with the index and the coverage of every touched pixel, and clears them.
    ///
    /// Returns how many there were.
    pub(crate) fn take(&mut self, mut paint: impl FnMut(usize, f32)) -> usize {
        let mut pixels = 0;
        for (row, (from, to)) in self.touched.iter_mut().enumerate() {
            for column in *from..*to {
                let index = row * self.size + column;
                paint(index, std::mem::take(&mut self.values[index]));
            }
            pixels += to.saturating_sub(*from);
            (*from, *to) = (self.size, 0);
        }
        pixels
    }

    /// Draws a line of `width` pixels along `path`, with round caps and joins.
    pub(crate) fn stroke(&mut self, path: &Path, width: f32) {
        for_each_line(path, false, |from, to| self.line(from, to, width / 2.0));
    }

    /// Fills `path`; every subpath is closed by a straight line.
    ///
    /// Returns how many sample points its bounding box has on the square.
    pub(crate) fn fill(&mut self, path: &Path, rule: FillRule) -> usize {
        let bounds = path.bounds();
        let size = self.size;
        let (left, top) = (floor(bounds.left()).min(size), floor(bounds.top()).min(size));
        let (right, bottom) = (ceil(bounds.right()).min(size), ceil(bounds.bottom()).min(size));
        if left >= right || top >= bottom {
            return 0;
        }
        // One entry more in each row takes what lies to the right.
        let (columns, rows) = ((right - left) * SAMPLES + 1, (bottom - top) * SAMPLES);
        self.winding.clear();
        self.winding.resize(columns * rows, 0);
        let origin = Point::from_xy(left as f32, top as f32);
        for_each_line(path, true, |from, to| {
            add_crossings(&mut self.winding, columns, scaled(from, origin), scaled(to, origin));
        });
        for y in top..bottom {
            self.touch(y, left, right);
        }
        self.add_inside((left, top), columns, rule);
        (columns - 1) * rows
    }

    /// Turns the crossings left of each sample point into windings, and counts the sample points inside.
    fn add_inside(&mut self, (left, top): (usize, usize), columns: usize, rule: FillRule) {
        const ONE: f32 = 1.0 / (SAMPLES * SAMPLES) as f32;
        let inside = |winding: i32| match rule {
            FillRule::Winding => winding != 0,
            FillRule::EvenOdd => winding % 2 != 0,
        };
        for (row, crossings) in self.winding.chunks_exact(columns).enumerate() {
            let start = (top + row / SAMPLES) * self.size + left;
            let mut winding = 0;
            for (value, crossings) in self.values[start..].iter_mut().zip(crossings.chunks_exact(SAMPLES)) {
                // Few pixels have an edge.
                if crossings == [0; SAMPLES] {
                    *value += if inside(winding) { SAMPLES as f32 * ONE } else { 0.0 };
                    continue;
                }
                for crossing in crossings {
                    winding += crossing;
                    *value += if inside(winding) { ONE } else { 0.0 };
                }
            }
        }
    }

    fn touch(&mut self, row: usize, from: usize, to: usize) {
        let range = &mut self.touched[row];
        *range = (range.0.min(from), range.1.max(to));
    }

    /// Draws one line with round ends, `radius` to each side.
    fn line(&mut self, from: Point, to: Point, radius: f32) {
        let line = Line::new(from, to);
        let reach = radius + 0.5;
        let size = self.size;
        let (top, bottom) = (from.y.min(to.y) - reach, from.y.max(to.y) + reach);
        for row in floor(top).min(size)..ceil(bottom).min(size) {
            let y = row as f32 + 0.5;
            let (left, right) = line.chord(reach, y);
            let (left, right) = (floor(left).min(size), ceil(right).min(size));
            if left >= right {
                continue;
            }
            self.touch(row, left, right);
            let values = &mut self.values[row * size..][left..right];
            for (column, value) in values.iter_mut().enumerate().filter(|(_, value)| **value < 1.0) {
                let distance = line.distance(Point::from_xy((left + column) as f32 + 0.5, y));
                *value = value.max(covered(distance, radius));
            }
        }
    }
}

/// Share of a pixel within `radius` of a straight line that passes at `distance` from its centre: the overlap of
/// two intervals, exact where the line is parallel to a side of the pixel.
fn covered(distance: f32, radius: f32) -> f32 {
    (radius.min(distance + 0.5) - (-radius).max(distance - 0.5)).max(0.0)
}

/// A straight piece of a path.
struct Line {
    from: Point,
    to: Point,
    /// From `from` to `to`.
    along: Point,
    /// One over the squared length; zero for a line without length.
    inverse: f32,
    /// Columns a row; not finite for a level line.
    slope: f32,
    /// A horizontal cut through a strip around the line, by the strip's width.
    widening: f32,
}

impl Line {
    fn new(from: Point, to: Point) -> Self {
        let along = to - from;
        let length = along.dot(along);
        let inverse = if length > 0.0 { length.recip() } else { 0.0 };
        Self { from, to, along, inverse, slope: along.x / along.y, widening: length.sqrt() / along.y.abs() }
    }

    fn distance(&self, point: Point) -> f32 {
        let offset = point - self.from;
        let share = (offset.dot(self.along) * self.inverse).clamp(0.0, 1.0);
        let (x, y) = (offset.x - share * self.along.x, offset.y - share * self.along.y);
        (x * x + y * y).sqrt()
    }

    /// Bounds of where the horizontal line at `y` may be within `reach` of this one: the cut through an endless strip
    /// around the line, no wider than the line's own extent.
    fn chord(&self, reach: f32, y: f32) -> (f32, f32) {
        let x = self.from.x + (y - self.from.y) * self.slope;
        // A level line has no cut: infinite or not a number, which both yield to the line's extent.
        (
            (x - reach * self.widening).max(self.from.x.min(self.to.x) - reach),
            (x + reach * self.widening).min(self.from.x.max(self.to.x) + reach),
        )
    }
}

/// Largest whole number up to `value`, at least zero. `f32::floor` and `f32::ceil` are calls into the C library.
fn floor(value: f32) -> usize {
    value.max(0.0) as usize
}

/// Smallest whole number from `value` on, at least zero.
fn ceil(value: f32) -> usize {
    let below = floor(value);
    if (below as f32) < value { below + 1 } else { below }
}

fn scaled(point: Point, origin: Point) -> Point {
    let scale = SAMPLES as f32;
    Point::from_xy((point.x - origin.x) * scale, (point.y - origin.y) * scale)
}

/// Notes, for every row of sample points that a line crosses, the first sample point to the right of it.
fn add_crossings(winding: &mut [i32], columns: usize, from: Point, to: Point) {
    let (upper, lower, direction) = if from.y < to.y { (from, to, 1) } else { (to, from, -1) };
    let rows = winding.len() / columns;
    let row_at = |y: f32| floor(y + 0.5).min(rows);
    let slope = (lower.x - upper.x) / (lower.y - upper.y);
    for row in row_at(upper.y)..row_at(lower.y) {
        let x = upper.x + (row as f32 + 0.5 - upper.y) * slope;
        let column = floor(x + 0.5).min(columns - 1);
        winding[row * columns + column] += direction;
    }
}

/// Calls `line` for every straight piece of `path`; with `closed`, every subpath is led back to its start.
fn for_each_line(path: &Path, closed: bool, mut line: impl FnMut(Point, Point)) {
    let (mut start, mut last) = (Point::zero(), Point::zero());
    for segment in path.segments() {
        match segment {
            PathSegment::MoveTo(to) => {
                if closed {
                    line(last, start);
                }
                (start, last) = (to, to);
            }
            PathSegment::Close => {
                line(last, start);
                last = start;
            }
            PathSegment::LineTo(to) => {
                line(last, to);
                last = to;
            }
            PathSegment::QuadTo(control, to) => {
                let bend = bend(last, control, to);
                pieces((bend / (4.0 * FLATNESS)).sqrt(), last, to, |t| quadratic([last, control, to], t), &mut line);
                last = to;
            }
            PathSegment::CubicTo(first, second, to) => {
                let bend = bend(last, first, second).max(bend(first, second, to));
                let curve = [last, first, second, to];
                pieces((0.75 * bend / FLATNESS).sqrt(), last, to, |t| cubic(curve, t), &mut line);
                last = to;
            }
        }
    }
    if closed {
        line(last, start);
    }
}

/// Length of the second difference of three points: how far a curve is from being straight.
fn bend(a: Point, b: Point, c: Point) -> f32 {
    let (x, y) = (a.x - 2.0 * b.x + c.x, a.y - 2.0 * b.y + c.y);
    (x * x + y * y).sqrt()
}

fn pieces(count: f32, from: Point, to: Point, at: impl Fn(f32) -> Point, line: &mut impl FnMut(Point, Point)) {
    const MOST: f32 = 200.0;
    let count = count.ceil().clamp(1.0, MOST) as usize;
    let mut last = from;
    for i in 1..=count {
        let next = if i == count { to } else { at(i as f32 / count as f32) };
        line(last, next);
        last = next;
    }
}

fn quadratic([a, b, c]: [Point; 3], t: f32) -> Point {
    let s = 1.0 - t;
    let mix = |a: f32, b: f32, c: f32| s * s * a + 2.0 * s * t * b + t * t * c;
    Point::from_xy(mix(a.x, b.x, c.x), mix(a.y, b.y, c.y))
}

fn cubic([a, b, c, d]: [Point; 4], t: f32) -> Point {
    let s = 1.0 - t;
    let mix =
        |a: f32, b: f32, c: f32, d: f32| s * s * s * a + 3.0 * s * s * t * b + 3.0 * s * t * t * c + t * t * t * d;
    Point::from_xy(mix(a.x, b.x, c.x, d.x), mix(a.y, b.y, c.y, d.y))
}
