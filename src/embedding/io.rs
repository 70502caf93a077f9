//! Text, binary and array forms of an embedding.
//!
//! Text: `[0.25,-0.5]`, then, where they are known, the tags: `@model` or `@model/codebook`, each of eight hexadecimal
//! digits (0 for none). Binary: dimension (int16), zero (int16), model (int32), codebook (int32), then the values as
//! half-precision bits (int16), all in network order.

use super::{Embedding, MAX_DIMENSION, Origin, check_dimension};
use crate::error::{Result, SqlError};
use half::f16;
use half::slice::HalfFloatSliceExt;
use pgrx::datum::Array;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};
use std::fmt::Write;
use std::slice;

#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_in(text: &CStr) -> Result<Embedding<'static>, ErrorReport> {
    let text = text.to_string_lossy();
    let (values, origin) = parse(text.trim()).map_err(|problem| {
        SqlError::new(
            PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
            format!("invalid input syntax for type embedding: \"{}\"", start_of(&text)),
        )
        .detail(problem)
    })?;
    Ok(Embedding::new(&values, origin)?)
}

/// The first characters of a text, for a message.
fn start_of(text: &str) -> &str {
    &text[..text.floor_char_boundary(32)]
}

fn parse(text: &str) -> Result<(Vec<f16>, Origin), String> {
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

#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_out(embedding: Embedding<'_>) -> CString {
    CString::new(print(embedding.values(), embedding.origin())).expect("digits and brackets hold no null byte")
}

fn print(values: &[f16], origin: Origin) -> String {
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

#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_recv(mut message: pgrx::datum::Internal) -> Result<Embedding<'static>, ErrorReport> {
    // SAFETY: a receive function's argument is the StringInfo of the message; pq_getmsg* check its length and raise.
    let (values, origin) = unsafe {
        let message: *mut pg_sys::StringInfoData = message.get_mut().expect("the function is strict");
        let dimension = pg_sys::pq_getmsgint(message, 2) as usize;
        check_zero(pg_sys::pq_getmsgint(message, 2))?;
        check_dimension(dimension)?;
        let origin = Origin { model: pg_sys::pq_getmsgint(message, 4), codebook: pg_sys::pq_getmsgint(message, 4) };
        let bytes = pg_sys::pq_getmsgbytes(message, 2 * dimension as i32).cast::<[u8; 2]>();
        let values: Vec<f16> =
            slice::from_raw_parts(bytes, dimension).iter().copied().map(f16::from_be_bytes).collect();
        (values, origin)
    };
    Ok(Embedding::new(&values, origin)?)
}

fn check_zero(found: u32) -> Result<()> {
    if found == 0 {
        return Ok(());
    }
    Err(SqlError::new(
        PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION,
        format!("expected 0 behind the dimension of an embedding, found {found}"),
    ))
}

#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_send(embedding: Embedding<'_>) -> Vec<u8> {
    let (values, origin) = (embedding.values(), embedding.origin());
    let mut bytes = Vec::with_capacity(12 + 2 * values.len());
    bytes.extend((values.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(origin.model.to_be_bytes());
    bytes.extend(origin.codebook.to_be_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_bits().to_be_bytes()));
    bytes
}

#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_from_array(values: Array<'_, f32>) -> Result<Embedding<'static>, ErrorReport> {
    check_dimension(values.len())?;
    let values: Option<Vec<f16>> = values.iter().map(|value| value.map(f16::from_f32)).collect();
    let values = values.ok_or_else(|| {
        SqlError::new(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "array of an embedding must not contain nulls")
    })?;
    Ok(Embedding::new(&values, Origin::default())?)
}

#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_to_array(embedding: Embedding<'_>) -> Vec<f32> {
    embedding.values().to_f32_vec()
}
