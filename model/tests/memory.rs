//! What decoding a phone's photo takes of memory. One test, as memory is counted for the whole process.

use image::{DynamicImage, GrayImage, Luma};
use sketch_model::limits::Limits;
use sketch_model::render::decode::decode_image;
use sketch_model::render::preprocess::PhotoPreprocessing;

/// A field of /proc/self/status in MB: `VmRSS` is held now, `VmHWM` was held at most.
fn memory(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with(field)).expect(field);
    line.split_ascii_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).expect(field) / 1024.0
}

/// Peak of memory while `work` runs, above what is held before.
fn grown<T>(work: impl FnOnce() -> T) -> f64 {
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux");
    let held = memory("VmRSS");
    work();
    memory("VmHWM") - held
}

#[test]
fn a_reduced_photo_takes_a_part_of_the_memory() {
    let (width, height) = (4000, 3000);
    let photo = GrayImage::from_fn(width, height, |x, y| Luma([(x / 9 + y / 7) as u8]));
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 80);
    DynamicImage::ImageRgb8(DynamicImage::ImageLuma8(photo).into_rgb8()).write_with_encoder(encoder).unwrap();
    let whole = grown(|| decode_image(&bytes, &Limits::default()).unwrap());
    let reduced = grown(|| PhotoPreprocessing::best().render(&bytes, &Limits::default(), 260).unwrap());
    println!("whole {whole:.1} MB, reduced {reduced:.1} MB");
    assert!(whole >= f64::from(3 * width * height) / 1048576.0, "{whole} MB");
    assert!(reduced <= whole / 8.0, "{reduced} MB of {whole} MB");
}
