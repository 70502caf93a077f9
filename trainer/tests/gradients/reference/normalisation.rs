//! Normalisations, and softmax.

use ndarray::{Axis, IxDyn};

use super::elementwise::zip;
use super::{Array, Call};

pub fn evaluate(call: &Call) -> Option<Vec<Array>> {
    let rank = call.inputs.first().copied().flatten().map_or(0, |x| x.ndim());
    match call.node.op_type() {
        "BatchNormalization" => Some(batch(call)),
        "LayerNormalization" => {
            let first = call.axis(call.int("axis", -1), rank);
            let y = centred(call, &(first..rank).collect::<Vec<_>>());
            let y = zip(&y, call.x(1), |a, b| a * b);
            Some(vec![call.optional(2).map_or(y.clone(), |bias| zip(&y, bias, |a, b| a + b))])
        }
        "InstanceNormalization" => {
            let y = centred(call, &(2..rank).collect::<Vec<_>>());
            let y = zip(&y, &per_channel(call.x(1), rank), |a, b| a * b);
            Some(vec![zip(&y, &per_channel(call.x(2), rank), |a, b| a + b)])
        }
        "Softmax" => Some(vec![softmax(call, rank)]),
        "LogSoftmax" => Some(vec![softmax(call, rank).mapv(f64::ln)]),
        _ => None,
    }
}

fn per_channel(values: &Array, rank: usize) -> Array {
    let mut shape = vec![1; rank - 1];
    shape[0] = values.len();
    values.clone().into_shape_with_order(IxDyn(&shape)).unwrap()
}

pub fn mean_over(x: &Array, axes: &[usize]) -> Array {
    axes.iter().fold(x.clone(), |x, &axis| x.mean_axis(Axis(axis)).unwrap().insert_axis(Axis(axis)))
}

fn variance_over(x: &Array, axes: &[usize]) -> Array {
    let centred = zip(x, &mean_over(x, axes), |a, b| a - b);
    mean_over(&centred.mapv(|value| value * value), axes)
}

fn centred(call: &Call, axes: &[usize]) -> Array {
    let (x, epsilon) = (call.x(0), call.float("epsilon", 1e-5));
    let y = zip(x, &mean_over(x, axes), |a, b| a - b);
    zip(&y, &variance_over(x, axes), |a, variance| a / (variance + epsilon).sqrt())
}

fn batch(call: &Call) -> Vec<Array> {
    let (x, rank, epsilon) = (call.x(0), call.x(0).ndim(), call.float("epsilon", 1e-5));
    let live = call.int("training_mode", 0) == 1;
    let axes: Vec<usize> = (0..rank).filter(|&axis| axis != 1).collect();
    let [scale, bias, running_mean, running_variance] = [1, 2, 3, 4].map(|i| per_channel(call.x(i), rank));
    let (mean, variance) = if live {
        let (mean, variance) = (mean_over(x, &axes), variance_over(x, &axes));
        let channels = per_channel(&mean.into_shape_with_order(IxDyn(&[x.shape()[1]])).unwrap(), rank);
        (channels, per_channel(&variance.into_shape_with_order(IxDyn(&[x.shape()[1]])).unwrap(), rank))
    } else {
        (running_mean.clone(), running_variance.clone())
    };
    let y = zip(&zip(x, &mean, |a, b| a - b), &variance, |a, variance| a / (variance + epsilon).sqrt());
    let y = zip(&zip(&y, &scale, |a, b| a * b), &bias, |a, b| a + b);
    let momentum = call.float("momentum", 0.9);
    let moved = |running: &Array, batch: &Array| {
        let moved = running * momentum + batch * (1.0 - momentum);
        moved.into_shape_with_order(IxDyn(&[x.shape()[1]])).unwrap()
    };
    vec![y, moved(&running_mean, &mean), moved(&running_variance, &variance)]
}

fn softmax(call: &Call, rank: usize) -> Array {
    let axis = Axis(call.axis(call.int("axis", -1), rank));
    let exponentials = call.x(0).mapv(f64::exp);
    let sum = exponentials.sum_axis(axis).insert_axis(axis);
    zip(&exponentials, &sum, |a, b| a / b)
}
