//! A drawing as a user sends it: a bitmap, an SVG, strokes as JSON, or a `data:` URI of one of these.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use image::DynamicImage;

use crate::limits::Limits;
use crate::render::decode::{DecodeError, decode_image};
use crate::render::strokes::{self, StrokesError, StrokesInput};
use crate::render::svg::{self, SvgError};
use crate::render::vector::VectorDrawing;

/// A decoded drawing, not yet preprocessed.
#[derive(Clone, Debug)]
pub enum Drawing {
    Bitmap(DynamicImage),
    Vector(VectorDrawing),
}

/// Why a drawing could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DrawingError {
    #[error("drawing is empty")]
    Empty,
    #[error("drawing has {length} bytes, the limit is {limit}")]
    TooManyBytes { length: usize, limit: usize },
    #[error("drawing is not a PNG, JPEG, WebP or SVG image, strokes as JSON, or a data URI")]
    UnknownFormat,
    #[error(transparent)]
    Image(#[from] DecodeError),
    #[error(transparent)]
    Svg(#[from] SvgError),
    #[error(transparent)]
    Strokes(#[from] StrokesError),
    #[error("data URI has media type \"{found}\"")]
    DataUriType { found: String },
    #[error("data URI is malformed: {reason}")]
    DataUri { reason: &'static str },
}

impl Drawing {
    /// Decodes a drawing, whose kind is detected by its first bytes.
    ///
    /// Accepted: PNG, JPEG, WebP; SVG; strokes as JSON (see [`strokes`]); a `data:` URI of a PNG, JPEG,
    /// WebP or SVG as plain text or as a JSON string.
    ///
    /// # Errors
    /// [`DrawingError`] if the bytes are none of these, damaged, or exceed `limits`.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, DrawingError> {
        check_length(bytes, limits)?;
        match Kind::sniff(bytes) {
            Kind::Json => Self::from_json_bytes(bytes, limits),
            Kind::DataUri => from_data_uri(text(bytes)?, limits),
            Kind::Svg => Ok(Self::Vector(svg::parse(bytes, limits)?)),
            Kind::Bitmap => match decode_image(bytes, limits) {
                Ok(picture) => Ok(Self::Bitmap(picture)),
                Err(DecodeError::UnknownFormat) => Err(DrawingError::UnknownFormat),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Reads strokes, or a string that holds a `data:` URI, from JSON.
    ///
    /// # Errors
    /// As [`Drawing::decode`].
    pub fn from_json(json: &str, limits: &Limits) -> Result<Self, DrawingError> {
        check_length(json.as_bytes(), limits)?;
        Self::from_json_bytes(json.as_bytes(), limits)
    }

    fn from_json_bytes(json: &[u8], limits: &Limits) -> Result<Self, DrawingError> {
        match strokes::parse(json, limits)? {
            StrokesInput::Strokes(drawing) => Ok(Self::Vector(drawing)),
            StrokesInput::Text(uri) => from_data_uri(&uri, limits),
        }
    }
}

fn check_length(bytes: &[u8], limits: &Limits) -> Result<(), DrawingError> {
    if bytes.trim_ascii().is_empty() {
        return Err(DrawingError::Empty);
    }
    if bytes.len() > limits.bytes {
        return Err(DrawingError::TooManyBytes { length: bytes.len(), limit: limits.bytes });
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str, DrawingError> {
    std::str::from_utf8(bytes).map_err(|_| DrawingError::UnknownFormat)
}

enum Kind {
    Json,
    DataUri,
    Svg,
    Bitmap,
}

impl Kind {
    fn sniff(bytes: &[u8]) -> Self {
        let start = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
        match start.first() {
            Some(b'[' | b'{' | b'"') => Self::Json,
            Some(b'<') => Self::Svg,
            _ if has_data_scheme(start) => Self::DataUri,
            _ => Self::Bitmap,
        }
    }
}

fn has_data_scheme(bytes: &[u8]) -> bool {
    bytes.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"data:"))
}

/// Decodes the image inside a `data:` URI; a URI inside that image is not followed.
///
/// Source: RFC 2397.
fn from_data_uri(uri: &str, limits: &Limits) -> Result<Drawing, DrawingError> {
    let uri = uri.trim_start_matches('\u{feff}').trim();
    if !has_data_scheme(uri.as_bytes()) {
        return Err(DrawingError::DataUri { reason: "text does not begin with \"data:\"" });
    }
    let (header, payload) =
        uri[5..].split_once(',').ok_or(DrawingError::DataUri { reason: "there is no comma before the data" })?;
    let mut parameters = header.split(';').map(str::trim);
    let media_type = parameters.next().unwrap_or_default().to_ascii_lowercase();
    let bytes = if parameters.any(|parameter| parameter.eq_ignore_ascii_case("base64")) {
        decode_base64(payload)?
    } else {
        decode_percent(payload)?
    };
    match media_type.as_str() {
        "image/svg+xml" => Ok(Drawing::Vector(svg::parse(&bytes, limits)?)),
        "image/png" | "image/jpeg" | "image/jpg" | "image/webp" => Ok(Drawing::Bitmap(decode_image(&bytes, limits)?)),
        _ => Err(DrawingError::DataUriType { found: media_type.chars().take(64).collect() }),
    }
}

/// Padding is often lost in transport, and the length of the data implies it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn decode_base64(payload: &str) -> Result<Vec<u8>, DrawingError> {
    // Long URIs arrive wrapped in lines, and a JSON or URL layer may have escaped `+`, `/` and `=`.
    let unescaped = decode_percent(payload)?;
    let packed: Vec<u8> = unescaped.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
    BASE64.decode(packed).map_err(|_| DrawingError::DataUri { reason: "the data is not base64" })
}

fn decode_percent(payload: &str) -> Result<Vec<u8>, DrawingError> {
    let mut decoded = Vec::with_capacity(payload.len());
    let mut rest = payload.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err(DrawingError::DataUri { reason: "a percent sign is not followed by two hexadecimal digits" });
        };
        decoded.push((high * 16 + low) as u8);
    }
    Ok(decoded)
}
