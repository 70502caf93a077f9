use sketch_model::inference::onnx::build::{attribute_float, attribute_int};

use crate::case::Case;

#[test]
fn gemm() {
    for (a_turned, b_turned) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let a: [usize; 2] = if a_turned == 1 { [4, 3] } else { [3, 4] };
        let b: [usize; 2] = if b_turned == 1 { [5, 4] } else { [4, 5] };
        let biases: [&[usize]; 6] = [&[3, 5], &[5], &[1, 5], &[3, 1], &[1], &[]];
        for bias in biases {
            let case = Case::new("Gemm").input(&a).input(&b).input(bias);
            let case = case.with(attribute_int("transA", a_turned)).with(attribute_int("transB", b_turned));
            case.with(attribute_float("alpha", 0.7)).with(attribute_float("beta", -1.3)).check();
        }
        let case = Case::new("Gemm").input(&a).input(&b);
        case.with(attribute_int("transA", a_turned)).with(attribute_int("transB", b_turned)).check();
    }
}

#[test]
fn mat_mul() {
    let shapes: [[&[usize]; 2]; 12] = [
        [&[3, 4], &[4, 5]],
        [&[2, 3, 4], &[4, 5]],
        [&[2, 3, 4], &[2, 4, 5]],
        [&[2, 2, 3, 4], &[2, 2, 4, 2]],
        [&[3, 4], &[2, 4, 5]],
        [&[2, 1, 3, 4], &[3, 4, 2]],
        [&[1, 3, 4], &[2, 4, 5]],
        [&[4], &[4]],
        [&[4], &[4, 3]],
        [&[3, 4], &[4]],
        [&[4], &[2, 4, 3]],
        [&[2, 3, 4], &[4]],
    ];
    for [a, b] in shapes {
        Case::new("MatMul").input(a).input(b).check();
        Case::new("MatMul").input(a).fixed().input(b).check();
        Case::new("MatMul").input(a).input(b).fixed().check();
    }
    Case::new("MatMul").input(&[3, 3]).again(0).check();
}
