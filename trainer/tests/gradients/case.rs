//! One node with random inputs.

use std::collections::HashMap;

use sketch_model::inference::onnx::build::attribute_int;
use sketch_model::inference::onnx::messages::{AttributeProto, DataType};
use sketch_trainer::engine::{EngineError, Tape};

use crate::check::{Problem, Random, add_loss};
use crate::reference::{self, Array};

pub struct Case {
    operator: String,
    tape: Tape,
    floats: HashMap<String, Array>,
    integers: HashMap<String, Array>,
    inputs: Vec<String>,
    wanted: Vec<String>,
    attributes: Vec<AttributeProto>,
    outputs: usize,
    used: Vec<usize>,
    random: Random,
}

impl Case {
    pub fn new(operator: &str) -> Self {
        Self {
            operator: operator.to_owned(),
            tape: Tape::default(),
            floats: HashMap::new(),
            integers: HashMap::new(),
            inputs: Vec::new(),
            wanted: Vec::new(),
            attributes: Vec::new(),
            outputs: 1,
            used: vec![0],
            random: Random::new(1),
        }
    }

    /// An input whose gradient is checked, values from -2 to 2.
    pub fn input(self, shape: &[usize]) -> Self {
        self.between(shape, -2.0, 2.0)
    }

    pub fn between(mut self, shape: &[usize], low: f64, high: f64) -> Self {
        let values = self.random.spread(shape, low, high);
        self.values(values)
    }

    pub fn values(mut self, values: Array) -> Self {
        let name = format!("x{}", self.inputs.len());
        self.tape.input(&name, DataType::Float, values.shape());
        self.floats.insert(name.clone(), values);
        self.wanted.push(name.clone());
        self.inputs.push(name);
        self
    }

    /// The last input does not train.
    pub fn fixed(mut self) -> Self {
        self.wanted.pop();
        self
    }

    /// An existing tensor as input.
    pub fn again(mut self, position: usize) -> Self {
        self.inputs.push(self.inputs[position].clone());
        self
    }

    /// No input at this position.
    pub fn skip(mut self) -> Self {
        self.inputs.push(String::new());
        self
    }

    /// A constant number.
    pub fn number(mut self, value: f32) -> Self {
        self.inputs.push(self.tape.scalar(value));
        self
    }

    /// A constant list of integers.
    pub fn list(mut self, values: &[i64]) -> Self {
        self.inputs.push(self.tape.integers(values));
        self
    }

    /// Integers that are fed.
    pub fn indices(mut self, shape: &[usize], values: &[i64]) -> Self {
        let name = format!("x{}", self.inputs.len());
        self.tape.input(&name, DataType::Int64, shape);
        let values = values.iter().map(|&value| value as f64).collect();
        self.integers.insert(name.clone(), Array::from_shape_vec(shape, values).unwrap());
        self.inputs.push(name);
        self
    }

    /// Random truth values.
    pub fn condition(mut self, shape: &[usize]) -> Self {
        let values: Vec<i64> = (0..shape.iter().product()).map(|_| self.random.below(2) as i64).collect();
        let mut case = self.indices(shape, &values);
        let integers = case.inputs.pop().unwrap();
        let truth = case.tape.op("Cast", &[&integers], vec![attribute_int("to", DataType::Bool as i64)]);
        case.inputs.push(truth);
        case
    }

    pub fn with(mut self, attribute: AttributeProto) -> Self {
        self.attributes.push(attribute);
        self
    }

    /// The node has `outputs`, of which the loss uses some.
    pub fn outputs(mut self, outputs: usize, used: &[usize]) -> Self {
        (self.outputs, self.used) = (outputs, used.to_vec());
        self
    }

    fn problem(mut self) -> Problem {
        let outputs: Vec<String> = (0..self.outputs).map(|i| format!("y{i}")).collect();
        let names = |names: &[String]| names.to_vec();
        let (inputs, all) = (names(&self.inputs), names(&outputs));
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        self.tape.named(&self.operator, &inputs, &all, self.attributes);
        let mut feeds = self.floats.clone();
        feeds.extend(self.integers.clone());
        let values = reference::run(&self.tape.model(&outputs), &feeds);
        let used: Vec<(String, Vec<usize>)> =
            self.used.iter().map(|&i| (outputs[i].clone(), values[&outputs[i]].shape().to_vec())).collect();
        let loss = add_loss(&mut self.tape, &used, &mut self.random);
        let Self { tape, floats, integers, wanted, .. } = self;
        Problem { tape, floats, integers, outputs, loss, wanted }
    }

    pub fn check(self) {
        self.problem().check();
    }

    pub fn error(self) -> EngineError {
        self.problem().solve().err().expect("the engine refuses this")
    }
}
