//! Turns lines of pixels into strokes.

use image::GrayImage;
use imageproc::geometry::approximate_polygon_dp;
use imageproc::point::Point as Vertex;
use tiny_skia::{Path, PathBuilder};

/// A sequence of pixels, each a neighbour of its predecessor.
pub(super) type Chain = Vec<Pixel>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pixel {
    pub x: usize,
    pub y: usize,
}

/// Pixels over which a line's direction is measured.
const BACK: usize = 4;
/// Pixels on each side over which a point is averaged.
const REACH: usize = 2;
/// Largest distance of a stroke from its pixels.
const TOLERANCE: f64 = 0.7;

/// Splits lines into chains: every non-zero pixel is in exactly one. At a crossing, a chain goes straight on.
pub(super) fn chains(lines: &GrayImage) -> Vec<Chain> {
    let (width, height) = (lines.width() as usize, lines.height() as usize);
    let mut left = Mask { width, height, set: lines.iter().map(|&value| value > 0).collect() };
    let mut chains = Vec::new();
    for at in 0..left.set.len() {
        if left.set[at] {
            let mut chain = vec![Pixel { x: at % width, y: at / width }];
            left.set[at] = false;
            left.follow(&mut chain);
            chain.reverse();
            left.follow(&mut chain);
            chains.push(chain);
        }
    }
    chains
}

struct Mask {
    width: usize,
    height: usize,
    set: Vec<bool>,
}

impl Mask {
    /// Appends neighbours of the end to the chain, and clears them, until there are none.
    fn follow(&mut self, chain: &mut Chain) {
        while let Some(&end) = chain.last() {
            let from = chain[chain.len().saturating_sub(BACK + 1)];
            let Some(next) = self.next(from, end) else { return };
            self.set[next.y * self.width + next.x] = false;
            chain.push(next);
        }
    }

    /// The neighbour of `end` that continues straightest from `from`.
    fn next(&self, from: Pixel, end: Pixel) -> Option<Pixel> {
        let rows = end.y.saturating_sub(1)..(end.y + 2).min(self.height);
        let columns = end.x.saturating_sub(1)..(end.x + 2).min(self.width);
        let around = rows.flat_map(|y| columns.clone().map(move |x| Pixel { x, y }));
        let away = |a: usize, b: usize| a as i64 - b as i64;
        let straightness = |next: &Pixel| {
            let (x, y) = (away(next.x, end.x), away(next.y, end.y));
            // Direct neighbours come before diagonal ones, so that no pixel of a staircase is left behind.
            (4 * (x * away(end.x, from.x) + y * away(end.y, from.y)), -(x * x + y * y))
        };
        around.filter(|pixel| self.set[pixel.y * self.width + pixel.x]).max_by_key(straightness)
    }
}

/// The smoothed stroke of a chain; none for an empty chain. A chain that ends where it starts becomes a closed stroke.
pub(super) fn smoothed(chain: &Chain) -> Option<Path> {
    let (first, last) = (chain.first()?, chain.last()?);
    let closed = chain.len() > 4 * REACH && first.x.abs_diff(last.x) <= 1 && first.y.abs_diff(last.y) <= 1;
    let points: Vec<Vertex<f32>> = (0..chain.len()).map(|i| averaged(chain, i, closed)).collect();
    let mut builder = PathBuilder::new();
    let vertices = approximate_polygon_dp(&points, TOLERANCE, false);
    let (start, others) = vertices.split_first()?;
    builder.move_to(start.x, start.y);
    others.iter().for_each(|vertex| builder.line_to(vertex.x, vertex.y));
    if closed {
        builder.close();
    }
    builder.finish()
}

/// The mean of the pixels around pixel `i` of a chain; the ends of an open chain do not move.
fn averaged(chain: &Chain, i: usize, closed: bool) -> Vertex<f32> {
    let count = chain.len();
    let reach = if closed { REACH } else { REACH.min(i).min(count - 1 - i) };
    let around = || (0..2 * reach + 1).map(|k| chain[(i + count + k - reach) % count]);
    let mean = |sum: usize| sum as f32 / (2 * reach + 1) as f32 + 0.5;
    Vertex::new(mean(around().map(|pixel| pixel.x).sum()), mean(around().map(|pixel| pixel.y).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Luma;

    fn picture(rows: &[&str]) -> GrayImage {
        let ink = |x: u32, y: u32| rows[y as usize].as_bytes()[x as usize] == b'#';
        GrayImage::from_fn(rows[0].len() as u32, rows.len() as u32, |x, y| Luma([u8::from(ink(x, y))]))
    }

    #[test]
    fn crossing_lines_are_two() {
        let mut lengths: Vec<usize> =
            chains(&picture(&["...#...", "...#...", "...#...", "#######", "...#...", "...#...", "...#..."]))
                .iter()
                .map(Vec::len)
                .collect();
        lengths.sort_unstable();
        // One of them goes through the crossing; the other is cut by it, and its far half goes with neither.
        assert_eq!(lengths.iter().sum::<usize>(), 13);
        assert_eq!(lengths.last(), Some(&7));
    }

    #[test]
    fn every_pixel_is_in_one_chain_of_neighbours() {
        let square = picture(&["######", "#....#", "#....#", "#....#", "######"]);
        let found = chains(&square);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].len(), 18);
        let near = |pair: &[Pixel]| pair[0].x.abs_diff(pair[1].x) <= 1 && pair[0].y.abs_diff(pair[1].y) <= 1;
        assert!(found[0].windows(2).all(near));
    }

    #[test]
    fn stairs_become_a_straight_stroke() {
        let stair: Chain = (0..60).map(|x| Pixel { x, y: x / 2 }).collect();
        let path = smoothed(&stair).unwrap();
        assert!(path.points().len() <= 3, "{} points", path.points().len());
        let [first, last] = [path.points()[0], path.points()[path.points().len() - 1]];
        assert_eq!((first.x, first.y, last.x, last.y), (0.5, 0.5, 59.5, 29.5));
    }
}
