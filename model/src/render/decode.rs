//! PNG, JPEG and WebP bytes to pixels, within limits.

use std::borrow::Cow;
use std::io::Cursor;

use image::codecs::{jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageResult};

use crate::limits::Limits;
pub use crate::render::container::Format;
use crate::render::resize::Region;
use crate::render::{container, jpeg};

/// Why an image could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("image is empty")]
    Empty,
    #[error("image has {length} bytes, the limit is {limit}")]
    TooManyBytes { length: usize, limit: usize },
    #[error("image format \"{found}\" is not supported")]
    UnsupportedFormat { found: &'static str },
    #[error("image format is not recognised")]
    UnknownFormat,
    #[error("{format} image is {width} x {height} pixels, the limit is {limit} pixels")]
    TooManyPixels { format: Format, width: u32, height: u32, limit: u64 },
    #[error("{format} image of {width} x {height} pixels needs {needed} bytes to decode, the limit is {limit}")]
    TooMuchMemory { format: Format, width: u32, height: u32, needed: u64, limit: u64 },
    #[error("{format} image is coded in {scans} scans, the limit is {limit}")]
    TooManyScans { format: Format, scans: usize, limit: usize },
    #[error("{format} image is truncated after {length} bytes")]
    Truncated { format: Format, length: usize },
    #[error("{format} image could not be decoded")]
    Malformed {
        format: Format,
        #[source]
        source: ImageError,
    },
}

/// Encoders write about 10 scans in a progressive JPEG; each is a pass over all pixels, also if it is a few bytes long.
const MAX_SCANS: usize = 40;

/// Decodes a PNG, JPEG or WebP file, turned upright as its EXIF orientation says.
///
/// Of an animated file the first frame is taken. The size in the header is checked against `limits`
/// before any pixel is decoded.
///
/// # Errors
/// [`DecodeError`]: the bytes are another format, damaged, cut short, or exceed a limit. A file that is
/// cut short is always an error, never half a picture.
pub fn decode_image(bytes: &[u8], limits: &Limits) -> Result<DynamicImage, DecodeError> {
    let format = check(bytes, limits)?;
    let Photo { picture, orientation, .. } = decode_whole(format, bytes, limits)?;
    let mut picture = picture.into_owned();
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// A photo as it is stored: not yet turned upright, and maybe reduced.
pub(crate) struct Photo<'a> {
    pub picture: Cow<'a, DynamicImage>,
    /// What of the picture is the photo: where a reduced photo ends within a pixel, not all.
    pub region: Region,
    pub orientation: Orientation,
}

/// Decodes a file as [`decode_image`] does, but may reduce it along each side by up to as many times as `most` returns
/// for a photo's width and height.
pub(crate) fn decode_photo(
    bytes: &[u8],
    limits: &Limits,
    most: impl Fn(u32, u32) -> f64,
) -> Result<Photo<'static>, DecodeError> {
    let format = check(bytes, limits)?;
    let reduced = if format == Format::Jpeg { decode_reduced(bytes, limits, most) } else { None };
    reduced.map_or_else(|| decode_whole(format, bytes, limits), Ok)
}

/// A JPEG that can be reduced as it is decoded, within limits; whatever is wrong with others, [`decode_whole`] says.
fn decode_reduced(bytes: &[u8], limits: &Limits, most: impl Fn(u32, u32) -> f64) -> Option<Photo<'static>> {
    let header = jpeg::Header::read(bytes)?;
    let by = jpeg::reduction(most(header.width, header.height))?;
    let pixels = u64::from(header.width) * u64::from(header.height);
    if pixels > limits.pixels || jpeg::memory(&header, by) > limits.allocation {
        return None;
    }
    let picture = Cow::Owned(jpeg::decode(&header, bytes, by)?);
    let side = |extent: u32| f64::from(extent) / f64::from(by);
    let region = Region { left: 0.0, top: 0.0, width: side(header.width), height: side(header.height) };
    Some(Photo { picture, region, orientation: header.orientation })
}

fn check(bytes: &[u8], limits: &Limits) -> Result<Format, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    if bytes.len() > limits.bytes {
        return Err(DecodeError::TooManyBytes { length: bytes.len(), limit: limits.bytes });
    }
    sniff(bytes)
}

fn decode_whole(format: Format, bytes: &[u8], limits: &Limits) -> Result<Photo<'static>, DecodeError> {
    let reader = Cursor::new(bytes);
    match format {
        Format::Png => decode(format, bytes, limits, PngDecoder::with_limits(reader, png_limits())),
        Format::Jpeg => decode(format, bytes, limits, JpegDecoder::new(reader)),
        Format::WebP => decode(format, bytes, limits, WebPDecoder::new(reader)),
    }
}

/// Detects the format by the first bytes.
///
/// # Errors
/// [`DecodeError::UnsupportedFormat`] for a known picture or document format that is not decoded here,
/// [`DecodeError::UnknownFormat`] for everything else.
pub fn sniff(bytes: &[u8]) -> Result<Format, DecodeError> {
    const OTHERS: [(&[u8], &str); 10] = [
        (b"GIF8", "GIF"),
        (b"BM", "BMP"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"%PDF", "PDF"),
        (b"8BPS", "Photoshop"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\x01\0", "ICO"),
        (b"\x1f\x8b", "gzip (SVGZ)"),
        (b"\0\0\0\x0cJXL ", "JPEG XL"),
    ];
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Ok(Format::Png);
    }
    if bytes.starts_with(b"\xff\xd8\xff") {
        return Ok(Format::Jpeg);
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Ok(Format::WebP);
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        return Err(DecodeError::UnsupportedFormat { found: "HEIF or AVIF" });
    }
    match OTHERS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, found)) => Err(DecodeError::UnsupportedFormat { found }),
        None => Err(DecodeError::UnknownFormat),
    }
}

fn codec_limits(limits: &Limits) -> image::Limits {
    let mut codec = image::Limits::default();
    codec.max_alloc = Some(limits.allocation);
    codec
}

/// The PNG decoder applies these to what it keeps beside the picture: lines, and profiles that unpack to far more than
/// the file's length.
fn png_limits() -> image::Limits {
    let mut codec = image::Limits::default();
    codec.max_alloc = Some(8 << 20);
    codec
}

fn decode<D: ImageDecoder>(
    format: Format,
    bytes: &[u8],
    limits: &Limits,
    decoder: ImageResult<D>,
) -> Result<Photo<'static>, DecodeError> {
    let ends = container::is_complete(format, bytes);
    let malformed = |source| match source {
        _ if !ends => DecodeError::Truncated { format, length: bytes.len() },
        source => DecodeError::Malformed { format, source },
    };
    let mut decoder = decoder.map_err(malformed)?;
    check_size(format, bytes, limits, &decoder)?;
    if !ends {
        return Err(DecodeError::Truncated { format, length: bytes.len() });
    }
    decoder.set_limits(codec_limits(limits)).map_err(malformed)?;
    // A damaged EXIF block is no reason to refuse the picture that it describes.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let picture = DynamicImage::from_decoder(decoder).map_err(malformed)?;
    let region = Region::whole(picture.width(), picture.height());
    Ok(Photo { picture: Cow::Owned(picture), region, orientation })
}

fn check_size<D: ImageDecoder>(format: Format, bytes: &[u8], limits: &Limits, decoder: &D) -> Result<(), DecodeError> {
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.pixels {
        return Err(DecodeError::TooManyPixels { format, width, height, limit: limits.pixels });
    }
    let needed =
        decoder.total_bytes().saturating_add(pixels.saturating_mul(container::scratch_bytes_per_pixel(format, bytes)));
    if needed > limits.allocation {
        return Err(DecodeError::TooMuchMemory { format, width, height, needed, limit: limits.allocation });
    }
    let scans = container::scans(format, bytes);
    if scans > MAX_SCANS {
        return Err(DecodeError::TooManyScans { format, scans, limit: MAX_SCANS });
    }
    Ok(())
}
