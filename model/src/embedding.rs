//! Text and binary forms of an embedding.
//!
//! Text: `[0.25,-0.5]`, then, where they are known, the tags: `@model` or `@model/codebook`, each of eight hexadecimal
//! digits (0 for none). Binary: dimension (int16), zero (int16), model (int32), codebook (int32), then the values as
//! half-precision bits (int16), all in network order.

use crate::manifest::MAX_DIMENSION;
use crate::origin::Origin;
use half::f16;
use std::fmt::Write;
use thiserror::Error;

/// The largest magnitude of a value: what half precision holds, so that a sum of squares never overflows.
pub const MAX_VALUE: f32 = 65_504.0;

/// Bytes of the binary form before the values.
const HEADER: usize = 12;

/// Why a text, bytes or values are no embedding.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EmbeddingError {
    #[error("invalid input syntax for type embedding: \"{start}\"")]
    Syntax { start: String, problem: String },
    #[error("embedding must have at least 1 dimension")]
    Empty,
    #[error("embedding has {dimension} dimensions, the limit is {MAX_DIMENSION}")]
    TooLong { dimension: usize },
    #[error("{value} not allowed in embedding")]
    NotFinite { value: &'static str },
    #[error("embedding in binary form has {length} bytes, its dimension says {expected}")]
    Length { length: usize, expected: usize },
    #[error("expected 0 behind the dimension of an embedding, found {found}")]
    Reserved { found: u16 },
}

/// Refuses a dimension that the type does not hold.
///
/// # Errors
/// [`EmbeddingError::Empty`], [`EmbeddingError::TooLong`].
pub fn check_dimension(dimension: usize) -> Result<(), EmbeddingError> {
    match dimension {
        0 => Err(EmbeddingError::Empty),
        1..=MAX_DIMENSION => Ok(()),
        _ => Err(EmbeddingError::TooLong { dimension }),
    }
}

/// Refuses what is no embedding.
///
/// # Errors
/// As [`check_dimension`], and [`EmbeddingError::NotFinite`] for NaN and infinities.
pub fn check(values: &[f16]) -> Result<(), EmbeddingError> {
    check_dimension(values.len())?;
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(EmbeddingError::NotFinite { value: if value.is_nan() { "NaN" } else { "infinite value" } }),
        None => Ok(()),
    }
}

/// Reads the text form.
///
/// # Errors
/// [`EmbeddingError::Syntax`] for another text, and as [`check`].
pub fn parse(text: &str) -> Result<(Vec<f16>, Origin), EmbeddingError> {
    let (values, origin) = parse_parts(text.trim())
        .map_err(|problem| EmbeddingError::Syntax { start: start_of(text).to_owned(), problem })?;
    check(&values)?;
    Ok((values, origin))
}

fn parse_parts(text: &str) -> Result<(Vec<f16>, Origin), String> {
    let (list, tags) = text
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .ok_or("An embedding is a list of numbers in brackets, with its tags behind \"@\".")?;
    let values = list
        .split(',')
        // One more than fit, so that the error says that there are too many.
        .take(MAX_DIMENSION + 1)
        .map(|number| {
            let number = number.trim();
            number.parse().map(f16::from_f32).map_err(|_| format!("\"{}\" is not a number.", start_of(number)))
        })
        .collect::<Result<_, _>>()?;
    Ok((values, parse_tags(tags.trim())?))
}

fn parse_tags(text: &str) -> Result<Origin, String> {
    if text.is_empty() {
        return Ok(Origin::default());
    }
    let tag = |digits: &str| {
        let number = if digits.starts_with('+') { None } else { u32::from_str_radix(digits, 16).ok() };
        number.ok_or_else(|| format!("\"{}\" is not a tag of eight hexadecimal digits.", start_of(digits)))
    };
    let tags = text.strip_prefix('@').ok_or_else(|| format!("\"{}\" follows the closing bracket.", start_of(text)))?;
    let (model, codebook) = tags.split_once('/').unwrap_or((tags, "0"));
    Ok(Origin { model: tag(model)?, codebook: tag(codebook)? })
}

/// The first characters of a text, for a message.
fn start_of(text: &str) -> &str {
    &text[..text.floor_char_boundary(32)]
}

/// Writes the text form, which [`parse`] reads to the same bits.
pub fn print(values: &[f16], origin: Origin) -> String {
    let mut text = String::with_capacity(values.len() * 9 + 24);
    for value in values {
        text.push(if text.is_empty() { '[' } else { ',' });
        // Five significant digits tell every half-precision value from its neighbours.
        let rounded: f32 = format!("{:.4e}", value.to_f32()).parse().expect("printed by ourselves");
        write!(text, "{rounded}").expect("a String takes all");
    }
    text.push(']');
    let written = match origin {
        Origin { model: 0, codebook: 0 } => Ok(()),
        Origin { model, codebook: 0 } => write!(text, "@{model:08x}"),
        Origin { model, codebook } => write!(text, "@{model:08x}/{codebook:08x}"),
    };
    written.expect("a String takes all");
    text
}

/// Reads the binary form.
///
/// # Errors
/// [`EmbeddingError::Length`], [`EmbeddingError::Reserved`] for other bytes, and as [`check`].
pub fn from_bytes(bytes: &[u8]) -> Result<(Vec<f16>, Origin), EmbeddingError> {
    let length = bytes.len();
    let Some((header, values)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(EmbeddingError::Length { length, expected: HEADER });
    };
    let [d0, d1, r0, r1, m0, m1, m2, m3, c0, c1, c2, c3] = *header;
    let dimension = usize::from(u16::from_be_bytes([d0, d1]));
    let found = u16::from_be_bytes([r0, r1]);
    if found != 0 {
        return Err(EmbeddingError::Reserved { found });
    }
    check_dimension(dimension)?;
    if values.len() != 2 * dimension {
        return Err(EmbeddingError::Length { length, expected: HEADER + 2 * dimension });
    }
    let origin = Origin { model: u32::from_be_bytes([m0, m1, m2, m3]), codebook: u32::from_be_bytes([c0, c1, c2, c3]) };
    let (values, _) = values.as_chunks::<2>();
    let values: Vec<f16> = values.iter().copied().map(f16::from_be_bytes).collect();
    check(&values)?;
    Ok((values, origin))
}

/// Writes the binary form.
pub fn to_bytes(values: &[f16], origin: Origin) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + 2 * values.len());
    bytes.extend((values.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(origin.model.to_be_bytes());
    bytes.extend(origin.codebook.to_be_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_bits().to_be_bytes()));
    bytes
}
