//! Operators that rearrange values.

use sketch_model::inference::onnx::build::attribute_int;

use super::{Gradients, Scope};
use crate::engine::EngineError;

/// One gradient for the first input, none for sizes and axes.
fn first(scope: &Scope, gradient: String) -> Gradients {
    let mut inputs = vec![None; scope.node.input.len()];
    inputs[0] = Some(gradient);
    Ok(inputs)
}

pub(super) fn reshape(scope: &mut Scope) -> Gradients {
    let (gradient, shape) = (scope.gradient()?, scope.shape_of_input(0)?);
    let gradient = scope.reshaped(&gradient, &shape);
    first(scope, gradient)
}

pub(super) fn transpose(scope: &mut Scope) -> Gradients {
    let (gradient, rank) = (scope.gradient()?, scope.shape_of_input(0)?.len());
    let order: Vec<usize> = match scope.ints("perm") {
        Some(order) => order.iter().map(|&axis| axis as usize).collect(),
        None => (0..rank).rev().collect(),
    };
    let mut inverse = vec![0; rank];
    for (to, &from) in order.iter().enumerate() {
        inverse[from] = to;
    }
    let gradient = scope.transposed(&gradient, &inverse);
    first(scope, gradient)
}

pub(super) fn expand(scope: &mut Scope) -> Gradients {
    let (gradient, from, to) = (scope.gradient()?, scope.shape_of_output()?, scope.shape_of_input(0)?);
    let gradient = scope.unbroadcast(&gradient, &from, &to);
    first(scope, gradient)
}

pub(super) fn concat(scope: &mut Scope) -> Gradients {
    let gradient = scope.gradient()?;
    let axis = scope.axis(scope.int("axis", 0), scope.shape_of_output()?.len())?;
    let mut start = 0;
    let mut inputs = Vec::new();
    for i in 0..scope.node.input.len() {
        let end = start + scope.shape_of_input(i)?[axis] as i64;
        let slice = |scope: &mut Scope| scope.sliced(&gradient, &[axis as i64], &[start], &[end], &[1]);
        inputs.push(scope.wants(i).then(|| slice(scope)));
        start = end;
    }
    Ok(inputs)
}

/// Concatenates the gradients of the parts, with zeros for unused parts.
pub(super) fn split(scope: &mut Scope) -> Gradients {
    let axis = scope.int("axis", 0);
    let zero = scope.tape.scalar(0.0);
    let mut parts = Vec::new();
    for (i, name) in scope.node.output.iter().enumerate() {
        let shape = scope.tape.shape(name)?;
        parts.push(match scope.gradients.get(i).cloned().flatten() {
            Some(gradient) => gradient,
            None => scope.expanded(&zero, &shape),
        });
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let gradient = scope.tape.op("Concat", &parts, vec![attribute_int("axis", axis)]);
    first(scope, gradient)
}

/// Puts the slice back in its place, with zeros around it and, for steps, in between.
pub(super) fn slice(scope: &mut Scope) -> Gradients {
    let (shape, cut) = (scope.shape_of_input(0)?, scope.shape_of_output()?);
    let rank = shape.len();
    let known = |position| scope.integers_of_input(position).map(Option::unwrap_or_default);
    let (starts, axes, steps) = (known(1)?, known(3)?, known(4)?);
    let (mut apart, mut between, mut joined) = (Vec::new(), vec![0; 4 * rank], cut.clone());
    let mut around = vec![0; 2 * rank];
    for (position, &start) in starts.iter().enumerate() {
        let axis = scope.axis(axes.get(position).copied().unwrap_or(position as i64), rank)?;
        let step = steps.get(position).copied().unwrap_or(1);
        if step < 1 {
            return Err(scope.refuse("its step is negative"));
        }
        let size = shape[axis] as i64;
        let start = (if start < 0 { start + size } else { start }).clamp(0, size);
        joined[axis] = cut[axis] * step as usize;
        between[2 * rank + 2 * axis + 1] = step - 1;
        around[axis] = start;
        around[rank + axis] = size - start - joined[axis] as i64;
    }
    let mut gradient = scope.gradient()?;
    if joined != cut {
        cut.iter().for_each(|&size| apart.extend([size, 1]));
        gradient = scope.reshaped(&gradient, &apart);
        gradient = scope.padded(&gradient, &between);
        gradient = scope.reshaped(&gradient, &joined);
    }
    // A negative width cuts off zeros after the last value.
    let gradient = scope.padded(&gradient, &around);
    first(scope, gradient)
}

/// A product with one-hot indices sums the gradients of repeated indices in a fixed order.
pub(super) fn gather(scope: &mut Scope) -> Gradients {
    let (data, output) = (scope.shape_of_input(0)?, scope.shape_of_output()?);
    let axis = scope.axis(scope.int("axis", 0), data.len())?;
    let (gradient, indices) = (scope.gradient()?, scope.input(1)?);
    let (outer, inner): (usize, usize) = (data[..axis].iter().product(), data[axis + 1..].iter().product());
    let count = output.iter().product::<usize>() / (outer * inner).max(1);
    // (outer, count, inner) -> (count, outer inner) -> (size, outer inner) -> (outer, size, inner)
    let gradient = scope.reshaped(&gradient, &[outer, count, inner]);
    let gradient = scope.transposed(&gradient, &[1, 0, 2]);
    let gradient = scope.reshaped(&gradient, &[count, outer * inner]);
    let rows = one_hot(scope, &indices, count, data[axis])?;
    let sums = scope.tape.op("Gemm", &[&rows, &gradient], vec![attribute_int("transA", 1)]);
    let sums = scope.reshaped(&sums, &[data[axis], outer, inner]);
    let sums = scope.transposed(&sums, &[1, 0, 2]);
    let gradient = scope.reshaped(&sums, &data);
    first(scope, gradient)
}

fn one_hot(scope: &mut Scope, indices: &str, count: usize, depth: usize) -> Result<String, EngineError> {
    let indices = scope.reshaped(indices, &[count]);
    let depth = scope.tape.integers(&[depth as i64]);
    let values = scope.tape.constant("off_on", &[2], &[0.0, 1.0])?;
    Ok(scope.tape.op("OneHot", &[&indices, &depth, &values], vec![attribute_int("axis", -1)]))
}

pub(super) fn pad(scope: &mut Scope) -> Gradients {
    if scope.text("mode").is_some_and(|mode| mode != "constant") {
        return Err(scope.refuse("only padding with a constant is supported"));
    }
    let rank = scope.shape_of_input(0)?.len();
    let (gradient, pads) = (scope.gradient()?, scope.integers_of_input(1)?.unwrap_or_default());
    let axes = scope.integers_of_input(3)?.unwrap_or_else(|| (0..rank as i64).collect());
    let mut cut = vec![0; 2 * rank];
    for (i, &axis) in axes.iter().enumerate() {
        let axis = scope.axis(axis, rank)?;
        (cut[axis], cut[rank + axis]) = (-pads[i], -pads[axes.len() + i]);
    }
    let gradient = scope.padded(&gradient, &cut);
    first(scope, gradient)
}
