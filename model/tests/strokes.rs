//! Strokes as JSON, in every shape that is accepted and many that are not.

use proptest::prelude::*;
use sketch_model::limits::Limits;
use sketch_model::render::drawing::{Drawing, DrawingError};
use sketch_model::render::strokes::StrokesError;
use sketch_model::render::vector::VectorDrawing;

fn parse(json: &str) -> Result<VectorDrawing, StrokesError> {
    match Drawing::from_json(json, &Limits::default()) {
        Ok(Drawing::Vector(drawing)) => Ok(drawing),
        Err(DrawingError::Strokes(error)) => Err(error),
        other => panic!("{json}: {other:?}"),
    }
}

/// Points of every stroke, in the unit box that the decoder gives.
fn points(drawing: &VectorDrawing) -> Vec<Vec<(f32, f32)>> {
    let stroke = |shape: &sketch_model::render::vector::Shape| shape.path.points().iter().map(|p| (p.x, p.y)).collect();
    drawing.shapes.iter().map(stroke).collect()
}

#[test]
fn every_accepted_shape_gives_the_same_strokes() {
    let two = vec![vec![(0.0, 0.0), (1.0, 0.5)], vec![(0.5, 0.5), (0.25, 0.0), (0.0, 0.25)]];
    let shapes = [
        "[[[10,30],[5,15]],[[20,15,10],[15,5,10]]]",
        "[[[10,30],[5,15],[0,90]],[[20,15,10],[15,5,10],[0.5,1,2]]]",
        r#"{"key_id":"7","word":"cat","drawing":[[[10,30],[5,15]],[[20,15,10],[15,5,10]]]}"#,
        r#"[[{"x":10,"y":5},{"x":30,"y":15}],[{"x":20,"y":15},{"x":15,"y":5},{"x":10,"y":10}]]"#,
        r##"[{"penColor":"#123","points":[{"time":1,"x":10,"y":5,"pressure":null},{"x":30,"y":15}]},
            {"points":[{"x":2e1,"y":15.0},{"y":5,"x":15},{"x":10,"y":10}]}]"##,
        r#"{"strokes":[{"points":[{"x":10,"y":5},{"x":30,"y":15}]},[[20,15,10],[15,5,10]]]}"#,
        " \u{feff}\n[[[10,30],[5,15]],[],[[20,15,10],[15,5,10]]]\n".trim_start(),
    ];
    for json in shapes {
        assert_eq!(parse(json).map(|drawing| points(&drawing)), Ok(two.clone()), "{json}");
    }
}

#[test]
fn one_stroke_needs_no_outer_array() {
    let one = vec![vec![(0.0, 0.0), (1.0, 0.5)]];
    for json in
        ["[[10,30],[5,15]]", r#"[{"x":10,"y":5},{"x":30,"y":15}]"#, r#"{"points":[{"x":10,"y":5},{"x":30,"y":15}]}"#]
    {
        assert_eq!(parse(json).map(|drawing| points(&drawing)), Ok(one.clone()), "{json}");
    }
}

#[test]
fn a_stroke_of_one_point_is_a_dot() {
    let drawing = parse("[[[0,10],[0,0]],[[5],[5]]]").unwrap();
    assert_eq!(points(&drawing)[1], vec![(0.5, 0.5), (0.5, 0.5)]);
}

#[test]
fn what_is_wrong_is_named() {
    let not_finite = [
        "[[[1e999,2],[3,4]]]",
        "[[[NaN,2],[3,4]]]",
        "[[[1,2],[3,\n-Infinity]]]",
        "[[[1,null],[3,4]]]",
        r#"[{"x":null,"y":1}]"#,
        "[[[-1.7e308,1.7e308],[0,0]]]",
    ];
    for json in not_finite {
        assert_eq!(parse(json).unwrap_err(), StrokesError::NotFinite, "{json}");
    }
    assert_eq!(parse("[[[1,2,3],[4,5]]]").unwrap_err(), StrokesError::UnequalLengths { x: 3, y: 2 });
    for json in ["[]", "[[]]", "{\"strokes\":[]}", "[{\"points\":[]}]", "[[[],[]]]"] {
        assert_eq!(parse(json).unwrap_err(), StrokesError::NoPoints, "{json}");
    }
    for json in [
        "{}",
        "[1,2,3]",
        "[[1,2],[3,4],[5,6],[7,8]]",
        r#"[{"x":1}]"#,
        r#"[{"x":"1","y":2}]"#,
        r#"[["a"]]"#,
        "[[[1,2],[3,4]],{\"x\":1,\"y\":2}]",
        "[true]",
        "{\"strokes\":5}",
    ] {
        assert!(matches!(parse(json), Err(StrokesError::UnexpectedShape { .. })), "{json}: {:?}", parse(json));
    }
    for json in ["[[[1,2],[3,4]]", "[[[1,2],[3,4]]] [[[1,2],[3,4]]]", "[[[1,2],[3,4]]]x", "[[[01,2],[3,4]]]"] {
        assert!(matches!(parse(json), Err(StrokesError::Json { .. })), "{json}: {:?}", parse(json));
    }
}

#[test]
fn points_are_counted() {
    let limits = Limits { points: 10, ..Limits::default() };
    let row = |n: usize| vec!["1"; n].join(",");
    let quickdraw = |n: usize| format!("[[[{}],[{}]]]", row(n), row(n));
    assert!(Drawing::from_json(&quickdraw(10), &limits).is_ok());
    let too_many = |json: &str| match Drawing::from_json(json, &limits) {
        Err(DrawingError::Strokes(error)) => assert_eq!(error, StrokesError::TooManyPoints { limit: 10 }, "{json}"),
        other => panic!("{json}: {other:?}"),
    };
    too_many(&quickdraw(11));
    too_many(&quickdraw(1000));
    too_many(&format!("[{}]", [r#"{"x":1,"y":2}"#; 11].join(",")));
    too_many(&format!("[{}]", ["[]"; 1000].join(",")));
}

proptest! {
    #[test]
    fn printing_and_parsing_keep_the_strokes(
        strokes in prop::collection::vec(prop::collection::vec((-1e3..1e3f64, -1e3..1e3f64), 2..20), 1..6),
    ) {
        let list = |stroke: &Vec<(f64, f64)>| {
            let points: Vec<_> = stroke.iter().map(|(x, y)| format!(r#"{{"x":{x},"y":{y}}}"#)).collect();
            format!("[{}]", points.join(","))
        };
        let rows = |stroke: &Vec<(f64, f64)>| {
            let (x, y): (Vec<_>, Vec<_>) = stroke.iter().map(|(x, y)| (x.to_string(), y.to_string())).unzip();
            format!("[[{}],[{}]]", x.join(","), y.join(","))
        };
        let join = |parts: Vec<String>| format!("[{}]", parts.join(","));
        let as_points = parse(&join(strokes.iter().map(list).collect())).unwrap();
        let as_rows = parse(&join(strokes.iter().map(rows).collect())).unwrap();
        prop_assert_eq!(points(&as_points), points(&as_rows));
        prop_assert_eq!(as_rows.shapes.len(), strokes.len());
    }

    #[test]
    fn random_text_never_panics(text in "[\\[\\]{}\",:0-9eE.xyNaI+ -]{0,60}") {
        let _ = Drawing::decode(text.as_bytes(), &Limits::default());
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Drawing::decode(&bytes, &Limits::default());
    }
}
