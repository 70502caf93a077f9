//! Depthwise convolutions: each channel has its own kernel, shape `(c, 1, kh, kw)`.
//!
//! ONNX Runtime processes them channel by channel and image by image, which is slow for small images. For those, the
//! convolution is written as one matrix per channel, from input pixels to output pixels, and the gradients are products with
//! these matrices.

use sketch_model::inference::onnx::build::{attribute_int, attribute_ints};

use super::Scope;
use super::convolution::{Geometry, positions, tap};
use crate::engine::EngineError;

/// Most pairs of an input and an output pixel for which the input gradient uses products: 7 by 7 pixels.
const INPUT_PAIRS: usize = 2401;
/// The same for the weight gradient, which does not need the kernel's matrix.
const WEIGHT_PAIRS: usize = 10_000;

/// Gradient of the input; none where a transposed convolution is as fast.
///
/// `tensors`: gradient of the output, kernel. `shapes`: of input and output.
///
/// 32 images, products and the flipped kernel: 1.4 ms and 17 ms (5 x 5, 4 px, 1152 channels), 4.4 ms and 17 ms (5 x 5, 7 px,
/// 672 channels), 1.9 ms and 5.5 ms (3 x 3, 7 px, 480 channels), but 20 ms and 13 ms (5 x 5, 14 px, 240 channels).
pub(super) fn input_gradient(
    scope: &mut Scope,
    geometry: &Geometry,
    tensors: [&str; 2],
    shapes: [&[usize]; 2],
) -> Result<Option<String>, EngineError> {
    if pairs(shapes) <= INPUT_PAIRS {
        return input_product(scope, geometry, tensors, shapes).map(Some);
    }
    // A convolution with the flipped kernel takes half the time of the transposed one where ONNX Runtime has an optimised
    // implementation (3 x 3, 28 px, 144 channels: 6 ms and 11 ms), and the same elsewhere. With a stride, it would need zeros
    // between the values: 32 ms and 9 ms (5 x 5, 28 px).
    let pads = if geometry.strides == [1, 1] { flipped_pads(geometry, shapes[0], shapes[1]) } else { None };
    Ok(pads.map(|pads| flipped_convolution(scope, geometry, tensors[0], tensors[1], pads)))
}

/// Gradient of the kernel, shape `(c, 1, kh, kw)`; none where [`taps`] are as fast.
///
/// `tensors`, `shapes`: of the input, then of the output's gradient.
///
/// 32 images, products and one convolution: 0.8 ms and 15 ms (5 x 5, 4 px, 1152 channels), 4.5 ms and 27 ms (5 x 5, 7 px, 672
/// channels), 1.9 ms and 11 ms (3 x 3, 7 px, 480 channels).
pub(super) fn weight_gradient(
    scope: &mut Scope,
    geometry: &Geometry,
    tensors: [&str; 2],
    shapes: [&[usize]; 2],
) -> Result<Option<String>, EngineError> {
    if pairs(shapes) <= WEIGHT_PAIRS {
        return weight_product(scope, geometry, tensors, shapes).map(Some);
    }
    // 28 px, 144 channels, one convolution and taps: 11 ms and 123 ms (5 x 5, stride 2), but 27 ms and 24 ms (3 x 3).
    let is_large = geometry.strides != [1, 1] || geometry.kernel[0] * geometry.kernel[1] > 9;
    Ok(is_large.then(|| exchanged_convolution(scope, geometry, tensors, shapes)))
}

/// Pairs of an input and an output pixel.
fn pairs(shapes: [&[usize]; 2]) -> usize {
    shapes.iter().map(|shape| shape[2] * shape[3]).product()
}

/// Which tap of the kernel connects an output pixel with an input pixel: zeros and ones of shape `(kh kw, output pixels, input
/// pixels)`, the last two as one axis.
fn joints(scope: &mut Scope, geometry: &Geometry, input: &[usize], output: &[usize]) -> Result<String, EngineError> {
    let pairs = pairs([input, output]);
    let mut values = vec![0.0; geometry.kernel[0] * geometry.kernel[1] * pairs];
    for (tap, at) in positions(geometry.kernel).enumerate() {
        for (place, from) in positions([output[2], output[3]]).enumerate() {
            let along = |axis: usize| {
                let padded = from[axis] * geometry.strides[axis] + at[axis] * geometry.dilations[axis];
                padded.checked_sub(geometry.before[axis]).filter(|&row| row < input[2 + axis])
            };
            if let (Some(row), Some(column)) = (along(0), along(1)) {
                values[tap * pairs + place * input[2] * input[3] + row * input[3] + column] = 1.0;
            }
        }
    }
    scope.tape.constant("joints", &[geometry.kernel[0] * geometry.kernel[1], pairs], &values)
}

/// Images `(n, c, h, w)` as `(c, n, h w)`.
fn by_channel(scope: &mut Scope, tensor: &str, shape: &[usize]) -> String {
    let rows = scope.reshaped(tensor, &[shape[0], shape[1], shape[2] * shape[3]]);
    scope.transposed(&rows, &[1, 0, 2])
}

/// `∂X = G T` for each channel, `T` the matrix from output pixels to input pixels.
fn input_product(
    scope: &mut Scope,
    geometry: &Geometry,
    [gradient, kernel]: [&str; 2],
    [input, output]: [&[usize]; 2],
) -> Result<String, EngineError> {
    let (channels, taps) = (input[1], geometry.kernel[0] * geometry.kernel[1]);
    let joints = joints(scope, geometry, input, output)?;
    let kernel = scope.reshaped(kernel, &[channels, taps]);
    let matrix = scope.op("MatMul", &[&kernel, &joints]);
    let matrix = scope.reshaped(&matrix, &[channels, output[2] * output[3], input[2] * input[3]]);
    let gradient = by_channel(scope, gradient, output);
    let product = scope.op("MatMul", &[&gradient, &matrix]);
    let product = scope.transposed(&product, &[1, 0, 2]);
    Ok(scope.reshaped(&product, input))
}

/// `∂T = Gᵀ X` for each channel, summed over all pairs of pixels that a tap connects.
fn weight_product(
    scope: &mut Scope,
    geometry: &Geometry,
    [image, gradient]: [&str; 2],
    [input, output]: [&[usize]; 2],
) -> Result<String, EngineError> {
    let joints = joints(scope, geometry, input, output)?;
    let image = by_channel(scope, image, input);
    let gradient = by_channel(scope, gradient, output);
    let gradient = scope.transposed(&gradient, &[0, 2, 1]);
    let product = scope.op("MatMul", &[&gradient, &image]);
    let product = scope.reshaped(&product, &[input[1], pairs([input, output])]);
    let sums = scope.tape.op("Gemm", &[&product, &joints], vec![attribute_int("transB", 1)]);
    Ok(scope.reshaped(&sums, &[input[1], 1, geometry.kernel[0], geometry.kernel[1]]))
}

/// Pads of the convolution with the flipped kernel that gives an image of the input's size; none if one is negative.
fn flipped_pads(geometry: &Geometry, input: &[usize], output: &[usize]) -> Option<[i64; 4]> {
    let along = |axis: usize| {
        let reach = (geometry.dilations[axis] * (geometry.kernel[axis] - 1)) as i64;
        let before = reach - geometry.before[axis] as i64;
        (before, input[2 + axis] as i64 - output[2 + axis] as i64 - before + reach)
    };
    let ((top, bottom), (left, right)) = (along(0), along(1));
    let pads = [top, left, bottom, right];
    pads.iter().all(|&pad| pad >= 0).then_some(pads)
}

/// By a depthwise convolution with the flipped kernel over the gradient.
fn flipped_convolution(scope: &mut Scope, geometry: &Geometry, gradient: &str, kernel: &str, pads: [i64; 4]) -> String {
    let flipped = scope.sliced(kernel, &[2, 3], &[-1, -1], &[i64::MIN, i64::MIN], &[-1, -1]);
    let attributes = vec![
        attribute_int("group", geometry.group as i64),
        attribute_ints("kernel_shape", &geometry.kernel.map(|size| size as i64)),
        attribute_ints("dilations", &geometry.dilations.map(|size| size as i64)),
        attribute_ints("pads", &pads),
    ];
    scope.tape.op("Conv", &[gradient, &flipped], attributes)
}

/// By one convolution of every channel of every image with its gradient, strides and dilations exchanged.
fn exchanged_convolution(
    scope: &mut Scope,
    geometry: &Geometry,
    tensors: [&str; 2],
    [image, gradient]: [&[usize]; 2],
) -> String {
    let (kernel, planes) = (geometry.kernel, image[0] * image[1]);
    let seen = scope.reshaped(tensors[0], &[1, planes, image[2], image[3]]);
    let kernels = scope.reshaped(tensors[1], &[planes, 1, gradient[2], gradient[3]]);
    // Cuts off rows and columns that no tap covers.
    let after = [0, 1].map(|axis| {
        let reached =
            (kernel[axis] - 1) * geometry.dilations[axis] + (gradient[2 + axis] - 1) * geometry.strides[axis] + 1;
        reached.saturating_sub(image[2 + axis] + geometry.before[axis])
    });
    let exchanged = Geometry {
        group: planes,
        kernel: [gradient[2], gradient[3]],
        strides: geometry.dilations,
        dilations: geometry.strides,
        before: geometry.before,
        after,
    };
    let taps = scope.tape.op("Conv", &[&seen, &kernels], exchanged.attributes());
    let taps = scope.sliced(&taps, &[2, 3], &[0, 0], &[kernel[0] as i64, kernel[1] as i64], &[1, 1]);
    let taps = scope.reshaped(&taps, &[image[0], image[1], 1, kernel[0], kernel[1]]);
    scope.summed(&taps, &[0], false)
}

/// One tensor of shape `(c, 1, 1)` per tap.
pub(super) fn taps(scope: &mut Scope, geometry: &Geometry, tensors: [&str; 2], output: &[usize]) -> Vec<String> {
    let tap_gradient = |at| {
        let seen = tap(scope, geometry, tensors[0], [2, 3], at, [output[2], output[3]]);
        let product = scope.op("Mul", &[&seen, tensors[1]]);
        let sum = scope.channel_sums(&product, output);
        scope.reshaped(&sum, &[output[1], 1, 1])
    };
    positions(geometry.kernel).map(tap_gradient).collect()
}
