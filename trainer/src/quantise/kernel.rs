//! Kernels of convolutions as integers that no processor's arithmetic overflows.

use nalgebra::DMatrix;
use ndarray::Array2;

use super::Channels;

/// The most, and the least, that two neighbours of a kernel sum up to.
///
/// Processors with AVX2 but without VNNI add the products of two unsigned bytes with two signed ones in 16 bits, and an
/// overflow saturates: at worst both bytes are 255, and 255 · 128 is the last multiple of 255 below 2^15. A sum that never
/// saturates is the same on every processor. Only neighbours at 0 and 1, 2 and 3, … of a channel are added so.
///
/// Depthwise convolutions are added in 32 bits and need no bound. Neither would unsigned weights, but where VNNI is, they take the
/// first layers of the network that ships three times as long.
///
/// Source: ONNX Runtime's documentation, "Quantize ONNX models", "When and why do I need to try U8U8?"
pub const MOST_OF_NEIGHBOURS: i32 = 128;

/// Longest integer, so that it has a counterpart with the other sign.
const LONGEST: f32 = 127.0;
/// The most that a bias may be in units of its scale, far from what 32 bits hold together with the sums.
const LONGEST_BIAS: f32 = (1 << 24) as f32;

/// A kernel: `weight = scales[channel] · whole`.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    pub whole: Vec<i8>,
    pub scales: Vec<f32>,
    /// Of each channel, with what the change of the weights makes of the mean input taken off.
    pub bias: Vec<f32>,
}

impl Kernel {
    /// `is_bounded`: whether neighbours keep the bound; `weights`: shape `(channels, …)`, row-major; `bias`: of each channel;
    /// `input`: the scale of the convolution's input, in units of which times that of a channel the bias is stored; `inputs`:
    /// what the channels of the input hold. Each group of channels reads a part of them.
    pub fn new(is_bounded: bool, weights: &[f32], bias: &[f32], groups: usize, input: f32, inputs: &Channels) -> Self {
        let length = (weights.len() / bias.len().max(1)).max(1);
        let read = inputs.means.len() / groups.max(1);
        let points = (length / read.max(1)).max(1);
        let is_compared = groups == 1 && points == 1 && inputs.covariance.nrows() == length;
        let factor = is_compared.then(|| Factor::of(&inputs.covariance)).flatten();
        let mut kernel = Self { whole: Vec::with_capacity(weights.len()), scales: Vec::new(), bias: Vec::new() };
        for (channel, (row, &old)) in weights.chunks_exact(length).zip(bias).enumerate() {
            let group = channel * groups / bias.len();
            let of = |values: &[f32], at: usize| values.get(group * read + at / points).copied().unwrap_or_default();
            let longest = row.iter().fold(0.0f32, |most, weight| most.max(weight.abs()));
            let least = (longest / LONGEST).max(old.abs() / input / LONGEST_BIAS).max(f32::MIN_POSITIVE);
            // A channel of zeros now may not be one of zeros in use.
            let squares: Vec<f32> = (0..length).map(|at| of(&inputs.squares, at).max(1e-6)).collect();
            let (scale, whole) = match &factor {
                Some(factor) => compensated(row, least, factor, is_bounded),
                None => best(row, least, &squares, if is_bounded { 2 } else { 1 }),
            };
            let change = |(at, (weight, whole)): (usize, (&f32, &i8))| {
                (scale * f32::from(*whole) - weight) * of(&inputs.means, at)
            };
            kernel.bias.push(old - row.iter().zip(&whole).enumerate().map(change).sum::<f32>());
            kernel.whole.extend(whole);
            kernel.scales.push(scale);
        }
        kernel
    }
}

/// A triangular factor of the covariance of a convolution's inputs: the square error of an output is the square length of the
/// weights' errors times it.
struct Factor(Vec<Vec<f32>>);

impl Factor {
    /// What is added to each variance, as a share of their mean: few images say little of rare directions.
    const DAMPING: f64 = 0.01;

    /// `None` if the inputs do not vary.
    fn of(covariance: &Array2<f32>) -> Option<Self> {
        let count = covariance.nrows();
        let damping =
            Self::DAMPING * covariance.diag().iter().copied().map(f64::from).sum::<f64>() / count.max(1) as f64;
        // Backwards, so that a row of the lower triangle has what a weight and those before it do to one output.
        let entry = |i: usize, j: usize| {
            let value = f64::from(covariance[[count - 1 - i, count - 1 - j]]);
            if i == j { value + damping.max(f64::MIN_POSITIVE) } else { value }
        };
        let lower = DMatrix::from_fn(count, count, entry).cholesky()?.unpack();
        let column = |j: usize| (0..=j).map(|i| lower[(count - 1 - i, count - 1 - j)] as f32).collect();
        Some(Self((0..count).map(column).collect()))
    }
}

/// The scale, from `least` to twice of it, with the smallest error of the output, if each weight is rounded such that it makes
/// good what the weights before it have lost. With `is_bounded`, neighbours keep the bound.
///
/// Source: Frantar et al., "GPTQ: accurate post-training quantization for generative pre-trained transformers", 2023.
fn compensated(row: &[f32], least: f32, factor: &Factor, is_bounded: bool) -> (f32, Vec<i8>) {
    const TRIES: u16 = 8;
    let mut found: Option<(f32, f32, Vec<i8>)> = None;
    let (mut whole, mut errors) = (vec![0i8; row.len()], vec![0.0f32; row.len()]);
    for i in 0..=TRIES {
        let scale = least * (1.0 + f32::from(i) / f32::from(TRIES));
        let mut sum = 0.0;
        for (at, (weight, column)) in row.iter().zip(&factor.0).enumerate() {
            let carried: f32 = errors[..at].iter().zip(column).map(|(error, factor)| error * factor).sum();
            let mut range = [-LONGEST, LONGEST];
            if is_bounded && at % 2 == 1 {
                let bound = MOST_OF_NEIGHBOURS as f32;
                let before = f32::from(whole[at - 1]);
                range = [range[0].max(-bound - before), range[1].min(bound - before)];
            }
            let near = ((weight + carried / column[at]) / scale).round().clamp(range[0], range[1]);
            (whole[at], errors[at]) = (near as i8, weight - scale * near);
            sum += (carried + errors[at] * column[at]).powi(2);
        }
        if found.as_ref().is_none_or(|(least, ..)| sum < *least) {
            found = Some((sum, scale, whole.clone()));
        }
    }
    found.map_or_else(|| (least, vec![0; row.len()]), |(_, scale, whole)| (scale, whole))
}

/// The scale, from `least` to twice of it, with the smallest error of the output. `squares`: mean squares of the inputs;
/// `together`: how many products a processor adds in 16 bits, 1 or 2.
///
/// At twice the least scale no two neighbours exceed the bound; below, few do, and give way.
fn best(row: &[f32], least: f32, squares: &[f32], together: usize) -> (f32, Vec<i8>) {
    const TRIES: u16 = 20;
    let mut found: Option<(f64, f32, Vec<i8>)> = None;
    for i in 0..=TRIES {
        let scale = least * (1.0 + f32::from(i) / f32::from(TRIES));
        let pairs = row.chunks(together).zip(squares.chunks(together));
        let whole: Vec<i8> = pairs.flat_map(|(pair, squares)| rounded(pair, squares, scale)).collect();
        let error = |((weight, whole), square): ((&f32, &i8), &f32)| {
            f64::from(*square) * f64::from(weight - scale * f32::from(*whole)).powi(2)
        };
        let error: f64 = row.iter().zip(&whole).zip(squares).map(error).sum();
        if found.as_ref().is_none_or(|(least, ..)| error < *least) {
            found = Some((error, scale, whole));
        }
    }
    found.map_or_else(|| (least, vec![0; row.len()]), |(_, scale, whole)| (scale, whole))
}

/// Up to two neighbours in units of `scale`; if their sum is out of bounds, the one whose input is smaller gives way more.
fn rounded(pair: &[f32], squares: &[f32], scale: f32) -> Vec<i8> {
    let near = |value: f32| value.round().clamp(-LONGEST, LONGEST) as i32;
    let (&[first, second], &[of_first, of_second]) = (pair, squares) else {
        return pair.iter().map(|weight| near(weight / scale) as i8).collect();
    };
    let sum = (first + second) / scale;
    let excess = sum - sum.clamp(-MOST_OF_NEIGHBOURS as f32, MOST_OF_NEIGHBOURS as f32);
    let share = of_second / (of_first + of_second);
    let mut whole = [near(first / scale - excess * share), near(second / scale - excess * (1.0 - share))];
    // Rounding may have gone beyond by one, and a limit of the range by more.
    let sum = whole[0] + whole[1];
    let left = sum - sum.clamp(-MOST_OF_NEIGHBOURS, MOST_OF_NEIGHBOURS);
    let longest = usize::from(whole[1].abs() > whole[0].abs());
    whole[longest] -= left;
    whole.map(|value| value as i8).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(length: usize) -> Vec<f32> {
        (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    /// What AVX2 makes of two products, by its definition.
    fn maddubs(bytes: [u8; 2], weights: [i8; 2]) -> i32 {
        let sum: i32 = bytes.iter().zip(weights).map(|(&byte, weight)| i32::from(byte) * i32::from(weight)).sum();
        sum.clamp(i16::MIN.into(), i16::MAX.into())
    }

    fn even(channels: usize) -> Channels {
        Channels { means: vec![0.0; channels], squares: vec![1.0; channels], ..Channels::default() }
    }

    #[test]
    fn sums_of_neighbours_never_saturate() {
        let mut rows = weights(64 * 50);
        // The worst: all weights of a channel are its greatest.
        rows[..50].fill(1.0);
        rows[50..100].fill(-1.0);
        let mut inputs = even(50);
        for kernel in [true, false].map(|even| {
            if !even {
                inputs.squares.iter_mut().enumerate().for_each(|(i, square)| *square = (i * i % 7) as f32);
            }
            Kernel::new(true, &rows, &[0.0; 64], 1, 1.0, &inputs)
        }) {
            for pair in kernel.whole.chunks_exact(2).map(|pair| [pair[0], pair[1]]) {
                for bytes in [[255, 255], [255, 0], [0, 255], [254, 255]] {
                    let exact: i32 =
                        bytes.iter().zip(pair).map(|(&byte, whole)| i32::from(byte) * i32::from(whole)).sum();
                    assert_eq!(maddubs(bytes, pair), exact, "{pair:?}");
                }
            }
        }
    }

    /// Channels that go together, as those of maps do.
    fn together(channels: usize) -> Channels {
        let values = weights(channels * 4 * channels);
        let seen = Array2::from_shape_fn((channels, 4 * channels), |(i, j)| {
            values[i * 4 * channels + j] + 2.0 * values[j] + if i % 3 == 0 { values[4 * channels + j] } else { 0.0 }
        });
        Channels { covariance: seen.dot(&seen.t()) / (4 * channels) as f32, ..even(channels) }
    }

    #[test]
    fn what_a_weight_loses_the_next_make_good() {
        let (inputs, rows) = (together(50), weights(64 * 50));
        let error = |inputs: &Channels| {
            let kernel = Kernel::new(true, &rows, &[0.0; 64], 1, 1.0, inputs);
            let mut error = 0.0;
            for (i, row) in rows.chunks_exact(50).enumerate() {
                let change = row.iter().zip(&kernel.whole[50 * i..]).map(|(w, &q)| w - kernel.scales[i] * f32::from(q));
                let change = ndarray::Array1::from_iter(change);
                error += change.dot(&together(50).covariance.dot(&change));
            }
            let bounded = |pair: &[i8]| (i32::from(pair[0]) + i32::from(pair[1])).abs() <= MOST_OF_NEIGHBOURS;
            assert!(kernel.whole.chunks_exact(50).all(|row| row.chunks_exact(2).all(bounded)));
            error
        };
        let (plain, compensated) = (error(&even(50)), error(&inputs));
        assert!(compensated < 0.7 * plain, "{compensated} {plain}");
    }

    #[test]
    fn weights_come_back() {
        let rows = weights(64 * 50);
        let kernel = Kernel::new(true, &rows, &[0.0; 64], 1, 1.0, &even(50));
        let mut error = 0.0;
        for (i, (weight, &whole)) in rows.iter().zip(&kernel.whole).enumerate() {
            error += (weight - kernel.scales[i / 50] * f32::from(whole)).powi(2);
        }
        // Evenly spread weights are the worst case; 7 bits for all of them would make 1/64/sqrt(12) = 0.0045.
        let error = (error / rows.len() as f32).sqrt();
        assert!(error < 0.0046, "{error}");
    }

    /// Of two weights that are too large together, that of the input that is hardly there gives way.
    #[test]
    fn what_gives_way_matters_least() {
        assert_eq!(rounded(&[127.0, 120.0], &[0.01, 4.0], 1.0), [8, 120]);
        assert_eq!(rounded(&[-120.0, -127.0], &[4.0, 0.01], 1.0), [-120, -8]);
        assert_eq!(rounded(&[127.0, -127.0], &[1.0, 1.0], 1.0), [127, -127]);
    }

    #[test]
    fn the_mean_of_the_output_stays() {
        let inputs = Channels { means: vec![0.1, 2.0], squares: vec![0.01, 4.0], ..Channels::default() };
        let kernel = Kernel::new(true, &[1.0, 0.9], &[0.5], 1, 0.1, &inputs);
        let weight = |at: usize| kernel.scales[0] * f32::from(kernel.whole[at]);
        let output = weight(0) * 0.1 + weight(1) * 2.0 + kernel.bias[0];
        assert!((output - 2.4).abs() < 1e-5, "{output}");
        let grouped = Kernel::new(true, &[1.0, 0.7], &[0.0, 0.0], 2, 0.1, &inputs);
        assert!(grouped.whole.iter().all(|&whole| whole == 127), "each channel reads one input");
        let free = Kernel::new(false, &[1.0, 0.9], &[0.5], 1, 0.1, &inputs);
        assert!(i32::from(free.whole[0]) + i32::from(free.whole[1]) > MOST_OF_NEIGHBOURS, "{:?}", free.whole);
    }

    #[test]
    fn channels_without_weights_keep_their_bias() {
        let kernel = Kernel::new(true, &[0.0; 8], &[3.0, 0.0], 1, 0.1, &even(4));
        assert_eq!(kernel.whole, [0; 8]);
        let back = (3.0 / (kernel.scales[0] * 0.1)).round() * kernel.scales[0] * 0.1;
        assert!((back - 3.0).abs() < 1e-5);
        assert!(kernel.scales.iter().all(|scale| *scale > 0.0));
    }
}
