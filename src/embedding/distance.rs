//! The operators `<->`, `<=>` and `<#>`.

use super::Embedding;
use crate::call::Call;
use crate::error::SqlError;
use half::f16;
use pgrx::prelude::*;
use sketch_model::simd::{self, Prefetch};

/// For either argument: a query may write column and constant in any order.
static PREFETCH: [Prefetch; 2] = [const { Prefetch::new() }; 2];

/// L2 distance of two embeddings of one model, of which at most one is fused, or both with one codebook.
///
/// A hub channel that one of them lacks counts as zero, here and below. Others are infinitely far from each other, with a warning: one row
/// from elsewhere must not end every search of its table.
#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_l2_distance(a: Embedding<'_>, b: Embedding<'_>, fcinfo: pg_sys::FunctionCallInfo) -> f64 {
    compare(a, b, fcinfo, |x, y, channel| f64::from(simd::l2_squared(x, y) + channel * channel).sqrt())
}

/// Cosine distance, 1 − cos of the angle between two embeddings; NaN if one of them is zero.
#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_cosine_distance(a: Embedding<'_>, b: Embedding<'_>, fcinfo: pg_sys::FunctionCallInfo) -> f64 {
    let product = |x: &[f16], y: &[f16]| f64::from(simd::inner_product(x, y));
    // Rounding may carry the cosine of parallel vectors beyond 1.
    compare(a, b, fcinfo, |x, y, channel| {
        let longer = product(x, x) + f64::from(channel * channel);
        1.0 - (product(x, y) / (longer * product(y, y)).sqrt()).clamp(-1.0, 1.0)
    })
}

/// Negative inner product: the server sorts in ascending order.
#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_negative_inner_product(a: Embedding<'_>, b: Embedding<'_>, fcinfo: pg_sys::FunctionCallInfo) -> f64 {
    compare(a, b, fcinfo, |x, y, _| -f64::from(simd::inner_product(x, y)))
}

/// `distance` of the values of two embeddings that compare, infinity for others. If one of them has a hub channel that the other
/// lacks, its values come first, and the channel last: it is 0 otherwise.
#[inline]
fn compare(
    a: Embedding<'_>,
    b: Embedding<'_>,
    fcinfo: pg_sys::FunctionCallInfo,
    distance: impl FnOnce(&[f16], &[f16], f32) -> f64,
) -> f64 {
    let (x, y) = (a.values(), b.values());
    PREFETCH[0].next(x);
    PREFETCH[1].next(y);
    match a.origin().fits(b.origin()) {
        true if x.len() == y.len() => distance(x, y, 0.0),
        true if a.has_hub_channel_beside(b) => distance(&x[..y.len()], y, x[y.len()].to_f32()),
        true if b.has_hub_channel_beside(a) => distance(&y[..x.len()], x, y[x.len()].to_f32()),
        _ => {
            warn_once(fcinfo, a, b);
            f64::INFINITY
        }
    }
}

/// Says what does not compare, the first time in a statement.
#[cold]
fn warn_once(fcinfo: pg_sys::FunctionCallInfo, a: Embedding<'_>, b: Embedding<'_>) {
    // SAFETY: the server is calling, and the function is strict.
    let call = unsafe { Call::new(fcinfo) };
    if !std::mem::replace(call.state::<bool>(), true) {
        mismatch(a, b).warn();
    }
}

#[cold]
fn mismatch(a: Embedding<'_>, b: Embedding<'_>) -> SqlError {
    let (dimension_a, dimension_b) = (a.values().len(), b.values().len());
    let (a, b) = (a.origin(), b.origin());
    if !a.fits_model(b) {
        return SqlError::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "cannot compare embeddings of different models",
        )
        .detail(format!("The models are {} and {}. Their embeddings count as infinitely far.", a.model, b.model))
        .hint(
            "Set pg_sketch.model to the model that embedded the photos, or CALL sketch_embed_photos to embed them anew. \
             sketch_model_id finds the rows of another model.",
        );
    }
    if dimension_a != dimension_b {
        return SqlError::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("cannot compare embeddings of {dimension_a} and {dimension_b} dimensions"),
        )
        .detail("They count as infinitely far.")
        .hint("sketch_dimension finds the rows of another dimension.");
    }
    SqlError::new(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        "cannot compare embeddings that are fused with different codebooks",
    )
    .detail(format!("The codebooks are {} and {}. Their embeddings count as infinitely far.", a.codebook, b.codebook))
    .hint("CALL sketch_embed_photos to fuse all photos with the newest codebook.")
}
