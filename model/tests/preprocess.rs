//! Laws of preprocessing: what must not change the picture that the network sees, and what must be refused.

use image::{DynamicImage, GrayImage, Luma, LumaA, Rgb, RgbImage, Rgba, RgbaImage, imageops};
use proptest::prelude::*;
use sketch_model::limits::Limits;
use sketch_model::render::decode::decode_image;
use sketch_model::render::drawing::Drawing;
use sketch_model::render::preprocess::{
    Colours, Crop, Fit, PhotoPreprocessing, Polarity, PreprocessError, SketchPreprocessing,
};
use sketch_model::render::resize::Filter;

const SIZE: u32 = 64;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).expect(name)
}

fn decode(bytes: &[u8]) -> Drawing {
    Drawing::decode(bytes, &Limits::default()).expect("a drawing")
}

fn best(drawing: &Drawing) -> RgbImage {
    SketchPreprocessing::best().apply(drawing, SIZE).expect("no blank drawing")
}

fn bitmap(picture: impl Into<DynamicImage>) -> Drawing {
    Drawing::Bitmap(picture.into())
}

/// Largest and mean difference of two pictures, in grey levels.
fn difference(a: &RgbImage, b: &RgbImage) -> (u8, f64) {
    assert_eq!(a.dimensions(), b.dimensions());
    let differences: Vec<u8> = a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b)).collect();
    let sum: f64 = differences.iter().map(|&difference| f64::from(difference)).sum();
    (differences.iter().copied().max().unwrap_or(0), sum / differences.len() as f64)
}

fn assert_close(a: &RgbImage, b: &RgbImage, largest: u8, mean: f64, what: &str) {
    let found = difference(a, b);
    assert!(
        found.0 <= largest && found.1 <= mean,
        "{what}: differ by up to {}, by {:.2} in the mean",
        found.0,
        found.1
    );
}

/// The fixture's face on a sheet of `side` pixels, drawn with a pen of `pen` pixels.
fn face(side: u32, pen: f32) -> GrayImage {
    let style =
        SketchPreprocessing { frame: Crop::Ink { margin: 0.2 }, vector_stroke: pen, ..SketchPreprocessing::exact() };
    DynamicImage::ImageRgb8(style.apply(&decode(&fixture("face.json")), side).unwrap()).into_luma8()
}

mod golden {
    use super::*;

    fn expected(name: &str) -> RgbImage {
        decode_image(&fixture(name), &Limits::default()).expect(name).to_rgb8()
    }

    /// Against the distance of 64 sample points a pixel to the nearest line. Round ends and crossings make the large
    /// differences; 64 samples are themselves off by up to 8 levels at an edge.
    #[test]
    fn strokes_are_drawn_where_they_should_be() {
        let style = SketchPreprocessing {
            frame: Crop::Ink { margin: 0.125 },
            vector_stroke: 2.0,
            ..SketchPreprocessing::exact()
        };
        let found = style.apply(&decode(&fixture("face.json")), SIZE).unwrap();
        assert_close(&found, &expected("face_strokes.png"), 60, 1.0, "face");
    }

    /// Against Pillow's bilinear resizing; one level is rounding.
    #[test]
    fn exact_is_plain_resizing() {
        let scan = SketchPreprocessing::exact().apply(&decode(&fixture("face_scan.png")), SIZE).unwrap();
        assert_close(&scan, &expected("face_scan_exact.png"), 1, 0.1, "scan");
        let photo = decode_image(&fixture("photo.png"), &Limits::default()).unwrap();
        let squashed = PhotoPreprocessing::exact().apply(&photo, SIZE);
        assert_close(&squashed, &expected("photo_exact.png"), 1, 0.1, "photo");
        let crop = PhotoPreprocessing { fit: Fit::CentreCrop, filter: Filter::Triangle };
        assert_close(&crop.apply(&photo, SIZE), &expected("photo_crop.png"), 1, 0.1, "crop");
    }
}

mod invariance {
    use super::*;

    fn strokes() -> impl Strategy<Value = Vec<Vec<(f64, f64)>>> {
        let point = (0.0..100.0f64, 0.0..100.0f64);
        let spread = |strokes: &Vec<Vec<(f64, f64)>>| {
            let x = || strokes.iter().flatten().map(|point| point.0);
            x().fold(0.0, f64::max) - x().fold(100.0, f64::min) > 10.0
        };
        prop::collection::vec(prop::collection::vec(point, 2..8), 1..5).prop_filter("too small", spread)
    }

    fn json(strokes: &[Vec<(f64, f64)>], scale: f64, shift: (f64, f64)) -> Drawing {
        let row = |values: Vec<f64>| format!("{values:?}");
        let stroke = |points: &Vec<(f64, f64)>| {
            let x = points.iter().map(|point| scale * point.0 + shift.0).collect();
            let y = points.iter().map(|point| scale * point.1 + shift.1).collect();
            format!("[{},{}]", row(x), row(y))
        };
        let all: Vec<String> = strokes.iter().map(stroke).collect();
        decode(format!("[{}]", all.join(",")).as_bytes())
    }

    /// The strokes on a sheet of 160 pixels.
    fn sheet(strokes: &[Vec<(f64, f64)>]) -> GrayImage {
        let style = SketchPreprocessing { frame: Crop::Ink { margin: 0.1 }, ..SketchPreprocessing::exact() };
        DynamicImage::ImageRgb8(style.apply(&json(strokes, 1.0, (0.0, 0.0)), 160).unwrap()).into_luma8()
    }

    proptest! {
        #[test]
        fn place_and_scale_of_strokes(
            strokes in strokes(),
            scale in 1e-3..1e6f64,
            shift in (-1e6..1e6f64, -1e6..1e6f64),
        ) {
            let moved = json(&strokes, scale, (scale * shift.0 / 1e3, scale * shift.1 / 1e3));
            assert_close(&best(&json(&strokes, 1.0, (0.0, 0.0))), &best(&moved), 2, 0.1, "moved");
        }

        #[test]
        fn order_of_strokes(strokes in strokes()) {
            let turned: Vec<Vec<_>> = strokes.iter().rev().map(|stroke| stroke.iter().rev().copied().collect()).collect();
            let (a, b) = (json(&strokes, 1.0, (0.0, 0.0)), json(&turned, 1.0, (0.0, 0.0)));
            assert_close(&best(&a), &best(&b), 3, 0.1, "other order");
        }

        #[test]
        fn polarity(strokes in strokes()) {
            let sheet = sheet(&strokes);
            let mut inverted = sheet.clone();
            imageops::invert(&mut inverted);
            assert_close(&best(&bitmap(sheet)), &best(&bitmap(inverted)), 0, 0.0, "inverted");
        }

        #[test]
        fn transparency(strokes in strokes()) {
            let sheet = sheet(&strokes);
            let ink = |x, y| 255 - sheet.get_pixel(x, y).0[0];
            let black = GrayImage::from_fn(160, 160, |x, y| *sheet.get_pixel(x, y));
            let on_glass = image::ImageBuffer::from_fn(160, 160, |x, y| LumaA([0, ink(x, y)]));
            let white_on_glass = RgbaImage::from_fn(160, 160, |x, y| Rgba([255, 255, 255, ink(x, y)]));
            let expected = best(&bitmap(black));
            assert_close(&expected, &best(&Drawing::Bitmap(DynamicImage::ImageLumaA8(on_glass))), 2, 0.1, "black");
            assert_close(&expected, &best(&bitmap(white_on_glass)), 2, 0.1, "white");
        }
    }

    /// On a sheet of twice and of five times the size, in a corner: the pen is seen in proportion.
    #[test]
    fn place_and_scale_of_bitmaps() {
        let best = |sheet: GrayImage| SketchPreprocessing::best().apply(&bitmap(sheet), 224).expect("no blank drawing");
        let small = face(200, 3.0);
        let expected = best(small.clone());
        let mut corner = GrayImage::from_pixel(500, 380, Luma([255]));
        imageops::replace(&mut corner, &small, 290, 10);
        assert_close(&best(corner), &expected, 8, 0.2, "in a corner");
        assert_close(&best(face(1000, 15.0)), &expected, 255, 3.0, "larger");
        assert_close(&best(face(3000, 45.0)), &expected, 255, 3.0, "much larger");
    }

    /// Whatever the pen, about the same share of the picture is ink.
    #[test]
    fn the_pen() {
        let ink = |pen: f32| {
            let picture = best(&bitmap(face(448, pen)));
            picture.iter().map(|&value| 1.0 - f64::from(value) / 255.0).sum::<f64>() / f64::from(3 * SIZE * SIZE)
        };
        let usual = ink(6.0);
        for pen in [1.5, 3.0, 12.0, 20.0] {
            let share = ink(pen) / usual;
            assert!((0.75..1.25).contains(&share), "a pen of {pen} pixels gives {share:.2} times the ink");
        }
    }

    #[test]
    fn the_colour_of_ink() {
        let face = face(300, 4.0);
        let expected = best(&bitmap(face.clone()));
        for colour in [[255, 220, 0], [220, 0, 0], [0, 60, 255], [0, 160, 0]] {
            let mix = |ink: u8, paper: u8| (u32::from(255 - ink) * u32::from(paper) / 255) as u8;
            let coloured = RgbImage::from_fn(300, 300, |x, y| {
                let ink = 255 - face.get_pixel(x, y).0[0];
                Rgb(colour.map(|value| 255 - mix(255 - ink, 255 - value)))
            });
            assert_close(&best(&bitmap(coloured)), &expected, 40, 1.0, "coloured ink");
        }
    }

    /// The same drawing as strokes, as SVG, as SVG on a dark ground, and as white lines alone.
    #[test]
    fn the_format() {
        let expected = best(&decode(b"[[[0,30,30],[0,0,40]],[[10,20],[30,10]]]"));
        let lines = |colour: &str| {
            let path = |d: &str| format!("<path d=\"{d}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"9\"/>");
            path("M0 0H30V40") + &path("M10 30L20 10")
        };
        let svg =
            |body: String| format!("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-5 -5 50 50\">{body}</svg>");
        let ground = "<rect x=\"-5\" y=\"-5\" width=\"50\" height=\"50\" fill=\"#112233\"/>";
        for text in [
            svg(lines("black")),
            svg(lines("white")),
            svg(ground.to_owned() + &lines("white")),
            svg(ground.replace("#112233", "#ffffff") + &lines("black")),
            svg(format!("<g transform=\"rotate(90) scale(3)\">{}</g>", lines("#00f"))).replace("rotate(90) ", ""),
        ] {
            assert_close(&best(&decode(text.as_bytes())), &expected, 2, 0.1, &text);
        }
    }
}

mod photos_of_paper {
    use super::*;

    /// A number that looks random, 0 to 255.
    fn noise(x: u32, y: u32) -> u32 {
        let mixed = (x.wrapping_mul(73_856_093) ^ y.wrapping_mul(19_349_663)).wrapping_mul(2_654_435_761);
        mixed >> 24
    }

    /// Pencil on paper that gets darker to one side, with grain, beside a dark table.
    fn photo(sheet: &GrayImage) -> RgbImage {
        let (width, height) = sheet.dimensions();
        RgbImage::from_fn(width + width / 10, height, |x, y| {
            let grain = noise(x, y) as f32 / 255.0 * 20.0 - 10.0;
            if x >= width {
                return Rgb([60.0 + grain; 3].map(|value: f32| value as u8));
            }
            let light = 1.0 - 0.35 * (x + y) as f32 / (width + height) as f32;
            let ink = 1.0 - f32::from(sheet.get_pixel(x, y).0[0]) / 255.0;
            Rgb([225.0, 220.0, 205.0].map(|paper: f32| (paper * light * (1.0 - 0.45 * ink) + grain) as u8))
        })
    }

    #[test]
    fn look_like_scans() {
        let sheet = face(600, 8.0);
        let scan = best(&bitmap(sheet.clone()));
        assert_close(&best(&bitmap(photo(&sheet))), &scan, 130, 6.0, "photo");
    }

    #[test]
    fn without_a_drawing_are_blank() {
        let empty = GrayImage::from_pixel(300, 300, Luma([255]));
        let refused = SketchPreprocessing::best().apply(&bitmap(photo(&empty)), SIZE);
        assert_eq!(refused.err(), Some(PreprocessError::Blank));
    }
}

#[test]
fn nothing_drawn_is_blank() {
    let blank = |drawing: &Drawing, what: &str| {
        for preset in [SketchPreprocessing::best(), SketchPreprocessing::exact()] {
            assert_eq!(preset.apply(drawing, SIZE).err(), Some(PreprocessError::Blank), "{what}");
        }
    };
    for grey in [0, 100, 255] {
        blank(&bitmap(GrayImage::from_pixel(90, 40, Luma([grey]))), "one grey");
    }
    blank(&bitmap(GrayImage::from_fn(90, 90, |x, y| Luma([250 + ((x * 7 + y * 3) % 5) as u8]))), "hardly any contrast");
    blank(&bitmap(RgbaImage::new(50, 50)), "transparent");
    blank(&bitmap(GrayImage::from_pixel(1, 1, Luma([0]))), "one pixel");
    let dot = br##"<svg xmlns="http://www.w3.org/2000/svg"><path d="M5 5L5 5" stroke="black"/></svg>"##;
    let white = br##"<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9" fill="#fff"/></svg>"##;
    for text in
        [&b"[[[5],[7]]]"[..], b"[[[5,5,5],[7,7,7]],[[5],[7]]]", dot, b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>"]
    {
        blank(&decode(text), &String::from_utf8_lossy(text));
    }
    assert_eq!(SketchPreprocessing::exact().apply(&decode(white), SIZE).err(), Some(PreprocessError::Blank));
}

#[test]
fn a_silhouette_stays_black() {
    let disc = GrayImage::from_fn(200, 200, |x, y| {
        let (x, y) = (f64::from(x) - 100.0, f64::from(y) - 100.0);
        Luma([if x.hypot(y) < 90.0 { 0 } else { 255 }])
    });
    let picture = best(&bitmap(disc));
    assert_eq!(picture.get_pixel(SIZE / 2, SIZE / 2).0, [0; 3]);
    assert_eq!(picture.get_pixel(1, 1).0, [255; 3]);
}

#[test]
fn erased_strokes_stay_erased() {
    let svg = br##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100" fill="none">
        <path d="M0 0H100V100H0Z" stroke="black"/><path d="M40 0H60" stroke="white"/></svg>"##;
    let best = SketchPreprocessing { frame: Crop::Ink { margin: 0.0 }, ..SketchPreprocessing::best() };
    let picture = best.apply(&decode(svg), SIZE).unwrap();
    assert!(picture.get_pixel(SIZE / 2, 1).0[0] > 200);
    assert!(picture.get_pixel(SIZE / 5, 1).0[0] < 60);
}

#[test]
fn a_pad_keeps_proportions_and_transparency_becomes_white() {
    let mut photo = RgbaImage::from_pixel(200, 100, Rgba([200, 0, 0, 255]));
    imageops::replace(&mut photo, &RgbaImage::new(100, 100), 100, 0);
    let pad = PhotoPreprocessing { fit: Fit::Pad { colour: [0, 0, 255] }, filter: Filter::Triangle };
    let picture = pad.apply(&photo.into(), SIZE);
    assert_eq!(picture.get_pixel(5, 3).0, [0, 0, 255]);
    assert_eq!(picture.get_pixel(5, SIZE / 2).0, [200, 0, 0]);
    assert_eq!(picture.get_pixel(SIZE - 5, SIZE / 2).0, [255; 3]);
}

#[test]
fn manifests_round_trip_and_refuse_what_they_do_not_know() {
    for preset in [SketchPreprocessing::best(), SketchPreprocessing::exact()] {
        let json = serde_json::to_string(&preset).unwrap();
        assert_eq!(serde_json::from_str::<SketchPreprocessing>(&json).unwrap(), preset);
        let unknown = json.replacen('{', "{\"sharpen\":1,", 1);
        assert!(serde_json::from_str::<SketchPreprocessing>(&unknown).is_err());
    }
    for preset in [PhotoPreprocessing::best(), PhotoPreprocessing::exact()] {
        let json = serde_json::to_string(&preset).unwrap();
        assert_eq!(serde_json::from_str::<PhotoPreprocessing>(&json).unwrap(), preset);
    }
}

proptest! {
    #[test]
    fn any_picture_is_prepared_or_refused(
        width in 1u32..40,
        height in 1u32..40,
        pixels in prop::collection::vec(any::<u8>(), 4 * 40 * 40),
        stretch in any::<bool>(),
        keep in any::<bool>(),
        margin in 0.0..2.0f32,
        pen in prop::option::of(0.1..9.0f32),
        size in 1u32..40,
    ) {
        let at = |x: u32, y: u32, c: u32| pixels[(4 * (40 * y + x) + c) as usize];
        let rgba: DynamicImage = RgbaImage::from_fn(width, height, |x, y| Rgba([0, 1, 2, 3].map(|c| at(x, y, c)))).into();
        let preprocessing = SketchPreprocessing {
            polarity: if keep { Polarity::Keep } else { Polarity::DarkOnLight },
            colours: if keep { Colours::Keep } else { Colours::Darkest },
            stretch_contrast: stretch,
            frame: if keep { Crop::Whole } else { Crop::Ink { margin } },
            bitmap_stroke: pen,
            ..SketchPreprocessing::best()
        };
        let kinds = [
            rgba.clone(),
            DynamicImage::ImageLuma8(rgba.to_luma8()),
            DynamicImage::ImageLumaA16(rgba.to_luma_alpha16()),
            DynamicImage::ImageRgb32F(rgba.to_rgb32f()),
        ];
        for picture in kinds {
            for fit in [Fit::Squash, Fit::CentreCrop, Fit::Pad { colour: [1, 2, 3] }] {
                let photo = PhotoPreprocessing { fit, filter: Filter::Area }.apply(&picture, size);
                prop_assert_eq!(photo.dimensions(), (size, size));
            }
            if let Ok(sketch) = preprocessing.apply(&Drawing::Bitmap(picture), size) {
                prop_assert_eq!(sketch.dimensions(), (size, size));
            }
        }
    }
}
