//! Training on ONNX Runtime: the gradient of a network and its optimiser as one more ONNX graph.
//!
//! [`Tape`] holds a graph that grows. A network is read into it ([`Tape::read`]), losses are added as ordinary nodes,
//! one run of it tells every shape ([`Tape::probe`]), reverse-mode differentiation adds the nodes of the gradient
//! ([`gradients`]), and an [`optimizer`] those of the next weights. [`TrainingSession`] runs the whole once per step;
//! [`write_back`] puts the weights into the network that was read. Whatever runs ONNX trains it: CPU or GPU.
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
    #[error("network uses operator set {found} of ONNX, from {oldest} to {newest} can be trained")]
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
