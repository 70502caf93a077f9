use sketch_model::inference::onnx::build::{attribute_int, attribute_ints, attribute_text};

use crate::case::Case;

#[test]
fn reshape() {
    let sizes: [&[i64]; 5] = [&[6, 4], &[-1], &[0, -1], &[4, 1, 6], &[2, 0, 4]];
    for sizes in sizes {
        Case::new("Reshape").input(&[2, 3, 4]).list(sizes).check();
    }
    Case::new("Reshape").input(&[1, 1]).list(&[]).check();
}

#[test]
fn flatten() {
    for axis in [-1, 0, 1, 2, 3] {
        Case::new("Flatten").input(&[2, 3, 4]).with(attribute_int("axis", axis)).check();
    }
}

#[test]
fn squeeze_and_unsqueeze() {
    Case::new("Squeeze").input(&[2, 1, 3, 1]).check();
    for axes in [&[1][..], &[-1], &[1, 3], &[-1, 1]] {
        Case::new("Squeeze").input(&[2, 1, 3, 1]).list(axes).check();
    }
    for axes in [&[0][..], &[-1], &[1, 3], &[-1, 0]] {
        Case::new("Unsqueeze").input(&[2, 3]).list(axes).check();
    }
}

#[test]
fn transpose() {
    Case::new("Transpose").input(&[2, 3, 4]).check();
    for order in [[0, 2, 1], [1, 0, 2], [2, 0, 1], [1, 2, 0]] {
        Case::new("Transpose").input(&[2, 3, 4]).with(attribute_ints("perm", &order)).check();
    }
}

#[test]
fn expand() {
    for sizes in [&[2, 3, 4][..], &[1, 4], &[5, 2, 3, 4], &[1]] {
        Case::new("Expand").input(&[3, 1]).list(sizes).check();
    }
    Case::new("Expand").input(&[]).list(&[2, 2]).check();
}

#[test]
fn concat() {
    Case::new("Concat").input(&[2, 3]).input(&[1, 3]).input(&[3, 3]).with(attribute_int("axis", 0)).check();
    Case::new("Concat").input(&[2, 1, 3]).fixed().input(&[2, 1, 2]).with(attribute_int("axis", -1)).check();
    Case::new("Concat").input(&[2, 2]).again(0).with(attribute_int("axis", 1)).check();
}

#[test]
fn split() {
    let three = || Case::new("Split").input(&[2, 6]).list(&[1, 2, 3]).with(attribute_int("axis", 1));
    three().outputs(3, &[0, 1, 2]).check();
    three().outputs(3, &[0, 2]).check();
    three().outputs(3, &[1]).check();
    let even = || Case::new("Split").input(&[5, 2]).with(attribute_int("num_outputs", 2));
    even().outputs(2, &[0, 1]).check();
    let last = Case::new("Split").input(&[2, 4]).list(&[2, 2]).with(attribute_int("axis", -1));
    last.outputs(2, &[1]).check();
}

#[test]
fn slice() {
    let case = || Case::new("Slice").input(&[5, 7]);
    case().list(&[1]).list(&[3]).check();
    case().list(&[1, 2]).list(&[4, 6]).check();
    case().list(&[-3]).list(&[i64::MAX]).list(&[1]).check();
    case().list(&[-6]).list(&[-1]).list(&[-1]).list(&[2]).check();
    case().list(&[0, 1]).list(&[100, 100]).list(&[0, 1]).list(&[2, 3]).check();
    case().list(&[1]).list(&[7]).list(&[1]).list(&[2]).check();
    case().list(&[4]).list(&[5]).list(&[0]).list(&[3]).check();
}

#[test]
fn gather() {
    for axis in [0, 1, -1] {
        let case = || Case::new("Gather").input(&[4, 5, 3]).with(attribute_int("axis", axis));
        case().indices(&[4], &[2, 0, 2, 1]).check();
        case().indices(&[2, 2], &[-1, 0, -3, 2]).check();
        case().indices(&[], &[1]).check();
        case().indices(&[], &[-2]).check();
    }
    Case::new("Gather").input(&[4]).indices(&[3], &[1, 1, -1]).check();
}

#[test]
fn pad() {
    Case::new("Pad").input(&[2, 3]).list(&[1, 0, 2, 1]).check();
    Case::new("Pad").input(&[4, 5]).list(&[-1, 2, 0, -2]).check();
    Case::new("Pad").input(&[2, 3]).list(&[0, 1, 0, 1]).number(3.5).check();
    Case::new("Pad").input(&[2, 3, 4]).list(&[1, 2, 0, 1]).skip().list(&[-1, 0]).check();
}

#[test]
fn mirrored_padding_is_refused() {
    let case = Case::new("Pad").input(&[3, 3]).list(&[0, 0, 0, 0]).with(attribute_text("mode", "reflect"));
    let error = case.error().to_string();
    assert!(error.contains("padding with a constant"), "{error}");
}
