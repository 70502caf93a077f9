//! Matrix products.

use sketch_model::inference::onnx::build::attribute_int;

use super::{Gradients, Scope};
use crate::engine::EngineError;

/// `Y = A B` over the last two axes, the others broadcast: `∂A = G Bᵀ`, `∂B = Aᵀ G`.
pub(super) fn mat_mul(scope: &mut Scope) -> Gradients {
    let product = Product::of(scope)?;
    let mut inputs = vec![None, None];
    if scope.wants(0) {
        let gradient = product.left(scope);
        inputs[0] = Some(scope.reshaped(&gradient, &scope.shape_of_input(0)?));
    }
    if scope.wants(1) {
        let gradient = product.right(scope);
        inputs[1] = Some(scope.reshaped(&gradient, &scope.shape_of_input(1)?));
    }
    Ok(inputs)
}

/// The tensors of a product, and their shapes: a vector on the left is a row, one on the right a column.
struct Product {
    left: (String, Vec<usize>),
    right: (String, Vec<usize>),
    gradient: (String, Vec<usize>),
}

impl Product {
    fn of(scope: &mut Scope) -> Result<Self, EngineError> {
        let (mut a, mut b, mut y) = (scope.shape_of_input(0)?, scope.shape_of_input(1)?, scope.shape_of_output()?);
        let vectors = [a.len() == 1, b.len() == 1];
        if vectors[0] {
            a.insert(0, 1);
            y.insert(y.len() - usize::from(!vectors[1]), 1);
        }
        if vectors[1] {
            b.push(1);
            y.push(1);
        }
        let (left, right, gradient) = (scope.input(0)?, scope.input(1)?, scope.gradient()?);
        let left = if vectors[0] { scope.reshaped(&left, &a) } else { left };
        let right = if vectors[1] { scope.reshaped(&right, &b) } else { right };
        let gradient = if vectors[0] || vectors[1] { scope.reshaped(&gradient, &y) } else { gradient };
        Ok(Self { left: (left, a), right: (right, b), gradient: (gradient, y) })
    }

    fn left(&self, scope: &mut Scope) -> String {
        let (right, b) = &self.right;
        let right = swapped(scope, right, b.len());
        let product = scope.op("MatMul", &[&self.gradient.0, &right]);
        scope.unbroadcast(&product, &product_shape(&self.gradient.1, &self.left.1), &self.left.1)
    }

    fn right(&self, scope: &mut Scope) -> String {
        let ((left, a), b) = (&self.left, &self.right.1);
        if b.len() == 2 {
            // One large product instead of a sum of many small ones.
            let count: usize = a[..a.len() - 1].iter().product();
            let left = scope.reshaped(left, &[count, b[0]]);
            let gradient = scope.reshaped(&self.gradient.0, &[count, b[1]]);
            return scope.tape.op("Gemm", &[&left, &gradient], vec![attribute_int("transA", 1)]);
        }
        let left = swapped(scope, left, a.len());
        let product = scope.op("MatMul", &[&left, &self.gradient.0]);
        scope.unbroadcast(&product, &product_shape(&self.gradient.1, b), b)
    }
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
