//! Training: fine-tunes a network so that it embeds drawings near photos of the same things.
//!
//! [`Config`] is the configuration; `seed` (the patent's method) and `best` are presets. A [`Cut`] splits the network: the
//! trunk runs once over every view and its output is kept; the tail trains on that output. [`Plan`] adds losses, gradient and
//! optimiser to the tail, [`run`] runs the steps, and [`assemble`] builds the network to serve.

pub mod ablation;
pub mod anchors;
pub mod assemble;
pub mod bank;
pub mod checkpoint;
pub mod config;
pub mod cut;
pub mod loss;
pub mod material;
pub mod plan;
pub mod run;
pub mod sampler;
pub mod validation;
pub mod views;

use std::path::PathBuf;

use sketch_model::codebook::CodebookError;
use sketch_model::inference::encoder::EncoderError;
use sketch_model::inference::onnx::OnnxError;

use crate::augment::AugmentError;
use crate::data::DataError;
use crate::engine::EngineError;

pub use config::Config;
pub use cut::Cut;
pub use plan::Plan;

/// Why a training did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Codebook(#[from] CodebookError),
    #[error("could not read the configuration")]
    Config(#[from] toml::de::Error),
    #[error("configuration has \"{key}\" out of range")]
    Range { key: &'static str },
    #[error("\"{text}\" is not KEY=VALUE")]
    Setting { text: String },
    #[error("preset \"{name}\" does not exist; presets are \"best\" and \"seed\"")]
    Preset { name: String },
    #[error("could not prepare \"{label}\"")]
    View { label: String, source: AugmentError },
    #[error("network has no layer \"{layer}\"")]
    Layer { layer: String },
    #[error("cannot cut the network before layer \"{layer}\": {} tensors cross there", crossing.len())]
    Crossing { layer: String, crossing: Vec<String> },
    #[error("network has no tensor \"{tensor}\", which training requires")]
    Tensor { tensor: &'static str },
    #[error("training classes have no {what}")]
    NoImages { what: &'static str },
    #[error("line {line} of the anchors is not a class and numbers from 0 to {most}, separated by a tab")]
    Anchors { line: usize, most: usize },
    #[error("loss is not finite at step {step}; the last checkpoint is from step {checkpoint}")]
    NotFinite { step: u64, checkpoint: u64 },
    #[error("stopped after step {step}; run the same command to resume")]
    Stopped { step: u64 },
    #[error("could not use \"{}\"", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("checkpoint \"{}\" is damaged or from another training: {reason}", path.display())]
    Checkpoint { path: PathBuf, reason: String },
}
