//! The head: from features to an embedding.

use ndarray::Array2;
use sketch_model::inference::onnx::build::attribute_int;

use crate::engine::{EngineError, Tape};

/// Added to a feature's share of the sum before the square root: the slope at zero stays finite for training, and mAP does not
/// change (by less than 0.1 for floors up to 1e-5).
pub const SHARE_FLOOR: f32 = 1e-6;

/// How features are scaled before they are centred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// `sqrt(f / Σf)`, for features that are never negative, as after ReLU: a few large channels no longer dominate the
    /// distance, and two images are compared as two distributions over channels (the Hellinger map).
    ///
    /// Source: Arandjelović, Zisserman, "Three things everyone should know to improve object retrieval", 2012.
    ShareRoots,
    /// `f / ‖f‖`, for any features.
    UnitLength,
}

/// `embedding = normalise((scale(f) - means[domain]) · projection)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    pub scale: Scale,
    /// Shape `(2, c)`: the mean of the scaled features over sketches, then over photos.
    pub means: Array2<f32>,
    /// Shape `(c, d)`.
    pub projection: Array2<f32>,
}

impl Head {
    /// A head that keeps the first `dimension` of `width` channels: for a graph that is only run for its features.
    pub fn plain(width: usize, dimension: usize) -> Self {
        let projection = Array2::from_shape_fn((width, dimension), |(i, j)| if i == j { 1.0 } else { 0.0 });
        Self { scale: Scale::UnitLength, means: Array2::zeros((2, width)), projection }
    }

    /// Adds the head to a graph with tensors `features`, shape `(n, c)`, and `domain`; its output is `embedding`.
    ///
    /// # Errors
    /// None in practice: the arrays have the right shapes.
    pub fn add_to(&self, tape: &mut Tape) -> Result<(), EngineError> {
        let values = |array: &Array2<f32>| array.iter().copied().collect::<Vec<f32>>();
        let (width, dimension) = self.projection.dim();
        let means = tape.named_constant("means", &[2, width], &values(&self.means))?;
        let projection = tape.named_constant("projection", &[width, dimension], &values(&self.projection))?;
        let scaled = match self.scale {
            Scale::ShareRoots => share_roots(tape),
            Scale::UnitLength => unit_length(tape, "features", ["length", "scaled"]),
        };
        let mean = tape.named("Gather", &[&means, "domain"], &["mean"], vec![attribute_int("axis", 0)]);
        let centred = tape.named("Sub", &[&scaled, &mean], &["centred"], vec![]);
        let projected = tape.named("MatMul", &[&centred, &projection], &["projected"], vec![]);
        unit_length(tape, &projected, ["energy", "embedding"]);
        Ok(())
    }
}

fn share_roots(tape: &mut Tape) -> String {
    let (floor, tiny, axis) = (tape.scalar(SHARE_FLOOR), tape.scalar(f32::MIN_POSITIVE), tape.integers(&[-1]));
    let sum = tape.named("ReduceSum", &["features", &axis], &["sum"], vec![attribute_int("keepdims", 1)]);
    let sum = tape.named("Clip", &[&sum, &tiny], &["sum.clipped"], vec![]);
    let share = tape.named("Div", &["features", &sum], &["share"], vec![]);
    let raised = tape.named("Add", &[&share, &floor], &["share.raised"], vec![]);
    tape.named("Sqrt", &[&raised], &["root"], vec![])
}

/// Scales rows to unit length. A row of zeros stays zero instead of becoming NaN.
fn unit_length(tape: &mut Tape, rows: &str, [energy, output]: [&str; 2]) -> String {
    let (tiny, axis) = (tape.scalar(f32::MIN_POSITIVE), tape.integers(&[-1]));
    let squares = tape.named("Mul", &[rows, rows], &[&format!("{energy}.squares")], vec![]);
    let sum = tape.named("ReduceSum", &[&squares, &axis], &[energy], vec![attribute_int("keepdims", 1)]);
    let sum = tape.named("Clip", &[&sum, &tiny], &[&format!("{energy}.clipped")], vec![]);
    let norm = tape.named("Sqrt", &[&sum], &[&format!("{energy}.root")], vec![]);
    tape.named("Div", &[rows, &norm], &[output], vec![])
}
