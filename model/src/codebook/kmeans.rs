//! k-means in one subspace, by linfa.
//!
//! linfa is used in this file alone, because two of its habits need a guard. It computes in rayon's threads, and a
//! PostgreSQL backend must not have other threads, which could run its signal handlers: [`keep_to_this_thread`]. And a
//! fit cannot be interrupted: `iterate` asks for one iteration at a time.

use super::train::{Check, CodebookOptions};
use super::{CodebookError, l2_squared};
use linfa::DatasetBase;
use linfa::traits::Fit;
pub use linfa_clustering::KMeansError;
use linfa_clustering::{KMeans, KMeansInit};
use linfa_nn::distance::Distance;
use ndarray::{Array1, Array2, ArrayView, Axis, Dimension};
use ndarray_rand::rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256Plus;
use std::iter;
use std::ops::ControlFlow;

/// One run of k-means: the prototypes, shape `(k, dsub)`, and the mean of the squared distances to the nearest.
struct Run {
    centroids: Array2<f32>,
    inertia: f32,
}

/// Makes rayon run what this thread gives it on this thread, unless the thread belongs to a pool already.
pub fn keep_to_this_thread() {
    if rayon::current_thread_index().is_none() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
        // A thread cannot leave its pool, so neither may the pool end.
        std::mem::forget(pool);
    }
}

/// Clusters the subvectors of one subspace, shape `(n, dsub)`, and returns the best prototypes, shape `(k, dsub)`.
pub fn best_run(
    subspace: usize,
    subvectors: Array2<f32>,
    options: &CodebookOptions,
    rng: &mut Xoshiro256Plus,
    check: Check,
) -> Result<Array2<f32>, CodebookError> {
    let samples = DatasetBase::from(subvectors);
    let mut best: Option<Run> = None;
    for _ in 0..options.runs {
        let start = seed_prototypes(subspace, samples.records(), options.prototypes, rng, check)?;
        let run = iterate(&samples, start, options, check)?;
        if best.as_ref().is_none_or(|best| run.inertia < best.inertia) {
            best = Some(run);
        }
    }
    best.map(|run| run.centroids).ok_or(CodebookError::NotPositive { option: "runs" })
}

/// Picks samples to start from by k-means++: each with a chance that grows with its squared distance to those picked.
///
/// linfa's own k-means++ measures all distances again for every pick, k times the work, and cannot be stopped.
fn seed_prototypes(
    subspace: usize,
    samples: &Array2<f32>,
    prototypes: usize,
    rng: &mut Xoshiro256Plus,
    check: Check,
) -> Result<Array2<f32>, CodebookError> {
    let mut picks = vec![rng.gen_range(0..samples.nrows())];
    let mut distances = vec![f32::INFINITY; samples.nrows()];
    while picks.len() < prototypes {
        go_on(check)?;
        let last = samples.row(picks[picks.len() - 1]);
        for (distance, sample) in iter::zip(&mut distances, samples.rows()) {
            *distance = distance.min(FixedOrder.rdistance(sample, last));
        }
        let pick = draw(&distances, rng);
        picks.push(pick.ok_or(CodebookError::TooFewDistinct { subspace, distinct: picks.len(), prototypes })?);
    }
    Ok(samples.select(Axis(0), &picks))
}

/// Draws an index with a chance in proportion to its weight; `None` if all weights are 0.
fn draw(weights: &[f32], rng: &mut Xoshiro256Plus) -> Option<usize> {
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    let mut left = rng.r#gen::<f64>() * total;
    let mut drawn = None;
    for (index, &weight) in weights.iter().enumerate().filter(|&(_, &weight)| weight > 0.0) {
        drawn = Some(index);
        left -= f64::from(weight);
        if left < 0.0 {
            break;
        }
    }
    drawn
}

/// Runs k-means from `centroids`, shape `(k, dsub)`.
fn iterate(
    samples: &DatasetBase<Array2<f32>, Array1<()>>,
    mut centroids: Array2<f32>,
    options: &CodebookOptions,
    check: Check,
) -> Result<Run, CodebookError> {
    let mut inertia = f32::INFINITY;
    for _ in 0..options.max_iterations {
        go_on(check)?;
        // The generator is not used: the prototypes are given.
        let rng = Xoshiro256Plus::seed_from_u64(0);
        let step = KMeans::params_with(centroids.nrows(), rng, FixedOrder)
            .init_method(KMeansInit::Precomputed(centroids.clone()))
            .n_runs(1)
            .max_n_iterations(1)
            .fit(samples)?;
        inertia = step.inertia();
        let moved = FixedOrder.distance(centroids.view(), step.centroids().view());
        centroids.assign(step.centroids());
        if moved < options.tolerance {
            break;
        }
    }
    Ok(Run { centroids, inertia })
}

fn go_on(check: Check) -> Result<(), CodebookError> {
    match check() {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(CodebookError::Interrupted),
    }
}

/// L2 with additions in one fixed order; several times as fast as linfa's own, which adds one value after the other.
#[derive(Clone, Debug)]
struct FixedOrder;

impl Distance<f32> for FixedOrder {
    fn distance<D: Dimension>(&self, a: ArrayView<f32, D>, b: ArrayView<f32, D>) -> f32 {
        self.rdistance(a, b).sqrt()
    }

    fn rdistance<D: Dimension>(&self, a: ArrayView<f32, D>, b: ArrayView<f32, D>) -> f32 {
        match (a.as_slice(), b.as_slice()) {
            (Some(a), Some(b)) => l2_squared(a, b),
            _ => iter::zip(&a, &b).map(|(a, b)| (a - b) * (a - b)).sum(),
        }
    }

    fn rdist_to_dist(&self, distance: f32) -> f32 {
        distance.sqrt()
    }

    fn dist_to_rdist(&self, distance: f32) -> f32 {
        distance * distance
    }
}
