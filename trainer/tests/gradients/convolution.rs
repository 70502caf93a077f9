use sketch_model::inference::onnx::build::{attribute_int, attribute_ints, attribute_text};
use sketch_model::inference::onnx::messages::AttributeProto;

use crate::case::Case;

struct Form {
    input: [usize; 4],
    weight: [usize; 4],
    attributes: Vec<AttributeProto>,
}

fn form(input: [usize; 4], weight: [usize; 4]) -> Form {
    Form { input, weight, attributes: vec![] }
}

impl Form {
    fn group(self, group: i64) -> Self {
        self.with(attribute_int("group", group))
    }

    fn stride(self, rows: i64, columns: i64) -> Self {
        self.with(attribute_ints("strides", &[rows, columns]))
    }

    fn dilation(self, rows: i64, columns: i64) -> Self {
        self.with(attribute_ints("dilations", &[rows, columns]))
    }

    fn pads(self, pads: [i64; 4]) -> Self {
        self.with(attribute_ints("pads", &pads))
    }

    fn with(mut self, attribute: AttributeProto) -> Self {
        self.attributes.push(attribute);
        self
    }

    fn case(&self, operator: &str) -> Case {
        let case = Case::new(operator).input(&self.input).input(&self.weight);
        self.attributes.iter().cloned().fold(case, Case::with)
    }

    fn check(&self, operator: &str) {
        let group = self.attributes.iter().find(|found| found.name() == "group").map_or(1, |group| group.i.unwrap());
        let outputs = if operator == "Conv" { self.weight[0] } else { self.weight[1] * group as usize };
        self.case(operator).check();
        self.case(operator).input(&[outputs]).check();
    }
}

#[test]
fn dense() {
    let plain = || form([2, 3, 7, 6], [4, 3, 3, 3]);
    plain().check("Conv");
    plain().pads([1; 4]).check("Conv");
    plain().pads([0, 1, 2, 1]).check("Conv");
    plain().stride(2, 2).pads([1; 4]).check("Conv");
    plain().stride(2, 3).pads([0, 1, 1, 0]).check("Conv");
    plain().stride(3, 2).check("Conv");
    plain().dilation(2, 1).pads([2, 1, 2, 1]).check("Conv");
    plain().dilation(2, 2).stride(2, 1).pads([3, 2, 1, 2]).check("Conv");
    form([1, 2, 8, 8], [3, 2, 5, 5]).stride(2, 2).pads([2; 4]).check("Conv");
}

#[test]
fn even_and_oblong_kernels() {
    form([2, 2, 6, 7], [3, 2, 2, 2]).stride(2, 2).check("Conv");
    form([2, 2, 6, 7], [3, 2, 4, 2]).pads([1, 0, 2, 1]).check("Conv");
    form([2, 2, 7, 7], [3, 2, 1, 3]).stride(2, 2).pads([0, 1, 0, 1]).check("Conv");
    // Patches of a vision transformer.
    form([2, 3, 8, 8], [5, 3, 4, 4]).stride(4, 4).check("Conv");
}

#[test]
fn pointwise() {
    form([2, 3, 4, 5], [6, 3, 1, 1]).check("Conv");
    form([2, 3, 5, 5], [6, 3, 1, 1]).stride(2, 2).check("Conv");
    form([2, 3, 6, 5], [6, 3, 1, 1]).stride(2, 2).check("Conv");
    form([2, 4, 4, 4], [6, 2, 1, 1]).group(2).check("Conv");
    form([2, 3, 4, 4], [2, 3, 1, 1]).pads([1; 4]).check("Conv");
    form([3, 4, 1, 1], [2, 4, 1, 1]).check("Conv");
}

#[test]
fn groups() {
    form([2, 4, 6, 6], [6, 2, 3, 3]).group(2).pads([1; 4]).check("Conv");
    form([2, 6, 7, 6], [3, 2, 3, 3]).group(3).stride(2, 2).pads([1; 4]).check("Conv");
}

#[test]
fn depthwise() {
    let plain = || form([2, 3, 7, 6], [3, 1, 3, 3]).group(3);
    plain().check("Conv");
    plain().pads([1; 4]).check("Conv");
    plain().stride(2, 2).pads([1; 4]).check("Conv");
    plain().stride(2, 2).pads([0, 0, 1, 1]).check("Conv");
    plain().stride(2, 2).check("Conv");
    plain().stride(3, 1).pads([1, 2, 0, 1]).check("Conv");
    plain().dilation(2, 2).pads([2; 4]).check("Conv");
    plain().pads([3; 4]).check("Conv");
    plain().stride(2, 2).pads([3; 4]).check("Conv");
    form([2, 3, 9, 9], [3, 1, 5, 5]).group(3).stride(2, 2).pads([2; 4]).check("Conv");
    form([2, 3, 9, 9], [3, 1, 1, 1]).group(3).check("Conv");
    form([1, 1, 6, 6], [1, 1, 3, 3]).pads([1; 4]).check("Conv");
}

/// Larger images use other rules: the flipped kernel or a transposed convolution, exchanged strides and dilations, taps.
#[test]
fn depthwise_of_larger_images() {
    let form = |rows, columns, kernel| form([1, 2, rows, columns], [2, 1, kernel, kernel]).group(2);
    form(11, 12, 3).pads([1; 4]).check("Conv");
    form(11, 12, 3).dilation(2, 1).pads([2, 1, 2, 1]).check("Conv");
    form(11, 12, 5).pads([2; 4]).check("Conv");
    form(17, 16, 3).stride(2, 2).pads([0, 0, 1, 1]).check("Conv");
    form(17, 17, 5).stride(2, 2).pads([2; 4]).check("Conv");
    // The input gradient by a convolution, the weight gradient by products.
    form(8, 8, 3).pads([1; 4]).check("Conv");
    form(12, 12, 5).stride(2, 2).pads([2; 4]).check("Conv");
}

#[test]
fn several_kernels_per_channel() {
    form([2, 3, 6, 6], [6, 1, 3, 3]).group(3).pads([1; 4]).check("Conv");
    form([2, 2, 7, 6], [6, 1, 3, 3]).group(2).stride(2, 2).pads([1; 4]).check("Conv");
}

#[test]
fn automatic_padding() {
    for mode in ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"] {
        for size in [6, 7] {
            let mode = || attribute_text("auto_pad", mode);
            form([2, 2, size, 6], [3, 2, 3, 3]).with(mode()).check("Conv");
            form([2, 2, size, 6], [3, 2, 3, 3]).stride(2, 2).with(mode()).check("Conv");
            form([2, 2, size, 6], [2, 1, 5, 2]).group(2).stride(2, 2).with(mode()).check("Conv");
        }
    }
}

#[test]
fn transposed() {
    let plain = || form([2, 4, 4, 3], [4, 3, 3, 3]);
    let padded = |rows, columns| attribute_ints("output_padding", &[rows, columns]);
    plain().check("ConvTranspose");
    plain().stride(2, 2).check("ConvTranspose");
    plain().stride(2, 2).pads([1; 4]).with(padded(1, 1)).check("ConvTranspose");
    plain().stride(3, 2).pads([0, 1, 1, 0]).with(padded(2, 0)).check("ConvTranspose");
    plain().dilation(2, 2).pads([1; 4]).check("ConvTranspose");
    form([2, 4, 4, 3], [4, 3, 2, 2]).group(2).stride(2, 2).check("ConvTranspose");
    form([2, 4, 4, 3], [4, 1, 3, 3]).group(4).stride(2, 2).pads([1; 4]).check("ConvTranspose");
    form([2, 4, 4, 3], [4, 3, 1, 1]).check("ConvTranspose");
}

#[test]
fn other_than_images_are_refused() {
    let error = refused_line();
    assert!(error.contains("not over images of two dimensions"), "{error}");
}

fn refused_line() -> String {
    use sketch_model::inference::onnx::messages::DataType;
    use sketch_trainer::engine::{Feed, Tape, gradients};
    crate::check::start();
    let mut tape = Tape::default();
    tape.input("x", DataType::Float, &[1, 1, 4]);
    tape.input("w", DataType::Float, &[1, 1, 3]);
    let y = tape.op("Conv", &["x", "w"], vec![]);
    let loss = tape.op("ReduceSum", &[&y], vec![attribute_int("keepdims", 0)]);
    let zeros = |size: usize| Feed::Floats(vec![1, 1, size], vec![0.0; size]);
    tape.probe(vec![("x".to_owned(), zeros(4)), ("w".to_owned(), zeros(3))]).unwrap();
    gradients(&mut tape, &loss, &["w".to_owned()]).unwrap_err().to_string()
}
