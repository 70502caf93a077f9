use sketch_model::inference::onnx::build::{attribute_int, attribute_ints, attribute_text};

use crate::case::Case;

fn pool(operator: &str, kernel: [i64; 2], strides: [i64; 2], pads: [i64; 4]) -> Case {
    Case::new(operator)
        .input(&[2, 3, 7, 6])
        .with(attribute_ints("kernel_shape", &kernel))
        .with(attribute_ints("strides", &strides))
        .with(attribute_ints("pads", &pads))
}

const FORMS: [([i64; 2], [i64; 2], [i64; 4]); 6] = [
    ([2, 2], [2, 2], [0; 4]),
    ([3, 3], [2, 2], [1; 4]),
    ([3, 2], [1, 2], [0, 1, 1, 0]),
    ([2, 3], [3, 1], [1, 1, 0, 2]),
    ([3, 3], [1, 1], [1; 4]),
    ([1, 1], [2, 2], [0; 4]),
];

/// With `ceil_mode`, the last window reaches beyond the image.
const ROUNDED_UP: [([i64; 2], [i64; 2], [i64; 4]); 3] =
    [([3, 3], [2, 2], [1; 4]), ([2, 2], [2, 2], [0; 4]), ([3, 4], [3, 3], [1, 0, 1, 0])];

#[test]
fn whole_image() {
    for operator in ["GlobalAveragePool", "GlobalMaxPool"] {
        Case::new(operator).input(&[2, 3, 5, 4]).check();
        Case::new(operator).input(&[2, 3, 1, 1]).check();
    }
}

#[test]
fn greatest() {
    for (kernel, strides, pads) in FORMS {
        pool("MaxPool", kernel, strides, pads).check();
    }
    for (kernel, strides, pads) in ROUNDED_UP {
        pool("MaxPool", kernel, strides, pads).with(attribute_int("ceil_mode", 1)).check();
    }
    pool("MaxPool", [2, 2], [1, 1], [0; 4]).with(attribute_ints("dilations", &[2, 3])).check();
}

#[test]
fn average() {
    for (kernel, strides, pads) in FORMS {
        for include in [0, 1] {
            let include = || attribute_int("count_include_pad", include);
            pool("AveragePool", kernel, strides, pads).with(include()).check();
        }
    }
    for (kernel, strides, pads) in ROUNDED_UP {
        for include in [0, 1] {
            let case = pool("AveragePool", kernel, strides, pads).with(attribute_int("ceil_mode", 1));
            case.with(attribute_int("count_include_pad", include)).check();
        }
    }
}

#[test]
fn automatic_padding_of_means_is_refused() {
    let case = Case::new("AveragePool").input(&[1, 1, 5, 5]).with(attribute_ints("kernel_shape", &[2, 2]));
    let error = case.with(attribute_text("auto_pad", "SAME_UPPER")).error().to_string();
    assert!(error.contains("padded automatically"), "{error}");
}
