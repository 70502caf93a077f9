//! Networks that compute in 8-bit integers: half the time of single precision, and a quarter of the bytes.
//!
//! [`calibrate`] runs a network on images and notes what values its tensors take. [`quantise`] then stores the kernels of
//! convolutions as integers, one scale per output channel, and marks tensors between them with `QuantizeLinear` and
//! `DequantizeLinear`: standard ONNX, in which ONNX Runtime recognises convolutions of integers. The first convolution, whose
//! input is the image, and the head stay in single precision.
//!
//! Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", 2018.

mod centre;
mod kernel;
mod ranges;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use sketch_model::inference::encoder::EncoderError;
use sketch_model::inference::onnx::build::{
    attribute_int, node, scalar_f32, tensor_f32, tensor_i8, tensor_i32, tensor_shape, tensor_u8, tensor_values,
};
use sketch_model::inference::onnx::messages::{GraphProto, ModelProto, NodeProto, TensorProto};
use sketch_model::inference::onnx::{OnnxError, is_quantised};

use crate::engine::EngineError;

pub use centre::recentre;
pub use kernel::{Kernel, MOST_OF_NEIGHBOURS};
pub use ranges::{Channels, Images, Ranges, calibrate};

/// Why a network was not quantised.
#[derive(Debug, thiserror::Error)]
pub enum QuantiseError {
    #[error("network computes in integers already")]
    Already,
    #[error("network has no convolution after another one")]
    Nothing,
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error(transparent)]
    Encoder(#[from] EncoderError),
}

/// Kernels of so few products a sum are stored as unsigned integers. Signed ones must keep a bound ([`MOST_OF_NEIGHBOURS`]),
/// which costs short sums most: drawings, by the first kernels of the network that ships, twice the error. Unsigned ones are
/// slower, but these kernels wait for memory anyway.
const UNSIGNED_UP_TO: usize = 48;

/// How a tensor becomes bytes: `value = scale · (byte - zero)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub scale: f32,
    pub zero: u8,
}

/// Returns the network with integer convolutions; the other weights are as they were.
///
/// `model`: in single precision, as [`in_single_precision`](crate::engine::in_single_precision) returns it.
///
/// # Errors
/// [`QuantiseError::Already`], [`QuantiseError::Nothing`]; [`QuantiseError::Onnx`] if a weight is malformed.
pub fn quantise(model: &ModelProto, ranges: &Ranges) -> Result<ModelProto, QuantiseError> {
    if is_quantised(model) {
        return Err(QuantiseError::Already);
    }
    let mut result = model.clone();
    let graph = result.graph.as_mut().ok_or(OnnxError::NoGraph)?;
    let points = points(graph)?;
    let mut writer = Writer::new(std::mem::take(&mut graph.initializer));
    for mut node in std::mem::take(&mut graph.node) {
        let source = node.input.first().and_then(|name| writer.steps.get(name).copied());
        match (node.op_type(), source) {
            ("Conv", Some(step)) if writer.constants.contains_key(&node.input[1]) => {
                let channels = ranges.channels(&node.input[0]).unwrap_or_default();
                writer.convolution(&mut node, step, &channels)?;
            }
            _ => writer.reads_bytes(&mut node),
        }
        let output = node.output.first().cloned().unwrap_or_default();
        let step = match points.get(&output) {
            Some(Point::Own) => ranges.step(&output),
            // Rows of a quantised tensor have its step.
            Some(Point::As(source)) => writer.steps.get(source).copied(),
            None => None,
        };
        writer.nodes.push(node);
        if let Some(step) = step {
            writer.mark(&output, step)?;
        }
    }
    writer.finish(graph);
    Ok(result)
}

/// What a tensor between integer operators has its step from.
enum Point {
    /// The values that it takes.
    Own,
    /// Another tensor, of which it holds rows.
    As(String),
}

/// Tensors to be quantised: what convolutions return, after their activation; sums of these, and rows of these.
fn points(graph: &GraphProto) -> Result<HashMap<String, Point>, QuantiseError> {
    let mut readers: HashMap<&str, Vec<&NodeProto>> = HashMap::new();
    for node in &graph.node {
        node.input.iter().for_each(|input| readers.entry(input).or_default().push(node));
    }
    let outputs: HashSet<&str> = graph.output.iter().map(|output| output.name()).collect();
    let activation = |output: &str| match readers.get(output).map(Vec::as_slice) {
        Some([only]) if matches!(only.op_type(), "Clip" | "Relu") && !outputs.contains(output) => {
            only.output.first().cloned()
        }
        _ => None,
    };
    let (mut points, mut convolutions) = (HashMap::new(), 0);
    for node in &graph.node {
        let Some(output) = node.output.first() else { continue };
        let is_point = |input: &String| points.contains_key(input);
        match node.op_type() {
            "Conv" => {
                convolutions += usize::from(node.input.first().is_some_and(is_point));
                points.insert(activation(output).unwrap_or_else(|| output.clone()), Point::Own);
            }
            "Add" if node.input.iter().all(is_point) => {
                points.insert(output.clone(), Point::Own);
            }
            "Gather" if node.input.first().is_some_and(is_point) => {
                points.insert(output.clone(), Point::As(node.input[0].clone()));
            }
            _ => {}
        }
    }
    if convolutions == 0 { Err(QuantiseError::Nothing) } else { Ok(points) }
}

/// The graph as it grows.
struct Writer {
    constants: HashMap<String, TensorProto>,
    /// Names of the constants in their order.
    order: Vec<String>,
    added: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
    /// Of tensors that are quantised.
    steps: HashMap<String, Step>,
}

impl Writer {
    fn new(constants: Vec<TensorProto>) -> Self {
        let order = constants.iter().map(|tensor| tensor.name().to_owned()).collect();
        let constants = constants.into_iter().map(|tensor| (tensor.name().to_owned(), tensor)).collect();
        Self { constants, order, added: Vec::new(), nodes: Vec::new(), steps: HashMap::new() }
    }

    /// Lets a node read what quantised tensors are as bytes.
    fn reads_bytes(&self, node: &mut NodeProto) {
        for input in &mut node.input {
            if self.steps.contains_key(input) {
                *input = from_bytes(input);
            }
        }
    }

    /// Writes a tensor as bytes, and back.
    fn mark(&mut self, name: &str, step: Step) -> Result<(), OnnxError> {
        let (scale, zero, bytes) = (format!("{name}.scale"), format!("{name}.zero"), format!("{name}.bytes"));
        self.added.push(scalar_f32(&scale, step.scale));
        self.added.push(TensorProto { dims: vec![], ..tensor_u8(&zero, &[1], &[step.zero])? });
        self.nodes.push(node("QuantizeLinear", &[name, &scale, &zero], &[&bytes], vec![]));
        self.nodes.push(node("DequantizeLinear", &[&bytes, &scale, &zero], &[&from_bytes(name)], vec![]));
        self.steps.insert(name.to_owned(), step);
        Ok(())
    }

    /// Stores kernel and bias of a convolution as integers; `step`, `channels`: of its input.
    fn convolution(&mut self, conv: &mut NodeProto, step: Step, channels: &Channels) -> Result<(), OnnxError> {
        conv.input[0] = from_bytes(&conv.input[0]);
        let kernel = &self.constants[&conv.input[1]];
        let shape = tensor_shape(kernel)?;
        let groups = conv.attribute.iter().find(|attribute| attribute.name() == "group").and_then(|group| group.i);
        let bias = conv.input.get(2).and_then(|name| self.constants.get(name)).map(tensor_values).transpose()?;
        let bias = bias.unwrap_or_else(|| vec![0.0; shape[0]]);
        let (values, groups) = (tensor_values(kernel)?, groups.unwrap_or(1) as usize);
        let together: usize = shape[1..].iter().product();
        let is_bounded = shape[1] > 1 && together > UNSIGNED_UP_TO;
        let kernel = Kernel::new(is_bounded, &values, &bias, groups, step.scale, channels);
        let name = conv.input[1].clone();
        let (whole, zero) = (format!("{name}.whole"), format!("{name}.zero"));
        if is_bounded || shape[1] == 1 {
            self.added.push(tensor_i8(&whole, &shape, &kernel.whole)?);
        } else {
            let unsigned: Vec<u8> = kernel.whole.iter().map(|&whole| (i16::from(whole) + 128) as u8).collect();
            self.added.push(tensor_u8(&whole, &shape, &unsigned)?);
            self.added.push(tensor_u8(&zero, &[shape[0]], &vec![128; shape[0]])?);
        }
        let scales: Vec<f32> = kernel.scales.iter().map(|scale| scale * step.scale).collect();
        let whole: Vec<i32> =
            kernel.bias.iter().zip(&scales).map(|(bias, scale)| (bias / scale).round() as i32).collect();
        let bias = format!("{}.bias", conv.name());
        self.added.push(tensor_i32(&format!("{bias}.whole"), &[shape[0]], &whole)?);
        conv.input.truncate(1);
        let zero = (!is_bounded && shape[1] > 1).then_some(zero);
        conv.input.push(self.dequantise(&name, &kernel.scales, zero.as_deref())?);
        conv.input.push(self.dequantise(&bias, &scales, None)?);
        Ok(())
    }

    /// The integers `name.whole` as numbers; returns their name.
    fn dequantise(&mut self, name: &str, scales: &[f32], zero: Option<&str>) -> Result<String, OnnxError> {
        let (whole, scale) = (format!("{name}.whole"), format!("{name}.scale"));
        self.added.push(tensor_f32(&scale, &[scales.len()], scales)?);
        let output = from_bytes(name);
        let inputs: Vec<&str> = [&whole, &scale].into_iter().map(String::as_str).chain(zero).collect();
        self.nodes.push(node("DequantizeLinear", &inputs, &[&output], vec![attribute_int("axis", 0)]));
        Ok(output)
    }

    fn finish(mut self, graph: &mut GraphProto) {
        let used: HashSet<&str> = self.nodes.iter().flat_map(|node| &node.input).map(String::as_str).collect();
        let kept: Vec<&String> = self.order.iter().filter(|name| used.contains(name.as_str())).collect();
        graph.initializer = kept.into_iter().filter_map(|name| self.constants.remove(name)).collect();
        graph.initializer.append(&mut self.added);
        graph.node = self.nodes;
        // Types of tensors that are now others.
        graph.value_info.clear();
    }
}

fn from_bytes(name: &str) -> String {
    format!("{name}.read")
}
