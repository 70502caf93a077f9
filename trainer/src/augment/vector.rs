//! Augments vector drawings: drops and distorts strokes, then applies an affine map.

use sketch_model::render::vector::{Shape, VectorDrawing};
use tiny_skia::{Path, PathSegment, Point, Rect};

use super::hand::Hand;
use super::options::SketchOptions;
use super::{Augmentation, Rng, affine};

/// Augments a drawing, keeping the order of strokes; a drawing without extent is unchanged.
pub(super) fn vary(drawing: &VectorDrawing, by: &Augmentation, rng: &mut Rng) -> VectorDrawing {
    let Some(side) = longer_side(&drawing.shapes) else { return drawing.clone() };
    let whole = affine::draw(by, rng);
    let shapes = kept(&drawing.shapes, &by.sketch, rng).into_iter().map(|shape| {
        let bounds = shape.path.bounds();
        let middle = Point::from_xy((bounds.left() + bounds.right()) / 2.0, (bounds.top() + bounds.bottom()) / 2.0);
        let drawn = Hand::draw(middle, side, &by.sketch, rng).stroke(&shape.path, rng);
        let path = drawn.and_then(|path| path.transform(whole)).unwrap_or_else(|| shape.path.clone());
        Shape { path, ..shape.clone() }
    });
    // The original canvas no longer frames the drawing.
    VectorDrawing { shapes: shapes.collect(), canvas: None }
}

/// None for a drawing without extent.
fn longer_side(shapes: &[Shape]) -> Option<f32> {
    let union = |a: Rect, b: Rect| {
        let (left, top) = (a.left().min(b.left()), a.top().min(b.top()));
        Rect::from_ltrb(left, top, a.right().max(b.right()), a.bottom().max(b.bottom())).unwrap_or(a)
    };
    let bounds = shapes.iter().map(|shape| shape.path.bounds()).reduce(union)?;
    Some(bounds.width().max(bounds.height())).filter(|side| *side > 0.0)
}

/// The shapes that are kept. The longest always is, and all are if the longest is a dot.
fn kept<'a>(shapes: &'a [Shape], by: &SketchOptions, rng: &mut Rng) -> Vec<&'a Shape> {
    let lengths: Vec<f32> = shapes.iter().map(|shape| length(&shape.path)).collect();
    let longest = (0..shapes.len()).max_by(|&a, &b| lengths[a].total_cmp(&lengths[b]));
    let lacking = if rng.chance(by.truncated) { rng.uniform(0.0, by.truncation) } else { 0.0 };
    let finished = shapes.len() - (lacking * shapes.len() as f32) as usize;
    let all = longest.is_none_or(|longest| lengths[longest] == 0.0);
    let stays = |(i, _): &(usize, &Shape)| {
        let drawn = !rng.chance(by.dropout) && *i < finished;
        drawn || all || Some(*i) == longest
    };
    shapes.iter().enumerate().filter(stays).map(|(_, shape)| shape).collect()
}

/// Length of the lines through the points of a path.
fn length(path: &Path) -> f32 {
    let (mut length, mut at) = (0.0, Point::zero());
    for segment in path.segments() {
        let to = match segment {
            PathSegment::MoveTo(to) => {
                at = to;
                to
            }
            PathSegment::LineTo(to) | PathSegment::QuadTo(_, to) | PathSegment::CubicTo(_, _, to) => to,
            PathSegment::Close => at,
        };
        length += at.distance(to);
        at = to;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use sketch_model::limits::Limits;
    use sketch_model::render::strokes::{StrokesInput, parse};

    fn drawing(json: &str) -> VectorDrawing {
        match parse(json.as_bytes(), &Limits::default()).unwrap() {
            StrokesInput::Strokes(drawing) => drawing,
            StrokesInput::Text(_) => panic!("these are strokes"),
        }
    }

    fn ten_lines() -> VectorDrawing {
        let lines: Vec<String> = (0..10).map(|i| format!("[[0,{}],[{i},{i}]]", if i == 7 { 90 } else { 30 })).collect();
        drawing(&format!("[{}]", lines.join(",")))
    }

    #[test]
    fn strokes_are_left_out_as_often_as_asked_and_the_longest_never() {
        let drawing = ten_lines();
        let by = SketchOptions { dropout: 0.3, ..SketchOptions::none() };
        let mut total = 0;
        for seed in 0..400 {
            let kept = kept(&drawing.shapes, &by, &mut Rng::new(&[seed]));
            assert!(kept.iter().any(|shape| std::ptr::eq(*shape, &drawing.shapes[7])));
            total += kept.len();
        }
        // 1 + 9 · 0.7 of ten; the standard error of the mean is 0.07.
        assert!((total as f32 / 400.0 - 7.3).abs() < 0.3, "{total}");
    }

    #[test]
    fn unfinished_drawings_lack_the_last_strokes() {
        let drawing = ten_lines();
        let by = SketchOptions { truncated: 1.0, truncation: 0.5, ..SketchOptions::none() };
        let mut shortest = 10;
        for seed in 0..200 {
            let kept = kept(&drawing.shapes, &by, &mut Rng::new(&[seed]));
            let first = kept.len() - usize::from(kept.len() < 8);
            let in_order = kept[..first].iter().zip(&drawing.shapes).all(|(kept, shape)| std::ptr::eq(*kept, shape));
            assert!(in_order, "{} strokes", kept.len());
            shortest = shortest.min(kept.len());
        }
        assert!((6..=7).contains(&shortest), "{shortest}");
    }

    #[test]
    fn two_dots_stay_two_dots() {
        let drawing = drawing("[[[0],[0]],[[9],[9]]]");
        let by = SketchOptions { dropout: 1.0, ..SketchOptions::none() };
        assert_eq!(kept(&drawing.shapes, &by, &mut Rng::new(&[1])).len(), 2);
    }

    #[test]
    fn a_hand_strays_as_far_as_asked_and_smoothly() {
        let drawing = drawing("[[[0,100],[0,0]],[[0,100],[100,100]]]");
        let sketch = SketchOptions { wobble: 0.02, ..SketchOptions::none() };
        let by = Augmentation { sketch, ..Augmentation::none() };
        let (mut squares, mut steps, mut count) = (0.0, 0.0f32, 0.0);
        for seed in 0..300 {
            let varied = vary(&drawing, &by, &mut Rng::new(&[seed]));
            let ys: Vec<f32> = varied.shapes[0].path.points().iter().map(|point| point.y).collect();
            squares += ys.iter().map(|y| y * y).sum::<f32>();
            steps = ys.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(steps, f32::max);
            count += ys.len() as f32;
        }
        let deviation = (squares / count).sqrt();
        assert!((deviation / 0.02 - 1.0).abs() < 0.15, "{deviation}");
        assert!(steps < 0.07, "{steps}");
    }
}
