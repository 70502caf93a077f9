//! How good a ranking is.
//!
//! Average precision here is the plain one: the mean, over all photos of the query's class, of the precision at the
//! rank of each. Photos at equal distance stand in random order: a ranking is not rewarded for the order in which
//! photos were stored, which codebooks with few prototypes would otherwise be.

use std::collections::BTreeMap;

use half::f16;
use ndarray::{Array2, ArrayView2};
use sketch_model::distance::{l2_squared, to_f16};

/// Ranks at which precision is taken, as the papers on sketches do for galleries of this size.
pub const PRECISION_AT: usize = 25;

/// What a ranking is worth, 0 to 100, mean over the queries of a class and then over the classes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// Mean average precision over the whole gallery.
    pub map: f64,
    /// Share of the query's class among the first 25.
    pub precision: f64,
}

impl Scores {
    /// The mean of several evaluations.
    pub fn mean(of: &[Self]) -> Self {
        let count = of.len().max(1) as f64;
        let sum = |part: fn(&Self) -> f64| of.iter().map(part).sum::<f64>() / count;
        Self { map: sum(|scores| scores.map), precision: sum(|scores| scores.precision) }
    }
}

/// Squared L2 distances between rows, on half-precision values, as the database has them.
///
/// `queries`: shape `(q, d)`. `gallery`: shape `(g, d)`. Returns shape `(q, g)`.
pub fn distances(queries: ArrayView2<f32>, gallery: ArrayView2<f32>) -> Array2<f32> {
    let (queries, gallery) = (halves(queries), halves(gallery));
    Array2::from_shape_fn((queries.len(), gallery.len()), |(i, j)| l2_squared(&queries[i], &gallery[j]))
}

fn halves(rows: ArrayView2<f32>) -> Vec<Vec<f16>> {
    rows.rows().into_iter().map(|row| to_f16(&row.to_vec())).collect()
}

/// Scores the rankings of a gallery by several queries.
///
/// `distances`: shape `(q, g)`, lower is nearer. `queries`, `gallery`: the class of each row and column. `seed`: decides
/// between photos at equal distance. Queries of classes that the gallery lacks do not count; without any other, the
/// scores are zero.
pub fn score(distances: ArrayView2<f32>, queries: &[&str], gallery: &[&str], seed: u64) -> Scores {
    let mut classes: BTreeMap<&str, Vec<Scores>> = BTreeMap::new();
    for (i, (row, class)) in distances.rows().into_iter().zip(queries).enumerate() {
        let mut order: Vec<usize> = (0..gallery.len()).collect();
        let tie = |j: usize| mix(seed ^ mix(i as u64) ^ mix(!(j as u64)));
        order.sort_by(|&a, &b| row[a].total_cmp(&row[b]).then(tie(a).cmp(&tie(b))));
        let relevant: Vec<bool> = order.iter().map(|&j| gallery[j] == *class).collect();
        if let Some(scores) = score_ranking(&relevant) {
            classes.entry(class).or_default().push(scores);
        }
    }
    let of_classes: Vec<Scores> = classes.values().map(|of_queries| Scores::mean(of_queries)).collect();
    Scores::mean(&of_classes)
}

/// Scores one ranking, given which of its photos are of the query's class; `None` if none is.
fn score_ranking(relevant: &[bool]) -> Option<Scores> {
    let ranks = relevant.iter().enumerate().filter(|(_, relevant)| **relevant).map(|(i, _)| i + 1);
    let precisions: Vec<f64> = ranks.enumerate().map(|(found, rank)| (found + 1) as f64 / rank as f64).collect();
    if precisions.is_empty() {
        return None;
    }
    let first = &relevant[..relevant.len().min(PRECISION_AT)];
    let found = first.iter().filter(|relevant| **relevant).count();
    Some(Scores {
        map: 100.0 * precisions.iter().sum::<f64>() / precisions.len() as f64,
        precision: 100.0 * found as f64 / PRECISION_AT as f64,
    })
}

/// Turns a number into one that looks random.
///
/// Source: the finaliser of SplitMix64, Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    /// Relevant at ranks 1, 3 and 6: AP = (1/1 + 2/3 + 3/6) / 3.
    #[test]
    fn average_precision_is_that_of_the_definition() {
        let scores = score_ranking(&[true, false, true, false, false, true]).unwrap();
        assert!(close(scores.map, 100.0 * (1.0 + 2.0 / 3.0 + 0.5) / 3.0));
        assert!(close(scores.precision, 100.0 * 3.0 / 25.0));
        assert_eq!(score_ranking(&[false; 4]), None);
        let all = score_ranking(&[true; 30]).unwrap();
        assert!(close(all.map, 100.0) && close(all.precision, 100.0));
    }

    /// Two queries of "a" and one of "b": the mean is over classes, not over queries.
    #[test]
    fn classes_count_the_same() {
        let distances = array![[0.0, 1.0, 2.0], [1.0, 0.0, 2.0], [0.0, 1.0, 2.0]];
        let scores = score(distances.view(), &["a", "a", "b"], &["a", "c", "b"], 0);
        let (a, b) = ((1.0 + 0.5) / 2.0, 1.0 / 3.0);
        assert!(close(scores.map, 100.0 * (a + b) / 2.0));
        // A query of a class that the gallery lacks changes nothing.
        let distances = array![[0.0, 1.0, 2.0], [1.0, 0.0, 2.0], [0.0, 1.0, 2.0], [0.0, 0.0, 0.0]];
        assert_eq!(score(distances.view(), &["a", "a", "b", "z"], &["a", "c", "b"], 0), scores);
    }

    /// With all distances equal, the one relevant photo of four is at each rank equally often: AP = (1 + 1/2 + 1/3 + 1/4) / 4.
    #[test]
    fn ties_are_broken_at_random() {
        let distances = Array2::zeros((1, 4));
        let scores: Vec<Scores> =
            (0..4000).map(|seed| score(distances.view(), &["a"], &["a", "b", "b", "b"], seed)).collect();
        let expected = 100.0 * (1.0 + 1.0 / 2.0 + 1.0 / 3.0 + 1.0 / 4.0) / 4.0;
        // Standard deviation of one AP is 29, of the mean of 4000 is 0.46.
        assert!((Scores::mean(&scores).map - expected).abs() < 2.0);
        let again = score(distances.view(), &["a"], &["a", "b", "b", "b"], 7);
        assert_eq!(again, scores[7]);
    }

    #[test]
    fn distances_are_squared_and_exact_on_halves() {
        let found = distances(array![[1.0, 0.0], [0.5, 2.0]].view(), array![[0.0, 0.0], [1.0, 2.0]].view());
        assert_eq!(found, array![[1.0, 4.0], [4.25, 0.25]]);
    }
}
