//! Convolutions.

use ndarray::{ArrayD, IxDyn};

use super::{Array, Call};

pub fn evaluate(call: &Call) -> Option<Vec<Array>> {
    match call.node.op_type() {
        "Conv" => Some(vec![conv(call)]),
        "ConvTranspose" => Some(vec![conv_transpose(call)]),
        _ => None,
    }
}

/// One axis of a window: the input position of output `y` and tap `k`, including padding.
#[derive(Clone, Copy)]
pub struct Axis {
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    pub before: usize,
    pub input: usize,
    pub output: usize,
}

impl Axis {
    /// The input position, if it is inside of the image.
    pub fn at(&self, output: usize, tap: usize) -> Option<usize> {
        (output * self.stride + tap * self.dilation).checked_sub(self.before).filter(|&at| at < self.input)
    }

    pub fn reach(&self) -> usize {
        self.dilation * (self.kernel - 1) + 1
    }
}

pub fn axes(call: &Call, kernel: [usize; 2], input: [usize; 2]) -> [Axis; 2] {
    let pair = |name: &str| call.ints(name).map_or([1, 1], |values| [values[0] as usize, values[1] as usize]);
    let (strides, dilations) = (pair("strides"), pair("dilations"));
    let pads = call.ints("pads").unwrap_or_else(|| vec![0; 4]);
    [0, 1].map(|i| {
        let axis = Axis {
            kernel: kernel[i],
            stride: strides[i],
            dilation: dilations[i],
            before: pads[i] as usize,
            input: input[i],
            output: 0,
        };
        let padding = pads[i] as usize + pads[i + 2] as usize;
        let same = input[i].div_ceil(axis.stride);
        let total = ((same - 1) * axis.stride + axis.reach()).saturating_sub(input[i]);
        match &*call.text("auto_pad") {
            "SAME_UPPER" => Axis { before: total / 2, output: same, ..axis },
            "SAME_LOWER" => Axis { before: total.div_ceil(2), output: same, ..axis },
            _ => {
                let room = input[i] + padding - axis.reach();
                if call.int("ceil_mode", 0) == 0 {
                    return Axis { output: room / axis.stride + 1, ..axis };
                }
                let last = room.div_ceil(axis.stride);
                // A window that starts in the padding after the image does not exist.
                let outside = last * axis.stride >= input[i] + pads[i] as usize;
                Axis { output: last + 1 - usize::from(outside), ..axis }
            }
        }
    })
}

fn conv(call: &Call) -> Array {
    let (x, w) = (call.x(0), call.x(1));
    let (&[n, _, h, width], &[o, per_group, kh, kw]) = (x.shape(), w.shape()) else { panic!("not over images") };
    let [rows, columns] = axes(call, [kh, kw], [h, width]);
    let outputs_per_group = o / call.int("group", 1) as usize;
    let mut y = ArrayD::zeros(IxDyn(&[n, o, rows.output, columns.output]));
    for (index, value) in y.indexed_iter_mut() {
        let [image, out, row, column] = [0, 1, 2, 3].map(|i| index[i]);
        let first = out / outputs_per_group * per_group;
        let mut sum = call.optional(2).map_or(0.0, |bias| bias[[out].as_slice()]);
        for (tap, weight) in w.index_axis(ndarray::Axis(0), out).indexed_iter() {
            if let (Some(i), Some(j)) = (rows.at(row, tap[1]), columns.at(column, tap[2])) {
                sum += weight * x[[image, first + tap[0], i, j].as_slice()];
            }
        }
        *value = sum;
    }
    y
}

/// Every input value goes to the positions that the convolution with the same attributes would have read.
fn conv_transpose(call: &Call) -> Array {
    let (x, w) = (call.x(0), call.x(1));
    let (&[n, c, h, width], &[_, per_group, kh, kw]) = (x.shape(), w.shape()) else { panic!("not over images") };
    let group = call.int("group", 1) as usize;
    let extra = call.ints("output_padding").unwrap_or_else(|| vec![0, 0]);
    let pads = call.ints("pads").unwrap_or_else(|| vec![0; 4]);
    let size = |i: usize, input: usize, axis: &Axis| {
        axis.stride * (input - 1) + extra[i] as usize + axis.reach() - pads[i] as usize - pads[i + 2] as usize
    };
    let mut windows = axes(call, [kh, kw], [64, 64]);
    windows[0].input = size(0, h, &windows[0]);
    windows[1].input = size(1, width, &windows[1]);
    let [rows, columns] = windows;
    let mut y = ArrayD::zeros(IxDyn(&[n, per_group * group, rows.input, columns.input]));
    if let Some(bias) = call.optional(2) {
        y.indexed_iter_mut().for_each(|(index, value)| *value = bias[[index[1]].as_slice()]);
    }
    for (from, value) in x.indexed_iter() {
        for (tap, weight) in w.index_axis(ndarray::Axis(0), from[1]).indexed_iter() {
            if let (Some(i), Some(j)) = (rows.at(from[2], tap[1]), columns.at(from[3], tap[2])) {
                let out = from[1] / (c / group) * per_group + tap[0];
                y[[from[0], out, i, j].as_slice()] += value * weight;
            }
        }
    }
    y
}
