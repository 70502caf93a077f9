//! `sketch-trainer tune`

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use ndarray::{Array2, ArrayView2, Axis, Slice};
use sketch_model::codebook::Length;
use sketch_model::digest::Sha256Digest;
use sketch_model::inference::encoder::{Domain, Encoder};
use sketch_model::manifest::Manifest;
use sketch_model::render::preprocess::SketchPreprocessing;

use sketch_trainer::cache;
use sketch_trainer::data::{DataSet, Item};
use sketch_trainer::features::Network;
use sketch_trainer::metrics::Scores;
use sketch_trainer::store;
use sketch_trainer::tune::{Labelled, Way, rank};

use super::RuntimeArguments;
use super::progress::Bar;

/// Photos that show nothing that is searched for, in galleries that have such photos besides.
const DISTRACTORS: usize = 1000;
/// Galleries drawn at random: photos of each class, and photos in all.
const SAMPLES: [(usize, usize); 5] = [(1, 64), (1, 256), (1, 1000), (3, 64), (3, 256)];

#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of the data sets; the drawings of the split "val" are the queries
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Network, with its manifest and its bank beside it
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Folder that keeps embeddings from run to run
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Way to store photos: "H", the strength of the hub correction alone, or a codebook "M,F,W,LENGTH,H": M subspaces, F times
    /// the square root of the number of photos as prototypes, weight W, LENGTH "own", "scaled" or "completed"; repeatable
    #[arg(long = "way", value_name = "WAY", required = true)]
    ways: Vec<Named>,
    /// Codebooks for each gallery, and galleries drawn for each size; the mean is shown
    #[arg(long, default_value_t = 3)]
    runs: u64,
    /// Search all photos of training classes, too
    #[arg(long)]
    large: bool,
    #[command(flatten)]
    runtime: RuntimeArguments,
}

/// A way with the text that it was given as.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    way: Way,
}

impl FromStr for Named {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let parts: Vec<&str> = text.split(',').collect();
        let way = match parts.as_slice() {
            [hubs] => Way::Plain { hubs: hubs.parse()? },
            [subspaces, factor, weight, length, hubs] => Way::Fused {
                subspaces: subspaces.parse()?,
                factor: factor.parse()?,
                weight: weight.parse()?,
                length: match *length {
                    "own" => Length::Own,
                    "scaled" => Length::Scaled,
                    "completed" => Length::Completed,
                    other => bail!("unknown length \"{other}\""),
                },
                hubs: hubs.parse()?,
            },
            _ => bail!("expected H or M,F,W,LENGTH,H"),
        };
        Ok(Self { name: text.to_owned(), way })
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let options = arguments.runtime.start()?;
    let onnx = store::read_bytes(&arguments.model)?;
    let manifest = store::read_manifest(&arguments.model.with_extension("json"))?;
    let digest = manifest.digest(&onnx);
    let photos_digest = Manifest { sketch: SketchPreprocessing::exact(), ..manifest.clone() }.digest(&onnx);
    let bank = Arc::new(store::read_bank(&arguments.model)?.context("there is no bank beside the network")?);
    let network = Network { encoder: Encoder::load(&onnx, &manifest, &options)?, manifest };
    let mut reader = Reader { network, digest, photos_digest, cache: arguments.cache.clone() };
    let data = DataSet::open(&arguments.data)?;

    let mut queries = Vec::new();
    for collection in data.of_domain(Domain::Sketch) {
        queries.extend(reader.labelled(&collection.title, &data.validation(&collection.name), Domain::Sketch)?);
    }
    let mut searched = Vec::new();
    for collection in data.of_domain(Domain::Photo) {
        searched.extend(reader.labelled(&collection.name, &data.validation(&collection.name), Domain::Photo)?);
    }
    ensure!(!queries.is_empty() && !searched.is_empty(), "there are no drawings or no photos of the split \"val\"");
    let others = reader.embed(&data.distractors(usize::MAX), Domain::Photo)?;
    let groups = groups(&searched, others.view(), arguments);

    let titles: Vec<&str> = groups.iter().map(|group| group[0].name.as_str()).collect();
    println!("| way | {} |\n| --- |{}", titles.join(" | "), " --- |".repeat(titles.len()));
    for Named { name, way } in &arguments.ways {
        let mut cells = Vec::new();
        for group in &groups {
            let mut scores = Vec::new();
            for (gallery, seed) in group.iter().cycle().zip(0..arguments.runs) {
                scores.push(rank(way, gallery, &queries, &bank, seed)?);
            }
            cells.push(cell(&scores));
        }
        println!("| {name} | {} |", cells.join(" | "));
    }
    Ok(())
}

/// mAP / found@1 / found@10 for each set of queries, means over the runs.
fn cell(runs: &[Vec<Scores>]) -> String {
    let sets = runs.first().map_or(0, Vec::len);
    let of_set = |set: usize| {
        let scores = Scores::mean(&runs.iter().map(|run| run[set]).collect::<Vec<_>>());
        format!("{:.1} / {:.1} / {:.1}", scores.map, scores.first, scores.found)
    };
    (0..sets).map(of_set).collect::<Vec<_>>().join("; ")
}

/// Galleries that are shown together: one, or several drawn at random.
fn groups(searched: &[Labelled], others: ArrayView2<f32>, arguments: &Arguments) -> Vec<Vec<Labelled>> {
    let few = others.slice_axis(Axis(0), Slice::from(..DISTRACTORS.min(others.nrows())));
    let alone = searched.iter().map(|gallery| vec![gallery.clone()]);
    let among =
        searched.iter().map(|gallery| vec![gallery.among(format!("{}, {} others", gallery.name, few.nrows()), few)]);
    let drawn = SAMPLES.into_iter().map(|(of_class, size)| {
        (0..arguments.runs).map(|seed| searched[0].sample(of_class, size, others, seed)).collect()
    });
    let all = || vec![searched[0].among(format!("{}, {} others", searched[0].name, others.nrows()), others)];
    alone.chain(among).chain(drawn).chain(arguments.large.then(all)).collect()
}

/// Embeds what is compared.
struct Reader {
    network: Network,
    digest: Sha256Digest,
    /// Of all that makes a photo's embedding: how drawings are prepared has no part in it.
    photos_digest: Sha256Digest,
    cache: Option<PathBuf>,
}

impl Reader {
    fn embed(&mut self, items: &[&Item], domain: Domain) -> anyhow::Result<Array2<f32>> {
        let bar = Bar::of("embedding", items.len());
        let digest = match domain {
            Domain::Sketch => self.digest,
            Domain::Photo => self.photos_digest,
        };
        Ok(cache::embed(&mut self.network, &digest, items, domain, self.cache.as_deref(), &bar)?)
    }

    /// `None` if there are no images.
    fn labelled(&mut self, name: &str, items: &[&Item], domain: Domain) -> anyhow::Result<Option<Labelled>> {
        if items.is_empty() {
            return Ok(None);
        }
        let embeddings = self.embed(items, domain)?;
        let classes = items.iter().map(|item| item.class.clone()).collect();
        Ok(Some(Labelled { name: name.to_owned(), embeddings, classes }))
    }
}
