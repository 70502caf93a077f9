//! Losses as nodes of the graph. Each is a sum over the images of a batch, weighted by its own input: images that a loss does
//! not apply to have weight 0.

use sketch_model::inference::onnx::build::attribute_int;
use sketch_model::inference::onnx::messages::DataType;

use super::TrainError;
use crate::engine::Tape;

/// Added to sums that may be empty before their logarithm.
const TINY: f32 = 1e-30;

/// Names of the inputs besides the images.
pub const LABELS: &str = "labels";
pub const CLASSIFY_ROWS: &str = "classify_rows";
pub const TEACHER: &str = "teacher";
pub const DISTILL_ROWS: &str = "distill_rows";
pub const NOISE: &str = "noise";
pub const ALIGN_ROWS: &str = "align_rows";
pub const POSITIVES: &str = "positives";
pub const CANDIDATES: &str = "candidates";
pub const CONTRAST_ROWS: &str = "contrast_rows";

/// CE and KD: `-Σ w Σ p ln softmax(logits)`, for targets `p` that are one class (CE) or the teacher's probabilities (KD).
///
/// `logits`: shape `(n, k)`. Adds the inputs `targets`, shape `(n, k)`, and `rows`, shape `(n,)`. Returns a number.
///
/// Source: CN117131214B, S3; Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.
pub fn cross_entropy(tape: &mut Tape, logits: &str, [targets, rows]: [&str; 2], shape: [usize; 2]) -> String {
    tape.input(targets, DataType::Float, &shape);
    let logarithms = tape.op("LogSoftmax", &[logits], vec![attribute_int("axis", 1)]);
    let products = tape.op("Mul", &[&logarithms, targets], vec![]);
    let sums = sum(tape, &products, Some(1));
    let losses = tape.op("Neg", &[&sums], vec![]);
    weighted(tape, &losses, rows, shape[0])
}

/// DA: `Σ w KL(softmax(z) ‖ softmax(f))` over the channels, with normal noise `z`.
///
/// `channels`: `f`, shape `(n, d)`. Adds the inputs of noise, shape `(n, d)`, and weights, shape `(n,)`.
///
/// Source: CN117131214B, S3.
pub fn alignment(tape: &mut Tape, channels: &str, shape: [usize; 2]) -> String {
    tape.input(NOISE, DataType::Float, &shape);
    let axis = || vec![attribute_int("axis", 1)];
    let shares = tape.op("Softmax", &[NOISE], axis());
    let of_noise = tape.op("LogSoftmax", &[NOISE], axis());
    let of_channels = tape.op("LogSoftmax", &[channels], axis());
    let differences = tape.op("Sub", &[&of_noise, &of_channels], vec![]);
    let products = tape.op("Mul", &[&shares, &differences], vec![]);
    let divergences = sum(tape, &products, Some(1));
    weighted(tape, &divergences, ALIGN_ROWS, shape[0])
}

/// Contrast with a bank of photos: `-Σ w ln (Σ₊ exp(s/τ) / Σ exp(s/τ))`, `s` the cosine of a sketch with a photo, `Σ₊` over its
/// positives.
///
/// `embeddings`: shape `(n, d)`, of unit length. `bank`: shape `(b, d)`, a constant. Adds the inputs of positives and of
/// candidates, shape `(n, b)`, 1 or 0, positives among the candidates, and of weights, shape `(n,)`.
///
/// # Errors
/// [`TrainError::Engine`] if the bank has a different shape.
///
/// Source: Khosla et al., "Supervised Contrastive Learning", 2020, equation 3 (sum inside the logarithm); photos as fixed
/// keys: Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018.
pub fn contrast(
    tape: &mut Tape,
    embeddings: &str,
    bank: ndarray::ArrayView2<f32>,
    batch: usize,
    temperature: f32,
) -> Result<String, TrainError> {
    let (photos, width) = bank.dim();
    let turned: Vec<f32> = bank.t().iter().copied().collect();
    let keys = tape.constant("bank", &[width, photos], &turned)?;
    tape.input(POSITIVES, DataType::Float, &[batch, photos]);
    tape.input(CANDIDATES, DataType::Float, &[batch, photos]);
    let cosines = tape.op("MatMul", &[embeddings, &keys], vec![]);
    let factor = tape.scalar(1.0 / temperature);
    let scores = tape.op("Mul", &[&cosines, &factor], vec![]);
    let powers = tape.op("Exp", &[&scores], vec![]);
    let [near, all] = [POSITIVES, CANDIDATES].map(|mask| {
        let kept = tape.op("Mul", &[&powers, mask], vec![]);
        let total = sum(tape, &kept, Some(1));
        let tiny = tape.scalar(TINY);
        let total = tape.op("Add", &[&total, &tiny], vec![]);
        tape.op("Log", &[&total], vec![])
    });
    let losses = tape.op("Sub", &[&all, &near], vec![]);
    Ok(weighted(tape, &losses, CONTRAST_ROWS, batch))
}

/// `Σ w l`; adds the input of weights `w`, shape `(n,)`.
fn weighted(tape: &mut Tape, losses: &str, rows: &str, batch: usize) -> String {
    tape.input(rows, DataType::Float, &[batch]);
    let products = tape.op("Mul", &[losses, rows], vec![]);
    sum(tape, &products, None)
}

fn sum(tape: &mut Tape, tensor: &str, axis: Option<i64>) -> String {
    let keep = vec![attribute_int("keepdims", 0)];
    match axis {
        Some(axis) => {
            let axes = tape.integers(&[axis]);
            tape.op("ReduceSum", &[tensor, &axes], keep)
        }
        None => tape.op("ReduceSum", &[tensor], keep),
    }
}
