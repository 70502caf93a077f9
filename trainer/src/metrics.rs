//! Metrics of rankings.
//!
//! Average precision is the plain one: the mean, over all photos of the query's class, of the precision at the rank of each.
//! Ties are broken at random, so that the order in which photos are stored does not affect the result; codebooks with few
//! prototypes produce many ties.

use std::collections::BTreeMap;

use half::f16;
use ndarray::{Array2, ArrayView1, ArrayView2};
use sketch_model::simd::{l2_squared, to_f16};

/// Rank at which precision is measured, as in the papers on sketches for galleries of this size.
pub const PRECISION_AT: usize = 25;

/// Metrics of a ranking, 0 to 100: mean over the queries of a class, then over classes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// Mean average precision over the whole gallery.
    pub map: f64,
    /// Share of photos of the query's class among the first 25.
    pub precision: f64,
    /// mAP@200 as the papers' code computes it: average precision over the photos of the class among the first 200.
    pub map_200: f64,
    /// Average precision as the area under the interpolated precision-recall curve.
    ///
    /// Source: PASCAL VOC development kit, 2010 and later.
    pub voc: f64,
    /// Share of photos of the query's class among the first ten.
    pub precision_10: f64,
    /// Share of the queries whose first photo is of their class.
    pub first: f64,
    /// Share of the queries with a photo of their class among the first ten.
    pub found: f64,
}

impl Scores {
    /// The mean of several evaluations.
    pub fn mean(of: &[Self]) -> Self {
        let count = of.len().max(1) as f64;
        let sum = |part: fn(&Self) -> f64| of.iter().map(part).sum::<f64>() / count;
        Self {
            map: sum(|scores| scores.map),
            precision: sum(|scores| scores.precision),
            map_200: sum(|scores| scores.map_200),
            voc: sum(|scores| scores.voc),
            precision_10: sum(|scores| scores.precision_10),
            first: sum(|scores| scores.first),
            found: sum(|scores| scores.found),
        }
    }
}

/// The 95 % bootstrap interval of the mean of `values`.
///
/// `values`: one for each class, such as its mAP. The same `seed` gives the same interval. Both ends are zero if there is
/// no value.
///
/// Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3 (percentiles).
pub fn bootstrap(values: &[f64], draws: usize, seed: u64) -> (f64, f64) {
    if values.is_empty() || draws == 0 {
        return (0.0, 0.0);
    }
    let pick = |draw: usize, i: usize| {
        values[(mix(seed ^ mix((draw * values.len() + i) as u64)) % values.len() as u64) as usize]
    };
    let mean = |draw| (0..values.len()).map(|i| pick(draw, i)).sum::<f64>() / values.len() as f64;
    let mut means: Vec<f64> = (0..draws).map(mean).collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[((draws - 1) as f64 * share).round() as usize];
    (at(0.025), at(0.975))
}

/// Squared L2 distances between rows in half precision, as the database computes them.
///
/// `queries`: shape `(q, d)`. `gallery`: shape `(g, d)`, or `(g, d + 1)` with a channel that is zero in the queries.
/// Returns shape `(q, g)`.
pub fn distances(queries: ArrayView2<f32>, gallery: ArrayView2<f32>) -> Array2<f32> {
    let dimension = queries.ncols();
    let (queries, gallery) = (halves(queries), halves(gallery));
    let channel = |photo: &[f16]| photo.get(dimension).map_or(0.0, |channel| channel.to_f32().powi(2));
    Array2::from_shape_fn((queries.len(), gallery.len()), |(i, j)| {
        l2_squared(&queries[i], &gallery[j][..dimension]) + channel(&gallery[j])
    })
}

fn halves(rows: ArrayView2<f32>) -> Vec<Vec<f16>> {
    rows.rows().into_iter().map(|row| to_f16(&row.to_vec())).collect()
}

/// Scores the rankings of a gallery by several queries.
///
/// `distances`: shape `(q, g)`, lower is nearer. `queries`, `gallery`: the class of each row and column. `seed`: breaks ties.
/// Queries whose class the gallery lacks are ignored; if there are no others, the scores are zero.
pub fn score(distances: ArrayView2<f32>, queries: &[&str], gallery: &[&str], seed: u64) -> Scores {
    let of_classes: Vec<Scores> = score_classes(distances, queries, gallery, seed).into_values().collect();
    Scores::mean(&of_classes)
}

/// The scores of each class of queries by its name; arguments as for [`score`].
pub fn score_classes<'a>(
    distances: ArrayView2<f32>,
    queries: &[&'a str],
    gallery: &[&str],
    seed: u64,
) -> BTreeMap<&'a str, Scores> {
    let mut classes: BTreeMap<&'a str, Vec<Scores>> = BTreeMap::new();
    for (i, (row, class)) in distances.rows().into_iter().zip(queries).enumerate() {
        let relevant: Vec<bool> = ranking(row, i, seed).into_iter().map(|j| gallery[j] == *class).collect();
        if let Some(scores) = score_ranking(&relevant) {
            classes.entry(class).or_default().push(scores);
        }
    }
    classes.into_iter().map(|(class, of_queries)| (class, Scores::mean(&of_queries))).collect()
}

/// Positions of photos from the nearest to the farthest; ties are broken at random.
///
/// `distances`: shape `(g,)`, of query number `query`.
pub fn ranking(distances: ArrayView1<f32>, query: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..distances.len()).collect();
    let tie = |j: usize| mix(seed ^ mix(query as u64) ^ mix(!(j as u64)));
    order.sort_by(|&a, &b| distances[a].total_cmp(&distances[b]).then(tie(a).cmp(&tie(b))));
    order
}

/// The best precision at a recall of at least `i / (points - 1)`, for each `i < points`; `None` if no photo is relevant.
///
/// Source: Manning, Raghavan, Schütze, "Introduction to Information Retrieval", 2008, section 8.4 (interpolated precision).
pub fn precision_recall(relevant: &[bool], points: usize) -> Option<Vec<f64>> {
    let ranks = relevant.iter().enumerate().filter(|(_, relevant)| **relevant).map(|(i, _)| i + 1);
    let precisions: Vec<f64> = ranks.enumerate().map(|(found, rank)| (found + 1) as f64 / rank as f64).collect();
    let best = envelope(&precisions);
    let at = |i: usize| {
        let found = (best.len() as f64 * i as f64 / (points.max(2) - 1) as f64).ceil() as usize;
        best[found.max(1) - 1]
    };
    (!best.is_empty()).then(|| (0..points).map(at).collect())
}

/// Scores one ranking, given which of its photos have the query's class; `None` if none has.
pub fn score_ranking(relevant: &[bool]) -> Option<Scores> {
    let ranks = relevant.iter().enumerate().filter(|(_, relevant)| **relevant).map(|(i, _)| i + 1);
    let precisions: Vec<f64> = ranks.enumerate().map(|(found, rank)| (found + 1) as f64 / rank as f64).collect();
    if precisions.is_empty() {
        return None;
    }
    let among = |first: usize| relevant.iter().take(first).filter(|relevant| **relevant).count();
    let mean = |values: &[f64]| 100.0 * values.iter().sum::<f64>() / values.len().max(1) as f64;
    Some(Scores {
        map: mean(&precisions),
        precision: 100.0 * among(PRECISION_AT) as f64 / PRECISION_AT as f64,
        map_200: mean(&precisions[..among(200)]),
        voc: mean(&envelope(&precisions)),
        precision_10: 10.0 * among(10) as f64,
        first: 100.0 * among(1) as f64,
        found: if among(10) > 0 { 100.0 } else { 0.0 },
    })
}

/// The greatest precision at each recall or a higher one.
fn envelope(precisions: &[f64]) -> Vec<f64> {
    let mut greatest = 0.0f64;
    let mut envelope: Vec<f64> = precisions
        .iter()
        .rev()
        .map(|precision| {
            greatest = greatest.max(*precision);
            greatest
        })
        .collect();
    envelope.reverse();
    envelope
}

/// Hashes a number.
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
        assert!(close(scores.map_200, scores.map) && close(scores.found, 100.0));
        assert!(close(scores.first, 100.0) && close(scores.precision_10, 30.0));
        // Precision 1, 2/3, 1/2 falls, so that its envelope is itself; 1/2, 2/3 rises.
        assert!(close(scores.voc, scores.map));
        let rising = score_ranking(&[false, true, true]).unwrap();
        assert!(close(rising.map, 100.0 * (1.0 / 2.0 + 2.0 / 3.0) / 2.0) && close(rising.voc, 100.0 * 2.0 / 3.0));
        // One at rank 1, another at rank 250: the second does not count in the first 200, but in all.
        let mut late = vec![false; 300];
        (late[0], late[249]) = (true, true);
        let late = score_ranking(&late).unwrap();
        assert!(close(late.map_200, 100.0) && close(late.map, 100.0 * (1.0 + 2.0 / 250.0) / 2.0));
        let mut last = vec![false; 11];
        last[10] = true;
        let last = score_ranking(&last).unwrap();
        assert!(close(last.found, 0.0) && close(last.first, 0.0) && close(last.precision_10, 0.0));
        assert_eq!(score_ranking(&[false; 4]), None);
        let all = score_ranking(&[true; 30]).unwrap();
        assert!(close(all.map, 100.0) && close(all.precision, 100.0));
    }

    /// Relevant at ranks 1 and 4 of 4: precision 1 up to a recall of 0.5, then 2/4.
    #[test]
    fn precision_is_interpolated_over_recall() {
        let curve = precision_recall(&[true, false, false, true], 5).unwrap();
        assert_eq!(curve, [1.0, 1.0, 1.0, 0.5, 0.5]);
        assert_eq!(precision_recall(&[false], 5), None);
    }

    #[test]
    fn rankings_are_by_distance() {
        assert_eq!(ranking(array![0.3, 0.1, 0.2].view(), 0, 0), [1, 2, 0]);
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

    /// The mean of n draws has deviation σ/√n; 95 % lie within 1.96 of them.
    #[test]
    fn bootstrap_is_as_wide_as_theory_says() {
        let values: Vec<f64> = (0..50).map(f64::from).collect();
        let (low, high) = bootstrap(&values, 4000, 1);
        let deviation = (values.iter().map(|x| (x - 24.5).powi(2)).sum::<f64>() / 50.0).sqrt() / 50f64.sqrt();
        assert!((low - (24.5 - 1.96 * deviation)).abs() < 0.3, "{low}");
        assert!((high - (24.5 + 1.96 * deviation)).abs() < 0.3, "{high}");
        assert_eq!(bootstrap(&values, 4000, 1), (low, high));
        assert_eq!(bootstrap(&[], 10, 0), (0.0, 0.0));
        assert_eq!(bootstrap(&[3.0], 10, 0), (3.0, 3.0));
    }

    #[test]
    fn distances_are_squared_and_exact_on_halves() {
        let found = distances(array![[1.0, 0.0], [0.5, 2.0]].view(), array![[0.0, 0.0], [1.0, 2.0]].view());
        assert_eq!(found, array![[1.0, 4.0], [4.25, 0.25]]);
        // A drawing lacks the channel that a stored photo may have.
        let found = distances(array![[1.0]].view(), array![[0.0, 0.0], [1.0, 2.0]].view());
        assert_eq!(found, array![[1.0, 4.0]]);
    }
}
