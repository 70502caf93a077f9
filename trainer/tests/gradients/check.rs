//! Compares a run of ONNX Runtime in single precision with the reference.

use std::collections::HashMap;
use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use sketch_model::inference::encoder::EncoderOptions;
use sketch_model::inference::onnx::build::attribute_int;
use sketch_model::inference::onnx::messages::ModelProto;
use sketch_trainer::engine::{EngineError, Feed, Tape, TrainingSession, gradients};

use crate::reference::{self, Array};

/// Relative error: 6e-8 for single precision, this for sums of a hundred numbers.
const FORWARD: f64 = 1e-5;
/// Tolerance of a gradient's values, relative to the tensor's largest.
const BACKWARD: f64 = 2e-4;
/// Step of a finite difference, whose error is about the step squared plus 1e-16 over the step.
const STEP: f64 = 1e-5;

/// Loads ONNX Runtime, once.
pub fn start() {
    let library = std::env::var_os("ONNXRUNTIME_LIB").expect("ONNXRUNTIME_LIB must name ONNX Runtime's library");
    sketch_model::inference::runtime::init(Path::new(&library)).unwrap();
}

/// Reproducible random numbers.
pub struct Random(Xoshiro256PlusPlus);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }

    /// From -1 to 1, exact in single precision.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 44) as f64 / f64::from(1 << 19) - 1.0
    }

    pub fn uniform(&mut self, shape: &[usize], scale: f64) -> Array {
        ArrayD::from_shape_simple_fn(IxDyn(shape), || f64::from((self.unit() * scale) as f32))
    }

    /// Evenly spaced numbers from `low` to `high` in random order: all different, none at a kink.
    pub fn spread(&mut self, shape: &[usize], low: f64, high: f64) -> Array {
        let count: usize = shape.iter().product();
        let mut order: Vec<usize> = (0..count).collect();
        (1..count).rev().for_each(|i| order.swap(i, self.below(i + 1)));
        let value = |i| f64::from((low + (high - low) * (i as f64 + 0.3) / count as f64) as f32);
        ArrayD::from_shape_vec(IxDyn(shape), order.into_iter().map(value).collect()).unwrap()
    }
}

pub fn feed(values: &Array) -> Feed {
    Feed::Floats(values.shape().to_vec(), values.iter().map(|&value| value as f32).collect())
}

pub fn integer_feed(values: &Array) -> Feed {
    Feed::Integers(values.shape().to_vec(), values.iter().map(|&value| value as i64).collect())
}

/// Adds `Σ output random` over all `outputs`, so that every value matters, and returns its name.
pub fn add_loss(tape: &mut Tape, outputs: &[(String, Vec<usize>)], random: &mut Random) -> String {
    let mut sums = Vec::new();
    for (name, shape) in outputs {
        let weights: Vec<f32> = random.uniform(shape, 1.0).iter().map(|&weight| weight as f32).collect();
        let weights = tape.constant("weights", shape, &weights).unwrap();
        let product = tape.op("Mul", &[name, &weights], vec![]);
        sums.push(tape.op("ReduceSum", &[&product], vec![attribute_int("keepdims", 0)]));
    }
    let names: Vec<&str> = sums.iter().map(String::as_str).collect();
    tape.op("Sum", &names, vec![])
}

/// A tape with a loss, the values of its inputs, and what to compare.
pub struct Problem {
    pub tape: Tape,
    pub floats: HashMap<String, Array>,
    pub integers: HashMap<String, Array>,
    /// Tensors whose forward values are compared.
    pub outputs: Vec<String>,
    pub loss: String,
    /// Inputs whose gradient is compared.
    pub wanted: Vec<String>,
}

/// The engine's gradients, and the reference to compare them with.
pub struct Answer {
    forward: ModelProto,
    feeds: HashMap<String, Array>,
    loss: String,
    pub gradients: Vec<(String, Array)>,
}

impl Problem {
    fn feeds(&self) -> Vec<(String, Feed)> {
        let floats = self.floats.iter().map(|(name, values)| (name.clone(), feed(values)));
        floats.chain(self.integers.iter().map(|(name, values)| (name.clone(), integer_feed(values)))).collect()
    }

    /// Runs both and compares forward values.
    pub fn solve(mut self) -> Result<Answer, EngineError> {
        start();
        let forward = self.tape.model(&[self.outputs.clone(), vec![self.loss.clone()]].concat());
        let mut feeds = self.floats.clone();
        feeds.extend(self.integers.clone());
        let expected = reference::run(&forward, &feeds);
        self.tape.probe(self.feeds())?;
        let gradients = gradients(&mut self.tape, &self.loss, &self.wanted)?;
        let backward =
            self.wanted.iter().map(|name| gradients.get(name).unwrap_or_else(|| panic!("no gradient: {name}")));
        let reports: Vec<String> = self.outputs.iter().chain(backward).cloned().collect();
        let model = self.tape.model(&reports);
        let used = |name: &str| model.graph.as_ref().unwrap().input.iter().any(|input| input.name() == name);
        let fed = self.feeds().into_iter().filter(|(name, _)| used(name)).collect();
        let options = EncoderOptions::default();
        let mut results = TrainingSession::open(&self.tape, vec![], &reports, &options)?.step(fed)?;
        let backward = results.split_off(self.outputs.len());
        for (name, found) in self.outputs.iter().zip(results) {
            compare(name, &found, &expected[name], FORWARD);
        }
        let shaped = |(name, found): (&String, Vec<f32>)| {
            let values = found.into_iter().map(f64::from).collect();
            (name.clone(), ArrayD::from_shape_vec(self.floats[name].raw_dim(), values).expect(name))
        };
        let gradients = self.wanted.iter().zip(backward).map(shaped).collect();
        Ok(Answer { forward, feeds, loss: self.loss, gradients })
    }

    /// Compares every number of every gradient with a finite difference.
    pub fn check(self) {
        let mut answer = self.solve().unwrap();
        for (name, found) in std::mem::take(&mut answer.gradients) {
            let mut expected = found.clone();
            for index in 0..expected.len() {
                let mut direction = ArrayD::zeros(expected.raw_dim());
                direction.as_slice_mut().unwrap()[index] = 1.0;
                expected.as_slice_mut().unwrap()[index] = answer.slope(&name, &direction);
            }
            let found: Vec<f32> = found.iter().map(|&value| value as f32).collect();
            compare(&format!("gradient of {name}"), &found, &expected, BACKWARD);
        }
    }
}

impl Answer {
    /// The derivative of the reference's loss along `direction` of input `name`.
    pub fn slope(&mut self, name: &str, direction: &Array) -> f64 {
        let start = self.feeds[name].clone();
        let mut at = |way: f64| {
            self.feeds.insert(name.to_owned(), &start + &(direction * way));
            reference::run(&self.forward, &self.feeds)[&self.loss].sum()
        };
        let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        self.feeds.insert(name.to_owned(), start);
        slope
    }
}

pub fn compare(name: &str, found: &[f32], expected: &Array, tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{name}: number of values");
    let greatest = expected.iter().fold(1e-3, |greatest: f64, value| greatest.max(value.abs()));
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let off = (f64::from(found) - expected).abs() / greatest;
        // Written so that NaN fails.
        assert!(off <= tolerance, "{name}[{i}]: {found}, expected {expected} (off by {off:e} of {greatest})");
    }
}
