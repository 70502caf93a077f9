//! The weights of a network by name, as safetensors hold them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors};

/// Numbers with a shape, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// The tensors of a network by name.
pub type StateDict = BTreeMap<String, Tensor>;

/// Why weights were not read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("could not read \"{}\"", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("\"{}\" is not a safetensors file", path.display())]
    Format { path: PathBuf, source: SafeTensorError },
    #[error("tensor \"{name}\" is not in single precision")]
    Precision { name: String },
}

/// Reads a safetensors file; all its tensors are in single precision.
///
/// # Errors
/// [`WeightsError`].
pub fn read_state_dict(path: &Path) -> Result<StateDict, WeightsError> {
    let bytes = std::fs::read(path).map_err(|source| WeightsError::Io { path: path.to_owned(), source })?;
    let file = SafeTensors::deserialize(&bytes);
    let file = file.map_err(|source| WeightsError::Format { path: path.to_owned(), source })?;
    let tensor = |(name, view): (String, TensorView)| match view.dtype() {
        Dtype::F32 => Ok((name, Tensor { shape: view.shape().to_vec(), values: floats(&view) })),
        _ => Err(WeightsError::Precision { name }),
    };
    file.tensors().into_iter().map(tensor).collect()
}

/// The values of a tensor in single precision.
pub(crate) fn floats(view: &TensorView) -> Vec<f32> {
    let (numbers, _) = view.data().as_chunks::<4>();
    numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}
