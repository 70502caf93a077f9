//! The few shapes of message that a builder of graphs needs, and tensors to and from numbers.

use half::f16;

use super::OnnxError;
use super::messages::tensor_shape_proto::{Dimension, dimension};
use super::messages::{
    AttributeProto, AttributeType, DataType, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    type_proto,
};

/// Most values that a tensor may have: 2 GiB of f32, the most that one protobuf message can carry.
const MOST_VALUES: usize = 1 << 29;

/// Size of one dimension of an input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size<'a> {
    /// The same in every run.
    Fixed(usize),
    /// Known when the graph runs; equal names are equal sizes.
    Named(&'a str),
}

/// A node named after its first output.
pub fn node(operator: &str, inputs: &[&str], outputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    NodeProto {
        name: outputs.first().map(|&output| output.to_owned()),
        op_type: Some(operator.to_owned()),
        input: owned(inputs),
        output: owned(outputs),
        attribute: attributes,
        ..NodeProto::default()
    }
}

/// An integer attribute.
pub fn attribute_int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

/// An attribute that is a list of integers.
pub fn attribute_ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::Ints) }
}

/// A floating-point attribute.
pub fn attribute_float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, AttributeType::Float) }
}

/// An attribute that is a word.
pub fn attribute_text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.as_bytes().to_vec()), ..attribute(name, AttributeType::String) }
}

fn attribute(name: &str, r#type: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(r#type as i32), ..AttributeProto::default() }
}

/// Name, type and shape of an input or output.
pub fn value_info(name: &str, data_type: DataType, shape: &[Size<'_>]) -> ValueInfoProto {
    let dim = shape
        .iter()
        .map(|size| Dimension {
            value: Some(match size {
                Size::Fixed(size) => dimension::Value::DimValue(*size as i64),
                Size::Named(name) => dimension::Value::DimParam((*name).to_owned()),
            }),
            denotation: None,
        })
        .collect();
    let tensor = type_proto::Tensor { elem_type: Some(data_type as i32), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), denotation: None }),
        ..ValueInfoProto::default()
    }
}

/// A tensor of single-precision numbers.
///
/// # Errors
/// [`OnnxError::Length`] if `shape` does not hold as many numbers as `values`.
pub fn tensor_f32(name: &str, shape: &[usize], values: &[f32]) -> Result<TensorProto, OnnxError> {
    let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, shape, values.len(), DataType::Float, raw)
}

/// A single number: a tensor without dimensions.
pub fn scalar_f32(name: &str, value: f32) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(DataType::Float as i32),
        raw_data: Some(value.to_le_bytes().to_vec()),
        ..TensorProto::default()
    }
}

/// A tensor of half-precision numbers, each the one nearest to the given (ties to even, too large to infinity).
///
/// # Errors
/// [`OnnxError::Length`] if `shape` does not hold as many numbers as `values`.
pub fn tensor_f16(name: &str, shape: &[usize], values: &[f32]) -> Result<TensorProto, OnnxError> {
    let raw = values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
    tensor(name, shape, values.len(), DataType::Float16, raw)
}

/// A tensor of integers.
///
/// # Errors
/// [`OnnxError::Length`] if `shape` does not hold as many numbers as `values`.
pub fn tensor_i64(name: &str, shape: &[usize], values: &[i64]) -> Result<TensorProto, OnnxError> {
    let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, shape, values.len(), DataType::Int64, raw)
}

/// A tensor of small integers.
///
/// # Errors
/// [`OnnxError::Length`] if `shape` does not hold as many numbers as `values`.
pub fn tensor_i8(name: &str, shape: &[usize], values: &[i8]) -> Result<TensorProto, OnnxError> {
    let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, shape, values.len(), DataType::Int8, raw)
}

/// A tensor of small integers that are not negative.
///
/// # Errors
/// [`OnnxError::Length`] if `shape` does not hold as many numbers as `values`.
pub fn tensor_u8(name: &str, shape: &[usize], values: &[u8]) -> Result<TensorProto, OnnxError> {
    tensor(name, shape, values.len(), DataType::Uint8, values.to_vec())
}

/// A tensor of 32-bit integers.
///
/// # Errors
/// [`OnnxError::Length`] if `shape` does not hold as many numbers as `values`.
pub fn tensor_i32(name: &str, shape: &[usize], values: &[i32]) -> Result<TensorProto, OnnxError> {
    let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, shape, values.len(), DataType::Int32, raw)
}

fn tensor(
    name: &str,
    shape: &[usize],
    found: usize,
    data_type: DataType,
    raw: Vec<u8>,
) -> Result<TensorProto, OnnxError> {
    let expected = shape.iter().product();
    if found != expected {
        return Err(OnnxError::Length { tensor: name.to_owned(), found, expected });
    }
    Ok(TensorProto {
        name: Some(name.to_owned()),
        dims: shape.iter().map(|&size| size as i64).collect(),
        data_type: Some(data_type as i32),
        raw_data: Some(raw),
        ..TensorProto::default()
    })
}

/// The shape of a tensor.
///
/// # Errors
/// [`OnnxError::Shape`] if a size is negative or there are more than 2^29 values.
pub fn tensor_shape(tensor: &TensorProto) -> Result<Vec<usize>, OnnxError> {
    let refused = || OnnxError::Shape { tensor: tensor.name().to_owned() };
    let shape: Vec<usize> =
        tensor.dims.iter().map(|&size| usize::try_from(size).map_err(|_| refused())).collect::<Result<_, _>>()?;
    let values = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size)).ok_or_else(refused)?;
    if values > MOST_VALUES { Err(refused()) } else { Ok(shape) }
}

/// The numbers of a single- or half-precision tensor, wherever the message keeps them.
///
/// # Errors
/// [`OnnxError::DataType`] for another type, [`OnnxError::Length`] if there are more or fewer numbers than the shape
/// says, [`OnnxError::Shape`] as [`tensor_shape`].
pub fn tensor_values(tensor: &TensorProto) -> Result<Vec<f32>, OnnxError> {
    let values: Vec<f32> = match (tensor.data_type(), &tensor.raw_data) {
        (1, Some(raw)) => raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        (1, None) => tensor.float_data.clone(),
        (10, Some(raw)) => raw.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        // Half-precision numbers outside raw_data are bit patterns, one in each int32.
        (10, None) => tensor.int32_data.iter().map(|&bits| f16::from_bits(bits as u16).to_f32()).collect(),
        (data_type, _) => {
            let tensor = tensor.name().to_owned();
            return Err(OnnxError::DataType { tensor, data_type, expected: "FLOAT (1) or FLOAT16 (10)" });
        }
    };
    let expected = tensor_shape(tensor)?.iter().product();
    if values.len() != expected {
        return Err(OnnxError::Length { tensor: tensor.name().to_owned(), found: values.len(), expected });
    }
    Ok(values)
}
