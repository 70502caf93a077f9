//! What takes the intrinsics of x86-64: kernels, and prefetching.

#![allow(unsafe_code)]

use super::{LANES, f16, total};
use std::arch::x86_64::*;
use std::ptr;

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

/// Has the CPU fetch the cache lines of `length` bytes from the address `start` on.
#[inline]
pub(super) fn fetch(start: usize, length: usize) {
    for offset in (0..length).step_by(64) {
        let line = ptr::without_provenance(start.wrapping_add(offset));
        // SAFETY: a prefetch changes nothing that a program can read, and does nothing where no memory is.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) }
    }
}
