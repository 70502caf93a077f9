use std::path::Path;

use sketch_model::inference::encoder::{Device, Domain, Encoder, EncoderOptions};
use sketch_model::inference::onnx::build::{Size, attribute_int, attribute_ints, value_info};
use sketch_model::inference::onnx::messages::DataType;
use sketch_model::inference::{onnx, runtime};
use sketch_model::manifest::{FORMAT, Input, Manifest};
use sketch_model::render::preprocess::{PhotoPreprocessing, SketchPreprocessing};

use super::*;
use crate::augment::Rng;
use crate::engine::{Tape, in_single_precision};
use crate::precision::{Precision, narrow};

const SIDE: usize = 16;
const WIDTH: usize = 24;
const OPTIONS: EncoderOptions = EncoderOptions::new(Device::Cpu, 1);

/// A network with all that is quantised: an inverted bottleneck with a sum, and rows that are taken out.
fn network() -> (ModelProto, Manifest) {
    let mut tape = Tape::default();
    let mut rng = Rng::new(&[1]);
    let mut conv = |tape: &mut Tape, name: &str, input: &str, [to, from, kernel]: [usize; 3], groups: usize| {
        let fan = (from * kernel * kernel) as f32;
        let mut values = |count: usize, size: f32| (0..count).map(|_| size * rng.normal()).collect::<Vec<f32>>();
        let weights = values(to * from * kernel * kernel, (2.0 / fan).sqrt());
        let bias = values(to, 0.1);
        let weights = tape.named_constant(&format!("{name}.weight"), &[to, from, kernel, kernel], &weights).unwrap();
        let bias = tape.named_constant(&format!("{name}.bias"), &[to], &bias).unwrap();
        let pad = (kernel / 2) as i64;
        let attributes = vec![attribute_int("group", groups as i64), attribute_ints("pads", &[pad; 4])];
        tape.named("Conv", &[input, &weights, &bias], &[name], attributes)
    };
    let relu6 = |tape: &mut Tape, input: &str| {
        let (zero, six) = (tape.scalar(0.0), tape.scalar(6.0));
        tape.named("Clip", &[input, &zero, &six], &[&format!("{input}.relu6")], vec![])
    };
    let stem = conv(&mut tape, "stem", "image", [WIDTH, 3, 3], 1);
    let stem = relu6(&mut tape, &stem);
    let wide = conv(&mut tape, "expand", &stem, [2 * WIDTH, WIDTH, 1], 1);
    let wide = relu6(&mut tape, &wide);
    let wide = conv(&mut tape, "depthwise", &wide, [2 * WIDTH, 1, 3], 2 * WIDTH);
    let wide = relu6(&mut tape, &wide);
    let narrow = conv(&mut tape, "project", &wide, [WIDTH, 2 * WIDTH, 1], 1);
    let sum = tape.named("Add", &[&narrow, &stem], &["sum"], vec![]);
    let all = tape.named("Shape", &["domain"], &["count"], vec![]);
    let (zero, one) = (tape.integers(&[0]), tape.integers(&[1]));
    let zero = tape.named("Squeeze", &[&zero], &["first"], vec![]);
    let count = tape.named("Squeeze", &[&all], &["after"], vec![]);
    let one = tape.named("Squeeze", &[&one], &["by"], vec![]);
    let rows = tape.named("Range", &[&zero, &count, &one], &["rows"], vec![]);
    let rows = tape.named("Gather", &[&sum, &rows], &["taken"], vec![attribute_int("axis", 0)]);
    let top = conv(&mut tape, "top", &rows, [32, WIDTH, 1], 1);
    let pooled = tape.named("GlobalAveragePool", &[&top], &["pooled"], vec![]);
    tape.named("Flatten", &[&pooled], &["embedding"], vec![attribute_int("axis", 1)]);
    let (batch, side) = (Size::Named("n"), Size::Fixed(SIDE));
    let inputs = vec![
        value_info("image", DataType::Float, &[batch, Size::Fixed(3), side, side]),
        value_info("domain", DataType::Int64, &[batch]),
    ];
    let outputs = vec![value_info("embedding", DataType::Float, &[batch, Size::Fixed(32)])];
    let manifest = Manifest {
        format: FORMAT,
        name: "small".to_owned(),
        dimension: 32,
        input: Input { size: SIDE as u32, mean: [0.5; 3], std: [0.5; 3] },
        domain_input: true,
        half_precision: false,
        sketch: SketchPreprocessing::best(),
        photo: PhotoPreprocessing::best(),
        licence: String::new(),
        origin: String::new(),
    };
    (tape.network("small", inputs, outputs), manifest)
}

fn images(seed: u64, count: usize) -> Vec<Vec<f32>> {
    let mut rng = Rng::new(&[seed]);
    (0..count).map(|_| (0..3 * SIDE * SIDE).map(|_| rng.normal().clamp(-1.0, 1.0)).collect()).collect()
}

fn quantised() -> (ModelProto, ModelProto, Manifest) {
    let library = std::env::var_os("ONNXRUNTIME_LIB").expect("ONNXRUNTIME_LIB must name ONNX Runtime's library");
    runtime::init(Path::new(&library)).unwrap();
    let (model, manifest) = network();
    let mut calibration = images(7, 20).into_iter().map(|image| Ok::<_, QuantiseError>((Domain::Photo, image)));
    let ranges = calibrate(&model, &manifest, &mut calibration, &OPTIONS, &()).unwrap();
    let integers = quantise(&model, &ranges).unwrap();
    (model, integers, manifest)
}

#[test]
fn integers_compute_nearly_what_numbers_do() {
    let (model, integers, manifest) = quantised();
    let load = |model: &ModelProto| Encoder::load(&onnx::write(model), &manifest, &OPTIONS).unwrap();
    let (mut plain, mut integers) = (load(&model), load(&integers));
    let batch = images(8, 6).concat();
    let expected = plain.encode(Domain::Photo, &batch, 6).unwrap();
    let found = integers.encode(Domain::Photo, &batch, 6).unwrap();
    let size = |rows: &ndarray::Array2<f32>| rows.mapv(|x| x * x).sum().sqrt();
    let error = size(&(&found - &expected)) / size(&expected);
    assert!(error > 0.0 && error < 0.05, "{error}");
}

/// Only what lies between two convolutions is scaled, and the network computes what it did.
#[test]
fn equalised_channels_change_nothing() {
    let (model, _, manifest) = quantised();
    let mut calibration = images(7, 20).into_iter().map(|image| Ok::<_, QuantiseError>((Domain::Photo, image)));
    let mut ranges = calibrate(&model, &manifest, &mut calibration, &OPTIONS, &()).unwrap();
    let mut scaled = model.clone();
    let graph = scaled.graph.as_mut().unwrap();
    // Without the sum, whose other part comes from an activation.
    for node in &mut graph.node {
        node.input.iter_mut().filter(|input| *input == "sum").for_each(|input| "project".clone_into(input));
    }
    graph.node.retain(|node| node.name() != "sum");
    let before = scaled.clone();
    let graph = scaled.graph.as_mut().unwrap();
    let points = points(graph).unwrap();
    equalise(graph, &points, &mut ranges).unwrap();
    let weights = |model: &ModelProto, name: &str| {
        let found = model.graph.as_ref().unwrap().initializer.iter().find(|tensor| tensor.name() == name).cloned();
        tensor_values(&found.unwrap()).unwrap()
    };
    for (name, changes) in
        [("project.weight", true), ("project.bias", true), ("top.weight", true), ("expand.weight", false)]
    {
        assert_eq!(weights(&scaled, name) != weights(&before, name), changes, "{name}");
    }
    let encode = |model: &ModelProto| {
        let mut encoder = Encoder::load(&onnx::write(model), &manifest, &OPTIONS).unwrap();
        encoder.encode(Domain::Photo, &images(8, 6).concat(), 6).unwrap()
    };
    let (found, expected) = (encode(&scaled), encode(&before));
    assert!(found.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-4));
}

/// Convolutions to no more channels, straight after the image, stay as they are.
#[test]
fn integers_begin_where_channels_become_more() {
    let (mut model, ..) = quantised();
    let is_point = |model: &ModelProto, name: &str| points(model.graph.as_ref().unwrap()).unwrap().contains_key(name);
    assert!(is_point(&model, "stem.relu6") && is_point(&model, "project"));
    // Without the sum and the widening, the beginning goes on.
    let graph = model.graph.as_mut().unwrap();
    graph.node.retain(|node| !matches!(node.name(), "sum" | "expand" | "expand.relu6"));
    for input in graph.node.iter_mut().flat_map(|node| &mut node.input) {
        match input.as_str() {
            "sum" => "project".clone_into(input),
            "expand.relu6" => "stem.relu6".clone_into(input),
            _ => {}
        }
    }
    for tensor in graph.initializer.iter_mut().filter(|tensor| tensor.name().starts_with("depthwise.")) {
        tensor.dims[0] = WIDTH as i64;
    }
    assert!(!is_point(&model, "stem.relu6") && !is_point(&model, "depthwise.relu6") && is_point(&model, "project"));
}

#[test]
fn all_convolutions_but_the_first_are_integers() {
    let (_, integers, _) = quantised();
    let graph = integers.graph.as_ref().unwrap();
    for node in graph.node.iter().filter(|node| node.op_type() == "Conv") {
        let reads_bytes = node.input.iter().all(|input| input.ends_with(".read"));
        assert_eq!(reads_bytes, node.name() != "stem", "{}", node.name());
    }
    assert!(graph.initializer.iter().all(|tensor| !tensor.name().ends_with("expand.weight")));
    onnx::check_self_contained(&integers).unwrap();
}

#[test]
fn a_network_is_quantised_once() {
    let (_, integers, _) = quantised();
    assert!(matches!(quantise(&integers, &Ranges::default()), Err(QuantiseError::Already)));
    let mut tape = Tape::default();
    tape.named("Relu", &["image"], &["embedding"], vec![]);
    let nothing = tape.network("nothing", vec![], vec![value_info("embedding", DataType::Float, &[])]);
    assert!(matches!(quantise(&nothing, &Ranges::default()), Err(QuantiseError::Nothing)));
}

#[test]
fn stored_weights_come_back_in_single_precision() {
    let (model, _) = network();
    let mut stored = model.clone();
    narrow(&mut stored, Precision::Int8Weights).unwrap();
    let back = in_single_precision(&stored).unwrap();
    let of = |model: &ModelProto| model.graph.as_ref().unwrap().node.clone();
    assert_eq!(of(&back), of(&model));
}

/// A head that subtracts a mean of each domain: afterwards the mean embedding is that of single precision.
#[test]
fn the_centre_stays() {
    let (mut model, mut integers, mut manifest) = quantised();
    for model in [&mut model, &mut integers] {
        let graph = model.graph.as_mut().unwrap();
        graph.initializer.push(tensor_f32("means", &[2, 32], &[0.25; 64]).unwrap());
        let last = graph.node.last_mut().unwrap();
        (last.name, last.output) = (Some("flat".to_owned()), vec!["pooled.flat".to_owned()]);
        graph.node.push(node("Gather", &["means", "domain"], &["mean"], vec![attribute_int("axis", 0)]));
        graph.node.push(node("Sub", &["pooled.flat", "mean"], &["embedding"], vec![]));
    }
    let domains = [Domain::Photo, Domain::Photo, Domain::Sketch];
    let feed = || domains.into_iter().zip(images(9, 3)).map(Ok::<_, QuantiseError>);
    assert!(recentre(&model, &mut integers, &manifest, [&mut feed(), &mut feed()], &OPTIONS).unwrap());
    manifest.dimension = 32;
    let mean = |model: &ModelProto| {
        let mut encoder = Encoder::load(&onnx::write(model), &manifest, &OPTIONS).unwrap();
        let mut sums = [vec![0.0; 32], vec![0.0; 32]];
        for image in feed() {
            let (domain, pixels) = image.unwrap();
            let row = encoder.encode(domain, &pixels, 1).unwrap();
            sums[domain as usize].iter_mut().zip(&row).for_each(|(sum, value)| *sum += value);
        }
        sums.concat()
    };
    for (found, expected) in mean(&integers).iter().zip(mean(&model)) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
}
