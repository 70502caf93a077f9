//! Normalisations.

use sketch_model::inference::onnx::build::attribute_float;

use super::{Gradients, Scope};
use crate::engine::EngineError;

/// Per-channel tensors of a BatchNormalization: shape `(c,)` each.
struct Channels {
    mean: String,
    /// `1/√(variance + ε)`.
    inverse: String,
    /// `Σ G`.
    sum: String,
    /// `Σ G (X - mean) inverse`.
    correlation: String,
}

/// `Y = (X - mean) inverse scale + bias`.
///
/// Frozen, mean and variance are constants and `∂X = G inverse scale`. Live (`training_mode`), they are the batch's own,
/// and `∂X = inverse scale (G - Σ G / N - X̂ Σ G X̂ / N)`, `X̂` the normalised input.
///
/// Source: Ioffe, Szegedy, "Batch Normalization", 2015, section 3.
pub(super) fn batch(scope: &mut Scope) -> Gradients {
    let live = scope.int("training_mode", 0) == 1;
    let shape = scope.shape_of_input(0)?;
    let channels = channels(scope, live, &shape)?;
    let mut inputs = vec![None; scope.node.input.len()];
    if scope.wants(0) {
        let factor = scope.input(1)?;
        let factor = scope.op("Mul", &[&factor, &channels.inverse]);
        inputs[0] = Some(if live {
            live_gradient(scope, &channels, &factor, &shape)?
        } else {
            frozen(scope, &factor, &shape)?
        });
    }
    if scope.wants(1) {
        inputs[1] = Some(channels.correlation);
    }
    if scope.wants(2) {
        inputs[2] = Some(channels.sum);
    }
    Ok(inputs)
}

fn channels(scope: &mut Scope, live: bool, shape: &[usize]) -> Result<Channels, EngineError> {
    let (gradient, image) = (scope.gradient()?, scope.input(0)?);
    let side_output = |i: usize| scope.node.output.get(i).cloned().ok_or_else(|| scope.refuse("it is not live yet"));
    let (mean, variance) = if live { (side_output(1)?, side_output(2)?) } else { (scope.input(3)?, scope.input(4)?) };
    let epsilon = scope.tape.scalar(scope.float("epsilon", 1e-5));
    let raised = scope.op("Add", &[&variance, &epsilon]);
    let deviation = scope.op("Sqrt", &[&raised]);
    let inverse = scope.op("Reciprocal", &[&deviation]);
    let sum = scope.channel_sums(&gradient, shape);
    let product = scope.op("Mul", &[&gradient, &image]);
    let product = scope.channel_sums(&product, shape);
    let shift = scope.op("Mul", &[&mean, &sum]);
    let centred = scope.op("Sub", &[&product, &shift]);
    let correlation = scope.op("Mul", &[&centred, &inverse]);
    Ok(Channels { mean, inverse, sum, correlation })
}

/// A tensor of shape `(c,)` as one that multiplies images.
fn per_channel(scope: &mut Scope, tensor: &str, shape: &[usize]) -> String {
    let mut sizes = vec![1; shape.len() - 1];
    sizes[0] = shape[1];
    scope.reshaped(tensor, &sizes)
}

fn frozen(scope: &mut Scope, factor: &str, shape: &[usize]) -> Result<String, EngineError> {
    let gradient = scope.gradient()?;
    let factor = per_channel(scope, factor, shape);
    Ok(scope.op("Mul", &[&gradient, &factor]))
}

/// As `a G + b X + k` with three numbers per channel: fewer passes over the images than the formula itself.
fn live_gradient(scope: &mut Scope, channels: &Channels, factor: &str, shape: &[usize]) -> Result<String, EngineError> {
    let (gradient, image) = (scope.gradient()?, scope.input(0)?);
    let count = shape.iter().product::<usize>() / shape[1];
    let share = scope.scaled(factor, -1.0 / count as f32);
    let slope = scope.op("Mul", &[&share, &channels.correlation]);
    let slope = scope.op("Mul", &[&slope, &channels.inverse]);
    let lift = scope.op("Mul", &[&share, &channels.sum]);
    let drop = scope.op("Mul", &[&slope, &channels.mean]);
    let lift = scope.op("Sub", &[&lift, &drop]);
    let factor = per_channel(scope, factor, shape);
    let scaled = scope.op("Mul", &[&gradient, &factor]);
    // BatchNormalization with mean 0 and variance 1 computes `b X + k` in one pass: 0.5 ms, `Mul` and `Add` take 1.2 ms.
    let zeros = scope.tape.constant("zeros", &shape[1..2], &vec![0.0; shape[1]])?;
    let ones = scope.tape.constant("ones", &shape[1..2], &vec![1.0; shape[1]])?;
    let inputs = [&*image, &slope, &lift, &zeros, &ones];
    let tilted = scope.tape.op("BatchNormalization", &inputs, vec![attribute_float("epsilon", 0.0)]);
    Ok(scope.op("Add", &[&scaled, &tilted]))
}

/// `Y = (X - mean)/deviation scale + bias`, mean and deviation over the axes from `axis` on.
///
/// Source: Ba, Kiros, Hinton, "Layer Normalization", 2016.
pub(super) fn layer(scope: &mut Scope) -> Gradients {
    let shape = scope.shape_of_input(0)?;
    let first = scope.axis(scope.int("axis", -1), shape.len())?;
    let scale = scope.input(1)?;
    let affine = scope.shape_of_input(1)?;
    within(scope, (first..shape.len()).collect(), &scale, &affine)
}

/// The same over the pixels of each channel of each image.
///
/// Source: Ulyanov, Vedaldi, Lempitsky, "Instance Normalization", 2016.
pub(super) fn instance(scope: &mut Scope) -> Gradients {
    let shape = scope.shape_of_input(0)?;
    let scale = scope.input(1)?;
    let scale = per_channel(scope, &scale, &shape);
    let mut affine = vec![1; shape.len() - 1];
    affine[0] = shape[1];
    let mut inputs = within(scope, (2..shape.len()).collect(), &scale, &affine)?;
    for gradient in inputs.iter_mut().skip(1).flatten() {
        *gradient = scope.reshaped(gradient, &[shape[1]]);
    }
    Ok(inputs)
}

/// Gradients of a normalisation over `axes`. `scale`, of shape `affine`, multiplies the normalised input.
fn within(scope: &mut Scope, axes: Vec<usize>, scale: &str, affine: &[usize]) -> Gradients {
    let (gradient, shape) = (scope.gradient()?, scope.shape_of_input(0)?);
    let (normalised, inverse) = normalised(scope, &axes)?;
    let mut inputs = vec![None; scope.node.input.len()];
    if scope.wants(0) {
        let weighted = scope.op("Mul", &[&gradient, scale]);
        let product = scope.op("Mul", &[&weighted, &normalised]);
        let [mean, correlation] = [&weighted, &product].map(|tensor| mean(scope, tensor, &axes));
        let along = scope.op("Mul", &[&normalised, &correlation]);
        let rest = scope.op("Sub", &[&weighted, &mean]);
        let rest = scope.op("Sub", &[&rest, &along]);
        inputs[0] = Some(scope.op("Mul", &[&rest, &inverse]));
    }
    if scope.wants(1) {
        let product = scope.op("Mul", &[&gradient, &normalised]);
        inputs[1] = Some(scope.unbroadcast(&product, &shape, affine));
    }
    if scope.wants(2) {
        inputs[2] = Some(scope.unbroadcast(&gradient, &shape, affine));
    }
    Ok(inputs)
}

/// The input minus its mean over its deviation, and one over the deviation.
fn normalised(scope: &mut Scope, axes: &[usize]) -> Result<(String, String), EngineError> {
    let input = scope.input(0)?;
    let epsilon = scope.tape.scalar(scope.float("epsilon", 1e-5));
    let centre = mean(scope, &input, axes);
    let centred = scope.op("Sub", &[&input, &centre]);
    let square = scope.op("Mul", &[&centred, &centred]);
    let variance = mean(scope, &square, axes);
    let raised = scope.op("Add", &[&variance, &epsilon]);
    let deviation = scope.op("Sqrt", &[&raised]);
    let inverse = scope.op("Reciprocal", &[&deviation]);
    Ok((scope.op("Mul", &[&centred, &inverse]), inverse))
}

fn mean(scope: &mut Scope, tensor: &str, axes: &[usize]) -> String {
    let axes: Vec<i64> = axes.iter().map(|&axis| axis as i64).collect();
    let axes = scope.tape.integers(&axes);
    scope.op("ReduceMean", &[tensor, &axes])
}
