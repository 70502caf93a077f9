//! The training graph: tail, losses, gradient, optimiser, average of weights.

use std::collections::{HashMap, HashSet};

use ndarray::ArrayView2;
use sketch_model::inference::onnx::build::attribute_int;
use sketch_model::inference::onnx::messages::{DataType, ModelProto};
use sketch_model::manifest::Manifest;

use super::config::{Config, DistillHead, HeadConfig};
use super::cut::{Cut, DOMAIN, EMBEDDING, FEATURES, LOGITS, ancestors};
use super::{TrainError, loss};
use crate::augment::Rng;
use crate::engine::optimizer::{Trained, add_average};
use crate::engine::session::State;
use crate::engine::{Feed, Tape, gradients, normalisation};

/// Weight of the linear layer that a fresh head is.
pub const HEAD: &str = "head.weight";
/// Added to a squared length before dividing by its root.
const TINY: f32 = 1e-24;

/// What a plan is made from.
pub struct PlanInputs<'a> {
    pub model: &'a ModelProto,
    pub manifest: &'a Manifest,
    pub config: &'a Config,
    /// Shape of the tensor at the cut, for one image.
    pub map: &'a [usize],
    pub classes: usize,
    /// Shape `(n, d)`.
    pub bank: ArrayView2<'a, f32>,
}

/// A training graph, ready to load.
pub struct Plan {
    pub tape: Tape,
    pub cut: Cut,
    /// Weights, moments, averages and running statistics.
    pub state: Vec<State>,
    /// Names of the weights that train.
    pub weights: Vec<String>,
    /// The sum of all losses, then each loss, with the names that reports use.
    pub losses: Vec<(&'static str, String)>,
    pub batch: usize,
}

impl Plan {
    /// Builds the graph of a training.
    ///
    /// # Errors
    /// [`TrainError::Layer`] and [`TrainError::Crossing`] if the network cannot be cut there, [`TrainError::Tensor`] if it
    /// lacks an output that a loss needs, [`TrainError::Engine`] if it cannot be differentiated. A network that cannot be
    /// trained fails here, before the first step.
    pub fn new(given: &PlanInputs) -> Result<Self, TrainError> {
        let config = given.config;
        let batch = config.batch.sketches + config.batch.pseudo_sketches + config.batch.photos;
        let mut model = given.model.clone();
        if let Some(graph) = model.graph.as_mut() {
            normalisation::freeze(&mut graph.node);
        }
        let mut tape = Tape::read(&model)?;
        let cut = Cut::before(&tape, &config.network.train_from)?;
        tape.cut(cut.first);
        let map: Vec<usize> = [batch].iter().chain(given.map).copied().collect();
        tape.input(&cut.tensor, DataType::Float, &map);
        tape.input(DOMAIN, DataType::Int64, &[batch]);
        require(&tape, FEATURES)?;
        tape.probe(zeros(&tape, &cut, &map, batch))?;

        let mut draft = Draft { given, tape, batch, fresh: Vec::new() };
        let channels = draft.head()?;
        let losses = draft.losses(&channels)?;
        let Draft { mut tape, fresh, .. } = draft;
        let terms: Vec<&str> = losses.iter().map(|(_, name)| name.as_str()).collect();
        let total = tape.op("Sum", &terms, vec![]);
        tape.probe(zeros(&tape, &cut, &map, batch))?;

        let mut state = Vec::new();
        if config.network.live_normalisation {
            state = tape.live_normalisation(0, normalisation::MOMENTUM)?;
        }
        let trained = trained(&tape, config.network.head, &fresh);
        let mut values = HashMap::new();
        for weight in &trained {
            values.insert(weight.name.clone(), tape.release(&weight.name)?.1);
        }
        let weights: Vec<String> = trained.iter().map(|weight| weight.name.clone()).collect();
        let gradients = gradients(&mut tape, &total, &weights)?;
        let stepped = config.optimizer.add_to(&mut tape, &trained, &gradients, values)?;
        let weights: Vec<String> = weights.into_iter().filter(|name| gradients.contains_key(name)).collect();
        if config.schedule.average > 0.0 {
            state.extend(add_average(&mut tape, &stepped, &weights));
        }
        state.extend(stepped);
        let losses = [("loss", total)].into_iter().chain(losses).collect();
        Ok(Self { tape, cut, state, weights, losses, batch })
    }
}

fn require(tape: &Tape, tensor: &'static str) -> Result<(), TrainError> {
    if tape.has(tensor) { Ok(()) } else { Err(TrainError::Tensor { tensor }) }
}

/// Values of the right shape for all inputs of the graph.
fn zeros(tape: &Tape, cut: &Cut, map: &[usize], batch: usize) -> Vec<(String, Feed)> {
    let floats = |shape: Vec<usize>| Feed::Floats(shape.clone(), vec![0.0; shape.iter().product()]);
    let mut feeds = vec![(DOMAIN.to_owned(), Feed::Integers(vec![batch], vec![0; batch]))];
    feeds.push((cut.tensor.clone(), Feed::Floats(map.to_vec(), vec![0.1; map.iter().product()])));
    for name in [
        loss::LABELS,
        loss::CLASSIFY_ROWS,
        loss::TEACHER,
        loss::DISTILL_ROWS,
        loss::NOISE,
        loss::ALIGN_ROWS,
        loss::POSITIVES,
        loss::CANDIDATES,
        loss::CONTRAST_ROWS,
    ] {
        if let Ok(shape) = tape.shape(name) {
            feeds.push((name.to_owned(), floats(shape)));
        }
    }
    feeds
}

/// The graph while losses are added.
struct Draft<'a, 'b> {
    given: &'a PlanInputs<'b>,
    tape: Tape,
    batch: usize,
    /// Weights that the starting network does not have.
    fresh: Vec<String>,
}

impl Draft<'_, '_> {
    /// Returns the tensor that classifiers take: the embedding, or a fresh head's output before it is normalised.
    fn head(&mut self) -> Result<String, TrainError> {
        if self.given.config.network.head == HeadConfig::Keep {
            require(&self.tape, EMBEDDING)?;
            return Ok(EMBEDDING.to_owned());
        }
        let (features, dimension) = (self.width(FEATURES)?, self.given.manifest.dimension);
        let weight = self.fresh_weight(HEAD, [features, dimension], 1)?;
        let channels = add_head(&mut self.tape, &weight);
        Ok(channels)
    }

    fn width(&self, tensor: &str) -> Result<usize, TrainError> {
        Ok(self.tape.shape(tensor)?.last().copied().unwrap_or_default())
    }

    /// A randomly initialised weight, scaled by fan-in and determined by the seed.
    fn fresh_weight(&mut self, name: &str, shape: [usize; 2], part: u64) -> Result<String, TrainError> {
        let mut rng = Rng::new(&[self.given.config.seed, part, 0x6865_6164]);
        let scale = (1.0 / shape[0] as f32).sqrt();
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| scale * rng.normal()).collect();
        self.tape.named_constant(name, &shape, &values)?;
        self.fresh.push(name.to_owned());
        Ok(name.to_owned())
    }

    fn losses(&mut self, channels: &str) -> Result<Vec<(&'static str, String)>, TrainError> {
        let (config, batch) = (self.given.config.loss, self.batch);
        let mut losses = Vec::new();
        if config.classify > 0.0 {
            let shape = [self.given.manifest.dimension, self.given.classes];
            let weight = self.fresh_weight("classes.weight", shape, 2)?;
            let logits = self.tape.op("MatMul", &[channels, &weight], vec![]);
            let inputs = [loss::LABELS, loss::CLASSIFY_ROWS];
            losses.push(("classify", loss::cross_entropy(&mut self.tape, &logits, inputs, [batch, shape[1]])));
        }
        if config.distill > 0.0 || config.distill_pseudo > 0.0 {
            require(&self.tape, LOGITS)?;
            let teacher = self.width(LOGITS)?;
            let logits = match config.distill_head {
                DistillHead::Teacher => LOGITS.to_owned(),
                DistillHead::Fresh => {
                    let weight = self.fresh_weight("teacher.weight", [self.given.manifest.dimension, teacher], 3)?;
                    self.tape.op("MatMul", &[channels, &weight], vec![])
                }
            };
            let inputs = [loss::TEACHER, loss::DISTILL_ROWS];
            losses.push(("distill", loss::cross_entropy(&mut self.tape, &logits, inputs, [batch, teacher])));
        }
        if config.align > 0.0 {
            let shape = [batch, self.given.manifest.dimension];
            losses.push(("align", loss::alignment(&mut self.tape, channels, shape)));
        }
        if config.contrast > 0.0 || config.contrast_pseudo > 0.0 {
            let (tape, bank) = (&mut self.tape, self.given.bank);
            losses.push(("contrast", loss::contrast(tape, EMBEDDING, bank, batch, config.temperature)?));
        }
        if losses.is_empty() { Err(TrainError::Range { key: "loss" }) } else { Ok(losses) }
    }
}

/// The weights that train: all layers up to the features, fresh layers, and the domain means of a kept head.
fn trained(tape: &Tape, head: HeadConfig, fresh: &[String]) -> Vec<Trained> {
    let below: HashSet<String> = ancestors(tape.nodes(), FEATURES);
    let mut trained = Vec::new();
    for layer in tape.layers() {
        for (name, shape) in layer.weights {
            let is_mean = head == HeadConfig::Keep && layer.operator == "Gather";
            if below.contains(&name) || is_mean || fresh.contains(&name) {
                trained.push(Trained { name, rate: 1.0, decays: shape.len() > 1 && !is_mean });
            }
        }
    }
    trained
}

/// Replaces the head by a linear layer and returns its output before it is normalised.
pub(super) fn add_head(tape: &mut Tape, weight: &str) -> String {
    let mut wanted = ancestors(tape.nodes(), FEATURES);
    if tape.has(LOGITS) {
        wanted.extend(ancestors(tape.nodes(), LOGITS));
    }
    tape.retain(|node| node.output.iter().any(|output| wanted.contains(output)));
    let channels = tape.op("MatMul", &[FEATURES, weight], vec![]);
    let square = tape.op("Mul", &[&channels, &channels], vec![]);
    let axes = tape.integers(&[1]);
    let energy = tape.op("ReduceSum", &[&square, &axes], vec![attribute_int("keepdims", 1)]);
    let tiny = tape.scalar(TINY);
    let energy = tape.op("Add", &[&energy, &tiny], vec![]);
    let length = tape.op("Sqrt", &[&energy], vec![]);
    tape.named("Div", &[&channels, &length], &[EMBEDDING], vec![]);
    channels
}
