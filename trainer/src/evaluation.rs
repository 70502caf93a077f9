//! Evaluates rankings of a gallery by drawings.

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayView2, Axis};
use serde::Serialize;

use crate::metrics::{Scores, bootstrap, precision_recall, ranking, score_classes, score_ranking};
use crate::statistics::{Moments, principal_directions};

/// Bootstrap samples per interval.
const DRAWS: usize = 2000;
/// Points of a precision-recall curve: recalls 0, 0.05, … 1.
pub const RECALLS: usize = 21;

/// A set of queries with its distances to every photo of a gallery.
#[derive(Clone, Debug)]
pub struct Search {
    pub name: String,
    /// Shape `(q, g)`, lower is nearer.
    pub distances: Array2<f32>,
    /// The class of each query and of each photo.
    pub queries: Vec<String>,
    pub gallery: Vec<String>,
    /// Breaks ties between photos at equal distance.
    pub seed: u64,
}

/// One metric, 0 to 100, with its 95 % bootstrap interval over classes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metric {
    pub name: &'static str,
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

/// A metric's name and value.
type Column = (&'static str, fn(&Scores) -> f64);

const COLUMNS: [Column; 5] = [
    ("mAP@all", |scores| scores.map),
    ("mAP@200", |scores| scores.map_200),
    ("VOC AP", |scores| scores.voc),
    ("P@25", |scores| scores.precision),
    ("found@10", |scores| scores.found),
];

/// All results of a search, as written to a file.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub name: String,
    pub queries: usize,
    pub photos: usize,
    pub metrics: Vec<Metric>,
    /// mAP@all of each class.
    pub classes: BTreeMap<String, f64>,
    /// Mean interpolated precision at recalls 0, 0.05, … 1.
    pub precision: Vec<f64>,
}

impl Search {
    /// Scores of each class of queries.
    pub fn classes(&self) -> BTreeMap<&str, Scores> {
        score_classes(self.distances.view(), &names(&self.queries), &names(&self.gallery), self.seed)
    }

    /// The mean over the classes.
    pub fn scores(&self) -> Scores {
        Scores::mean(&self.classes().into_values().collect::<Vec<_>>())
    }

    /// Every metric, its curve, and every class.
    pub fn summary(&self) -> Summary {
        let classes = self.classes();
        let metric = |(name, part): Column| {
            let values: Vec<f64> = classes.values().map(part).collect();
            let (low, high) = bootstrap(&values, DRAWS, self.seed);
            Metric { name, mean: values.iter().sum::<f64>() / values.len().max(1) as f64, low, high }
        };
        Summary {
            name: self.name.clone(),
            queries: self.queries.len(),
            photos: self.gallery.len(),
            metrics: COLUMNS.into_iter().map(metric).collect(),
            classes: classes.iter().map(|(class, scores)| ((*class).to_owned(), scores.map)).collect(),
            precision: self.curve(),
        }
    }

    /// Positions of photos from the nearest to the farthest.
    pub fn ranking(&self, query: usize) -> Vec<usize> {
        ranking(self.distances.row(query), query, self.seed)
    }

    fn relevant(&self, query: usize) -> Vec<bool> {
        self.ranking(query).into_iter().map(|photo| self.gallery[photo] == self.queries[query]).collect()
    }

    /// Mean over the queries of a class, then over the classes.
    fn curve(&self) -> Vec<f64> {
        let mut classes: BTreeMap<&str, Vec<Vec<f64>>> = BTreeMap::new();
        for (query, class) in self.queries.iter().enumerate() {
            if let Some(curve) = precision_recall(&self.relevant(query), RECALLS) {
                classes.entry(class).or_default().push(curve);
            }
        }
        let of_classes: Vec<Vec<f64>> = classes.into_values().map(|curves| mean(&curves)).collect();
        mean(&of_classes)
    }

    /// The queries with the highest and the lowest average precision, `count` of each, no two of the same class.
    pub fn extremes(&self, count: usize) -> [Vec<usize>; 2] {
        let precision = |query| score_ranking(&self.relevant(query)).map(|scores| (query, scores.map));
        let mut scored: Vec<(usize, f64)> = (0..self.queries.len()).filter_map(precision).collect();
        scored.sort_by(|a, b| b.1.total_cmp(&a.1));
        let best = self.one_of_each_class(scored.iter().map(|(query, _)| *query), count);
        let worst = self.one_of_each_class(scored.iter().rev().map(|(query, _)| *query), count);
        [best, worst]
    }

    fn one_of_each_class(&self, queries: impl Iterator<Item = usize>, count: usize) -> Vec<usize> {
        let mut chosen: Vec<usize> = Vec::new();
        for query in queries {
            if chosen.iter().all(|&other| self.queries[other] != self.queries[query]) {
                chosen.push(query);
            }
            if chosen.len() == count {
                break;
            }
        }
        chosen
    }
}

fn names(classes: &[String]) -> Vec<&str> {
    classes.iter().map(String::as_str).collect()
}

fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    let width = rows.first().map_or(0, Vec::len);
    (0..width).map(|i| rows.iter().map(|row| row[i]).sum::<f64>() / rows.len() as f64).collect()
}

/// Projects both sets, each centred on its own mean, onto the plane of greatest variance of `photos`.
///
/// `photos`: shape `(g, d)`. `queries`: shape `(q, d)`. Returns shapes `(g, 2)` and `(q, 2)`.
pub fn plane<'a>(photos: ArrayView2<'a, f32>, queries: ArrayView2<'a, f32>) -> [Array2<f64>; 2] {
    let [photos, queries] = [photos, queries].map(|rows| rows.mapv(f64::from));
    let directions = principal_directions(&Moments::of(photos.view()).covariance, 2.min(photos.ncols()));
    [photos, queries].map(|rows| {
        let centre = rows.mean_axis(Axis(0)).unwrap_or_default();
        (&rows - &centre).dot(&directions)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn search() -> Search {
        let name = |name: &str| name.to_owned();
        Search {
            name: name("test"),
            distances: array![[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [2.0, 1.0, 0.0]],
            queries: vec![name("a"), name("b"), name("b")],
            gallery: vec![name("a"), name("a"), name("b")],
            seed: 0,
        }
    }

    #[test]
    fn summaries_are_means_over_classes() {
        let summary = search().summary();
        // Class a: 1. Class b: once at rank 3, once at rank 1.
        assert!((summary.classes["a"] - 100.0).abs() < 1e-9);
        assert!((summary.classes["b"] - 100.0 * (1.0 / 3.0 + 1.0) / 2.0).abs() < 1e-9);
        let map = &summary.metrics[0];
        assert!((map.mean - (summary.classes["a"] + summary.classes["b"]) / 2.0).abs() < 1e-9);
        assert!(map.low <= map.mean && map.mean <= map.high);
        assert_eq!(summary.precision.len(), RECALLS);
        assert!((summary.precision[0] - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-9);
    }

    #[test]
    fn extremes_are_of_different_classes() {
        let [best, worst] = search().extremes(2);
        assert_eq!((best.len(), worst[0]), (2, 1));
        assert_eq!(search().ranking(2), [2, 1, 0]);
    }

    #[test]
    fn the_plane_keeps_what_varies_most() {
        let photos = array![[0.0, 0.0, 5.0], [4.0, 0.0, 5.0], [0.0, 1.0, 5.0], [4.0, 1.0, 5.0]];
        let [flat, queries] = plane(photos.view(), array![[1.0, 1.0, 1.0]].view());
        assert!((flat[[1, 0]] - flat[[0, 0]] - 4.0).abs() < 1e-9 && (flat[[2, 1]] - flat[[0, 1]] - 1.0).abs() < 1e-9);
        assert_eq!(queries, array![[0.0, 0.0]]);
    }
}
