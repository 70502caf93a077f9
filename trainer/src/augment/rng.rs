//! Reproducible random numbers.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};

use crate::metrics::mix;

/// A stream of random numbers.
///
/// Source: xoshiro256++, Blackman, Vigna, "Scrambled linear pseudorandom number generators", 2021.
pub struct Rng(Xoshiro256PlusPlus);

impl Rng {
    /// `parts`: what the numbers are for, such as seed, image and view. Order matters: `state = mix(state ^ mix(part))`, starting
    /// at 0; see [`mix`].
    pub fn new(parts: &[u64]) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(parts.iter().fold(0, |seed, &part| mix(seed ^ mix(part)))))
    }

    /// From `low` to `high`.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.share()
    }

    /// From `-limit` to `limit`.
    pub fn within(&mut self, limit: f32) -> f32 {
        self.uniform(-limit, limit)
    }

    /// From 0 to below 1.
    pub fn share(&mut self) -> f32 {
        (self.0.next_u64() >> 40) as f32 / (1u64 << 24) as f32
    }

    pub fn chance(&mut self, probability: f32) -> bool {
        self.share() < probability
    }

    /// From 0 to below `count`, which is not 0.
    pub fn index(&mut self, count: usize) -> usize {
        ((u128::from(self.0.next_u64()) * count as u128) >> 64) as usize
    }

    /// With mean 0 and deviation 1.
    ///
    /// Source: Box, Muller, "A Note on the Generation of Random Normal Deviates", 1958.
    pub fn normal(&mut self) -> f32 {
        let (radius, angle) = (1.0 - self.share(), self.share() * std::f32::consts::TAU);
        (-2.0 * radius.ln()).sqrt() * angle.cos()
    }

    /// Between two positive numbers, the logarithm uniform.
    pub fn log_uniform(&mut self, [low, high]: [f32; 2]) -> f32 {
        self.uniform(low.ln(), high.ln()).exp()
    }
}
