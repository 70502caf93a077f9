//! Writing weights back to the network that was read.

use std::collections::HashMap;

use sketch_model::inference::onnx::build::{attribute_int, node, tensor_f16, tensor_f32, tensor_values, value_info};
use sketch_model::inference::onnx::messages::{
    AttributeProto, AttributeType, DataType, GraphProto, NodeProto, TensorProto,
};
use sketch_model::inference::onnx::messages::{ModelProto, OperatorSetIdProto};
use sketch_trainer::engine::{EngineError, Tape, write_back};

const KEPT: [&str; 8] = ["plain", "equal", "again", "half", "equal_half", "node", "node_half", "list"];

fn constant(output: &str, attribute: &str, r#type: AttributeType, tensor: Option<TensorProto>) -> NodeProto {
    let floats = if tensor.is_none() { vec![1.0, 2.0] } else { vec![] };
    let r#type = Some(r#type as i32);
    let attribute =
        AttributeProto { name: Some(attribute.to_owned()), r#type, t: tensor, floats, ..AttributeProto::default() };
    node("Constant", &[], &[output], vec![attribute])
}

/// One weight of shape `(2,)` in every form of storage.
fn model() -> ModelProto {
    let widened = |from: &str, to: &str| node("Cast", &[from], &[to], vec![attribute_int("to", 1)]);
    let single = tensor_f32("", &[2], &[1.0, 2.0]).unwrap();
    let half = tensor_f16("", &[2], &[1.0, 2.0]).unwrap();
    let mut nodes = vec![
        node("Identity", &["plain"], &["equal"], vec![]),
        node("Identity", &["equal"], &["again"], vec![]),
        node("Identity", &["half.stored"], &["equal_half.stored"], vec![]),
        widened("equal_half.stored", "equal_half"),
        widened("half.stored", "half"),
        constant("node", "value", AttributeType::Tensor, Some(single)),
        constant("node_half.stored", "value", AttributeType::Tensor, Some(half)),
        widened("node_half.stored", "node_half"),
        constant("list", "value_floats", AttributeType::Floats, None),
    ];
    let mut last = "x".to_owned();
    for name in KEPT {
        nodes.push(node("Mul", &[&last, name], &[&format!("{name}.y")], vec![]));
        last = format!("{name}.y");
    }
    let graph = GraphProto {
        name: Some("kept".to_owned()),
        initializer: vec![
            tensor_f32("plain", &[2], &[1.0, 2.0]).unwrap(),
            tensor_f16("half.stored", &[2], &[1.0, 2.0]).unwrap(),
        ],
        input: vec![value_info("x", DataType::Float, &[])],
        output: vec![value_info(&last, DataType::Float, &[])],
        node: nodes,
        ..GraphProto::default()
    };
    let set = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
    ModelProto { ir_version: Some(8), opset_import: vec![set], graph: Some(graph), ..ModelProto::default() }
}

fn weights(model: &ModelProto) -> HashMap<String, Vec<f32>> {
    let mut tape = Tape::read(model).unwrap();
    let layers = tape.layers();
    let names: Vec<String> = layers.into_iter().flat_map(|layer| layer.weights).map(|(name, _)| name).collect();
    names.into_iter().map(|name| (name.clone(), tape.release(&name).unwrap().1)).collect()
}

#[test]
fn every_form_comes_back() {
    let mut model = model();
    let mut values = weights(&model);
    assert_eq!(values.len(), KEPT.len(), "{values:?}");
    assert!(values.values().all(|value| *value == [1.0, 2.0]), "{values:?}");
    for (i, value) in values.values_mut().enumerate() {
        *value = vec![0.1 + i as f32, -3.7];
    }
    write_back(&mut model, &values).unwrap();
    for (name, found) in weights(&model) {
        let rounded = |value: &f32| half::f16::from_f32(*value).to_f32();
        let stored: Vec<f32> = values[&name].iter().map(rounded).collect();
        let expected = if name.contains("half") { &stored } else { &values[&name] };
        assert_eq!(&found, expected, "{name}");
    }
}

#[test]
fn precision_and_all_else_stay() {
    let original = model();
    let mut written = original.clone();
    let own = |name: &String| !name.starts_with("equal") && name != "again";
    let values = weights(&original).into_iter().filter(|(name, _)| own(name)).collect();
    write_back(&mut written, &values).unwrap();
    let (before, after) = (original.graph.unwrap(), written.graph.unwrap());
    assert_eq!(before.initializer, after.initializer);
    assert_eq!(before.input, after.input);
    for (before, after) in before.node.iter().zip(&after.node).filter(|(node, _)| node.output != ["list"]) {
        assert_eq!((before.op_type(), &before.input, &before.output), (after.op_type(), &after.input, &after.output));
        let values = |node: &NodeProto| {
            let tensor = node.attribute.first().and_then(|attribute| attribute.t.as_ref());
            tensor.map(|tensor| (tensor.data_type(), tensor_values(tensor).unwrap()))
        };
        assert_eq!(values(before), values(after));
    }
}

#[test]
fn unknown_names_and_other_sizes_are_errors() {
    let write = |name: &str, values: &[f32]| {
        write_back(&mut model(), &HashMap::from([(name.to_owned(), values.to_vec())])).unwrap_err()
    };
    assert!(matches!(write("x", &[1.0, 2.0]), EngineError::MissingTensor { name } if name == "x"));
    assert!(matches!(write("half", &[1.0]), EngineError::Onnx(_)));
}
