use prost::Message;

use super::build::*;
use super::messages::*;
use super::*;

fn model_of(graph: GraphProto) -> ModelProto {
    ModelProto { ir_version: Some(8), graph: Some(graph), ..ModelProto::default() }
}

fn external(name: &str) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        data_location: Some(DataLocation::External as i32),
        ..TensorProto::default()
    }
}

/// Wraps a graph as the branch of an `If` node, `depth` times.
fn nested(mut graph: GraphProto, depth: usize) -> GraphProto {
    for _ in 0..depth {
        let branch = AttributeProto { name: Some("then_branch".into()), g: Some(graph), ..AttributeProto::default() };
        graph = GraphProto { node: vec![node("If", &["c"], &["y"], vec![branch])], ..GraphProto::default() };
    }
    graph
}

#[test]
fn reading_and_writing_keeps_every_byte() {
    let mut weight = tensor_f32("weight", &[2, 3], &[1.0, -2.0, 0.5, 0.0, 1e-20, f32::MAX]).unwrap();
    weight.metadata_props = vec![StringStringEntryProto { key: Some("k".into()), value: Some(String::new()) }];
    let entry = StringStringEntryProto { key: Some("key".into()), value: Some("value".into()) };
    let optional = type_proto::Optional { elem_type: value_info("", DataType::Float, &[]).r#type.map(Box::new) };
    let optional = TypeProto {
        value: Some(type_proto::Value::OptionalType(Box::new(optional))),
        denotation: Some("IMAGE".into()),
    };
    let graph = GraphProto {
        node: vec![node(
            "Conv",
            &["image", "weight"],
            &["y"],
            vec![attribute_ints("pads", &[0, 0, 1, 1]), attribute_int("group", 0), attribute_float("alpha", 0.1)],
        )],
        sparse_initializer: vec![SparseTensorProto { values: Some(weight.clone()), indices: None, dims: vec![9, 9] }],
        initializer: vec![weight],
        input: vec![value_info("image", DataType::Float, &[Size::Named("n"), Size::Fixed(3)])],
        output: vec![ValueInfoProto { name: Some("y".into()), r#type: Some(optional), ..ValueInfoProto::default() }],
        quantization_annotation: vec![TensorAnnotation {
            tensor_name: Some("weight".into()),
            quant_parameter_tensor_names: vec![entry.clone()],
        }],
        ..GraphProto::default()
    };
    let model = ModelProto {
        // Set to its default: proto2 writes it, and so must we.
        model_version: Some(0),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }],
        metadata_props: vec![entry],
        functions: vec![FunctionProto { name: Some("f".into()), attribute: vec!["a".into()], ..Default::default() }],
        ..model_of(graph)
    };
    let bytes = write(&model);
    let again = parse(&bytes).unwrap();
    assert_eq!(again, model);
    assert_eq!(write(&again), bytes);
}

/// Bytes as the standard's own encoder writes them: lists of an attribute are unpacked, lists of a tensor packed.
#[test]
fn wire_format_is_that_of_proto2() {
    let attribute = AttributeProto { ints: vec![1, 2], ..AttributeProto::default() };
    assert_eq!(attribute.encode_to_vec(), [0x40, 1, 0x40, 2]);
    let tensor = TensorProto { dims: vec![2], int64_data: vec![5, 6], ..TensorProto::default() };
    assert_eq!(tensor.encode_to_vec(), [0x08, 2, 0x3a, 2, 5, 6]);
    let packed = AttributeProto::decode([0x42, 2, 1, 2].as_slice()).unwrap();
    assert_eq!(packed.ints, [1, 2]);
}

#[test]
fn bytes_that_are_no_model_are_refused() {
    assert!(matches!(parse(b""), Err(OnnxError::NoGraph)));
    assert!(matches!(parse(b"\x89PNG\r\n\x1a\n"), Err(OnnxError::Decode { .. })));
    let whole = write(&model_of(nested(GraphProto::default(), 1)));
    assert!(matches!(parse(&whole[..whole.len() - 1]), Err(OnnxError::Decode { .. })));
    let deep = write(&model_of(nested(GraphProto::default(), 200)));
    assert!(matches!(parse(&deep), Err(OnnxError::Decode { .. })));
}

#[test]
fn self_contained_model_passes() {
    let graph = GraphProto {
        node: vec![node("Relu", &["x"], &["y"], vec![])],
        initializer: vec![tensor_i64("shape", &[1], &[3]).unwrap()],
        ..GraphProto::default()
    };
    check_self_contained(&model_of(nested(graph, 2))).unwrap();
}

#[test]
fn external_data_is_found_wherever_it_hides() {
    let constant = |attribute| node("Constant", &[], &["c"], vec![attribute]);
    let places = [
        GraphProto { initializer: vec![external("secret")], ..GraphProto::default() },
        GraphProto {
            sparse_initializer: vec![SparseTensorProto { indices: Some(external("secret")), ..Default::default() }],
            ..GraphProto::default()
        },
        GraphProto {
            node: vec![constant(AttributeProto { t: Some(external("secret")), ..Default::default() })],
            ..GraphProto::default()
        },
        GraphProto {
            node: vec![constant(AttributeProto { tensors: vec![external("secret")], ..Default::default() })],
            ..GraphProto::default()
        },
        GraphProto {
            node: vec![constant(AttributeProto {
                sparse_tensors: vec![SparseTensorProto { values: Some(external("secret")), ..Default::default() }],
                ..Default::default()
            })],
            ..GraphProto::default()
        },
    ];
    for graph in places {
        for depth in [0, 1, 3] {
            let error = check_self_contained(&model_of(nested(graph.clone(), depth))).unwrap_err();
            assert_eq!(error.to_string(), "tensor \"secret\" keeps its data outside the model");
        }
    }
}

/// ONNX Runtime goes by the location; other readers go by the list of keys: either is enough to refuse.
#[test]
fn external_keys_without_a_location_are_refused() {
    let entry = StringStringEntryProto { key: Some("location".into()), value: Some("/etc/passwd".into()) };
    let tensor = TensorProto { external_data: vec![entry], ..TensorProto::default() };
    let graph = GraphProto { initializer: vec![tensor], ..GraphProto::default() };
    assert!(matches!(check_self_contained(&model_of(graph)), Err(OnnxError::ExternalData { .. })));
}

#[test]
fn foreign_operators_and_functions_are_refused() {
    let mut custom = node("Evil", &["x"], &["y"], vec![]);
    custom.domain = Some("com.example".into());
    let graph = nested(GraphProto { node: vec![custom], ..GraphProto::default() }, 1);
    assert_eq!(
        check_self_contained(&model_of(graph)).unwrap_err().to_string(),
        "node \"y\" (Evil) is of operator domain \"com.example\", which is not part of ONNX"
    );
    let function = FunctionProto { name: Some("f".into()), ..FunctionProto::default() };
    let model = ModelProto { functions: vec![function], ..model_of(GraphProto::default()) };
    assert!(matches!(check_self_contained(&model), Err(OnnxError::LocalFunction { .. })));
    let training = TrainingInfoProto {
        algorithm: Some(GraphProto { initializer: vec![external("t")], ..GraphProto::default() }),
        ..TrainingInfoProto::default()
    };
    let model = ModelProto { training_info: vec![training], ..model_of(GraphProto::default()) };
    assert!(matches!(check_self_contained(&model), Err(OnnxError::ExternalData { .. })));
}

#[test]
fn numbers_come_back_from_tensors() {
    let values = [1.0, -0.25, 65504.0, 0.1];
    assert_eq!(tensor_values(&tensor_f32("t", &[2, 2], &values).unwrap()).unwrap(), values);
    let halves = tensor_values(&tensor_f16("t", &[4], &values).unwrap()).unwrap();
    assert_eq!(halves[..3], values[..3]);
    // Half an ulp of f16 at 0.1 is 2^-15.
    assert!((halves[3] - 0.1).abs() <= 2f32.powi(-15));
    let listed = TensorProto { dims: vec![1], data_type: Some(10), int32_data: vec![0x3c00], ..TensorProto::default() };
    assert_eq!(tensor_values(&listed).unwrap(), [1.0]);
}

#[test]
fn tensors_that_lie_about_their_shape_are_refused() {
    assert!(matches!(tensor_f32("t", &[3], &[1.0]), Err(OnnxError::Length { found: 1, expected: 3, .. })));
    let mut tensor = tensor_f32("t", &[2], &[1.0, 2.0]).unwrap();
    tensor.dims = vec![3];
    assert!(matches!(tensor_values(&tensor), Err(OnnxError::Length { found: 2, expected: 3, .. })));
    tensor.dims = vec![-1];
    assert!(matches!(tensor_values(&tensor), Err(OnnxError::Shape { .. })));
    tensor.dims = vec![1 << 40, 1 << 40];
    assert!(matches!(tensor_values(&tensor), Err(OnnxError::Shape { .. })));
    tensor.data_type = Some(7);
    assert!(matches!(tensor_values(&tensor), Err(OnnxError::DataType { data_type: 7, .. })));
}
