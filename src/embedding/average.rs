//! The aggregate `avg`: the mean of embeddings of one model.
//!
//! Its state is an array of numbers, which the server copies and sends between processes by itself: how many embeddings,
//! their tags of model and codebook, and their sum.

use super::{Embedding, Origin};
use crate::error::{Result, SqlError};
use half::f16;
use pgrx::datum::Array;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Embeddings added up.
struct Sum {
    count: f64,
    origin: Origin,
    /// Shape `(d,)`, empty without embeddings.
    values: Vec<f64>,
}

impl Sum {
    /// # Errors
    /// If the array is no state: anybody may call these functions.
    fn from_state(state: &Array<'_, f64>) -> Result<Self> {
        let is_tag = |tag: f64| tag.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&tag);
        match state.as_slice() {
            Ok(&[count, model, codebook, ref values @ ..]) if count >= 0.0 && is_tag(model) && is_tag(codebook) => {
                let origin = Origin { model: model as u32, codebook: codebook as u32 };
                Ok(Self { count, origin, values: values.to_vec() })
            }
            _ => Err(SqlError::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "array is not the state of a mean of embeddings",
            )),
        }
    }

    fn into_state(self) -> Vec<f64> {
        let head = [self.count, self.origin.model.into(), self.origin.codebook.into()];
        head.into_iter().chain(self.values).collect()
    }

    /// # Errors
    /// If the two do not compare.
    fn add(&mut self, count: f64, origin: Origin, values: impl ExactSizeIterator<Item = f64>) -> Result<()> {
        if self.values.is_empty() {
            *self = Self { count, origin, values: values.collect() };
            return Ok(());
        }
        let problem = if !self.origin.fits_model(origin) {
            "cannot average embeddings of different models".to_owned()
        } else if values.len() != self.values.len() {
            format!("cannot average embeddings of {} and {} dimensions", self.values.len(), values.len())
        } else if !self.origin.fits(origin) {
            "cannot average embeddings that are fused with different codebooks".to_owned()
        } else {
            self.count += count;
            self.origin.model = self.origin.model.max(origin.model);
            self.origin.codebook = self.origin.codebook.max(origin.codebook);
            self.values.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            return Ok(());
        };
        Err(SqlError::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, problem))
    }
}

#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_avg_add(state: Array<'_, f64>, embedding: Embedding<'_>) -> Result<Vec<f64>, ErrorReport> {
    let mut sum = Sum::from_state(&state)?;
    sum.add(1.0, embedding.origin(), embedding.values().iter().map(|value| value.to_f64()))?;
    Ok(sum.into_state())
}

#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_avg_combine(a: Array<'_, f64>, b: Array<'_, f64>) -> Result<Vec<f64>, ErrorReport> {
    let (mut sum, other) = (Sum::from_state(&a)?, Sum::from_state(&b)?);
    if !other.values.is_empty() {
        sum.add(other.count, other.origin, other.values.into_iter())?;
    }
    Ok(sum.into_state())
}

/// The mean, with the tags that the embeddings have in common; NULL without embeddings.
#[pg_extern(immutable, strict, parallel_safe)]
fn embedding_avg(state: Array<'_, f64>) -> Result<Option<Embedding<'static>>, ErrorReport> {
    let Sum { count, origin, values } = Sum::from_state(&state)?;
    if values.is_empty() {
        return Ok(None);
    }
    let mean: Vec<f16> = values.iter().map(|sum| f16::from_f64(sum / count)).collect();
    Ok(Some(Embedding::new(&mean, origin)?))
}
