//! What a user sends as a photo or drawing. Whatever is decoded keeps the limits, and becomes a picture or a clear error.

use crate::fixture;
use sketch_model::limits::Limits;
use sketch_model::render::decode::decode_image;
use sketch_model::render::drawing::Drawing;
use sketch_model::render::preprocess::{PhotoPreprocessing, SketchPreprocessing};

/// Small, so that a run takes milliseconds.
const LIMITS: Limits = Limits { bytes: 1 << 20, pixels: 1 << 19, allocation: 16 << 20, points: 5_000 };
const SIZE: u32 = 64;

pub fn bitmap(bytes: &[u8]) {
    let Ok(image) = decode_image(bytes, &LIMITS) else { return };
    assert!(u64::from(image.width()) * u64::from(image.height()) <= LIMITS.pixels);
    let photo = PhotoPreprocessing::best().apply(&image, SIZE);
    assert_eq!(photo.dimensions(), (SIZE, SIZE));
    show(&Drawing::Bitmap(image));
}

pub fn svg(bytes: &[u8]) {
    if bytes.first() == Some(&b'<') {
        drawing(bytes);
    }
}

pub fn strokes(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(drawing) = Drawing::from_json(text, &LIMITS)
    {
        show(&drawing);
    }
}

pub fn data_uri(bytes: &[u8]) {
    drawing(&[b"data:", bytes].concat());
}

pub fn drawing(bytes: &[u8]) {
    if let Ok(drawing) = Drawing::decode(bytes, &LIMITS) {
        show(&drawing);
    }
}

fn show(drawing: &Drawing) {
    if let Drawing::Vector(vector) = drawing {
        let points: usize = vector.shapes.iter().map(|shape| shape.path.points().len()).sum();
        // A circle is one segment of the limit, and eight or more points.
        assert!(points <= 20 * LIMITS.points, "{points} points");
    }
    for preprocessing in [SketchPreprocessing::best(), SketchPreprocessing::exact()] {
        if let Ok(picture) = preprocessing.apply(drawing, SIZE) {
            assert_eq!(picture.dimensions(), (SIZE, SIZE));
        }
    }
}

const FILES: [&str; 18] = [
    "animated.png",
    "animated.webp",
    "cmyk.jpg",
    "face_scan.png",
    "face_strokes.png",
    "grey16.png",
    "lossless.webp",
    "lossy.webp",
    "other.gif",
    "palette.png",
    "photo.png",
    "photo_crop.png",
    "plain.jpg",
    "plain.png",
    "progressive.jpg",
    "turned.jpg",
    "turned.png",
    "turned.webp",
];

pub fn bitmaps() -> Vec<Vec<u8>> {
    FILES.map(fixture).to_vec()
}

pub fn svgs() -> Vec<Vec<u8>> {
    let bodies = [
        r##"<circle cx="50" cy="50" r="40" fill="none" stroke="black"/><path d="M30 65 Q50 80 70 65" stroke="#000"/>"##,
        r##"<g id="a"><ellipse cx="9" cy="9" rx="3" ry="5"/></g><use href="#a" x="4"/><use xlink:href="#a" transform="rotate(9) skewX(3)"/>"##,
        r##"<style>.a{fill:red;stroke:rgb(1,2,3)}g>path{opacity:.5}</style><g class="a"><path d="M1 1h9v9a3 4 0 1 0 5 6zC1 2 3 4 5 6s7 8 9 9t1 1"/></g>"##,
        r##"<linearGradient id="g"><stop offset="0" stop-color="blue"/><stop offset="1"/></linearGradient><rect width="50%" height="9mm" rx="2" fill="url(#g)"/>"##,
        r##"<clipPath id="c"><rect width="9" height="9"/></clipPath><polygon points="1,2 3,4 5,0" clip-path="url(#c)"/><polyline points="1 2,3 4" stroke-dasharray="1 2"/>"##,
        r##"<symbol id="s" viewBox="0 0 9 9"><line x1="1" x2="2" y1="3" y2="4" stroke="#123"/></symbol><use href="#s" width="5" height="5"/><switch><rect width="3" height="3"/></switch>"##,
        r##"<rect x="-10" width="300" height="300" fill="#222"/><path d="M9 9l90 90" stroke="white" stroke-width="9" fill-rule="evenodd"/>"##,
    ];
    let svg = |body| {
        format!(
            "<?xml version=\"1.0\"?><svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" viewBox=\"0 0 100 100\">{body}</svg>"
        )
    };
    // The target wants "<" first.
    bodies.map(|body| svg(body).into_bytes()).to_vec()
}

pub fn stroke_drawings() -> Vec<Vec<u8>> {
    let texts = [
        "[[[0,10,20],[0,10,0]]]",
        "[[0,10],[5,7]]",
        "[[{\"x\":1,\"y\":2},{\"x\":3.5,\"y\":-4e1}]]",
        "[{\"points\":[{\"x\":1,\"y\":2,\"time\":5},{\"x\":3,\"y\":4}],\"penColor\":\"black\"}]",
        "{\"drawing\":[[[0,1],[2,3]],[[4,5],[6,7]]],\"word\":\"cat\"}",
        "{\"strokes\":[[[1,2],[3,4]]]}",
        "\"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'><path d='M0 0h9v9'/></svg>\"",
    ];
    texts.map(|text| text.as_bytes().to_vec()).into_iter().chain([fixture("face.json")]).collect()
}

/// Without `data:`, which the target puts in front.
pub fn data_uris() -> Vec<Vec<u8>> {
    vec![
        b"image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'%3E%3Cpath d='M0 0h9v9'/%3E%3C/svg%3E".to_vec(),
        b"image/svg+xml;charset=utf-8;base64,PHN2ZyB4bWxucz0naHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmcnPjxwYXRoIGQ9J00wIDBoOXY5Jy8+PC9zdmc+".to_vec(),
        b"image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mP8/x8AAwMCAO+ip1sAAAAASUVORK5CYII=".to_vec(),
        b" IMAGE/JPEG ; base64 ,%2f9j/".to_vec(),
    ]
}

pub fn drawings() -> Vec<Vec<u8>> {
    let uris = data_uris().into_iter().map(|uri| [b"data:", &uri[..]].concat());
    [bitmaps(), svgs(), stroke_drawings()].concat().into_iter().chain(uris).collect()
}

pub const CHUNKS: &[&str] = &[
    "IHDR", "PLTE", "IDAT", "IEND", "tRNS", "gAMA", "iCCP", "zTXt", "eXIf", "acTL", "fcTL", "fdAT", "RIFF", "WEBP",
    "VP8 ", "VP8L", "VP8X", "ALPH", "ANIM", "ANMF", "EXIF", "ICCP", "XMP ", "JFIF", "Exif\0\0", "Adobe", "II*\0",
    "MM\0*",
];
pub const SVG_WORDS: &[&str] = &[
    "<svg",
    "<g",
    "<path",
    "<rect",
    "<circle",
    "<ellipse",
    "<line",
    "<polyline",
    "<polygon",
    "<use",
    "<symbol",
    "<switch",
    "<style>",
    "</style>",
    "<linearGradient",
    "<radialGradient",
    "<stop",
    "<clipPath",
    "<mask",
    "<marker",
    "<pattern",
    "<filter",
    "<image",
    "<text",
    "<defs>",
    "<!DOCTYPE",
    "<!ENTITY",
    "<![CDATA[",
    "<!--",
    "-->",
    "]]>",
    "<?xml",
    "/>",
    "</g>",
    "</svg>",
    " d=\"",
    " id=\"",
    " class=\"",
    " style=\"",
    " href=\"#",
    " xlink:href=\"#",
    " transform=\"",
    " fill=\"",
    " stroke=\"",
    " stroke-width=\"",
    " opacity=\"",
    " viewBox=\"",
    " width=\"",
    " height=\"",
    " preserveAspectRatio=\"",
    "url(#a)",
    "matrix(",
    "rotate(",
    "scale(",
    "skewX(",
    "translate(",
    "currentColor",
    "inherit",
    "none",
    "evenodd",
    "rgb(",
    "hsl(",
    "!important",
    "@media",
    "1e38",
    "1e-38",
    "-0",
    "100%",
    "em",
    "mm",
    "display",
    "visibility",
];
pub const STROKES_WORDS: &[&str] = &[
    "{\"x\":",
    ",\"y\":",
    "[[[",
    "]]]",
    "],[",
    "{\"points\":[",
    "\"drawing\":",
    "\"strokes\":",
    "null",
    "true",
    "1e308",
    "-1e-308",
    "1e999",
    "NaN",
    "\"data:",
    "\\u0000",
    "\\ud800",
];
pub const DATA_URI_WORDS: &[&str] = &[
    "image/png",
    "image/jpeg",
    "image/webp",
    "image/svg+xml",
    ";base64,",
    ";charset=",
    ",",
    "%3C",
    "%25",
    "%",
    "data:",
    "<svg",
    "iVBOR",
];
