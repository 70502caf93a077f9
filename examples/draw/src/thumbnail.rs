//! Small copies of photos.

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits, Rgba, RgbaImage, imageops};
use std::io::Cursor;

const QUALITY: u8 = 85;

/// Scales a photo down to fit into a square of `size` pixels, upright, on white. Returns a JPEG.
pub fn thumbnail(photo: &[u8], size: u32) -> Result<Vec<u8>, ImageError> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(20_000);
    limits.max_image_height = Some(20_000);
    let mut reader = ImageReader::new(Cursor::new(photo)).with_guessed_format()?;
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let orientation = decoder.orientation()?;
    let (width, height) = decoder.dimensions();
    let size = size.min(width.max(height));
    let mut small = DynamicImage::from_decoder(decoder)?.thumbnail(size, size);
    small.apply_orientation(orientation);

    let mut page = RgbaImage::from_pixel(small.width(), small.height(), Rgba([255; 4]));
    imageops::overlay(&mut page, &small.to_rgba8(), 0, 0);
    let mut jpeg = Vec::new();
    DynamicImage::from(page).to_rgb8().write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, QUALITY))?;
    Ok(jpeg)
}

/// The media type of a photo by its first bytes.
pub fn media_type(photo: &[u8]) -> &'static str {
    image::guess_format(photo).map_or("application/octet-stream", |format| format.to_mime_type())
}
