//! SVG becomes shapes; what cannot be drawn as strokes and fills is refused by name.

use base64::Engine;
use proptest::prelude::*;
use sketch_model::limits::Limits;
use sketch_model::render::drawing::{Drawing, DrawingError};
use sketch_model::render::svg::SvgError;
use sketch_model::render::vector::{Colour, VectorDrawing};

const HEAD: &str =
    r#"<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 100 100""#;

fn document(body: &str) -> String {
    format!("{HEAD}>{body}</svg>")
}

fn parse(text: &str) -> Result<VectorDrawing, SvgError> {
    match Drawing::decode(text.as_bytes(), &Limits::default()) {
        Ok(Drawing::Vector(drawing)) => Ok(drawing),
        Err(DrawingError::Svg(error)) => Err(error),
        other => panic!("{text}: {other:?}"),
    }
}

fn shapes(body: &str) -> Vec<sketch_model::render::vector::Shape> {
    parse(&document(body)).unwrap_or_else(|error| panic!("{body}: {error}")).shapes
}

#[test]
fn strokes_and_fills_keep_their_colours() {
    let found = shapes(
        r#"<style>.a { stroke: #00f; fill: none }</style>
           <path class="a" d="M10 10 L90 90"/>
           <rect x="1" y="2" width="3" height="4" fill="rgb(255,0,0)" fill-opacity="0.5"/>
           <circle cx="5" cy="5" r="3" fill="none" stroke="gray" style="stroke-width:7"/>
           <path d="M0 0 L1 1" fill="none"/>
           <path d="M0 0 L1 1" visibility="hidden"/>"#,
    );
    assert_eq!(found.len(), 3);
    assert_eq!(found[0].stroke, Some(Colour { red: 0, green: 0, blue: 255, alpha: 255 }));
    assert_eq!(found[0].fill, None);
    assert_eq!(found[1].fill.map(|fill| fill.colour), Some(Colour { red: 255, green: 0, blue: 0, alpha: 128 }));
    assert_eq!(found[2].stroke, Some(Colour::grey(128)));
}

#[test]
fn transforms_units_and_uses_are_resolved() {
    let found = shapes(
        r##"<defs><path id="p" d="M0 0 H10" stroke="black"/></defs>
            <g transform="translate(20 30) scale(2)"><use xlink:href="#p" x="1"/></g>
            <svg x="50" y="50" width="50" height="50" viewBox="0 0 10 10"><use href="#p"/></svg>"##,
    );
    let bounds: Vec<_> =
        found.iter().map(|shape| shape.path.bounds()).map(|b| (b.left(), b.top(), b.right())).collect();
    assert_eq!(bounds, [(22.0, 30.0, 42.0), (50.0, 50.0, 100.0)]);
}

#[test]
fn gradients_opacity_and_clips_are_simplified() {
    let found = shapes(
        r##"<linearGradient id="g"><stop offset="0" stop-color="#000"/><stop offset="1" stop-color="#fff"/></linearGradient>
            <clipPath id="c"><rect width="1" height="1"/></clipPath>
            <g opacity="0.5" clip-path="url(#c)"><path d="M0 0 H10 V10" fill="url(#g)"/></g>"##,
    );
    assert_eq!(found[0].fill.unwrap().colour, Colour { red: 128, green: 128, blue: 128, alpha: 128 });
    assert_eq!(found[0].path.bounds().width(), 10.0);
}

#[test]
fn a_stroke_of_no_width_is_none() {
    let path = |attributes: &str| format!("<path d=\"M0 0H10V10\" stroke=\"red\" {attributes}/>");
    for attributes in ["stroke-width=\"0\"", "style=\"stroke-width: 0px\"", "stroke-width='0.00'"] {
        assert_eq!(shapes(&path(attributes))[0].stroke, None, "{attributes}");
    }
    for attributes in ["stroke-width=\"0.5\"", "style=\"stroke-width:0.01\"", "stroke-width=\"1e3\""] {
        assert!(shapes(&path(attributes))[0].stroke.is_some(), "{attributes}");
    }
}

#[test]
fn a_document_type_and_what_editors_add_do_no_harm() {
    let text = format!(
        "\u{feff}<?xml version=\"1.0\"?>\n<!DOCTYPE svg PUBLIC \"-//W3C//DTD SVG 1.1//EN\" \
         \"http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd\">\n<!-- made by hand -->\n{}",
        document(
            r##"<metadata><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:text>x</rdf:text></rdf:RDF></metadata>
               <title>a line</title><a href="https://example.org"><path d="M0 0 L5 5" stroke="black"/></a>"##
        )
    );
    assert_eq!(parse(&text).unwrap().shapes.len(), 1);
}

#[test]
fn what_cannot_be_drawn_is_named() {
    let bodies = [
        ("image", r#"<image href="data:image/png;base64,AA=="/>"#),
        ("filter", r#"<filter id="f"/>"#),
        ("mask", r#"<defs><mask id="m"/></defs>"#),
        ("pattern", r#"<pattern id="p"/>"#),
        ("marker", r#"<marker id="m"/>"#),
        ("foreignObject", r#"<foreignObject><p>hi</p></foreignObject>"#),
        ("text", r#"<text x="1" y="1">hi</text>"#),
    ];
    for (name, body) in bodies {
        let error = parse(&document(body)).unwrap_err();
        assert!(matches!(error, SvgError::UnsupportedElement { element } if element == name), "{name}: {error}");
    }
}

#[test]
fn references_to_the_outside_are_refused() {
    for body in [
        r#"<use href="other.svg#a"/>"#,
        r#"<use xlink:href="http://example.org/a.svg#a"/>"#,
        r#"<path d="M0 0H1" fill="url(http://example.org/g.svg#g)"/>"#,
        r#"<path d="M0 0H1" style="fill: url( 'file:///etc/passwd')"/>"#,
        r#"<style>path { fill: URL("x.svg#g") }</style>"#,
        r#"<style>@import "x.css";</style>"#,
    ] {
        let error = parse(&document(body)).unwrap_err();
        assert!(matches!(error, SvgError::ExternalReference { .. }), "{body}: {error}");
    }
    let sheet = format!("<?xml-stylesheet href=\"x.css\"?>{}", document(""));
    assert!(matches!(parse(&sheet), Err(SvgError::ExternalReference { .. })));
}

#[test]
fn entities_and_gzip_are_refused() {
    let entity = format!("<!DOCTYPE svg [<!ENTITY a \"b\">]>{}", document("&a;"));
    assert!(matches!(parse(&entity), Err(SvgError::Entity)));
    let gzip = Drawing::decode(b"\x1f\x8b\x08\0\0\0", &Limits::default()).unwrap_err();
    assert_eq!(gzip.to_string(), "image format \"gzip (SVGZ)\" is not supported");
}

#[test]
fn malformed_text_is_an_error() {
    for text in ["<svg", "<svg></g>", "<html/>", "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"0\"/>", "<"] {
        assert!(matches!(parse(text), Err(SvgError::Malformed { .. })), "{text}");
    }
    let latin1 = Drawing::decode(b"<svg>\xe9</svg>", &Limits::default());
    assert!(matches!(latin1, Err(DrawingError::Svg(SvgError::NotUtf8))));
}

#[test]
fn segments_are_counted_with_every_use_followed() {
    let limits = Limits { points: 100, ..Limits::default() };
    let line = |n: usize| format!("<path id=\"p\" d=\"M0 0{}\"/>", "h1".repeat(n));
    let decode = |body: &str| Drawing::decode(document(body).as_bytes(), &limits);
    assert!(decode(&line(60)).is_ok());
    for body in [
        line(100),
        format!("{}<use href=\"#p\"/>", line(60)),
        format!("<polyline points=\"{}\"/>", "-1-2".repeat(101)),
        format!("<path d=\"M0 0{}\"/>", "a1 1 0 0110 10".repeat(30)),
        format!("<path d=\"M0 0{}\"/>", "z".repeat(200)),
    ] {
        let found = decode(&body);
        assert!(matches!(found, Err(DrawingError::Svg(SvgError::TooManyPoints { limit: 100 }))), "{body}: {found:?}");
    }
}

#[test]
fn data_uris_hold_images_but_no_other_uris() {
    let png = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/plain.png")).unwrap();
    let base64 = base64::engine::general_purpose::STANDARD.encode(&png);
    let svg = document(r#"<path d="M0 0 L5 5" stroke="black"/>"#);
    let percent: String = svg.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let decode = |text: String| Drawing::decode(text.as_bytes(), &Limits::default());
    for text in [
        format!("data:image/png;base64,{base64}"),
        format!("  DATA:image/PNG;name=a;base64, {}\n", base64.trim_end_matches('=')),
        format!("\"data:image/png;base64,{base64}\""),
        format!("data:image/png;base64,{}", base64.replace('/', "%2F").replace('+', "%2B")),
    ] {
        assert!(matches!(decode(text.clone()), Ok(Drawing::Bitmap(_))), "{text}");
    }
    for text in [
        format!("data:image/svg+xml,{percent}"),
        format!("data:image/svg+xml;charset=utf-8,{percent}"),
        format!("data:image/svg+xml;base64,{}", base64::engine::general_purpose::STANDARD.encode(&svg)),
    ] {
        assert!(matches!(decode(text.clone()), Ok(Drawing::Vector(_))), "{text}");
    }
    let nested = base64::engine::general_purpose::STANDARD.encode("data:image/png;base64,AAAA");
    for text in [
        format!("data:image/png;base64,{nested}"),
        "data:image/gif;base64,AAAA".to_owned(),
        "data:text/html,<svg/>".to_owned(),
        "data:image/png;base64".to_owned(),
        "data:image/png;base64,@@@@".to_owned(),
        "data:image/svg+xml,%3".to_owned(),
        "data:image/svg+xml,%+1".to_owned(),
        "\"no uri\"".to_owned(),
    ] {
        assert!(decode(text.clone()).is_err(), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn damaged_documents_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"<>\"'=#/ .,-019aMzZ;{}()*\0".to_vec())), 1..6),
    ) {
        let mut bytes = document(
            r##"<style>.a, g > path { stroke: #00f; fill: inherit } </style><defs><g id="p"><path class="a" d="M0 0 H10 c1 2 3 4 5 6 A1 2 0 01 5 5z"/></g></defs>
                <g transform="translate(20 30) scale(2)"><use xlink:href="#p" x="1"/></g><polyline points="1,2 3,4"/>
                <linearGradient id="g"><stop offset="0" stop-color="#000"/></linearGradient><rect width="50%" height="1e3" fill="url(#g)"/>"##,
        ).into_bytes();
        for (index, value) in damage {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        let _ = Drawing::decode(&bytes, &Limits::default());
    }
}
