//! Evaluates rankings of a gallery by drawings.

use std::collections::BTreeMap;
use std::path::Path;

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
    /// Position of the very photo that each query was drawn after, where that is known; empty if it never is.
    pub own: Vec<Option<usize>>,
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

/// The first [`MAIN`] are what a person sees first.
const COLUMNS: [Column; 7] = [
    ("found@1", |scores| scores.first),
    ("P@10", |scores| scores.precision_10),
    ("found@10", |scores| scores.found),
    ("mAP@all", |scores| scores.map),
    ("mAP@200", |scores| scores.map_200),
    ("VOC AP", |scores| scores.voc),
    ("P@25", |scores| scores.precision),
];

/// Metrics that are always shown.
pub const MAIN: usize = 4;
/// Names of the metrics of [`Search::own`]: the share of queries whose own photo is the first, or among the first ten.
pub const OWN: [&str; 2] = ["own@1", "own@10"];

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
        let metric = |name, values: Vec<f64>| {
            let (low, high) = bootstrap(&values, DRAWS, self.seed);
            Metric { name, mean: values.iter().sum::<f64>() / values.len().max(1) as f64, low, high }
        };
        let of_classes = |(name, part): Column| metric(name, classes.values().map(part).collect());
        let own = OWN.into_iter().zip(self.own_found()).filter(|(_, values)| !values.is_empty());
        Summary {
            name: self.name.clone(),
            queries: self.queries.len(),
            photos: self.gallery.len(),
            metrics: COLUMNS
                .into_iter()
                .map(of_classes)
                .chain(own.map(|(name, values)| metric(name, values)))
                .collect(),
            classes: classes.iter().map(|(class, scores)| ((*class).to_owned(), scores.map)).collect(),
            precision: self.curve(),
        }
    }

    /// Share of the queries of each class whose own photo is the first, or among the first ten, 0 to 100.
    fn own_found(&self) -> [Vec<f64>; 2] {
        [1, 10].map(|among| {
            let mut classes: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
            for (query, own) in self.own.iter().enumerate() {
                if let Some(own) = own {
                    let found = self.ranking(query).iter().take(among).any(|photo| photo == own);
                    classes.entry(&self.queries[query]).or_default().push(if found { 100.0 } else { 0.0 });
                }
            }
            classes.into_values().map(|found| found.iter().sum::<f64>() / found.len() as f64).collect()
        })
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

/// Positions of the photos that sketches were drawn after, by their file names, as in Sketchy: `…_10151-3.png` after
/// `…_10151.jpg`. Empty if that is known of none.
pub fn own_photos(sketches: &[String], photos: &[String]) -> Vec<Option<usize>> {
    let stem = |name: &str| Path::new(name).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let photos: BTreeMap<String, usize> =
        photos.iter().enumerate().filter_map(|(position, name)| Some((stem(name)?, position))).collect();
    let own = |name: &String| photos.get(stem(name)?.rsplit_once('-')?.0).copied();
    let found: Vec<Option<usize>> = sketches.iter().map(own).collect();
    if found.iter().all(Option::is_none) { Vec::new() } else { found }
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
            own: vec![Some(0), None, Some(1)],
            seed: 0,
        }
    }

    #[test]
    fn summaries_are_means_over_classes() {
        let summary = search().summary();
        // Class a: 1. Class b: once at rank 3, once at rank 1.
        assert!((summary.classes["a"] - 100.0).abs() < 1e-9);
        assert!((summary.classes["b"] - 100.0 * (1.0 / 3.0 + 1.0) / 2.0).abs() < 1e-9);
        let metric = |name| summary.metrics.iter().find(|metric| metric.name == name).unwrap();
        assert!((metric("found@1").mean - 75.0).abs() < 1e-9);
        // The one known photo of class a is its first, that of class b its second.
        assert!((metric("own@1").mean - 50.0).abs() < 1e-9 && (metric("own@10").mean - 100.0).abs() < 1e-9);
        let map = metric("mAP@all");
        assert!((map.mean - (summary.classes["a"] + summary.classes["b"]) / 2.0).abs() < 1e-9);
        assert!(map.low <= map.mean && map.mean <= map.high);
        assert_eq!(summary.precision.len(), RECALLS);
        assert!((summary.precision[0] - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-9);
    }

    #[test]
    fn sketches_know_their_photos() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let photos = names(&["ant/n1_7.jpg", "ant/n1_8.jpg"]);
        assert_eq!(own_photos(&names(&["x/ant/n1_8-2.png", "n1_9-1.png"]), &photos), [Some(1), None]);
        assert!(own_photos(&names(&["ant.ndjson:1", "t-shirt.ndjson:2"]), &photos).is_empty());
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
