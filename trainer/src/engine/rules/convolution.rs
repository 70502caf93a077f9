//! Convolutions over images: shape `(n, c, h, w)`.

use sketch_model::inference::onnx::build::{attribute_int, attribute_ints};
use sketch_model::inference::onnx::messages::AttributeProto;

use super::{Gradients, Scope, depthwise};
use crate::engine::EngineError;

/// The geometry of a convolution; vertical before horizontal.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub group: usize,
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    pub dilations: [usize; 2],
    /// Zeros before the first row and column.
    pub before: [usize; 2],
    /// Zeros after the last row and column.
    pub after: [usize; 2],
}

impl Geometry {
    /// The geometry of the node in `scope`, from images of shape `input` to images of shape `output`.
    fn of(scope: &Scope, weight: &[usize], input: &[usize], output: &[usize]) -> Result<Self, EngineError> {
        let (&[_, _, kh, kw], &[_, _, ih, iw], &[_, _, oh, ow]) = (weight, input, output) else {
            return Err(scope.refuse("it is not over images of two dimensions"));
        };
        let pair = |name: &str| match scope.ints(name).as_deref() {
            Some(&[a, b]) => [a as usize, b as usize],
            _ => [1, 1],
        };
        let (strides, dilations) = (pair("strides"), pair("dilations"));
        let needed = |axis: usize, kernel: usize, input: usize, output: usize| {
            ((output - 1) * strides[axis] + dilations[axis] * (kernel - 1) + 1).saturating_sub(input)
        };
        let total = [needed(0, kh, ih, oh), needed(1, kw, iw, ow)];
        let (before, after) = match (scope.text("auto_pad").as_deref(), scope.ints("pads").as_deref()) {
            (Some("SAME_UPPER"), _) => (total.map(|pad| pad / 2), total.map(|pad| pad - pad / 2)),
            (Some("SAME_LOWER"), _) => (total.map(|pad| pad - pad / 2), total.map(|pad| pad / 2)),
            (_, Some(&[top, left, bottom, right])) => {
                ([top as usize, left as usize], [bottom as usize, right as usize])
            }
            _ => ([0; 2], [0; 2]),
        };
        let group = scope.int("group", 1).max(1) as usize;
        Ok(Self { group, kernel: [kh, kw], strides, dilations, before, after })
    }

    pub fn attributes(&self) -> Vec<AttributeProto> {
        let pair = |values: [usize; 2]| values.map(|value| value as i64);
        let pads = [self.before[0], self.before[1], self.after[0], self.after[1]].map(|pad| pad as i64);
        vec![
            attribute_int("group", self.group as i64),
            attribute_ints("kernel_shape", &pair(self.kernel)),
            attribute_ints("strides", &pair(self.strides)),
            attribute_ints("dilations", &pair(self.dilations)),
            attribute_ints("pads", &pads),
        ]
    }

    /// Whether every channel of `input` has exactly one kernel of its own.
    fn is_depthwise(&self, input: &[usize], weight: &[usize]) -> bool {
        self.group == input[1] && weight[0] == self.group
    }

    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.strides == [1, 1] && self.before == [0, 0] && self.after == [0, 0]
    }
}

pub(super) fn conv(scope: &mut Scope) -> Gradients {
    let (input, weight, output) = (scope.shape_of_input(0)?, scope.shape_of_input(1)?, scope.shape_of_output()?);
    let geometry = Geometry::of(scope, &weight, &input, &output)?;
    let (gradient, image) = (scope.gradient()?, scope.input(0)?);
    let mut inputs = vec![None; scope.node.input.len()];
    if scope.wants(0) {
        inputs[0] = Some(input_gradient(scope, &geometry, &gradient, &input, &output, &weight)?);
    }
    if scope.wants(1) {
        inputs[1] = Some(weight_gradient(scope, &geometry, [&image, &gradient], [&input, &output], &weight)?);
    }
    if scope.wants(2) {
        inputs[2] = Some(scope.channel_sums(&gradient, &output));
    }
    Ok(inputs)
}

/// A transposed convolution is the input gradient of a convolution, and the other way round.
pub(super) fn conv_transpose(scope: &mut Scope) -> Gradients {
    let (input, weight, output) = (scope.shape_of_input(0)?, scope.shape_of_input(1)?, scope.shape_of_output()?);
    let geometry = Geometry::of(scope, &weight, &output, &input)?;
    if scope.text("auto_pad").is_some_and(|mode| mode != "NOTSET") || scope.ints("output_shape").is_some() {
        return Err(scope.refuse("its padding is not explicit"));
    }
    let (gradient, image, kernel) = (scope.gradient()?, scope.input(0)?, scope.input(1)?);
    let mut inputs = vec![None; scope.node.input.len()];
    if scope.wants(0) {
        inputs[0] = Some(scope.tape.op("Conv", &[&gradient, &kernel], geometry.attributes()));
    }
    if scope.wants(1) {
        inputs[1] = Some(weight_gradient(scope, &geometry, [&gradient, &image], [&output, &input], &weight)?);
    }
    if scope.wants(2) {
        inputs[2] = Some(scope.channel_sums(&gradient, &output));
    }
    Ok(inputs)
}

fn input_gradient(
    scope: &mut Scope,
    geometry: &Geometry,
    gradient: &str,
    input: &[usize],
    output: &[usize],
    weight: &[usize],
) -> Result<String, EngineError> {
    let kernel = scope.input(1)?;
    if geometry.is_pointwise() && geometry.group == 1 {
        let turned = scope.transposed(&kernel, &[1, 0, 2, 3]);
        return Ok(scope.op("Conv", &[gradient, &turned]));
    }
    if geometry.is_depthwise(input, weight)
        && let Some(found) = depthwise::input_gradient(scope, geometry, [gradient, &kernel], [input, output])?
    {
        return Ok(found);
    }
    let mut attributes = geometry.attributes();
    let left_over = |axis: usize| {
        let reached = (output[2 + axis] - 1) * geometry.strides[axis]
            + geometry.dilations[axis] * (geometry.kernel[axis] - 1)
            + 1;
        (input[2 + axis] + geometry.before[axis] + geometry.after[axis]).saturating_sub(reached) as i64
    };
    attributes.push(attribute_ints("output_padding", &[left_over(0), left_over(1)]));
    Ok(scope.tape.op("ConvTranspose", &[gradient, &kernel], attributes))
}

/// `∂W[o, c, i, j] = Σ G[n, o, y, x] X[n, c, y s + i d, x s + j d]`, with `X` padded.
///
/// `tensors`, `shapes`: of `X`, then of `G`.
fn weight_gradient(
    scope: &mut Scope,
    geometry: &Geometry,
    tensors: [&str; 2],
    shapes: [&[usize]; 2],
    weight: &[usize],
) -> Result<String, EngineError> {
    if geometry.is_pointwise() && geometry.group == 1 {
        return Ok(pointwise_weight_gradient(scope, tensors, shapes, weight));
    }
    let is_depthwise = geometry.is_depthwise(shapes[0], weight);
    if is_depthwise && let Some(found) = depthwise::weight_gradient(scope, geometry, tensors, shapes)? {
        return Ok(found);
    }
    let [top, left] = geometry.before.map(|pad| pad as i64);
    let [bottom, right] = geometry.after.map(|pad| pad as i64);
    let padded = scope.padded(tensors[0], &[0, 0, top, left, 0, 0, bottom, right]);
    let taps = if is_depthwise {
        depthwise::taps(scope, geometry, [&padded, tensors[1]], shapes[1])
    } else {
        grouped_taps(scope, geometry, [&padded, tensors[1]], shapes, weight)
    };
    let taps: Vec<&str> = taps.iter().map(String::as_str).collect();
    let stacked = scope.tape.op("Concat", &taps, vec![attribute_int("axis", 2)]);
    Ok(scope.reshaped(&stacked, weight))
}

/// One product over all images and pixels.
fn pointwise_weight_gradient(scope: &mut Scope, tensors: [&str; 2], shapes: [&[usize]; 2], weight: &[usize]) -> String {
    let [image, gradient] = [0, 1].map(|i| {
        let turned = scope.transposed(tensors[i], &[1, 0, 2, 3]);
        let (channels, places) = (shapes[i][1], shapes[i][0] * shapes[i][2] * shapes[i][3]);
        scope.reshaped(&turned, &[channels, places])
    });
    let product = scope.tape.op("Gemm", &[&gradient, &image], vec![attribute_int("transB", 1)]);
    scope.reshaped(&product, weight)
}

/// The inputs of tap `(i, j)` of the kernel: every stride-th value along the given axes.
pub(super) fn tap(
    scope: &mut Scope,
    geometry: &Geometry,
    image: &str,
    axes: [i64; 2],
    at: [usize; 2],
    size: [usize; 2],
) -> String {
    let start = [0, 1].map(|axis| (at[axis] * geometry.dilations[axis]) as i64);
    let end = [0, 1].map(|axis| start[axis] + ((size[axis] - 1) * geometry.strides[axis]) as i64 + 1);
    let steps = geometry.strides.map(|stride| stride as i64);
    scope.sliced(image, &axes, &start, &end, &steps)
}

pub(super) fn positions(kernel: [usize; 2]) -> impl Iterator<Item = [usize; 2]> {
    (0..kernel[0]).flat_map(move |i| (0..kernel[1]).map(move |j| [i, j]))
}

/// One tensor of shape `(o, c / groups, 1)` per tap, by matrix products over channels-last copies.
fn grouped_taps(
    scope: &mut Scope,
    geometry: &Geometry,
    tensors: [&str; 2],
    shapes: [&[usize]; 2],
    weight: &[usize],
) -> Vec<String> {
    let groups = geometry.group;
    let (&[n, o, h, w], c) = (shapes[1], shapes[0][1]) else { return Vec::new() };
    let pads = [0, 1].map(|axis| shapes[0][2 + axis] + geometry.before[axis] + geometry.after[axis]);
    let image = scope.reshaped(tensors[0], &[n, groups, c / groups, pads[0], pads[1]]);
    let image = scope.transposed(&image, &[1, 0, 3, 4, 2]);
    let gradient = scope.reshaped(tensors[1], &[n, groups, o / groups, h, w]);
    let gradient = scope.transposed(&gradient, &[1, 2, 0, 3, 4]);
    let gradient = scope.reshaped(&gradient, &[groups, o / groups, n * h * w]);
    let tap_gradient = |at| {
        let seen = tap(scope, geometry, &image, [2, 3], at, [h, w]);
        let seen = scope.reshaped(&seen, &[groups, n * h * w, c / groups]);
        let product = scope.op("MatMul", &[&gradient, &seen]);
        scope.reshaped(&product, &[weight[0], weight[1], 1])
    };
    positions(geometry.kernel).map(tap_gradient).collect()
}
