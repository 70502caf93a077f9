//! Compares ways to store photos over galleries of several kinds and sizes, so that a default suits more than one.

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate};
use sketch_model::codebook::{Codebook, CodebookError, CodebookOptions, Hubs, Length};
use sketch_model::form::{Form, FormError};
use sketch_model::hubs::Bank;

use crate::metrics::{Scores, distances, mix, score};

/// Why a comparison failed.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    #[error(transparent)]
    Codebook(#[from] CodebookError),
    #[error(transparent)]
    Form(#[from] FormError),
}

/// A way to store photos.
#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    /// As they are embedded, with this strength of the hub correction.
    Plain { hubs: f32 },
    /// Fused with a codebook of `factor · √n` prototypes for `n` photos.
    Fused { subspaces: usize, factor: f64, weight: f32, length: Length, hubs: f32 },
}

/// Embeddings with the class of each; empty for none.
#[derive(Clone, Debug)]
pub struct Labelled {
    pub name: String,
    /// Shape `(n, d)`.
    pub embeddings: Array2<f32>,
    pub classes: Vec<String>,
}

impl Labelled {
    /// The rows at these positions.
    fn rows(&self, name: String, positions: &[usize]) -> Self {
        let classes = positions.iter().map(|&position| self.classes[position].clone()).collect();
        Self { name, embeddings: self.embeddings.select(Axis(0), positions), classes }
    }

    /// The same with photos of no class.
    pub fn among(&self, name: String, distractors: ArrayView2<f32>) -> Self {
        let embeddings = concatenate![Axis(0), self.embeddings, distractors];
        let none = std::iter::repeat_n(String::new(), distractors.nrows());
        Self { name, embeddings, classes: self.classes.iter().cloned().chain(none).collect() }
    }

    /// A gallery of `size` photos: `of_class` of each class drawn at random, and distractors.
    pub fn sample(&self, of_class: usize, size: usize, distractors: ArrayView2<f32>, seed: u64) -> Self {
        let mut classes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for position in shuffled(self.classes.len(), seed) {
            classes.entry(&self.classes[position]).or_default().push(position);
        }
        let drawn: Vec<usize> =
            classes.values().flat_map(|positions| positions.iter().take(of_class)).copied().collect();
        let others = shuffled(distractors.nrows(), !seed).into_iter().take(size.saturating_sub(drawn.len()));
        let others = distractors.select(Axis(0), &others.collect::<Vec<_>>());
        let name = format!("{of_class} a class among {size}");
        self.rows(name.clone(), &drawn).among(name, others.view())
    }
}

/// The numbers below `count` in a random order.
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&number| mix(seed ^ mix(number as u64)));
    order
}

/// Ranks a gallery by each set of queries, the photos stored in one way; a codebook is trained with this seed.
///
/// # Errors
/// [`TuneError`] if a codebook cannot be trained or used.
pub fn rank(
    way: &Way,
    gallery: &Labelled,
    queries: &[Labelled],
    bank: &Arc<Bank>,
    seed: u64,
) -> Result<Vec<Scores>, TuneError> {
    let photos = stored(way, gallery.embeddings.view(), bank, seed)?;
    let of_photos = names(gallery);
    let scored = |queries: &Labelled| {
        let distances = distances(queries.embeddings.view(), photos.view());
        score(distances.view(), &names(queries), &of_photos, seed)
    };
    Ok(queries.iter().map(scored).collect())
}

fn names(of: &Labelled) -> Vec<&str> {
    of.classes.iter().map(String::as_str).collect()
}

fn stored(way: &Way, photos: ArrayView2<f32>, bank: &Arc<Bank>, seed: u64) -> Result<Array2<f32>, TuneError> {
    let hubs = |strength: f32| if strength > 0.0 { Hubs { bank: bank.tag(), strength } } else { Hubs::default() };
    let codebook = match *way {
        // Prototypes without a weight change nothing.
        Way::Plain { hubs: strength } => {
            let centroids = ndarray::Array3::zeros((1, 1, photos.ncols()));
            Codebook::new(centroids, 1.0, 0)?.with_length(Length::Own).with_hubs(hubs(strength))?
        }
        Way::Fused { subspaces, factor, weight, length, hubs: strength } => {
            let prototypes = (factor * (photos.nrows() as f64).sqrt()).round().max(1.0) as usize;
            let hubs = hubs(strength);
            let options =
                CodebookOptions { subspaces, prototypes, weight, length, hubs, seed, ..CodebookOptions::default() };
            Codebook::train(photos, 0, &options)?
        }
    };
    let form = Form::fused(codebook, Some(bank.clone()))?;
    let mut stored = Array2::zeros((photos.nrows(), form.dimension(photos.ncols())));
    for (mut row, photo) in stored.rows_mut().into_iter().zip(photos.rows()) {
        row.assign(&Array1::from(form.apply(&photo.to_vec())?));
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use sketch_model::hubs::Correction;

    fn gallery() -> Labelled {
        let embeddings = array![[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]];
        let classes = ["a", "a", "b", "b"].map(str::to_owned).to_vec();
        Labelled { name: "photos".to_owned(), embeddings, classes }
    }

    fn bank() -> Arc<Bank> {
        let correction = Correction { neighbours: 1, strength: 0.5, floor: -1.0 };
        Arc::new(Bank::new(array![[0.0, 1.0]].view(), 1, correction).unwrap())
    }

    #[test]
    fn samples_have_as_many_of_each_class() {
        let distractors = Array2::zeros((5, 2));
        let sample = gallery().sample(1, 6, distractors.view(), 3);
        let count = |class: &str| sample.classes.iter().filter(|other| *other == class).count();
        assert_eq!((count("a"), count("b"), count(""), sample.embeddings.dim()), (1, 1, 4, (6, 2)));
        assert_eq!(sample.classes, gallery().sample(1, 6, distractors.view(), 3).classes);
    }

    /// A photo that is near to all drawings comes later, if its nearness is taken off.
    #[test]
    fn a_correction_changes_the_ranking() {
        let query = Labelled { name: String::new(), embeddings: array![[0.8, 0.6]], classes: vec!["a".to_owned()] };
        let gallery = Labelled {
            embeddings: array![[0.98, 0.2], [0.75, 0.66]],
            classes: vec!["a".into(), "b".into()],
            ..gallery()
        };
        let first =
            |hubs| rank(&Way::Plain { hubs }, &gallery, std::slice::from_ref(&query), &bank(), 0).unwrap()[0].first;
        assert_eq!((first(0.0), first(1.0)), (0.0, 100.0));
    }

    #[test]
    fn every_way_ranks() {
        let queries = [Labelled { name: String::new(), embeddings: array![[1.0, 0.1]], classes: vec!["a".to_owned()] }];
        for length in [Length::Own, Length::Scaled, Length::Completed] {
            for hubs in [0.0, 0.5] {
                let way = Way::Fused { subspaces: 1, factor: 1.0, weight: 0.5, length, hubs };
                let scores = rank(&way, &gallery(), &queries, &bank(), 0).unwrap();
                assert!(scores[0].map > 50.0, "{way:?}");
            }
        }
    }
}
