//! Training on ONNX Runtime: gradient and optimiser become part of an ONNX graph.
//!
//! [`Tape`] builds the graph. [`Tape::read`] loads a network, losses are added as ordinary nodes, one run shows all shapes
//! ([`Tape::probe`]), reverse-mode differentiation adds the nodes of the gradient ([`gradients`]), and an [`optimizer`] those
//! of the next weights. [`TrainingSession`] runs the graph once per step; [`write_back`] stores the weights in the original
//! network. Every device that runs ONNX can train: CPU or GPU.
//!
//! Source of the method: Griewank, Walther, "Evaluating Derivatives", 2008, chapter 3 (reverse mode by source
//! transformation).

pub mod gradient;
pub mod layers;
pub mod normalisation;
pub mod optimizer;
mod probe;
mod read;
mod rules;
pub mod session;
mod tape;
mod upgrade;
pub mod write;

use sketch_model::inference::encoder::EncoderError;
use sketch_model::inference::onnx::OnnxError;

pub use gradient::gradients;
pub use read::in_single_precision;
pub use session::{Feed, TrainingSession};
pub use tape::Tape;
pub use write::write_back;

/// Why a network cannot be trained, or a step did not run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    #[error("could not run the training graph")]
    Run(#[from] ort::Error),
    #[error("network uses operator set {found} of ONNX, training supports sets {oldest} to {newest}")]
    OperatorSet { found: i64, oldest: i64, newest: i64 },
    #[error("cannot train through {}", operators.join(", "))]
    Unsupported { operators: Vec<String> },
    #[error("cannot train through node \"{node}\" ({operator}): {reason}")]
    Node { node: String, operator: String, reason: String },
    #[error("network has no input \"{name}\"")]
    MissingInput { name: String },
    #[error("graph has no tensor \"{name}\"")]
    MissingTensor { name: String },
    #[error("tensor \"{name}\" has shape {found:?}, expected {expected:?}")]
    Shape { name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("loss \"{name}\" does not depend on any weight that trains")]
    Independent { name: String },
}
