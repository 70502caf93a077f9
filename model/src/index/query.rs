//! A query, prepared for the stages of a search.

use super::layout::{Layout, ROW_BOUND, get_bf16, get_f32};
use super::quantizer::Quantizer;
use crate::simd::{self, BLOCK, BLOCK_BYTES, GROUP, Kernel, NearRows, NearTerms, RESTS, Within};
use std::ops::Range;

/// Codes count from the middle of their sixteen steps.
const MIDDLE: f32 = 7.5;
/// Steps of a code on either side of it, and of a lower half.
const STEPS: f32 = 8.0;
const FINE_STEPS: f32 = 128.0;
/// Total error of a quantised query, in half steps per channel: 1, and some more for the rounding of sums.
const SURE: f32 = 1.05;

/// A query, rotated and multiplied by the scale of each channel, quantised to integers.
#[derive(Debug)]
pub struct Query {
    pub layout: Layout,
    kernel: Kernel,
    /// Shape `(padded,)`.
    pub rotated: Vec<f32>,
    pub norm: f32,
    near: Whole<[i8; BLOCK]>,
    /// The near channels in the order in which the bytes of a row hold them.
    near_row: [i16; BLOCK],
    all: Whole<Vec<i16>>,
    sums: Sums,
}

/// Integers whose products with `step` approximate values, with an error of at most half a step.
#[derive(Debug)]
struct Whole<T> {
    numbers: T,
    step: f32,
}

/// Sums of `Query::all` over the channels of each stage, of `Query::near` for `near_coarse`.
#[derive(Debug, Default)]
struct Sums {
    near_coarse: f32,
    near: f32,
    middle: f32,
    far: f32,
}

/// Distances of a query from the centroid of a list.
#[derive(Clone, Copy, Debug)]
pub struct FromCentroid {
    pub squared: f32,
    near_terms: NearTerms,
    /// Over all channels.
    pub all: f32,
    /// As much of it as a stage allows for, over all channels, over the near ones, over near and middle ones, over the
    /// parts of the rest.
    allowed: f32,
    near: f32,
    not_far: f32,
    rest: [f32; RESTS],
}

/// The state of a row after a stage.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Lower bound of the squared distance.
    pub bound: f32,
    /// Inner product of the query with what is decoded so far.
    pub product: f32,
    pub scale: f32,
}

impl Query {
    /// `values`: shape `(padded,)`, the embedding padded with zeros.
    pub fn new(quantizer: &Quantizer, values: &[f32]) -> Self {
        let kernel = simd::widest();
        let padded = quantizer.layout.padded;
        let mut rotated = vec![0.0; padded];
        quantizer.rotation.apply(values, &mut rotated);
        let scaled: Vec<f32> = rotated.iter().zip(&quantizer.scales).map(|(value, scale)| value * scale).collect();

        let (near_step, near) = whole(&scaled[..BLOCK], 127.0);
        // The sum of products with codes up to 15 must fit in 31 bits.
        let most = 32_767.0f32.min(i32::MAX as f32 / 16.0 / padded as f32);
        let (step, all) = whole(&scaled, most);
        let near = Whole { numbers: std::array::from_fn(|i| near[i] as i8), step: near_step };
        let numbers: Vec<i16> = all.iter().map(|number| *number as i16).collect();
        let sum = |channels: Range<usize>| all[channels].iter().sum::<f32>();
        let far = BLOCK + quantizer.layout.middle;
        let sums = Sums {
            near_coarse: near.numbers.iter().map(|number| f32::from(*number)).sum(),
            near: sum(0..BLOCK),
            middle: sum(BLOCK..far),
            far: sum(far..padded),
        };
        let near_row = std::array::from_fn(|i| {
            let (high, byte) = (i / BLOCK_BYTES, i % BLOCK_BYTES);
            numbers[8 * (byte / 4) + 4 * high + byte % 4]
        });
        let norm = kernel.dot(values, values).sqrt();
        Self { layout: quantizer.layout, kernel, rotated, norm, near, near_row, all: Whole { numbers, step }, sums }
    }

    /// `allowance`: the part of an inner product's greatest size that the stages before the last one allow for, 1 to be sure.
    pub fn distances_to(&self, quantizer: &Quantizer, list: usize, allowance: f32) -> FromCentroid {
        let (head, tail) = (quantizer.centroids.head(list), quantizer.centroids.tail(list));
        let near = self.kernel.l2_squared_mixed(&self.rotated[..BLOCK], &head[..BLOCK]);
        let rest: [f32; RESTS] = std::array::from_fn(|part| {
            let channels = quantizer.layout.rest(part);
            let centroid = match part {
                0 => &head[channels.clone()],
                _ => &tail[channels.start - head.len()..channels.end - head.len()],
            };
            self.kernel.l2_squared_mixed(&self.rotated[channels], centroid)
        });
        let squared = near + rest.iter().sum::<f32>();
        let allowed = |squared: f32| allowance * squared.sqrt();
        let (near, not_far, rest) = (allowed(near), allowed(near + rest[0]), rest.map(allowed));
        let step = self.near.step / STEPS;
        let near_terms = NearTerms {
            squared,
            step: 2.0 * step,
            // As many channels, each off by at most half a step, times a code of at most 1.
            off: SURE * self.near.step * BLOCK as f32 - 2.0 * step * MIDDLE * self.sums.near_coarse,
            error: 2.0 * near,
            rest: rest.map(|norm| 2.0 * norm),
        };
        FromCentroid { squared, near_terms, all: squared.sqrt(), allowed: allowed(squared), near, not_far, rest }
    }

    /// Near stage of the first `used` rows of a segment: writes those within `reach`, and their bounds, to the front of
    /// `within`; returns how many there are.
    #[inline]
    pub fn near(&self, at: &FromCentroid, page: &[u8], used: usize, reach: f32, within: &mut Within) -> usize {
        let groups = used.div_ceil(GROUP);
        let rows = NearRows {
            codes: parts(page, self.layout.near_codes_at(0), groups),
            base: parts(page, self.layout.near_base_at(0), groups),
            scale: parts(page, self.layout.scale_at(0), groups),
            error: parts(page, self.layout.near_error_at(0), groups),
            rest: std::array::from_fn(|rest| parts(page, self.layout.rest_at(rest, 0), groups)),
        };
        let found = self.kernel.near_within(&self.near.numbers, &at.near_terms, &rows, reach, within);
        // The last group may have slots that were never used.
        let unused = within.rows[..found].iter().rev().take_while(|row| **row as usize >= used).count();
        found - unused
    }

    /// Middle stage of a row without its near codes: a bound, from that of the near stage.
    ///
    /// Both stages leave out the same far channels, so the first bound accounts for them.
    #[inline]
    pub fn after_near(&self, at: &FromCentroid, page: &[u8], slot: usize, near: f32) -> f32 {
        let middle = &page[self.layout.middle_code_at(slot)..][..self.layout.middle / 2];
        let scale = get_bf16(page, self.layout.scale_at(slot));
        let dot = self.kernel.code_dot(&self.all.numbers[BLOCK..BLOCK + self.layout.middle], middle);
        let product = self.product(scale, STEPS, dot, self.sums.middle);
        let before = at.near * get_bf16(page, self.layout.near_error_at(slot))
            + at.rest[0] * get_bf16(page, self.layout.rest_at(0, slot));
        let after = at.not_far * get_bf16(page, self.layout.middle_error_at(slot));
        let base = get_f32(page, self.layout.middle_base_at(slot)) - get_f32(page, self.layout.near_base_at(slot));
        near + base + 2.0 * (before - after - product) - scale * self.off()
    }

    /// Middle stage of a row, with its near codes once more, now by the finer query.
    #[inline]
    pub fn middle(&self, at: &FromCentroid, page: &[u8], slot: usize) -> Known {
        let scale = get_bf16(page, self.layout.scale_at(slot));
        let near = self.near_product(scale, page, slot);
        let middle = &page[self.layout.middle_code_at(slot)..][..self.layout.middle / 2];
        let dot = self.kernel.code_dot(&self.all.numbers[BLOCK..BLOCK + self.layout.middle], middle);
        let product = near + self.product(scale, STEPS, dot, self.sums.middle);
        let rest = (1..RESTS).map(|part| at.rest[part] * get_bf16(page, self.layout.rest_at(part, slot)));
        let lost = at.not_far * get_bf16(page, self.layout.middle_error_at(slot)) + rest.sum::<f32>();
        self.known(at, get_f32(page, self.layout.middle_base_at(slot)), scale, product, lost)
    }

    /// Inner product with the near codes of a row.
    fn near_product(&self, scale: f32, page: &[u8], slot: usize) -> f32 {
        let mut codes = [0; BLOCK_BYTES];
        for (eighth, four) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            four.copy_from_slice(&page[self.layout.near_code_at(slot, eighth)..][..4]);
        }
        self.product(scale, STEPS, self.kernel.code_dot(&self.near_row, &codes), self.sums.near)
    }

    /// Far stage of a row: `bytes` are its bounds and codes.
    pub fn far(&self, at: &FromCentroid, bytes: &[u8], before: Known) -> Known {
        let codes = &bytes[ROW_BOUND..];
        let dot = self.kernel.code_dot(&self.all.numbers[self.all.numbers.len() - 2 * codes.len()..], codes);
        let product = before.product + self.product(before.scale, STEPS, dot, self.sums.far);
        let away = if self.layout.fine { at.allowed } else { at.all };
        self.known(at, get_f32(bytes, 0), before.scale, product, away * get_bf16(bytes, 4))
    }

    /// Fine stage of a row: `bytes` are its bounds and the lower halves of its codes.
    pub fn fine(&self, at: &FromCentroid, bytes: &[u8], before: Known) -> Known {
        let dot = self.kernel.code_dot(&self.all.numbers, &bytes[ROW_BOUND..]);
        let sum = self.sums.near + self.sums.middle + self.sums.far;
        let product = before.product + self.product(before.scale, FINE_STEPS, dot, sum);
        self.known(at, get_f32(bytes, 0), before.scale, product, at.all * get_bf16(bytes, 4))
    }

    /// What the operator's distance of a row with this bound is at least; no embedding of the index is longer than
    /// `longest`.
    ///
    /// Between the two lie the rotation's rounding, that of the bound's sums, and the operator's own.
    pub fn operator_bound(&self, quantizer: &Quantizer, longest: f32, bound: f32) -> f64 {
        let padded = self.layout.padded as f64;
        let (norm, longest) = (f64::from(self.norm), f64::from(longest));
        // Each of the terms of a bound is at most the square of this, and rounded a few times, those of a sum of many
        // products a few times more.
        let most = norm + 3.0 * longest.max(f64::from(quantizer.centroids.longest()));
        let rounded = (padded / 32.0 + 24.0) * f64::from(f32::EPSILON);
        let exact = (f64::from(bound) - most * most * rounded).max(0.0).sqrt();
        let (shift, stretch) = quantizer.rotation.slack(self.layout.padded);
        let embedding = ((exact - shift * (norm + longest)) / (1.0 + stretch)).max(0.0);
        // The error of simd::l2_squared, and a bit for the roots.
        embedding * (1.0 - (padded / 64.0 + 12.0) * f64::from(f32::EPSILON))
    }

    fn product(&self, scale: f32, steps: f32, dot: i32, sum: f32) -> f32 {
        scale * (self.all.step / steps) * (dot as f32 - MIDDLE * sum)
    }

    /// Twice the error of an inner product with a row of scale 1.
    fn off(&self) -> f32 {
        SURE * self.all.step * self.all.numbers.len() as f32
    }

    fn known(&self, at: &FromCentroid, base: f32, scale: f32, product: f32, lost: f32) -> Known {
        Known { bound: at.squared + base - 2.0 * (product + lost) - scale * self.off(), product, scale }
    }
}

/// Quantises values to integers of at most `most`; returns the step as well.
fn whole(values: &[f32], most: f32) -> (f32, Vec<f32>) {
    let reach = values.iter().fold(0.0f32, |reach, value| reach.max(value.abs()));
    let most = most.floor();
    let step = reach / most;
    let per = if step > 0.0 { 1.0 / step } else { 0.0 };
    (step, values.iter().map(|value| (value * per).round().clamp(-most, most)).collect())
}

/// Parts of a page, one for each group.
#[inline]
fn parts<const N: usize>(page: &[u8], at: usize, groups: usize) -> &[[u8; N]] {
    page[at..at + groups * N].as_chunks().0
}
