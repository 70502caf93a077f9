use sketch_model::inference::onnx::build::attribute_int;
use sketch_model::inference::onnx::messages::DataType;
use sketch_trainer::engine::{Feed, Tape, gradients};

use crate::case::Case;
use crate::check::start;

const SHAPES: [[&[usize]; 2]; 7] = [
    [&[2, 3, 4], &[2, 3, 4]],
    [&[2, 3, 4], &[3, 1]],
    [&[4], &[2, 3, 4]],
    [&[2, 1, 4], &[1, 3, 1]],
    [&[2, 3], &[]],
    [&[], &[2, 3]],
    [&[1, 1], &[5]],
];

#[test]
fn two_operands() {
    for [a, b] in SHAPES {
        for operator in ["Add", "Sub", "Mul", "Sum", "Min", "Max"] {
            Case::new(operator).input(a).input(b).check();
            Case::new(operator).input(a).fixed().input(b).check();
            Case::new(operator).input(a).input(b).fixed().check();
        }
        Case::new("Div").input(a).between(b, 0.5, 2.0).check();
        Case::new("Pow").between(a, 0.5, 2.0).input(b).check();
    }
}

#[test]
fn one_tensor_twice() {
    for operator in ["Add", "Sub", "Mul", "Sum", "Min", "Max"] {
        Case::new(operator).input(&[2, 3]).again(0).check();
    }
    Case::new("Div").between(&[2, 3], 0.5, 2.0).again(0).check();
    Case::new("Pow").between(&[2, 3], 0.5, 2.0).again(0).check();
}

#[test]
fn many_operands() {
    for operator in ["Sum", "Min", "Max"] {
        Case::new(operator).input(&[2, 3]).check();
        Case::new(operator).input(&[2, 3]).input(&[3]).input(&[2, 1]).input(&[]).check();
    }
}

#[test]
fn powers_of_negative_numbers() {
    for exponent in [1.0, 2.0, 3.0] {
        Case::new("Pow").input(&[3, 4]).number(exponent).check();
    }
    Case::new("Pow").input(&[3, 4]).list(&[2]).check();
}

#[test]
fn one_operand() {
    for operator in ["Sqrt", "Exp", "Log", "Neg", "Abs", "Reciprocal", "Sin", "Cos", "Identity"] {
        Case::new(operator).between(&[3, 4], 0.3, 3.0).check();
    }
    for operator in ["Exp", "Neg", "Abs", "Sin", "Cos", "Identity", "Dropout"] {
        Case::new(operator).input(&[3, 4]).check();
    }
    Case::new("Cast").input(&[3, 4]).with(attribute_int("to", DataType::Float as i64)).check();
}

#[test]
fn choice() {
    for [a, b] in SHAPES {
        Case::new("Where").condition(&[2, 3, 1]).input(&[3, 4]).input(&[1]).check();
        Case::new("Where").condition(a).input(a).input(b).check();
        Case::new("Where").condition(b).input(a).fixed().input(b).check();
    }
}

#[test]
fn half_precision_on_the_way_is_an_error() {
    start();
    let mut tape = Tape::default();
    tape.input("x", DataType::Float, &[]);
    let half = tape.op("Cast", &["x"], vec![attribute_int("to", DataType::Float16 as i64)]);
    let loss = tape.op("Cast", &[&half], vec![attribute_int("to", DataType::Float as i64)]);
    tape.probe(vec![("x".to_owned(), Feed::number(1.0))]).unwrap();
    let message = gradients(&mut tape, &loss, &["x".to_owned()]).unwrap_err().to_string();
    assert!(message.contains("half or double precision"), "{message}");
}
