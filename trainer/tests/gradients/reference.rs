//! Reference implementation of ONNX operators in double precision, written from the standard: slow and simple.

mod elementwise;
mod images;
mod linear;
mod normalisation;
mod pooling;
mod shape;

use std::collections::HashMap;

use ndarray::{ArrayD, IxDyn};
use sketch_model::inference::onnx::build::tensor_shape;
use sketch_model::inference::onnx::messages::{AttributeProto, DataType, ModelProto, NodeProto, TensorProto};

/// Integers and truth values are held as numbers, too.
pub type Array = ArrayD<f64>;

/// A node and the values of its inputs; omitted inputs are `None`.
pub struct Call<'a> {
    node: &'a NodeProto,
    inputs: Vec<Option<&'a Array>>,
}

impl Call<'_> {
    fn x(&self, position: usize) -> &Array {
        self.optional(position).unwrap_or_else(|| panic!("{} lacks input {position}", self.node.op_type()))
    }

    fn optional(&self, position: usize) -> Option<&Array> {
        self.inputs.get(position).copied().flatten()
    }

    fn integers(&self, position: usize) -> Option<Vec<i64>> {
        self.optional(position).map(|values| values.iter().map(|&value| value as i64).collect())
    }

    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute.iter().find(|attribute| attribute.name() == name)
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |attribute| attribute.i.unwrap())
    }

    fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.attribute(name).map(|attribute| attribute.ints.clone())
    }

    fn float(&self, name: &str, default: f64) -> f64 {
        self.attribute(name).map_or(default, |attribute| f64::from(attribute.f.unwrap()))
    }

    fn text(&self, name: &str) -> String {
        let bytes = self.attribute(name).and_then(|attribute| attribute.s.clone()).unwrap_or_default();
        String::from_utf8(bytes).unwrap()
    }

    /// The axis of a possibly negative attribute or number.
    fn axis(&self, axis: i64, rank: usize) -> usize {
        (if axis < 0 { axis + rank as i64 } else { axis }) as usize
    }
}

/// Runs `model` on `feeds` and returns every tensor by its name.
pub fn run(model: &ModelProto, feeds: &HashMap<String, Array>) -> HashMap<String, Array> {
    let graph = model.graph.as_ref().unwrap();
    let mut tensors = feeds.clone();
    for constant in &graph.initializer {
        tensors.insert(constant.name().to_owned(), constant_values(constant));
    }
    for node in &graph.node {
        let outputs = {
            let value = |name: &String| (!name.is_empty()).then(|| &tensors[name]);
            let call = Call { node, inputs: node.input.iter().map(value).collect() };
            evaluate(&call)
        };
        for (name, value) in node.output.iter().zip(outputs) {
            tensors.insert(name.clone(), value);
        }
    }
    tensors
}

fn constant_values(tensor: &TensorProto) -> Array {
    let shape = IxDyn(&tensor_shape(tensor).unwrap());
    let values: Vec<f64> = if tensor.data_type() == DataType::Int64 as i32 {
        let raw = tensor.raw_data.as_ref().unwrap();
        raw.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) as f64).collect()
    } else {
        sketch_model::inference::onnx::build::tensor_values(tensor).unwrap().into_iter().map(f64::from).collect()
    };
    ArrayD::from_shape_vec(shape, values).unwrap()
}

fn evaluate(call: &Call) -> Vec<Array> {
    let families = [
        elementwise::evaluate,
        images::evaluate,
        linear::evaluate,
        normalisation::evaluate,
        pooling::evaluate,
        shape::evaluate,
    ];
    families
        .iter()
        .find_map(|family| family(call))
        .unwrap_or_else(|| panic!("the reference has no operator {}", call.node.op_type()))
}
