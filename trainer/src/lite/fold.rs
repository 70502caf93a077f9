//! Folds batch normalisation into the preceding convolution.

use super::LiteError;
use crate::weights::{StateDict, Tensor};

/// `batch_norm_epsilon` of the reference package.
pub const EPSILON: f64 = 1e-3;

/// Weight and bias of a convolution that includes its normalisation.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded {
    /// Shape `(outputs, inputs / groups, kernel, kernel)`, row-major.
    pub weight: Vec<f32>,
    /// Shape `(outputs,)`.
    pub bias: Vec<f32>,
}

/// Folds `norm` into `conv`, both names in `state`.
///
/// With `scale = gamma / sqrt(variance + EPSILON)`, the weight of each output channel is multiplied by its scale and the
/// bias is `beta - mean * scale`; computed in double precision.
///
/// # Errors
/// [`LiteError::Missing`] and [`LiteError::Shape`] if a tensor is missing or does not match `shape`.
pub fn fold_normalisation(state: &StateDict, conv: &str, norm: &str, shape: &[usize; 4]) -> Result<Folded, LiteError> {
    let weight = find(state, &format!("{conv}.weight"), shape)?;
    let statistic = |name: &str| find(state, &format!("{norm}.{name}"), &shape[..1]);
    let (gamma, beta) = (statistic("weight")?, statistic("bias")?);
    let (mean, variance) = (statistic("running_mean")?, statistic("running_var")?);

    let per_output = shape[1] * shape[2] * shape[3];
    let scale: Vec<f64> = gamma
        .values
        .iter()
        .zip(&variance.values)
        .map(|(&gamma, &variance)| f64::from(gamma) / (f64::from(variance) + EPSILON).sqrt())
        .collect();
    let weight =
        weight.values.iter().enumerate().map(|(i, &value)| (f64::from(value) * scale[i / per_output]) as f32).collect();
    let bias = scale
        .iter()
        .zip(beta.values.iter().zip(&mean.values))
        .map(|(scale, (&beta, &mean))| (f64::from(beta) - f64::from(mean) * scale) as f32)
        .collect();
    Ok(Folded { weight, bias })
}

/// The tensor `name`, checked to have `shape`.
pub fn find<'a>(state: &'a StateDict, name: &str, shape: &[usize]) -> Result<&'a Tensor, LiteError> {
    let tensor = state.get(name).ok_or_else(|| LiteError::Missing { name: name.to_owned() })?;
    if tensor.shape != shape {
        let (found, expected) = (tensor.shape.clone(), shape.to_vec());
        return Err(LiteError::Shape { name: name.to_owned(), found, expected });
    }
    Ok(tensor)
}
