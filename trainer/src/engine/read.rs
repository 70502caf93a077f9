//! Reads an ONNX network into a tape.

use std::collections::HashSet;

use sketch_model::inference::onnx::build::{tensor_f32, tensor_shape, tensor_values};
use sketch_model::inference::onnx::messages::{DataType, ModelProto, NodeProto, OperatorSetIdProto, TensorProto};
use sketch_model::inference::onnx::{OnnxError, check_self_contained};

use super::tape::OPSET;
use super::upgrade::{SUPPORTED, Upgraded, upgrade};
use super::{EngineError, Tape};

impl Tape {
    /// Reads a network for training.
    ///
    /// Constants in half precision or in `Constant` nodes become plain single-precision constants of the same name; operators
    /// of older sets are rewritten. Inputs are declared by [`Tape::input`], with the static shapes of training.
    ///
    /// # Errors
    /// [`EngineError::Onnx`] if the network refers to external data, [`EngineError::OperatorSet`] and [`EngineError::Node`] if
    /// it is too old.
    pub fn read(model: &ModelProto) -> Result<Self, EngineError> {
        check_self_contained(model)?;
        let opset = operator_set(model)?;
        let graph = model.graph.as_ref().ok_or(OnnxError::NoGraph)?;
        let mut tape = Self::default();
        for tensor in &graph.initializer {
            tape.initializers.insert(tensor.name().to_owned(), tensor.clone());
        }
        for node in &graph.node {
            let Upgraded { nodes, constant } = upgrade(node.clone(), opset)?;
            tape.initializers.extend(constant.map(|tensor| (tensor.name().to_owned(), tensor)));
            for node in nodes {
                match tape.folded(&node)? {
                    Some(tensor) => {
                        tape.initializers.insert(tensor.name().to_owned(), tensor);
                    }
                    None => tape.nodes.push(node),
                }
            }
        }
        tape.declare_constants()?;
        Ok(tape)
    }

    fn declare_constants(&mut self) -> Result<(), EngineError> {
        for (name, tensor) in &self.initializers {
            let Ok(element) = DataType::try_from(tensor.data_type()) else { continue };
            let integers = (element == DataType::Int64).then(|| integers(tensor));
            self.facts.insert(name.clone(), super::tape::Info { element, shape: tensor_shape(tensor)?, integers });
        }
        Ok(())
    }

    /// The constant that a node computes from constants, for nodes that only store constants differently.
    ///
    /// The output of `Identity` becomes a constant of its own: PyTorch's exporter writes equal tensors once, such as biases and
    /// running means of a new network, and training makes them differ.
    fn folded(&self, node: &NodeProto) -> Result<Option<TensorProto>, EngineError> {
        let output = node.output.first().cloned().unwrap_or_default();
        let source = node.input.first().and_then(|name| self.initializers.get(name));
        Ok(match (node.op_type(), source) {
            ("Constant", _) => constant_of(node, &output)?,
            ("Identity", Some(tensor)) => Some(TensorProto { name: Some(output), ..tensor.clone() }),
            ("Cast", Some(tensor)) if casts_to_float(node) => widened(tensor, &output)?,
            ("Mul", Some(steps)) => match node.input.get(1).and_then(|name| self.initializers.get(name)) {
                Some(scales) => scaled(steps, scales, &output)?,
                None => None,
            },
            _ => None,
        })
    }
}

/// The network with its weights in single precision, however they are stored.
///
/// # Errors
/// As [`Tape::read`].
pub fn in_single_precision(model: &ModelProto) -> Result<ModelProto, EngineError> {
    let mut result = model.clone();
    let tape = Tape::read(model)?;
    if let Some(graph) = result.graph.as_mut() {
        let used: HashSet<&str> = tape.nodes.iter().flat_map(|node| &node.input).map(String::as_str).collect();
        let is_used = |tensor: &&TensorProto| used.contains(tensor.name());
        let single = |tensor: &TensorProto| match DataType::try_from(tensor.data_type()) {
            Ok(DataType::Float16) => tensor_f32(tensor.name(), &tensor_shape(tensor)?, &tensor_values(tensor)?),
            _ => Ok(tensor.clone()),
        };
        graph.initializer = tape.initializers.values().filter(is_used).map(single).collect::<Result<_, _>>()?;
        graph.node = tape.nodes.clone();
    }
    result.opset_import = vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }];
    Ok(result)
}

/// A constant in half precision or 8-bit integers, widened to single precision.
fn widened(tensor: &TensorProto, name: &str) -> Result<Option<TensorProto>, EngineError> {
    let values = match DataType::try_from(tensor.data_type()) {
        Ok(DataType::Float16) => tensor_values(tensor)?,
        Ok(DataType::Int8) => tensor.raw_data.iter().flatten().map(|&byte| f32::from(byte as i8)).collect(),
        _ => return Ok(None),
    };
    Ok(Some(tensor_f32(name, &tensor_shape(tensor)?, &values)?))
}

/// The product of two constants: quantised kernels and their scale per output channel.
fn scaled(steps: &TensorProto, scales: &TensorProto, name: &str) -> Result<Option<TensorProto>, EngineError> {
    let (shape, channels) = (tensor_shape(steps)?, tensor_shape(scales)?);
    let per_channel = shape.len() == channels.len() && shape.first() == channels.first();
    if !per_channel || channels.iter().skip(1).any(|&size| size != 1) {
        return Ok(None);
    }
    let scales = tensor_values(scales)?;
    let length = shape.iter().skip(1).product::<usize>().max(1);
    let values: Vec<f32> =
        tensor_values(steps)?.iter().enumerate().map(|(i, step)| step * scales[i / length]).collect();
    Ok(Some(tensor_f32(name, &shape, &values)?))
}

fn casts_to_float(node: &NodeProto) -> bool {
    node.attribute.iter().any(|attribute| attribute.name() == "to" && attribute.i == Some(DataType::Float as i64))
}

/// The tensor of a `Constant` node, in any of the standard's forms.
fn constant_of(node: &NodeProto, name: &str) -> Result<Option<TensorProto>, EngineError> {
    let Some(attribute) = node.attribute.first() else { return Ok(None) };
    let scalar = |mut tensor: TensorProto| {
        tensor.dims.clear();
        tensor
    };
    let tensor = match attribute.name() {
        "value" => attribute.t.clone().map(|tensor| TensorProto { name: Some(name.to_owned()), ..tensor }),
        "value_float" => Some(scalar(tensor_f32(name, &[1], &[attribute.f.unwrap_or_default()])?)),
        "value_floats" => Some(tensor_f32(name, &[attribute.floats.len()], &attribute.floats)?),
        "value_int" => {
            let values = [attribute.i.unwrap_or_default()];
            Some(scalar(sketch_model::inference::onnx::build::tensor_i64(name, &[1], &values)?))
        }
        "value_ints" => {
            Some(sketch_model::inference::onnx::build::tensor_i64(name, &[attribute.ints.len()], &attribute.ints)?)
        }
        _ => None,
    };
    Ok(tensor)
}

/// The values of an int64 tensor, from either field of the message.
pub(super) fn integers(tensor: &TensorProto) -> Vec<i64> {
    match &tensor.raw_data {
        Some(raw) => raw.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap_or_default())).collect(),
        None => tensor.int64_data.clone(),
    }
}

fn operator_set(model: &ModelProto) -> Result<i64, EngineError> {
    let is_onnx = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let sets = model.opset_import.iter();
    let found = sets.filter(|set| is_onnx(set.domain())).map(|set| set.version()).max().unwrap_or_default();
    if SUPPORTED.contains(&found) {
        Ok(found)
    } else {
        Err(EngineError::OperatorSet { found, oldest: *SUPPORTED.start(), newest: *SUPPORTED.end() })
    }
}
