use super::*;
use image::{DynamicImage, GrayImage, ImageFormat, Luma};
use sketch_model::manifest::{FORMAT, Input};
use sketch_model::render::preprocess::PhotoPreprocessing;
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
        half_precision: false,
        sketch: SketchPreprocessing::best(),
        photo: PhotoPreprocessing::best(),
        licence: String::new(),
        origin: String::new(),
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

/// Pixels that differ by more than `tolerance` grey levels.
fn differing(a: &RgbImage, b: &RgbImage, tolerance: u8) -> usize {
    a.pixels().zip(b.pixels()).filter(|(a, b)| a.0[0].abs_diff(b.0[0]) > tolerance).count()
}

fn still_with(sketch: SketchOptions) -> Augmentation {
    Augmentation { sketch, ..Augmentation::none() }
}

#[test]
fn without_variation_a_view_is_what_is_served() {
    let photo = disc(200, 60.0);
    for (bytes, kind) in [(HOUSE, Kind::Sketch), (&photo, Kind::Sketch), (&photo, Kind::Photo)] {
        let view = Augmentation::none().view(bytes, kind, &manifest(), &mut Rng::new(&[1])).unwrap();
        // A hand that moves nothing still rounds coordinates.
        assert_eq!(differing(&view, &plain_view(bytes, kind, &manifest()).unwrap(), 1), 0, "{kind:?}");
    }
}

#[test]
fn two_mirrors_are_none() {
    let by = Augmentation { mirror: 1.0, ..Augmentation::none() };
    let lean: &[u8] = b"[[[0,100],[0,100]],[[0,40],[100,100]]]";
    let photo = png(DynamicImage::ImageLuma8(GrayImage::from_fn(90, 60, |x, y| Luma([(2 * x + y) as u8]))));
    for (bytes, kind) in [(lean, Kind::Sketch), (&photo, Kind::Photo)] {
        let plain = plain_view(bytes, kind, &manifest()).unwrap();
        let mirrored = mirrored_view(bytes, kind, &manifest()).unwrap();
        assert!(differing(&mirrored, &plain, 16) > 100);
        assert_eq!(image::imageops::flip_horizontal(&mirrored), plain);
        let view = by.view(bytes, kind, &manifest(), &mut Rng::new(&[1])).unwrap();
        assert!(differing(&view, &mirrored, 2) < 20, "{kind:?}");
    }
}

#[test]
fn strokes_are_as_wide_as_asked_for() {
    let ring = {
        let centre = |at: u32| at as f32 - 127.5;
        let on = |x, y| (centre(x).hypot(centre(y)) - 90.0).abs() < 2.0;
        png(DynamicImage::ImageLuma8(GrayImage::from_fn(256, 256, |x, y| Luma([if on(x, y) { 0 } else { 255 }]))))
    };
    for bytes in [HOUSE, &ring] {
        let ink_of = |width| {
            let by = still_with(SketchOptions { stroke: [width, width], ..SketchOptions::none() });
            ink(&by.view(bytes, Kind::Sketch, &manifest(), &mut Rng::new(&[1])).unwrap())
        };
        let ratio = ink_of(6.0) / ink_of(3.0);
        assert!((1.7..2.2).contains(&ratio), "{ratio}");
    }
}

/// The mean logarithm of widths from 1.5 to 6 is that of 3, their deviation ln 4 / √12.
#[test]
fn stroke_widths_are_log_uniform() {
    let usual = SketchPreprocessing::best();
    let widths =
        (0..2000).map(|seed| SketchOptions::default().style(&usual, &mut Rng::new(&[seed])).vector_stroke.ln());
    let widths: Vec<f32> = widths.collect();
    let mean = widths.iter().sum::<f32>() / 2000.0;
    let deviation = (widths.iter().map(|width| (width - mean).powi(2)).sum::<f32>() / 2000.0).sqrt();
    // The standard error of the mean is 0.009.
    assert!((mean - 3f32.ln()).abs() < 0.04, "{mean}");
    assert!((deviation - 4f32.ln() / 12f32.sqrt()).abs() < 0.02, "{deviation}");
    assert!(widths.iter().all(|width| (1.5f32.ln()..=6f32.ln()).contains(width)));
}

#[test]
fn some_stroke_always_stays() {
    let by = still_with(SketchOptions { dropout: 1.0, truncated: 1.0, truncation: 1.0, ..SketchOptions::none() });
    for seed in 0..20 {
        let view = by.view(HOUSE, Kind::Sketch, &manifest(), &mut Rng::new(&[seed])).unwrap();
        assert!(ink(&view) > 100.0);
    }
}

/// The edge of a black disc is a ring; cut to its ink with a margin of 10 % on each side, its radius is 0.5 / 1.2 of the
/// input, less half a stroke.
#[test]
fn the_edge_of_a_disc_is_a_ring() {
    let view = plain_view(&disc(200, 50.0), Kind::PseudoSketch, &manifest()).unwrap();
    let (size, centre) = (SIZE as f32, SIZE as f32 / 2.0);
    let expected = 0.5 / 1.2 * size - 1.5;
    for (x, y, pixel) in view.enumerate_pixels() {
        let radius = (x as f32 + 0.5 - centre).hypot(y as f32 + 0.5 - centre);
        assert!(pixel.0[0] > 128 || (radius - expected).abs() < 4.5, "ink at radius {radius} of {expected}");
    }
    let length = ink(&view) / 3.0;
    assert!((length / (std::f32::consts::TAU * expected) - 1.0).abs() < 0.1, "{length}");
}

/// Both pictures have the same outline; one is filled with texture of less contrast.
#[test]
fn outlines_come_before_texture() {
    let inside = |x: u32, y: u32| (60..196).contains(&x) && (60..196).contains(&y);
    let value = |x: u32, y: u32| if inside(x, y) { 40 + 50 * u8::from((x / 6 + y / 6).is_multiple_of(2)) } else { 255 };
    let photo = png(DynamicImage::ImageLuma8(GrayImage::from_fn(256, 256, |x, y| Luma([value(x, y)]))));
    let mut by = Augmentation::none();
    by.edges.ink = [1.0, 1.0];
    let view = by.view(&photo, Kind::PseudoSketch, &manifest(), &mut Rng::new(&[1])).unwrap();
    let middle = |(x, y, pixel): (u32, u32, &image::Rgb<u8>)| {
        (50..174).contains(&x) && (50..174).contains(&y) && pixel.0[0] < 128
    };
    assert_eq!(view.enumerate_pixels().filter(|pixel| middle(*pixel)).count(), 0);
    assert!(ink(&view) > 1000.0);
}

#[test]
fn transparency_is_paper() {
    let alpha = |x: u32| if (20..30).contains(&x) { 255 } else { 0 };
    let drawn = image::RgbaImage::from_fn(60, 60, |x, _| image::Rgba([0, 0, 0, alpha(x)]));
    let by = still_with(SketchOptions { turn: 5.0, ..SketchOptions::none() });
    let bytes = png(DynamicImage::ImageRgba8(drawn));
    let view = by.view(&bytes, Kind::Sketch, &manifest(), &mut Rng::new(&[1])).unwrap();
    assert!(ink(&view) < 0.2 * (SIZE * SIZE) as f32);
    let by = Augmentation { photo: PhotoOptions { brightness: 0.01, ..PhotoOptions::none() }, ..Augmentation::none() };
    let view = by.view(&bytes, Kind::Photo, &manifest(), &mut Rng::new(&[1])).unwrap();
    assert!(ink(&view) < 0.3 * (SIZE * SIZE) as f32);
}

#[test]
fn what_shows_nothing_is_refused() {
    let by = Augmentation::default();
    let blank =
        |width, height, value| png(DynamicImage::ImageLuma8(GrayImage::from_pixel(width, height, Luma([value]))));
    let (white, dot) = (blank(40, 40, 255), blank(1, 1, 0));
    for seed in 0..20 {
        let view = |bytes: &[u8], kind| by.view(bytes, kind, &manifest(), &mut Rng::new(&[seed]));
        for bytes in [&white, &dot, &blank(1, 900, 7), &blank(900, 1, 7)] {
            assert!(matches!(view(bytes, Kind::PseudoSketch), Err(AugmentError::NoEdges)));
            assert!(matches!(view(bytes, Kind::Sketch), Err(AugmentError::Preprocess(_))));
            assert_eq!(view(bytes, Kind::Photo).unwrap().dimensions(), (SIZE, SIZE));
        }
        assert!(matches!(view(b"[[[5],[5]]]", Kind::Sketch), Err(AugmentError::Preprocess(_))));
        assert!(matches!(view(b"[]", Kind::Sketch), Err(AugmentError::Drawing(_))));
        assert!(matches!(view(b"no image", Kind::Photo), Err(AugmentError::Photo(_))));
    }
}

#[test]
fn options_are_read_and_unknown_ones_refused() {
    let by: Augmentation = toml::from_str("mirror = 0.25\n[sketch]\nturn = 5.0\n[photo]\ngrey = 0.0\n").unwrap();
    let default = Augmentation::default();
    let expected = Augmentation {
        mirror: 0.25,
        sketch: SketchOptions { turn: 5.0, ..default.sketch },
        photo: PhotoOptions { grey: 0.0, ..default.photo },
        ..default
    };
    assert_eq!(by, expected);
    assert_eq!(toml::from_str::<Augmentation>(&toml::to_string(&by).unwrap()).unwrap(), by);
    for unknown in ["turn = 5.0", "[sketch]\ntrun = 5.0", "[photo]\nturn = 5.0", "[edges]\nlong = 1.0"] {
        assert!(toml::from_str::<Augmentation>(unknown).is_err(), "{unknown}");
    }
}

#[test]
fn numbers_that_make_no_sense_are_told() {
    assert!(Augmentation::default().is_in_range() && Augmentation::none().is_in_range());
    let sketch = |sketch: SketchOptions| still_with(sketch).is_in_range();
    assert!(!sketch(SketchOptions { stroke: [0.0, 4.0], ..SketchOptions::none() }));
    assert!(!sketch(SketchOptions { stroke: [4.0, 2.0], ..SketchOptions::none() }));
    assert!(!sketch(SketchOptions { dropout: 1.5, ..SketchOptions::none() }));
    assert!(!sketch(SketchOptions { wobble: f32::NAN, ..SketchOptions::none() }));
    let photo = PhotoOptions { crop: 0.0, ..PhotoOptions::none() };
    assert!(!Augmentation { photo, ..Augmentation::none() }.is_in_range());
}
