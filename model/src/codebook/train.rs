//! The training of codebooks: k-means in each subspace.

use super::kmeans::{best_run, keep_to_this_thread};
use super::{Codebook, CodebookError, Hubs, Length, check_sizes, check_values, check_weight};
use ndarray::{Array3, ArrayView2, Axis, s};
use ndarray_rand::rand::SeedableRng;
use rand_xoshiro::Xoshiro256Plus;
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
    /// What becomes of short fused embeddings.
    pub length: Length,
    /// How fused embeddings are corrected for hubs.
    pub hubs: Hubs,
    /// Seed of the random numbers: the same samples and seed give the same codebook, to the bit.
    pub seed: u64,
    /// k-means ends when an iteration moves the prototypes of a subspace, taken together, by less (L2).
    pub tolerance: f32,
    /// The most iterations of k-means.
    pub max_iterations: u64,
    /// Runs of k-means; the one with the least inertia is kept.
    pub runs: usize,
}

impl CodebookOptions {
    /// What suits a gallery of embeddings of this shape, `(n, d)`.
    pub fn of_gallery((photos, dimension): (usize, usize)) -> Self {
        let (subspaces, prototypes) = (Self::subspaces_for(dimension), Self::prototypes_for(photos));
        Self { subspaces, prototypes, ..Self::default() }
    }

    /// The number of subspaces for embeddings of `dimension` channels: 8, or as many fewer as they can be cut into.
    pub fn subspaces_for(dimension: usize) -> usize {
        (1..=8).rev().find(|subspaces| dimension.is_multiple_of(*subspaces)).unwrap_or(1)
    }

    /// The number of prototypes for a gallery of `photos`: 0.7 times the square root, at most 256.
    ///
    /// Chosen with weight and subspaces: `docs/experiments.md`.
    pub fn prototypes_for(photos: usize) -> usize {
        (0.7 * (photos as f64).sqrt()).round().clamp(1.0, 256.0) as usize
    }
}

impl Default for CodebookOptions {
    /// What `docs/experiments.md` found best over galleries of 64 to 7,000 photos; prototypes for 1,000 of them.
    fn default() -> Self {
        Self {
            subspaces: 8,
            prototypes: 22,
            weight: 0.35,
            length: Length::default(),
            hubs: Hubs::default(),
            seed: 0,
            tolerance: 1e-4,
            max_iterations: 100,
            runs: 1,
        }
    }
}

/// Long computations call this regularly; `Break` stops them.
pub type Check<'a> = &'a mut dyn FnMut() -> ControlFlow<()>;

impl Codebook {
    /// Trains a codebook, as [`Codebook::train_with`], without interruption.
    pub fn train(samples: ArrayView2<f32>, model: u32, options: &CodebookOptions) -> Result<Self, CodebookError> {
        Self::train_with(samples, model, options, &mut || ControlFlow::Continue(()))
    }

    /// Trains a codebook: k-means in each subspace, started by k-means++.
    ///
    /// `samples`: shape `(n, d)`, embeddings of photos. `model`: tag of the model that made them, 0 if unknown.
    /// `check` is called before every step of a few milliseconds to seconds; its `Break` stops the training.
    ///
    /// The calling thread does all work, unless it belongs to a rayon pool, whose threads then share it. A thread without
    /// a pool permanently becomes a pool of its own: PostgreSQL's backends must not have other threads, which could run
    /// its signal handlers. To use several threads, call this in `ThreadPool::install`.
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
        Self::new(centroids, options.weight, model)?.with_length(options.length).with_hubs(options.hubs)
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
