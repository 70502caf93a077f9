//! The training of codebooks: k-means in each subspace.

use super::{Codebook, CodebookError, check_sizes, check_values, check_weight, l2_squared};
use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_clustering::{KMeans, KMeansInit};
use linfa_nn::distance::Distance;
use ndarray::{Array2, Array3, ArrayView, ArrayView2, Axis, Dimension, s};
use ndarray_rand::rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256Plus;
use std::iter;
use std::ops::ControlFlow;

/// How to train a codebook.
#[derive(Clone, Debug, PartialEq)]
pub struct CodebookOptions {
    /// The number of subspaces, `m`.
    pub subspaces: usize,
    /// The number of prototypes of each subspace, `k`.
    pub prototypes: usize,
    /// The share of the photo's own embedding in the fused one, 0 to 1.
    pub weight: f32,
    /// Whether fused embeddings are brought to unit length.
    pub unit_length: bool,
    /// Where the random numbers start: the same samples and seed give the same codebook, to the bit.
    pub seed: u64,
    /// k-means ends when an iteration moves the prototypes of a subspace, taken together, by less (L2).
    pub tolerance: f32,
    /// The most iterations of k-means.
    pub max_iterations: u64,
    /// How often k-means starts afresh; the run with the least inertia is kept.
    pub runs: usize,
}

impl Default for CodebookOptions {
    /// The paper's weight and subspaces; as many prototypes as a small gallery has classes.
    fn default() -> Self {
        Self {
            subspaces: 2,
            prototypes: 64,
            weight: 0.2,
            unit_length: true,
            seed: 0,
            tolerance: 1e-4,
            max_iterations: 100,
            runs: 1,
        }
    }
}

/// What a long computation calls now and then: `Break` stops it.
type Check<'a> = &'a mut dyn FnMut() -> ControlFlow<()>;

/// One run of k-means: the prototypes, shape `(k, dsub)`, and the mean of the squared distances to the nearest.
struct Run {
    centroids: Array2<f32>,
    inertia: f32,
}

impl Codebook {
    /// Trains a codebook, as [`Codebook::train_with`], without a way to stop it.
    pub fn train(samples: ArrayView2<f32>, model: u32, options: &CodebookOptions) -> Result<Self, CodebookError> {
        Self::train_with(samples, model, options, &mut || ControlFlow::Continue(()))
    }

    /// Trains a codebook: k-means in each subspace, started by k-means++.
    ///
    /// `samples`: shape `(n, d)`, embeddings of photos. `model`: tag of the model that made them, 0 if unknown.
    /// `check` is called before every step of a few milliseconds to seconds; its `Break` stops the training.
    ///
    /// All work is done by the calling thread, unless it belongs to a rayon pool, whose threads then share it; a
    /// thread that belongs to none becomes a pool of its own, for good. PostgreSQL's backends must not have
    /// other threads that could run its signal handlers; a program that wants them trains in `ThreadPool::install`.
    ///
    /// # Errors
    /// [`CodebookError::TooFewSamples`] if `n < k`, [`CodebookError::TooFewDistinct`] if fewer than k samples differ
    /// in some subspace, [`CodebookError::Value`] for NaN and infinities (its position counts row-major),
    /// [`CodebookError::Interrupted`] if `check` said so; and for what is wrong in the options.
    ///
    /// Source: Arthur, Vassilvitskii, "k-means++: the advantages of careful seeding", 2007.
    pub fn train_with(
        samples: ArrayView2<f32>,
        model: u32,
        options: &CodebookOptions,
        check: Check,
    ) -> Result<Self, CodebookError> {
        let (n, dimension) = samples.dim();
        let (subspaces, prototypes) = (options.subspaces, options.prototypes);
        check_options(options, dimension)?;
        if n < prototypes {
            return Err(CodebookError::TooFewSamples { samples: n, prototypes });
        }
        check_values(samples)?;
        keep_to_this_thread();

        let width = dimension / subspaces;
        let mut rng = Xoshiro256Plus::seed_from_u64(options.seed);
        let mut centroids = Array3::zeros((subspaces, prototypes, width));
        for subspace in 0..subspaces {
            let channels = subspace * width..(subspace + 1) * width;
            let subvectors = samples.slice(s![.., channels]).as_standard_layout().into_owned();
            let best = best_run(subspace, subvectors, options, &mut rng, check)?;
            centroids.index_axis_mut(Axis(0), subspace).assign(&best);
        }
        Ok(Self::new(centroids, options.weight, model)?.with_unit_length(options.unit_length))
    }
}

fn check_options(options: &CodebookOptions, dimension: usize) -> Result<(), CodebookError> {
    check_sizes(options.subspaces, options.prototypes, dimension)?;
    check_weight(options.weight)?;
    let positive = [
        ("tolerance", options.tolerance > 0.0),
        ("max_iterations", options.max_iterations > 0),
        ("runs", options.runs > 0),
    ];
    match positive.into_iter().find(|(_, positive)| !positive) {
        Some((option, _)) => Err(CodebookError::NotPositive { option }),
        None => Ok(()),
    }
}

/// Makes rayon, through which linfa works, run what this thread gives it on this thread, if it would not otherwise
/// start threads for it: see [`Codebook::train_with`].
fn keep_to_this_thread() {
    if rayon::current_thread_index().is_none() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
        // A thread cannot leave its pool, so neither may the pool end.
        std::mem::forget(pool);
    }
}

/// Clusters the subvectors of one subspace, shape `(n, dsub)`, and returns the best prototypes, shape `(k, dsub)`.
fn best_run(
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

/// Runs k-means from `centroids`, shape `(k, dsub)`, one iteration of linfa's after the other so that it can be stopped.
fn iterate(
    samples: &DatasetBase<Array2<f32>, ndarray::Array1<()>>,
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
