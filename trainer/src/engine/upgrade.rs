//! Rewrites nodes of older operator sets to the one that training uses.

use sketch_model::inference::onnx::build::{self, attribute_int, tensor_i64};
use sketch_model::inference::onnx::messages::{NodeProto, TensorProto};

use super::EngineError;

/// Operator sets that can be rewritten, or whose operators have the same meaning as in ours.
pub(super) const SUPPORTED: std::ops::RangeInclusive<i64> = 11..=22;

/// Attributes that became inputs: operator, attribute, operator set since when.
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

/// The rewritten form of a node: nodes in topological order, and the constant that was an attribute.
pub(super) struct Upgraded {
    pub nodes: Vec<NodeProto>,
    pub constant: Option<TensorProto>,
}

/// Rewrites `node` from operator set `from` to [`super::tape::OPSET`].
///
/// # Errors
/// [`EngineError::Onnx`], never in practice: the constant has the shape of its list.
pub(super) fn upgrade(mut node: NodeProto, from: i64) -> Result<Upgraded, EngineError> {
    if from < 13 && matches!(node.op_type(), "Softmax" | "LogSoftmax" | "Hardmax") {
        return Ok(Upgraded { nodes: flattening(node), constant: None });
    }
    if node.op_type() == "Dropout" {
        switch_off(&mut node);
    }
    let constant = attribute_to_input(&mut node, from)?;
    let splits_evenly = node.op_type() == "Split" && node.input.get(1).is_none_or(|name| name.is_empty());
    if from < 18 && splits_evenly {
        node.attribute.push(attribute_int("num_outputs", node.output.len() as i64));
    }
    Ok(Upgraded { nodes: vec![node], constant })
}

/// Without ratio and mode, `Dropout` is the identity; fine-tuning does not use it.
fn switch_off(node: &mut NodeProto) {
    node.input.truncate(1);
    node.attribute.clear();
}

/// Before operator set 13, `Softmax` treated its input as a matrix whose rows were the axes before `axis`.
fn flattening(mut softmax: NodeProto) -> Vec<NodeProto> {
    let first = |names: &[String]| names.first().cloned().unwrap_or_default();
    let (input, output) = (first(&softmax.input), first(&softmax.output));
    let [matrix, result, shape] = ["matrix", "rows", "shape"].map(|part| format!("{output}~{part}"));
    let axis = softmax.attribute.iter().find(|attribute| attribute.name() == "axis").and_then(|axis| axis.i);
    softmax.attribute = vec![attribute_int("axis", -1)];
    softmax.name = Some(result.clone());
    softmax.input = vec![matrix.clone()];
    softmax.output = vec![result.clone()];
    vec![
        build::node("Flatten", &[&input], &[&matrix], vec![attribute_int("axis", axis.unwrap_or(1))]),
        softmax,
        build::node("Shape", &[&input], &[&shape], vec![]),
        build::node("Reshape", &[&result, &shape], &[&output], vec![]),
    ]
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
