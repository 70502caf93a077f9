//! Sets that nobody photographed.

use crate::DIMENSION;
use ndarray_rand::rand::seq::index;
use ndarray_rand::rand::{Rng, SeedableRng};
use ndarray_rand::rand_distr::{Distribution, StandardNormal};
use rand_xoshiro::Xoshiro256Plus;
use std::iter;
use std::str::FromStr;

const PROTOTYPES: u64 = 100;
/// Share of a photo's own embedding; the default of a codebook.
const WEIGHT: f32 = 0.2;
/// How often a point of [`MadeUp::Duplicates`] is there, about.
const COPIES: u64 = 50;

#[derive(Clone, Copy, Debug)]
pub enum MadeUp {
    Clustered,
    Uniform,
    Duplicates,
    Equal,
    Wide,
}

impl FromStr for MadeUp {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "clustered" => Ok(Self::Clustered),
            "uniform" => Ok(Self::Uniform),
            "duplicates" => Ok(Self::Duplicates),
            "equal" => Ok(Self::Equal),
            "wide" => Ok(Self::Wide),
            _ => Err(format!("there is no set \"{name}\"")),
        }
    }
}

impl MadeUp {
    /// One row of a set of `count`.
    pub fn embedding(self, rng: &mut Xoshiro256Plus, count: u64) -> Vec<f32> {
        match self {
            Self::Clustered => clustered(rng),
            Self::Uniform => (0..DIMENSION).map(|_| rng.gen_range(-1.0..1.0)).collect(),
            Self::Duplicates => {
                // Another set of the same size, such as one of queries, has the same points.
                let point = rng.gen_range(0..(count / COPIES).max(1));
                clustered(&mut Xoshiro256Plus::seed_from_u64(point))
            }
            Self::Equal => {
                let mut values = vec![0.0; DIMENSION];
                for position in index::sample(rng, DIMENSION, 8) {
                    values[position] = if rng.r#gen() { 1.0 } else { -1.0 };
                }
                values
            }
            Self::Wide => {
                let length = rng.gen_range(-10.0f32..16.0).exp2();
                unit(normal(rng)).into_iter().map(|value| value * length).collect()
            }
        }
    }
}

fn clustered(rng: &mut Xoshiro256Plus) -> Vec<f32> {
    // Every set has the same prototypes.
    let prototype = unit(normal(&mut Xoshiro256Plus::seed_from_u64(u64::MAX - rng.gen_range(0..PROTOTYPES))));
    let own = unit(iter::zip(&prototype, unit(normal(rng))).map(|(p, noise)| p + noise).collect());
    iter::zip(own, prototype).map(|(x, p)| WEIGHT * x + (1.0 - WEIGHT) * p).collect()
}

fn normal(rng: &mut Xoshiro256Plus) -> Vec<f32> {
    StandardNormal.sample_iter(rng).take(DIMENSION).collect()
}

pub fn unit(mut values: Vec<f32>) -> Vec<f32> {
    let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.iter_mut().for_each(|value| *value /= norm);
    values
}
