//! The bank of photos: embeddings that sketches train towards, and the teacher's predictions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ndarray::{Array1, Array2, ArrayView1, Axis};

use super::anchors::Anchors;
use super::views::{View, ViewOutputs};
use crate::data::Item;

/// Indices of the training classes by name, in alphabetical order.
#[derive(Clone, Debug, Default)]
pub struct Classes(BTreeMap<String, usize>);

impl Classes {
    /// The classes of `items`, ignoring images without a class.
    pub fn of<'a>(items: impl Iterator<Item = &'a Item>) -> Self {
        let names: BTreeSet<&str> = items.map(|item| item.class.as_str()).filter(|class| !class.is_empty()).collect();
        Self(names.into_iter().enumerate().map(|(number, name)| (name.to_owned(), number)).collect())
    }

    pub fn number(&self, class: &str) -> Option<usize> {
        self.0.get(class).copied()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Views of photos, one row each.
#[derive(Clone, Debug)]
pub struct Bank {
    /// Shape `(n, d)`, of unit length.
    pub embeddings: Array2<f32>,
    /// The teacher's class probabilities: shape `(n, 1000)`, rows sum to 1.
    pub probabilities: Array2<f32>,
    /// Index of the class, if the photo has one.
    pub classes: Vec<Option<usize>>,
    /// Which photo each is a view of.
    pub items: Vec<usize>,
    /// The view of each row, ascending.
    views: Vec<View>,
}

impl Bank {
    /// `seen`: views of `items` with embeddings and logits, filtered to `wanted` items.
    pub fn new(seen: &ViewOutputs, items: &[&Item], classes: &Classes, wanted: impl Fn(&Item) -> bool) -> Self {
        let rows: Vec<usize> = (0..seen.views.len()).filter(|&row| wanted(items[seen.views[row].item])).collect();
        let views: Vec<View> = rows.iter().map(|&row| seen.views[row]).collect();
        let of_views: Vec<usize> = views.iter().map(|view| view.item).collect();
        Self {
            embeddings: seen.embeddings.select(Axis(0), &rows),
            probabilities: softmax(&seen.logits.select(Axis(0), &rows)),
            classes: of_views.iter().map(|&item| classes.number(&items[item].class)).collect(),
            items: of_views,
            views,
        }
    }

    /// The teacher's class probabilities for a view of a photo; none if the bank lacks the view.
    pub fn of_view(&self, view: View) -> Option<ArrayView1<'_, f32>> {
        self.views.binary_search(&view).ok().map(|row| self.probabilities.row(row))
    }

    /// Rows of each photo.
    pub fn rows_of_items(&self) -> HashMap<usize, Vec<usize>> {
        let mut rows: HashMap<usize, Vec<usize>> = HashMap::new();
        for (row, item) in self.items.iter().enumerate() {
            rows.entry(*item).or_default().push(row);
        }
        rows
    }

    /// Target probabilities of each class, shape `(1000,)`: the mean over its photos, its anchors, or the mean of both; none
    /// for a class with neither.
    pub fn targets(&self, classes: &Classes, anchors: &Anchors) -> HashMap<usize, Array1<f32>> {
        let width = self.probabilities.ncols();
        let mut targets = HashMap::new();
        for (name, &number) in &classes.0 {
            let rows: Vec<usize> = (0..self.classes.len()).filter(|&row| self.classes[row] == Some(number)).collect();
            let photos = self.probabilities.select(Axis(0), &rows).mean_axis(Axis(0)).filter(|_| !rows.is_empty());
            let anchor = anchors.get(name).map(|numbers| {
                let share = 1.0 / numbers.len() as f32;
                Array1::from_shape_fn(width, |i| if numbers.contains(&i) { share } else { 0.0 })
            });
            let known: Vec<Array1<f32>> = photos.into_iter().chain(anchor).collect();
            let count = known.len() as f32;
            if let Some(sum) = known.into_iter().reduce(|a, b| a + b) {
                targets.insert(number, sum / count);
            }
        }
        targets
    }
}

/// Rows as shares that sum to 1.
fn softmax(logits: &Array2<f32>) -> Array2<f32> {
    let mut shares = logits.clone();
    for mut row in shares.rows_mut() {
        let greatest = row.fold(f32::NEG_INFINITY, |greatest, &value| greatest.max(value));
        row.mapv_inplace(|value| (value - greatest).exp());
        let sum = row.sum();
        row /= sum;
    }
    shares
}
