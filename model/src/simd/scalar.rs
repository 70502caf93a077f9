//! The kernels without any instruction set in particular: the definitions that the others are held to.

use super::{BLOCK, BLOCK_BYTES, GROUP, HALF_LANES, LANES, NearRows, NearTerms, Within, total};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// As [`super::l2_squared`].
pub fn l2_squared(a: &[f16], b: &[f16]) -> f32 {
    sum(a, b, |x, y| (x - y, x - y))
}

/// As [`super::inner_product`].
pub fn inner_product(a: &[f16], b: &[f16]) -> f32 {
    sum(a, b, |x, y| (x, y))
}

/// The sum of the products of what `factors` makes of two values.
fn sum(a: &[f16], b: &[f16], factors: impl Fn(f32, f32) -> (f32, f32)) -> f32 {
    let length = a.len().min(b.len());
    let mut sums = [0.0; HALF_LANES];
    let (mut x, mut y) = ([0.0; HALF_LANES], [0.0; HALF_LANES]);
    for (a, b) in a[..length].chunks(HALF_LANES).zip(b[..length].chunks(HALF_LANES)) {
        // A short last chunk leaves its other lanes as they are.
        let (x, y) = (&mut x[..a.len()], &mut y[..a.len()]);
        a.convert_to_f32_slice(x);
        b.convert_to_f32_slice(y);
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            let (x, y) = factors(*x, *y);
            *sum = x.mul_add(y, *sum);
        }
    }
    total(&mut sums)
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            sums[lane] = a[lane].mul_add(b[lane], sums[lane]);
        }
    }
    total(&mut sums)
}

pub(super) fn l2_squared_mixed(a: &[f32], b: &[f16]) -> f32 {
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            let difference = a[lane] - b[lane].to_f32();
            sums[lane] = difference.mul_add(difference, sums[lane]);
        }
    }
    total(&mut sums)
}

pub(super) fn near_within(
    query: &[i8; BLOCK],
    terms: &NearTerms,
    rows: &NearRows<'_>,
    reach: f32,
    within: &mut Within,
) -> usize {
    within_by(|codes| near_dots(query, codes), terms, rows, reach, within)
}

/// The rows within reach from inner products by `dots`; every form without registers for it inlines it.
#[inline(always)]
pub(super) fn within_by(
    dots: impl Fn(&[u8; GROUP * BLOCK_BYTES]) -> [i32; GROUP],
    terms: &NearTerms,
    rows: &NearRows<'_>,
    reach: f32,
    within: &mut Within,
) -> usize {
    let mut found = 0;
    for (group, codes) in rows.codes.iter().enumerate() {
        let bounds = bounds(dots(codes), terms, rows, group);
        for (i, bound) in bounds.into_iter().enumerate() {
            // Written in any case, which spares a branch that nobody could predict.
            within.rows[found] = (group * GROUP + i) as u32;
            within.bounds[found] = bound;
            found += usize::from(bound <= reach);
        }
    }
    found
}

/// Bounds of a group from inner products; every form inlines it.
#[inline(always)]
pub(super) fn bounds(dots: [i32; GROUP], terms: &NearTerms, rows: &NearRows<'_>, group: usize) -> [f32; GROUP] {
    let bits: [u32; GROUP] = std::array::from_fn(|i| u32::from_le_bytes(rows.base[group].as_chunks().0[i]));
    let (scale, error) = (coarse(&rows.scale[group]), coarse(&rows.error[group]));
    let mut bounds: [f32; GROUP] = std::array::from_fn(|i| {
        let product = terms.step.mul_add(dots[i] as f32, terms.off);
        let bound = scale[i].mul_add(-product, terms.squared + f32::from_bits(bits[i]));
        error[i].mul_add(-terms.error, bound)
    });
    for (term, rest) in terms.rest.iter().zip(rows.rest) {
        let rest = coarse(&rest[group]);
        bounds = std::array::from_fn(|i| rest[i].mul_add(-term, bounds[i]));
    }
    bounds
}

#[inline(always)]
fn coarse(bytes: &[u8; 2 * GROUP]) -> [f32; GROUP] {
    std::array::from_fn(|i| f32::from_bits(u32::from(u16::from_le_bytes(bytes.as_chunks().0[i])) << 16))
}

pub(super) fn near_dots(query: &[i8; BLOCK], codes: &[u8; GROUP * BLOCK_BYTES]) -> [i32; GROUP] {
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

pub(super) fn code_dot(query: &[i16], codes: &[u8]) -> i32 {
    let mut sum = 0;
    for (query, codes) in query.as_chunks::<BLOCK>().0.iter().zip(codes.as_chunks::<BLOCK_BYTES>().0) {
        for (byte, code) in codes.iter().enumerate() {
            sum += i32::from(query[byte]) * i32::from(code & 15);
            sum += i32::from(query[byte + BLOCK_BYTES]) * i32::from(code >> 4);
        }
    }
    sum
}
