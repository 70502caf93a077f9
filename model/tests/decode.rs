//! Bitmap files become upright pixels, or an error that names what is wrong.

use image::DynamicImage;
use proptest::prelude::*;
use sketch_model::limits::Limits;
use sketch_model::render::decode::{DecodeError, Format, decode_image};

const COMPLETE: [&str; 13] = [
    "plain.png",
    "palette.png",
    "grey16.png",
    "turned.png",
    "animated.png",
    "plain.jpg",
    "progressive.jpg",
    "cmyk.jpg",
    "turned.jpg",
    "lossy.webp",
    "lossless.webp",
    "animated.webp",
    "turned.webp",
];

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).expect(name)
}

fn decode(name: &str) -> DynamicImage {
    decode_image(&fixture(name), &Limits::default()).expect(name)
}

/// The fixture shows red, green, blue, white in its quarters, read by rows.
fn assert_upright(picture: &DynamicImage, tolerance: i32, name: &str) {
    assert_eq!((picture.width(), picture.height()), (48, 32), "{name}");
    let rgb = picture.to_rgb8();
    let quarters = [(12, 8, [220, 30, 30]), (36, 8, [30, 200, 30]), (12, 24, [30, 30, 220]), (36, 24, [255; 3])];
    for (x, y, expected) in quarters {
        let found = rgb.get_pixel(x, y).0;
        for channel in 0..3 {
            let difference = i32::from(found[channel]) - expected[channel];
            assert!(difference.abs() <= tolerance, "{name}: {found:?} at {x}, {y}, expected {expected:?}");
        }
    }
}

#[test]
fn every_format_is_decoded_upright() {
    let exact = ["plain.png", "turned.png", "animated.png", "lossless.webp", "animated.webp", "turned.webp"];
    for name in exact {
        assert_upright(&decode(name), 0, name);
    }
    for name in ["plain.jpg", "progressive.jpg", "turned.jpg", "lossy.webp", "palette.png"] {
        assert_upright(&decode(name), 12, name);
    }
    // Without a colour profile CMYK inks are only roughly known.
    assert_upright(&decode("cmyk.jpg"), 40, "cmyk.jpg");
}

#[test]
fn sixteen_bits_are_kept() {
    let picture = decode("grey16.png");
    assert_eq!(picture.to_luma16().get_pixel(1, 1).0[0], 49 * 42);
}

#[test]
fn every_cut_is_an_error() {
    for name in COMPLETE {
        let whole = fixture(name);
        for length in 1..whole.len() {
            let cut = decode_image(&whole[..length], &Limits::default());
            assert!(cut.is_err(), "{name} of {} bytes decoded from its first {length}", whole.len());
        }
    }
}

#[test]
fn a_cut_in_the_pixels_is_called_truncated() {
    for name in ["plain.png", "plain.jpg", "lossy.webp"] {
        let whole = fixture(name);
        let cut = decode_image(&whole[..whole.len() - 10], &Limits::default());
        assert!(matches!(cut, Err(DecodeError::Truncated { .. })), "{name}: {cut:?}");
    }
}

#[test]
fn bytes_after_the_end_do_no_harm() {
    for name in COMPLETE {
        let mut longer = fixture(name);
        longer.extend_from_slice(b"appended by a camera");
        assert!(decode_image(&longer, &Limits::default()).is_ok(), "{name}");
    }
}

#[test]
fn other_formats_are_named() {
    let error = decode_image(&fixture("other.gif"), &Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "image format \"GIF\" is not supported");
    let heic = decode_image(b"\0\0\0\x18ftypheic", &Limits::default());
    assert!(matches!(heic, Err(DecodeError::UnsupportedFormat { found: "HEIF or AVIF" })));
    assert!(matches!(decode_image(b"hello", &Limits::default()), Err(DecodeError::UnknownFormat)));
    assert!(matches!(decode_image(b"", &Limits::default()), Err(DecodeError::Empty)));
}

#[test]
fn limits_are_checked_in_order() {
    let png = fixture("plain.png");
    let limits = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        limits
    };
    let bytes = decode_image(&png, &limits(|limits| limits.bytes = 10));
    assert!(matches!(bytes, Err(DecodeError::TooManyBytes { limit: 10, .. })));
    let pixels = decode_image(&png, &limits(|limits| limits.pixels = 48 * 32 - 1));
    let expected = DecodeError::TooManyPixels { format: Format::Png, width: 48, height: 32, limit: 48 * 32 - 1 };
    assert_eq!(pixels.unwrap_err().to_string(), expected.to_string());
    let memory = decode_image(&png, &limits(|limits| limits.allocation = 1000));
    assert!(matches!(memory, Err(DecodeError::TooMuchMemory { limit: 1000, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = decode_image(&bytes, &Limits::default());
    }

    #[test]
    fn damaged_files_never_panic(
        file in prop::sample::select(COMPLETE.to_vec()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = fixture(file);
        for (index, value) in damage {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        let small = Limits { pixels: 1_000_000, ..Limits::default() };
        let _ = decode_image(&bytes, &small);
    }
}
