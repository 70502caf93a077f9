//! Measures the width of the strokes of a bitmap, and changes it.

use image::GrayImage;

/// Which pixels are ink, row by row.
struct Mask {
    width: usize,
    height: usize,
    ink: Vec<bool>,
}

/// Ink is not narrowed so far that its thinnest tenth becomes less than this share of the target: lines would break.
const NARROWEST: f32 = 0.5;

/// Widens or narrows all ink by the same amount, so that its usual width becomes `target` pixels.
///
/// Ink is what is darker than `threshold`. Returns `None` if there is none, or if it is mostly filled areas, wider than
/// `widest`: these are no strokes.
pub(crate) fn shift(grey: &GrayImage, threshold: u8, target: f32, widest: f32) -> Option<GrayImage> {
    let mask = Mask::of(grey, threshold);
    let inside = mask.distances(|ink| !ink);
    let mut widths = mask.widths(&inside);
    let usual = quantile(&mut widths, 0.5).filter(|usual| *usual <= widest)?;
    let thinnest = quantile(&mut widths, 0.1)?;
    let outside = mask.distances(|ink| ink);
    let by = (target - usual).max(target * NARROWEST - thinnest) / 2.0;
    // Distances are from pixel centre to pixel centre, the edge of the ink lies half way.
    let to_edge = |(inside, outside): (&f32, &f32)| if *inside > 0.0 { 0.5 - inside } else { outside - 0.5 };
    let value = |to_edge: f32| (255.0 * (to_edge - by + 0.5).clamp(0.0, 1.0)).round() as u8;
    let values = inside.iter().zip(&outside).map(|distances| value(to_edge(distances))).collect();
    GrayImage::from_raw(grey.width(), grey.height(), values)
}

/// The value that `share` of all do not exceed.
fn quantile(values: &mut [f32], share: f64) -> Option<f32> {
    let at = (values.len() as f64 * share) as usize;
    (at < values.len()).then(|| *values.select_nth_unstable_by(at, f32::total_cmp).1)
}

impl Mask {
    fn of(grey: &GrayImage, threshold: u8) -> Self {
        Self {
            width: grey.width() as usize,
            height: grey.height() as usize,
            ink: grey.as_raw().iter().map(|&value| value < threshold).collect(),
        }
    }

    /// Widths of the ink at its middle lines: twice the distance to the edge.
    ///
    /// `inside`: distance of each pixel to the nearest that is not ink. On a middle line no neighbour is further inside.
    fn widths(&self, inside: &[f32]) -> Vec<f32> {
        let (width, height) = (self.width, self.height);
        let is_middle = |&at: &usize| {
            let (x, y) = (at % width, at / width);
            let inner = x > 0 && y > 0 && x + 1 < width && y + 1 < height;
            let around = |at: usize| [at - 1, at + 1, at - width, at + width];
            self.ink[at] && inner && around(at).into_iter().all(|other| inside[other] <= inside[at])
        };
        (0..self.ink.len()).filter(is_middle).map(|at| 2.0 * inside[at] - 1.0).collect()
    }

    /// Distance of every pixel to the nearest one that is a `target`; very large if there is none.
    ///
    /// Source: Felzenszwalb, Huttenlocher, "Distance transforms of sampled functions", 2012.
    fn distances(&self, target: impl Fn(bool) -> bool) -> Vec<f32> {
        const FAR: f32 = 1e9;
        let mut squares: Vec<f32> = self.ink.iter().map(|&ink| if target(ink) { 0.0 } else { FAR }).collect();
        let mut line = Envelope::default();
        let mut column = vec![0.0; self.height];
        for x in 0..self.width {
            for (y, value) in column.iter_mut().enumerate() {
                *value = squares[y * self.width + x];
            }
            line.transform(&mut column);
            for (y, value) in column.iter().enumerate() {
                squares[y * self.width + x] = *value;
            }
        }
        for row in squares.chunks_exact_mut(self.width.max(1)) {
            line.transform(row);
        }
        squares.into_iter().map(f32::sqrt).collect()
    }
}

/// Lower envelope of parabolas, one for each sample.
#[derive(Default)]
struct Envelope {
    roots: Vec<usize>,
    starts: Vec<f32>,
    values: Vec<f32>,
}

impl Envelope {
    /// Replaces squared distances along a line by the least of `squares[i] + (i - j)²` for each `j`.
    fn transform(&mut self, squares: &mut [f32]) {
        self.values.clear();
        self.values.extend_from_slice(squares);
        self.roots.clear();
        self.starts.clear();
        for q in 0..squares.len() {
            let mut start = f32::NEG_INFINITY;
            while let (Some(&root), Some(&from)) = (self.roots.last(), self.starts.last()) {
                start = self.meeting(root, q);
                if start > from {
                    break;
                }
                self.roots.pop();
                self.starts.pop();
                start = f32::NEG_INFINITY;
            }
            self.roots.push(q);
            self.starts.push(start);
        }
        let mut k = 0;
        for (j, square) in squares.iter_mut().enumerate() {
            while self.starts.get(k + 1).is_some_and(|&start| start < j as f32) {
                k += 1;
            }
            let away = j as f32 - self.roots[k] as f32;
            *square = self.values[self.roots[k]] + away * away;
        }
    }

    /// Where the parabola of `right` comes below that of `left`.
    fn meeting(&self, left: usize, right: usize) -> f32 {
        let (l, r) = (left as f32, right as f32);
        ((self.values[right] + r * r) - (self.values[left] + l * l)) / (2.0 * (r - l))
    }
}
