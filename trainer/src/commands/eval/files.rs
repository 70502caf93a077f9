//! A network in a file, on photos of the data sets.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use ndarray::{Array1, Array2};
use sketch_model::codebook::{Codebook, CodebookOptions, Hubs};
use sketch_model::form::Form;
use sketch_model::hubs::Bank;
use sketch_model::inference::encoder::{Domain, Encoder, EncoderOptions};
use sketch_model::render::preprocess::{PhotoPreprocessing, SketchPreprocessing};

use sketch_trainer::data::{DataSet, Item, QUICKDRAW};
use sketch_trainer::evaluation::{Search, own_photos};
use sketch_trainer::features::{FeatureError, Image, Network, Output};
use sketch_trainer::metrics::distances;
use sketch_trainer::store;
use sketch_trainer::variants::Variant;

use super::means::Means;
use super::{CodebookArgument, Gallery, Printer, Ranked, Written, show};
use crate::commands::progress::Bar;

#[derive(clap::Args)]
pub struct Arguments {
    /// Manifest of the network; by default the .json file beside it
    #[arg(long, value_name = "FILE", requires = "model")]
    manifest: Option<PathBuf>,
    /// Collection of photos to search; by default the first with photos of the split "val"
    #[arg(long, value_name = "NAME", requires = "model")]
    gallery: Option<String>,
    /// Photos of training collections to add to the gallery, which show nothing that is searched for; the unlabelled first
    #[arg(long, default_value_t = 0, requires = "model")]
    distractors: usize,
    /// Also evaluate embeddings fused with a codebook: M subspaces, K prototypes, weight W, strength H of the hub
    /// correction; repeatable
    #[arg(long, value_name = "M,K,W[,H]", requires = "model")]
    codebook: Vec<CodebookArgument>,
    /// Codebooks trained per size, with different seeds; the mean is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
    /// Preprocessing of drawings: best, exact, JSON, or a JSON file; by default the manifest's
    #[arg(long, value_name = "HOW", requires = "model")]
    sketch_preprocessing: Option<String>,
    /// Preprocessing of photos, likewise
    #[arg(long, value_name = "HOW", requires = "model")]
    photo_preprocessing: Option<String>,
    /// Evaluate the features, too, with means measured with this preprocessing
    #[arg(long, requires = "model")]
    features: bool,
    /// Training images per collection for those means
    #[arg(long, default_value_t = 400)]
    sample: usize,
    /// Also evaluate the drawings of val-doodle as bitmaps with other pens and paper
    #[arg(long, requires = "model")]
    robustness: bool,
}

pub fn evaluate(arguments: &super::Arguments, model: &Path, data: &DataSet) -> anyhow::Result<Written> {
    let options = arguments.runtime.start()?;
    let own = &arguments.files;
    let mut network = load_network(own, model, &options)?;
    let mut photos = gallery(own, data)?;
    let (name, facts) = (photos[0].collection.name.clone(), facts(model, &network, photos[0]));
    let searched = photos.len();
    photos.extend(data.distractors(own.distractors));
    let mut read = Set::read(&mut network, &name, &photos, Variant::Strokes, own.features)?;
    read.classes[searched..].iter_mut().for_each(String::clear);
    let forms = stored(own, &read.embeddings, store::read_bank(model)?)?;
    let mut gallery = Photos { items: photos, set: read, forms, facts };
    let means = if own.features { Some(Means::measure(&mut network, data, own.sample)?) } else { None };

    let mut printer = Printer::new(arguments, gallery.facts());
    for (name, items, variant) in sets(own, data) {
        let with_features = own.features && variant == Variant::Strokes;
        let queries = Set::read(&mut network, &name, &items, variant, with_features)?;
        let ranked = gallery.rank(&name, items, &queries, arguments);
        printer.set(&name, &ranked, &mut gallery)?;
        if let Some(means) = means.as_ref().filter(|_| with_features) {
            for (how, queries_as, gallery_as) in means.views(&queries.features, &gallery.set.features) {
                let search = gallery.search(&name, &queries_as, &queries.classes, &gallery_as, arguments.seed);
                println!("    {how:40}{}", show(&search.scores()));
            }
        }
    }
    Ok(printer.written)
}

/// The photos to search.
fn gallery<'a>(arguments: &Arguments, data: &'a DataSet) -> anyhow::Result<Vec<&'a Item>> {
    let photos = match &arguments.gallery {
        Some(name) => data.validation(&data.collection(name)?.name),
        None => {
            let mut found = data.of_domain(Domain::Photo).map(|collection| data.validation(&collection.name));
            found.find(|photos| !photos.is_empty()).unwrap_or_default()
        }
    };
    if photos.first().is_none_or(|photo| photo.collection.domain != Domain::Photo) {
        bail!("the gallery has no photos of the split \"val\"");
    }
    Ok(photos)
}

/// Sets of queries: every collection of drawings, and variants of the doodles.
fn sets<'a>(arguments: &Arguments, data: &'a DataSet) -> Vec<(String, Vec<&'a Item>, Variant)> {
    let collections = data.of_domain(Domain::Sketch);
    let drawn =
        collections.map(|collection| (collection.title.clone(), data.validation(&collection.name), Variant::Strokes));
    let variants = Variant::BITMAPS.into_iter().filter(|_| arguments.robustness);
    let varied = variants.map(|variant| (variant.name().to_owned(), data.validation(QUICKDRAW), variant));
    drawn.chain(varied).filter(|(_, items, _)| !items.is_empty()).collect()
}

fn facts(path: &Path, network: &Network, photo: &Item) -> Vec<(String, String)> {
    let manifest = &network.manifest;
    let facts = [
        ("network", manifest.name.clone()),
        ("file", path.display().to_string()),
        ("origin", manifest.origin.clone()),
        ("photos", photo.collection.name.clone()),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn load_network(arguments: &Arguments, model: &Path, options: &EncoderOptions) -> anyhow::Result<Network> {
    let path = arguments.manifest.clone().unwrap_or_else(|| model.with_extension("json"));
    let mut manifest = store::read_manifest(&path)?;
    if let Some(how) = &arguments.sketch_preprocessing {
        manifest.sketch = preset(how, SketchPreprocessing::best(), SketchPreprocessing::exact())?;
    }
    if let Some(how) = &arguments.photo_preprocessing {
        manifest.photo = preset(how, PhotoPreprocessing::best(), PhotoPreprocessing::exact())?;
    }
    let encoder = Encoder::load(&store::read_bytes(model)?, &manifest, options)
        .with_context(|| format!("could not use \"{}\"", model.display()))?;
    Ok(Network { encoder, manifest })
}

/// Preprocessing by name, as JSON, or from a JSON file.
fn preset<T: serde::de::DeserializeOwned>(how: &str, best: T, exact: T) -> anyhow::Result<T> {
    let json = match how {
        "best" => return Ok(best),
        "exact" => return Ok(exact),
        json if json.trim_start().starts_with('{') => json.to_owned(),
        path => fs::read_to_string(path).with_context(|| format!("could not read \"{path}\""))?,
    };
    serde_json::from_str(&json).context("preprocessing is malformed")
}

/// The network's outputs for a set of images.
struct Set {
    classes: Vec<String>,
    embeddings: Array2<f32>,
    /// Without rows if not requested.
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
        let domain = items.first().map_or(Domain::Photo, |item| item.collection.domain);
        let bar = Bar::of(name, items.len() * if with_features { 2 } else { 1 });
        let mut extract = |output| {
            let images = items.iter().map(|item| changed(item, variant));
            network.extract(images, domain, output, &bar)
        };
        let embeddings = extract(Output::Embedding)?;
        let features = if with_features { extract(Output::Features)? } else { Array2::zeros((0, 0)) };
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

/// The photos in each form: as they are embedded, corrected for hubs, as the extension stores them, and fused with each
/// requested codebook, once per run.
fn stored(
    arguments: &Arguments,
    photos: &Array2<f32>,
    bank: Option<Bank>,
) -> anyhow::Result<Vec<(String, Vec<Array2<f32>>)>> {
    let bank = bank.map(Arc::new);
    let fused = |options: CodebookOptions| -> anyhow::Result<Vec<Array2<f32>>> {
        let of = |seed| {
            let codebook = Codebook::train(photos.view(), 0, &CodebookOptions { seed, ..options.clone() })?;
            apply(&Form::fused(codebook, bank.clone())?, photos)
        };
        (0..arguments.runs).map(of).collect()
    };
    let hubs = |strength: f32| bank.as_ref().filter(|_| strength > 0.0).map(|bank| Hubs { bank: bank.tag(), strength });
    let default = |strength| CodebookOptions { hubs: hubs(strength).unwrap_or_default(), ..CodebookOptions::default() };
    let mut forms = vec![("embedding".to_owned(), vec![photos.clone()])];
    if bank.is_some() {
        forms.push(("embedding, hubs corrected".to_owned(), vec![apply(&Form::plain(bank.clone()), photos)?]));
    }
    let strength = bank.as_ref().map_or(0.0, |bank| bank.correction().strength);
    let served = CodebookOptions::of_gallery(photos.dim());
    forms.push(("as served".to_owned(), fused(CodebookOptions { hubs: default(strength).hubs, ..served })?));
    for sizes in &arguments.codebook {
        let CodebookArgument { subspaces, prototypes, weight, hubs } = *sizes;
        let options = CodebookOptions { subspaces, prototypes, weight, ..default(hubs) };
        forms.push((format!("codebook {sizes}"), fused(options)?));
    }
    Ok(forms)
}

fn apply(form: &Form, photos: &Array2<f32>) -> anyhow::Result<Array2<f32>> {
    let mut stored = Array2::zeros((photos.nrows(), form.dimension(photos.ncols())));
    for (mut row, photo) in stored.rows_mut().into_iter().zip(photos.rows()) {
        row.assign(&Array1::from(form.apply(&photo.to_vec())?));
    }
    Ok(stored)
}

/// The gallery in several forms.
struct Photos<'a> {
    items: Vec<&'a Item>,
    set: Set,
    /// By the name of the form.
    forms: Vec<(String, Vec<Array2<f32>>)>,
    facts: Vec<(String, String)>,
}

impl Photos<'_> {
    fn search(&self, name: &str, queries: &Array2<f32>, classes: &[String], photos: &Array2<f32>, seed: u64) -> Search {
        Search {
            name: name.to_owned(),
            distances: distances(queries.view(), photos.view()),
            queries: classes.to_vec(),
            gallery: self.set.classes.clone(),
            own: Vec::new(),
            seed,
        }
    }

    fn rank<'b>(&self, name: &str, items: Vec<&'b Item>, queries: &Set, arguments: &super::Arguments) -> Ranked<'b> {
        let labels = |items: &[&Item]| items.iter().map(|item| item.label()).collect::<Vec<_>>();
        let own = own_photos(&labels(&items), &labels(&self.items));
        let search = |photos| Search {
            own: own.clone(),
            ..self.search(name, &queries.embeddings, &queries.classes, photos, arguments.seed)
        };
        let searches = self.forms.iter().map(|(how, runs)| (how.clone(), runs.iter().map(search).collect()));
        Ranked { searches: searches.collect(), items, embeddings: Some(queries.embeddings.clone()) }
    }
}

impl Gallery for Photos<'_> {
    fn facts(&self) -> Vec<(String, String)> {
        self.facts.clone()
    }

    fn classes(&self) -> &[String] {
        &self.set.classes
    }

    fn embeddings(&mut self) -> anyhow::Result<Array2<f32>> {
        Ok(self.set.embeddings.clone())
    }

    fn photo(&mut self, position: usize) -> anyhow::Result<Vec<u8>> {
        Ok(self.items[position].bytes()?)
    }
}
