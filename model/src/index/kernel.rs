//! The inner loops of the index, each with a scalar definition that the vector forms are held to, to the bit.
//!
//! Codes are numbers of 4 bits, two a byte. Of 64 channels in a row, the low halves of 32 bytes hold the first 32, the
//! high halves the others. Of [`GROUP`] rows side by side, as [`Kernel::near_bounds`] takes them, 4 bytes of each row
//! follow one another, which hold 8 of its channels, the first 4 in their low halves.

#[cfg(target_arch = "x86_64")]
mod x86;

use super::layout::RESTS;
use crate::simd::distance::total;
use half::f16;
use std::fmt;
use std::sync::LazyLock;

/// Rows whose near codes lie side by side.
pub const GROUP: usize = 8;
/// Channels of a block; coded dimensions are a multiple of it.
pub const BLOCK: usize = 64;
/// Bytes of the codes of a block.
pub const BLOCK_BYTES: usize = BLOCK / 2;
/// Partial sums of the floating-point kernels.
pub const LANES: usize = 32;

/// A group of rows, as a segment holds them: codes, then numbers for each row.
#[derive(Clone, Copy, Debug)]
pub struct NearRows<'a> {
    pub codes: &'a [u8; GROUP * BLOCK_BYTES],
    /// Single precision.
    pub base: &'a [u8; 4 * GROUP],
    /// `bf16`, as those that follow.
    pub scale: &'a [u8; 2 * GROUP],
    pub error: &'a [u8; 2 * GROUP],
    pub rest: [&'a [u8; 2 * GROUP]; RESTS],
}

/// What the near stage does with a group, for all its rows alike:
/// `squared + base − scale · (step · dot + off) − error · row's error − Σ rest · row's rest`.
#[derive(Clone, Copy, Debug)]
pub struct NearTerms {
    pub squared: f32,
    pub step: f32,
    pub off: f32,
    pub error: f32,
    pub rest: [f32; RESTS],
}

/// One set of inner loops that this machine can run.
#[derive(Clone, Copy)]
pub struct Kernel {
    name: &'static str,
    // Only stored after the CPU was found to have the features that the functions need.
    dot: unsafe fn(&[f32], &[f32]) -> f32,
    l2_squared: unsafe fn(&[f32], &[f16]) -> f32,
    near_bounds: unsafe fn(&[i8; BLOCK], &NearTerms, &NearRows<'_>) -> [f32; GROUP],
    code_dot: unsafe fn(&[i16], &[u8]) -> i32,
}

#[allow(unsafe_code)]
impl Kernel {
    /// Inner product of two vectors of the same length, a multiple of [`BLOCK`].
    ///
    /// Same bits on every machine; differs from the exact one by at most `(d / 32 + 7) · 2⁻²⁴ · ‖a‖ · ‖b‖`.
    #[inline]
    pub fn dot(&self, a: &[f32], b: &[f32]) -> f32 {
        // SAFETY: `available` alone makes kernels, and only those whose features this CPU has.
        unsafe { (self.dot)(a, b) }
    }

    /// Squared L2 distance of two vectors of the same length, a multiple of [`BLOCK`]. Same bits on every machine.
    #[inline]
    pub fn l2_squared(&self, a: &[f32], b: &[f16]) -> f32 {
        // SAFETY: as above.
        unsafe { (self.l2_squared)(a, b) }
    }

    /// Lower bounds of a group of rows, from the inner products of a block of a query with their codes.
    #[inline]
    pub fn near_bounds(&self, query: &[i8; BLOCK], terms: &NearTerms, rows: &NearRows<'_>) -> [f32; GROUP] {
        // SAFETY: as above.
        unsafe { (self.near_bounds)(query, terms, rows) }
    }

    /// Inner product of a query with the codes of one row: `query` is twice as long as `codes`, whose length is a
    /// multiple of [`BLOCK_BYTES`]. The sum must fit in 31 bits.
    #[inline]
    pub fn code_dot(&self, query: &[i16], codes: &[u8]) -> i32 {
        // SAFETY: as above.
        unsafe { (self.code_dot)(query, codes) }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The kernels that this machine can run, the fastest first; the scalar one is always there, and the last.
pub fn available() -> Vec<Kernel> {
    let mut kernels = Vec::new();
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
        let avx2 = Kernel {
            name: "avx2",
            dot: x86::dot,
            l2_squared: x86::l2_squared,
            near_bounds: x86::near_bounds_avx2,
            code_dot: x86::code_dot_avx2,
        };
        if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni") {
            let (near_bounds, code_dot) = (x86::near_bounds_avx512, x86::code_dot_avx512);
            kernels.push(Kernel { name: "avx512", near_bounds, code_dot, ..avx2 });
        }
        kernels.push(avx2);
    }
    kernels.push(Kernel {
        name: "scalar",
        dot: dot_scalar,
        l2_squared: l2_squared_scalar,
        near_bounds: near_bounds_scalar,
        code_dot: code_dot_scalar,
    });
    kernels
}

static FASTEST: LazyLock<Kernel> = LazyLock::new(|| available()[0]);

/// The fastest kernel of this machine.
pub fn fastest() -> Kernel {
    *FASTEST
}

fn dot_scalar(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            sums[lane] = a[lane].mul_add(b[lane], sums[lane]);
        }
    }
    total(&mut sums)
}

fn l2_squared_scalar(a: &[f32], b: &[f16]) -> f32 {
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            let difference = a[lane] - b[lane].to_f32();
            sums[lane] = difference.mul_add(difference, sums[lane]);
        }
    }
    total(&mut sums)
}

fn near_bounds_scalar(query: &[i8; BLOCK], terms: &NearTerms, rows: &NearRows<'_>) -> [f32; GROUP] {
    bounds(near_dots_scalar(query, rows.codes), terms, rows)
}

/// Bounds from inner products; every form inlines it.
#[inline(always)]
fn bounds(dots: [i32; GROUP], terms: &NearTerms, rows: &NearRows<'_>) -> [f32; GROUP] {
    let bits: [u32; GROUP] = std::array::from_fn(|i| u32::from_le_bytes(rows.base.as_chunks().0[i]));
    let (scale, error) = (coarse(rows.scale), coarse(rows.error));
    let mut bounds: [f32; GROUP] = std::array::from_fn(|i| {
        let product = terms.step.mul_add(dots[i] as f32, terms.off);
        let bound = scale[i].mul_add(-product, terms.squared + f32::from_bits(bits[i]));
        error[i].mul_add(-terms.error, bound)
    });
    for (term, rest) in terms.rest.iter().zip(rows.rest) {
        let rest = coarse(rest);
        bounds = std::array::from_fn(|i| rest[i].mul_add(-term, bounds[i]));
    }
    bounds
}

#[inline(always)]
fn coarse(bytes: &[u8; 2 * GROUP]) -> [f32; GROUP] {
    std::array::from_fn(|i| f32::from_bits(u32::from(u16::from_le_bytes(bytes.as_chunks().0[i])) << 16))
}

fn near_dots_scalar(query: &[i8; BLOCK], codes: &[u8; GROUP * BLOCK_BYTES]) -> [i32; GROUP] {
    let mut sums = [0; GROUP];
    for (query, codes) in query.as_chunks::<8>().0.iter().zip(codes.as_chunks::<{ 4 * GROUP }>().0) {
        for (sum, codes) in sums.iter_mut().zip(codes.as_chunks::<4>().0) {
            for (byte, code) in codes.iter().enumerate() {
                *sum += i32::from(query[byte]) * i32::from(code & 15);
                *sum += i32::from(query[byte + 4]) * i32::from(code >> 4);
            }
        }
    }
    sums
}

fn code_dot_scalar(query: &[i16], codes: &[u8]) -> i32 {
    let mut sum = 0;
    for (query, codes) in query.as_chunks::<BLOCK>().0.iter().zip(codes.as_chunks::<BLOCK_BYTES>().0) {
        for (byte, code) in codes.iter().enumerate() {
            sum += i32::from(query[byte]) * i32::from(code & 15);
            sum += i32::from(query[byte + BLOCK_BYTES]) * i32::from(code >> 4);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray_rand::rand::{Rng, SeedableRng};
    use rand_xoshiro::Xoshiro256Plus;

    #[test]
    fn kernels_agree_to_the_bit() {
        let mut rng = Xoshiro256Plus::seed_from_u64(1);
        for blocks in [1, 2, 3, 8, 17] {
            let d = blocks * BLOCK;
            let a: Vec<f32> = (0..d).map(|_| rng.gen_range(-1.0..1.0)).collect();
            let b: Vec<f32> = (0..d).map(|_| rng.gen_range(-1.0..1.0)).collect();
            let halves: Vec<f16> = b.iter().map(|b| f16::from_f32(*b)).collect();
            let query: Vec<i16> = (0..d).map(|_| rng.gen_range(-32767..=32767)).collect();
            let codes: Vec<u8> = (0..d / 2).map(|_| rng.gen_range(0..=255)).collect();
            let near: [i8; BLOCK] = std::array::from_fn(|_| rng.gen_range(-127..=127));
            let group: [u8; GROUP * BLOCK_BYTES] = std::array::from_fn(|_| rng.gen_range(0..=255));
            let numbers: [u8; 4 * GROUP] =
                std::array::from_fn(|i| if i % 4 == 3 { 63 } else { rng.gen_range(0..=255) });
            let coarse: [u8; 2 * GROUP] = std::array::from_fn(|i| if i % 2 == 1 { 62 } else { rng.gen_range(0..=255) });
            let rows =
                NearRows { codes: &group, base: &numbers, scale: &coarse, error: &coarse, rest: [&coarse; RESTS] };
            let rest = std::array::from_fn(|_| rng.gen_range(0.0..1.0));
            let terms = NearTerms { squared: 1.5, step: 1e-3, off: 0.1, error: 0.3, rest };
            let bounds = near_bounds_scalar(&near, &terms, &rows).map(f32::to_bits);
            for kernel in available() {
                assert_eq!(kernel.dot(&a, &b).to_bits(), dot_scalar(&a, &b).to_bits(), "{kernel:?}");
                let expected = l2_squared_scalar(&a, &halves).to_bits();
                assert_eq!(kernel.l2_squared(&a, &halves).to_bits(), expected, "{kernel:?}");
                assert_eq!(kernel.near_bounds(&near, &terms, &rows).map(f32::to_bits), bounds, "{kernel:?}");
                assert_eq!(kernel.code_dot(&query, &codes), code_dot_scalar(&query, &codes), "{kernel:?}");
            }
            let exact: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(dot_scalar(&a, &b)) - exact).abs() < 1e-5 * d as f64);
        }
    }

    #[test]
    fn near_dots_are_those_of_single_rows() {
        let mut query = [0i8; BLOCK];
        query[5] = 3;
        let mut codes = [0u8; GROUP * BLOCK_BYTES];
        // Channel 5 is the second of the high halves of the first four bytes; row 2 follows two rows of four bytes.
        codes[2 * 4 + 1] = 7 << 4;
        assert_eq!(near_dots_scalar(&query, &codes), [0, 0, 21, 0, 0, 0, 0, 0]);
    }
}
