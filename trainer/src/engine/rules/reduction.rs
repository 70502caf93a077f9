//! Reductions along axes: sum, mean, extremes, norm.

use super::{Gradients, Scope};
use crate::engine::EngineError;

/// Broadcasts the gradient of the sum.
pub(super) fn sum(scope: &mut Scope) -> Gradients {
    spread(scope, |_| 1.0)
}

pub(super) fn mean(scope: &mut Scope) -> Gradients {
    spread(scope, |count| 1.0 / count as f32)
}

fn spread(scope: &mut Scope, factor: fn(usize) -> f32) -> Gradients {
    let (gradient, shape) = (scope.gradient()?, scope.shape_of_input(0)?);
    let axes = axes(scope, shape.len())?;
    let count: usize = axes.iter().map(|&axis| shape[axis]).product();
    let share = scope.scaled(&gradient, factor(count));
    let share = scope.reshaped(&share, &kept(&shape, &axes));
    let gradient = scope.expanded(&share, &shape);
    only(scope, gradient)
}

/// One gradient for the first input, none for the axes.
fn only(scope: &Scope, gradient: String) -> Gradients {
    let mut inputs = vec![None; scope.node.input.len()];
    inputs[0] = Some(gradient);
    Ok(inputs)
}

/// `shape` with size 1 along `axes`.
fn kept(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    shape.iter().enumerate().map(|(axis, &size)| if axes.contains(&axis) { 1 } else { size }).collect()
}

/// The gradient goes to the extreme value; ties share it equally.
pub(super) fn extreme(scope: &mut Scope) -> Gradients {
    let axes = axes(scope, scope.shape_of_input(0)?.len())?;
    extreme_over(scope, &axes)
}

pub(super) fn global_max(scope: &mut Scope) -> Gradients {
    let axes: Vec<usize> = (2..scope.shape_of_input(0)?.len()).collect();
    extreme_over(scope, &axes)
}

fn extreme_over(scope: &mut Scope, axes: &[usize]) -> Gradients {
    let (gradient, input, shape) = (scope.gradient()?, scope.input(0)?, scope.shape_of_input(0)?);
    let output = scope.output();
    let [gradient, output] = [gradient, output].map(|tensor| scope.reshaped(&tensor, &kept(&shape, axes)));
    let chosen = scope.equal(&input, &output);
    let ties = scope.summed(&chosen, axes, true);
    let share = scope.op("Div", &[&gradient, &ties]);
    let gradient = scope.op("Mul", &[&chosen, &share]);
    only(scope, gradient)
}

/// `∂√(Σ x²)/∂x = x / √(Σ x²)`, and 0 where all are 0.
pub(super) fn norm(scope: &mut Scope) -> Gradients {
    let (gradient, input, shape) = (scope.gradient()?, scope.input(0)?, scope.shape_of_input(0)?);
    let (axes, output) = (axes(scope, shape.len())?, scope.output());
    let [gradient, output] = [gradient, output].map(|tensor| scope.reshaped(&tensor, &kept(&shape, &axes)));
    let least = scope.tape.scalar(f32::MIN_POSITIVE);
    let divisor = scope.op("Max", &[&output, &least]);
    let direction = scope.op("Div", &[&input, &divisor]);
    let gradient = scope.op("Mul", &[&direction, &gradient]);
    only(scope, gradient)
}

fn axes(scope: &Scope, rank: usize) -> Result<Vec<usize>, EngineError> {
    match scope.integers_of_input(1)? {
        Some(axes) if !axes.is_empty() => axes.iter().map(|&axis| scope.axis(axis, rank)).collect(),
        _ if scope.int("noop_with_empty_axes", 0) == 1 => Ok(Vec::new()),
        _ => Ok((0..rank).collect()),
    }
}
