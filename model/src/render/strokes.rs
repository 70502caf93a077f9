//! Strokes as JSON, the way drawing canvases and QuickDraw give them.
//!
//! | shape | who writes it |
//! | --- | --- |
//! | `[[[x…],[y…]], …]`, or `[[x…],[y…]]` for one stroke; a third array (times) is ignored | QuickDraw |
//! | `[{"x":…,"y":…}, …]` (one stroke), `[[{"x":…,"y":…}, …], …]` | canvases |
//! | `[{"points":[{"x":…,"y":…}, …]}, …]` | signature_pad |
//! | `{"drawing": …}`, `{"strokes": …}`, `{"points": …}` around any of these | QuickDraw's ndjson, others |
//!
//! The text is parsed as a stream: only coordinates are kept, and parsing stops at the limit.

use std::cell::{Cell, RefCell};

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tiny_skia::PathBuilder;

use crate::limits::Limits;
use crate::render::vector::{Colour, Shape, VectorDrawing};

/// Why strokes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrokesError {
    #[error("strokes have a coordinate that is not a finite number")]
    NotFinite,
    #[error("stroke has {x} x coordinates and {y} y coordinates")]
    UnequalLengths { x: usize, y: usize },
    #[error("drawing has more than {limit} points")]
    TooManyPoints { limit: usize },
    #[error("drawing has no points")]
    NoPoints,
    /// The shapes that are accepted are those at the head of this module.
    #[error("strokes have an unexpected shape: {found}")]
    UnexpectedShape { found: &'static str },
    #[error("strokes are not valid JSON: {reason}")]
    Json { reason: String },
}

/// What a JSON text holds.
#[derive(Debug)]
pub enum StrokesInput {
    Strokes(VectorDrawing),
    /// A JSON string, which should be a `data:` URI.
    Text(String),
}

/// Objects and arrays around a coordinate, at most: `{"drawing":[{"points":[{"x":…` has five.
const MAX_DEPTH: usize = 6;

type Point = [f64; 2];

/// Reads strokes, or one string, from JSON text.
///
/// `json` must have been checked against `limits.bytes`. Coordinates are shifted and scaled to a unit box;
/// a drawing without extent keeps the extent zero.
///
/// # Errors
/// [`StrokesError`], as soon as the text departs from the accepted shapes or exceeds `limits.points`.
pub fn parse(json: &[u8], limits: &Limits) -> Result<StrokesInput, StrokesError> {
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    let reader = Reader::new(limits.points);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let seed = NodeSeed { reader: &reader, depth: 0 };
    let node = seed
        .deserialize(&mut deserializer)
        .and_then(|node| deserializer.end().map(|()| node))
        .map_err(|error| reader.explain(&error, json))?;
    match node {
        Node::Text(text) => Ok(StrokesInput::Text(text)),
        node => Ok(StrokesInput::Strokes(to_drawing(&node.into_strokes(&reader)?)?)),
    }
}

/// What has been read of the text so far, for all levels of nesting.
struct Reader {
    limit: usize,
    /// Numbers and arrays read; three numbers a point, and an array costs as much as a point.
    spent: Cell<usize>,
    error: RefCell<Option<StrokesError>>,
}

impl Reader {
    fn new(limit: usize) -> Self {
        Self { limit, spent: Cell::new(0), error: RefCell::new(None) }
    }

    /// Ends the reading with `error`; serde's own error types can carry text only.
    fn fail<T, E: serde::de::Error>(&self, error: StrokesError) -> Result<T, E> {
        let text = error.to_string();
        self.error.borrow_mut().get_or_insert(error);
        Err(E::custom(text))
    }

    fn unexpected<T, E: serde::de::Error>(&self, found: &'static str) -> Result<T, E> {
        self.fail(StrokesError::UnexpectedShape { found })
    }

    fn spend<E: serde::de::Error>(&self, cost: usize) -> Result<(), E> {
        let spent = self.spent.get() + cost;
        self.spent.set(spent);
        if spent > self.limit.saturating_mul(3) {
            return self.fail(StrokesError::TooManyPoints { limit: self.limit });
        }
        Ok(())
    }

    fn explain(&self, error: &serde_json::Error, json: &[u8]) -> StrokesError {
        if let Some(known) = self.error.borrow_mut().take() {
            return known;
        }
        let reason = error.to_string();
        if reason.starts_with("number out of range") || names_a_non_number(error, json) {
            return StrokesError::NotFinite;
        }
        StrokesError::Json { reason }
    }
}

/// Whether `error` points at a word that JavaScript or Python write for what is not a finite number.
fn names_a_non_number(error: &serde_json::Error, json: &[u8]) -> bool {
    let line = json.split(|&byte| byte == b'\n').nth(error.line().saturating_sub(1));
    let rest = line.and_then(|line| line.get(error.column().saturating_sub(1)..)).unwrap_or_default();
    let rest = rest.strip_prefix(b"-").unwrap_or(rest);
    let near = error.is_syntax() && !rest.is_empty();
    near && [&b"NaN"[..], b"nan", b"Infinity", b"inf"].iter().any(|word| rest.starts_with(word))
}

/// One JSON value, as far as it can be part of a drawing.
enum Node {
    Empty,
    /// What `JSON.stringify` writes for NaN and infinity.
    Null,
    Number(f64),
    /// `[x, …]`
    Row(Vec<f64>),
    Point(Point),
    Strokes(Vec<Vec<Point>>),
    Text(String),
}

impl Node {
    fn into_strokes(self, reader: &Reader) -> Result<Vec<Vec<Point>>, StrokesError> {
        let found = match self {
            Self::Strokes(strokes) => return Ok(strokes),
            Self::Empty => return Ok(Vec::new()),
            Self::Point(point) => return Ok(vec![vec![point]]),
            Self::Null => "null",
            Self::Number(_) => "a number",
            Self::Row(_) => "a plain list of numbers",
            Self::Text(_) => "a text",
        };
        Err(reader.error.borrow_mut().take().unwrap_or(StrokesError::UnexpectedShape { found }))
    }
}

#[derive(Clone, Copy)]
struct NodeSeed<'a> {
    reader: &'a Reader,
    depth: usize,
}

impl NodeSeed<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return self.reader.unexpected("arrays or objects nested too deep");
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    fn number<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        if !value.is_finite() {
            return self.reader.fail(StrokesError::NotFinite);
        }
        Ok(Node::Number(value))
    }
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("strokes, points, or coordinates")
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        self.number(value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Node, E> {
        self.number(value as f64)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node, E> {
        self.number(value as f64)
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Node, E> {
        self.reader.unexpected("true or false")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Node, E> {
        if self.depth > 0 {
            return self.reader.unexpected("a text where a point or a coordinate should be");
        }
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let seed = self.deeper()?;
        let mut list = List::new(self.reader);
        while let Some(node) = items.next_element_seed(seed)? {
            list.push(node)?;
        }
        list.finish()
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let seed = self.deeper()?;
        let mut x = None;
        let mut y = None;
        let mut inside = None;
        self.reader.spend(1)?;
        while let Some(key) = entries.next_key::<Key>()? {
            match key {
                Key::X => x = Some(entries.next_value_seed(seed)?),
                Key::Y => y = Some(entries.next_value_seed(seed)?),
                Key::Strokes => inside = Some(entries.next_value_seed(seed)?),
                Key::Other => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        match (inside, x, y) {
            (Some(node), _, _) => match node.into_strokes(self.reader) {
                Ok(strokes) => Ok(Node::Strokes(strokes)),
                Err(error) => self.reader.fail(error),
            },
            (None, Some(Node::Number(x)), Some(Node::Number(y))) => Ok(Node::Point([x, y])),
            (None, Some(Node::Null), Some(_)) | (None, Some(_), Some(Node::Null)) => {
                self.reader.fail(StrokesError::NotFinite)
            }
            (None, None, None) => self.reader.unexpected("an object without x and y, points, strokes or drawing"),
            _ => self.reader.unexpected("a point without both x and y as numbers"),
        }
    }
}

/// Keys that matter; all others (time, pressure, colour, …) are read over.
enum Key {
    X,
    Y,
    Strokes,
    Other,
}

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Key, E> {
                Ok(match key {
                    "x" => Key::X,
                    "y" => Key::Y,
                    "strokes" | "points" | "drawing" => Key::Strokes,
                    _ => Key::Other,
                })
            }
        }
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

/// The items of one array, which must all be of one kind.
struct List<'a> {
    reader: &'a Reader,
    row: Vec<f64>,
    rows: Vec<Vec<f64>>,
    points: Vec<Point>,
    strokes: Vec<Vec<Point>>,
    items: usize,
}

impl<'a> List<'a> {
    fn new(reader: &'a Reader) -> Self {
        Self { reader, row: Vec::new(), rows: Vec::new(), points: Vec::new(), strokes: Vec::new(), items: 0 }
    }

    fn push<E: serde::de::Error>(&mut self, node: Node) -> Result<(), E> {
        // A point has been paid for by its coordinates' object, a stroke by its points.
        let cost = match node {
            Node::Number(_) => 1,
            Node::Point(_) => 2,
            _ => 3,
        };
        self.reader.spend(cost)?;
        self.items += 1;
        match node {
            Node::Empty => {}
            Node::Null => return self.reader.fail(StrokesError::NotFinite),
            Node::Number(value) => self.row.push(value),
            Node::Row(row) => self.rows.push(row),
            Node::Point(point) => self.points.push(point),
            Node::Strokes(mut strokes) => self.strokes.append(&mut strokes),
            Node::Text(_) => return self.reader.unexpected("a text where a stroke should be"),
        }
        Ok(())
    }

    fn finish<E: serde::de::Error>(self) -> Result<Node, E> {
        let reader = self.reader;
        let kinds = [!self.row.is_empty(), !self.rows.is_empty(), !self.points.is_empty(), !self.strokes.is_empty()];
        match kinds {
            [false, false, false, false] => Ok(Node::Empty),
            [true, false, false, false] if self.row.len() == self.items => Ok(Node::Row(self.row)),
            [false, true, false, false] => match stroke_of_rows(&self.rows, self.items) {
                Ok(stroke) => Ok(Node::Strokes(vec![stroke])),
                Err(error) => reader.fail(error),
            },
            [false, false, true, false] => Ok(Node::Strokes(vec![self.points])),
            [false, false, false, true] => Ok(Node::Strokes(self.strokes)),
            _ => reader.unexpected("an array that mixes numbers, points and strokes"),
        }
    }
}

/// Joins the x and y arrays of one QuickDraw stroke; `items` counts its arrays, empty ones too.
fn stroke_of_rows(rows: &[Vec<f64>], items: usize) -> Result<Vec<Point>, StrokesError> {
    match rows {
        [x, y] | [x, y, _] if items == rows.len() => {
            if x.len() != y.len() {
                return Err(StrokesError::UnequalLengths { x: x.len(), y: y.len() });
            }
            Ok(x.iter().zip(y).map(|(&x, &y)| [x, y]).collect())
        }
        [only] => Err(StrokesError::UnequalLengths { x: only.len(), y: 0 }),
        _ => Err(StrokesError::UnexpectedShape {
            found: "a stroke of other than two or three number arrays (x, y, time)",
        }),
    }
}

/// Brings the strokes into a unit box, in double precision, so that neither a far origin nor a huge or
/// tiny scale costs accuracy later.
fn to_drawing(strokes: &[Vec<Point>]) -> Result<VectorDrawing, StrokesError> {
    let points = || strokes.iter().flatten();
    if points().next().is_none() {
        return Err(StrokesError::NoPoints);
    }
    let low = points().fold([f64::INFINITY; 2], |low, p| [low[0].min(p[0]), low[1].min(p[1])]);
    let high = points().fold([f64::NEG_INFINITY; 2], |high, p| [high[0].max(p[0]), high[1].max(p[1])]);
    let extent = (high[0] - low[0]).max(high[1] - low[1]);
    if !extent.is_finite() {
        return Err(StrokesError::NotFinite);
    }
    let unit = |value: f64, low: f64| if extent > 0.0 { ((value - low) / extent) as f32 } else { 0.0 };
    let mut shapes = Vec::with_capacity(strokes.len());
    for stroke in strokes {
        let mut builder = PathBuilder::with_capacity(stroke.len() + 1, stroke.len() + 1);
        for (index, [x, y]) in stroke.iter().enumerate() {
            let (x, y) = (unit(*x, low[0]), unit(*y, low[1]));
            if index == 0 {
                builder.move_to(x, y);
            }
            // A stroke of one point is a line to itself: with round caps, a dot.
            if index > 0 || stroke.len() == 1 {
                builder.line_to(x, y);
            }
        }
        shapes.extend(builder.finish().map(|path| Shape {
            path,
            fill: None,
            stroke: Some(Colour::BLACK),
            stroke_first: false,
        }));
    }
    Ok(VectorDrawing { shapes, canvas: None })
}
