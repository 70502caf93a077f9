//! A network of convolutions, gates, normalisation and attention; all of its weights are checked.

use std::collections::HashMap;

use sketch_model::inference::onnx::build::{attribute_float, attribute_int, attribute_ints};
use sketch_model::inference::onnx::messages::{AttributeProto, DataType};
use sketch_trainer::engine::Tape;
use sketch_trainer::engine::normalisation::MOMENTUM;

use crate::check::{Problem, Random, add_loss, feed};
use crate::reference::Array;

const IMAGE: [usize; 4] = [4, 3, 12, 12];
const WIDTH: usize = 8;

struct Builder {
    tape: Tape,
    random: Random,
    at: String,
}

impl Builder {
    /// A weight whose products with inputs of size one have size one.
    fn weight(&mut self, shape: &[usize]) -> String {
        let inputs = shape[1..].iter().product::<usize>() as f64;
        let values: Vec<f32> = self.random.uniform(shape, (3.0 / inputs).sqrt()).iter().map(|&x| x as f32).collect();
        self.tape.constant("weight", shape, &values).unwrap()
    }

    fn channel(&mut self, count: usize, centre: f32) -> String {
        let values: Vec<f32> = (0..count).map(|_| centre + 0.2 * self.random.unit() as f32).collect();
        self.tape.constant("channel", &[count], &values).unwrap()
    }

    /// Applies `operator` to the current tensor.
    fn then(&mut self, operator: &str, others: &[&str], attributes: Vec<AttributeProto>) -> &mut Self {
        let inputs: Vec<&str> = std::iter::once(self.at.as_str()).chain(others.iter().copied()).collect();
        self.at = self.tape.op(operator, &inputs, attributes);
        self
    }

    fn conv(&mut self, shape: [usize; 4], group: i64, stride: i64) -> &mut Self {
        let (weight, bias) = (self.weight(&shape), self.channel(shape[0], 0.0));
        let pad = shape[2] as i64 / 2;
        let attributes = vec![
            attribute_int("group", group),
            attribute_ints("strides", &[stride; 2]),
            attribute_ints("pads", &[pad; 4]),
        ];
        self.then("Conv", &[&weight, &bias], attributes)
    }

    fn normalise(&mut self, channels: usize) -> &mut Self {
        let names = [1.0, 0.0, 0.0, 1.0].map(|centre| self.channel(channels, centre));
        let names = names.each_ref().map(String::as_str);
        self.then("BatchNormalization", &names, vec![])
    }

    /// Squeeze and excitation.
    fn gate(&mut self, channels: usize) -> &mut Self {
        let start = self.at.clone();
        self.then("GlobalAveragePool", &[], vec![]).conv([4, channels, 1, 1], 1, 1).then("Softplus", &[], vec![]);
        self.conv([channels, 4, 1, 1], 1, 1).then("Sigmoid", &[], vec![]).then("Mul", &[&start], vec![])
    }

    /// From an image to a row of tokens.
    fn tokens(&mut self) -> &mut Self {
        let sizes = self.tape.integers(&[0, WIDTH as i64, -1]);
        self.then("Reshape", &[&sizes], vec![]).then("Transpose", &[], vec![attribute_ints("perm", &[0, 2, 1])])
    }

    fn attention(&mut self) -> &mut Self {
        let start = self.at.clone();
        let (scale, bias) = (self.channel(WIDTH, 1.0), self.channel(WIDTH, 0.0));
        let projection = self.weight(&[WIDTH, 3 * WIDTH]);
        self.then("LayerNormalization", &[&scale, &bias], vec![attribute_float("epsilon", 1e-5)]);
        self.then("MatMul", &[&projection], vec![]);
        let parts = ["query", "key", "value"];
        let attributes = vec![attribute_int("axis", -1), attribute_int("num_outputs", 3)];
        self.tape.named("Split", &[&self.at], &parts, attributes);
        let turned = self.tape.op("Transpose", &["key"], vec![attribute_ints("perm", &[0, 2, 1])]);
        let root = self.tape.scalar((WIDTH as f32).sqrt());
        self.at = "query".to_owned();
        self.then("MatMul", &[&turned], vec![]).then("Div", &[&root], vec![]).then("Softmax", &[], vec![]);
        self.then("MatMul", &["value"], vec![]).then("Add", &[&start], vec![])
    }

    fn head(&mut self) -> &mut Self {
        let axis = self.tape.integers(&[1]);
        let (weight, bias) = (self.weight(&[5, WIDTH]), self.channel(5, 0.0));
        self.then("Gelu", &[], vec![]).then("ReduceMean", &[&axis], vec![attribute_int("keepdims", 0)]);
        self.then("Gemm", &[&weight, &bias], vec![attribute_int("transB", 1)]).then("LogSoftmax", &[], vec![])
    }
}

fn network() -> Builder {
    let mut net = Builder { tape: Tape::default(), random: Random::new(11), at: "image".to_owned() };
    net.tape.input("image", DataType::Float, &IMAGE);
    net.conv([WIDTH, 3, 3, 3], 1, 2).normalise(WIDTH).then("HardSwish", &[], vec![]);
    let shortcut = net.at.clone();
    net.conv([2 * WIDTH, WIDTH, 1, 1], 1, 1).normalise(2 * WIDTH).then("Tanh", &[], vec![]);
    net.conv([2 * WIDTH, 1, 3, 3], 2 * WIDTH as i64, 1).normalise(2 * WIDTH).then("Elu", &[], vec![]);
    net.gate(2 * WIDTH).conv([WIDTH, 2 * WIDTH, 1, 1], 1, 1).normalise(WIDTH).then("Add", &[&shortcut], vec![]);
    net.conv([WIDTH, 1, 5, 5], WIDTH as i64, 2).conv([WIDTH, WIDTH / 2, 3, 3], 2, 1);
    let kernel = vec![attribute_ints("kernel_shape", &[2, 2]), attribute_ints("strides", &[1, 1])];
    net.then("AveragePool", &[], kernel).tokens().attention().perceptron().head();
    net
}

impl Builder {
    fn perceptron(&mut self) -> &mut Self {
        let start = self.at.clone();
        let (grow, shrink) = (self.weight(&[WIDTH, 2 * WIDTH]), self.weight(&[2 * WIDTH, WIDTH]));
        let (scale, bias) = (self.channel(WIDTH, 1.0), self.channel(2 * WIDTH, 0.0));
        self.then("LayerNormalization", &[&scale], vec![]).then("MatMul", &[&grow], vec![]);
        self.then("Add", &[&bias], vec![]).then("Gelu", &[], vec![]).then("MatMul", &[&shrink], vec![]);
        self.then("Add", &[&start], vec![])
    }
}

/// Compares, for every weight, the slope along one random direction.
fn check(live: bool) {
    crate::check::start();
    let Builder { mut tape, mut random, at } = network();
    let image = random.uniform(&IMAGE, 1.5);
    tape.probe(vec![("image".to_owned(), feed(&image))]).unwrap();
    let layers = tape.layers();
    assert_eq!(layers.len(), 19);
    let mut floats = HashMap::from([("image".to_owned(), image)]);
    let array = |shape: &[usize], values: &[f32]| {
        Array::from_shape_vec(shape, values.iter().map(|&value| f64::from(value)).collect()).unwrap()
    };
    if live {
        for state in tape.live_normalisation(0, MOMENTUM).unwrap() {
            floats.insert(state.input, array(&state.shape, &state.values));
        }
    }
    let names: Vec<String> = layers.into_iter().flat_map(|layer| layer.weights).map(|(name, _)| name).collect();
    for name in &names {
        let (shape, values) = tape.release(name).unwrap();
        floats.insert(name.clone(), array(&shape, &values));
    }
    let loss = add_loss(&mut tape, &[(at.clone(), vec![IMAGE[0], 5])], &mut random);
    let problem = Problem { tape, floats, integers: HashMap::new(), outputs: vec![at], loss, wanted: names };
    let mut answer = problem.solve().unwrap();
    for (name, gradient) in std::mem::take(&mut answer.gradients) {
        let direction = random.uniform(gradient.shape(), 1.0);
        let (found, expected) = ((&gradient * &direction).sum(), answer.slope(&name, &direction));
        let norm = (&gradient * &gradient).sum().sqrt();
        assert!((found - expected).abs() <= 1e-3 * norm + 1e-6, "{name}: {found}, expected {expected}, norm {norm}");
    }
}

#[test]
fn frozen_statistics() {
    check(false);
}

#[test]
fn live_statistics() {
    check(true);
}
