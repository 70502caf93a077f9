//! Splits a network into a trunk, whose output is kept, and a tail, which trains.

use std::collections::HashSet;

use sketch_model::inference::onnx::build::value_info;
use sketch_model::inference::onnx::messages::{DataType, ModelProto, NodeProto};

use super::TrainError;
use crate::engine::Tape;

/// Names of tensors that every network to train has.
pub const IMAGE: &str = "image";
pub const DOMAIN: &str = "domain";
pub const FEATURES: &str = "features";
pub const LOGITS: &str = "logits";
pub const EMBEDDING: &str = "embedding";

/// A cut between two layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The one tensor that crosses it.
    pub tensor: String,
    /// The first node after it.
    pub first: usize,
}

impl Cut {
    /// The cut before the layer named `layer`; if empty, the whole network is tail.
    ///
    /// # Errors
    /// [`TrainError::Layer`] if there is no such layer, [`TrainError::Crossing`] if more than one tensor crosses there.
    pub fn before(tape: &Tape, layer: &str) -> Result<Self, TrainError> {
        if layer.is_empty() {
            return Ok(Self { tensor: IMAGE.to_owned(), first: 0 });
        }
        let found = tape.layers().into_iter().find(|found| found.name == layer);
        let first = found.ok_or_else(|| TrainError::Layer { layer: layer.to_owned() })?.node;
        let (before, after) = tape.nodes().split_at(first);
        let made: HashSet<&str> = before.iter().flat_map(|node| &node.output).map(String::as_str).collect();
        let crosses = |name: &&String| made.contains(name.as_str()) || *name == IMAGE;
        let mut crossing: Vec<String> = after.iter().flat_map(|node| &node.input).filter(crosses).cloned().collect();
        crossing.sort();
        crossing.dedup();
        match crossing.as_slice() {
            [tensor] => Ok(Self { tensor: tensor.clone(), first }),
            _ => Err(TrainError::Crossing { layer: layer.to_owned(), crossing }),
        }
    }

    /// Whether nothing comes before it.
    pub fn is_at_image(&self) -> bool {
        self.tensor == IMAGE
    }
}

/// The network with `outputs` as its only outputs.
pub fn with_outputs(model: &ModelProto, outputs: &[&str]) -> ModelProto {
    let mut model = model.clone();
    if let Some(graph) = model.graph.as_mut() {
        graph.output = outputs
            .iter()
            .map(|name| {
                let known = graph.output.iter().find(|output| output.name() == *name).cloned();
                known.unwrap_or_else(|| without_shape(name))
            })
            .collect();
    }
    model
}

fn without_shape(name: &str) -> sketch_model::inference::onnx::messages::ValueInfoProto {
    use sketch_model::inference::onnx::messages::type_proto::Value;
    let mut info = value_info(name, DataType::Float, &[]);
    if let Some(Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|kind| kind.value.as_mut()) {
        tensor.shape = None;
    }
    info
}

/// Names of all tensors that `target` depends on, including itself.
pub fn ancestors(nodes: &[NodeProto], target: &str) -> HashSet<String> {
    let mut found = HashSet::from([target.to_owned()]);
    for node in nodes.iter().rev() {
        if node.output.iter().any(|output| found.contains(output)) {
            found.extend(node.input.iter().cloned());
        }
    }
    found
}
