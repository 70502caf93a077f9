//! The centre of each domain's features, which integers move.

use std::collections::HashMap;

use sketch_model::inference::encoder::{Domain, EncoderOptions};
use sketch_model::inference::onnx::build::{tensor_f32, tensor_shape, tensor_values};
use sketch_model::inference::onnx::messages::{GraphProto, ModelProto};
use sketch_model::manifest::Manifest;

use super::QuantiseError;
use super::ranges::{Images, observe};

/// Moves the means that the head subtracts from the features by as much as integers move the features, on average over
/// images of each domain: drawings are mostly paper, whose small error is everywhere the same.
///
/// `model`: in single precision; `quantised`: the same network in integers; `images`: one iterator for each of them.
/// Returns whether the network has such a head.
///
/// # Errors
/// As [`calibrate`](super::calibrate).
pub fn recentre<E: From<QuantiseError>>(
    model: &ModelProto,
    quantised: &mut ModelProto,
    manifest: &Manifest,
    images: [Images<E>; 2],
    options: &EncoderOptions,
) -> Result<bool, E> {
    let Some((features, means)) = quantised.graph.as_ref().and_then(head) else { return Ok(false) };
    let names = [features];
    let [of_model, of_quantised] = images;
    let mut sums: HashMap<usize, (f32, Vec<f32>)> = HashMap::new();
    let mut add = |sign: f32, domain: Domain, values: &[f32]| {
        let (count, sum) = sums.entry(domain as usize).or_default();
        sum.resize(values.len(), 0.0);
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += sign * value);
        *count += sign.max(0.0);
    };
    observe(model, manifest, of_model, options, &names, &mut |domain, _, _, values| add(-1.0, domain, values))?;
    observe(quantised, manifest, of_quantised, options, &names, &mut |domain, _, _, values| add(1.0, domain, values))?;
    let graph = quantised.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
    for tensor in graph.filter(|tensor| tensor.name() == means) {
        let mut values = tensor_values(tensor).map_err(QuantiseError::from)?;
        for (domain, (count, sum)) in &sums {
            let row = values.chunks_exact_mut(sum.len().max(1)).nth(*domain);
            row.into_iter().flatten().zip(sum).for_each(|(mean, moved)| *mean += moved / count.max(1.0));
        }
        let shape = tensor_shape(tensor).map_err(QuantiseError::from)?;
        *tensor = tensor_f32(&means, &shape, &values).map_err(QuantiseError::from)?;
    }
    Ok(true)
}

/// The tensor from which a mean of the image's domain is subtracted, and the constant that holds the means.
fn head(graph: &GraphProto) -> Option<(String, String)> {
    let is_constant = |name: &str| graph.initializer.iter().any(|tensor| tensor.name() == name);
    let by_domain = graph.node.iter().find(|node| {
        node.op_type() == "Gather"
            && node.input.get(1).is_some_and(|name| name == "domain")
            && is_constant(&node.input[0])
    })?;
    let subtracts = |name: &String| by_domain.output.first() == Some(name);
    let sub = graph.node.iter().find(|node| node.op_type() == "Sub" && node.input.get(1).is_some_and(subtracts))?;
    Some((sub.input[0].clone(), by_domain.input[0].clone()))
}
