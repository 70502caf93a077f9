//! How the weights of a network are stored.

use sketch_model::inference::onnx::OnnxError;
use sketch_model::inference::onnx::build::{
    attribute_int, node, tensor_f16, tensor_f32, tensor_i8, tensor_shape, tensor_values,
};
use sketch_model::inference::onnx::messages::{DataType, ModelProto};

/// How weights are stored, and what the network computes in: single precision, but for `Int8`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// Half the size; ONNX Runtime widens the weights once, when it loads the graph.
    #[default]
    Fp16,
    Fp32,
    /// A quarter of the size: kernels over several channels as 8-bit integers with a scale per output channel, others as
    /// `Fp16`.
    Int8Weights,
    /// The same size, and half the time: convolutions compute in 8-bit integers, after calibration on images. What stays in
    /// single precision is stored as `Fp16`.
    Int8,
}

/// Smaller tensors stay in single precision: they are few, and some are statistics.
const NARROWED_FROM: usize = 4096;

/// Stores the weights of a network as `precision` says. Those in single precision are widened once, when ONNX Runtime loads
/// the graph; for [`Precision::Int8`], [`quantise`](crate::quantise::quantise) comes first.
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
        if precision == Precision::Int8Weights && shape.len() == 4 && shape[1] > 1 {
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

/// Integers from -127 to 127, and the scale of each of the `channels` of the first axis.
fn quantised(values: &[f32], channels: usize) -> (Vec<i8>, Vec<f32>) {
    let length = values.len() / channels.max(1);
    let rows = values.chunks_exact(length.max(1));
    let scale = |row: &[f32]| row.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs())) / 127.0;
    let scales: Vec<f32> = rows.clone().map(scale).collect();
    let step =
        |(row, scale): (&[f32], &f32)| row.iter().map(|value| (value / scale).round() as i8).collect::<Vec<i8>>();
    (rows.zip(&scales).flat_map(step).collect(), scales)
}
