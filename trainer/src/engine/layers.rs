//! The layers of a network in order, and their weights.

use std::collections::{HashMap, HashSet};

use sketch_model::inference::onnx::messages::{DataType, ModelProto, NodeProto};

use super::Tape;

/// A node with weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Index among the layers.
    pub position: usize,
    /// Index among all nodes.
    pub node: usize,
    pub name: String,
    pub operator: String,
    /// Names and shapes of the weights.
    pub weights: Vec<(String, Vec<usize>)>,
}

impl Layer {
    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.weights.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}

impl Tape {
    /// The layers in topological order. A tensor that several layers share belongs to the first.
    ///
    /// Weights are the tensors that training may change: not running statistics, bounds, shapes or scalars.
    pub fn layers(&self) -> Vec<Layer> {
        let mut seen = HashSet::new();
        let moved = self.moved();
        let mut layers = Vec::new();
        for (node, content) in self.nodes.iter().enumerate() {
            let weights: Vec<(String, Vec<usize>)> =
                self.weight_inputs(content, &moved).filter(|(name, _)| seen.insert(name.clone())).collect();
            if !weights.is_empty() {
                let (name, operator) = (content.name().to_owned(), content.op_type().to_owned());
                layers.push(Layer { position: layers.len(), node, name, operator, weights });
            }
        }
        layers
    }

    /// Tensors that are reshaped or transposed copies of others: exporters leave transposed weights so.
    fn moved(&self) -> HashMap<&str, &str> {
        let moves = |node: &&NodeProto| {
            matches!(node.op_type(), "Transpose" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "CastLike")
        };
        self.nodes
            .iter()
            .filter(moves)
            .filter_map(|node| Some((&**node.output.first()?, &**node.input.first()?)))
            .collect()
    }

    fn weight_inputs<'a>(
        &'a self,
        node: &'a NodeProto,
        moved: &'a HashMap<&str, &str>,
    ) -> impl Iterator<Item = (String, Vec<usize>)> + 'a {
        let positions: &[usize] = match node.op_type() {
            "Conv"
            | "ConvTranspose"
            | "Gemm"
            | "BatchNormalization"
            | "LayerNormalization"
            | "InstanceNormalization" => &[1, 2],
            "PRelu" => &[1],
            "MatMul" | "Add" | "Mul" | "Sub" => &[0, 1],
            "Concat" => &[0, 1, 2, 3],
            "Gather" | "Expand" => &[0],
            _ => &[],
        };
        positions.iter().filter_map(|&position| node.input.get(position)).filter_map(|name| {
            let mut name = name.as_str();
            while let Some(source) = moved.get(name) {
                name = source;
            }
            let fact = self.initializers.get(name).and(self.facts.get(name))?;
            let is_weight = fact.element == DataType::Float && fact.shape.iter().product::<usize>() > 1;
            is_weight.then(|| (name.to_owned(), fact.shape.clone()))
        })
    }
}

/// Names of the inputs that must be fed: those that are not initialisers.
pub(super) fn inputs(model: &ModelProto) -> Vec<String> {
    let Some(graph) = &model.graph else { return Vec::new() };
    let constants: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
    graph.input.iter().map(|input| input.name()).filter(|name| !constants.contains(name)).map(str::to_owned).collect()
}
