//! The network that ships: read, trained for some steps, written back.

use std::collections::HashMap;

use sketch_model::onnx;
use sketch_model::onnx::build::attribute_int;
use sketch_model::onnx::messages::{DataType, ModelProto};
use sketch_trainer::engine::optimizer::{Adam, Trained};
use sketch_trainer::engine::{Feed, Tape, TrainingSession, gradients, write_back};

use crate::check::{Random, feed, integer_feed, start};
use crate::reference::Array;

const BATCH: usize = 4;
const SIZE: usize = 64;
const STEPS: u64 = 5;

/// The network with a loss: how far its embeddings are from random ones.
fn with_loss(model: &ModelProto) -> (Tape, String) {
    let mut tape = Tape::read(model).unwrap();
    tape.input("image", DataType::Float, &[BATCH, 3, SIZE, SIZE]);
    tape.input("domain", DataType::Int64, &[BATCH]);
    tape.input("target", DataType::Float, &[BATCH, 512]);
    let difference = tape.op("Sub", &["embedding", "target"], vec![]);
    let square = tape.op("Mul", &[&difference, &difference], vec![]);
    let loss = tape.op("ReduceSum", &[&square], vec![attribute_int("keepdims", 0)]);
    (tape, loss)
}

fn batch() -> Vec<(String, Feed)> {
    let mut random = Random::new(9);
    let domain = Array::from_shape_vec(&[BATCH][..], vec![0.0, 1.0, 0.0, 1.0]).unwrap();
    vec![
        ("image".to_owned(), feed(&random.uniform(&[BATCH, 3, SIZE, SIZE], 1.0))),
        ("domain".to_owned(), integer_feed(&domain)),
        ("target".to_owned(), feed(&random.uniform(&[BATCH, 512], 0.08))),
    ]
}

#[test]
fn trains_and_comes_back() {
    start();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/weights/lite0.onnx");
    let mut model = onnx::parse(&std::fs::read(path).unwrap()).unwrap();
    let (mut tape, loss) = with_loss(&model);
    tape.probe(batch()).unwrap();
    let layers = tape.layers();
    assert_eq!(layers.len(), 52);
    let names: Vec<String> = layers.into_iter().flat_map(|layer| layer.weights).map(|(name, _)| name).collect();
    let values: HashMap<String, Vec<f32>> =
        names.iter().map(|name| (name.clone(), tape.release(name).unwrap().1)).collect();
    let gradients = gradients(&mut tape, &loss, &names).unwrap();
    let adam = Adam::default();
    let trained: Vec<Trained> =
        names.iter().map(|name| Trained { name: name.clone(), rate: 1.0, decays: true }).collect();
    let state = adam.add_to(&mut tape, &trained, &gradients, values).unwrap();
    let mut session = TrainingSession::open(&tape, state, &[loss], &Default::default()).unwrap();
    let mut step = |rate, number| {
        let feeds = batch().into_iter().chain(adam.feeds(rate, number)).collect();
        let report = session.step(feeds).unwrap()[0][0];
        (report, gradients.keys().map(|name| (name.clone(), session.state(name).unwrap().1)).collect())
    };
    let losses: Vec<f32> = (1..=STEPS).map(|number| step(1e-3, number).0).collect();
    // A rate of zero: the loss of the weights as they are then.
    let (last, weights): (f32, HashMap<String, Vec<f32>>) = step(0.0, STEPS + 1);
    assert!(last < 0.8 * losses[0], "{losses:?}, {last}");
    write_back(&mut model, &weights).unwrap();
    let written = loss_of(&model);
    // The file keeps weights in half precision: 11 bits of each.
    assert!((written - last).abs() < 0.01 * last, "{written} after writing, {last} before");
}

fn loss_of(model: &ModelProto) -> f32 {
    let (tape, loss) = with_loss(model);
    TrainingSession::open(&tape, vec![], &[loss], &Default::default()).unwrap().step(batch()).unwrap()[0][0]
}
