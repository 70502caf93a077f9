//! Other networks as the one to start from. Needs ONNX Runtime: ONNXRUNTIME_LIB is the path of its library, as set by `make
//! test`.

use std::path::Path;

use ndarray::Array2;
use sketch_model::inference::encoder::{Device, Domain, Encoder, EncoderOptions};
use sketch_model::inference::onnx::build::{Size, attribute_int, value_info};
use sketch_model::inference::onnx::messages::{DataType, ModelProto};
use sketch_model::inference::onnx::write;
use sketch_model::manifest::{FORMAT, Input, Manifest};
use sketch_model::render::preprocess::{PhotoPreprocessing, SketchPreprocessing};
use sketch_trainer::augment::Rng;
use sketch_trainer::backbone::{Backbone, BackboneError};
use sketch_trainer::engine::Tape;
use sketch_trainer::head::{Head, Scale};
use sketch_trainer::lite::Convolution;
use sketch_trainer::train::Cut;

const OPTIONS: EncoderOptions = EncoderOptions::new(Device::Cpu, 1);
const SIDE: usize = 16;
const WIDTH: usize = 8;

fn start() {
    let library = std::env::var_os("ONNXRUNTIME_LIB").expect("ONNXRUNTIME_LIB must name ONNX Runtime's library");
    sketch_model::inference::runtime::init(Path::new(&library)).unwrap();
}

/// A network as from an exporter: arbitrary names, some of which the trainer uses for other tensors.
///
/// `batch`: its batch size. With `classifier` it returns classes, otherwise features.
fn foreign(batch: Size, classifier: bool) -> ModelProto {
    let mut tape = Tape::default();
    let mut rng = Rng::new(&[1]);
    let mut weight = |tape: &mut Tape, name: &str, shape: &[usize]| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| 0.3 * rng.normal()).collect();
        tape.named_constant(name, shape, &values).unwrap()
    };
    let kernel = weight(&mut tape, "means", &[WIDTH, 3, 3, 3]);
    let bias = weight(&mut tape, "domain", &[WIDTH]);
    let shape = Convolution { kernel: 3, stride: 2, groups: 1, pad_begin: 1, pad_end: 1 };
    let map = tape.named("Conv", &["input.1", &kernel, &bias], &["embedding"], shape.attributes());
    let map = tape.named("Relu", &[&map], &["42"], vec![]);
    let pooled = tape.named("GlobalAveragePool", &[&map], &["43"], vec![]);
    let mut last = tape.named("Flatten", &[&pooled], &["44"], vec![attribute_int("axis", 1)]);
    if classifier {
        let weights = weight(&mut tape, "fc.weight", &[WIDTH, 5]);
        let bias = weight(&mut tape, "fc.bias", &[5]);
        let product = tape.named("MatMul", &[&last, &weights], &["45"], vec![]);
        last = tape.named("Add", &[&product, &bias], &["image"], vec![]);
    }
    let side = Size::Fixed(SIDE);
    let inputs = vec![value_info("input.1", DataType::Float, &[batch, Size::Fixed(3), side, side])];
    tape.network("foreign", inputs, vec![value_info(&last, DataType::Float, &[batch, Size::Named("c")])])
}

fn manifest(dimension: usize) -> Manifest {
    Manifest {
        format: FORMAT,
        name: "foreign".to_owned(),
        dimension,
        input: Input { size: SIDE as u32, mean: [0.5; 3], std: [0.5; 3] },
        domain_input: true,
        half_precision: false,
        sketch: SketchPreprocessing::best(),
        photo: PhotoPreprocessing::best(),
        licence: String::new(),
        origin: String::new(),
    }
}

fn images(count: usize) -> Vec<f32> {
    let mut rng = Rng::new(&[2]);
    (0..count * 3 * SIDE * SIDE).map(|_| rng.normal()).collect()
}

#[test]
fn a_foreign_classifier_gets_a_head() {
    start();
    let backbone = Backbone::open(&foreign(Size::Named("n"), true), None, None).unwrap();
    assert_eq!((backbone.width, backbone.classes, backbone.size), (WIDTH, 5, SIDE));
    let mut head = Head::plain(WIDTH, 4);
    head.means[[1, 2]] = 0.5;
    let model = backbone.with_head("foreign", &head).unwrap();
    let mut encoder = Encoder::load(&write(&model), &manifest(4), &OPTIONS).unwrap();
    let features = encoder.run("features", Domain::Sketch, &images(3), 3).unwrap();
    assert!(features.iter().all(|&feature| feature >= 0.0) && features.sum() > 0.0);
    assert_eq!(encoder.run("logits", Domain::Sketch, &images(3), 3).unwrap().dim(), (3, 5));
    for (domain, mean) in [(Domain::Sketch, 0.0), (Domain::Photo, 0.5)] {
        let found = encoder.encode(domain, &images(3), 3).unwrap();
        let mut expected = Array2::zeros((3, 4));
        for (row, mut expected) in features.rows().into_iter().zip(expected.rows_mut()) {
            let length = row.dot(&row).sqrt();
            expected.assign(&row.slice(ndarray::s![..4]).mapv(|feature| feature / length));
            expected[2] -= mean;
            let length = expected.dot(&expected).sqrt();
            expected /= length;
        }
        assert!((&found - &expected).iter().all(|error| error.abs() < 1e-5), "{found} {expected}");
    }
    // Training can start at a layer by its name.
    let tape = Tape::read(&model).unwrap();
    assert!(Cut::before(&tape, "backbone.embedding").is_ok());
}

#[test]
fn features_are_what_a_network_without_classifier_returns() {
    start();
    let backbone = Backbone::open(&foreign(Size::Named("n"), false), None, Some(32)).unwrap();
    assert_eq!((backbone.width, backbone.classes, backbone.size), (WIDTH, 0, 32));
    let named = Backbone::open(&foreign(Size::Named("n"), true), Some("44"), None).unwrap();
    assert_eq!((named.width, named.classes), (WIDTH, 5));
    let head = Head { scale: Scale::ShareRoots, ..Head::plain(WIDTH, WIDTH + 1) };
    assert!(matches!(named.with_head("x", &head), Err(BackboneError::Dimension { dimension: 9, width: 8 })));
}

#[test]
fn what_is_no_backbone_is_named() {
    start();
    let open = |model: &ModelProto, features: Option<&str>| Backbone::open(model, features, None).unwrap_err();
    let whole = foreign(Size::Named("n"), true);
    assert!(matches!(open(&whole, Some("45x")), BackboneError::Tensor { tensor } if tensor == "45x"));
    assert!(matches!(open(&whole, Some("42")), BackboneError::Shape { found, .. } if found.len() == 4));
    let mut two = whole.clone();
    let graph = two.graph.as_mut().unwrap();
    graph.input.push(value_info("mask", DataType::Float, &[Size::Named("n")]));
    assert!(matches!(open(&two, None), BackboneError::Inputs { count: 2 }));
    let mut open_size = whole;
    open_size.graph.as_mut().unwrap().input = vec![value_info(
        "input.1",
        DataType::Float,
        &[Size::Named("n"), Size::Fixed(3), Size::Named("h"), Size::Named("w")],
    )];
    assert!(matches!(open(&open_size, None), BackboneError::Size));
}
