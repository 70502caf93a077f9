//! Why a network did not load or run.

use crate::inference::device::Device;
use crate::inference::onnx::OnnxError;
use crate::inference::runtime::RuntimeError;
use thiserror::Error;

/// Why a network did not load or run.
#[derive(Debug, Error)]
pub enum EncoderError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error("could not load the network")]
    Load(#[source] ort::Error),
    #[error("network has no {kind} \"{name}\" of {expected}")]
    Signature { kind: &'static str, name: &'static str, expected: String, found: String },
    #[error("device \"{device}\" is not available")]
    Device { device: Device, reason: String },
    #[error("could not run the network")]
    Run(#[source] ort::Error),
    #[error("batch of {images} images has {found} values, expected {expected}")]
    Batch { images: usize, found: usize, expected: usize },
    #[error("network returned a value that is not finite")]
    NotFinite,
    #[error("run of the network was stopped")]
    Stopped,
}
