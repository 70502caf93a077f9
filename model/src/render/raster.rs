//! Drawing vector shapes at the network's own size and stroke width.

use image::{Rgb, RgbImage};
use tiny_skia::{Path, PathSegment, Point, Rect, Transform};

use crate::render::coverage::Coverage;
use crate::render::vector::{Colour, Shape, VectorDrawing};

/// How a vector drawing is laid on the square.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Layout {
    /// Side of the square in pixels.
    pub size: u32,
    /// Width of every stroke in pixels.
    pub stroke: f32,
    /// Blank space on each side, as a share of the ink's longer side; `None` draws the whole canvas,
    /// its width and height each scaled to the square.
    pub margin: Option<f32>,
    /// Whether a dark background or light ink without background is turned over.
    pub turn_over: bool,
}

/// Colour of what the shapes are drawn on.
///
/// That is white, unless the first shape is a filled rectangle behind all others; and black if there is no such
/// rectangle but every shape is lighter than middle grey, for that was made on a dark screen.
pub(crate) fn background(drawing: &VectorDrawing) -> Colour {
    if let Some(colour) = backdrop(drawing) {
        return colour;
    }
    let colours = || drawing.shapes.iter().flat_map(colours);
    if colours().next().is_some() && colours().all(|colour| luma(colour) > 127.5) {
        return Colour::BLACK;
    }
    Colour::WHITE
}

fn backdrop(drawing: &VectorDrawing) -> Option<Colour> {
    let (first, others) = drawing.shapes.split_first()?;
    let colour = first.fill.filter(|fill| fill.colour.alpha == 255)?.colour;
    let all = others.iter().map(|shape| shape.path.bounds()).reduce(union)?;
    let seen = match drawing.canvas {
        Some(canvas) => intersection(all, canvas)?,
        None => all,
    };
    let shows = others.iter().flat_map(colours).any(|other| other != colour);
    (shows && is_rectangle(&first.path) && covers(first.path.bounds(), seen)).then_some(colour)
}

fn covers(outer: Rect, inner: Rect) -> bool {
    let beside = outer.left() <= inner.left() && outer.right() >= inner.right();
    beside && outer.top() <= inner.top() && outer.bottom() >= inner.bottom()
}

/// Whether the points of the path are the four corners of its bounding box, and no others.
fn is_rectangle(path: &Path) -> bool {
    let bounds = path.bounds();
    let tolerance = 1e-3 * bounds.width().max(bounds.height());
    let near = |value: f32, side: f32| (value - side).abs() <= tolerance;
    let corner = |point: Point| {
        let corners = [(bounds.left(), bounds.top()), (bounds.right(), bounds.top())];
        let corners = corners.into_iter().chain([(bounds.left(), bounds.bottom()), (bounds.right(), bounds.bottom())]);
        corners.enumerate().find(|&(_, (x, y))| near(point.x, x) && near(point.y, y)).map(|(index, _)| 1 << index)
    };
    let mut seen = 0;
    for segment in path.segments() {
        let at = match segment {
            PathSegment::MoveTo(point) | PathSegment::LineTo(point) => corner(point),
            PathSegment::Close => Some(0),
            PathSegment::QuadTo(..) | PathSegment::CubicTo(..) => None,
        };
        match at {
            Some(corner) => seen |= corner,
            None => return false,
        }
    }
    seen == 0b1111
}

fn colours(shape: &Shape) -> impl Iterator<Item = Colour> {
    shape.fill.map(|fill| fill.colour).into_iter().chain(shape.stroke)
}

/// Source: ITU-R BT.601.
fn luma(colour: Colour) -> f32 {
    0.299 * f32::from(colour.red) + 0.587 * f32::from(colour.green) + 0.114 * f32::from(colour.blue)
}

fn union(a: Rect, b: Rect) -> Rect {
    Rect::from_ltrb(a.left().min(b.left()), a.top().min(b.top()), a.right().max(b.right()), a.bottom().max(b.bottom()))
        .unwrap_or(a)
}

fn intersection(a: Rect, b: Rect) -> Option<Rect> {
    Rect::from_ltrb(a.left().max(b.left()), a.top().max(b.top()), a.right().min(b.right()), a.bottom().min(b.bottom()))
}

/// Box around all that differs from `background`, strokes counted without their width.
fn ink_bounds(drawing: &VectorDrawing, background: Colour) -> Option<Rect> {
    let shows = |shape: &&Shape| colours(shape).any(|colour| colour != background);
    drawing.shapes.iter().filter(shows).map(|shape| shape.path.bounds()).reduce(union)
}

/// Why a drawing was not drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotDrawn {
    /// Nothing that differs from the background has an extent.
    Blank,
    TooMuchPaint,
}

/// Pixels that may be painted, in squares of the picture: a second's work. Each sample point of a fill counts as
/// much as a pixel of a stroke.
const MAX_PAINT: usize = 10_000;

/// Draws `drawing` on an opaque square of `layout.size` pixels.
pub(crate) fn draw(drawing: &VectorDrawing, layout: &Layout) -> Result<RgbImage, NotDrawn> {
    let background = if layout.turn_over { background(drawing) } else { Colour::WHITE };
    let ink = ink_bounds(drawing, background).filter(|ink| ink.width() > 0.0 || ink.height() > 0.0);
    let ink = ink.ok_or(NotDrawn::Blank)?;
    let transform = match layout.margin {
        Some(margin) => centre(ink, layout, margin),
        None => squash(drawing.canvas.unwrap_or(ink), layout),
    };
    let turn = layout.turn_over && luma(background) < 127.5;
    let mut canvas = Canvas::new(layout, if turn { turned(background) } else { background });
    for shape in &drawing.shapes {
        if let Some(path) = shape.path.clone().transform(transform) {
            canvas.draw(&path, shape, |colour| if turn { turned(colour) } else { colour })?;
        }
    }
    Ok(canvas.picture)
}

/// A picture that is painted shape by shape.
struct Canvas {
    picture: RgbImage,
    coverage: Coverage,
    stroke: f32,
    /// Pixels that may still be painted.
    paint: usize,
}

impl Canvas {
    fn new(layout: &Layout, background: Colour) -> Self {
        let size = layout.size as usize;
        Self {
            picture: RgbImage::from_pixel(layout.size, layout.size, Rgb(channels(background))),
            coverage: Coverage::new(size),
            stroke: layout.stroke,
            paint: MAX_PAINT * size * size,
        }
    }

    fn draw(&mut self, path: &Path, shape: &Shape, ink: impl Fn(Colour) -> Colour) -> Result<(), NotDrawn> {
        if let (true, Some(colour)) = (shape.stroke_first, shape.stroke) {
            self.stroke(path, ink(colour))?;
        }
        if let Some(fill) = shape.fill {
            let samples = self.coverage.fill(path, fill.rule);
            self.spend(samples)?;
            self.paint(ink(fill.colour))?;
        }
        if let (false, Some(colour)) = (shape.stroke_first, shape.stroke) {
            self.stroke(path, ink(colour))?;
        }
        Ok(())
    }

    fn stroke(&mut self, path: &Path, colour: Colour) -> Result<(), NotDrawn> {
        self.coverage.stroke(path, self.stroke);
        self.paint(colour)
    }

    /// Lays `colour` over the picture where the last shape covers it.
    fn paint(&mut self, colour: Colour) -> Result<(), NotDrawn> {
        let opacity = f32::from(colour.alpha) / 255.0;
        let colour = channels(colour).map(f32::from);
        let pixels: &mut [u8] = &mut self.picture;
        let painted = self.coverage.take(|index, coverage| {
            for (value, colour) in pixels[3 * index..3 * index + 3].iter_mut().zip(colour) {
                let below = f32::from(*value);
                // Rounds to the nearest; `f32::round` is a call into the C library.
                *value = (below + (colour - below) * coverage * opacity + 0.5) as u8;
            }
        });
        self.spend(painted)
    }

    fn spend(&mut self, pixels: usize) -> Result<(), NotDrawn> {
        self.paint = self.paint.checked_sub(pixels).ok_or(NotDrawn::TooMuchPaint)?;
        Ok(())
    }
}

fn channels(colour: Colour) -> [u8; 3] {
    [colour.red, colour.green, colour.blue]
}

/// Maps the ink, strokes included, to the middle of the square.
fn centre(ink: Rect, layout: &Layout, margin: f32) -> Transform {
    let size = f64::from(layout.size);
    let inner = (size / (1.0 + 2.0 * f64::from(margin)) - f64::from(layout.stroke)).max(1.0);
    let (width, height) = (f64::from(ink.width()), f64::from(ink.height()));
    let scale = inner / width.max(height);
    let x = size / 2.0 - scale * (f64::from(ink.left()) + width / 2.0);
    let y = size / 2.0 - scale * (f64::from(ink.top()) + height / 2.0);
    Transform::from_row(scale as f32, 0.0, 0.0, scale as f32, x as f32, y as f32)
}

fn squash(canvas: Rect, layout: &Layout) -> Transform {
    let inner = layout.size as f32 - layout.stroke;
    let scale = |extent: f32| if extent > 0.0 { inner / extent } else { 1.0 };
    let (sx, sy) = (scale(canvas.width()), scale(canvas.height()));
    let half = layout.stroke / 2.0;
    Transform::from_row(sx, 0.0, 0.0, sy, half - sx * canvas.left(), half - sy * canvas.top())
}

fn turned(colour: Colour) -> Colour {
    Colour { red: 255 - colour.red, green: 255 - colour.green, blue: 255 - colour.blue, alpha: colour.alpha }
}
