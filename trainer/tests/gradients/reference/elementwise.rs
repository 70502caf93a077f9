//! Elementwise operators with broadcasting.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

use ndarray::{IxDyn, Zip};

use super::{Array, Call};

pub fn evaluate(call: &Call) -> Option<Vec<Array>> {
    let result = match call.node.op_type() {
        "Add" | "Sum" => fold(call, |a, b| a + b),
        "Sub" => fold(call, |a, b| a - b),
        "Mul" => fold(call, |a, b| a * b),
        "Div" => fold(call, |a, b| a / b),
        "Pow" => fold(call, f64::powf),
        "Min" => fold(call, f64::min),
        "Max" => fold(call, f64::max),
        "Greater" => fold(call, |a, b| f64::from(u8::from(a > b))),
        "PRelu" => fold(call, |a, slope| if a > 0.0 { a } else { a * slope }),
        "Where" => select(call),
        "Clip" => clip(call),
        "Identity" | "Dropout" | "Cast" => call.x(0).clone(),
        operator => {
            let function = unary(call, operator)?;
            call.x(0).mapv(function)
        }
    };
    Some(vec![result])
}

fn unary(call: &Call, operator: &str) -> Option<Box<dyn Fn(f64) -> f64>> {
    let (alpha, beta) = (call.float("alpha", f64::NAN), call.float("beta", 0.5));
    let or = move |default: f64| if alpha.is_nan() { default } else { alpha };
    Some(match operator {
        "Neg" => Box::new(|x| -x),
        "Sqrt" => Box::new(f64::sqrt),
        "Exp" => Box::new(f64::exp),
        "Log" => Box::new(f64::ln),
        "Sin" => Box::new(f64::sin),
        "Cos" => Box::new(f64::cos),
        "Abs" => Box::new(f64::abs),
        "Reciprocal" => Box::new(f64::recip),
        "Relu" => Box::new(|x| x.max(0.0)),
        "LeakyRelu" => Box::new(move |x| if x > 0.0 { x } else { or(0.01) * x }),
        "Elu" => Box::new(move |x| if x > 0.0 { x } else { or(1.0) * x.exp_m1() }),
        "Sigmoid" => Box::new(sigmoid),
        "HardSigmoid" => Box::new(move |x| (or(0.2) * x + beta).clamp(0.0, 1.0)),
        "HardSwish" => Box::new(|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        "Tanh" => Box::new(f64::tanh),
        "Erf" => Box::new(erf),
        "Gelu" if call.text("approximate") == "tanh" => Box::new(gelu_by_tanh),
        "Gelu" => Box::new(|x| x * 0.5 * (1.0 + erf(x * FRAC_1_SQRT_2))),
        "Softplus" => Box::new(|x| x.exp().ln_1p()),
        _ => return None,
    })
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn gelu_by_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

/// `2/√π e^(-x²) Σ 2ⁿ x²ⁿ⁺¹ / (2n + 1)!!`: all terms have the same sign, so nothing cancels.
fn erf(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

pub fn broadcast_shape(shapes: &[&[usize]]) -> Vec<usize> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or_default();
    let size = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |at| shape[at]);
    (0..rank).map(|axis| shapes.iter().map(|shape| size(shape, axis)).find(|&size| size != 1).unwrap_or(1)).collect()
}

pub fn zip(a: &Array, b: &Array, function: impl Fn(f64, f64) -> f64) -> Array {
    let shape = IxDyn(&broadcast_shape(&[a.shape(), b.shape()]));
    let (a, b) = (a.broadcast(shape.clone()).unwrap(), b.broadcast(shape).unwrap());
    Zip::from(&a).and(&b).map_collect(|&a, &b| function(a, b))
}

fn fold(call: &Call, function: impl Fn(f64, f64) -> f64) -> Array {
    (1..call.inputs.len()).fold(call.x(0).clone(), |sum, i| zip(&sum, call.x(i), &function))
}

fn select(call: &Call) -> Array {
    let chosen = zip(call.x(0), call.x(1), |condition, a| if condition != 0.0 { a } else { 0.0 });
    let other = zip(call.x(0), call.x(2), |condition, b| if condition != 0.0 { 0.0 } else { b });
    zip(&chosen, &other, |a, b| a + b)
}

fn clip(call: &Call) -> Array {
    let bound = |position, default| call.optional(position).map_or(default, |bound| bound.iter().copied().sum());
    let (low, high): (f64, f64) = (bound(1, f64::NEG_INFINITY), bound(2, f64::INFINITY));
    call.x(0).mapv(|x| x.max(low).min(high))
}
