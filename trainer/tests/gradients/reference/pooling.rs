//! Pooling, and reductions over axes.

use ndarray::{ArrayD, Axis, IxDyn};

use super::images::axes;
use super::normalisation::mean_over;
use super::{Array, Call};

pub fn evaluate(call: &Call) -> Option<Vec<Array>> {
    let result = match call.node.op_type() {
        "GlobalAveragePool" => mean_over(call.x(0), &[2, 3]),
        "GlobalMaxPool" => over(call.x(0), &[2, 3], |values| values.fold(f64::MIN, f64::max)),
        "AveragePool" => pool(call, average),
        "MaxPool" => pool(call, |values, _| values.iter().copied().fold(f64::MIN, f64::max)),
        "ReduceSum" => reduce(call, |values| values.sum()),
        "ReduceMean" => reduce(call, |values| {
            let values: Vec<f64> = values.collect();
            values.iter().sum::<f64>() / values.len() as f64
        }),
        "ReduceMax" => reduce(call, |values| values.fold(f64::MIN, f64::max)),
        "ReduceMin" => reduce(call, |values| values.fold(f64::MAX, f64::min)),
        "ReduceL2" => reduce(call, |values| values.map(|value| value * value).sum::<f64>().sqrt()),
        _ => return None,
    };
    Some(vec![result])
}

type Values<'a> = &'a mut dyn Iterator<Item = f64>;

/// `function` of all values along `axes`, which are kept with size 1.
fn over(x: &Array, axes: &[usize], function: impl Fn(Values) -> f64) -> Array {
    let kept = x.shape().iter().enumerate().map(|(axis, &size)| if axes.contains(&axis) { 1 } else { size });
    let mut lists = vec![Vec::new(); kept.clone().product()];
    let shape: Vec<usize> = kept.collect();
    for (index, &value) in x.indexed_iter() {
        let at =
            (0..x.ndim()).fold(0, |at, axis| at * shape[axis] + if axes.contains(&axis) { 0 } else { index[axis] });
        lists[at].push(value);
    }
    let values = lists.into_iter().map(|list| function(&mut list.into_iter())).collect();
    ArrayD::from_shape_vec(IxDyn(&shape), values).unwrap()
}

fn reduce(call: &Call, function: impl Fn(Values) -> f64) -> Array {
    let (x, rank) = (call.x(0), call.x(0).ndim());
    let given = call.integers(1).filter(|axes| !axes.is_empty());
    if given.is_none() && call.int("noop_with_empty_axes", 0) == 1 {
        return x.clone();
    }
    let mut axes: Vec<usize> =
        given.map_or((0..rank).collect(), |axes| axes.iter().map(|&a| call.axis(a, rank)).collect());
    let result = over(x, &axes, function);
    axes.sort_unstable();
    if call.int("keepdims", 1) == 1 {
        return result;
    }
    axes.iter().rev().fold(result, |result, &axis| result.remove_axis(Axis(axis)))
}

/// The values in a window, and its size including padding.
fn average(values: &[f64], counted: usize) -> f64 {
    values.iter().sum::<f64>() / counted as f64
}

fn pool(call: &Call, function: impl Fn(&[f64], usize) -> f64) -> Array {
    let x = call.x(0);
    let sizes = call.ints("kernel_shape").unwrap();
    let pads = call.ints("pads").unwrap_or_else(|| vec![0; 4]);
    let [rows, columns] = axes(call, [sizes[0] as usize, sizes[1] as usize], [x.shape()[2], x.shape()[3]]);
    let includes_padding = call.int("count_include_pad", 0) == 1;
    ArrayD::from_shape_fn(IxDyn(&[x.shape()[0], x.shape()[1], rows.output, columns.output]), |index| {
        let (mut values, mut counted) = (Vec::new(), 0);
        for (i, j) in (0..rows.kernel).flat_map(|i| (0..columns.kernel).map(move |j| (i, j))) {
            // Padding counts; positions beyond it, in a last window, do not.
            let within = |axis: &super::images::Axis, at: usize, tap: usize, after: i64| {
                at * axis.stride + tap * axis.dilation < axis.before + axis.input + after as usize
            };
            let padded = within(&rows, index[2], i, pads[2]) && within(&columns, index[3], j, pads[3]);
            let seen = rows.at(index[2], i).zip(columns.at(index[3], j));
            counted += usize::from(if includes_padding { padded } else { seen.is_some() });
            values.extend(seen.map(|(i, j)| x[[index[0], index[1], i, j].as_slice()]));
        }
        function(&values, counted)
    })
}
