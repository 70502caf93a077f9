//! Photos that are decoded no larger than the network needs: what they look like, and what they cost. Needs ONNX Runtime:
//! ONNXRUNTIME_LIB names its library, as `make test` sets it.

use std::path::Path;

use image::imageops::{self, FilterType};
use image::{DynamicImage, RgbImage};
use proptest::prelude::*;
use sketch_model::inference::encoder::{Device, Domain, Encoder, EncoderOptions};
use sketch_model::inference::runtime;
use sketch_model::limits::Limits;
use sketch_model::manifest::Manifest;
use sketch_model::render::decode::{DecodeError, decode_image};
use sketch_model::render::preprocess::{Fit, PhotoPreprocessing};
use sketch_model::render::resize::Filter;

/// Of 361 x 273 pixels, in the kinds of JPEG that are reduced as they are decoded.
const REDUCED: [&str; 5] = ["photo_444.jpg", "photo_422.jpg", "photo_420.jpg", "photo_turned.jpg", "photo_grey.jpg"];
/// Sides of an input for which these are reduced by 8, 4 and 2, and decoded whole.
const SIZES: [u32; 4] = [20, 40, 80, 160];

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).expect(name)
}

fn fits() -> [PhotoPreprocessing; 3] {
    [Fit::Squash, Fit::CentreCrop, Fit::Pad { colour: [0, 0, 255] }]
        .map(|fit| PhotoPreprocessing { fit, filter: Filter::Triangle })
}

fn whole(how: &PhotoPreprocessing, bytes: &[u8], size: u32) -> RgbImage {
    how.apply(&decode_image(bytes, &Limits::default()).unwrap(), size)
}

/// Largest and mean difference of two pictures, in grey levels.
fn difference(a: &RgbImage, b: &RgbImage) -> (u8, f64) {
    assert_eq!(a.dimensions(), b.dimensions());
    let differences: Vec<u8> = a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b)).collect();
    let sum: f64 = differences.iter().map(|&difference| f64::from(difference)).sum();
    (differences.iter().copied().max().unwrap_or(0), sum / differences.len() as f64)
}

/// The bound that docs/preprocessing.md states.
#[test]
fn a_reduced_photo_looks_like_the_whole() {
    for name in REDUCED {
        let bytes = fixture(name);
        for how in fits() {
            for size in SIZES {
                let found = how.render(&bytes, &Limits::default(), size).unwrap();
                let (largest, mean) = difference(&found, &whole(&how, &bytes, size));
                println!("{name} {:?} {size}: {largest} {mean:.2}", how.fit);
                assert!(largest <= 24 && mean <= 2.0, "{name} {:?} {size}: {largest}, {mean:.2}", how.fit);
            }
        }
    }
}

fn jpeg(photo: RgbImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality);
    DynamicImage::ImageRgb8(photo).write_with_encoder(encoder).unwrap();
    bytes
}

/// With the network that ships. Embeddings have length 1; those of two photos of one class are about 0.8 apart.
#[test]
fn the_embedding_of_a_reduced_photo_is_that_of_the_whole() {
    let weights = |ending| std::fs::read(format!("{}/weights/lite2-sketch-2.{ending}", env!("CARGO_MANIFEST_DIR")));
    let manifest = Manifest::from_json(&String::from_utf8(weights("json").unwrap()).unwrap()).unwrap();
    let library = std::env::var_os("ONNXRUNTIME_LIB").expect("ONNXRUNTIME_LIB must name ONNX Runtime's library");
    runtime::init(Path::new(&library)).unwrap();
    let options = EncoderOptions::new(Device::Cpu, 1);
    let mut encoder = Encoder::load(&weights("onnx").unwrap(), &manifest, &options).unwrap();
    let mut embed = |picture: &RgbImage| encoder.encode(Domain::Photo, &manifest.normalise(picture), 1).unwrap();
    let small = decode_image(&fixture("photo_444.jpg"), &Limits::default()).unwrap().into_rgb8();
    for (width, height) in [(1024, 768), (1600, 1200), (3000, 4000)] {
        let mut photo = imageops::resize(&small, width, height, FilterType::CatmullRom);
        for (i, value) in photo.iter_mut().enumerate() {
            // Grain of up to 12 levels.
            *value = value.saturating_add((i as u32).wrapping_mul(2_654_435_761).rotate_left(9) as u8 % 13);
        }
        let bytes = jpeg(photo, 88);
        let whole = embed(&whole(&manifest.photo, &bytes, manifest.input.size));
        let reduced = embed(&manifest.photo.render(&bytes, &Limits::default(), manifest.input.size).unwrap());
        let distance = (&whole - &reduced).mapv(|x| x * x).sum().sqrt();
        println!("{width} x {height}: {distance:.4}");
        assert!(distance > 0.0, "{width} x {height} was not reduced");
        assert!(distance <= 0.1, "{width} x {height}: {distance}");
    }
}

/// A plain area has no detail that a reduction could change.
#[test]
fn plain_colours_are_exact() {
    for colour in [[0, 0, 0], [255, 255, 255], [200, 10, 20], [10, 120, 240]] {
        let bytes = jpeg(RgbImage::from_pixel(333, 250, image::Rgb(colour)), 100);
        for size in SIZES {
            let found = PhotoPreprocessing::best().render(&bytes, &Limits::default(), size).unwrap();
            assert!(difference(&found, &whole(&PhotoPreprocessing::best(), &bytes, size)).0 <= 1, "{colour:?} {size}");
        }
    }
}

#[test]
fn other_files_are_decoded_whole() {
    for name in ["photo_progressive.jpg", "photo_cmyk.jpg", "photo.png", "lossy.webp"] {
        for how in fits() {
            let found = how.render(&fixture(name), &Limits::default(), 20).unwrap();
            assert_eq!(found, whole(&how, &fixture(name), 20), "{name}");
        }
    }
}

#[test]
fn memory_falls_with_the_size() {
    let render = |name: &str, size, allocation| {
        let limits = Limits { allocation, ..Limits::default() };
        PhotoPreprocessing::best().render(&fixture(name), &limits, size)
    };
    let whole = 361 * 273 * 3;
    for name in ["photo_444.jpg", "photo_422.jpg", "photo_420.jpg", "photo_turned.jpg"] {
        // A row of blocks comes on top.
        for (size, share) in [(20, 40), (40, 12), (80, 3)] {
            render(name, size, whole / share).unwrap_or_else(|error| panic!("{name} {size}: {error}"));
        }
        let refused = render(name, 160, whole - 1);
        assert!(matches!(refused, Err(DecodeError::TooMuchMemory { .. })), "{name}: {refused:?}");
        let refused = render(name, 20, whole / 200);
        assert!(matches!(refused, Err(DecodeError::TooMuchMemory { .. })), "{name}: {refused:?}");
    }
}

#[test]
fn limits_hold() {
    let render = |limits: Limits| PhotoPreprocessing::best().render(&fixture("photo_420.jpg"), &limits, 20);
    let few = render(Limits { pixels: 361 * 273 - 1, ..Limits::default() });
    assert!(matches!(few, Err(DecodeError::TooManyPixels { width: 361, height: 273, .. })), "{few:?}");
    let short = render(Limits { bytes: 1000, ..Limits::default() });
    assert!(matches!(short, Err(DecodeError::TooManyBytes { limit: 1000, .. })), "{short:?}");
}

#[test]
fn every_cut_is_an_error() {
    for name in REDUCED {
        let whole = fixture(name);
        for length in (1..whole.len()).step_by(7).chain(whole.len() - 40..whole.len()) {
            let cut = PhotoPreprocessing::best().render(&whole[..length], &Limits::default(), 20);
            assert!(cut.is_err(), "{name} of {} bytes decoded from its first {length}", whole.len());
        }
        let cut = PhotoPreprocessing::best().render(&whole[..whole.len() - 10], &Limits::default(), 20);
        assert!(matches!(cut, Err(DecodeError::Truncated { .. })), "{name}: {cut:?}");
    }
}

#[test]
fn bytes_after_the_end_do_no_harm() {
    for name in REDUCED {
        let mut longer = fixture(name);
        let usual = PhotoPreprocessing::best().render(&longer, &Limits::default(), 20).unwrap();
        longer.extend_from_slice(b"appended by a camera");
        assert_eq!(PhotoPreprocessing::best().render(&longer, &Limits::default(), 20).unwrap(), usual, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the damage, it is an error only if it is one for the whole photo.
    #[test]
    fn damaged_photos_never_panic(
        file in prop::sample::select(REDUCED.to_vec()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        size in prop::sample::select(SIZES.to_vec()),
    ) {
        let mut bytes = fixture(file);
        for (index, value) in damage {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        let small = Limits { pixels: 1_000_000, ..Limits::default() };
        let found = PhotoPreprocessing::best().render(&bytes, &small, size);
        if let Err(error) = found {
            prop_assert!(decode_image(&bytes, &small).is_err(), "{error}");
        }
    }
}
