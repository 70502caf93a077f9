//! Texts and bytes that describe models, codebooks and embeddings. What is read is sound, and what is written of it reads
//! back as the same.

use half::f16;
use ndarray::Array3;
use sketch_model::codebook::{Codebook, Length};
use sketch_model::embedding::{check, from_bytes, parse, print, to_bytes};
use sketch_model::inference::onnx::{self, build, half::to_half, messages};
use sketch_model::limits::Limits;
use sketch_model::manifest::Manifest;
use sketch_model::origin::Origin;

pub fn manifest(bytes: &[u8]) {
    let Ok(manifest) =
        std::str::from_utf8(bytes).map_err(drop).and_then(|text| Manifest::from_json(text).map_err(drop))
    else {
        return;
    };
    let again = Manifest::from_json(&manifest.to_json()).expect("what was written is read");
    assert_eq!(manifest.digest(b"graph"), again.digest(b"graph"));
    assert_eq!(manifest, again);
    // Very wide strokes may leave it blank.
    if let Ok(drawing) = manifest.prepare_sketch(b"[[[0,99,50,30],[0,30,80,2]]]", &Limits::default()) {
        assert_eq!(drawing.len(), manifest.input_len());
        assert!(drawing.iter().all(|value| value.is_finite()), "the input is finite");
    }
}

pub fn manifests() -> Vec<Vec<u8>> {
    vec![include_bytes!("../../weights/lite2-sketch-2.json").to_vec()]
}

pub fn codebook(bytes: &[u8]) {
    let Ok(codebook) =
        std::str::from_utf8(bytes).map_err(drop).and_then(|text| Codebook::from_json(text).map_err(drop))
    else {
        return;
    };
    let again = Codebook::from_json(&codebook.to_json()).expect("what was written is read");
    assert_eq!(codebook.digest(), again.digest());
    for value in [0.0, 1.0, -65_504.0] {
        let fused = codebook.fuse(&vec![value; codebook.dimension()]).expect("an embedding of its dimension");
        assert!(fused.len() == codebook.dimension() && fused.iter().all(|value| value.is_finite()));
        let code = codebook.encode(&vec![value; codebook.dimension()]).expect("an embedding of its dimension");
        assert_eq!(codebook.decode(&code).expect("its own code").len(), codebook.dimension());
    }
}

pub fn codebooks() -> Vec<Vec<u8>> {
    let codebook = |shape, weight| {
        let centroids = Array3::from_shape_fn(shape, |(i, j, k)| (i * 3 + j * 5 + k) as f32 / 7.0);
        Codebook::new(centroids, weight, 9).expect("sizes in range")
    };
    vec![
        codebook((1, 2, 2), 0.2).to_json().into_bytes(),
        codebook((2, 3, 2), 1.0).with_length(Length::Own).to_json().into_bytes(),
        b"{\"format\":2,\"model\":1}".to_vec(),
    ]
}

pub fn onnx(bytes: &[u8]) {
    let Ok(model) = onnx::parse(bytes) else { return };
    let written = onnx::write(&model);
    let again = onnx::parse(&written).expect("what was written is read");
    // Bytes, because NaN is not NaN.
    assert_eq!(onnx::write(&again), written);
    assert_eq!(onnx::check_self_contained(&model).is_ok(), onnx::check_self_contained(&again).is_ok());
    let half = to_half(&model);
    assert_eq!(onnx::check_self_contained(&half).is_ok(), onnx::check_self_contained(&model).is_ok());
    for tensor in model.graph.iter().flat_map(|graph| &graph.initializer) {
        if let (Ok(shape), Ok(values)) = (build::tensor_shape(tensor), build::tensor_values(tensor)) {
            assert_eq!(shape.iter().product::<usize>(), values.len());
        }
    }
}

pub fn graphs() -> Vec<Vec<u8>> {
    use messages::{DataType, GraphProto, ModelProto, OperatorSetIdProto};
    let weights = [
        build::tensor_f32("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0]),
        build::tensor_f16("h", &[2], &[1.0, 2.0]),
        build::tensor_i64("i", &[1], &[5]),
        build::tensor_i8("b", &[2], &[5, -6]),
    ];
    let shape = [build::Size::Fixed(2), build::Size::Fixed(2)];
    let graph = GraphProto {
        name: Some("g".into()),
        node: vec![
            build::node("MatMul", &["x", "w"], &["y"], vec![]),
            build::node("Cast", &["y"], &["z"], vec![build::attribute_int("to", 10), build::attribute_float("f", 0.5)]),
            build::node(
                "Resize",
                &["z", "h", "w"],
                &["e"],
                vec![build::attribute_ints("axes", &[1, 2]), build::attribute_text("mode", "nearest")],
            ),
        ],
        initializer: weights.into_iter().flatten().collect(),
        input: vec![build::value_info("x", DataType::Float, &shape)],
        output: vec![build::value_info("e", DataType::Float, &shape)],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { version: Some(17), ..OperatorSetIdProto::default() };
    let model =
        ModelProto { ir_version: Some(8), opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() };
    // One node of another domain; one weight that lies in a file.
    let evil = [
        8, 8, 58, 30, 10, 25, 10, 1, 120, 18, 1, 121, 34, 4, 69, 118, 105, 108, 58, 11, 99, 111, 109, 46, 101, 120, 97,
        109, 112, 108, 101, 18, 1, 103, 66, 2, 16, 17,
    ];
    vec![onnx::write(&model), evil.to_vec()]
}

pub fn embedding_text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok((values, origin)) = parse(&text) {
        assert_sound(&values);
        let printed = print(&values, origin);
        let again = parse(&printed).expect("what was printed is read");
        assert_eq!((bits(&again.0), again.1), (bits(&values), origin), "{printed}");
    }
}

pub fn embedding_binary(bytes: &[u8]) {
    if let Ok((values, origin)) = from_bytes(bytes) {
        assert_sound(&values);
        assert_eq!(to_bytes(&values, origin), bytes);
        let again = parse(&print(&values, origin)).expect("what was printed is read");
        assert_eq!((bits(&again.0), again.1), (bits(&values), origin));
    }
}

fn assert_sound(values: &[f16]) {
    check(values).expect("what is read is an embedding");
}

fn bits(values: &[f16]) -> Vec<u16> {
    values.iter().map(|value| value.to_bits()).collect()
}

pub fn embeddings() -> Vec<Vec<u8>> {
    ["[1,2.5,-0.1]", " [ 1 , 2 ]@0000000a ", "[1,2]@0000000a/ffffffff", "[65504,6e-8,0,-0]", "[1] and more"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

pub fn binary_embeddings() -> Vec<Vec<u8>> {
    let values = [1.0, -0.5, 0.0, 65_504.0].map(f16::from_f32);
    [Origin::default(), Origin { model: 10, codebook: 255 }].map(|origin| to_bytes(&values, origin)).to_vec()
}

pub const NUMBERS: &[&str] =
    &["[", "]", ",", "@", "/", "0000000a", "ffffffff", "inf", "NaN", "1e", "e-8", "65504", "65520", "-0", "+"];
pub const CODEBOOK_WORDS: &[&str] = &[
    "\"format\":",
    "\"model\":",
    "\"subspaces\":",
    "\"prototypes\":",
    "\"dimension\":",
    "\"weight\":",
    "\"unit_length\":",
    "\"centroids\":[",
    "true",
    "false",
    "null",
    "65504",
    "65505",
    "1e39",
    "1e-46",
    "-0.0",
    "4294967295",
    "18446744073709551615",
];
pub const MANIFEST_WORDS: &[&str] = &[
    "\"format\":",
    "\"name\":",
    "\"dimension\":",
    "\"input\":",
    "\"size\":",
    "\"mean\":",
    "\"std\":",
    "\"domain_input\":",
    "\"sketch\":",
    "\"photo\":",
    "\"licence\":",
    "\"origin\":",
    "\"half_precision\":",
    "\"polarity\":",
    "\"colours\":",
    "\"clean_paper\":",
    "\"stretch_contrast\":",
    "\"frame\":",
    "\"margin\":",
    "\"vector_stroke\":",
    "\"bitmap_stroke\":",
    "\"filter\":",
    "\"keep\"",
    "\"whole\"",
    "\"ink\"",
    "true",
    "false",
    "null",
    "1e38",
    "1e-45",
    "1024",
    "16",
];
