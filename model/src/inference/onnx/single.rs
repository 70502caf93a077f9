//! A graph of integers in single precision: for devices that compute faster so, or not at all in integers.

use super::OnnxError;
use super::build::{tensor_f32, tensor_shape, tensor_values};
use super::messages::{DataType, GraphProto, ModelProto, NodeProto, TensorProto};
use std::collections::HashMap;

/// Returns the model with the integers of its weights as numbers, and without the rounding between its layers.
///
/// Reads what `sketch-trainer export --precision int8` writes: integers with one scale for each row, and no zero point. Other
/// integers stay as they are.
///
/// # Errors
/// [`OnnxError::DataType`] or [`OnnxError::Length`] if integers are stored in another way.
pub fn to_single(model: &ModelProto) -> Result<ModelProto, OnnxError> {
    let mut model = model.clone();
    if let Some(graph) = &mut model.graph {
        convert(graph)?;
    }
    Ok(model)
}

fn convert(graph: &mut GraphProto) -> Result<(), OnnxError> {
    let mut constants: HashMap<String, TensorProto> =
        std::mem::take(&mut graph.initializer).into_iter().map(|tensor| (tensor.name().to_owned(), tensor)).collect();
    // Tensors that are no longer there, and what is read in their place.
    let mut instead: HashMap<String, String> = HashMap::new();
    let mut nodes = Vec::new();
    for mut node in std::mem::take(&mut graph.node) {
        let was_quantised = node.input.first().is_some_and(|input| instead.contains_key(input));
        for input in &mut node.input {
            if let Some(name) = instead.get(input) {
                input.clone_from(name);
            }
        }
        let operator = node.op_type().to_owned();
        match (operator.as_str(), node.input.as_slice(), node.output.as_slice()) {
            ("QuantizeLinear", [from, ..], [to]) => {
                instead.insert(to.clone(), from.clone());
            }
            ("DequantizeLinear", [from, ..], [to]) if was_quantised => {
                instead.insert(to.clone(), from.clone());
            }
            ("DequantizeLinear", [whole, scales], [to]) if is_by_row(&node) => {
                match (constants.get(whole), constants.get(scales)) {
                    (Some(whole), Some(scales)) => {
                        let numbers = dequantised(to, whole, scales)?;
                        constants.insert(to.clone(), numbers);
                    }
                    _ => nodes.push(node),
                }
            }
            _ => nodes.push(node),
        }
    }
    let mut used: Vec<&String> = nodes.iter().flat_map(|node| &node.input).collect();
    used.sort();
    used.dedup();
    graph.initializer = used.into_iter().filter_map(|name| constants.remove(name)).collect();
    graph.node = nodes;
    // Types of tensors that are now others.
    graph.value_info.clear();
    Ok(())
}

fn is_by_row(node: &NodeProto) -> bool {
    node.attribute.iter().any(|attribute| attribute.name() == "axis" && attribute.i == Some(0))
}

/// The numbers that integers stand for; `scales`: one for each row.
fn dequantised(name: &str, whole: &TensorProto, scales: &TensorProto) -> Result<TensorProto, OnnxError> {
    let (shape, scales) = (tensor_shape(whole)?, tensor_values(scales)?);
    let integers = integers(whole)?;
    let row = (integers.len() / scales.len().max(1)).max(1);
    if integers.len() != row * scales.len() {
        return Err(OnnxError::Length { tensor: name.to_owned(), found: integers.len(), expected: row * scales.len() });
    }
    let numbers: Vec<f32> =
        integers.chunks(row).zip(&scales).flat_map(|(row, scale)| row.iter().map(move |whole| whole * scale)).collect();
    tensor_f32(name, &shape, &numbers)
}

fn integers(tensor: &TensorProto) -> Result<Vec<f32>, OnnxError> {
    let raw = tensor.raw_data.as_deref().unwrap_or_default();
    match tensor.data_type() {
        kind if kind == DataType::Int8 as i32 => Ok(raw.iter().map(|&byte| f32::from(byte as i8)).collect()),
        kind if kind == DataType::Int32 as i32 => {
            Ok(raw.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32).collect())
        }
        data_type => {
            let tensor = tensor.name().to_owned();
            Err(OnnxError::DataType { tensor, data_type, expected: "INT8 (3) or INT32 (6)" })
        }
    }
}
