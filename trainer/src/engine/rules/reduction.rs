//! Sums and means over axes.

use super::{Gradients, Scope};
use crate::engine::EngineError;

/// Every value that went into the sum gets the sum's gradient.
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
    let kept: Vec<usize> = (0..shape.len()).map(|axis| if axes.contains(&axis) { 1 } else { shape[axis] }).collect();
    let share = scope.scaled(&gradient, factor(count));
    let share = scope.reshaped(&share, &kept);
    let mut inputs = vec![None; scope.node.input.len()];
    inputs[0] = Some(scope.expanded(&share, &shape));
    Ok(inputs)
}

fn axes(scope: &Scope, rank: usize) -> Result<Vec<usize>, EngineError> {
    match scope.integers_of_input(1)? {
        Some(axes) if !axes.is_empty() => axes.iter().map(|&axis| scope.axis(axis, rank)).collect(),
        _ if scope.int("noop_with_empty_axes", 0) == 1 => Ok(Vec::new()),
        _ => Ok((0..rank).collect()),
    }
}
