use super::*;
use image::{DynamicImage, GrayImage, ImageFormat, Luma};
use sketch_model::manifest::{FORMAT, Input};
use sketch_model::preprocess::PhotoPreprocessing;
use std::io::Cursor;

const SIZE: u32 = 224;
const HOUSE: &[u8] = b"[[[0,100,100,0,0],[60,60,160,160,60]],[[0,50,100],[60,0,60]],[[40,60],[110,110]]]";

fn manifest() -> Manifest {
    Manifest {
        format: FORMAT,
        name: "test".to_owned(),
        dimension: 8,
        input: Input { size: SIZE, mean: [0.5; 3], std: [0.5; 3] },
        domain_input: true,
        sketch: SketchPreprocessing::best(),
        photo: PhotoPreprocessing::best(),
        licence: String::new(),
        origin: String::new(),
    }
}

fn still() -> Augmentation {
    Augmentation {
        stroke: [3.0, 3.0],
        drop: 0.0,
        shift: 0.0,
        wobble: 0.0,
        erase: 0.0,
        turn: 0.0,
        stretch: 0.0,
        slant: 0.0,
        margin: [0.1, 0.1],
        mirror: 0.0,
        crop: 1.0,
        light: 0.0,
        ..Augmentation::default()
    }
}

fn png(picture: DynamicImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn disc(side: u32, radius: f32) -> Vec<u8> {
    let centre = side as f32 / 2.0;
    let inside = |x: u32, y: u32| (x as f32 - centre).hypot(y as f32 - centre) < radius;
    png(DynamicImage::ImageLuma8(GrayImage::from_fn(side, side, |x, y| Luma([if inside(x, y) { 0 } else { 255 }]))))
}

fn ink(picture: &RgbImage) -> f32 {
    picture.pixels().map(|pixel| 1.0 - f32::from(pixel.0[0]) / 255.0).sum()
}

#[test]
fn a_seed_decides_every_pixel() {
    let by = Augmentation::default();
    let photo = disc(200, 60.0);
    for (bytes, kind) in
        [(HOUSE, Kind::Sketch), (&photo, Kind::Sketch), (&photo, Kind::Photo), (&photo, Kind::PseudoSketch)]
    {
        let view = |seed| by.view(bytes, kind, &manifest(), &mut Rng::new(&[7, seed])).unwrap();
        assert_eq!(view(1), view(1));
        assert_ne!(view(1), view(2), "{kind:?}");
    }
}

#[test]
fn without_variation_a_view_is_what_is_served() {
    let photo = disc(200, 60.0);
    for (bytes, kind) in [(HOUSE, Kind::Sketch), (&photo, Kind::Photo)] {
        let view = still().view(bytes, kind, &manifest(), &mut Rng::new(&[1])).unwrap();
        assert_eq!(view, plain_view(bytes, kind, &manifest()).unwrap(), "{kind:?}");
    }
}

#[test]
fn a_mirror_mirrors() {
    let by = Augmentation { mirror: 1.0, ..still() };
    let lean: &[u8] = b"[[[0,100],[0,100]],[[0,40],[100,100]]]";
    let view = by.view(lean, Kind::Sketch, &manifest(), &mut Rng::new(&[1])).unwrap();
    let expected = image::imageops::flip_horizontal(&plain_view(lean, Kind::Sketch, &manifest()).unwrap());
    let differing = view.pixels().zip(expected.pixels()).filter(|(a, b)| a.0[0].abs_diff(b.0[0]) > 64).count();
    assert!(differing < 20, "{differing} pixels differ");
}

#[test]
fn strokes_are_as_wide_as_asked_for() {
    let ink_of = |width| {
        let by = Augmentation { stroke: [width, width], ..still() };
        ink(&by.view(HOUSE, Kind::Sketch, &manifest(), &mut Rng::new(&[1])).unwrap())
    };
    let ratio = ink_of(6.0) / ink_of(3.0);
    assert!((1.8..2.1).contains(&ratio), "{ratio}");
}

#[test]
fn some_stroke_always_stays() {
    let by = Augmentation { drop: 1.0, ..still() };
    let view = by.view(HOUSE, Kind::Sketch, &manifest(), &mut Rng::new(&[1])).unwrap();
    assert!(ink(&view) > 100.0);
}

/// The edge of a black disc of radius 50 in 200 pixels is a ring; cut to its ink with a margin of 10 %, its radius is 0.4
/// of the side.
#[test]
fn the_edge_of_a_disc_is_a_ring() {
    let view = still().view(&disc(200, 50.0), Kind::PseudoSketch, &manifest(), &mut Rng::new(&[3])).unwrap();
    let centre = SIZE as f32 / 2.0;
    for (x, y, pixel) in view.enumerate_pixels() {
        let radius = (x as f32 - centre).hypot(y as f32 - centre) / SIZE as f32;
        assert!(pixel.0[0] > 128 || (radius - 0.4).abs() < 0.03, "ink at radius {radius}");
    }
    let length = ink(&view) / 3.0;
    let expected = std::f32::consts::TAU * 0.4 * SIZE as f32;
    assert!((length / expected - 1.0).abs() < 0.35, "{length} of {expected}");
}

#[test]
fn what_shows_nothing_is_refused() {
    let by = Augmentation::default();
    let white = png(DynamicImage::ImageLuma8(GrayImage::from_pixel(40, 40, Luma([255]))));
    let dot = png(DynamicImage::ImageLuma8(GrayImage::from_pixel(1, 1, Luma([0]))));
    let view = |bytes: &[u8], kind| by.view(bytes, kind, &manifest(), &mut Rng::new(&[1]));
    assert!(matches!(view(&white, Kind::PseudoSketch), Err(AugmentError::NoEdges)));
    assert!(matches!(view(&dot, Kind::PseudoSketch), Err(AugmentError::NoEdges)));
    assert!(matches!(view(&white, Kind::Sketch), Err(AugmentError::Preprocess(_))));
    assert!(matches!(view(b"no image", Kind::Photo), Err(AugmentError::Photo(_))));
    assert_eq!(view(&dot, Kind::Photo).unwrap().dimensions(), (SIZE, SIZE));
}

#[test]
fn options_are_read_and_unknown_ones_refused() {
    let by: Augmentation = serde_json::from_str(r#"{"turn": 5.0}"#).unwrap();
    assert_eq!(by, Augmentation { turn: 5.0, ..Augmentation::default() });
    assert!(serde_json::from_str::<Augmentation>(r#"{"trun": 5.0}"#).is_err());
}
