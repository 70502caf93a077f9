//! The inner loops of the index, each with a scalar definition that the vector forms are held to, to the bit.
//!
//! Codes are numbers of 4 bits, two a byte. Of 64 channels in a row, the low halves of 32 bytes hold the first 32, the
//! high halves the others. Of [`GROUP`] rows side by side, as [`Kernel::near_dots`] takes them, 4 bytes of each row
//! follow one another, which hold 8 of its channels, the first 4 in their low halves.

#[cfg(target_arch = "x86_64")]
mod x86;

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
const LANES: usize = 32;

/// One set of inner loops that this machine can run.
#[derive(Clone, Copy)]
pub struct Kernel {
    name: &'static str,
    // Only stored after the CPU was found to have the features that the functions need.
    dot: unsafe fn(&[f32], &[f32]) -> f32,
    l2_squared: unsafe fn(&[f32], &[f16]) -> f32,
    near_dots: unsafe fn(&[i8; BLOCK], &[u8; GROUP * BLOCK_BYTES]) -> [i32; GROUP],
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

    /// Inner products of a block of a query with the codes of [`GROUP`] rows.
    #[inline]
    pub fn near_dots(&self, query: &[i8; BLOCK], codes: &[u8; GROUP * BLOCK_BYTES]) -> [i32; GROUP] {
        // SAFETY: as above.
        unsafe { (self.near_dots)(query, codes) }
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
            near_dots: x86::near_dots_avx2,
            code_dot: x86::code_dot_avx2,
        };
        if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni") {
            let (near_dots, code_dot) = (x86::near_dots_avx512, x86::code_dot_avx512);
            kernels.push(Kernel { name: "avx512", near_dots, code_dot, ..avx2 });
        }
        kernels.push(avx2);
    }
    kernels.push(Kernel {
        name: "scalar",
        dot: dot_scalar,
        l2_squared: l2_squared_scalar,
        near_dots: near_dots_scalar,
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

/// Adds up the partial sums: the upper half to the lower half, until one is left.
#[inline(always)]
fn total(sums: &mut [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
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
            for kernel in available() {
                assert_eq!(kernel.dot(&a, &b).to_bits(), dot_scalar(&a, &b).to_bits(), "{kernel:?}");
                let expected = l2_squared_scalar(&a, &halves).to_bits();
                assert_eq!(kernel.l2_squared(&a, &halves).to_bits(), expected, "{kernel:?}");
                assert_eq!(kernel.near_dots(&near, &group), near_dots_scalar(&near, &group), "{kernel:?}");
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
