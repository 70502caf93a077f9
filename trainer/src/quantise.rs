//! Networks that compute in 8-bit integers: half the time of single precision, and a quarter of the bytes.
//!
//! [`calibrate`] runs a network on images and notes what values its tensors take. [`quantise`] then stores the kernels of
//! convolutions as integers, one scale per output channel, and marks tensors between them with `QuantizeLinear` and
//! `DequantizeLinear`: standard ONNX, in which ONNX Runtime recognises convolutions of integers. The first convolutions, until
//! the channels first become more, and the head stay in single precision.
//!
//! Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", 2018.

mod centre;
mod equalise;
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

use equalise::equalise;

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
    let (mut result, mut ranges) = (model.clone(), ranges.clone());
    let graph = result.graph.as_mut().ok_or(OnnxError::NoGraph)?;
    let points = points(graph)?;
    equalise(graph, &points, &mut ranges)?;
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

/// Tensors to be quantised: what convolutions return, after their activation; sums of these, and rows of these. But for those at
/// the beginning, until the channels first become more again: an image's flat areas have the same error everywhere, so that these
/// tensors cost photos more than all others together, and single precision takes no more time for them.
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
    let widths: HashMap<&str, i64> =
        graph.initializer.iter().filter_map(|tensor| Some((tensor.name(), *tensor.dims.first()?))).collect();
    let width = |conv: &NodeProto| conv.input.get(1).and_then(|name| widths.get(&**name)).copied();
    // Whether all that reads a tensor is one convolution to no more channels than it has.
    let narrows = |output: &str, from: Option<i64>| match readers.get(output).map(Vec::as_slice) {
        Some([only]) => only.op_type() == "Conv" && width(only) <= from && !outputs.contains(output),
        _ => false,
    };
    let (mut points, mut convolutions) = (HashMap::new(), 0);
    // What the image becomes before the first tensor to be quantised.
    let mut beginning: HashSet<String> = graph.input.iter().map(|input| input.name().to_owned()).collect();
    for node in &graph.node {
        let Some(output) = node.output.first() else { continue };
        let is_point = |input: &String| points.contains_key(input);
        match node.op_type() {
            "Conv" => {
                convolutions += usize::from(node.input.first().is_some_and(is_point));
                let end = activation(output).unwrap_or_else(|| output.clone());
                if node.input.first().is_some_and(|input| beginning.contains(input)) && narrows(&end, width(node)) {
                    beginning.insert(end);
                } else {
                    points.insert(end, Point::Own);
                }
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
        let is_bounded = shape[1] > 1;
        let kernel = Kernel::new(is_bounded, &values, &bias, groups, step.scale, channels);
        let name = conv.input[1].clone();
        self.added.push(tensor_i8(&format!("{name}.whole"), &shape, &kernel.whole)?);
        let scales: Vec<f32> = kernel.scales.iter().map(|scale| scale * step.scale).collect();
        let whole: Vec<i32> =
            kernel.bias.iter().zip(&scales).map(|(bias, scale)| (bias / scale).round() as i32).collect();
        let bias = format!("{}.bias", conv.name());
        self.added.push(tensor_i32(&format!("{bias}.whole"), &[shape[0]], &whole)?);
        conv.input.truncate(1);
        conv.input.push(self.dequantise(&name, &kernel.scales)?);
        conv.input.push(self.dequantise(&bias, &scales)?);
        Ok(())
    }

    /// The integers `name.whole` as numbers; returns their name.
    fn dequantise(&mut self, name: &str, scales: &[f32]) -> Result<String, OnnxError> {
        let (whole, scale) = (format!("{name}.whole"), format!("{name}.scale"));
        self.added.push(tensor_f32(&scale, &[scales.len()], scales)?);
        let output = from_bytes(name);
        self.nodes.push(node("DequantizeLinear", &[&whole, &scale], &[&output], vec![attribute_int("axis", 0)]));
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
