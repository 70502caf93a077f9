//! What turns features into an embedding.

use ndarray::Array2;
use sketch_model::inference::onnx::OnnxError;
use sketch_model::inference::onnx::build::attribute_int;

use crate::graph::GraphBuilder;

/// Added to a feature's share of the sum before its root is taken: the slope at zero stays finite for training, and
/// retrieval does not notice (mAP the same to 0.1 up to 1e-5).
pub const SHARE_FLOOR: f32 = 1e-6;

/// How features are scaled before their mean is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// `sqrt(f / Σf)`, for features that are never negative, as ReLU leaves them: a few channels then no longer decide a
    /// distance by themselves, and two images are compared as two distributions over channels.
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
    /// A head that keeps the first `dimension` of `width` channels: for a graph of which only the features are wanted.
    pub fn plain(width: usize, dimension: usize) -> Self {
        let projection = Array2::from_shape_fn((width, dimension), |(i, j)| if i == j { 1.0 } else { 0.0 });
        Self { scale: Scale::UnitLength, means: Array2::zeros((2, width)), projection }
    }

    /// Adds the head to a graph that has tensors `features`, shape `(n, c)`, and `domain`; it makes `embedding`.
    ///
    /// # Errors
    /// None in practice: shapes are those of the arrays.
    pub fn add_to(&self, graph: &mut GraphBuilder) -> Result<(), OnnxError> {
        let values = |array: &Array2<f32>| array.iter().copied().collect::<Vec<f32>>();
        let (width, dimension) = self.projection.dim();
        // Means stay in single precision: they are few, and what they leave is small beside them.
        let means = graph.constant("means", &[2, width], &values(&self.means))?;
        let projection = graph.weight("projection", &[width, dimension], &values(&self.projection))?;
        graph.shared_constant("tiny", f32::MIN_POSITIVE);
        graph.integers("last_axis", &[-1])?;

        let scaled = match self.scale {
            Scale::ShareRoots => share_roots(graph),
            Scale::UnitLength => unit_length(graph, "features", ["length", "scaled"]),
        };
        let mean = graph.node("Gather", &[&means, "domain"], "mean", vec![attribute_int("axis", 0)]);
        let centred = graph.node("Sub", &[&scaled, &mean], "centred", vec![]);
        let projected = graph.node("MatMul", &[&centred, &projection], "projected", vec![]);
        unit_length(graph, &projected, ["energy", "embedding"]);
        Ok(())
    }
}

fn share_roots(graph: &mut GraphBuilder) -> String {
    graph.shared_constant("share_floor", SHARE_FLOOR);
    let sum = graph.node("ReduceSum", &["features", "last_axis"], "sum", vec![attribute_int("keepdims", 1)]);
    let sum = graph.node("Clip", &[&sum, "tiny"], "sum.clipped", vec![]);
    let share = graph.node("Div", &["features", &sum], "share", vec![]);
    let raised = graph.node("Add", &[&share, "share_floor"], "share.raised", vec![]);
    graph.node("Sqrt", &[&raised], "root", vec![])
}

/// Brings rows to unit length. A row of zeros, which has no direction, stays zero instead of NaN.
fn unit_length(graph: &mut GraphBuilder, rows: &str, [energy, output]: [&str; 2]) -> String {
    let squares = graph.node("Mul", &[rows, rows], &format!("{energy}.squares"), vec![]);
    let sum = graph.node("ReduceSum", &[&squares, "last_axis"], energy, vec![attribute_int("keepdims", 1)]);
    let sum = graph.node("Clip", &[&sum, "tiny"], &format!("{energy}.clipped"), vec![]);
    let norm = graph.node("Sqrt", &[&sum], &format!("{energy}.root"), vec![]);
    graph.node("Div", &[rows, &norm], output, vec![])
}
