//! Text, binary and array forms of an embedding; the first two are [`sketch_model::embedding`]'s.

use super::{Embedding, Origin};
use crate::error::{Result, SqlError};
use half::f16;
use half::slice::HalfFloatSliceExt;
use pgrx::datum::Array;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use sketch_model::embedding::{check_dimension, from_bytes, parse, print, to_bytes};
use std::ffi::{CStr, CString};
use std::slice;

#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_in(text: &CStr) -> Result<Embedding<'static>, ErrorReport> {
    let (values, origin) = parse(&text.to_string_lossy()).map_err(SqlError::from)?;
    Ok(Embedding::new(&values, origin)?)
}

#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_out(embedding: Embedding<'_>) -> CString {
    CString::new(print(embedding.values(), embedding.origin())).expect("digits and brackets hold no null byte")
}

#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_recv(mut message: pgrx::datum::Internal) -> Result<Embedding<'static>, ErrorReport> {
    // SAFETY: a receive function's argument is the StringInfo of the message, whose rest is the value.
    let bytes = unsafe {
        let message: &mut pg_sys::StringInfoData = message.get_mut().expect("the function is strict");
        let length = message.len - message.cursor;
        slice::from_raw_parts(pg_sys::pq_getmsgbytes(message, length).cast::<u8>(), length as usize)
    };
    let (values, origin) = from_bytes(bytes).map_err(SqlError::from)?;
    Ok(Embedding::new(&values, origin)?)
}

#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_send(embedding: Embedding<'_>) -> Vec<u8> {
    to_bytes(embedding.values(), embedding.origin())
}

#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_from_array(values: Array<'_, f32>) -> Result<Embedding<'static>, ErrorReport> {
    check_dimension(values.len()).map_err(SqlError::from)?;
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
