//! How much a search must allow for to find a given part of the nearest rows.
//!
//! A new index tries a row of allowances on queries made from its own rows, and keeps the recall of each on its meta page.

use super::layout::{Meta, get_f32, put};
use super::quantizer::Quantizer;
use super::search::{Allowance, Search, SearchOptions};
use super::{Origin, Pages, RowId};
use half::f16;
use ndarray::ArrayView2;
use ndarray_rand::rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256Plus;
use std::sync::Arc;

/// Allowances that are tried, from the least. Between the two, recall and speed are linear enough.
const STEPS: [Allowance; 10] = [
    Allowance { lists: 0.15, rows: 0.12 },
    Allowance { lists: 0.2, rows: 0.16 },
    Allowance { lists: 0.25, rows: 0.2 },
    Allowance { lists: 0.3, rows: 0.24 },
    Allowance { lists: 0.35, rows: 0.28 },
    Allowance { lists: 0.4, rows: 0.32 },
    Allowance { lists: 0.45, rows: 0.37 },
    Allowance { lists: 0.5, rows: 0.42 },
    Allowance { lists: 0.6, rows: 0.5 },
    Allowance { lists: 0.7, rows: 0.6 },
];
/// Nearest rows that count.
const NEAREST: usize = 10;
/// Queries that an index is calibrated with.
const QUERIES: usize = 128;
/// Bytes of a step: two allowances and the recall.
const STEP: usize = 12;

/// Allowances, and the recall of each, both ascending.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Calibration {
    /// No recall is 0 but that of an index which is not calibrated.
    steps: [(Allowance, f32); STEPS.len()],
}

/// Queries to calibrate an index with, made from a sample of its rows, shape `(n, d)`.
///
/// They lie between two rows, with half the weight of the second: such a query has no row that is much nearer than others, as a
/// drawing has none. Of a million photos, sketches find more than these at every allowance, of 100,000 about as much.
pub fn queries(sample: ArrayView2<f32>, seed: u64) -> Vec<Vec<f16>> {
    let mut rng = Xoshiro256Plus::seed_from_u64(seed);
    let count = sample.nrows();
    let mut one = || {
        let (a, b) = (sample.row(rng.gen_range(0..count)), sample.row(rng.gen_range(0..count)));
        let between = &a + &(&b * 0.5);
        let length = a.dot(&a).sqrt() / between.dot(&between).sqrt().max(f32::MIN_POSITIVE);
        between.iter().map(|value| f16::from_f32(value * length)).collect()
    };
    (0..if count > 0 { QUERIES } else { 0 }).map(|_| one()).collect()
}

impl Calibration {
    pub const SIZE: usize = STEPS.len() * STEP;

    /// What to allow for so that a search finds this part of the nearest rows; all, if the index does not know.
    pub fn allowance(&self, recall: f64) -> Allowance {
        if recall >= 1.0 {
            return Allowance::SURE;
        }
        let wanted = recall as f32;
        let Some(index) = self.steps.iter().position(|(_, reached)| *reached >= wanted) else { return Allowance::SURE };
        let (more, reached) = self.steps[index];
        let Some((less, missed)) = index.checked_sub(1).map(|before| self.steps[before]) else { return more };
        let part = (wanted - missed) / (reached - missed).max(f32::MIN_POSITIVE);
        let between = |less: f32, more: f32| less + part.clamp(0.0, 1.0) * (more - less);
        Allowance { lists: between(less.lists, more.lists), rows: between(less.rows, more.rows) }
    }

    /// Whether the index was calibrated.
    pub fn is_known(&self) -> bool {
        self.steps.iter().any(|(_, recall)| *recall > 0.0)
    }

    pub fn write(&self, bytes: &mut [u8]) {
        for ((allowance, recall), out) in self.steps.iter().zip(bytes.as_chunks_mut::<STEP>().0) {
            [allowance.lists, allowance.rows, *recall]
                .iter()
                .enumerate()
                .for_each(|(i, value)| put(out, 4 * i, value.to_le_bytes()));
        }
    }

    /// `None` if these are no recalls of allowances.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut steps = [(Allowance::default(), 0.0); STEPS.len()];
        for (step, bytes) in steps.iter_mut().zip(bytes.as_chunks::<STEP>().0) {
            let [lists, rows, recall] = [0, 4, 8].map(|at| get_f32(bytes, at));
            if ![lists, rows, recall].iter().all(|value| (0.0..=1.0).contains(value)) {
                return None;
            }
            *step = (Allowance { lists, rows }, recall);
        }
        Some(Self { steps })
    }
}

/// Measures the recall of each allowance, and writes it to the meta page. Without queries, nothing is written.
///
/// # Errors
/// If a page cannot be read or written.
pub fn calibrate<P: Pages>(
    pages: &mut P,
    quantizer: &Arc<Quantizer>,
    queries: &[Vec<f16>],
    mut check: impl FnMut(),
) -> Result<(), P::Error> {
    if queries.is_empty() {
        return Ok(());
    }
    let mut found = [0usize; STEPS.len()];
    let mut all = 0;
    for query in queries {
        check();
        let exact = nearest(pages, quantizer, query, Allowance::SURE)?;
        all += exact.len();
        for (found, allowance) in found.iter_mut().zip(STEPS) {
            let rows = nearest(pages, quantizer, query, allowance)?;
            *found += rows.iter().filter(|row| exact.contains(row)).count();
        }
    }
    let mut least = 0.0f32;
    let steps = std::array::from_fn(|index| {
        // More is found by the bye, now and then, where less is allowed for.
        least = least.max(found[index] as f32 / all.max(1) as f32);
        (STEPS[index], least)
    });
    let meta = Meta { calibration: Calibration { steps }, ..pages.read(0, Meta::read)?? };
    pages.change([0], |[page]| {
        meta.write(page);
        Ok(())
    })
}

fn nearest<P: Pages>(
    pages: &P,
    quantizer: &Arc<Quantizer>,
    query: &[f16],
    allowance: Allowance,
) -> Result<Vec<RowId>, P::Error> {
    let options = SearchOptions { max_lists: 0, allowance, memory: 0 };
    let mut search = Search::new(quantizer.clone(), query, Origin::default(), options)?;
    let mut rows = Vec::with_capacity(NEAREST);
    while rows.len() < NEAREST
        && let Some(hit) = search.next(pages)?
    {
        rows.push(hit.row);
    }
    Ok(rows)
}
