//! Model soup: averages the weights of several trainings from the same start.
//!
//! Source: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
//! increasing inference time", 2022.

use sketch_model::inference::onnx::OnnxError;
use sketch_model::inference::onnx::build::{tensor_f32, tensor_shape, tensor_values};
use sketch_model::inference::onnx::messages::{DataType, ModelProto, TensorProto};

/// Why networks could not be averaged.
#[derive(Debug, thiserror::Error)]
pub enum SoupError {
    #[error("there are no networks")]
    Empty,
    #[error("network {number} has different layers from the first")]
    Layers { number: usize },
    #[error("tensor \"{tensor}\" differs and is not in single precision")]
    Precision { tensor: String },
    #[error(transparent)]
    Onnx(#[from] OnnxError),
}

/// Averages the weights of `models`; everything else is taken from the first.
///
/// # Errors
/// [`SoupError::Layers`] if nodes or shapes of tensors differ, [`SoupError::Precision`] if a tensor that differs is not in
/// single precision, [`SoupError::Empty`] without networks.
pub fn mean(models: &[ModelProto]) -> Result<ModelProto, SoupError> {
    let (first, others) = models.split_first().ok_or(SoupError::Empty)?;
    let mut result = first.clone();
    for (i, other) in others.iter().enumerate() {
        if !has_same_layers(first, other) {
            return Err(SoupError::Layers { number: i + 2 });
        }
    }
    let tensors = result.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
    for (i, tensor) in tensors.enumerate() {
        let same: Vec<&TensorProto> =
            others.iter().flat_map(|other| &other.graph).map(|graph| &graph.initializer[i]).collect();
        if same.iter().any(|other| *other != tensor) {
            *tensor = mean_tensor(tensor, &same)?;
        }
    }
    Ok(result)
}

fn has_same_layers(a: &ModelProto, b: &ModelProto) -> bool {
    let (Some(a), Some(b)) = (&a.graph, &b.graph) else { return false };
    let form = |tensor: &TensorProto| (tensor.name.clone(), tensor.dims.clone(), tensor.data_type);
    a.node == b.node && a.initializer.iter().map(form).eq(b.initializer.iter().map(form))
}

fn mean_tensor(first: &TensorProto, others: &[&TensorProto]) -> Result<TensorProto, SoupError> {
    if first.data_type() != DataType::Float as i32 {
        return Err(SoupError::Precision { tensor: first.name().to_owned() });
    }
    let mut sums: Vec<f64> = tensor_values(first)?.into_iter().map(f64::from).collect();
    for other in others {
        sums.iter_mut().zip(tensor_values(other)?).for_each(|(sum, value)| *sum += f64::from(value));
    }
    let count = (others.len() + 1) as f64;
    let values: Vec<f32> = sums.into_iter().map(|sum| (sum / count) as f32).collect();
    Ok(tensor_f32(first.name(), &tensor_shape(first)?, &values)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Tape;
    use crate::precision::{Precision, narrow};
    use sketch_model::inference::onnx::build::value_info;

    fn network(weights: &[f32], operator: &str) -> ModelProto {
        let mut tape = Tape::default();
        let axes = tape.integers(&[1]);
        tape.named_constant("weight", &[weights.len()], weights).unwrap();
        tape.named(operator, &["input", "weight", &axes], &["output"], vec![]);
        tape.network("test", vec![], vec![value_info("output", DataType::Float, &[])])
    }

    #[test]
    fn weights_are_means_and_the_rest_stays() {
        let soup =
            mean(&[network(&[1.0, 2.0], "Add"), network(&[2.0, 4.0], "Add"), network(&[6.0, 0.0], "Add")]).unwrap();
        let graph = soup.graph.as_ref().unwrap();
        assert_eq!(tensor_values(&graph.initializer[1]).unwrap(), [3.0, 2.0]);
        assert_eq!(graph.initializer[0], network(&[0.0], "Add").graph.unwrap().initializer[0]);
        let alone = network(&[0.1, 0.2], "Add");
        assert_eq!(mean(&[alone.clone(), alone.clone()]).unwrap(), alone);
    }

    #[test]
    fn networks_of_other_layers_are_refused() {
        let add = network(&[1.0, 2.0], "Add");
        assert!(matches!(mean(&[]), Err(SoupError::Empty)));
        assert!(matches!(mean(&[add.clone(), network(&[1.0, 2.0], "Mul")]), Err(SoupError::Layers { number: 2 })));
        assert!(matches!(mean(&[add.clone(), add, network(&[1.0], "Add")]), Err(SoupError::Layers { number: 3 })));
        let narrowed = |value| {
            let mut network = network(&[value; 5000], "Add");
            narrow(&mut network, Precision::Fp16).unwrap();
            network
        };
        assert!(matches!(mean(&[narrowed(1.0), narrowed(2.0)]), Err(SoupError::Precision { .. })));
    }
}
