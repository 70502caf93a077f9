//! The one builder of ONNX graphs: nodes, constants, and what is known of the tensors.

use std::collections::{BTreeMap, HashMap};

use sketch_model::inference::onnx::build::{Size, node, scalar_f32, tensor_f32, tensor_i64, value_info};
use sketch_model::inference::onnx::messages::{
    AttributeProto, DataType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};

use super::EngineError;

/// Operator set of every graph that is built; older networks are brought to it when they are read.
///
/// The first that has `Gelu`; ONNX Runtime has known it since 1.17.
pub const OPSET: i64 = 20;
/// File format that goes with operator set 20.
const IR_VERSION: i64 = 9;

/// What one run has shown of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    pub element: DataType,
    pub shape: Vec<usize>,
    /// The values, if they are a few integers: shapes, axes, indices.
    pub integers: Option<Vec<i64>>,
}

/// A graph under construction. Nodes are in an order in which they can run.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    pub(super) nodes: Vec<NodeProto>,
    pub(super) initializers: BTreeMap<String, TensorProto>,
    pub(super) inputs: Vec<ValueInfoProto>,
    pub(super) facts: HashMap<String, Fact>,
    made: usize,
}

impl Tape {
    /// Adds an input of static shape and returns its name.
    pub fn input(&mut self, name: &str, element: DataType, shape: &[usize]) -> String {
        let sizes: Vec<Size> = shape.iter().map(|&size| Size::Fixed(size)).collect();
        self.inputs.retain(|input| input.name() != name);
        self.inputs.push(value_info(name, element, &sizes));
        self.facts.insert(name.to_owned(), Fact { element, shape: shape.to_vec(), integers: None });
        name.to_owned()
    }

    /// Adds a node with one output and returns the output's name, which no other tensor has.
    pub fn op(&mut self, operator: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let output = self.fresh(operator);
        self.nodes.push(node(operator, inputs, &[&output], attributes));
        output
    }

    /// Adds a node whose outputs already have names, and returns the first of them.
    pub fn named(
        &mut self,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        self.nodes.push(node(operator, inputs, outputs, attributes));
        outputs.first().map(|&output| output.to_owned()).unwrap_or_default()
    }

    /// A name that no other tensor has.
    pub fn fresh(&mut self, stem: &str) -> String {
        self.made += 1;
        format!("{}~{}", stem.to_lowercase(), self.made)
    }

    /// Adds numbers as a constant and returns its name.
    ///
    /// # Errors
    /// [`EngineError::Onnx`] if `values` are not as many as `shape` says.
    pub fn constant(&mut self, stem: &str, shape: &[usize], values: &[f32]) -> Result<String, EngineError> {
        let name = self.fresh(stem);
        self.named_constant(&name, shape, values)
    }

    /// Adds numbers as a constant that already has a name, and returns the name.
    ///
    /// # Errors
    /// [`EngineError::Onnx`] if `values` are not as many as `shape` says.
    pub fn named_constant(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<String, EngineError> {
        self.initializers.insert(name.to_owned(), tensor_f32(name, shape, values)?);
        self.facts.insert(name.to_owned(), Fact { element: DataType::Float, shape: shape.to_vec(), integers: None });
        Ok(name.to_owned())
    }

    /// The name of a constant number; equal numbers share one tensor.
    pub fn scalar(&mut self, value: f32) -> String {
        let name = format!("scalar~{value:e}");
        if !self.initializers.contains_key(&name) {
            self.initializers.insert(name.clone(), scalar_f32(&name, value));
            self.facts.insert(name.clone(), Fact { element: DataType::Float, shape: vec![], integers: None });
        }
        name
    }

    /// The name of a constant list of integers; equal lists share one tensor.
    pub fn integers(&mut self, values: &[i64]) -> String {
        let words: Vec<String> = values.iter().map(i64::to_string).collect();
        let name = format!("integers~{}", words.join(","));
        if !self.initializers.contains_key(&name) {
            // The shape is that of the list, so this cannot fail.
            if let Ok(tensor) = tensor_i64(&name, &[values.len()], values) {
                self.initializers.insert(name.clone(), tensor);
            }
            let fact = Fact { element: DataType::Int64, shape: vec![values.len()], integers: Some(values.to_vec()) };
            self.facts.insert(name.clone(), fact);
        }
        name
    }

    /// Shape of a tensor that was declared or probed.
    ///
    /// # Errors
    /// [`EngineError::MissingTensor`] if nothing is known of it.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>, EngineError> {
        self.fact(name).map(|fact| fact.shape.clone())
    }

    pub(super) fn fact(&self, name: &str) -> Result<&Fact, EngineError> {
        self.facts.get(name).ok_or_else(|| EngineError::MissingTensor { name: name.to_owned() })
    }

    /// Whether the tensor holds single-precision numbers, as far as is known.
    pub(super) fn is_float(&self, name: &str) -> bool {
        self.facts.get(name).is_some_and(|fact| fact.element == DataType::Float)
    }

    /// Whether the tensor holds numbers of any floating-point type.
    pub(super) fn is_real(&self, name: &str) -> bool {
        let real = [DataType::Float, DataType::Float16, DataType::Double];
        self.facts.get(name).is_some_and(|fact| real.contains(&fact.element))
    }

    /// Turns a constant into an input of the same shape and returns its values, shape `(…)` as row-major numbers.
    ///
    /// # Errors
    /// [`EngineError::MissingTensor`] if there is no such constant, [`EngineError::Onnx`] if it is not of numbers.
    pub fn release(&mut self, name: &str) -> Result<(Vec<usize>, Vec<f32>), EngineError> {
        let missing = || EngineError::MissingTensor { name: name.to_owned() };
        let tensor = self.initializers.remove(name).ok_or_else(missing)?;
        let shape = sketch_model::inference::onnx::build::tensor_shape(&tensor)?;
        let values = sketch_model::inference::onnx::build::tensor_values(&tensor)?;
        self.input(name, DataType::Float, &shape);
        Ok((shape, values))
    }

    /// The nodes, in an order in which they can run.
    pub fn nodes(&self) -> &[NodeProto] {
        &self.nodes
    }

    /// The nodes, to rename them.
    pub fn nodes_mut(&mut self) -> &mut [NodeProto] {
        &mut self.nodes
    }

    /// Adds nodes that read what is there already.
    pub fn extend(&mut self, nodes: impl IntoIterator<Item = NodeProto>) {
        self.nodes.extend(nodes);
    }

    /// The numbers of a constant; none if there is no constant of that name.
    ///
    /// # Errors
    /// [`EngineError::Onnx`] if it is not of numbers.
    pub fn constant_values(&self, name: &str) -> Result<Option<Vec<f32>>, EngineError> {
        Ok(self.initializers.get(name).map(sketch_model::inference::onnx::build::tensor_values).transpose()?)
    }

    /// Leaves out the first `count` nodes: what they made has to be an input then.
    pub fn cut(&mut self, count: usize) {
        self.nodes.drain(..count);
    }

    /// Leaves out the nodes that `keep` does not want.
    pub fn retain(&mut self, keep: impl FnMut(&NodeProto) -> bool) {
        self.nodes.retain(keep);
    }

    /// Whether an input, a constant or a node makes this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.initializers.contains_key(name)
            || self.inputs.iter().any(|input| input.name() == name)
            || self.nodes.iter().any(|node| node.output.iter().any(|output| output == name))
    }

    /// The graph as a model with the given outputs, without the nodes that none of them needs.
    pub fn model(&self, outputs: &[String]) -> ModelProto {
        let nodes = self.needed(outputs);
        let used = |name: &str| nodes.iter().any(|node| node.input.iter().any(|input| input == name));
        // ONNX Runtime infers type and shape, which are not known before the probe.
        let output = |name: &String| ValueInfoProto { name: Some(name.clone()), ..ValueInfoProto::default() };
        let graph = GraphProto {
            name: Some("training".to_owned()),
            initializer: self.initializers.values().filter(|tensor| used(tensor.name())).cloned().collect(),
            input: self.inputs.iter().filter(|input| used(input.name())).cloned().collect(),
            output: outputs.iter().map(output).collect(),
            node: nodes,
            ..GraphProto::default()
        };
        ModelProto {
            ir_version: Some(IR_VERSION),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
            producer_name: Some(env!("CARGO_PKG_NAME").to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            graph: Some(graph),
            ..ModelProto::default()
        }
    }

    /// The graph as a network called `name`, with all that its inputs and outputs say.
    pub fn network(&self, name: &str, inputs: Vec<ValueInfoProto>, outputs: Vec<ValueInfoProto>) -> ModelProto {
        let wanted: Vec<String> = outputs.iter().map(|output| output.name().to_owned()).collect();
        let mut model = self.model(&wanted);
        if let Some(graph) = model.graph.as_mut() {
            (graph.name, graph.input, graph.output) = (Some(name.to_owned()), inputs, outputs);
        }
        model
    }

    fn needed(&self, outputs: &[String]) -> Vec<NodeProto> {
        let mut wanted: std::collections::HashSet<&str> = outputs.iter().map(String::as_str).collect();
        let mut kept = Vec::new();
        for node in self.nodes.iter().rev() {
            if node.output.iter().any(|output| wanted.contains(output.as_str())) {
                wanted.extend(node.input.iter().map(String::as_str));
                kept.push(node.clone());
            }
        }
        kept.reverse();
        kept
    }
}
