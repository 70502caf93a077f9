//! Distances between embeddings of half-precision values, and conversions from and to them.
//!
//! Every kernel gives the same bits on every machine, so that a distance computed by one server, standby or shard
//! is the distance computed by any other: element i always goes to partial sum i mod [`LANES`], always by a
//! fused multiply-add, and the partial sums are always added up in the same order.

use half::f16;
use half::slice::HalfFloatSliceExt;
use std::hint::black_box;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Partial sums of a kernel: 4 registers of AVX-512 or 8 of AVX2, enough to hide the latency of the multiply-add.
pub const LANES: usize = 64;

/// One implementation of [`l2_squared`] that this machine can run.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    name: &'static str,
    /// Only stored after the CPU was found to have the features that the function needs.
    run: unsafe fn(&[f16], &[f16]) -> f32,
}

impl Kernel {
    /// The instruction set that the kernel uses: `avx512`, `avx2` or `scalar`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// As [`l2_squared`], by this kernel.
    #[inline]
    pub fn l2_squared(&self, a: &[f16], b: &[f16]) -> f32 {
        debug_assert_eq!(a.len(), b.len());
        #[allow(unsafe_code)]
        // SAFETY: `available_kernels` alone makes kernels, and only those whose features this CPU has.
        unsafe {
            (self.run)(a, b)
        }
    }
}

/// Returns the kernels that this machine can run; the scalar one is always there, and the last.
pub fn available_kernels() -> Vec<Kernel> {
    let mut kernels = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            let run = x86::l2_squared_avx512;
            kernels.push(Kernel { name: "avx512", run });
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") && is_x86_feature_detected!("fma") {
            let run = x86::l2_squared_avx2;
            kernels.push(Kernel { name: "avx2", run });
        }
    }
    let run = l2_squared_scalar;
    kernels.push(Kernel { name: "scalar", run });
    kernels
}

static FASTEST: LazyLock<Kernel> = LazyLock::new(race);

/// Times every kernel, some 0.1 ms, and returns the fastest.
///
/// The instruction sets do not tell: AVX-512 converts twice as many values at a time, yet on AMD's Zen 4 it takes
/// 1.25 times as long as AVX2 (512 dimensions in cache, `cargo bench -p sketch-model --bench distance`).
fn race() -> Kernel {
    let kernels = available_kernels();
    let scalar = kernels[kernels.len() - 1];
    let vectorised = &kernels[..kernels.len() - 1];
    let time = |kernel: &&Kernel| (0..ROUNDS).map(|_| time_calls(kernel)).min();
    vectorised.iter().min_by_key(time).copied().unwrap_or(scalar)
}

/// The shortest of so many timings is taken, lest a moment's load on the machine decides.
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
/// `a`, `b`: shape `(d,)`; if their lengths differ, what the longer one has more is not looked at.
/// Any NaN, or an infinity at the same place and of the same sign in both, gives NaN. The result has the same bits
/// on every machine (but for the payload of a NaN), and differs from the exact sum by at most a factor of
/// 1 ± (d / 64 + 10) · 2⁻²⁴.
#[inline]
pub fn l2_squared(a: &[f16], b: &[f16]) -> f32 {
    FASTEST.l2_squared(a, b)
}

/// As [`l2_squared`], without any instruction set in particular; the definition that the kernels are held to.
pub fn l2_squared_scalar(a: &[f16], b: &[f16]) -> f32 {
    let length = a.len().min(b.len());
    let mut sums = [0.0; LANES];
    let (mut x, mut y) = ([0.0; LANES], [0.0; LANES]);
    for (a, b) in a[..length].chunks(LANES).zip(b[..length].chunks(LANES)) {
        // A short last chunk leaves its other lanes as they are.
        let (x, y) = (&mut x[..a.len()], &mut y[..a.len()]);
        a.convert_to_f32_slice(x);
        b.convert_to_f32_slice(y);
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            let difference = *x - *y;
            *sum = difference.mul_add(difference, *sum);
        }
    }
    total(&mut sums)
}

/// Adds up the partial sums: the upper half to the lower half, until one is left.
#[inline(always)]
fn total(sums: &mut [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0]
}

/// Rounds to half precision, to nearest, ties to even; beyond ±65504 lies infinity.
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

/// Kernels by the intrinsics of x86-64.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use super::{LANES, f16, total};
    use std::arch::x86_64::*;

    type Block = [f16; LANES];

    /// Cuts both embeddings into blocks, and the rest into a last block filled up with zeros: the difference of two
    /// zeros leaves a sum as it is.
    #[inline(always)]
    fn blocks<'a>(a: &'a [f16], b: &'a [f16]) -> (&'a [Block], &'a [Block], Option<(Block, Block)>) {
        let length = a.len().min(b.len());
        let (a, a_rest) = a[..length].as_chunks();
        let (b, b_rest) = b[..length].as_chunks();
        let rest = (!a_rest.is_empty()).then(|| (padded(a_rest), padded(b_rest)));
        (a, b, rest)
    }

    #[inline(always)]
    fn padded(rest: &[f16]) -> Block {
        let mut block = [f16::ZERO; LANES];
        block[..rest.len()].copy_from_slice(rest);
        block
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn l2_squared_avx512(a: &[f16], b: &[f16]) -> f32 {
        let (a, b, rest) = blocks(a, b);
        let mut sums = [_mm512_setzero_ps(); LANES / 16];
        for (a, b) in a.iter().zip(b) {
            add_block_avx512(&mut sums, a, b);
        }
        if let Some((a, b)) = rest {
            add_block_avx512(&mut sums, &a, &b);
        }
        let mut lanes = [0.0; LANES];
        for (lanes, sum) in lanes.as_chunks_mut::<16>().0.iter_mut().zip(sums) {
            // SAFETY: `lanes` holds 16 floats, and the store needs no alignment.
            unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), sum) }
        }
        total(&mut lanes)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add_block_avx512(sums: &mut [__m512; LANES / 16], a: &Block, b: &Block) {
        let (a, b) = (a.as_chunks::<16>().0, b.as_chunks::<16>().0);
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            let difference = _mm512_sub_ps(load_avx512(a), load_avx512(b));
            *sum = _mm512_fmadd_ps(difference, difference, *sum);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load_avx512(halves: &[f16; 16]) -> __m512 {
        // SAFETY: `halves` is 32 bytes long, and the load needs no alignment.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves.as_ptr().cast()) })
    }

    #[target_feature(enable = "avx2,f16c,fma")]
    pub(super) fn l2_squared_avx2(a: &[f16], b: &[f16]) -> f32 {
        let (a, b, rest) = blocks(a, b);
        let mut sums = [_mm256_setzero_ps(); LANES / 8];
        for (a, b) in a.iter().zip(b) {
            add_block_avx2(&mut sums, a, b);
        }
        if let Some((a, b)) = rest {
            add_block_avx2(&mut sums, &a, &b);
        }
        let mut lanes = [0.0; LANES];
        for (lanes, sum) in lanes.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
            // SAFETY: `lanes` holds 8 floats, and the store needs no alignment.
            unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) }
        }
        total(&mut lanes)
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c,fma")]
    fn add_block_avx2(sums: &mut [__m256; LANES / 8], a: &Block, b: &Block) {
        let (a, b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            let difference = _mm256_sub_ps(load_avx2(a), load_avx2(b));
            *sum = _mm256_fmadd_ps(difference, difference, *sum);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c,fma")]
    fn load_avx2(halves: &[f16; 8]) -> __m256 {
        // SAFETY: `halves` is 16 bytes long, and the load needs no alignment.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(halves.as_ptr().cast()) })
    }
}
