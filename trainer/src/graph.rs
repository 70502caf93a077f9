//! A graph under construction: nodes in order, and weights in the precision asked for.

use sketch_model::inference::onnx::OnnxError;
use sketch_model::inference::onnx::build::{
    attribute_int, attribute_ints, node, scalar_f32, tensor_f16, tensor_f32, tensor_i8, tensor_i64, tensor_shape,
    tensor_values,
};
use sketch_model::inference::onnx::messages::{
    AttributeProto, DataType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
};
use sketch_model::inference::onnx::messages::{TensorProto, ValueInfoProto};

/// Operator set of the graphs that are built here; ONNX Runtime has known it since 1.12.
const OPSET: i64 = 17;
/// File format that goes with operator set 17.
const IR_VERSION: i64 = 8;

/// How weights are stored; all arithmetic is in single precision either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// Half the size; ONNX Runtime widens the weights once, when it loads the graph.
    #[default]
    Fp16,
    Fp32,
    /// A quarter of the size: kernels that see many channels as whole numbers of their greatest weight's 127th part, for
    /// each output channel; the others as `Fp16`.
    Int8,
}

/// A convolution: what of it is not in its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    pub kernel: usize,
    pub stride: usize,
    pub groups: usize,
    /// Zeros before the first row and column.
    pub pad_begin: usize,
    /// Zeros after the last row and column.
    pub pad_end: usize,
}

/// Collects nodes and weights.
pub struct GraphBuilder {
    precision: Precision,
    /// Operator set and file format.
    versions: (i64, i64),
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
}

impl GraphBuilder {
    pub fn new(precision: Precision) -> Self {
        Self { precision, versions: (OPSET, IR_VERSION), nodes: Vec::new(), initializers: Vec::new() }
    }

    /// Goes on with the graph of a model; what it holds already stays as it is.
    pub fn extending(model: ModelProto, precision: Precision) -> Self {
        let opset = model.opset_import.iter().map(|set| set.version()).max().unwrap_or(OPSET);
        let versions = (opset, model.ir_version.unwrap_or(IR_VERSION));
        let GraphProto { node: nodes, initializer: initializers, .. } = model.graph.unwrap_or_default();
        Self { precision, versions, nodes, initializers }
    }

    /// Whether a node is called `name`.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.iter().any(|node| node.name() == name)
    }

    /// Adds a node and returns the name of its only output.
    pub fn node(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> String {
        self.nodes.push(node(operator, inputs, &[output], attributes));
        output.to_owned()
    }

    /// Adds weights in the builder's precision and returns the name under which nodes find them.
    ///
    /// # Errors
    /// [`OnnxError::Length`] if `values` are not as many as `shape` says.
    pub fn weight(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<String, OnnxError> {
        match self.precision {
            Precision::Fp32 => self.constant(name, shape, values),
            Precision::Fp16 | Precision::Int8 => {
                let stored = format!("{name}.half");
                self.initializers.push(tensor_f16(&stored, shape, values)?);
                let to_float = attribute_int("to", DataType::Float as i64);
                Ok(self.node("Cast", &[&stored], name, vec![to_float]))
            }
        }
    }

    /// Adds numbers that stay in single precision and returns their name.
    ///
    /// # Errors
    /// [`OnnxError::Length`] if `values` are not as many as `shape` says.
    pub fn constant(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<String, OnnxError> {
        self.initializers.push(tensor_f32(name, shape, values)?);
        Ok(name.to_owned())
    }

    /// Adds a number under `name` unless it is there already.
    pub fn shared_constant(&mut self, name: &str, value: f32) {
        if !self.initializers.iter().any(|tensor| tensor.name() == name) {
            self.initializers.push(scalar_f32(name, value));
        }
    }

    /// Adds a list of integers and returns its name.
    ///
    /// # Errors
    /// None in practice: the shape is that of the list.
    pub fn integers(&mut self, name: &str, values: &[i64]) -> Result<String, OnnxError> {
        self.initializers.push(tensor_i64(name, &[values.len()], values)?);
        Ok(name.to_owned())
    }

    /// Adds a convolution with bias and returns the name of its output.
    pub fn convolution(&mut self, inputs: [&str; 3], output: &str, shape: &Convolution) -> String {
        let (kernel, stride) = (shape.kernel as i64, shape.stride as i64);
        let (begin, end) = (shape.pad_begin as i64, shape.pad_end as i64);
        let attributes = vec![
            attribute_int("group", shape.groups as i64),
            attribute_ints("kernel_shape", &[kernel, kernel]),
            attribute_ints("pads", &[begin, begin, end, end]),
            attribute_ints("strides", &[stride, stride]),
        ];
        self.node("Conv", &inputs, output, attributes)
    }

    /// Ends the graph and wraps it as a model.
    pub fn finish(self, name: &str, inputs: Vec<ValueInfoProto>, outputs: Vec<ValueInfoProto>) -> ModelProto {
        let graph = GraphProto {
            name: Some(name.to_owned()),
            node: self.nodes,
            initializer: self.initializers,
            input: inputs,
            output: outputs,
            ..GraphProto::default()
        };
        ModelProto {
            ir_version: Some(self.versions.1),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(self.versions.0) }],
            producer_name: Some(env!("CARGO_PKG_NAME").to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            graph: Some(graph),
            ..ModelProto::default()
        }
    }
}

/// Tensors of fewer values stay as they are: they are few, and some of them are statistics.
const NARROWED_FROM: usize = 4096;

/// Stores the weights of a network as `precision` says; all arithmetic stays in single precision, for ONNX Runtime widens
/// them once, when it loads the graph.
///
/// # Errors
/// [`OnnxError`] if a tensor is malformed.
pub fn narrow(model: &mut ModelProto, precision: Precision) -> Result<(), OnnxError> {
    let Some(graph) = model.graph.as_mut().filter(|_| precision != Precision::Fp32) else { return Ok(()) };
    let (mut tensors, mut widening) = (Vec::new(), Vec::new());
    for tensor in std::mem::take(&mut graph.initializer) {
        let shape = tensor_shape(&tensor)?;
        let is_float = tensor.data_type() == DataType::Float as i32;
        if !is_float || shape.iter().product::<usize>() < NARROWED_FROM {
            tensors.push(tensor);
            continue;
        }
        let (name, values) = (tensor.name().to_owned(), tensor_values(&tensor)?);
        let stored = format!("{name}.stored");
        let to_float = || vec![attribute_int("to", DataType::Float as i64)];
        if precision == Precision::Int8 && shape.len() == 4 && shape[1] > 1 {
            let (steps, scales) = quantised(&values, shape[0]);
            let (whole, scale) = (format!("{name}.whole"), format!("{name}.scale"));
            tensors.push(tensor_i8(&stored, &shape, &steps)?);
            tensors.push(tensor_f32(&scale, &[shape[0], 1, 1, 1], &scales)?);
            widening.push(node("Cast", &[&stored], &[&whole], to_float()));
            widening.push(node("Mul", &[&whole, &scale], &[&name], vec![]));
        } else {
            tensors.push(tensor_f16(&stored, &shape, &values)?);
            widening.push(node("Cast", &[&stored], &[&name], to_float()));
        }
    }
    graph.initializer = tensors;
    graph.node.splice(0..0, widening);
    Ok(())
}

/// Whole numbers from -127 to 127, and for each of the first axis' `channels` what one of them is.
fn quantised(values: &[f32], channels: usize) -> (Vec<i8>, Vec<f32>) {
    let length = values.len() / channels.max(1);
    let rows = values.chunks_exact(length.max(1));
    let scale = |row: &[f32]| row.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs())) / 127.0;
    let scales: Vec<f32> = rows.clone().map(scale).collect();
    let step =
        |(row, scale): (&[f32], &f32)| row.iter().map(|value| (value / scale).round() as i8).collect::<Vec<i8>>();
    (rows.zip(&scales).flat_map(step).collect(), scales)
}
