//! Networks of older operator sets, and networks that cannot be trained.

use std::collections::HashMap;

use ort::value::Tensor;
use sketch_model::inference::encoder::{EncoderOptions, open_session};
use sketch_model::inference::onnx;
use sketch_model::inference::onnx::build::{
    Size, attribute_float, attribute_int, attribute_ints, node, tensor_f32, value_info,
};
use sketch_model::inference::onnx::messages::{DataType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto};
use sketch_trainer::engine::{EngineError, Tape, gradients};

use crate::check::{Problem, Random, add_loss, compare, feed, start};
use crate::reference::{self, Array};

const SHAPE: [usize; 4] = [2, 3, 4, 1];

fn model(set: i64, nodes: Vec<NodeProto>) -> ModelProto {
    let graph = GraphProto {
        name: Some("older".to_owned()),
        input: vec![value_info("x", DataType::Float, &SHAPE.map(Size::Fixed))],
        output: vec![onnx::messages::ValueInfoProto { name: Some("y".to_owned()), ..Default::default() }],
        initializer: vec![tensor_f32("scale", &[4], &[0.5, -1.0, 1.5, 2.0]).unwrap()],
        node: nodes,
        ..GraphProto::default()
    };
    let set = OperatorSetIdProto { domain: Some(String::new()), version: Some(set) };
    ModelProto { ir_version: Some(6), opset_import: vec![set], graph: Some(graph), ..ModelProto::default() }
}

/// Runs the original file in ONNX Runtime.
fn as_it_is(model: &ModelProto, image: &Array) -> Vec<f32> {
    let (mut session, _, _) = open_session(&onnx::write(model), &EncoderOptions::default()).unwrap();
    let values: Vec<f32> = image.iter().map(|&value| value as f32).collect();
    let value = Tensor::from_array((image.shape().to_vec(), values)).unwrap();
    let outputs = session.run(ort::inputs!["x" => value]).unwrap();
    outputs["y"].try_extract_tensor::<f32>().unwrap().1.to_vec()
}

fn check(set: i64, nodes: Vec<NodeProto>) {
    start();
    let mut random = Random::new(2);
    let image = random.spread(&SHAPE, -2.0, 2.0);
    let model = model(set, nodes);
    let mut tape = Tape::read(&model).unwrap();
    tape.input("x", DataType::Float, &SHAPE);
    let floats = HashMap::from([("x".to_owned(), image.clone())]);
    let y = reference::run(&tape.model(&["y".to_owned()]), &floats).remove("y").unwrap();
    compare(&format!("operator set {set}"), &as_it_is(&model, &image), &y, 1e-5);
    let loss = add_loss(&mut tape, &[("y".to_owned(), y.shape().to_vec())], &mut random);
    let (integers, outputs, wanted) = (HashMap::new(), vec!["y".to_owned()], vec!["x".to_owned()]);
    Problem { tape, floats, integers, outputs, loss, wanted }.check();
}

#[test]
fn attributes_that_became_inputs() {
    for set in [11, 12] {
        let nodes = vec![
            node("Squeeze", &["x"], &["a"], vec![attribute_ints("axes", &[3])]),
            node("Split", &["a"], &["b", "c"], vec![attribute_ints("split", &[1, 2]), attribute_int("axis", 1)]),
            node("ReduceSum", &["c"], &["d"], vec![attribute_ints("axes", &[1])]),
            node("Add", &["b", "d"], &["e"], vec![]),
            node("Unsqueeze", &["e"], &["y"], vec![attribute_ints("axes", &[0])]),
        ];
        check(set, nodes);
    }
    for set in [11, 13, 17] {
        let nodes = vec![
            node("ReduceMean", &["x"], &["a"], vec![attribute_ints("axes", &[1]), attribute_int("keepdims", 0)]),
            node("ReduceMax", &["x"], &["b"], vec![attribute_ints("axes", &[-3]), attribute_int("keepdims", 0)]),
            node("ReduceL2", &["x"], &["c"], vec![attribute_int("keepdims", 0)]),
            node("Mul", &["a", "b"], &["d"], vec![]),
            node("Add", &["d", "c"], &["y"], vec![]),
        ];
        check(set, nodes);
    }
}

#[test]
fn even_split() {
    for set in [11, 13, 17] {
        let nodes = vec![
            node("Split", &["x"], &["a", "b"], vec![attribute_int("axis", 2)]),
            node("Mul", &["a", "b"], &["y"], vec![]),
        ];
        check(set, nodes);
    }
}

#[test]
fn softmax_over_a_flattened_input() {
    for operator in ["Softmax", "LogSoftmax"] {
        for attributes in [vec![], vec![attribute_int("axis", 2)], vec![attribute_int("axis", -2)]] {
            check(11, vec![node(operator, &["x"], &["y"], attributes)]);
        }
        check(13, vec![node(operator, &["x"], &["y"], vec![attribute_int("axis", 1)])]);
    }
}

#[test]
fn dropout_is_off() {
    let ratio = vec![attribute_float("ratio", 0.5)];
    check(11, vec![node("Dropout", &["x"], &["a"], ratio), node("Neg", &["a"], &["y"], vec![])]);
}

#[test]
fn constants_in_every_form() {
    let constant = |name: &str, attribute| node("Constant", &[], &[name], vec![attribute]);
    let nodes = vec![
        constant("half", attribute_float("value_float", 0.5)),
        constant("axis", attribute_ints("value_ints", &[3])),
        constant("index", attribute_int("value_int", 1)),
        node("Identity", &["scale"], &["renamed"], vec![]),
        node("Squeeze", &["x", "axis"], &["a"], vec![]),
        node("Mul", &["a", "half"], &["b"], vec![]),
        node("Mul", &["b", "renamed"], &["c"], vec![]),
        node("Gather", &["c", "index"], &["y"], vec![attribute_int("axis", 1)]),
    ];
    check(13, nodes);
}

#[test]
fn operator_sets_out_of_range_are_refused() {
    for set in [10, 23] {
        let read = Tape::read(&model(set, vec![node("Neg", &["x"], &["y"], vec![])]));
        assert!(matches!(read, Err(EngineError::OperatorSet { found, .. }) if found == set));
    }
}

/// One message lists all of them, and none that the loss does not depend on.
#[test]
fn operators_without_a_rule_are_named_together() {
    start();
    let nodes = vec![
        node("Selu", &["x"], &["a"], vec![]),
        node("Mish", &["x"], &["aside"], vec![]),
        node("Celu", &["a"], &["b"], vec![]),
        node("Selu", &["b"], &["y"], vec![]),
    ];
    let mut tape = Tape::read(&model(18, nodes)).unwrap();
    tape.input("x", DataType::Float, &SHAPE);
    let loss = tape.op("ReduceSum", &["y"], vec![attribute_int("keepdims", 0)]);
    tape.probe(vec![("x".to_owned(), feed(&Array::zeros(&SHAPE[..])))]).unwrap();
    let error = gradients(&mut tape, &loss, &["x".to_owned()]).unwrap_err();
    assert_eq!(error.to_string(), "cannot train through Celu, Selu");
    let error = gradients(&mut tape, &loss, &["scale".to_owned()]).unwrap_err();
    assert!(matches!(error, EngineError::Independent { .. }), "{error}");
}

/// As PyTorch's exporter leaves them without constant folding.
#[test]
fn weights_behind_a_change_of_shape_are_found() {
    let axes = || vec![attribute_ints("axes", &[1])];
    let nodes = vec![
        node("Unsqueeze", &["scale"], &["column"], axes()),
        node("Transpose", &["column"], &["row"], vec![]),
        node("MatMul", &["x", "row"], &["a"], vec![]),
        node("Mul", &["a", "scale"], &["y"], vec![]),
    ];
    let layers = Tape::read(&model(11, nodes)).unwrap().layers();
    assert_eq!(layers.len(), 1, "{layers:?}");
    assert_eq!(layers[0].operator, "MatMul");
    assert_eq!(layers[0].weights, [("scale".to_owned(), vec![4])]);
}
