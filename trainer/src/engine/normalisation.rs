//! BatchNormalization in training: frozen on its running statistics, or live on those of each batch.

use sketch_model::inference::onnx::build::{attribute_float, attribute_int, node};
use sketch_model::inference::onnx::messages::NodeProto;

use super::session::State;
use super::{EngineError, Tape};

/// Weight of a batch's statistics in the running ones; PyTorch's default.
pub const MOMENTUM: f32 = 0.1;

/// Whether a node is a BatchNormalization in training mode, as some exporters leave it.
fn is_left_live(node: &NodeProto) -> bool {
    let mode = node.attribute.iter().find(|attribute| attribute.name() == "training_mode");
    node.op_type() == "BatchNormalization" && (node.output.len() > 1 || mode.and_then(|mode| mode.i) == Some(1))
}

/// Switches nodes that were exported in training mode to their running statistics.
///
/// When serving, such a network would use the statistics of each request's batch. Returns the number of changed nodes.
pub fn freeze(nodes: &mut [NodeProto]) -> usize {
    let mut changed = 0;
    for node in nodes.iter_mut().filter(|node| is_left_live(node)) {
        node.output.truncate(1);
        node.attribute.retain(|attribute| attribute.name() != "training_mode");
        changed += 1;
    }
    changed
}

impl Tape {
    /// Switches all BatchNormalizations from node `first` on to the statistics of the batch, and adds the update of the
    /// running ones: `running' = (1 - momentum) running + momentum batch`, with the unbiased variance.
    ///
    /// Returns the running statistics as state: a session carries them from step to step, [`super::write_back`] stores them in
    /// the network.
    ///
    /// # Errors
    /// [`EngineError::MissingTensor`] if a statistic is not a constant of the network.
    pub fn live_normalisation(&mut self, first: usize, momentum: f32) -> Result<Vec<State>, EngineError> {
        let mut state = Vec::new();
        let positions: Vec<usize> = (first..self.nodes.len())
            .filter(|&i| self.nodes[i].op_type() == "BatchNormalization" && self.nodes[i].input.len() == 5)
            .collect();
        // From last to first, because nodes are inserted before each.
        for position in positions.into_iter().rev() {
            let (input, running) = {
                let node = &self.nodes[position];
                (node.input[0].clone(), [node.input[3].clone(), node.input[4].clone()])
            };
            let batch = self.batch_statistics(position, &running);
            let shape = self.shape(&input)?;
            let count = shape.iter().product::<usize>() / shape.get(1).copied().unwrap_or(1).max(1);
            // The batch's variance divides by n; the running one is an unbiased estimate, which divides by n - 1.
            let unbiased = count as f32 / (count.max(2) - 1) as f32;
            for (running, (batch, factor)) in running.into_iter().zip(batch.into_iter().zip([1.0, unbiased])) {
                state.push(self.moving_average(running, &batch, momentum, factor)?);
            }
        }
        Ok(state)
    }

    /// With `momentum` 0, the second and third output of the operator are the batch's mean and variance.
    ///
    /// ONNX Runtime overwrites the running statistics in place even if other nodes read them, so it gets scratch copies.
    fn batch_statistics(&mut self, position: usize, running: &[String; 2]) -> [String; 2] {
        let names = [self.fresh("batch_mean"), self.fresh("batch_variance")];
        let zero = self.scalar(0.0);
        let scratch = [self.fresh("scratch"), self.fresh("scratch")];
        let empty = [0, 1].map(|i| node("Mul", &[&running[i], &zero], &[&scratch[i]], vec![]));
        self.nodes.splice(position..position, empty);
        let node = &mut self.nodes[position + 2];
        node.input.truncate(3);
        node.input.extend(scratch);
        node.attribute.retain(|attribute| !matches!(attribute.name(), "training_mode" | "momentum"));
        node.attribute.extend([attribute_int("training_mode", 1), attribute_float("momentum", 0.0)]);
        node.output.truncate(1);
        node.output.extend(names.clone());
        names
    }

    fn moving_average(
        &mut self,
        running: String,
        batch: &str,
        momentum: f32,
        factor: f32,
    ) -> Result<State, EngineError> {
        let (shape, values) = self.release(&running)?;
        let (keep, take) = (self.scalar(1.0 - momentum), self.scalar(momentum * factor));
        let kept = self.op("Mul", &[&running, &keep], vec![]);
        let taken = self.op("Mul", &[batch, &take], vec![]);
        let output = self.op("Add", &[&kept, &taken], vec![]);
        Ok(State { input: running, output, shape, values })
    }
}
