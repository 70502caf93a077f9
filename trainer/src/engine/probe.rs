//! Finds the type and shape of every tensor by running the graph once.

use ort::session::Session;
use ort::value::{DynValue, TensorElementType, ValueType};
use sketch_model::inference::encoder::{EncoderOptions, open_session};
use sketch_model::inference::onnx;
use sketch_model::inference::onnx::messages::DataType;

use super::session::{Feed, run};
use super::tape::{Info, Tape};
use super::{EngineError, layers};

/// The values of integer tensors are kept up to this size: shapes, axes and positions.
const MOST_INTEGERS: usize = 4096;

impl Tape {
    /// Runs the graph once on `feeds` and records type and shape of all outputs of nodes.
    ///
    /// `feeds`: a value for each input of the graph by name; only their shapes matter. Shapes are static from then on: a
    /// training graph has a fixed batch size.
    ///
    /// # Errors
    /// [`EngineError::MissingInput`] if a required input has no feed, [`EngineError::Encoder`] and [`EngineError::Run`] if ONNX
    /// Runtime rejects the graph or the feeds.
    pub fn probe(&mut self, feeds: Vec<(String, Feed)>) -> Result<(), EngineError> {
        let outputs: Vec<String> =
            self.nodes.iter().flat_map(|node| &node.output).filter(|name| !name.is_empty()).cloned().collect();
        let model = self.model(&outputs);
        let needed: Vec<String> = layers::inputs(&model);
        if let Some(name) = needed.iter().find(|name| !feeds.iter().any(|(fed, _)| fed == *name)) {
            return Err(EngineError::MissingInput { name: name.clone() });
        }
        let feeds = feeds.into_iter().filter(|(name, _)| needed.contains(name)).collect();
        let (mut session, _, _): (Session, _, _) = open_session(&onnx::write(&model), &EncoderOptions::default())?;
        for (name, value) in run(&mut session, feeds, &outputs)? {
            if let Some(fact) = fact(&value) {
                self.facts.insert(name, fact);
            }
        }
        Ok(())
    }
}

fn fact(value: &DynValue) -> Option<Info> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else { return None };
    let element = match ty {
        TensorElementType::Float32 => DataType::Float,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Float64 => DataType::Double,
        TensorElementType::Float16 => DataType::Float16,
        _ => DataType::Undefined,
    };
    let shape: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
    let few = shape.iter().product::<usize>() <= MOST_INTEGERS;
    let integers = value.try_extract_tensor::<i64>().ok().filter(|_| few).map(|(_, values)| values.to_vec());
    Some(Info { element, shape, integers })
}
