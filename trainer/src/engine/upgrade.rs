//! Brings the nodes of an older operator set to the one that training uses.

use sketch_model::onnx::build::{attribute_int, tensor_i64};
use sketch_model::onnx::messages::{NodeProto, TensorProto};

use super::EngineError;

/// The oldest operator set that can be brought up, and the newest whose operators mean what they meant in ours.
pub(super) const SUPPORTED: std::ops::RangeInclusive<i64> = 11..=22;

/// From these sets on, an operator takes as an input what was an attribute before.
const AXES_BECAME_INPUT: [(&str, &str, i64); 13] = [
    ("Squeeze", "axes", 13),
    ("Unsqueeze", "axes", 13),
    ("ReduceSum", "axes", 13),
    ("Split", "split", 13),
    ("ReduceMean", "axes", 18),
    ("ReduceMax", "axes", 18),
    ("ReduceMin", "axes", 18),
    ("ReduceProd", "axes", 18),
    ("ReduceL1", "axes", 18),
    ("ReduceL2", "axes", 18),
    ("ReduceLogSum", "axes", 18),
    ("ReduceLogSumExp", "axes", 18),
    ("ReduceSumSquare", "axes", 18),
];

/// Changes `node`, written for operator set `from`, so that it means the same in [`super::tape::OPSET`].
///
/// Returns the constant that has become its second input, if one has.
///
/// # Errors
/// [`EngineError::Node`] for an operator whose older meaning cannot be said in the newer set.
pub(super) fn upgrade(node: &mut NodeProto, from: i64) -> Result<Option<TensorProto>, EngineError> {
    if from < 13 && matches!(node.op_type(), "Softmax" | "LogSoftmax" | "Hardmax") {
        return Err(EngineError::Node {
            node: node.name().to_owned(),
            operator: node.op_type().to_owned(),
            reason: "before operator set 13 it flattened its input; export the network again".to_owned(),
        });
    }
    let constant = attribute_to_input(node, from)?;
    let splits_evenly = node.op_type() == "Split" && node.input.get(1).is_none_or(|name| name.is_empty());
    if from < 18 && splits_evenly {
        node.attribute.push(attribute_int("num_outputs", node.output.len() as i64));
    }
    Ok(constant)
}

fn attribute_to_input(node: &mut NodeProto, from: i64) -> Result<Option<TensorProto>, EngineError> {
    let rule = AXES_BECAME_INPUT.iter().find(|(operator, _, since)| *operator == node.op_type() && from < *since);
    let Some((_, attribute, _)) = rule else { return Ok(None) };
    let Some(position) = node.attribute.iter().position(|found| found.name() == *attribute) else { return Ok(None) };
    let values = node.attribute.remove(position).ints;
    let name = format!("{}~{attribute}", node.output.first().map_or("", String::as_str));
    let tensor = tensor_i64(&name, &[values.len()], &values)?;
    node.input.resize(1, String::new());
    node.input.push(name);
    Ok(Some(tensor))
}
