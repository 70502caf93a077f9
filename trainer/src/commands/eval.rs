//! `sketch-trainer eval`

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use ndarray::{Array1, Array2, ArrayView2, Axis};
use sketch_model::codebook::{Codebook, CodebookOptions};
use sketch_model::encoder::{Domain, Encoder, EncoderOptions};
use sketch_model::manifest::Manifest;
use sketch_model::preprocess::{PhotoPreprocessing, SketchPreprocessing};

use sketch_trainer::data::{DataSet, Item, QUICKDRAW, SKETCHY_PHOTOS, SKETCHY_SKETCHES};
use sketch_trainer::features::{FeatureError, Image, Network, Output};
use sketch_trainer::metrics::{Scores, bootstrap, distances, score, score_classes};
use sketch_trainer::statistics::share_roots;
use sketch_trainer::variants::Variant;

use super::{RuntimeArguments, progress};

#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of the data sets; images of the split "val" are searched and searched for
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Network to evaluate
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Its manifest; by default the file beside it that ends in .json
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Fuse photos with a codebook of M subspaces, K prototypes, weight W; can be given several times
    #[arg(long, value_name = "M,K,W")]
    codebook: Vec<CodebookArgument>,
    /// How often each codebook is trained, from another seed each time; the mean is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
    /// How drawings are prepared: best, exact, JSON, or a file of JSON; by default as the manifest says
    #[arg(long, value_name = "HOW")]
    sketch_preprocessing: Option<String>,
    /// How photos are prepared, likewise
    #[arg(long, value_name = "HOW")]
    photo_preprocessing: Option<String>,
    /// Evaluate the features too, with means taken again as images are prepared now
    #[arg(long)]
    features: bool,
    /// Training images of each collection for those means
    #[arg(long, default_value_t = 400)]
    sample: usize,
    /// Evaluate the drawings of val-doodle also as bitmaps with other pens and on other paper
    #[arg(long)]
    robustness: bool,
    /// Show more metrics of the embedding, each with its interval: 95 % of 2000 draws of as many classes
    #[arg(long)]
    metrics: bool,
    /// Decides between photos at equal distance
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    runtime: RuntimeArguments,
}

/// Sizes of a codebook as the command line has them.
#[derive(Clone, Copy, Debug)]
struct CodebookArgument {
    subspaces: usize,
    prototypes: usize,
    weight: f32,
}

impl FromStr for CodebookArgument {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let parts: Vec<&str> = text.split(',').collect();
        let [subspaces, prototypes, weight] = parts.as_slice() else { bail!("expected M,K,W") };
        Ok(Self { subspaces: subspaces.parse()?, prototypes: prototypes.parse()?, weight: weight.parse()? })
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let options = arguments.runtime.start()?;
    let mut network = load_network(arguments, &options)?;
    let data = DataSet::open(&arguments.data)?;
    let photos = data.validation(SKETCHY_PHOTOS);
    let gallery = Set::read(&mut network, "photos", &photos, Variant::Strokes, arguments.features)?;
    let bench = Bench { arguments, codebooks: fuse(arguments, &gallery)?, gallery };
    let means = if arguments.features { Some(Means::measure(&mut network, &data, arguments.sample)?) } else { None };

    bench.print_head();
    let sketches = data.validation(SKETCHY_SKETCHES);
    let doodles = data.validation(QUICKDRAW);
    let sets = [("val", sketches, Variant::Strokes), ("val-doodle", doodles.clone(), Variant::Strokes)];
    let variants = Variant::BITMAPS.into_iter().filter(|_| arguments.robustness);
    let others = variants.map(|variant| (variant.name(), doodles.clone(), variant));
    for (name, items, variant) in sets.into_iter().chain(others) {
        let with_features = arguments.features && variant == Variant::Strokes;
        let queries = Set::read(&mut network, name, &items, variant, with_features)?;
        bench.print_row(&format!("{name}, embedding"), &queries.embeddings, &queries.classes);
        if arguments.metrics {
            bench.print_metrics(&queries.embeddings, &queries.classes);
        }
        if let Some(means) = means.as_ref().filter(|_| with_features) {
            for (how, queries_as, gallery_as) in means.views(&queries, &bench.gallery) {
                let classes = &queries.classes;
                println!("{:32} {}", format!("{name}, {how}"), bench.search(&queries_as, classes, &gallery_as));
            }
        }
    }
    Ok(())
}

fn load_network(arguments: &Arguments, options: &EncoderOptions) -> anyhow::Result<Network> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("could not read \"{}\"", path.display()));
    let path = arguments.manifest.clone().unwrap_or_else(|| arguments.model.with_extension("json"));
    let mut manifest = Manifest::from_json(&String::from_utf8(read(&path)?)?)
        .with_context(|| format!("could not use \"{}\"", path.display()))?;
    if let Some(how) = &arguments.sketch_preprocessing {
        manifest.sketch = preset(how, SketchPreprocessing::best(), SketchPreprocessing::exact())?;
    }
    if let Some(how) = &arguments.photo_preprocessing {
        manifest.photo = preset(how, PhotoPreprocessing::best(), PhotoPreprocessing::exact())?;
    }
    let encoder = Encoder::load(&read(&arguments.model)?, &manifest, options)
        .with_context(|| format!("could not use \"{}\"", arguments.model.display()))?;
    Ok(Network { encoder, manifest })
}

/// A way to prepare images by its name, as JSON, or from a file of JSON.
fn preset<T: serde::de::DeserializeOwned>(how: &str, best: T, exact: T) -> anyhow::Result<T> {
    let json = match how {
        "best" => return Ok(best),
        "exact" => return Ok(exact),
        json if json.trim_start().starts_with('{') => json.to_owned(),
        path => fs::read_to_string(path).with_context(|| format!("could not read \"{path}\""))?,
    };
    serde_json::from_str(&json).context("preprocessing is malformed")
}

/// Images with what the network returned for them.
struct Set {
    classes: Vec<String>,
    embeddings: Array2<f32>,
    /// No rows if they were not asked for.
    features: Array2<f32>,
}

impl Set {
    fn read(
        network: &mut Network,
        name: &str,
        items: &[&Item],
        variant: Variant,
        with_features: bool,
    ) -> anyhow::Result<Self> {
        let Some(first) = items.first() else { bail!("no images of the split \"val\" for {name}") };
        let bar = progress::bar(items.len() as u64 * if with_features { 2 } else { 1 }, name);
        let mut extract = |output| {
            let images = items.iter().map(|item| changed(item, variant));
            network.extract(images, first.collection.domain, output, &bar)
        };
        let embeddings = extract(Output::Embedding)?;
        let features = if with_features { extract(Output::Features)? } else { Array2::zeros((0, 0)) };
        bar.finish_and_clear();
        Ok(Self { classes: items.iter().map(|item| item.class.clone()).collect(), embeddings, features })
    }
}

fn changed(item: &Item, variant: Variant) -> Result<Image, FeatureError> {
    let mut image = Image::of(item)?;
    if variant != Variant::Strokes {
        image.bytes = variant.apply(&image.bytes)?;
    }
    Ok(image)
}

/// A metric's name, and where it stands.
type Metric = (&'static str, fn(&Scores) -> f64);

/// The gallery, as it is and fused with each codebook.
struct Bench<'a> {
    arguments: &'a Arguments,
    gallery: Set,
    codebooks: Vec<Vec<Array2<f32>>>,
}

/// The photos fused with each codebook that was asked for, once for each run.
fn fuse(arguments: &Arguments, gallery: &Set) -> anyhow::Result<Vec<Vec<Array2<f32>>>> {
    let of = |sizes: &CodebookArgument, seed| -> anyhow::Result<Array2<f32>> {
        let CodebookArgument { subspaces, prototypes, weight } = *sizes;
        let options = CodebookOptions { subspaces, prototypes, weight, seed, ..CodebookOptions::default() };
        let codebook = Codebook::train(gallery.embeddings.view(), 0, &options)?;
        let mut fused = gallery.embeddings.clone();
        for mut row in fused.rows_mut() {
            row.assign(&Array1::from(codebook.fuse(&row.to_vec())?));
        }
        Ok(fused)
    };
    let runs = |sizes| (0..arguments.runs).map(|seed| of(sizes, seed)).collect();
    arguments.codebook.iter().map(runs).collect()
}

impl Bench<'_> {
    fn print_head(&self) {
        let sizes = |sizes: &CodebookArgument| {
            let CodebookArgument { subspaces, prototypes, weight } = sizes;
            format!("{:>14}", format!("{subspaces},{prototypes},{weight}"))
        };
        let columns: String = self.arguments.codebook.iter().map(sizes).collect();
        println!("{:32} {:>11}{columns}", "mAP / P@25", "no codebook");
    }

    fn print_row(&self, name: &str, queries: &Array2<f32>, classes: &[String]) {
        let mut line = format!("{name:32} {}", self.search(queries, classes, &self.gallery.embeddings));
        for runs in &self.codebooks {
            let scores: Vec<Scores> = runs.iter().map(|fused| self.score(queries, classes, fused)).collect();
            line += &format!("   {}", show(&Scores::mean(&scores)));
        }
        println!("{line}");
    }

    /// Every metric with its interval, a line each.
    fn print_metrics(&self, queries: &Array2<f32>, classes: &[String]) {
        const DRAWS: usize = 2000;
        let of_queries: Vec<&str> = classes.iter().map(String::as_str).collect();
        let of_gallery: Vec<&str> = self.gallery.classes.iter().map(String::as_str).collect();
        let distances = distances(queries.view(), self.gallery.embeddings.view());
        let scores = score_classes(distances.view(), &of_queries, &of_gallery, self.arguments.seed);
        let metrics: [Metric; 5] = [
            ("mAP@all", |scores| scores.map),
            ("mAP@200", |scores| scores.map_200),
            ("VOC AP", |scores| scores.voc),
            ("P@25", |scores| scores.precision),
            ("found@10", |scores| scores.found),
        ];
        for (name, metric) in metrics {
            let values: Vec<f64> = scores.values().map(metric).collect();
            let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
            let (low, high) = bootstrap(&values, DRAWS, self.arguments.seed);
            println!("    {name:28} {mean:4.1}   {low:4.1} to {high:4.1}");
        }
    }

    fn search(&self, queries: &Array2<f32>, classes: &[String], gallery: &Array2<f32>) -> String {
        show(&self.score(queries, classes, gallery))
    }

    fn score(&self, queries: &Array2<f32>, classes: &[String], gallery: &Array2<f32>) -> Scores {
        let of_queries: Vec<&str> = classes.iter().map(String::as_str).collect();
        let of_gallery: Vec<&str> = self.gallery.classes.iter().map(String::as_str).collect();
        score(distances(queries.view(), gallery.view()).view(), &of_queries, &of_gallery, self.arguments.seed)
    }
}

fn show(scores: &Scores) -> String {
    format!("{:4.1} / {:4.1}", scores.map, scores.precision)
}

/// Means of training images, prepared as the images that are evaluated.
struct Means {
    features: [Array1<f32>; 2],
    roots: [Array1<f32>; 2],
}

impl Means {
    fn measure(network: &mut Network, data: &DataSet, sample: usize) -> anyhow::Result<Self> {
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
            let bar = progress::bar(items.len() as u64, &collection.name);
            let images = items.iter().map(|item| Ok(Image::of(item)?));
            let features = network.extract(images, collection.domain, Output::Features, &bar)?;
            bar.finish_and_clear();
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

    /// Queries and gallery as raw features, centred features, and centred roots of shares; rows of unit length.
    fn views(&self, queries: &Set, gallery: &Set) -> [(&'static str, Array2<f32>, Array2<f32>); 3] {
        let (sketch, photo) = (Domain::Sketch as usize, Domain::Photo as usize);
        let (q, g) = (&queries.features, &gallery.features);
        [
            ("raw features", unit(q.clone()), unit(g.clone())),
            ("centred features", unit(q - &self.features[sketch]), unit(g - &self.features[photo])),
            ("centred roots of shares", unit(roots(q) - &self.roots[sketch]), unit(roots(g) - &self.roots[photo])),
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
