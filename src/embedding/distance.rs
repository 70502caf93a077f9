//! The operator `<->`.

use super::Embedding;
use crate::error::{Result, SqlError};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use sketch_model::simd::distance::{self, Prefetch};

/// For either argument: a query may write column and constant in any order.
static PREFETCH: [Prefetch; 2] = [const { Prefetch::new() }; 2];

/// L2 distance of two embeddings of one model, of which at most one is fused, or both with one codebook.
#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_l2_distance(a: Embedding<'_>, b: Embedding<'_>) -> Result<f64, ErrorReport> {
    let (x, y) = (a.values(), b.values());
    PREFETCH[0].next(x);
    PREFETCH[1].next(y);
    if x.len() != y.len() || !a.origin().fits(b.origin()) {
        return Err(mismatch(a, b).into());
    }
    Ok(f64::from(distance::l2_squared(x, y)).sqrt())
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
        .detail(format!("The models are {} and {}.", a.model, b.model))
        .hint(
            "Set pg_sketch.model to the model that embedded the photos, or CALL sketch_embed_photos to embed them anew.",
        );
    }
    if dimension_a != dimension_b {
        return SqlError::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("cannot compare embeddings of {dimension_a} and {dimension_b} dimensions"),
        );
    }
    SqlError::new(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        "cannot compare embeddings that are fused with different codebooks",
    )
    .detail(format!("The codebooks are {} and {}.", a.codebook, b.codebook))
    .hint("CALL sketch_embed_photos to fuse all photos with the newest codebook.")
}
