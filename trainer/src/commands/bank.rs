//! `sketch-trainer bank`

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use ndarray::Axis;
use sketch_model::codebook::{Codebook, CodebookOptions};
use sketch_model::digest;
use sketch_model::hubs::{Bank, Correction};
use sketch_model::inference::encoder::{Domain, Encoder};

use sketch_trainer::cache;
use sketch_trainer::data::{DataSet, Item, QUICKDRAW};
use sketch_trainer::features::Network;
use sketch_trainer::store;

use super::RuntimeArguments;
use super::progress::Bar;

/// Iterations of k-means: the last ones move little.
const ITERATIONS: u64 = 25;

#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of the data sets; the bank is made of drawings of training classes
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Network that the bank belongs to; it is written beside it, as NAME.bank
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Folder that keeps embeddings from run to run
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Collection of drawings
    #[arg(long, value_name = "NAME", default_value = QUICKDRAW)]
    collection: String,
    /// Drawings of the bank: the centres of as many clusters of the collection's drawings
    #[arg(long, default_value_t = 512)]
    drawings: usize,
    /// How many of the nearest drawings tell how near a photo is to drawings
    #[arg(long, default_value_t = 16)]
    neighbours: usize,
    /// Strength of the correction where nothing else is asked for
    #[arg(long, default_value_t = 0.375)]
    strength: f32,
    #[command(flatten)]
    runtime: RuntimeArguments,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let options = arguments.runtime.start()?;
    let onnx = store::read_bytes(&arguments.model)?;
    let manifest = store::read_manifest(&arguments.model.with_extension("json"))?;
    let digest = manifest.digest(&onnx);
    let model = digest::tag(&digest);
    let mut network = Network { encoder: Encoder::load(&onnx, &manifest, &options)?, manifest };
    let mut embed = |name: &str, items: &[&Item], domain| {
        let bar = Bar::of(name, items.len());
        cache::embed(&mut network, &digest, items, domain, arguments.cache.as_deref(), &bar)
    };
    let data = DataSet::open(&arguments.data)?;

    let drawings = data.training(&data.collection(&arguments.collection)?.name);
    ensure!(!drawings.is_empty(), "collection \"{}\" has no drawings of training classes", arguments.collection);
    let drawn = embed("drawings", &drawings, Domain::Sketch)?;
    let clusters = CodebookOptions {
        subspaces: 1,
        prototypes: arguments.drawings,
        max_iterations: ITERATIONS,
        ..CodebookOptions::default()
    };
    let centres = Codebook::train(drawn.view(), model, &clusters)?.centroids().index_axis(Axis(0), 0).to_owned();

    // Photos as a gallery may hold them: no photo is nearer to drawings of nothing in particular than these.
    let photos = data.distractors(usize::MAX);
    ensure!(!photos.is_empty(), "there are no photos of training classes");
    let photos = embed("photos", &photos, Domain::Photo)?;
    let bank = |floor| {
        let correction = Correction { neighbours: arguments.neighbours, strength: arguments.strength, floor };
        Bank::new(centres.view(), model, correction)
    };
    let measure = bank(0.0)?;
    let mut floor = f32::INFINITY;
    for photo in photos.rows() {
        floor = floor.min(measure.nearness(&photo.to_vec())?);
    }
    let (bank, path) = (bank(floor)?, arguments.model.with_extension("bank"));
    let bytes = bank.to_bytes();
    fs::write(&path, &bytes).with_context(|| format!("could not write \"{}\"", path.display()))?;
    eprintln!(
        "{}: {} drawings, {:.0} kB, nearness of {} photos at least {floor:.3}",
        path.display(),
        bank.drawings(),
        bytes.len() as f64 / 1e3,
        photos.nrows()
    );
    Ok(())
}
