//! Operators that rearrange values.

use ndarray::{ArrayD, Axis, IxDyn, Slice, concatenate};

use super::elementwise::broadcast_shape;
use super::{Array, Call};

pub fn evaluate(call: &Call) -> Option<Vec<Array>> {
    let rank = call.inputs.first().copied().flatten().map_or(0, |x| x.ndim());
    let result = match call.node.op_type() {
        "Reshape" => reshape(call),
        "Flatten" => flatten(call, rank),
        "Squeeze" => squeeze(call, rank),
        "Unsqueeze" => unsqueeze(call, rank),
        "Transpose" => transpose(call, rank),
        "Expand" => expand(call),
        "Concat" => concat(call, rank),
        "Split" => return Some(split(call, rank)),
        "Slice" => slice(call, rank),
        "Gather" => gather(call, rank),
        "Pad" => pad(call, rank),
        "Shape" => ArrayD::from_shape_fn(IxDyn(&[rank]), |index| call.x(0).shape()[index[0]] as f64),
        _ => return None,
    };
    Some(vec![result])
}

fn shaped(x: &Array, shape: &[usize]) -> Array {
    ArrayD::from_shape_vec(IxDyn(shape), x.iter().copied().collect()).unwrap()
}

fn reshape(call: &Call) -> Array {
    let (x, sizes) = (call.x(0), call.integers(1).unwrap());
    let keeps_zero = call.int("allowzero", 0) == 1;
    let size = |(axis, &size): (usize, &i64)| match size {
        0 if !keeps_zero => x.shape()[axis],
        -1 => 1,
        size => size as usize,
    };
    let mut shape: Vec<usize> = sizes.iter().enumerate().map(size).collect();
    if let Some(free) = sizes.iter().position(|&size| size == -1) {
        shape[free] = x.len() / shape.iter().product::<usize>();
    }
    shaped(x, &shape)
}

fn flatten(call: &Call, rank: usize) -> Array {
    let axis = call.int("axis", 1);
    let axis = if axis < 0 { (axis + rank as i64) as usize } else { axis as usize };
    let rows = call.x(0).shape()[..axis].iter().product();
    shaped(call.x(0), &[rows, call.x(0).len() / rows])
}

fn squeeze(call: &Call, rank: usize) -> Array {
    let axes: Option<Vec<usize>> =
        call.integers(1).map(|axes| axes.iter().map(|&axis| call.axis(axis, rank)).collect());
    let gone = |axis: usize, size: usize| axes.as_ref().map_or(size == 1, |axes| axes.contains(&axis));
    let kept = call.x(0).shape().iter().enumerate().filter(|&(axis, &size)| !gone(axis, size));
    shaped(call.x(0), &kept.map(|(_, &size)| size).collect::<Vec<_>>())
}

fn unsqueeze(call: &Call, rank: usize) -> Array {
    let axes = call.integers(1).unwrap();
    let mut axes: Vec<usize> = axes.iter().map(|&axis| call.axis(axis, rank + axes.len())).collect();
    axes.sort_unstable();
    axes.iter().fold(call.x(0).clone(), |x, &axis| x.insert_axis(Axis(axis)))
}

fn transpose(call: &Call, rank: usize) -> Array {
    let order: Vec<usize> = match call.ints("perm") {
        Some(order) => order.iter().map(|&axis| axis as usize).collect(),
        None => (0..rank).rev().collect(),
    };
    call.x(0).clone().permuted_axes(order)
}

fn expand(call: &Call) -> Array {
    let shape: Vec<usize> = call.integers(1).unwrap().iter().map(|&size| size as usize).collect();
    let shape = broadcast_shape(&[call.x(0).shape(), &shape]);
    call.x(0).broadcast(IxDyn(&shape)).unwrap().to_owned()
}

fn concat(call: &Call, rank: usize) -> Array {
    let parts: Vec<_> = (0..call.inputs.len()).map(|i| call.x(i).view()).collect();
    concatenate(Axis(call.axis(call.int("axis", 0), rank)), &parts).unwrap()
}

fn split(call: &Call, rank: usize) -> Vec<Array> {
    let axis = call.axis(call.int("axis", 0), rank);
    let (size, parts) = (call.x(0).shape()[axis], call.node.output.len());
    let sizes = call.integers(1).unwrap_or_else(|| {
        let part = size.div_ceil(parts);
        (0..parts).map(|i| part.min(size - i * part) as i64).collect()
    });
    let mut start = 0;
    let part = |size: &i64| {
        let slice = Slice::from(start..start + *size as isize);
        start += *size as isize;
        call.x(0).slice_axis(Axis(axis), slice).to_owned()
    };
    sizes.iter().map(part).collect()
}

fn slice(call: &Call, rank: usize) -> Array {
    let (starts, ends) = (call.integers(1).unwrap(), call.integers(2).unwrap());
    let axes = call.integers(3).unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = call.integers(4).unwrap_or_else(|| vec![1; starts.len()]);
    let mut x = call.x(0).clone();
    for i in 0..starts.len() {
        let axis = call.axis(axes[i], rank);
        let size = x.shape()[axis] as i64;
        let bound = |at: i64| (if at < 0 { at + size } else { at }).clamp(0, size) as usize;
        let taken: Vec<usize> = (bound(starts[i])..bound(ends[i])).step_by(steps[i] as usize).collect();
        x = x.select(Axis(axis), &taken);
    }
    x
}

fn gather(call: &Call, rank: usize) -> Array {
    let (x, indices) = (call.x(0), call.x(1));
    let axis = call.axis(call.int("axis", 0), rank);
    // A negative index counts from the end of the axis, as a negative axis does from the last.
    let taken: Vec<usize> = indices.iter().map(|&index| call.axis(index as i64, x.shape()[axis])).collect();
    let shape = [&x.shape()[..axis], indices.shape(), &x.shape()[axis + 1..]].concat();
    shaped(&x.select(Axis(axis), &taken), &shape)
}

fn pad(call: &Call, rank: usize) -> Array {
    let (x, pads) = (call.x(0), call.integers(1).unwrap());
    let axes: Vec<usize> = match call.integers(3) {
        Some(axes) => axes.iter().map(|&axis| call.axis(axis, rank)).collect(),
        None => (0..rank).collect(),
    };
    let mut before = vec![0; rank];
    let mut shape: Vec<i64> = x.shape().iter().map(|&size| size as i64).collect();
    for (i, &axis) in axes.iter().enumerate() {
        before[axis] = pads[i];
        shape[axis] += pads[i] + pads[axes.len() + i];
    }
    let filler = call.optional(2).map_or(0.0, |value| value.iter().copied().sum());
    let shape: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
    ArrayD::from_shape_fn(IxDyn(&shape), |index| {
        let from: Vec<usize> = (0..rank).map(|axis| (index[axis] as i64 - before[axis]) as usize).collect();
        x.get(from.as_slice()).copied().unwrap_or(filler)
    })
}
