use sketch_model::inference::onnx::build::{attribute_float, attribute_int, attribute_text};

use crate::case::Case;

#[test]
fn without_attributes() {
    for operator in
        ["Relu", "LeakyRelu", "Elu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Erf", "Gelu", "Softplus"]
    {
        Case::new(operator).between(&[4, 16], -4.0, 4.0).check();
        Case::new(operator).between(&[2, 3, 4, 2], -1.0, 1.0).check();
    }
}

#[test]
fn with_attributes() {
    for alpha in [0.3, 1.5] {
        let alpha = attribute_float("alpha", alpha);
        Case::new("LeakyRelu").input(&[5, 6]).with(alpha.clone()).check();
        Case::new("Elu").input(&[5, 6]).with(alpha.clone()).check();
        Case::new("HardSigmoid").input(&[5, 6]).with(alpha).with(attribute_float("beta", 0.4)).check();
    }
    Case::new("Gelu").between(&[5, 6], -4.0, 4.0).with(attribute_text("approximate", "tanh")).check();
    Case::new("Gelu").between(&[5, 6], -4.0, 4.0).with(attribute_text("approximate", "none")).check();
}

#[test]
fn clip() {
    Case::new("Clip").between(&[6, 6], -3.0, 9.0).number(0.0).number(6.0).check();
    Case::new("Clip").input(&[6, 6]).number(-1.0).check();
    Case::new("Clip").input(&[6, 6]).skip().number(1.0).check();
    Case::new("Clip").input(&[6, 6]).check();
}

#[test]
fn p_relu() {
    Case::new("PRelu").input(&[2, 3, 4, 4]).between(&[3, 1, 1], 0.1, 0.5).check();
    Case::new("PRelu").input(&[4, 3]).between(&[1], 0.1, 0.5).check();
    Case::new("PRelu").input(&[4, 3]).fixed().between(&[3], -0.5, 0.5).check();
}

#[test]
fn softmax() {
    for operator in ["Softmax", "LogSoftmax"] {
        Case::new(operator).input(&[4, 5]).check();
        for axis in [-3, -2, -1, 0, 1, 2] {
            Case::new(operator).input(&[2, 3, 4]).with(attribute_int("axis", axis)).check();
        }
    }
}
