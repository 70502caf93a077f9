//! From trained weights back to the network that was read.

use std::collections::HashMap;

use sketch_model::inference::onnx::OnnxError;
use sketch_model::inference::onnx::build::{tensor_f16, tensor_f32, tensor_shape};
use sketch_model::inference::onnx::messages::{
    AttributeProto, AttributeType, DataType, GraphProto, ModelProto, NodeProto, TensorProto,
};

use super::EngineError;

/// Puts new values into the constants of `model`, in the precision in which it keeps them.
///
/// `values`: by the names that [`super::Tape::read`] gives, row-major. Everything else of the model stays as it is.
///
/// # Errors
/// [`EngineError::MissingTensor`] for a name that no constant of the model has, [`EngineError::Onnx`] if there are more
/// or fewer numbers than its shape says.
pub fn write_back(model: &mut ModelProto, values: &HashMap<String, Vec<f32>>) -> Result<(), EngineError> {
    let graph = model.graph.as_mut().ok_or(OnnxError::NoGraph)?;
    for (name, numbers) in values {
        let stored = source(&graph.node, name).to_owned();
        part_from_equals(graph, &stored);
        let held = graph.initializer.iter_mut().find(|tensor| tensor.name() == stored);
        let tensor = match held {
            Some(tensor) => tensor,
            None => held_by_node(&mut graph.node, &stored)?
                .ok_or_else(|| EngineError::MissingTensor { name: name.clone() })?,
        };
        *tensor = replaced(tensor, numbers)?;
    }
    Ok(())
}

/// The name of the constant that a `Cast` from half precision hands on as `name`.
fn source<'a>(nodes: &'a [NodeProto], name: &'a str) -> &'a str {
    let cast = nodes.iter().find(|node| node.op_type() == "Cast" && node.output.iter().any(|output| output == name));
    cast.and_then(|node| node.input.first()).map_or(name, String::as_str)
}

/// Gives `name` a tensor of its own, if an `Identity` lends it that of another.
fn part_from_equals(graph: &mut GraphProto, name: &str) {
    let lends = |node: &NodeProto| node.op_type() == "Identity" && node.output.iter().any(|output| output == name);
    let Some(position) = graph.node.iter().position(lends) else { return };
    let Some(lender) = graph.node[position].input.first().cloned() else { return };
    part_from_equals(graph, &lender);
    let lent = graph.initializer.iter().find(|tensor| tensor.name() == lender).cloned();
    if let Some(tensor) = lent.or_else(|| held_by_node(&mut graph.node, &lender).ok().flatten().cloned()) {
        graph.initializer.push(TensorProto { name: Some(name.to_owned()), ..tensor });
        graph.node.retain(|node| !lends(node));
    }
}

/// The tensor of the `Constant` node that makes `name`; numbers in another form become a tensor first.
fn held_by_node<'a>(nodes: &'a mut [NodeProto], name: &str) -> Result<Option<&'a mut TensorProto>, OnnxError> {
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
