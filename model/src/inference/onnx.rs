//! ONNX models as data: read, built, checked and written without a protobuf compiler.
//!
//! [`messages`] declares the messages of the standard by hand, every field of them, so that reading a model and writing
//! it again loses nothing. [`build`] makes the few shapes of message that a graph builder needs. [`check_self_contained`]
//! says whether a model may be loaded: it is one blob of bytes, and names nothing outside itself.

pub mod build;
mod check;
pub mod half;
pub mod messages;
pub mod single;
#[cfg(test)]
mod tests;

use prost::Message;

pub use check::check_self_contained;
pub use messages::ModelProto;

/// Why bytes are not a model that can be read, or a model not one that may be loaded.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    #[error("model is not an ONNX protobuf")]
    Decode {
        #[from]
        source: prost::DecodeError,
    },
    #[error("model has no graph")]
    NoGraph,
    #[error("tensor \"{tensor}\" keeps its data outside the model")]
    ExternalData { tensor: String },
    #[error("node \"{node}\" ({operator}) is of operator domain \"{domain}\", which is not part of ONNX")]
    OperatorDomain { node: String, operator: String, domain: String },
    #[error("model defines a function of its own, \"{function}\"")]
    LocalFunction { function: String },
    #[error("tensor \"{tensor}\" has data type {data_type}, expected {expected}")]
    DataType { tensor: String, data_type: i32, expected: &'static str },
    #[error("tensor \"{tensor}\" has {found} values, its shape says {expected}")]
    Length { tensor: String, found: usize, expected: usize },
    #[error("tensor \"{tensor}\" has a shape that is negative or too large")]
    Shape { tensor: String },
}

/// Reads a model from its protobuf bytes.
///
/// # Errors
/// [`OnnxError::Decode`] if `bytes` is no such message or nests deeper than 100 messages; [`OnnxError::NoGraph`] if it
/// reads as a message without a graph, as most short byte strings do.
pub fn parse(bytes: &[u8]) -> Result<ModelProto, OnnxError> {
    let model = ModelProto::decode(bytes)?;
    if model.graph.is_none() {
        return Err(OnnxError::NoGraph);
    }
    Ok(model)
}

/// Whether a model computes in 8-bit integers.
pub fn is_quantised(model: &ModelProto) -> bool {
    model.graph.iter().flat_map(|graph| &graph.node).any(|node| node.op_type() == "QuantizeLinear")
}

/// Writes a model as protobuf bytes: the content of an `.onnx` file.
pub fn write(model: &ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}
