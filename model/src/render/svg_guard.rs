//! Estimates what an SVG costs to resolve before it is resolved.
//!
//! `usvg` follows every `use`, matches every CSS rule against every element, and looks up inherited
//! properties through all ancestors. Each is cheap in an ordinary file and can take hours in a hostile one,
//! so the products are bounded here: once on the text, before the XML is parsed, and once on
//! the parsed document.

use std::collections::HashMap;

use svgtypes::{PathParser, PathSegment, PointsParser};
use usvg::roxmltree::{Attribute, Document, Node, NodeId};

use crate::limits::Limits;

/// Why bytes did not become an SVG drawing.
#[derive(Debug, thiserror::Error)]
pub enum SvgError {
    #[error("SVG has {length} bytes, the limit is {limit}")]
    TooManyBytes { length: usize, limit: usize },
    #[error("SVG is not UTF-8 text")]
    NotUtf8,
    #[error("SVG declares an XML entity")]
    Entity,
    #[error("SVG refers to something outside itself: \"{reference}\"")]
    ExternalReference { reference: String },
    #[error("SVG element \"{element}\" is not supported")]
    UnsupportedElement { element: &'static str },
    #[error("SVG elements are nested deeper than {limit}")]
    TooDeep { limit: usize },
    #[error("SVG has a \"use\" element that contains itself")]
    RecursiveUse,
    #[error("SVG has more than {limit} elements with every \"use\" followed")]
    TooManyElements { limit: usize },
    #[error("SVG has more than {limit} path segments with every \"use\" followed")]
    TooManyPoints { limit: usize },
    /// Attributes, styles and elements whose product would take too long to resolve.
    #[error("SVG is too complex: {what}")]
    TooComplex { what: &'static str },
    #[error("SVG could not be parsed: {reason}")]
    Malformed { reason: String },
}

/// Elements, texts and comments of the XML.
pub(crate) const MAX_XML_NODES: u32 = 400_000;
/// Elements after every `use` has been replaced by what it refers to.
const MAX_ELEMENTS: usize = 100_000;
/// `usvg` recurses at some 2 kB of stack a level; drawing programs nest about ten.
const MAX_DEPTH: usize = 64;
/// A text of 16 MiB parses in about 0.1 s.
const MAX_BYTES: usize = 16 << 20;
/// The XML parser compares every attribute of an element with all others.
const MAX_ATTRIBUTES: usize = 200;
/// The XML parser looks every prefix up among all declared ones.
const MAX_NAMESPACES: usize = 100;
/// Steps of looking up styles; about 0.5 s. A drawing of 20,000 paths from Inkscape needs 4 million.
const MAX_WORK: usize = 30_000_000;
/// Declarations of a style sheet with every list of selectors split up; 48 MB.
const MAX_DECLARATIONS: usize = 1_000_000;
/// Bytes of attributes read after every `use` has been followed; about 0.5 s.
const MAX_ATTRIBUTE_WORK: usize = 256 << 20;
/// Steps of reading one style sheet; about 0.1 s. A sheet of 16 KiB with 500 declarations needs 8 million.
const MAX_SHEET_WORK: usize = 100_000_000;
/// Path segments of a document in which strokes keep their widths; about 0.5 s if these are very wide.
const MAX_AUTHOR_STROKES: usize = 20_000;
/// Length of a property, which is read again for every element that inherits it.
const MAX_PROPERTY: usize = 10_000;

const XLINK: &str = "http://www.w3.org/1999/xlink";
const SVG: &str = "http://www.w3.org/2000/svg";

/// Elements whose look does not come from strokes and fills.
const UNSUPPORTED: [&str; 8] = ["image", "filter", "mask", "pattern", "marker", "foreignObject", "text", "font"];

/// Checks what is visible without parsing.
pub(crate) fn check_text(text: &str, limits: &Limits) -> Result<(), SvgError> {
    let limit = limits.bytes.min(MAX_BYTES);
    if text.len() > limit {
        return Err(SvgError::TooManyBytes { length: text.len(), limit });
    }
    if text.contains("<!ENTITY") {
        return Err(SvgError::Entity);
    }
    let tags = text.bytes().filter(|&byte| byte == b'<').count();
    if tags > MAX_XML_NODES as usize {
        return Err(SvgError::TooManyElements { limit: MAX_ELEMENTS });
    }
    if text.matches("xmlns").count() > MAX_NAMESPACES {
        return Err(SvgError::TooComplex { what: "too many namespace declarations" });
    }
    // Between two `<` there is at most one tag, so this bounds its attributes from above.
    let attributes = |part: &str| part.bytes().filter(|&byte| byte == b'=').count();
    if text.split('<').any(|part| attributes(part) > MAX_ATTRIBUTES) {
        return Err(SvgError::TooComplex { what: "an element has too many attributes" });
    }
    Ok(())
}

/// Whether some stroke's width is zero, as an attribute or in a style.
pub(crate) fn has_zero_width(text: &str) -> bool {
    text.split("stroke-width").skip(1).any(|rest| {
        let number = rest.trim_start_matches([' ', '\t', '\n', '\r', '=', ':', '"', '\'']);
        let end = number.find(|c: char| !matches!(c, '0'..='9' | '.')).unwrap_or(number.len());
        end > 0 && number[..end].bytes().all(|byte| matches!(byte, b'0' | b'.'))
    })
}

/// Checks the parsed document: what it refers to, and what following its `use` elements comes to.
pub(crate) fn check_document(document: &Document, text: &str, limits: &Limits) -> Result<(), SvgError> {
    check_depth(document)?;
    let mut ids = HashMap::new();
    for node in document.descendants() {
        check_node(node)?;
        if let Some(id) = node.attribute("id") {
            ids.entry(id).or_insert(node);
        }
    }
    let segments = if has_zero_width(text) { limits.points.min(MAX_AUTHOR_STROKES) } else { limits.points };
    let mut expansion = Expansion { ids, known: HashMap::new(), segments };
    let cost = expansion.cost(document.root_element(), 1)?;
    check_styles(document, cost)
}

fn check_depth(document: &Document) -> Result<(), SvgError> {
    // In document order a parent comes before its children.
    let mut depths = HashMap::new();
    for node in document.descendants().filter(Node::is_element) {
        let above = node.parent().and_then(|parent| depths.get(&parent.id()).copied());
        let depth = above.unwrap_or(0) + 1;
        if depth > MAX_DEPTH {
            return Err(SvgError::TooDeep { limit: MAX_DEPTH });
        }
        depths.insert(node.id(), depth);
    }
    Ok(())
}

fn check_node(node: Node) -> Result<(), SvgError> {
    if let Some(instruction) = node.pi().filter(|pi| pi.target == "xml-stylesheet") {
        return external(instruction.value.unwrap_or(instruction.target));
    }
    if node.has_tag_name("style") || node.has_tag_name((SVG, "style")) {
        let css = node.text().unwrap_or_default();
        if css.contains("@import") {
            return external("@import");
        }
        check_urls(css)?;
        if css_work(css) > MAX_SHEET_WORK {
            return Err(SvgError::TooComplex { what: "too long a style sheet" });
        }
        // Declarations are copied to every selector of their list.
        if (1 + css.matches(',').count()).saturating_mul(1 + css.matches(':').count()) > MAX_DECLARATIONS {
            return Err(SvgError::TooComplex { what: "too many style rules" });
        }
    }
    if !is_svg(node) {
        return Ok(());
    }
    if let Some(element) = UNSUPPORTED.iter().find(|name| **name == node.tag_name().name()) {
        return Err(SvgError::UnsupportedElement { element });
    }
    for attribute in node.attributes() {
        // The target of a hyperlink is not part of the picture.
        if attribute.name() == "href" && node.tag_name().name() != "a" {
            check_reference(attribute.value())?;
        }
        check_urls(attribute.value())?;
        if attribute.value().len() > MAX_PROPERTY && !may_be_long(attribute.name()) {
            return Err(SvgError::TooComplex { what: "too long a property" });
        }
    }
    Ok(())
}

/// Attributes that belong to one element only; `data-` and the like are never read.
fn may_be_long(attribute: &str) -> bool {
    matches!(attribute, "d" | "points" | "transform" | "class" | "id" | "content" | "href") || attribute.contains('-')
}

/// Steps of reading CSS: at the end of every value the tokenizer counts lines from the beginning.
fn css_work(css: &str) -> usize {
    css.len().saturating_mul(1 + css.matches([':', ';', ',', '{', '}', '@']).count())
}

fn is_svg(node: Node) -> bool {
    node.is_element() && matches!(node.tag_name().namespace(), None | Some(SVG))
}

/// Checks every `url(…)` in a property's value or in a style sheet.
fn check_urls(value: &str) -> Result<(), SvgError> {
    if !value.contains('(') {
        return Ok(());
    }
    let value = value.to_ascii_lowercase();
    for reference in value.split("url(").skip(1) {
        check_reference(reference.trim_start_matches(['"', '\'', ' ', '\t', '\n', '\r']))?;
    }
    Ok(())
}

fn check_reference(reference: &str) -> Result<(), SvgError> {
    let reference = reference.trim_start();
    if reference.is_empty() || reference.starts_with('#') || reference.starts_with("data:") {
        return Ok(());
    }
    external(reference)
}

fn external(reference: &str) -> Result<(), SvgError> {
    const SHOWN: usize = 100;
    Err(SvgError::ExternalReference { reference: reference.chars().take(SHOWN).collect() })
}

/// What an element and all below it cost, each `use` replaced by what it refers to.
#[derive(Clone, Copy, Default)]
struct Cost {
    elements: usize,
    segments: usize,
    attribute_work: usize,
    /// Levels of elements, this one included.
    depth: usize,
}

struct Expansion<'a, 'input> {
    ids: HashMap<&'a str, Node<'a, 'input>>,
    /// `None` while the cost of the element is being computed: to meet it again means that it contains itself.
    known: HashMap<NodeId, Option<Cost>>,
    segments: usize,
}

impl<'a, 'input> Expansion<'a, 'input> {
    /// The cost of each element is computed once, so this is linear although the expansion may be exponential.
    fn cost(&mut self, node: Node<'a, 'input>, depth: usize) -> Result<Cost, SvgError> {
        if depth > MAX_DEPTH {
            return Err(SvgError::TooDeep { limit: MAX_DEPTH });
        }
        match self.known.get(&node.id()) {
            Some(Some(cost)) => return Ok(*cost),
            Some(None) => return Err(SvgError::RecursiveUse),
            None => {}
        }
        self.known.insert(node.id(), None);
        let mut cost = Cost {
            elements: 1,
            segments: segments(node),
            attribute_work: node.attributes().map(attribute_work).sum(),
            depth: 1,
        };
        for child in node.children().filter(Node::is_element) {
            cost.add(self.cost(child, depth + 1)?);
        }
        if let Some(target) = self.use_target(node) {
            cost.add(self.cost(target, depth + 1)?);
        }
        self.check(cost)?;
        self.known.insert(node.id(), Some(cost));
        Ok(cost)
    }

    fn use_target(&self, node: Node<'a, 'input>) -> Option<Node<'a, 'input>> {
        if !is_svg(node) || node.tag_name().name() != "use" {
            return None;
        }
        let href = node.attribute("href").or_else(|| node.attribute((XLINK, "href")))?;
        self.ids.get(href.trim().strip_prefix('#')?).copied()
    }

    fn check(&self, cost: Cost) -> Result<(), SvgError> {
        if cost.depth > MAX_DEPTH {
            return Err(SvgError::TooDeep { limit: MAX_DEPTH });
        }
        if cost.elements > MAX_ELEMENTS {
            return Err(SvgError::TooManyElements { limit: MAX_ELEMENTS });
        }
        if cost.segments > self.segments {
            return Err(SvgError::TooManyPoints { limit: self.segments });
        }
        if cost.attribute_work > MAX_ATTRIBUTE_WORK {
            return Err(SvgError::TooComplex { what: "attributes are too long with every \"use\" followed" });
        }
        Ok(())
    }
}

impl Cost {
    fn add(&mut self, below: Self) {
        self.elements += below.elements;
        self.segments += below.segments;
        self.attribute_work += below.attribute_work;
        self.depth = self.depth.max(below.depth + 1);
    }
}

fn attribute_work(attribute: Attribute) -> usize {
    // To read a number takes some 8 times as long as to skip a byte.
    const NUMBERS: usize = 8;
    match attribute.name() {
        "style" => css_work(attribute.value()),
        _ => NUMBERS * attribute.value().len(),
    }
}

/// Segments of one shape, arcs counted as the four curves that they may become.
fn segments(node: Node) -> usize {
    let path = node.attribute("d").unwrap_or_default();
    let in_path: usize = PathParser::from(path)
        .map_while(Result::ok)
        .map(|segment| match segment {
            PathSegment::EllipticalArc { .. } => 4,
            _ => 1,
        })
        .sum();
    let points = node.attribute("points").unwrap_or_default();
    in_path + PointsParser::from(points).count()
}

/// Bounds the time that looking up styles takes: elements times rules, times ancestors, times attributes.
fn check_styles(document: &Document, cost: Cost) -> Result<(), SvgError> {
    let elements = || document.descendants().filter(Node::is_element);
    let attributes = elements().map(|node| node.attributes().count()).max().unwrap_or(0);
    let inherits = elements().map(inherit_count).max().unwrap_or(0);
    let stops =
        elements().filter(|node| matches!(node.tag_name().name(), "stop" | "linearGradient" | "radialGradient"));
    let sheets = elements().filter(|node| node.tag_name().name() == "style");
    let mut per_element = stops.count();
    let mut sheet_inherits = 0;
    for css in sheets.filter_map(|node| node.text()) {
        per_element = per_element.saturating_add(css.len() / 16);
        per_element = per_element.saturating_add(sheet_cost(css, cost.depth));
        sheet_inherits += css.matches("inherit").count();
    }
    let lookups = (1 + attributes) * cost.depth;
    per_element = per_element.saturating_add(lookups.saturating_mul(1 + inherits + sheet_inherits));
    if cost.elements.saturating_mul(per_element) > MAX_WORK {
        return Err(SvgError::TooComplex { what: "too many elements times style rules" });
    }
    Ok(())
}

fn inherit_count(node: Node) -> usize {
    node.attributes().map(|attribute| attribute.value().matches("inherit").count()).sum()
}

/// Steps of matching and applying a style sheet for one element at `depth`.
fn sheet_cost(css: &str, depth: usize) -> usize {
    // A selector of n parts joined by blanks is tried against every chain of n - 1 ancestors.
    let matching = |rule: &simplecss::Rule| {
        let parts = rule.selector.to_string().split_ascii_whitespace().count();
        depth.saturating_pow(parts.saturating_sub(1) as u32)
    };
    let sheet = simplecss::StyleSheet::parse(css);
    sheet.rules.iter().fold(0, |cost, rule| cost.saturating_add(matching(rule)).saturating_add(rule.declarations.len()))
}
