//! What each step of preprocessing is worth, in tables; docs/preprocessing.md describes the steps.
//!
//! Every row changes one step, measures the domain means over training images with that preprocessing, and searches the
//! photos of the `val` classes with drawings of those classes. Each figure has the standard error of its difference from the
//! first row, over classes: smaller differences are noise.

mod queries;
mod tables;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use ndarray::{Array1, Array2, ArrayView2, Axis};
use sketch_model::inference::encoder::{Device, Domain, Encoder, EncoderOptions};
use sketch_model::manifest::Manifest;
use sketch_trainer::data::{CALTECH, DataSet, Item, QUICKDRAW, SKETCHY_PHOTOS, SKETCHY_SKETCHES, UNLABELLED};
use sketch_trainer::features::{Network, Output};
use sketch_trainer::metrics::{distances, score};
use sketch_trainer::statistics::share_roots;

use queries::Queries;
use tables::{Row, Table};

/// Measures what each step of preprocessing is worth.
#[derive(Parser)]
struct Arguments {
    /// ONNX Runtime's shared library
    #[arg(long, value_name = "FILE", env = "ONNXRUNTIME_LIB")]
    onnxruntime: PathBuf,
    /// Folder of the data sets
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Network, with its manifest beside it
    #[arg(long, value_name = "FILE", default_value = "model/weights/lite2-sketch-2.onnx")]
    model: PathBuf,
    /// Training images of each collection for the means
    #[arg(long, default_value_t = 400)]
    sample: usize,
    /// Tables to print, by default all
    table: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    sketch_model::inference::runtime::init(&arguments.onnxruntime)?;
    let mut bench = Bench {
        network: load(&arguments.model)?,
        data: DataSet::open(&arguments.data)?,
        sample: arguments.sample,
        photos: None,
    };
    for table in tables::all() {
        if arguments.table.is_empty() || arguments.table.iter().any(|name| name == table.name) {
            bench.print(&table)?;
        }
    }
    Ok(())
}

fn load(path: &Path) -> anyhow::Result<Network> {
    let manifest = path.with_extension("json");
    let text = std::fs::read_to_string(&manifest).with_context(|| format!("could not read {}", manifest.display()))?;
    let manifest = Manifest::from_json(&text)?;
    let graph = std::fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
    let encoder = Encoder::load(&graph, &manifest, &EncoderOptions::new(Device::Cpu, 0))?;
    Ok(Network { encoder, manifest })
}

/// Centred rows of unit length, and the class of each.
struct Set {
    rows: Array2<f32>,
    classes: Vec<String>,
}

struct Bench {
    network: Network,
    data: DataSet,
    sample: usize,
    /// The last gallery and its collection.
    photos: Option<(&'static str, Set)>,
}

impl Bench {
    fn print(&mut self, table: &Table) -> anyhow::Result<()> {
        println!("\n### {}\n", table.name);
        let names: Vec<&str> = table.queries.iter().map(|queries| queries.name()).collect();
        println!("| | {} |\n|{}", names.join(" | "), " --- |".repeat(names.len() + 1));
        let mut first = None;
        for row in &table.rows {
            let found = self.measure(row, table)?;
            let cells: Vec<String> =
                (0..found.len()).map(|i| cell(&found[i], first.as_ref().map(|f: &Vec<Vec<f64>>| &f[i]))).collect();
            println!("| {} | {} |", row.name, cells.join(" | "));
            first.get_or_insert(found);
        }
        Ok(())
    }

    /// Mean average precision by set of queries and class.
    fn measure(&mut self, row: &Row, table: &Table) -> anyhow::Result<Vec<Vec<f64>>> {
        self.network.manifest.sketch = row.sketch.clone();
        let last = self.photos.as_ref().map(|(collection, _)| *collection);
        if row.photo != self.network.manifest.photo || last != Some(table.gallery) {
            self.network.manifest.photo = row.photo.clone();
            let mean = self.mean(&[SKETCHY_PHOTOS, CALTECH, UNLABELLED])?;
            self.photos = Some((table.gallery, self.set(table.gallery, Queries::Same, &mean)?));
        }
        let mean = self.mean(&[SKETCHY_SKETCHES, QUICKDRAW])?;
        table
            .queries
            .iter()
            .map(|&queries| {
                let set = self.set(queries.collection(), queries, &mean)?;
                let (_, gallery) = self.photos.as_ref().context("the gallery was just made")?;
                Ok(by_class(&set, gallery))
            })
            .collect()
    }

    /// The mean over training images; all collections have the same weight.
    fn mean(&mut self, collections: &[&str]) -> anyhow::Result<Array1<f32>> {
        let mut means = Vec::new();
        for &collection in collections {
            let items = self.data.training(collection);
            let step = (items.len() / self.sample).max(1);
            let items: Vec<Item> = items.into_iter().step_by(step).take(self.sample).cloned().collect();
            let rows = self.roots(&items, Queries::Same)?;
            means.push(rows.mean_axis(Axis(0)).context("there are no training images")?);
        }
        let count = means.len() as f32;
        Ok(means.into_iter().reduce(|a, b| a + b).context("there are no collections")? / count)
    }

    fn set(&mut self, collection: &str, queries: Queries, mean: &Array1<f32>) -> anyhow::Result<Set> {
        let items: Vec<Item> = self.data.validation(collection).into_iter().cloned().collect();
        let classes = items.iter().map(|item| item.class.clone()).collect();
        let rows = unit(self.roots(&items, queries)? - mean);
        Ok(Set { rows, classes })
    }

    fn roots(&mut self, items: &[Item], queries: Queries) -> anyhow::Result<Array2<f32>> {
        let domain = items.first().map_or(Domain::Photo, |item| item.collection.domain);
        let images = items.iter().map(|item| queries.image(item));
        let features = self.network.extract(images, domain, Output::Features, &())?;
        Ok(share_roots(features.view()).mapv(|root| root as f32))
    }
}

fn unit(mut rows: Array2<f32>) -> Array2<f32> {
    for mut row in rows.rows_mut() {
        let norm = row.dot(&row).sqrt().max(f32::MIN_POSITIVE);
        row /= norm;
    }
    rows
}

fn by_class(queries: &Set, gallery: &Set) -> Vec<f64> {
    let of_gallery: Vec<&str> = gallery.classes.iter().map(String::as_str).collect();
    let all = distances(queries.rows.view(), gallery.rows.view());
    let classes: BTreeSet<&str> = queries.classes.iter().map(String::as_str).collect();
    let of_class = |class: &str| {
        let rows: Vec<usize> = (0..queries.classes.len()).filter(|&i| queries.classes[i] == *class).collect();
        let some: ArrayView2<f32> = all.view();
        score(some.select(Axis(0), &rows).view(), &vec![class; rows.len()], &of_gallery, 0).map
    };
    classes.into_iter().map(of_class).collect()
}

/// A figure, with its difference from `first` and the standard error of the difference.
fn cell(classes: &[f64], first: Option<&Vec<f64>>) -> String {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let Some(first) = first else { return format!("{:.1}", mean(classes)) };
    let differences: Vec<f64> = classes.iter().zip(first).map(|(a, b)| a - b).collect();
    let middle = mean(&differences);
    let squares: Vec<f64> = differences.iter().map(|difference| (difference - middle).powi(2)).collect();
    let error = (mean(&squares) / (squares.len().max(2) - 1) as f64).sqrt();
    format!("{:.1} ({middle:+.1} ± {error:.1})", mean(classes))
}
