//! Matrix products.

use ndarray::{ArrayD, IxDyn};

use super::elementwise::{broadcast_shape, zip};
use super::{Array, Call};

pub fn evaluate(call: &Call) -> Option<Vec<Array>> {
    match call.node.op_type() {
        "MatMul" => Some(vec![mat_mul(call.x(0), call.x(1))]),
        "Gemm" => Some(vec![gemm(call)]),
        _ => None,
    }
}

fn gemm(call: &Call) -> Array {
    let turned = |position, name| {
        let matrix = call.x(position).clone();
        if call.int(name, 0) == 1 { matrix.reversed_axes() } else { matrix }
    };
    let product = mat_mul(&turned(0, "transA"), &turned(1, "transB")) * call.float("alpha", 1.0);
    match call.optional(2) {
        Some(bias) => zip(&product, bias, |a, b| a + call.float("beta", 1.0) * b),
        None => product,
    }
}

fn mat_mul(a: &Array, b: &Array) -> Array {
    let (row, column) = (a.ndim() == 1, b.ndim() == 1);
    let a = if row { a.clone().insert_axis(ndarray::Axis(0)) } else { a.clone() };
    let b = if column { b.clone().insert_axis(ndarray::Axis(1)) } else { b.clone() };
    let y = batched(&a, &b);
    let rows = y.ndim() - 2;
    let y = if column { y.remove_axis(ndarray::Axis(rows + 1)) } else { y };
    if row { y.remove_axis(ndarray::Axis(rows)) } else { y }
}

fn batched(a: &Array, b: &Array) -> Array {
    let split = |matrix: &Array| {
        let (batch, matrix) = matrix.shape().split_at(matrix.ndim() - 2);
        (batch.to_vec(), [matrix[0], matrix[1]])
    };
    let ((a_batch, [m, k]), (b_batch, [_, n])) = (split(a), split(b));
    let batch = broadcast_shape(&[&a_batch, &b_batch]);
    let with = |sizes: [usize; 2]| IxDyn(&[batch.as_slice(), &sizes].concat());
    let (a, b) = (a.broadcast(with([m, k])).unwrap(), b.broadcast(with([k, n])).unwrap());
    ArrayD::from_shape_fn(with([m, n]), |index| {
        let (mut left, mut right) = (index.clone(), index.clone());
        let rank = batch.len();
        (0..k)
            .map(|i| {
                (left[rank + 1], right[rank]) = (i, i);
                a[&left] * b[&right]
            })
            .sum()
    })
}
