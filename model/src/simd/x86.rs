//! The kernels by the intrinsics of x86-64, and prefetching.

#![allow(unsafe_code)]

use super::scalar::{bounds, within_by};
use super::{BLOCK, BLOCK_BYTES, GROUP, HALF_LANES, LANES, NearRows, NearTerms, Within, total};
use half::f16;
use std::arch::x86_64::*;
use std::ptr;

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: `bytes` is 32 bytes long, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_floats(values: &[f32; 8]) -> __m256 {
    // SAFETY: `values` is 32 bytes long, and the load needs no alignment.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum_up(sums: [__m256; LANES / 8]) -> f32 {
    let mut lanes = [0.0; LANES];
    for (lanes, sum) in lanes.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
        // SAFETY: `lanes` holds 8 floats, and the store needs no alignment.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) }
    }
    total(&mut lanes)
}

/// Values of an embedding that go to different partial sums.
type Block = [f16; HALF_LANES];

/// Cuts both embeddings into blocks, and the rest into a last block filled up with zeros: difference and product of two
/// zeros leave a sum as it is.
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
    let mut block = [f16::ZERO; HALF_LANES];
    block[..rest.len()].copy_from_slice(rest);
    block
}

/// The inner product, or the squared distance.
#[target_feature(enable = "avx512f")]
pub(super) fn sum_avx512<const PRODUCT: bool>(a: &[f16], b: &[f16]) -> f32 {
    let (a, b, rest) = blocks(a, b);
    let mut sums = [_mm512_setzero_ps(); HALF_LANES / 16];
    for (a, b) in a.iter().zip(b) {
        add_block_avx512::<PRODUCT>(&mut sums, a, b);
    }
    if let Some((a, b)) = rest {
        add_block_avx512::<PRODUCT>(&mut sums, &a, &b);
    }
    // The first step of `total`: the upper half of the partial sums to the lower half.
    let sums = [_mm512_add_ps(sums[0], sums[2]), _mm512_add_ps(sums[1], sums[3])];
    let mut lanes = [0.0; LANES];
    for (lanes, sum) in lanes.as_chunks_mut::<16>().0.iter_mut().zip(sums) {
        // SAFETY: `lanes` holds 16 floats, and the store needs no alignment.
        unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), sum) }
    }
    total(&mut lanes)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_block_avx512<const PRODUCT: bool>(sums: &mut [__m512; HALF_LANES / 16], a: &Block, b: &Block) {
    let (a, b) = (a.as_chunks::<16>().0, b.as_chunks::<16>().0);
    for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
        let (mut x, mut y) = (load_halves_avx512(a), load_halves_avx512(b));
        if !PRODUCT {
            x = _mm512_sub_ps(x, y);
            y = x;
        }
        *sum = _mm512_fmadd_ps(x, y, *sum);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_halves_avx512(halves: &[f16; 16]) -> __m512 {
    // SAFETY: `halves` is 32 bytes long, and the load needs no alignment.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves.as_ptr().cast()) })
}

/// As [`sum_avx512`].
#[target_feature(enable = "avx2,f16c,fma")]
pub(super) fn sum_avx2<const PRODUCT: bool>(a: &[f16], b: &[f16]) -> f32 {
    let (a, b, rest) = blocks(a, b);
    let mut sums = [_mm256_setzero_ps(); HALF_LANES / 8];
    for (a, b) in a.iter().zip(b) {
        add_block_avx2::<PRODUCT>(&mut sums, a, b);
    }
    if let Some((a, b)) = rest {
        add_block_avx2::<PRODUCT>(&mut sums, &a, &b);
    }
    let [a, b, c, d, e, f, g, h] = sums;
    // The first step of `total`, as above.
    sum_up([_mm256_add_ps(a, e), _mm256_add_ps(b, f), _mm256_add_ps(c, g), _mm256_add_ps(d, h)])
}

#[inline]
#[target_feature(enable = "avx2,f16c,fma")]
fn add_block_avx2<const PRODUCT: bool>(sums: &mut [__m256; HALF_LANES / 8], a: &Block, b: &Block) {
    let (a, b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
        let (mut x, mut y) = (load_halves_avx2(a), load_halves_avx2(b));
        if !PRODUCT {
            x = _mm256_sub_ps(x, y);
            y = x;
        }
        *sum = _mm256_fmadd_ps(x, y, *sum);
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c,fma")]
fn load_halves_avx2(halves: &[f16; 8]) -> __m256 {
    // SAFETY: `halves` is 16 bytes long, and the load needs no alignment.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(halves.as_ptr().cast()) })
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn dot_avx2(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [_mm256_setzero_ps(); LANES / 8];
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        for ((sum, a), b) in sums.iter_mut().zip(a.as_chunks().0).zip(b.as_chunks().0) {
            *sum = _mm256_fmadd_ps(load_floats(a), load_floats(b), *sum);
        }
    }
    sum_up(sums)
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn l2_squared_mixed_avx2(a: &[f32], b: &[f16]) -> f32 {
    let mut sums = [_mm256_setzero_ps(); LANES / 8];
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        for ((sum, a), b) in sums.iter_mut().zip(a.as_chunks().0).zip(b.as_chunks::<8>().0) {
            let difference = _mm256_sub_ps(load_floats(a), load_halves_avx2(b));
            *sum = _mm256_fmadd_ps(difference, difference, *sum);
        }
    }
    sum_up(sums)
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn near_within_avx2(
    query: &[i8; BLOCK],
    terms: &NearTerms,
    rows: &NearRows<'_>,
    reach: f32,
    within: &mut Within,
) -> usize {
    within_by(|codes| near_dots_avx2(query, codes), terms, rows, reach, within)
}

/// Takes two groups at a time: the bounds of their 16 rows fill a register.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vnni")]
pub(super) fn near_within_avx512(
    query: &[i8; BLOCK],
    terms: &NearTerms,
    rows: &NearRows<'_>,
    reach: f32,
    within: &mut Within,
) -> usize {
    let query = spread_avx512(query);
    let [step, off, squared, error] = [terms.step, terms.off, terms.squared, terms.error].map(|x| _mm512_set1_ps(x));
    let rest_terms = terms.rest.map(|term| _mm512_set1_ps(term));
    let farthest = _mm512_set1_ps(reach);
    let numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let mut found = 0;
    let (pairs, last) = rows.codes.as_chunks::<2>();
    for (pair, [a, b]) in pairs.iter().enumerate() {
        let at = 2 * pair;
        let dots = _mm512_castsi256_si512(near_dots_avx512(&query, a));
        let dots = _mm512_cvtepi32_ps(_mm512_inserti64x4::<1>(dots, near_dots_avx512(&query, b)));
        let base = rows.base[at..at + 2].as_flattened();
        // SAFETY: two groups have 64 bytes, and the load needs no alignment.
        let base = unsafe { _mm512_loadu_ps(base.as_ptr().cast()) };
        let product = _mm512_fmadd_ps(step, dots, off);
        let mut bounds = _mm512_fnmadd_ps(coarse_avx512(rows.scale, at), product, _mm512_add_ps(squared, base));
        bounds = _mm512_fnmadd_ps(coarse_avx512(rows.error, at), error, bounds);
        for (term, rest) in rest_terms.iter().zip(rows.rest) {
            bounds = _mm512_fnmadd_ps(coarse_avx512(rest, at), *term, bounds);
        }
        let mask = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(bounds, farthest);
        if mask != 0 {
            let numbers = _mm512_add_epi32(numbers, _mm512_set1_epi32((at * GROUP) as i32));
            let (to_rows, to_bounds) = (&mut within.rows[found..found + 16], &mut within.bounds[found..found + 16]);
            // SAFETY: both have room for 16 numbers, and the stores need no alignment.
            unsafe {
                _mm512_storeu_si512(to_rows.as_mut_ptr().cast(), _mm512_maskz_compress_epi32(mask, numbers));
                _mm512_storeu_ps(to_bounds.as_mut_ptr(), _mm512_maskz_compress_ps(mask, bounds));
            }
            found += mask.count_ones() as usize;
        }
    }
    if let [codes] = last {
        let group = rows.codes.len() - 1;
        let mut dots = [0; GROUP];
        // SAFETY: `dots` is 32 bytes long, and the store needs no alignment.
        unsafe { _mm256_storeu_si256(dots.as_mut_ptr().cast(), near_dots_avx512(&query, codes)) };
        for (i, bound) in bounds(dots, terms, rows, group).into_iter().enumerate() {
            within.rows[found] = (group * GROUP + i) as u32;
            within.bounds[found] = bound;
            found += usize::from(bound <= reach);
        }
    }
    found
}

/// Sixteen `bf16` from those of two groups.
#[inline]
#[target_feature(enable = "avx512f")]
fn coarse_avx512(groups: &[[u8; 2 * GROUP]], at: usize) -> __m512 {
    let bytes = groups[at..at + 2].as_flattened();
    // SAFETY: two groups have 32 bytes, and the load needs no alignment.
    let halves = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn near_dots_avx2(query: &[i8; BLOCK], codes: &[u8; GROUP * BLOCK_BYTES]) -> [i32; GROUP] {
    let low_half = _mm256_set1_epi8(15);
    let ones = _mm256_set1_epi16(1);
    let mut sums = _mm256_setzero_si256();
    for (query, codes) in query.as_chunks::<8>().0.iter().zip(codes.as_chunks::<32>().0) {
        let [first, second] = query.as_chunks::<4>().0 else { unreachable!("8 are twice 4") };
        let first = _mm256_set1_epi32(i32::from_ne_bytes(first.map(i8::cast_unsigned)));
        let second = _mm256_set1_epi32(i32::from_ne_bytes(second.map(i8::cast_unsigned)));
        let codes = load(codes);
        let low = _mm256_and_si256(codes, low_half);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low_half);
        // Four products of at most 15 · 127 each stay within 16 bits.
        let pairs = _mm256_add_epi16(_mm256_maddubs_epi16(low, first), _mm256_maddubs_epi16(high, second));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, ones));
    }
    let mut out = [0; GROUP];
    // SAFETY: `out` is 32 bytes long, and the store needs no alignment.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sums) };
    out
}

/// A query as [`near_dots_avx512`] multiplies by it: for each 64 bytes of a group, what meets the low halves, and the high ones.
type Spread = [[__m512i; 2]; BLOCK / 16];

#[inline]
#[target_feature(enable = "avx512f")]
fn spread_avx512(query: &[i8; BLOCK]) -> Spread {
    let mut spread = [[_mm512_setzero_si512(); 2]; BLOCK / 16];
    for (spread, query) in spread.iter_mut().zip(query.as_chunks::<16>().0) {
        let [a, b, c, d] = query.as_chunks::<4>().0 else { unreachable!("16 are four times 4") };
        let [a, b, c, d] = [a, b, c, d].map(|four| i32::from_ne_bytes(four.map(i8::cast_unsigned)));
        // The lower half of the register meets one 8 channels of all rows, the upper half the next.
        *spread = [
            _mm512_inserti64x4::<1>(_mm512_set1_epi32(a), _mm256_set1_epi32(c)),
            _mm512_inserti64x4::<1>(_mm512_set1_epi32(b), _mm256_set1_epi32(d)),
        ];
    }
    spread
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn near_dots_avx512(query: &Spread, codes: &[u8; GROUP * BLOCK_BYTES]) -> __m256i {
    let low_half = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_si512(); 2];
    for ([first, second], codes) in query.iter().zip(codes.as_chunks::<64>().0) {
        // SAFETY: `codes` is 64 bytes long, and the load needs no alignment.
        let codes = unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) };
        let low = _mm512_and_si512(codes, low_half);
        let high = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low_half);
        sums[0] = _mm512_dpbusd_epi32(sums[0], low, *first);
        sums[1] = _mm512_dpbusd_epi32(sums[1], high, *second);
    }
    let sums = _mm512_add_epi32(sums[0], sums[1]);
    _mm256_add_epi32(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64::<1>(sums))
}

#[target_feature(enable = "avx2")]
pub(super) fn code_dot_avx2(query: &[i16], codes: &[u8]) -> i32 {
    let low_half = _mm256_set1_epi8(15);
    let mut sums = _mm256_setzero_si256();
    for (query, codes) in query.as_chunks::<BLOCK>().0.iter().zip(codes.as_chunks::<BLOCK_BYTES>().0) {
        let codes = load(codes);
        let low = _mm256_and_si256(codes, low_half);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low_half);
        let wide = [
            _mm256_cvtepu8_epi16(_mm256_castsi256_si128(low)),
            _mm256_cvtepu8_epi16(_mm256_extracti128_si256::<1>(low)),
            _mm256_cvtepu8_epi16(_mm256_castsi256_si128(high)),
            _mm256_cvtepu8_epi16(_mm256_extracti128_si256::<1>(high)),
        ];
        for (codes, query) in wide.into_iter().zip(query.as_chunks::<16>().0) {
            // SAFETY: `query` is 32 bytes long, and the load needs no alignment.
            let query = unsafe { _mm256_loadu_si256(query.as_ptr().cast()) };
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(codes, query));
        }
    }
    let sums = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let sums = _mm_add_epi32(sums, _mm_shuffle_epi32::<0b01_00_11_10>(sums));
    _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_shuffle_epi32::<0b00_00_00_01>(sums)))
}

#[target_feature(enable = "avx2,avx512f,avx512bw")]
pub(super) fn code_dot_avx512(query: &[i16], codes: &[u8]) -> i32 {
    let low_half = _mm256_set1_epi8(15);
    let mut sums = _mm512_setzero_si512();
    for (query, codes) in query.as_chunks::<BLOCK>().0.iter().zip(codes.as_chunks::<BLOCK_BYTES>().0) {
        let codes = load(codes);
        let low = _mm256_and_si256(codes, low_half);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low_half);
        let wide = [_mm512_cvtepu8_epi16(low), _mm512_cvtepu8_epi16(high)];
        for (codes, query) in wide.into_iter().zip(query.as_chunks::<32>().0) {
            // SAFETY: `query` is 64 bytes long, and the load needs no alignment.
            let query = unsafe { _mm512_loadu_si512(query.as_ptr().cast()) };
            sums = _mm512_add_epi32(sums, _mm512_madd_epi16(codes, query));
        }
    }
    _mm512_reduce_add_epi32(sums)
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
