//! From a sample of rows to a quantizer: rotation, centroids, scales.

use super::layout::Layout;
use super::quantizer::{Centroids, Quantizer, Rotation};
use super::{BuildOptions, Check, IndexError};
use crate::simd::BLOCK;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, s};
use ndarray_rand::rand::seq::index::sample as choose;
use ndarray_rand::rand::{Rng, RngCore, SeedableRng};
use rand_xoshiro::Xoshiro256Plus;

/// Principal directions that rows are turned into: near and middle channels, and the first of the far ones.
const PRINCIPAL: usize = 4 * BLOCK;
/// Principal directions in which rows are clustered.
const CLUSTERED: usize = 2 * BLOCK;
/// Rounds of the iteration that finds them. They need not be exact: any rotation serves, a good one prunes more.
const POWER_ROUNDS: usize = 6;
/// Rows that directions and scales are estimated from.
const ESTIMATED_FROM: usize = 8_192;
/// Longest embeddings that are rotated; a rotation has the square of it in values.
const MAX_ROTATED: usize = 1024;
/// Rounds of k-means, and rows of the sample for each list: more hardly changed how many rows a search reads.
const KMEANS_ROUNDS: usize = 8;
pub const SAMPLE_PER_LIST: usize = 24;
/// Rows between two checks for an interrupt.
const PART: usize = 1024;

impl Quantizer {
    /// Fits a quantizer to a sample of rows.
    ///
    /// `sample`: shape `(n, d)`. `rows`: how many there will be. `check` is called every few milliseconds; its `Break`
    /// stops the training.
    ///
    /// # Errors
    /// [`IndexError::Interrupted`] if `check` said so.
    pub fn train(sample: ArrayView2<f32>, rows: f64, options: &BuildOptions, check: Check) -> Result<Self, IndexError> {
        let (count, dimension) = sample.dim();
        if count == 0 {
            return Ok(Self::empty(options));
        }
        let mut rng = Xoshiro256Plus::seed_from_u64(options.seed);
        let lists = options.lists_for(rows).min(count);

        let few = evenly(&sample, ESTIMATED_FROM);
        let mean = few.mean_axis(Axis(0)).expect("there are rows");
        let narrow = match dimension <= CLUSTERED {
            true => None,
            false => Some(principal_directions((&few - &mean).view(), CLUSTERED, &mut rng, check)?),
        };
        let coarse = match &narrow {
            None => sample.to_owned(),
            Some(directions) => by_parts(&sample, directions.nrows(), check, |part, mut out| {
                general_mat_mul(1.0, &part, &directions.t(), 0.0, &mut out);
            })?,
        };
        let (seeds, assigned) = kmeans(coarse.view(), lists, &mut rng, check)?;
        let centroids = means(&sample, &assigned, seeds.nrows());
        drop(coarse);

        let residuals = residuals(&sample, &centroids, &assigned, ESTIMATED_FROM);
        let rotation = match dimension <= MAX_ROTATED {
            true => {
                let rows = equally_weighted(residuals.clone(), &few - &mean);
                Rotation::new(complete(
                    principal_directions(rows.view(), PRINCIPAL, &mut rng, check)?,
                    &mut rng,
                    check,
                )?)
            }
            false => Rotation::none(),
        };
        let layout = Layout::new(dimension, options.bits);
        let centroids = Centroids::new(rotate_all(&rotation, &centroids, &layout));
        let scales = scales(&rotate_all(&rotation, &residuals, &layout));
        Ok(Self::assemble(dimension, options.bits, rng.next_u64(), rotation, scales, centroids))
    }
}

/// At most `most` rows, evenly spaced.
fn evenly(sample: &ArrayView2<f32>, most: usize) -> Array2<f32> {
    let step = sample.nrows().div_ceil(most).max(1);
    sample.slice(s![..;step, ..]).to_owned()
}

/// Processes rows in parts, with a check before each. Returns what `work` writes, shape `(n, width)`.
fn by_parts(
    rows: &ArrayView2<f32>,
    width: usize,
    check: Check,
    mut work: impl FnMut(ArrayView2<f32>, ArrayViewMut2<f32>),
) -> Result<Array2<f32>, IndexError> {
    let mut out = Array2::zeros((rows.nrows(), width));
    for (part, out) in rows.axis_chunks_iter(Axis(0), PART).zip(out.axis_chunks_iter_mut(Axis(0), PART)) {
        go_on(check)?;
        work(part, out);
    }
    Ok(out)
}

fn go_on(check: Check) -> Result<(), IndexError> {
    if check().is_break() { Err(IndexError::Interrupted) } else { Ok(()) }
}

/// Stacks residuals and rows, each scaled to the same weight.
///
/// Codes should cover the directions in which residuals are long. But a bound also counts the query's part of what the
/// codes leave out, and queries are distributed like rows: with both, a tenth fewer rows reach the far stage.
fn equally_weighted(mut residuals: Array2<f32>, mut rows: Array2<f32>) -> Array2<f32> {
    for part in [&mut residuals, &mut rows] {
        let length = part.iter().map(|value| f64::from(value * value)).sum::<f64>().sqrt();
        let per = if length > 0.0 { ((part.nrows() as f64).sqrt() / length) as f32 } else { 0.0 };
        part.mapv_inplace(|value| value * per);
    }
    residuals.append(Axis(0), rows.view()).expect("rows of the same length");
    residuals
}

/// The `most` directions in which rows lie farthest apart, shape `(k, d)`, orthonormal, k at most d.
///
/// Source: orthogonal iteration; Golub, Van Loan, "Matrix computations", section 8.2.4.
fn principal_directions(
    rows: ArrayView2<f32>,
    most: usize,
    rng: &mut impl RngCore,
    check: Check,
) -> Result<Array2<f32>, IndexError> {
    let d = rows.ncols();
    let mut directions = Array2::from_shape_simple_fn((most.min(d), d), || rng.gen_range(-1.0f32..1.0));
    orthonormalise(&mut directions, 0, rng);
    for _ in 0..POWER_ROUNDS {
        let mut next = Array2::<f32>::zeros(directions.dim());
        for part in rows.axis_chunks_iter(Axis(0), PART) {
            go_on(check)?;
            let along = part.dot(&directions.t());
            general_mat_mul(1.0, &along.t(), &part, 1.0, &mut next);
        }
        directions = next;
        orthonormalise(&mut directions, 0, rng);
    }
    Ok(directions)
}

/// Makes the rows from `from` on orthonormal, to each other and to those before. Dependent rows are replaced by random ones.
fn orthonormalise(rows: &mut Array2<f32>, from: usize, rng: &mut impl RngCore) {
    let mut done = Array2::<f64>::zeros(rows.dim());
    done.assign(&rows.mapv(f64::from));
    for i in from..rows.nrows() {
        loop {
            let before = norm(&done.row(i).to_owned());
            // Twice is enough: Giraud, Langou, Rozložník, "The loss of orthogonality in the Gram-Schmidt process", 2005.
            for _ in 0..2 {
                let (earlier, mut later) = done.view_mut().split_at(Axis(0), i);
                let mut row = later.row_mut(0);
                let along = earlier.dot(&row);
                row -= &earlier.t().dot(&along);
            }
            let length = norm(&done.row(i).to_owned());
            if length > 1e-6 * before && length > 1e-30 {
                done.row_mut(i).mapv_inplace(|value| value / length);
                break;
            }
            done.row_mut(i).mapv_inplace(|_| rng.gen_range(-1.0..1.0));
        }
    }
    rows.assign(&done.mapv(|value| value as f32));
}

fn norm(values: &Array1<f64>) -> f64 {
    values.dot(values).sqrt()
}

/// Completes `directions` to an orthonormal basis, shape `(d, d)`.
fn complete(directions: Array2<f32>, rng: &mut impl RngCore, check: Check) -> Result<Array2<f32>, IndexError> {
    let (found, d) = directions.dim();
    let mut basis = Array2::from_shape_simple_fn((d, d), || rng.gen_range(-1.0f32..1.0));
    basis.slice_mut(s![..found, ..]).assign(&directions);
    go_on(check)?;
    orthonormalise(&mut basis, found, rng);
    Ok(basis)
}

/// Lloyd's k-means from random rows. Returns the centroids, shape `(k, w)`, and each row's; centroids without rows are
/// left out.
///
/// linfa's is many times slower with thousands of centroids, and a good assignment is enough here.
fn kmeans(
    rows: ArrayView2<f32>,
    lists: usize,
    rng: &mut Xoshiro256Plus,
    check: Check,
) -> Result<(Array2<f32>, Vec<u32>), IndexError> {
    let chosen = choose(rng, rows.nrows(), lists).into_vec();
    let mut centroids = rows.select(Axis(0), &chosen);
    for _ in 0..KMEANS_ROUNDS {
        let assigned = nearest(&rows, &centroids, check)?;
        let mut used = vec![false; centroids.nrows()];
        assigned.iter().for_each(|list| used[*list as usize] = true);
        centroids = means(&rows, &assigned, centroids.nrows());
        // An empty list restarts at a random row.
        for (mut centroid, _) in centroids.outer_iter_mut().zip(used).filter(|(_, used)| !used) {
            centroid.assign(&rows.row(rng.gen_range(0..rows.nrows())));
        }
    }
    let mut assigned = nearest(&rows, &centroids, check)?;
    let mut number = vec![u32::MAX; centroids.nrows()];
    let mut kept = Vec::new();
    for list in &mut assigned {
        let old = *list as usize;
        if number[old] == u32::MAX {
            number[old] = kept.len() as u32;
            kept.push(old);
        }
        *list = number[old];
    }
    Ok((centroids.select(Axis(0), &kept), assigned))
}

/// The nearest centroid of each row.
fn nearest(rows: &ArrayView2<f32>, centroids: &Array2<f32>, check: Check) -> Result<Vec<u32>, IndexError> {
    let halves = centroids.map_axis(Axis(1), |centroid| centroid.dot(&centroid) / 2.0);
    let mut out = Vec::with_capacity(rows.nrows());
    let mut products = Array2::zeros((PART, centroids.nrows()));
    for part in rows.axis_chunks_iter(Axis(0), PART) {
        go_on(check)?;
        let mut products = products.slice_mut(s![..part.nrows(), ..]);
        general_mat_mul(1.0, &part, &centroids.t(), 0.0, &mut products);
        for products in products.outer_iter() {
            let nearness = products.iter().zip(&halves).map(|(product, half)| product - half);
            let best = nearness.enumerate().fold((0, f32::NEG_INFINITY), |a, b| if b.1 > a.1 { b } else { a });
            out.push(best.0 as u32);
        }
    }
    Ok(out)
}

/// Mean of the rows of each list, zeros where there are none.
fn means(rows: &ArrayView2<f32>, assigned: &[u32], lists: usize) -> Array2<f32> {
    let mut sums = Array2::<f32>::zeros((lists, rows.ncols()));
    let mut counts = vec![0.0f32; lists];
    for (row, list) in rows.outer_iter().zip(assigned) {
        let mut sum = sums.row_mut(*list as usize);
        sum += &row;
        counts[*list as usize] += 1.0;
    }
    for (mut sum, count) in sums.outer_iter_mut().zip(counts) {
        sum /= count.max(1.0);
    }
    sums
}

/// Rows less their centroids, of at most `most` rows.
fn residuals(sample: &ArrayView2<f32>, centroids: &Array2<f32>, assigned: &[u32], most: usize) -> Array2<f32> {
    let mut out = evenly(sample, most);
    let step = sample.nrows().div_ceil(most).max(1);
    for (mut row, list) in out.outer_iter_mut().zip(assigned.iter().step_by(step)) {
        row -= &centroids.row(*list as usize);
    }
    out
}

fn rotate_all(rotation: &Rotation, rows: &Array2<f32>, layout: &Layout) -> Array2<f32> {
    let mut out = Array2::zeros((rows.nrows(), layout.padded));
    let mut padded = vec![0.0; layout.padded];
    for (row, mut out) in rows.outer_iter().zip(out.outer_iter_mut()) {
        padded[..row.len()].iter_mut().zip(row).for_each(|(padded, value)| *padded = *value);
        rotation.apply(&padded, out.as_slice_mut().expect("row-major"));
    }
    out
}

/// The spread of residuals along each channel: root mean square of residuals of unit length.
fn scales(residuals: &Array2<f32>) -> Vec<f32> {
    let mut squares = vec![0.0f64; residuals.ncols()];
    let mut count = 0.0f64;
    for row in residuals.outer_iter() {
        let length = f64::from(row.dot(&row));
        if length > 0.0 && length.is_finite() {
            squares.iter_mut().zip(&row).for_each(|(sum, value)| *sum += f64::from(value * value) / length);
            count += 1.0;
        }
    }
    let scales: Vec<f64> = squares.iter().map(|sum| (sum / count.max(1.0)).sqrt()).collect();
    // A channel that is zero in the sample may not be zero in other rows.
    let least = scales.iter().fold(0.0f64, |a, b| a.max(*b)) / 64.0;
    scales.iter().map(|scale| scale.max(least).max(1e-3) as f32).collect()
}
