//! Matrix products.

use sketch_model::onnx::build::attribute_int;

use super::{Gradients, Scope};
use crate::engine::EngineError;

/// `Y = A B` over the last two axes, the others broadcast: `∂A = G Bᵀ`, `∂B = Aᵀ G`.
pub(super) fn mat_mul(scope: &mut Scope) -> Gradients {
    let (a, b) = (scope.shape_of_input(0)?, scope.shape_of_input(1)?);
    if a.len() < 2 || b.len() < 2 {
        return Err(scope.refuse("one side is a vector"));
    }
    let first = if scope.wants(0) { Some(left_factor(scope, &a, &b)?) } else { None };
    let second = if scope.wants(1) { Some(right_factor(scope, &a, &b)?) } else { None };
    Ok(vec![first, second])
}

fn left_factor(scope: &mut Scope, a: &[usize], b: &[usize]) -> Result<String, EngineError> {
    let (gradient, right) = (scope.gradient()?, scope.input(1)?);
    let right = swapped(scope, &right, b.len());
    let product = scope.op("MatMul", &[&gradient, &right]);
    let from = product_shape(&scope.shape_of_output()?, a);
    Ok(scope.unbroadcast(&product, &from, a))
}

fn right_factor(scope: &mut Scope, a: &[usize], b: &[usize]) -> Result<String, EngineError> {
    let (gradient, left) = (scope.gradient()?, scope.input(0)?);
    let [rows, columns] = [b[b.len() - 2], b[b.len() - 1]];
    if b.len() == 2 {
        // One large product instead of many small ones and their sum.
        let count: usize = a[..a.len() - 1].iter().product();
        let left = scope.reshaped(&left, &[count, rows]);
        let gradient = scope.reshaped(&gradient, &[count, columns]);
        return Ok(scope.tape.op("Gemm", &[&left, &gradient], vec![attribute_int("transA", 1)]));
    }
    let left = swapped(scope, &left, a.len());
    let product = scope.op("MatMul", &[&left, &gradient]);
    let from = product_shape(&scope.shape_of_output()?, b);
    Ok(scope.unbroadcast(&product, &from, b))
}

/// The batch axes of `output` with the matrix of `operand`.
fn product_shape(output: &[usize], operand: &[usize]) -> Vec<usize> {
    let mut shape = output[..output.len() - 2].to_vec();
    shape.extend(&operand[operand.len() - 2..]);
    shape
}

/// `tensor` with its last two axes exchanged.
fn swapped(scope: &mut Scope, tensor: &str, rank: usize) -> String {
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(rank - 2, rank - 1);
    scope.transposed(tensor, &order)
}

/// `Y = α A' B' + β C` with `A'`, `B'` transposed as the attributes say.
pub(super) fn gemm(scope: &mut Scope) -> Gradients {
    let gradient = scope.gradient()?;
    let (alpha, beta) = (scope.float("alpha", 1.0), scope.float("beta", 1.0));
    let (a_turned, b_turned) = (scope.int("transA", 0) == 1, scope.int("transB", 0) == 1);
    let (a, b) = (scope.input(0)?, scope.input(1)?);
    let mut inputs = vec![None; scope.node.input.len()];
    if scope.wants(0) {
        let product = if a_turned {
            turned(scope, [&b, &gradient], [b_turned, true])
        } else {
            turned(scope, [&gradient, &b], [false, !b_turned])
        };
        inputs[0] = Some(scope.scaled(&product, alpha));
    }
    if scope.wants(1) {
        let product = if b_turned {
            turned(scope, [&gradient, &a], [true, a_turned])
        } else {
            turned(scope, [&a, &gradient], [!a_turned, false])
        };
        inputs[1] = Some(scope.scaled(&product, alpha));
    }
    if scope.wants(2) {
        let (from, to) = (scope.shape_of_output()?, scope.shape_of_input(2)?);
        let sum = scope.unbroadcast(&gradient, &from, &to);
        inputs[2] = Some(scope.scaled(&sum, beta));
    }
    Ok(inputs)
}

/// The product of two matrices, each transposed if its flag says so.
fn turned(scope: &mut Scope, factors: [&str; 2], turned: [bool; 2]) -> String {
    let [a, b] = turned.map(i64::from);
    scope.tape.op("Gemm", &factors, vec![attribute_int("transA", a), attribute_int("transB", b)])
}
