//! A graph in half precision: for GPUs, which compute twice as fast in it.
//!
//! Inputs and outputs keep their types, so that whoever runs the graph need not know.

use super::build::{attribute_int, node, tensor_values};
use super::messages::{AttributeProto, AttributeType, DataType, GraphProto, ModelProto, NodeProto, TensorProto};
use super::messages::{ValueInfoProto, type_proto};
use half::f16;
use std::collections::{HashMap, HashSet};

/// Returns the model with every single-precision number inside it in half precision.
///
/// Numbers too large for half precision become its largest; the scales of `Resize`, which the standard wants in single
/// precision, stay.
pub fn to_half(model: &ModelProto) -> ModelProto {
    let mut model = model.clone();
    if let Some(graph) = &mut model.graph {
        let mut renamed = HashMap::new();
        let inputs: Vec<String> = graph.input.iter().filter(|input| is_single(input)).map(name_of).collect();
        let outputs: Vec<String> = graph.output.iter().filter(|output| is_single(output)).map(name_of).collect();
        for name in inputs.iter().chain(&outputs) {
            renamed.insert(name.clone(), format!("{name}/half"));
        }
        convert(graph, &renamed);
        let cast = |from: &str, to: &str, r#type: DataType| NodeProto {
            // Nodes are often named after their outputs: "embedding" may be taken.
            name: Some(format!("{to}/cast")),
            ..node("Cast", &[from], &[to], vec![attribute_int("to", r#type as i64)])
        };
        let starts: Vec<NodeProto> = inputs.iter().map(|name| cast(name, &renamed[name], DataType::Float16)).collect();
        graph.node.splice(0..0, starts);
        graph.node.extend(outputs.iter().map(|name| cast(&renamed[name], name, DataType::Float)));
    }
    model
}

fn name_of(value: &ValueInfoProto) -> String {
    value.name.clone().unwrap_or_default()
}

fn is_single(value: &ValueInfoProto) -> bool {
    match value.r#type.as_ref().and_then(|r#type| r#type.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => tensor.elem_type == Some(DataType::Float as i32),
        _ => false,
    }
}

/// Converts nodes and weights of a graph and of the graphs within it; values are named as `renamed` says.
fn convert(graph: &mut GraphProto, renamed: &HashMap<String, String>) {
    // What was noted about the types of values no longer holds.
    graph.value_info.clear();
    let kept: HashSet<String> = graph
        .node
        .iter()
        .filter(|node| matches!(node.op_type.as_deref(), Some("Resize" | "Upsample")))
        .flat_map(|node| node.input.iter().skip(1).cloned())
        .collect();
    let rename = |name: &mut String| {
        if let Some(to) = renamed.get(name.as_str()) {
            name.clone_from(to);
        }
    };
    for weight in &mut graph.initializer {
        if !weight.name.as_ref().is_some_and(|name| kept.contains(name)) {
            to_half_tensor(weight);
        }
        weight.name.as_mut().map(rename).unwrap_or_default();
    }
    for node in &mut graph.node {
        let keeps = node.output.iter().any(|output| kept.contains(output));
        node.input.iter_mut().chain(&mut node.output).for_each(rename);
        let operator = node.op_type.clone().unwrap_or_default();
        for attribute in &mut node.attribute {
            if !keeps {
                convert_attribute(attribute, &operator);
            }
            attribute.g.iter_mut().chain(&mut attribute.graphs).for_each(|graph| convert(graph, renamed));
        }
    }
    for output in &mut graph.output {
        // Of the outermost graph, types stay; of those within it, nobody needs to be told.
        if renamed.contains_key(output.name.as_deref().unwrap_or_default()) {
            continue;
        }
        if is_single(output) {
            output.r#type = None;
        }
    }
}

fn convert_attribute(attribute: &mut AttributeProto, operator: &str) {
    match (operator, attribute.name.as_deref()) {
        ("Cast", Some("to")) if attribute.i == Some(DataType::Float as i64) => {
            attribute.i = Some(DataType::Float16 as i64);
        }
        ("Constant", Some("value_float" | "value_floats")) => {
            let values: Vec<f32> = attribute.f.iter().chain(&attribute.floats).copied().collect();
            let dims = if attribute.f.is_some() { Vec::new() } else { vec![values.len() as i64] };
            *attribute = AttributeProto {
                name: Some("value".to_owned()),
                r#type: Some(AttributeType::Tensor as i32),
                t: Some(half_tensor(None, dims, &values)),
                ..AttributeProto::default()
            };
        }
        ("Constant" | "ConstantOfShape", Some("value")) => attribute.t.iter_mut().for_each(to_half_tensor),
        _ => {}
    }
}

fn to_half_tensor(tensor: &mut TensorProto) {
    if tensor.data_type == Some(DataType::Float as i32)
        && let Ok(values) = tensor_values(tensor)
    {
        *tensor = half_tensor(tensor.name.take(), std::mem::take(&mut tensor.dims), &values);
    }
}

fn half_tensor(name: Option<String>, dims: Vec<i64>, values: &[f32]) -> TensorProto {
    let largest = f16::MAX.to_f32();
    let half = |value: &f32| f16::from_f32(if value.is_finite() { value.clamp(-largest, largest) } else { *value });
    TensorProto {
        name,
        dims,
        data_type: Some(DataType::Float16 as i32),
        raw_data: Some(values.iter().flat_map(|value| half(value).to_le_bytes()).collect()),
        ..TensorProto::default()
    }
}
