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

/// What is known of a tensor, from its declaration or from a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    pub element: DataType,
    pub shape: Vec<usize>,
    /// The values of small integer tensors: shapes, axes, indices.
    pub integers: Option<Vec<i64>>,
}

/// A graph under construction. Nodes are in topological order.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    pub(super) nodes: Vec<NodeProto>,
    pub(super) initializers: BTreeMap<String, TensorProto>,
    pub(super) inputs: Vec<ValueInfoProto>,
    pub(super) facts: HashMap<String, Info>,
    made: usize,
}

impl Tape {
    /// Adds an input of static shape and returns its name.
    pub fn input(&mut self, name: &str, element: DataType, shape: &[usize]) -> String {
        let sizes: Vec<Size> = shape.iter().map(|&size| Size::Fixed(size)).collect();
        self.inputs.retain(|input| input.name() != name);
        self.inputs.push(value_info(name, element, &sizes));
        self.facts.insert(name.to_owned(), Info { element, shape: shape.to_vec(), integers: None });
        name.to_owned()
    }

    /// Adds a node with one output and returns the output's new, unique name.
    pub fn op(&mut self, operator: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let output = self.fresh(operator);
        self.nodes.push(node(operator, inputs, &[&output], attributes));
        output
    }

    /// Adds a node with named outputs and returns the first name.
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

    /// A new, unique name for a tensor.
    pub fn fresh(&mut self, stem: &str) -> String {
        self.made += 1;
        format!("{}~{}", stem.to_lowercase(), self.made)
    }

    /// Adds a constant and returns its new name.
    ///
    /// # Errors
    /// [`EngineError::Onnx`] if `values` does not match `shape`.
    pub fn constant(&mut self, stem: &str, shape: &[usize], values: &[f32]) -> Result<String, EngineError> {
        let name = self.fresh(stem);
        self.named_constant(&name, shape, values)
    }

    /// Adds a constant under `name`, or replaces it, and returns the name.
    ///
    /// # Errors
    /// [`EngineError::Onnx`] if `values` does not match `shape`.
    pub fn named_constant(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<String, EngineError> {
        self.initializers.insert(name.to_owned(), tensor_f32(name, shape, values)?);
        self.facts.insert(name.to_owned(), Info { element: DataType::Float, shape: shape.to_vec(), integers: None });
        Ok(name.to_owned())
    }

    /// The name of a constant number; equal numbers share one tensor.
    pub fn scalar(&mut self, value: f32) -> String {
        let name = format!("scalar~{value:e}");
        if !self.initializers.contains_key(&name) {
            self.initializers.insert(name.clone(), scalar_f32(&name, value));
            self.facts.insert(name.clone(), Info { element: DataType::Float, shape: vec![], integers: None });
        }
        name
    }

    /// The name of a constant list of integers; equal lists share one tensor.
    pub fn integers(&mut self, values: &[i64]) -> String {
        let words: Vec<String> = values.iter().map(i64::to_string).collect();
        let name = format!("integers~{}", words.join(","));
        if !self.initializers.contains_key(&name) {
            // The shape matches the list, so this cannot fail.
            if let Ok(tensor) = tensor_i64(&name, &[values.len()], values) {
                self.initializers.insert(name.clone(), tensor);
            }
            let fact = Info { element: DataType::Int64, shape: vec![values.len()], integers: Some(values.to_vec()) };
            self.facts.insert(name.clone(), fact);
        }
        name
    }

    /// Shape of a tensor that was declared or probed.
    ///
    /// # Errors
    /// [`EngineError::MissingTensor`] if it was not.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>, EngineError> {
        self.fact(name).map(|fact| fact.shape.clone())
    }

    pub(super) fn fact(&self, name: &str) -> Result<&Info, EngineError> {
        self.facts.get(name).ok_or_else(|| EngineError::MissingTensor { name: name.to_owned() })
    }

    /// Whether the tensor is known to hold single-precision numbers.
    pub(super) fn is_float(&self, name: &str) -> bool {
        self.facts.get(name).is_some_and(|fact| fact.element == DataType::Float)
    }

    /// Whether the tensor is known to hold numbers of a floating-point type.
    pub(super) fn is_real(&self, name: &str) -> bool {
        let real = [DataType::Float, DataType::Float16, DataType::Double];
        self.facts.get(name).is_some_and(|fact| real.contains(&fact.element))
    }

    /// Turns a constant into an input of the same shape and returns its values, shape `(…)` as row-major numbers.
    ///
    /// # Errors
    /// [`EngineError::MissingTensor`] if there is no such constant, [`EngineError::Onnx`] if it does not hold numbers.
    pub fn release(&mut self, name: &str) -> Result<(Vec<usize>, Vec<f32>), EngineError> {
        let missing = || EngineError::MissingTensor { name: name.to_owned() };
        let tensor = self.initializers.remove(name).ok_or_else(missing)?;
        let shape = sketch_model::inference::onnx::build::tensor_shape(&tensor)?;
        let values = sketch_model::inference::onnx::build::tensor_values(&tensor)?;
        self.input(name, DataType::Float, &shape);
        Ok((shape, values))
    }

    /// The nodes, in topological order.
    pub fn nodes(&self) -> &[NodeProto] {
        &self.nodes
    }

    /// The nodes, to rename them.
    pub fn nodes_mut(&mut self) -> &mut [NodeProto] {
        &mut self.nodes
    }

    /// Adds nodes in topological order.
    pub fn extend(&mut self, nodes: impl IntoIterator<Item = NodeProto>) {
        self.nodes.extend(nodes);
    }

    /// The values of a constant, if there is one of that name.
    ///
    /// # Errors
    /// [`EngineError::Onnx`] if it does not hold numbers.
    pub fn constant_values(&self, name: &str) -> Result<Option<Vec<f32>>, EngineError> {
        Ok(self.initializers.get(name).map(sketch_model::inference::onnx::build::tensor_values).transpose()?)
    }

    /// Removes the first `count` nodes; their outputs must become inputs.
    pub fn cut(&mut self, count: usize) {
        self.nodes.drain(..count);
    }

    /// Removes the nodes for which `keep` returns false.
    pub fn retain(&mut self, keep: impl FnMut(&NodeProto) -> bool) {
        self.nodes.retain(keep);
    }

    /// Whether the tensor is an input, a constant or an output of a node.
    pub fn has(&self, name: &str) -> bool {
        self.initializers.contains_key(name)
            || self.inputs.iter().any(|input| input.name() == name)
            || self.nodes.iter().any(|node| node.output.iter().any(|output| output == name))
    }

    /// The graph as a model with the given outputs, without unused nodes, constants and inputs.
    pub fn model(&self, outputs: &[String]) -> ModelProto {
        let nodes = self.needed(outputs);
        let used = |name: &str| nodes.iter().any(|node| node.input.iter().any(|input| input == name));
        // Type and shape are not known before the probe; ONNX Runtime infers them.
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

    /// The graph as a network called `name`, with described inputs and outputs.
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
