use std::collections::HashSet;

use ndarray::Array2;
use sketch_model::inference::onnx::{check_self_contained, messages::ModelProto, write};

use super::architecture::{STEM, same_convolution};
use super::fold::{EPSILON, fold_normalisation};
use super::*;
use crate::head::Head;
use crate::precision::{Precision, narrow};
use crate::weights::{StateDict, Tensor};

/// Numbers that look random and are the same in every run, in [-1, 1).
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn insert(state: &mut StateDict, name: &str, shape: &[usize], seed: u64) {
    let values = noise(shape.iter().product(), seed);
    state.insert(name.to_owned(), Tensor { shape: shape.to_vec(), values });
}

fn insert_normalised(state: &mut StateDict, conv: &str, norm: &str, shape: [usize; 4]) {
    let seed = state.len() as u64 + 1;
    insert(state, &format!("{conv}.weight"), &shape, seed);
    for (i, name) in ["weight", "bias", "running_mean", "running_var"].iter().enumerate() {
        insert(state, &format!("{norm}.{name}"), &shape[..1], seed + 100 * (i as u64 + 1));
    }
    let variance = state.get_mut(&format!("{norm}.running_var")).unwrap();
    variance.values.iter_mut().for_each(|value| *value = value.abs() + 0.1);
}

/// Weights of the shapes that `variant` has.
fn random_weights(variant: Variant) -> StateDict {
    let mut state = StateDict::new();
    let architecture = Architecture::of(variant);
    insert_normalised(&mut state, "_conv_stem", "_bn0", [STEM, 3, 3, 3]);
    for (i, block) in architecture.blocks.iter().enumerate() {
        let name = |part| format!("_blocks.{i}.{part}");
        if block.hidden > block.inputs {
            let shape = [block.hidden, block.inputs, 1, 1];
            insert_normalised(&mut state, &name("_expand_conv"), &name("_bn0"), shape);
        }
        let kernel = block.depthwise.kernel;
        let shape = [block.hidden, 1, kernel, kernel];
        insert_normalised(&mut state, &name("_depthwise_conv"), &name("_bn1"), shape);
        let shape = [block.outputs, block.hidden, 1, 1];
        insert_normalised(&mut state, &name("_project_conv"), &name("_bn2"), shape);
    }
    let last = architecture.blocks[architecture.blocks.len() - 1].outputs;
    insert_normalised(&mut state, "_conv_head", "_bn1", [FEATURES, last, 1, 1]);
    insert(&mut state, "_fc.weight", &[CLASSES, FEATURES], 1);
    insert(&mut state, "_fc.bias", &[CLASSES], 2);
    state
}

fn build(variant: Variant, state: &StateDict, precision: Precision) -> Result<ModelProto, LiteError> {
    let mut model = build_graph(&Architecture::of(variant), state, &Head::plain(FEATURES, 512))?;
    narrow(&mut model, precision).unwrap();
    Ok(model)
}

/// A convolution of one image, written as its definition.
fn convolve(image: &[f32], channels: usize, side: usize, weight: &[f32], kernel: usize) -> Vec<f64> {
    let inside = side - kernel + 1;
    let outputs = weight.len() / (channels * kernel * kernel);
    let mut result = Vec::new();
    for output in 0..outputs {
        for (y, x) in (0..inside).flat_map(|y| (0..inside).map(move |x| (y, x))) {
            let mut sum = 0.0;
            for (c, i, j) in
                (0..channels * kernel * kernel).map(|n| (n / (kernel * kernel), n / kernel % kernel, n % kernel))
            {
                let weight = weight[((output * channels + c) * kernel + i) * kernel + j];
                sum += f64::from(weight) * f64::from(image[(c * side + y + i) * side + x + j]);
            }
            result.push(sum);
        }
    }
    result
}

/// `conv` then `(x - mean) / sqrt(variance + eps) * gamma + beta` equals the folded convolution.
#[test]
fn folding_does_not_change_the_result() {
    let (outputs, channels, kernel, side) = (4, 3, 3, 6);
    let mut state = StateDict::new();
    insert_normalised(&mut state, "conv", "norm", [outputs, channels, kernel, kernel]);
    let image = noise(channels * side * side, 99);

    let folded = fold_normalisation(&state, "conv", "norm", &[outputs, channels, kernel, kernel]).unwrap();
    let ours = convolve(&image, channels, side, &folded.weight, kernel);
    let plain = convolve(&image, channels, side, &state["conv.weight"].values, kernel);
    let pixels = plain.len() / outputs;
    for (i, (ours, plain)) in ours.iter().zip(&plain).enumerate() {
        let statistic = |name: &str| f64::from(state[&format!("norm.{name}")].values[i / pixels]);
        let deviation = (statistic("running_var") + EPSILON).sqrt();
        let expected = (plain - statistic("running_mean")) / deviation * statistic("weight") + statistic("bias");
        let actual = ours + f64::from(folded.bias[i / pixels]);
        assert!((actual - expected).abs() < 1e-5, "{actual} instead of {expected}");
    }
}

#[test]
fn padding_is_that_of_the_reference() {
    let pads = |side, kernel, stride| {
        let shape = same_convolution(side, kernel, stride, 1);
        (shape.pad_begin, shape.pad_end)
    };
    // Even sides at stride 2 take the odd zero at the end; odd sides are symmetric.
    assert_eq!(pads(224, 3, 2), (0, 1));
    assert_eq!(pads(56, 5, 2), (1, 2));
    assert_eq!(pads(65, 3, 2), (1, 1));
    assert_eq!(pads(14, 5, 1), (2, 2));
    assert_eq!(pads(7, 1, 1), (0, 0));
}

/// Blocks and parameters as the reference package counts them.
#[test]
fn variants_are_scaled_as_the_reference() {
    let count = |variant| {
        let weights = random_weights(variant);
        let trained = weights.iter().filter(|(name, _)| !name.contains("running"));
        trained.map(|(_, tensor)| tensor.values.len()).sum::<usize>()
    };
    let blocks = Variant::ALL.map(|variant| Architecture::of(variant).blocks.len());
    assert_eq!(blocks, [16, 21, 21, 24, 30]);
    assert_eq!([Variant::Lite0, Variant::Lite1, Variant::Lite2].map(count), [4_652_008, 5_416_680, 6_092_072]);
    for variant in Variant::ALL {
        assert_eq!(Variant::of_weights(&random_weights(variant)), Some(variant));
    }
}

/// Every tensor that a node reads was made before it, once.
#[test]
fn graph_is_well_formed() {
    for precision in [Precision::Fp16, Precision::Fp32] {
        let model = build(Variant::Lite0, &random_weights(Variant::Lite0), precision).unwrap();
        check_self_contained(&model).unwrap();
        let graph = model.graph.unwrap();
        let mut known: HashSet<&str> = graph.input.iter().map(|input| input.name()).collect();
        assert!(graph.initializer.iter().all(|tensor| known.insert(tensor.name())));
        for node in &graph.node {
            assert!(node.input.iter().all(|input| known.contains(&**input)), "{} reads what is not there", node.name());
            assert!(node.output.iter().all(|output| known.insert(output)), "{} is made twice", node.name());
        }
        assert!(graph.output.iter().all(|output| known.contains(output.name())));
    }
}

#[test]
fn half_precision_takes_half_the_bytes() {
    let state = random_weights(Variant::Lite0);
    let size = |precision| write(&build(Variant::Lite0, &state, precision).unwrap()).len();
    assert!(size(Precision::Fp16) < 12 << 20);
    assert!(size(Precision::Fp32) > 20 << 20);
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let mut state = random_weights(Variant::Lite0);
    let error = build(Variant::Lite1, &state, Precision::Fp32).unwrap_err();
    assert!(matches!(error, LiteError::Shape { .. } | LiteError::Missing { .. }));
    state.remove("_blocks.3._bn1.bias");
    let error = build(Variant::Lite0, &state, Precision::Fp32).unwrap_err();
    assert_eq!(error.to_string(), "weights have no tensor \"_blocks.3._bn1.bias\"");
    let head = Head { projection: Array2::zeros((3, 2)), ..Head::plain(FEATURES, 2) };
    let error = build_graph(&Architecture::of(Variant::Lite0), &state, &head).unwrap_err();
    assert!(matches!(error, LiteError::Projection { rows: 3 }));
}
