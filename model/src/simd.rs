//! The inner loops of ranking and index, with the CPU's vector instructions where it has them.
//!
//! Every kernel gives the same bits on every machine, so that a distance computed by one server, standby or shard
//! is the distance computed by any other: element i always goes to partial sum i mod [`HALF_LANES`] (or [`LANES`]),
//! always by a fused multiply-add, and the partial sums are always added up in the same order. `scalar` defines the
//! results; the tests hold the others to it, to the bit.
//!
//! Codes are numbers of 4 bits, two a byte. Of 64 channels in a row, the low halves of 32 bytes hold the first 32, the
//! high halves the others. Of [`GROUP`] rows side by side, as [`Kernel::near_within`] takes them, 4 bytes of each row
//! follow one another, which hold 8 of its channels, the first 4 in their low halves.

mod prefetch;
mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use prefetch::Prefetch;
pub use scalar::{inner_product as inner_product_scalar, l2_squared as l2_squared_scalar};

use half::f16;
use half::slice::HalfFloatSliceExt;
use std::fmt;
use std::hint::black_box;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Partial sums of [`l2_squared`] and [`inner_product`]: 4 registers of AVX-512 or 8 of AVX2, enough to hide the latency of the multiply-add.
const HALF_LANES: usize = 64;
/// Partial sums of the index's floating-point kernels.
pub(crate) const LANES: usize = 32;
/// Rows whose near codes lie side by side.
pub(crate) const GROUP: usize = 8;
/// Channels of a block; coded dimensions are a multiple of it.
pub(crate) const BLOCK: usize = 64;
/// Bytes of the codes of a block.
pub(crate) const BLOCK_BYTES: usize = BLOCK / 2;
/// Parts of the channels that the near codes leave out, for each of which a row keeps its norm: the middle ones, and
/// four of the far ones.
pub(crate) const RESTS: usize = 5;

/// Groups of rows, as a segment holds them: codes, then numbers for each row. All slices are of one length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NearRows<'a> {
    pub codes: &'a [[u8; GROUP * BLOCK_BYTES]],
    /// Single precision.
    pub base: &'a [[u8; 4 * GROUP]],
    /// `bf16`, as those that follow.
    pub scale: &'a [[u8; 2 * GROUP]],
    pub error: &'a [[u8; 2 * GROUP]],
    pub rest: [&'a [[u8; 2 * GROUP]]; RESTS],
}

/// The rows within reach: their numbers and bounds, with room for a few more than a segment has.
#[derive(Debug, Default)]
pub(crate) struct Within {
    pub rows: Vec<u32>,
    pub bounds: Vec<f32>,
}

impl Within {
    /// Room for what a kernel writes behind the last row within reach.
    const SPARE: usize = 16;

    pub fn new(rows: usize) -> Self {
        Self { rows: vec![0; rows + Self::SPARE], bounds: vec![0.0; rows + Self::SPARE] }
    }
}

/// The query's part of the near bound of each row:
/// `squared + base − scale · (step · dot + off) − error · row's error − Σ rest · row's rest`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NearTerms {
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
    // Only stored after the CPU's features were detected.
    l2_squared: unsafe fn(&[f16], &[f16]) -> f32,
    inner_product: unsafe fn(&[f16], &[f16]) -> f32,
    l2_squared_mixed: unsafe fn(&[f32], &[f16]) -> f32,
    dot: unsafe fn(&[f32], &[f32]) -> f32,
    near_within: unsafe fn(&[i8; BLOCK], &NearTerms, &NearRows<'_>, f32, &mut Within) -> usize,
    code_dot: unsafe fn(&[i16], &[u8]) -> i32,
}

#[allow(unsafe_code)]
impl Kernel {
    /// The instruction set that the kernel uses: `avx512`, `avx2` or `scalar`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// As [`l2_squared`], by this kernel.
    #[inline]
    pub fn l2_squared(&self, a: &[f16], b: &[f16]) -> f32 {
        debug_assert_eq!(a.len(), b.len());
        // SAFETY: `available_kernels` alone makes kernels, and only those whose features this CPU has.
        unsafe { (self.l2_squared)(a, b) }
    }

    /// As [`inner_product`], by this kernel.
    #[inline]
    pub fn inner_product(&self, a: &[f16], b: &[f16]) -> f32 {
        debug_assert_eq!(a.len(), b.len());
        // SAFETY: as above.
        unsafe { (self.inner_product)(a, b) }
    }

    /// Squared L2 distance of two vectors of the same length, a multiple of [`BLOCK`].
    #[inline]
    pub(crate) fn l2_squared_mixed(&self, a: &[f32], b: &[f16]) -> f32 {
        // SAFETY: as above.
        unsafe { (self.l2_squared_mixed)(a, b) }
    }

    /// Inner product of two vectors of the same length, a multiple of [`BLOCK`].
    ///
    /// Differs from the exact one by at most `(d / 32 + 7) · 2⁻²⁴ · ‖a‖ · ‖b‖`.
    #[inline]
    pub(crate) fn dot(&self, a: &[f32], b: &[f32]) -> f32 {
        // SAFETY: as above.
        unsafe { (self.dot)(a, b) }
    }

    /// Writes the rows whose lower bounds are at most `reach` to the front of `within`, in order; returns how many there are.
    ///
    /// A bound comes from the inner product of a block of a query with a row's codes.
    ///
    /// # Panics
    /// If `within` was made for fewer rows.
    #[inline]
    pub(crate) fn near_within(
        &self,
        query: &[i8; BLOCK],
        terms: &NearTerms,
        rows: &NearRows<'_>,
        reach: f32,
        within: &mut Within,
    ) -> usize {
        let room = within.rows.len().min(within.bounds.len());
        assert!(room >= rows.codes.len() * GROUP + Within::SPARE, "room for all rows");
        // SAFETY: as above.
        unsafe { (self.near_within)(query, terms, rows, reach, within) }
    }

    /// Inner product of a query with the codes of one row: `query` is twice as long as `codes`, whose length is a
    /// multiple of [`BLOCK_BYTES`]. The sum must fit in 31 bits.
    #[inline]
    pub(crate) fn code_dot(&self, query: &[i16], codes: &[u8]) -> i32 {
        // SAFETY: as above.
        unsafe { (self.code_dot)(query, codes) }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Returns the kernels that this machine can run, the widest registers first; the scalar one is always there, and the last.
pub fn available_kernels() -> Vec<Kernel> {
    let mut kernels = Vec::new();
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
        let avx2 = Kernel {
            name: "avx2",
            l2_squared: x86::sum_avx2::<false>,
            inner_product: x86::sum_avx2::<true>,
            l2_squared_mixed: x86::l2_squared_mixed_avx2,
            dot: x86::dot_avx2,
            near_within: x86::near_within_avx2,
            code_dot: x86::code_dot_avx2,
        };
        if is_x86_feature_detected!("avx512f") {
            let mut avx512 = Kernel {
                name: "avx512",
                l2_squared: x86::sum_avx512::<false>,
                inner_product: x86::sum_avx512::<true>,
                ..avx2
            };
            if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni") {
                avx512.near_within = x86::near_within_avx512;
                avx512.code_dot = x86::code_dot_avx512;
            }
            kernels.push(avx512);
        }
        kernels.push(avx2);
    }
    kernels.push(Kernel {
        name: "scalar",
        l2_squared: scalar::l2_squared,
        inner_product: scalar::inner_product,
        l2_squared_mixed: scalar::l2_squared_mixed,
        dot: scalar::dot,
        near_within: scalar::near_within,
        code_dot: scalar::code_dot,
    });
    kernels
}

static WIDEST: LazyLock<Kernel> = LazyLock::new(|| available_kernels()[0]);
static FASTEST: LazyLock<Kernel> = LazyLock::new(race);

/// The kernel of the index: its integer loops gain from wider registers on every CPU.
#[inline]
pub(crate) fn widest() -> Kernel {
    *WIDEST
}

/// Times [`Kernel::l2_squared`] of every kernel, some 0.1 ms, and returns the fastest.
///
/// The instruction set does not tell: AVX-512 converts twice as many values at a time, yet on AMD's Zen 4 it takes
/// 1.25 times as long as AVX2 (512 dimensions in cache, `cargo bench -p sketch-model --bench distance`).
fn race() -> Kernel {
    let kernels = available_kernels();
    let scalar = kernels[kernels.len() - 1];
    let vectorised = &kernels[..kernels.len() - 1];
    let time = |kernel: &&Kernel| (0..ROUNDS).map(|_| time_calls(kernel)).min();
    vectorised.iter().min_by_key(time).copied().unwrap_or(scalar)
}

/// The shortest of these timings counts: a single one depends on the load of the machine.
const ROUNDS: usize = 16;

fn time_calls(kernel: &Kernel) -> Duration {
    let (a, b) = ([f16::ONE; 512], [f16::ZERO; 512]);
    let start = Instant::now();
    for _ in 0..64 {
        black_box(kernel.l2_squared(black_box(&a), black_box(&b)));
    }
    start.elapsed()
}

/// Returns the name of the kernel that [`l2_squared`] uses on this machine.
pub fn kernel_name() -> &'static str {
    FASTEST.name
}

/// Returns the squared L2 distance of two embeddings, computed in single precision.
///
/// `a`, `b`: shape `(d,)`; if their lengths differ, the rest of the longer one is ignored.
/// Any NaN, or an infinity at the same place and of the same sign in both, gives NaN. The result has the same bits
/// on every machine (but for the payload of a NaN), and differs from the exact sum by at most a factor of
/// 1 ± (d / 64 + 10) · 2⁻²⁴.
#[inline]
pub fn l2_squared(a: &[f16], b: &[f16]) -> f32 {
    FASTEST.l2_squared(a, b)
}

/// Has the CPU fetch memory that will be read soon, if it can be told to. Any address will do: nothing is read.
#[inline]
pub fn fetch_soon(start: *const u8, length: usize) {
    prefetch::fetch(start.addr(), length);
}

/// Returns the inner product of two embeddings, computed as [`l2_squared`] is: with the same bits on every machine.
///
/// It differs from the exact one by at most `(d / 64 + 10) · 2⁻²⁴ · ‖a‖ · ‖b‖`.
#[inline]
pub fn inner_product(a: &[f16], b: &[f16]) -> f32 {
    FASTEST.inner_product(a, b)
}

/// Adds up partial sums, a power of two of them: the upper half to the lower half, until one is left.
#[inline(always)]
pub(crate) fn total<const LANES: usize>(sums: &mut [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0]
}

/// Rounds to half precision, to nearest, ties to even; values beyond ±65504 become infinite.
pub fn to_f16(values: &[f32]) -> Vec<f16> {
    let mut halves = vec![f16::ZERO; values.len()];
    halves.convert_from_f32_slice(values);
    halves
}

/// Widens to single precision, exactly.
pub fn to_f32(halves: &[f16]) -> Vec<f32> {
    let mut values = vec![0.0; halves.len()];
    halves.convert_to_f32_slice(&mut values);
    values
}
