//! Reverse-mode differentiation: adds the nodes that compute the gradient of a loss.

use std::collections::{BTreeSet, HashMap, HashSet};

use sketch_model::inference::onnx::messages::NodeProto;

use super::rules::{Scope, rule};
use super::{EngineError, Tape};

/// Adds the nodes of the gradient of `loss` with respect to `weights`.
///
/// `loss`: a scalar. All tensors up to it must have been probed ([`Tape::probe`]). Returns the gradient tensor of each weight,
/// of the same shape; weights that `loss` does not depend on have none.
///
/// # Errors
/// [`EngineError::Unsupported`] with all operators on the path that have no rule, [`EngineError::Node`] for a form of an
/// operator that its rule does not support, [`EngineError::Independent`] if `loss` depends on no weight.
pub fn gradients(tape: &mut Tape, loss: &str, weights: &[String]) -> Result<HashMap<String, String>, EngineError> {
    let path = Path::new(tape, loss, weights)?;
    let one = tape.scalar(1.0);
    let mut gradients = HashMap::from([(loss.to_owned(), one)]);
    for node in path.nodes.iter().rev() {
        let outputs: Vec<Option<String>> = node.output.iter().map(|name| gradients.get(name).cloned()).collect();
        if outputs.iter().all(Option::is_none) {
            continue;
        }
        let wanted: Vec<bool> = node.input.iter().map(|name| path.live.contains(name)).collect();
        let Some(rule) = rule(node.op_type()) else { continue };
        let inputs = rule(&mut Scope { tape, node, gradients: &outputs, wanted: &wanted })?;
        for ((name, gradient), wanted) in node.input.iter().zip(inputs).zip(wanted) {
            if let Some(gradient) = gradient.filter(|_| wanted) {
                accumulate(tape, &mut gradients, name, gradient);
            }
        }
    }
    gradients.retain(|name, _| weights.contains(name));
    Ok(gradients)
}

/// The gradient of a tensor that several nodes use is the sum of their contributions.
fn accumulate(tape: &mut Tape, gradients: &mut HashMap<String, String>, name: &str, gradient: String) {
    let sum = match gradients.get(name) {
        Some(earlier) => tape.op("Add", &[earlier, &gradient], vec![]),
        None => gradient,
    };
    gradients.insert(name.to_owned(), sum);
}

/// The nodes between weights and loss.
struct Path {
    nodes: Vec<NodeProto>,
    /// Tensors that depend on a weight.
    live: HashSet<String>,
}

impl Path {
    fn new(tape: &Tape, loss: &str, weights: &[String]) -> Result<Self, EngineError> {
        let mut live: HashSet<String> = weights.iter().cloned().collect();
        let mut nodes = Vec::new();
        for node in &tape.nodes {
            if node.input.iter().any(|input| live.contains(input)) {
                live.extend(node.output.iter().filter(|output| tape.is_real(output)).cloned());
                nodes.push(node.clone());
            }
        }
        let mut needed = HashSet::from([loss.to_owned()]);
        let mut kept = Vec::new();
        for node in nodes.into_iter().rev() {
            if node.output.iter().any(|output| needed.contains(output) && live.contains(output)) {
                needed.extend(node.input.iter().filter(|input| live.contains(*input)).cloned());
                kept.push(node);
            }
        }
        kept.reverse();
        let path = Self { nodes: kept, live };
        path.check(loss)?;
        path.check_precision(tape)?;
        Ok(path)
    }

    fn check_precision(&self, tape: &Tape) -> Result<(), EngineError> {
        let other = |output: &String| self.live.contains(output) && !tape.is_float(output);
        match self.nodes.iter().find(|node| node.output.iter().any(other)) {
            None => Ok(()),
            Some(node) => Err(EngineError::Node {
                node: node.name().to_owned(),
                operator: node.op_type().to_owned(),
                reason: "it computes in half or double precision".to_owned(),
            }),
        }
    }

    fn check(&self, loss: &str) -> Result<(), EngineError> {
        if self.nodes.is_empty() {
            return Err(EngineError::Independent { name: loss.to_owned() });
        }
        let without_rule = self.nodes.iter().map(|node| node.op_type()).filter(|operator| rule(operator).is_none());
        let operators: BTreeSet<String> = without_rule.map(str::to_owned).collect();
        if operators.is_empty() {
            Ok(())
        } else {
            Err(EngineError::Unsupported { operators: operators.into_iter().collect() })
        }
    }
}
