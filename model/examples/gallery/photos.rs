//! Galleries as large as wanted that look to an index like the real one.

use crate::made_up::unit;
use crate::{DIMENSION, copy, rng};
use ndarray::{Array2, ArrayView1, Axis, s};
use ndarray_rand::rand::Rng;
use ndarray_rand::rand_distr::{Distribution, StandardNormal};
use rand_xoshiro::Xoshiro256Plus;
use rayon::prelude::*;
use sketch_model::codebook::{Codebook, CodebookError, CodebookOptions, Length};
use sketch_model::simd;
use std::error::Error;
use std::fs;

/// Neighbours that span what a photo may be like.
const NEIGHBOURS: usize = 32;
/// Standard deviation of the step towards each neighbour. The steps add up to √(32) / 8 = 0.7 of the distance to a
/// neighbour: a new photo is about as far from its origin as photos that show the same are from one another.
const STEP: f32 = 1.0 / 8.0;
/// As many as SQL reads for a codebook of a large table.
const SAMPLE: usize = 10_000;
/// Photos whose distances to all others are computed in one go.
const BLOCK: usize = 256;

/// Real photos, from which others are made.
///
/// There are some thousands of them; a bench of an index wants a million that lie as these do. Copies with noise
/// in all 512 directions do not: photos of one kind differ in few directions, others in each place, and an index lives on that.
/// So a new photo is a real one, chosen at random, moved within the affine space of its 32 nearest neighbours j:
/// `x' = unit(x + Σ g_j (x_j − x) / 8)`, each `g_j` drawn from the standard normal distribution. It stays
/// among photos that show the same, differs from them in the directions in which they differ, and clusters,
/// prototypes and distances to sketches remain as they were. It is rounded to half precision, as a table keeps it, and then fused.
pub struct Gallery {
    /// Shape `(n, d)`.
    photos: Array2<f32>,
    /// The nearest neighbours of each photo, shape `(n, NEIGHBOURS)`.
    neighbours: Vec<Vec<usize>>,
    /// Tag of the photos' model.
    model: u32,
}

impl Gallery {
    /// Reads the photos' embeddings from a file that `COPY` wrote.
    ///
    /// # Errors
    /// If the file cannot be read or has no more photos than one of them is to have neighbours.
    pub fn open(path: &str) -> Result<Self, Box<dyn Error>> {
        let (values, model) = copy::read(&fs::read(path)?)?;
        let photos = Array2::from_shape_vec((values.len() / DIMENSION, DIMENSION), simd::to_f32(&values))?;
        if photos.nrows() <= NEIGHBOURS {
            return Err(format!("{} photos are too few", photos.nrows()).into());
        }
        let starts: Vec<usize> = (0..photos.nrows()).step_by(BLOCK).collect();
        let neighbours = starts.into_par_iter().flat_map_iter(|start| neighbours(&photos, start)).collect();
        Ok(Self { photos, neighbours, model })
    }

    /// The number of real photos.
    pub fn len(&self) -> u64 {
        self.photos.nrows() as u64
    }

    /// Trains a codebook on a sample of new photos.
    pub fn codebook(&self) -> Result<Codebook, CodebookError> {
        let photos: Vec<f32> =
            (0..SAMPLE as u64).into_par_iter().flat_map_iter(|id| self.photo(&mut rng(u64::MAX, id))).collect();
        let samples = Array2::from_shape_vec((SAMPLE, DIMENSION), photos).expect("each photo has as many values");
        // Without a channel, which the other index would need in its queries.
        let (prototypes, length) = (SAMPLE.isqrt(), Length::Scaled);
        let options = CodebookOptions { subspaces: 2, prototypes, weight: 0.2, length, ..CodebookOptions::default() };
        let mut codebook = None;
        // In a thread of rayon's, so that all of them train.
        rayon::scope(|_| codebook = Some(Codebook::train(samples.view(), self.model, &options)));
        codebook.expect("the scope has ended")
    }

    /// The real photo of an id, which counts from 1.
    pub fn real(&self, id: u64) -> &[f32] {
        self.row(id as usize - 1)
    }

    /// Makes a new photo, shape `(d,)`.
    pub fn photo(&self, rng: &mut Xoshiro256Plus) -> Vec<f32> {
        let origin = rng.gen_range(0..self.photos.nrows());
        let (mut steps, neighbours) = (0.0, &self.neighbours[origin]);
        let mut photo = vec![0.0; DIMENSION];
        for &neighbour in neighbours {
            let normal: f32 = StandardNormal.sample(rng);
            let step = normal * STEP;
            steps += step;
            photo.iter_mut().zip(self.row(neighbour)).for_each(|(value, x)| *value += step * x);
        }
        photo.iter_mut().zip(self.row(origin)).for_each(|(value, x)| *value += (1.0 - steps) * x);
        simd::to_f32(&simd::to_f16(&unit(photo)))
    }

    fn row(&self, index: usize) -> &[f32] {
        self.photos.row(index).to_slice().expect("the array is row-major")
    }
}

/// The nearest neighbours of each photo of a block: those with the largest inner products, for all are of unit length.
fn neighbours(photos: &Array2<f32>, start: usize) -> Vec<Vec<usize>> {
    let end = photos.nrows().min(start + BLOCK);
    let products = photos.slice(s![start..end, ..]).dot(&photos.t());
    let nearest = |(row, products): (usize, ArrayView1<f32>)| {
        let mut others: Vec<usize> = (0..photos.nrows()).filter(|&other| other != start + row).collect();
        others.select_nth_unstable_by(NEIGHBOURS - 1, |&a, &b| products[b].total_cmp(&products[a]).then(a.cmp(&b)));
        others.truncate(NEIGHBOURS);
        others.sort_unstable();
        others
    };
    products.axis_iter(Axis(0)).enumerate().map(nearest).collect()
}
