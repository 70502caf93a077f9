//! A drawing as shapes: paths with their colours.

use tiny_skia::{FillRule, Path, Rect};

/// Shapes in the order in which they are painted, all in one coordinate system with y pointing down.
#[derive(Clone, Debug, Default)]
pub struct VectorDrawing {
    pub shapes: Vec<Shape>,
    /// The sheet that the drawing was made on, if its format has one (an SVG's viewport).
    pub canvas: Option<Rect>,
}

/// One path. Its stroke has no width of its own: preprocessing draws every stroke as wide as the
/// network saw them in training.
#[derive(Clone, Debug)]
pub struct Shape {
    pub path: Path,
    pub fill: Option<Fill>,
    pub stroke: Option<Colour>,
    /// Whether the stroke is painted below the fill.
    pub stroke_first: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fill {
    pub colour: Colour,
    pub rule: FillRule,
}

/// Straight (not premultiplied) sRGB with alpha.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    pub red: u8,
    pub green: u8,
    pub blue: u8,
    pub alpha: u8,
}

impl Colour {
    pub const BLACK: Self = Self::grey(0);
    pub const WHITE: Self = Self::grey(255);

    pub const fn grey(value: u8) -> Self {
        Self { red: value, green: value, blue: value, alpha: 255 }
    }
}
