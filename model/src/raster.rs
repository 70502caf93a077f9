//! Drawing vector shapes at the network's own size and stroke width.

use tiny_skia::{FillRule, LineCap, LineJoin, Paint, Path, PathSegment, Pixmap, Rect, Stroke, Transform};

use crate::drawing::{Colour, Shape, VectorDrawing};

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
    let fill = first.fill.filter(|fill| fill.colour.alpha == 255)?;
    let all = others.iter().map(|shape| shape.path.bounds()).reduce(union)?;
    let all = match drawing.canvas {
        Some(canvas) => intersection(all, canvas)?,
        None => all,
    };
    let back = first.path.bounds();
    let covers = back.left() <= all.left()
        && back.top() <= all.top()
        && back.right() >= all.right()
        && back.bottom() >= all.bottom();
    (covers && is_rectangle(&first.path)).then_some(fill.colour)
}

/// Whether all points of the path are corners of its bounding box.
fn is_rectangle(path: &Path) -> bool {
    let bounds = path.bounds();
    let tolerance = 1e-3 * bounds.width().max(bounds.height());
    let near = |value: f32, low: f32, high: f32| (value - low).abs() <= tolerance || (value - high).abs() <= tolerance;
    path.segments().all(|segment| match segment {
        PathSegment::MoveTo(point) | PathSegment::LineTo(point) => {
            near(point.x, bounds.left(), bounds.right()) && near(point.y, bounds.top(), bounds.bottom())
        }
        PathSegment::Close => true,
        PathSegment::QuadTo(..) | PathSegment::CubicTo(..) => false,
    })
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

/// Draws `drawing` as RGBA pixels on an opaque square.
///
/// Returns `None` if nothing that differs from the background has an extent.
pub(crate) fn draw(drawing: &VectorDrawing, layout: &Layout) -> Option<Pixmap> {
    let background = if layout.turn_over { background(drawing) } else { Colour::WHITE };
    let ink = ink_bounds(drawing, background)?;
    if ink.width() <= 0.0 && ink.height() <= 0.0 {
        return None;
    }
    let transform = match layout.margin {
        Some(margin) => centre(ink, layout, margin),
        None => squash(drawing.canvas.unwrap_or(ink), layout),
    }?;
    let turn = layout.turn_over && luma(background) < 127.5;
    let mut pixmap = Pixmap::new(layout.size, layout.size)?;
    pixmap.fill(if turn { turned(background) } else { background }.into());
    for shape in &drawing.shapes {
        draw_shape(shape, transform, layout, turn, &mut pixmap);
    }
    Some(pixmap)
}

/// Maps the ink, strokes included, to the middle of the square.
fn centre(ink: Rect, layout: &Layout, margin: f32) -> Option<Transform> {
    let size = f64::from(layout.size);
    let inner = (size / (1.0 + 2.0 * f64::from(margin)) - f64::from(layout.stroke)).max(1.0);
    let (width, height) = (f64::from(ink.width()), f64::from(ink.height()));
    let scale = inner / width.max(height);
    let x = size / 2.0 - scale * (f64::from(ink.left()) + width / 2.0);
    let y = size / 2.0 - scale * (f64::from(ink.top()) + height / 2.0);
    finite(Transform::from_row(scale as f32, 0.0, 0.0, scale as f32, x as f32, y as f32))
}

fn squash(canvas: Rect, layout: &Layout) -> Option<Transform> {
    let inner = layout.size as f32 - layout.stroke;
    let scale = |extent: f32| if extent > 0.0 { inner / extent } else { 1.0 };
    let (sx, sy) = (scale(canvas.width()), scale(canvas.height()));
    let half = layout.stroke / 2.0;
    finite(Transform::from_row(sx, 0.0, 0.0, sy, half - sx * canvas.left(), half - sy * canvas.top()))
}

fn finite(transform: Transform) -> Option<Transform> {
    transform.is_finite().then_some(transform)
}

fn draw_shape(shape: &Shape, transform: Transform, layout: &Layout, turn: bool, pixmap: &mut Pixmap) {
    let Some(path) = shape.path.clone().transform(transform) else {
        return;
    };
    let paint = |colour: Colour| {
        let mut paint = Paint::default();
        paint.set_color(if turn { turned(colour) } else { colour }.into());
        paint
    };
    let fill = |pixmap: &mut Pixmap| {
        if let Some(fill) = shape.fill {
            pixmap.fill_path(&path, &paint(fill.colour), fill.rule, Transform::identity(), None);
        }
    };
    let stroke = |pixmap: &mut Pixmap| {
        if let Some(colour) = shape.stroke {
            draw_stroke(&path, &paint(colour), layout.stroke, pixmap);
        }
    };
    if shape.stroke_first {
        stroke(pixmap);
        fill(pixmap);
    } else {
        fill(pixmap);
        stroke(pixmap);
    }
}

/// Strokes with round caps and joins. The outline is filled, not handed to the renderer as a stroke, so that widths
/// below a pixel are drawn like all others.
fn draw_stroke(path: &Path, paint: &Paint, width: f32, pixmap: &mut Pixmap) {
    let pen = Stroke { width, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() };
    if let Some(outline) = path.stroke(&pen, 1.0) {
        pixmap.fill_path(&outline, paint, FillRule::Winding, Transform::identity(), None);
    }
}

fn turned(colour: Colour) -> Colour {
    Colour { red: 255 - colour.red, green: 255 - colour.green, blue: 255 - colour.blue, alpha: colour.alpha }
}

impl From<Colour> for tiny_skia::Color {
    fn from(colour: Colour) -> Self {
        Self::from_rgba8(colour.red, colour.green, colour.blue, colour.alpha)
    }
}
