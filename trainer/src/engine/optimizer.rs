//! Optimisers as nodes: compute the next weights and moments from gradients.

use std::collections::HashMap;

use sketch_model::inference::onnx::messages::DataType;

use super::session::{Feed, State};
use super::{EngineError, Tape};

/// Input: the learning rate of a step.
const RATE: &str = "learning_rate";
/// Input: decay of the moving average of weights.
const AVERAGE: &str = "average_decay";
/// Inputs: the bias corrections `1/(1 - β₁ᵗ)` and `1/(1 - β₂ᵗ)`.
const CORRECTIONS: [&str; 2] = ["first_correction", "second_correction"];

/// Adam.
///
/// Source: Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 1; decoupled decay: Loshchilov,
/// Hutter, "Decoupled Weight Decay Regularization", 2019, algorithm 2.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adam {
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
    /// Decay of weights towards zero.
    pub weight_decay: f32,
    /// Whether decay applies to the weight itself (AdamW) instead of its gradient.
    pub decoupled: bool,
    /// Largest global gradient norm; larger gradients are scaled down. 0 for no limit.
    pub clip_norm: f32,
}

impl Default for Adam {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, decoupled: true, clip_norm: 0.0 }
    }
}

/// A weight that trains.
#[derive(Clone, Debug)]
pub struct Trained {
    pub name: String,
    /// Multiplier of the learning rate.
    pub rate: f32,
    /// Whether weight decay applies.
    pub decays: bool,
}

/// Flattens a tensor: ONNX Runtime takes 50 times as long to multiply a kernel of shape `(1152, 192, 1, 1)` by a scalar as the
/// same numbers in one row (1.3 ms and 0.03 ms), because it steps through the last axes one value at a time.
fn flat(tape: &mut Tape, tensor: &str, shape: &[usize]) -> String {
    if shape.len() == 1 {
        return tensor.to_owned();
    }
    let all = tape.integers(&[-1]);
    tape.op("Reshape", &[tensor, &all], vec![])
}

/// Undoes [`flat`].
fn shaped(tape: &mut Tape, tensor: &str, shape: &[usize]) -> String {
    let sizes: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
    let sizes = tape.integers(&sizes);
    tape.op("Reshape", &[tensor, &sizes], vec![])
}

impl Adam {
    /// Adds the nodes of one step to `tape` and returns weights and moments as state.
    ///
    /// `gradients`: as [`super::gradients`] returns them; weights without one do not change. `values`: the values of the
    /// weights, which have been released ([`Tape::release`]).
    ///
    /// # Errors
    /// [`EngineError::MissingTensor`] if a weight is not an input of the graph.
    pub fn add_to(
        &self,
        tape: &mut Tape,
        weights: &[Trained],
        gradients: &HashMap<String, String>,
        mut values: HashMap<String, Vec<f32>>,
    ) -> Result<Vec<State>, EngineError> {
        for name in CORRECTIONS.into_iter().chain([RATE]) {
            tape.input(name, DataType::Float, &[]);
        }
        let factor = self.clip_factor(tape, weights, gradients);
        let mut state = Vec::new();
        for weight in weights {
            let Some(gradient) = gradients.get(&weight.name) else { continue };
            let shape = tape.shape(&weight.name)?;
            let gradient = flat(tape, gradient, &shape);
            let gradient = match &factor {
                Some(factor) => tape.op("Mul", &[&gradient, factor], vec![]),
                None => gradient,
            };
            let values = values.remove(&weight.name).unwrap_or_default();
            state.extend(self.update(tape, weight, &gradient, shape, values));
        }
        Ok(state)
    }

    /// Feeds of step `step`, from 1, besides the batch: learning rate and bias corrections.
    pub fn feeds(&self, rate: f32, step: u64) -> Vec<(String, Feed)> {
        let correction = |beta: f32| (1.0 / (1.0 - f64::from(beta).powf(step as f64))) as f32;
        let [first, second] = CORRECTIONS.map(str::to_owned);
        vec![
            (RATE.to_owned(), Feed::number(rate)),
            (first, Feed::number(correction(self.beta1))),
            (second, Feed::number(correction(self.beta2))),
        ]
    }

    /// `min(1, bound / norm)` over all gradients.
    fn clip_factor(&self, tape: &mut Tape, weights: &[Trained], gradients: &HashMap<String, String>) -> Option<String> {
        if self.clip_norm <= 0.0 {
            return None;
        }
        let squares: Vec<String> = weights
            .iter()
            .filter_map(|weight| gradients.get(&weight.name))
            .map(|gradient| {
                let square = tape.op("Mul", &[gradient, gradient], vec![]);
                let keep = sketch_model::inference::onnx::build::attribute_int("keepdims", 0);
                tape.op("ReduceSum", &[&square], vec![keep])
            })
            .collect();
        let squares: Vec<&str> = squares.iter().map(String::as_str).collect();
        let (tiny, bound, one) = (tape.scalar(1e-12), tape.scalar(self.clip_norm), tape.scalar(1.0));
        let sum = tape.op("Sum", &squares, vec![]);
        let sum = tape.op("Add", &[&sum, &tiny], vec![]);
        let norm = tape.op("Sqrt", &[&sum], vec![]);
        let ratio = tape.op("Div", &[&bound, &norm], vec![]);
        Some(tape.op("Min", &[&ratio, &one], vec![]))
    }

    fn update(
        &self,
        tape: &mut Tape,
        weight: &Trained,
        gradient: &str,
        shape: Vec<usize>,
        values: Vec<f32>,
    ) -> [State; 3] {
        let (name, count) = (&weight.name, shape.iter().product());
        let flat_weight = flat(tape, name, &shape);
        let decay = if weight.decays { self.weight_decay } else { 0.0 };
        let gradient = if decay > 0.0 && !self.decoupled {
            let factor = tape.scalar(decay);
            let pull = tape.op("Mul", &[&flat_weight, &factor], vec![]);
            tape.op("Add", &[gradient, &pull], vec![])
        } else {
            gradient.to_owned()
        };
        let square = tape.op("Mul", &[&gradient, &gradient], vec![]);
        let first = self.moment(tape, name, "first", &gradient, self.beta1, count);
        let second = self.moment(tape, name, "second", &square, self.beta2, count);
        let output = self.step(tape, &flat_weight, [&first.output, &second.output], weight.rate, decay);
        let output = shaped(tape, &output, &shape);
        [State { input: name.clone(), output, shape, values }, first, second]
    }

    /// `m' = β m + (1 - β) x`.
    fn moment(&self, tape: &mut Tape, weight: &str, kind: &str, x: &str, beta: f32, count: usize) -> State {
        let input = tape.input(&format!("{weight}~{kind}_moment"), DataType::Float, &[count]);
        let (keep, take) = (tape.scalar(beta), tape.scalar(1.0 - beta));
        let kept = tape.op("Mul", &[&input, &keep], vec![]);
        let taken = tape.op("Mul", &[x, &take], vec![]);
        let output = tape.op("Add", &[&kept, &taken], vec![]);
        State { input, output, values: vec![0.0; count], shape: vec![count] }
    }

    /// `w' = w - rate (m̂ / (√v̂ + ε) + decay w)`.
    fn step(&self, tape: &mut Tape, weight: &str, moments: [&str; 2], rate: f32, decay: f32) -> String {
        let epsilon = tape.scalar(self.epsilon);
        let mean = tape.op("Mul", &[moments[0], CORRECTIONS[0]], vec![]);
        let square = tape.op("Mul", &[moments[1], CORRECTIONS[1]], vec![]);
        let root = tape.op("Sqrt", &[&square], vec![]);
        let root = tape.op("Add", &[&root, &epsilon], vec![]);
        let mut change = tape.op("Div", &[&mean, &root], vec![]);
        if decay > 0.0 && self.decoupled {
            let factor = tape.scalar(decay);
            let pull = tape.op("Mul", &[weight, &factor], vec![]);
            change = tape.op("Add", &[&change, &pull], vec![]);
        }
        let factor = tape.scalar(rate);
        let rate = tape.op("Mul", &[RATE, &factor], vec![]);
        let change = tape.op("Mul", &[&change, &rate], vec![]);
        tape.op("Sub", &[weight, &change], vec![])
    }
}

/// Name of the moving average of a weight in the state.
pub fn average_of(weight: &str) -> String {
    format!("{weight}~average")
}

/// Adds a moving average of every weight in `stepped` that is one of `weights`: `a' = decay a + (1 - decay) w'`.
///
/// Returns the averages as state; they start at the weights. [`average_feed`] is their input.
///
/// Source: Polyak, Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; exponential as in Tarvainen,
/// Valpola, "Mean teachers are better role models", 2017.
pub fn add_average(tape: &mut Tape, stepped: &[State], weights: &[String]) -> Vec<State> {
    tape.input(AVERAGE, DataType::Float, &[]);
    let one = tape.scalar(1.0);
    let take = tape.op("Sub", &[&one, AVERAGE], vec![]);
    let mut averages = Vec::new();
    for State { input, output, shape, values } in stepped.iter().filter(|state| weights.contains(&state.input)) {
        let name = tape.input(&average_of(input), DataType::Float, shape);
        let [average, next] = [&name, output].map(|tensor| flat(tape, tensor, shape));
        let kept = tape.op("Mul", &[&average, AVERAGE], vec![]);
        let taken = tape.op("Mul", &[&next, &take], vec![]);
        let output = tape.op("Add", &[&kept, &taken], vec![]);
        let output = shaped(tape, &output, shape);
        averages.push(State { input: name, output, shape: shape.clone(), values: values.clone() });
    }
    averages
}

/// The feed of a step with averages, besides the batch.
pub fn average_feed(decay: f32) -> (String, Feed) {
    (AVERAGE.to_owned(), Feed::number(decay))
}
