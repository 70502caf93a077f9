//! Distances between embeddings of half-precision values, and conversions from and to them.
//!
//! Every kernel gives the same bits on every machine, so that a distance computed by one server, standby or shard
//! is the distance computed by any other: element i always goes to partial sum i mod [`LANES`], always by a
//! fused multiply-add, and the partial sums are always added up in the same order.

mod prefetch;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use prefetch::Prefetch;

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
