//! SVG to a vector drawing: `usvg` resolves styles, `use`, units and transforms, and the tree that it
//! gives is walked here.
//!
//! A full renderer would draw the author's stroke widths; a network that was trained on thin lines needs
//! its own. So only paths and colours are taken. Clip paths and dashes are ignored, group opacity is
//! multiplied into the colours, and a gradient counts as the mean of its stops.

use tiny_skia::{FillRule, Rect, Transform};
use usvg::roxmltree::{self, ParsingOptions};

use crate::limits::Limits;
use crate::render::svg_guard;
pub use crate::render::svg_guard::SvgError;
use crate::render::vector::{Colour, Fill, Shape, VectorDrawing};

/// Parses SVG text; the shapes come in painting order, in user units of the outermost viewport.
///
/// # Errors
/// [`SvgError`]: malformed or too costly text, references to other files, or elements that cannot be
/// drawn as strokes and fills (text, images, filters, masks, patterns, markers).
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<VectorDrawing, SvgError> {
    let text = std::str::from_utf8(bytes).map_err(|_| SvgError::NotUtf8)?;
    let text = text.trim_start_matches('\u{feff}');
    svg_guard::check_text(text, limits)?;
    let options = ParsingOptions {
        // A plain DOCTYPE is common; entities were refused above.
        allow_dtd: true,
        nodes_limit: svg_guard::MAX_XML_NODES,
        ..ParsingOptions::default()
    };
    let document = roxmltree::Document::parse_with_options(text, options)
        .map_err(|error| SvgError::Malformed { reason: error.to_string() })?;
    svg_guard::check_document(&document, text, limits)?;
    let tree = usvg::Tree::from_xmltree(&document, &options_without_effects(text))
        .map_err(|error| SvgError::Malformed { reason: error.to_string() })?;
    let mut drawing = VectorDrawing {
        shapes: Vec::new(),
        canvas: Rect::from_xywh(0.0, 0.0, tree.size().width(), tree.size().height()),
    };
    collect(tree.root(), 1.0, &mut drawing.shapes);
    Ok(drawing)
}

/// What is not drawn is switched off in `usvg` already, so that it cannot cost time there either.
///
/// It strokes every path at the author's width only to know its bounding box, which takes 25 µs for a curve under a
/// wide stroke. So widths are made 1 as well, unless one of them is zero: that means no stroke.
fn options_without_effects(text: &str) -> usvg::Options<'static> {
    const NO_EFFECTS: &str = "* { clip-path: none !important; mask: none !important; \
        filter: none !important; marker: none !important; stroke-dasharray: none !important; \
        stroke-linejoin: bevel !important; stroke-linecap: butt !important }";
    const SAME_WIDTH: &str = "* { stroke-width: 1 !important }";
    let same_width = if svg_guard::has_zero_width(text) { "" } else { SAME_WIDTH };
    usvg::Options { style_sheet: Some(format!("{NO_EFFECTS}{same_width}")), ..usvg::Options::default() }
}

fn collect(group: &usvg::Group, opacity: f32, shapes: &mut Vec<Shape>) {
    let opacity = opacity * group.opacity().get();
    for node in group.children() {
        match node {
            usvg::Node::Group(group) => collect(group, opacity, shapes),
            usvg::Node::Path(path) => shapes.extend(shape(path, opacity)),
            usvg::Node::Image(_) | usvg::Node::Text(_) => {}
        }
    }
}

fn shape(path: &usvg::Path, opacity: f32) -> Option<Shape> {
    if !path.is_visible() {
        return None;
    }
    let fill = path.fill().and_then(|fill| {
        Some(Fill {
            colour: colour(fill.paint(), opacity * fill.opacity().get())?,
            rule: match fill.rule() {
                usvg::FillRule::NonZero => FillRule::Winding,
                usvg::FillRule::EvenOdd => FillRule::EvenOdd,
            },
        })
    });
    let stroke = path.stroke().and_then(|stroke| colour(stroke.paint(), opacity * stroke.opacity().get()));
    if fill.is_none() && stroke.is_none() {
        return None;
    }
    Some(Shape {
        path: transformed(path.data().clone(), path.abs_transform())?,
        fill,
        stroke,
        stroke_first: path.paint_order() == usvg::PaintOrder::StrokeAndFill,
    })
}

fn transformed(path: tiny_skia::Path, transform: Transform) -> Option<tiny_skia::Path> {
    if transform.is_identity() {
        return Some(path);
    }
    path.transform(transform)
}

/// The paint as one colour, or `None` if it is invisible.
fn colour(paint: &usvg::Paint, opacity: f32) -> Option<Colour> {
    let (red, green, blue, alpha) = match paint {
        usvg::Paint::Color(colour) => (f32::from(colour.red), f32::from(colour.green), f32::from(colour.blue), 1.0),
        usvg::Paint::LinearGradient(gradient) => mean_stop(gradient.stops())?,
        usvg::Paint::RadialGradient(gradient) => mean_stop(gradient.stops())?,
        usvg::Paint::Pattern(_) => return None,
    };
    let alpha = (alpha * opacity * 255.0).round();
    (alpha > 0.0).then_some(Colour {
        red: red.round() as u8,
        green: green.round() as u8,
        blue: blue.round() as u8,
        alpha: alpha as u8,
    })
}

fn mean_stop(stops: &[usvg::Stop]) -> Option<(f32, f32, f32, f32)> {
    let mean = |value: fn(&usvg::Stop) -> f32| stops.iter().map(value).sum::<f32>() / stops.len() as f32;
    (!stops.is_empty()).then(|| {
        (
            mean(|stop| f32::from(stop.color().red)),
            mean(|stop| f32::from(stop.color().green)),
            mean(|stop| f32::from(stop.color().blue)),
            mean(|stop| stop.opacity().get()),
        )
    })
}
