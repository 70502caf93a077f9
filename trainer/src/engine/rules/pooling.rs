//! Pooling over images: shape `(n, c, h, w)`.

use sketch_model::inference::onnx::build::{attribute_int, attribute_ints, attribute_text};

use super::{Gradients, Scope};
use crate::engine::EngineError;

pub(super) fn global_average(scope: &mut Scope) -> Gradients {
    let (gradient, shape) = (scope.gradient()?, scope.shape_of_input(0)?);
    let places: usize = shape[2..].iter().product();
    let share = scope.scaled(&gradient, 1.0 / places as f32);
    Ok(vec![Some(scope.expanded(&share, &shape))])
}

/// A window that moves over one axis.
#[derive(Clone, Copy)]
struct Window {
    kernel: usize,
    stride: usize,
    before: usize,
    after: usize,
    input: usize,
    output: usize,
    counts_padding: bool,
}

impl Window {
    /// How many values the window at `place` averages.
    fn count(&self, place: usize) -> usize {
        let first = place * self.stride;
        let end = first + self.kernel;
        if self.counts_padding {
            // With `ceil_mode`, the last window may reach beyond the padding; values there do not count.
            return end.min(self.before + self.input + self.after).saturating_sub(first);
        }
        let start = first.saturating_sub(self.before);
        end.saturating_sub(self.before).min(self.input).saturating_sub(start)
    }
}

/// Spreads the gradient over the windows: divides each value by the size of its window, then applies a transposed convolution
/// with ones.
pub(super) fn average(scope: &mut Scope) -> Gradients {
    let (input, output) = (scope.shape_of_input(0)?, scope.shape_of_output()?);
    let windows = windows(scope, &input, &output)?;
    let [rows, columns] = windows;
    let share = |y: usize, x: usize| 1.0 / (rows.count(y) * columns.count(x)).max(1) as f32;
    let shares: Vec<f32> = (0..rows.output).flat_map(|y| (0..columns.output).map(move |x| share(y, x))).collect();
    let shares = scope.tape.constant("shares", &[rows.output, columns.output], &shares)?;
    let ones = vec![1.0; input[1] * rows.kernel * columns.kernel];
    let ones = scope.tape.constant("ones", &[input[1], 1, rows.kernel, columns.kernel], &ones)?;
    let gradient = scope.gradient()?;
    let gradient = scope.op("Mul", &[&gradient, &shares]);
    let strides = windows.map(|window| window.stride as i64);
    let attributes = vec![attribute_int("group", input[1] as i64), attribute_ints("strides", &strides)];
    let spread = scope.tape.op("ConvTranspose", &[&gradient, &ones], attributes);
    // The result includes the padding; `Pad` with negative widths cuts it off.
    let before = windows.map(|window| -(window.before as i64));
    let after = windows.map(|window| {
        let reached = (window.output - 1) * window.stride + window.kernel;
        window.input as i64 - (reached as i64 - window.before as i64)
    });
    Ok(vec![Some(scope.padded(&spread, &[0, 0, before[0], before[1], 0, 0, after[0], after[1]]))])
}

fn windows(scope: &Scope, input: &[usize], output: &[usize]) -> Result<[Window; 2], EngineError> {
    let dilated = scope.ints("dilations").is_some_and(|dilations| dilations.iter().any(|&dilation| dilation != 1));
    let sizes = scope.ints("kernel_shape");
    let Some(&[kh, kw]) = sizes.as_deref() else { return Err(scope.refuse("it is not over images of two dimensions")) };
    if dilated || scope.text("auto_pad").is_some_and(|mode| !matches!(&*mode, "NOTSET" | "VALID")) {
        return Err(scope.refuse("its windows are dilated or padded automatically"));
    }
    let strides = scope.ints("strides").unwrap_or_else(|| vec![1, 1]);
    let pads = scope.ints("pads").unwrap_or_else(|| vec![0; 4]);
    let counts_padding = scope.int("count_include_pad", 0) == 1;
    let window = |axis: usize, kernel: i64| Window {
        kernel: kernel as usize,
        stride: strides[axis] as usize,
        before: pads[axis] as usize,
        after: pads[2 + axis] as usize,
        input: input[2 + axis],
        output: output[2 + axis],
        counts_padding,
    };
    Ok([window(0, kh), window(1, kw)])
}

/// Scatters each gradient to the position of the maximum, the operator's second output.
pub(super) fn max(scope: &mut Scope) -> Gradients {
    let (gradient, input, output) = (scope.gradient()?, scope.shape_of_input(0)?, scope.shape_of_output()?);
    let indices = indices(scope)?;
    let (total, pooled): (usize, usize) = (input.iter().product(), output.iter().product());
    let zero = scope.tape.scalar(0.0);
    let zeros = scope.expanded(&zero, &[total]);
    let indices = scope.reshaped(&indices, &[pooled]);
    let gradient = scope.reshaped(&gradient, &[pooled]);
    let attributes = vec![attribute_int("axis", 0), attribute_text("reduction", "add")];
    let scattered = scope.tape.op("ScatterElements", &[&zeros, &indices, &gradient], attributes);
    Ok(vec![Some(scope.reshaped(&scattered, &input))])
}

/// The operator's second output, which is added if it has none.
fn indices(scope: &mut Scope) -> Result<String, EngineError> {
    let (output, name) = (scope.output(), scope.tape.fresh("indices"));
    let same = |outputs: &[String]| outputs.first() == Some(&output);
    let node = scope.tape.nodes.iter_mut().find(|node| same(&node.output));
    let Some(node) = node else { return Err(EngineError::MissingTensor { name: output }) };
    match node.output.get(1).filter(|name| !name.is_empty()) {
        Some(existing) => Ok(existing.clone()),
        None => {
            node.output.truncate(1);
            node.output.push(name.clone());
            Ok(name)
        }
    }
}
