//! Compares Adam as nodes with Adam as a loop over numbers.

use std::collections::HashMap;

use sketch_model::inference::onnx::messages::DataType;
use sketch_trainer::engine::optimizer::{Adam, Trained};
use sketch_trainer::engine::{Tape, TrainingSession};

use crate::check::{Random, compare, feed, start};
use crate::reference::Array;

const STEPS: u64 = 20;
const RATE: f64 = 0.01;

/// A matrix and a bias, which does not decay, with different learning rates.
const WEIGHTS: [(&str, &[usize], f64); 2] = [("matrix", &[2, 3], 1.0), ("bias", &[3], 0.25)];

struct Scalar {
    weight: Array,
    first: Array,
    second: Array,
}

/// Algorithm 1 of Kingma and Ba, with PyTorch's order of decay and clipping.
fn step(adam: &Adam, scalar: &mut Scalar, gradient: &Array, clip: f64, rate: f64, step: u64) {
    let [beta1, beta2, epsilon, decay] = [adam.beta1, adam.beta2, adam.epsilon, adam.weight_decay].map(f64::from);
    let decay = if scalar.weight.ndim() > 1 { decay } else { 0.0 };
    let (mut gradient, mut shrink) = (gradient * clip, 1.0);
    if adam.decoupled {
        shrink -= rate * decay;
    } else {
        gradient = gradient + &scalar.weight * decay;
    }
    scalar.first = &scalar.first * beta1 + &gradient * (1.0 - beta1);
    scalar.second = &scalar.second * beta2 + &gradient * &gradient * (1.0 - beta2);
    let mean = &scalar.first / (1.0 - beta1.powi(step as i32));
    let root = (&scalar.second / (1.0 - beta2.powi(step as i32))).mapv(f64::sqrt) + epsilon;
    scalar.weight = &scalar.weight * shrink - mean / root * rate;
}

fn session(adam: &Adam, scalars: &[Scalar]) -> TrainingSession {
    let mut tape = Tape::default();
    let (mut weights, mut gradients, mut values) = (Vec::new(), HashMap::new(), HashMap::new());
    for ((name, shape, rate), scalar) in WEIGHTS.into_iter().zip(scalars) {
        tape.input(name, DataType::Float, shape);
        let gradient = tape.input(&format!("{name}.gradient"), DataType::Float, shape);
        gradients.insert(name.to_owned(), gradient);
        weights.push(Trained { name: name.to_owned(), rate: rate as f32, decays: shape.len() > 1 });
        values.insert(name.to_owned(), scalar.weight.iter().map(|&value| value as f32).collect());
    }
    let state = adam.add_to(&mut tape, &weights, &gradients, values).unwrap();
    TrainingSession::open(&tape, state, &[], &Default::default()).unwrap()
}

fn check(adam: Adam) {
    start();
    let mut random = Random::new(3);
    let mut scalars: Vec<Scalar> = WEIGHTS
        .iter()
        .map(|(_, shape, _)| {
            let zeros = Array::zeros(*shape);
            Scalar { weight: random.uniform(shape, 1.0), first: zeros.clone(), second: zeros }
        })
        .collect();
    let mut session = session(&adam, &scalars);
    for number in 1..=STEPS {
        let gradients: Vec<Array> = WEIGHTS.iter().map(|(_, shape, _)| random.uniform(shape, 2.0)).collect();
        let norm = gradients.iter().map(|gradient| (gradient * gradient).sum()).sum::<f64>().sqrt();
        let bound = f64::from(adam.clip_norm);
        let clip = if bound > 0.0 { (bound / norm).min(1.0) } else { 1.0 };
        let mut feeds = adam.feeds(RATE as f32, number);
        for (i, (name, _, share)) in WEIGHTS.into_iter().enumerate() {
            step(&adam, &mut scalars[i], &gradients[i], clip, RATE * share, number);
            feeds.push((format!("{name}.gradient"), feed(&gradients[i])));
        }
        session.step(feeds).unwrap();
    }
    for ((name, _, _), scalar) in WEIGHTS.into_iter().zip(scalars) {
        compare(name, &session.state(name).unwrap().1, &scalar.weight, 1e-5);
        compare(name, &session.state(&format!("{name}~first_moment")).unwrap().1, &scalar.first, 1e-5);
        compare(name, &session.state(&format!("{name}~second_moment")).unwrap().1, &scalar.second, 1e-5);
    }
}

#[test]
fn plain() {
    check(Adam::default());
    check(Adam { beta1: 0.5, beta2: 0.9, epsilon: 0.1, ..Adam::default() });
}

#[test]
fn decay() {
    check(Adam { weight_decay: 0.3, decoupled: true, ..Adam::default() });
    check(Adam { weight_decay: 0.3, decoupled: false, ..Adam::default() });
}

#[test]
fn clipping() {
    for clip_norm in [0.5, 2.5, 100.0] {
        check(Adam { clip_norm, weight_decay: 0.1, ..Adam::default() });
    }
}
