use sketch_model::inference::onnx::build::attribute_int;

use crate::case::Case;

const OPERATORS: [&str; 5] = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2"];

#[test]
fn over_some_axes() {
    let axes: [&[i64]; 6] = [&[0], &[1], &[-1], &[0, 2], &[-1, -2], &[2, 0, 1]];
    for operator in OPERATORS {
        for axes in axes {
            for keep in [0, 1] {
                Case::new(operator).input(&[2, 3, 4]).list(axes).with(attribute_int("keepdims", keep)).check();
            }
        }
    }
}

#[test]
fn over_all_axes() {
    for operator in OPERATORS {
        Case::new(operator).input(&[2, 3, 4]).check();
        Case::new(operator).input(&[2, 3, 4]).with(attribute_int("keepdims", 0)).check();
    }
}

#[test]
fn over_none() {
    for operator in ["ReduceSum", "ReduceMean"] {
        Case::new(operator).input(&[2, 3]).list(&[]).with(attribute_int("noop_with_empty_axes", 1)).check();
    }
}

#[test]
fn norm_of_nothing_has_no_slope() {
    let zeros = crate::reference::Array::zeros(ndarray::IxDyn(&[2, 3]));
    Case::new("ReduceSum").values(zeros.clone()).list(&[1]).check();
    let slopes = gradient_at(zeros);
    assert_eq!(slopes, [0.0; 6]);
}

fn gradient_at(values: crate::reference::Array) -> Vec<f32> {
    use sketch_model::inference::onnx::messages::DataType;
    use sketch_trainer::engine::{Tape, TrainingSession, gradients};
    crate::check::start();
    let mut tape = Tape::default();
    tape.input("x", DataType::Float, values.shape());
    let loss = tape.op("ReduceL2", &["x"], vec![attribute_int("keepdims", 0)]);
    let feeds = || vec![("x".to_owned(), crate::check::feed(&values))];
    tape.probe(feeds()).unwrap();
    let reports = [gradients(&mut tape, &loss, &["x".to_owned()]).unwrap()["x"].clone()];
    let mut session = TrainingSession::open(&tape, vec![], &reports, &Default::default()).unwrap();
    session.step(feeds()).unwrap().remove(0)
}
