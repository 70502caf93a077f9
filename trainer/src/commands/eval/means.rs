//! Features without a head: raw, centred, and after the Hellinger map.

use anyhow::ensure;
use ndarray::{Array1, Array2, ArrayView2, Axis};
use sketch_model::inference::encoder::Domain;

use sketch_trainer::data::{DataSet, Item};
use sketch_trainer::features::{Image, Network, Output};
use sketch_trainer::statistics::share_roots;

use crate::commands::progress::Bar;

/// Mean features of training images, with the preprocessing under evaluation.
pub struct Means {
    features: [Array1<f32>; 2],
    roots: [Array1<f32>; 2],
}

impl Means {
    pub fn measure(network: &mut Network, data: &DataSet, sample: usize) -> anyhow::Result<Self> {
        ensure!(sample > 0, "a sample has at least one image");
        let mut means: [[Vec<Array1<f32>>; 2]; 2] = Default::default();
        for collection in data.collections() {
            let items = data.training(&collection.name);
            // Evenly over the list, which is sorted by class.
            let step = (items.len() / sample).max(1);
            let items: Vec<&Item> = items.into_iter().step_by(step).take(sample).collect();
            if items.is_empty() {
                continue;
            }
            let bar = Bar::of(&collection.name, items.len());
            let images = items.iter().map(|item| Ok(Image::of(item)?));
            let features = network.extract(images, collection.domain, Output::Features, &bar)?;
            let of = |rows: ArrayView2<f32>| rows.mean_axis(Axis(0)).unwrap_or_default();
            let domain = collection.domain as usize;
            means[0][domain].push(of(features.view()));
            means[1][domain].push(of(roots(&features).view()));
        }
        let [features, roots] = means.map(|domains| domains.map(|collections| average(&collections)));
        ensure!(
            features.iter().all(|mean| !mean.is_empty()),
            "both sketches and photos of training classes are needed"
        );
        Ok(Self { features, roots })
    }

    /// Queries and gallery as raw features, centred features, and centred Hellinger features; rows have unit length.
    pub fn views(&self, q: &Array2<f32>, g: &Array2<f32>) -> [(&'static str, Array2<f32>, Array2<f32>); 3] {
        let (sketch, photo) = (Domain::Sketch as usize, Domain::Photo as usize);
        [
            ("raw features", unit(q.clone()), unit(g.clone())),
            ("centred features", unit(q - &self.features[sketch]), unit(g - &self.features[photo])),
            ("centred Hellinger", unit(roots(q) - &self.roots[sketch]), unit(roots(g) - &self.roots[photo])),
        ]
    }
}

fn average(collections: &[Array1<f32>]) -> Array1<f32> {
    let sum = collections.iter().cloned().reduce(|a, b| a + b).unwrap_or_default();
    sum / collections.len().max(1) as f32
}

fn roots(features: &Array2<f32>) -> Array2<f32> {
    share_roots(features.view()).mapv(|root| root as f32)
}

fn unit(mut rows: Array2<f32>) -> Array2<f32> {
    for mut row in rows.rows_mut() {
        let norm = row.dot(&row).sqrt().max(f32::MIN_POSITIVE);
        row /= norm;
    }
    rows
}
