//! The structure of image files, to detect truncation.
//!
//! The JPEG decoder fills what is missing with grey without an error, and a PNG without its last chunks
//! decodes, too. So this module walks the parts of a file without decoding them.

use std::fmt;

/// A bitmap format that can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Png,
    Jpeg,
    WebP,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
        })
    }
}

/// Whether the file reaches its own end mark.
///
/// Linear in `bytes.len()`, no allocation.
pub(crate) fn is_complete(format: Format, bytes: &[u8]) -> bool {
    match format {
        Format::Png => png_is_complete(bytes),
        Format::Jpeg => jpeg_end(bytes).is_some(),
        Format::WebP => webp_is_complete(bytes),
    }
}

/// Memory per pixel, in bytes, that the decoder needs besides the picture that it returns.
pub(crate) fn scratch_bytes_per_pixel(format: Format, bytes: &[u8]) -> u64 {
    match format {
        Format::Png => 0,
        // A progressive file is held as 16-bit coefficients of up to three planes.
        Format::Jpeg if is_progressive(bytes) => 6,
        Format::Jpeg => 0,
        // Lossless: a copy of the picture as RGBA. Lossy: planes Y, U, V and alpha.
        Format::WebP => 4,
    }
}

/// Source: Portable Network Graphics specification, third edition, section 5.3 (chunk layout).
fn png_is_complete(bytes: &[u8]) -> bool {
    const SIGNATURE: usize = 8;
    let mut at = SIGNATURE;
    while let Some(header) = bytes.get(at..at + 8) {
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        // Length, type, data, checksum.
        at = at.saturating_add(12).saturating_add(length);
        if &header[4..] == b"IEND" {
            return at <= bytes.len();
        }
    }
    false
}

/// Source: RFC 9649, WebP image format, section 2.4 (the RIFF size counts from byte 8).
fn webp_is_complete(bytes: &[u8]) -> bool {
    bytes.get(4..8).is_some_and(|size| {
        let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize;
        size.saturating_add(8) <= bytes.len()
    })
}

/// Marker that begins a scan of a JPEG file.
const SCAN: u8 = 0xda;

/// One marker of a JPEG file and where its segment ends.
struct Marker {
    code: u8,
    next: usize,
}

/// Reads the marker at or after `at`. Source: ITU-T T.81, annex B.1.1.
fn jpeg_marker(bytes: &[u8], mut at: usize) -> Option<Marker> {
    const START: u8 = 0xd8;
    const END: u8 = 0xd9;
    while *bytes.get(at)? != 0xff {
        at += 1;
    }
    while *bytes.get(at)? == 0xff {
        at += 1;
    }
    let code = bytes[at];
    let standalone = matches!(code, 0x00 | 0x01 | 0xd0..=0xd7 | START | END);
    let length =
        if standalone { 0 } else { usize::from(u16::from_be_bytes([*bytes.get(at + 1)?, *bytes.get(at + 2)?])) };
    Some(Marker { code, next: at + 1 + length })
}

fn jpeg_markers(bytes: &[u8]) -> impl Iterator<Item = Marker> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let marker = jpeg_marker(bytes, at)?;
        at = marker.next;
        Some(marker)
    })
}

/// Position after the end-of-image marker that closes a scan; the thumbnail inside EXIF data is skipped
/// because it lies inside a segment.
fn jpeg_end(bytes: &[u8]) -> Option<usize> {
    const END: u8 = 0xd9;
    let mut scans = 0;
    for marker in jpeg_markers(bytes) {
        match marker.code {
            SCAN => scans += 1,
            END if scans > 0 => return Some(marker.next),
            _ => {}
        }
    }
    None
}

/// Passes over the picture that decoding takes.
pub(crate) fn scans(format: Format, bytes: &[u8]) -> usize {
    match format {
        Format::Jpeg => jpeg_markers(bytes).filter(|marker| marker.code == SCAN).count(),
        Format::Png | Format::WebP => 1,
    }
}

fn is_progressive(bytes: &[u8]) -> bool {
    const PROGRESSIVE_FRAMES: [u8; 2] = [0xc2, 0xc6];
    jpeg_markers(bytes).take_while(|marker| marker.code != SCAN).any(|marker| PROGRESSIVE_FRAMES.contains(&marker.code))
}
