//! Stores trained weights in the network that was read.

use std::collections::HashMap;

use sketch_model::inference::onnx::OnnxError;
use sketch_model::inference::onnx::build::{tensor_f16, tensor_f32, tensor_shape};
use sketch_model::inference::onnx::messages::{
    AttributeProto, AttributeType, DataType, GraphProto, ModelProto, NodeProto, TensorProto,
};

use super::EngineError;

/// Replaces the values of constants of `model`, keeping their precision.
///
/// `values`: by the names that [`super::Tape::read`] gives, row-major. Everything else stays unchanged.
///
/// # Errors
/// [`EngineError::MissingTensor`] if the model has no constant of that name, [`EngineError::Onnx`] if the values do not match
/// its shape.
pub fn write_back(model: &mut ModelProto, values: &HashMap<String, Vec<f32>>) -> Result<(), EngineError> {
    let graph = model.graph.as_mut().ok_or(OnnxError::NoGraph)?;
    for (name, numbers) in values {
        let stored = source(&graph.node, name).to_owned();
        unshare(graph, &stored);
        let held = graph.initializer.iter_mut().find(|tensor| tensor.name() == stored);
        let tensor = match held {
            Some(tensor) => tensor,
            None => constant_of_node(&mut graph.node, &stored)?
                .ok_or_else(|| EngineError::MissingTensor { name: name.clone() })?,
        };
        *tensor = replaced(tensor, numbers)?;
    }
    Ok(())
}

/// The name of the constant that a `Cast` widens to `name`, or `name` itself.
fn source<'a>(nodes: &'a [NodeProto], name: &'a str) -> &'a str {
    let cast = nodes.iter().find(|node| node.op_type() == "Cast" && node.output.iter().any(|output| output == name));
    cast.and_then(|node| node.input.first()).map_or(name, String::as_str)
}

/// Gives `name` its own tensor, if an `Identity` makes it share another's.
fn unshare(graph: &mut GraphProto, name: &str) {
    let shares = |node: &NodeProto| node.op_type() == "Identity" && node.output.iter().any(|output| output == name);
    let Some(position) = graph.node.iter().position(shares) else { return };
    let Some(source) = graph.node[position].input.first().cloned() else { return };
    unshare(graph, &source);
    let shared = graph.initializer.iter().find(|tensor| tensor.name() == source).cloned();
    if let Some(tensor) = shared.or_else(|| constant_of_node(&mut graph.node, &source).ok().flatten().cloned()) {
        graph.initializer.push(TensorProto { name: Some(name.to_owned()), ..tensor });
        graph.node.retain(|node| !shares(node));
    }
}

/// The tensor of the `Constant` node of `name`; values in another form become a tensor first.
fn constant_of_node<'a>(nodes: &'a mut [NodeProto], name: &str) -> Result<Option<&'a mut TensorProto>, OnnxError> {
    let holds = |node: &&mut NodeProto| node.op_type() == "Constant" && node.output.iter().any(|output| output == name);
    let Some(attribute) = nodes.iter_mut().find(holds).and_then(|node| node.attribute.first_mut()) else {
        return Ok(None);
    };
    if attribute.name() == "value_floats" {
        let tensor = tensor_f32(name, &[attribute.floats.len()], &attribute.floats)?;
        *attribute = attribute_tensor("value", tensor);
    }
    Ok(attribute.t.as_mut())
}

fn attribute_tensor(name: &str, tensor: TensorProto) -> AttributeProto {
    let r#type = Some(AttributeType::Tensor as i32);
    AttributeProto { name: Some(name.to_owned()), r#type, t: Some(tensor), ..AttributeProto::default() }
}

fn replaced(tensor: &TensorProto, numbers: &[f32]) -> Result<TensorProto, OnnxError> {
    let shape = tensor_shape(tensor)?;
    if tensor.data_type() == DataType::Float16 as i32 {
        tensor_f16(tensor.name(), &shape, numbers)
    } else {
        tensor_f32(tensor.name(), &shape, numbers)
    }
}
