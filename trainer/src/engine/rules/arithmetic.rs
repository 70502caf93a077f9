//! Elementwise operators with broadcasting.

use sketch_model::inference::onnx::build::attribute_int;
use sketch_model::inference::onnx::messages::DataType;

use super::{Gradients, Scope};
use crate::engine::EngineError;

/// Gradient of input `position`, reduced to its shape.
fn returned(scope: &mut Scope, position: usize, gradient: &str) -> Result<Option<String>, EngineError> {
    let (from, to) = (scope.shape_of_output()?, scope.shape_of_input(position)?);
    Ok(Some(scope.unbroadcast(gradient, &from, &to)))
}

pub(super) fn add(scope: &mut Scope) -> Gradients {
    sum(scope)
}

pub(super) fn sum(scope: &mut Scope) -> Gradients {
    let gradient = scope.gradient()?;
    (0..scope.node.input.len()).map(|i| if scope.wants(i) { returned(scope, i, &gradient) } else { Ok(None) }).collect()
}

pub(super) fn sub(scope: &mut Scope) -> Gradients {
    let gradient = scope.gradient()?;
    let first = if scope.wants(0) { returned(scope, 0, &gradient)? } else { None };
    if !scope.wants(1) {
        return Ok(vec![first, None]);
    }
    let second = returned(scope, 1, &gradient)?;
    Ok(vec![first, second.map(|gradient| scope.op("Neg", &[&gradient]))])
}

/// `∂(ab)/∂a = b`.
pub(super) fn mul(scope: &mut Scope) -> Gradients {
    let gradient = scope.gradient()?;
    let mut inputs = vec![None, None];
    for i in [0, 1] {
        if scope.wants(i) {
            let other = scope.input(1 - i)?;
            let product = scope.op("Mul", &[&gradient, &other]);
            inputs[i] = returned(scope, i, &product)?;
        }
    }
    Ok(inputs)
}

/// `∂(a/b)/∂a = 1/b`, `∂(a/b)/∂b = -(a/b)/b`.
pub(super) fn div(scope: &mut Scope) -> Gradients {
    let gradient = scope.gradient()?;
    let (divisor, quotient) = (scope.input(1)?, scope.output());
    let share = scope.op("Div", &[&gradient, &divisor]);
    let first = if scope.wants(0) { returned(scope, 0, &share)? } else { None };
    if !scope.wants(1) {
        return Ok(vec![first, None]);
    }
    let product = scope.op("Mul", &[&share, &quotient]);
    let second = returned(scope, 1, &product)?;
    Ok(vec![first, second.map(|gradient| scope.op("Neg", &[&gradient]))])
}

/// `∂(a^b)/∂a = b a^(b-1)`, `∂(a^b)/∂b = a^b ln a`; the base of a trained exponent is positive.
pub(super) fn pow(scope: &mut Scope) -> Gradients {
    let gradient = scope.gradient()?;
    let (base, mut exponent) = (scope.input(0)?, scope.input(1)?);
    if !scope.tape.is_float(&exponent) {
        // `Pow` takes integer exponents, the operators of its slope do not.
        exponent = scope.tape.op("Cast", &[&exponent], vec![attribute_int("to", DataType::Float as i64)]);
    }
    let mut inputs = vec![None, None];
    if scope.wants(0) {
        let one = scope.tape.scalar(1.0);
        let lower = scope.op("Sub", &[&exponent, &one]);
        let power = scope.op("Pow", &[&base, &lower]);
        let slope = scope.op("Mul", &[&power, &exponent]);
        let product = scope.op("Mul", &[&gradient, &slope]);
        inputs[0] = returned(scope, 0, &product)?;
    }
    if scope.wants(1) {
        let logarithm = scope.op("Log", &[&base]);
        let output = scope.output();
        let slope = scope.op("Mul", &[&output, &logarithm]);
        let product = scope.op("Mul", &[&gradient, &slope]);
        inputs[1] = returned(scope, 1, &product)?;
    }
    Ok(inputs)
}

/// The gradient goes to the selected operand; ties share it equally.
pub(super) fn extreme(scope: &mut Scope) -> Gradients {
    let (gradient, output) = (scope.gradient()?, scope.output());
    let operands: Vec<String> = (0..scope.node.input.len()).map(|i| scope.input(i)).collect::<Result<_, _>>()?;
    let chosen: Vec<String> = operands.iter().map(|operand| scope.equal(operand, &output)).collect();
    let names: Vec<&str> = chosen.iter().map(String::as_str).collect();
    let ties = scope.op("Sum", &names);
    let share = scope.op("Div", &[&gradient, &ties]);
    let mut inputs = vec![None; operands.len()];
    for i in (0..operands.len()).filter(|&i| scope.wanted[i]) {
        let product = scope.op("Mul", &[&share, &chosen[i]]);
        inputs[i] = returned(scope, i, &product)?;
    }
    Ok(inputs)
}

pub(super) fn neg(scope: &mut Scope) -> Gradients {
    let gradient = scope.gradient()?;
    Ok(vec![Some(scope.op("Neg", &[&gradient]))])
}

/// `∂√a/∂a = 1/(2√a)`.
pub(super) fn sqrt(scope: &mut Scope) -> Gradients {
    let (gradient, root) = (scope.gradient()?, scope.output());
    let share = scope.op("Div", &[&gradient, &root]);
    Ok(vec![Some(scope.scaled(&share, 0.5))])
}

pub(super) fn exp(scope: &mut Scope) -> Gradients {
    let (gradient, output) = (scope.gradient()?, scope.output());
    Ok(vec![Some(scope.op("Mul", &[&gradient, &output]))])
}

pub(super) fn log(scope: &mut Scope) -> Gradients {
    let (gradient, input) = (scope.gradient()?, scope.input(0)?);
    Ok(vec![Some(scope.op("Div", &[&gradient, &input]))])
}

pub(super) fn sin(scope: &mut Scope) -> Gradients {
    let (gradient, input) = (scope.gradient()?, scope.input(0)?);
    let slope = scope.op("Cos", &[&input]);
    Ok(vec![Some(scope.op("Mul", &[&gradient, &slope]))])
}

pub(super) fn cos(scope: &mut Scope) -> Gradients {
    let (gradient, input) = (scope.gradient()?, scope.input(0)?);
    let sine = scope.op("Sin", &[&input]);
    let slope = scope.op("Neg", &[&sine]);
    Ok(vec![Some(scope.op("Mul", &[&gradient, &slope]))])
}

pub(super) fn abs(scope: &mut Scope) -> Gradients {
    let (gradient, input) = (scope.gradient()?, scope.input(0)?);
    let sign = scope.op("Sign", &[&input]);
    Ok(vec![Some(scope.op("Mul", &[&gradient, &sign]))])
}

/// `∂(1/a)/∂a = -(1/a)²`.
pub(super) fn reciprocal(scope: &mut Scope) -> Gradients {
    let (gradient, output) = (scope.gradient()?, scope.output());
    let square = scope.op("Mul", &[&output, &output]);
    let product = scope.op("Mul", &[&gradient, &square]);
    Ok(vec![Some(scope.op("Neg", &[&product]))])
}

/// `Where(condition, a, b)`.
pub(super) fn select(scope: &mut Scope) -> Gradients {
    let (gradient, condition) = (scope.gradient()?, scope.input(0)?);
    let zero = scope.tape.scalar(0.0);
    let mut inputs = vec![None, None, None];
    for i in [1, 2] {
        if scope.wants(i) {
            let choice = if i == 1 { [&*condition, &gradient, &zero] } else { [&*condition, &zero, &gradient] };
            let chosen = scope.op("Where", &choice);
            inputs[i] = returned(scope, i, &chosen)?;
        }
    }
    Ok(inputs)
}

/// Operators that pass their first input through, including `Dropout`, which fine-tuning switches off.
pub(super) fn pass(scope: &mut Scope) -> Gradients {
    let gradient = scope.gradient()?;
    let mut inputs = vec![None; scope.node.input.len()];
    inputs[0] = Some(gradient);
    Ok(inputs)
}
