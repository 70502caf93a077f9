use sketch_model::inference::onnx::build::{attribute_float, attribute_int, node};
use sketch_model::inference::onnx::messages::DataType;
use sketch_trainer::engine::normalisation::{MOMENTUM, freeze};
use sketch_trainer::engine::{Tape, TrainingSession};

use crate::case::Case;
use crate::check::{Random, compare, feed, start};
use crate::reference::Array;

const SHAPES: [&[usize]; 4] = [&[3, 2, 4, 3], &[6, 3], &[4, 2, 5], &[7, 3, 1, 1]];

#[test]
fn frozen_batch() {
    for shape in SHAPES {
        let channels = [shape[1]];
        let case = Case::new("BatchNormalization").input(shape).input(&channels).input(&channels);
        let case = case.input(&channels).fixed().between(&channels, 0.5, 2.0).fixed();
        case.with(attribute_float("epsilon", 1e-3)).check();
    }
}

#[test]
fn live_batch() {
    for shape in SHAPES {
        let channels = [shape[1]];
        let case = Case::new("BatchNormalization").input(shape).input(&channels).input(&channels);
        let case = case.input(&channels).fixed().between(&channels, 0.5, 2.0).fixed();
        let case = case.with(attribute_int("training_mode", 1)).with(attribute_float("momentum", 0.0));
        case.outputs(3, &[0]).check();
    }
}

#[test]
fn layer() {
    for (axis, affine) in [(-1, &[4][..]), (-2, &[3, 4]), (2, &[4]), (1, &[3, 4]), (0, &[2, 3, 4])] {
        let case = || Case::new("LayerNormalization").input(&[2, 3, 4]).input(affine);
        let with = |case: Case| case.with(attribute_int("axis", axis)).with(attribute_float("epsilon", 1e-3));
        with(case()).check();
        with(case().input(affine)).check();
        with(case().fixed().input(affine)).check();
    }
}

#[test]
fn instance() {
    for shape in [&[2, 3, 4, 3][..], &[2, 2, 6]] {
        let channels = [shape[1]];
        Case::new("InstanceNormalization").input(shape).input(&channels).input(&channels).check();
        Case::new("InstanceNormalization").input(shape).fixed().input(&channels).input(&channels).check();
    }
}

/// `running' = 0.9 running + 0.1 batch`, the variance over n - 1: `torch.nn.BatchNorm2d`.
#[test]
fn running_statistics_move_as_in_pytorch() {
    start();
    let mut random = Random::new(5);
    let (n, c, h, w) = (3, 2, 2, 5);
    let image = random.uniform(&[n, c, h, w], 2.0);
    let (mut tape, mut expected) = (Tape::default(), Vec::new());
    tape.input("x", DataType::Float, &[n, c, h, w]);
    let constants: Vec<String> = [[1.0, 2.0], [0.5, -0.5], [0.3, -0.2], [1.5, 0.7]]
        .iter()
        .map(|values| tape.constant("channel", &[c], values).unwrap())
        .collect();
    let [scale, bias, mean, variance] = [0, 1, 2, 3].map(|i| constants[i].as_str());
    let y = tape.op("BatchNormalization", &["x", scale, bias, mean, variance], vec![]);
    tape.probe(vec![("x".to_owned(), feed(&image))]).unwrap();
    let state = tape.live_normalisation(0, MOMENTUM).unwrap();
    for (channel, [mean, variance]) in [[0.3, 1.5], [-0.2, 0.7]].into_iter().enumerate() {
        let values = image.index_axis(ndarray::Axis(1), channel);
        expected.push([0.9 * mean + 0.1 * values.mean().unwrap(), 0.9 * variance + 0.1 * values.var(1.0)]);
    }
    let mut session = TrainingSession::open(&tape, state, &[y], &Default::default()).unwrap();
    session.step(vec![("x".to_owned(), feed(&image))]).unwrap();
    for (i, name) in [mean, variance].into_iter().enumerate() {
        let values: Vec<f64> = expected.iter().map(|channel| channel[i]).collect();
        compare(name, &session.state(name).unwrap().1, &Array::from_shape_vec(&[c][..], values).unwrap(), 1e-5);
    }
}

#[test]
fn freezing_takes_training_mode_back() {
    let inputs = ["x", "s", "b", "m", "v"];
    let plain = node("BatchNormalization", &inputs, &["y"], vec![attribute_float("epsilon", 1e-3)]);
    let mut live = plain.clone();
    live.attribute.push(attribute_int("training_mode", 1));
    live.output.extend(["mean".to_owned(), "variance".to_owned()]);
    let mut older = plain.clone();
    older.output.extend(["mean".to_owned()]);
    let mut nodes = vec![plain.clone(), live, older, node("Relu", &["y"], &["z"], vec![])];
    assert_eq!(freeze(&mut nodes), 2);
    assert_eq!(nodes[..3], [plain.clone(), plain.clone(), plain]);
}
