//! One file for each command.

mod ablate;
mod bank;
mod codebook;
mod eval;
mod export;
mod inspect;
mod interrupt;
mod progress;
mod query;
mod soup;
mod train;
mod tune;

use std::path::{Path, PathBuf};

use clap::builder::{EnumValueParser, TypedValueParser};
use sketch_model::inference::encoder::{Device, EncoderOptions};
use sketch_model::inference::onnx::ModelProto;
use sketch_model::manifest::Manifest;
use sketch_trainer::precision::Precision;
use sketch_trainer::store;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Build a network to train from EfficientNet-Lite weights or an ONNX classifier
    Export(export::Arguments),
    /// Train a network on sketches and photos
    Train(train::Arguments),
    /// Compare trainings: mean and spread over seeds
    Ablate(ablate::Arguments),
    /// Average the weights of several trainings
    Soup(soup::Arguments),
    /// Make the bank of drawings by which a network's gallery corrects hubs
    Bank(bank::Arguments),
    /// Describe a network or a data set
    Inspect(inspect::Arguments),
    /// Build a codebook from a folder of photos
    Codebook(codebook::Arguments),
    /// Measure retrieval over classes unseen in training
    Eval(eval::Arguments),
    /// Compare ways to store photos over galleries of several kinds and sizes
    Tune(tune::Arguments),
    /// Rank the photos of a table by drawings
    Query(query::Arguments),
}

impl Command {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Export(arguments) => export::run(&arguments),
            Self::Train(arguments) => train::run(&arguments),
            Self::Ablate(arguments) => ablate::run(&arguments),
            Self::Soup(arguments) => soup::run(&arguments),
            Self::Bank(arguments) => bank::run(&arguments),
            Self::Inspect(arguments) => inspect::run(&arguments),
            Self::Codebook(arguments) => codebook::run(&arguments),
            Self::Eval(arguments) => eval::run(&arguments),
            Self::Tune(arguments) => tune::run(&arguments),
            Self::Query(arguments) => query::run(&arguments),
        }
    }
}

/// Where ONNX Runtime is, and which device and how many threads it uses.
#[derive(clap::Args)]
pub struct RuntimeArguments {
    /// ONNX Runtime's shared library
    #[arg(long, value_name = "FILE", env = "ONNXRUNTIME_LIB")]
    onnxruntime: PathBuf,
    /// Threads of one run of the network; 0 uses one per core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Device that networks run on: auto, cpu, cuda, cuda:N; auto uses a GPU if there is one
    #[arg(long, default_value_t = Device::Auto)]
    device: Device,
}

impl RuntimeArguments {
    /// Starts ONNX Runtime and returns how to load a network.
    fn start(&self) -> anyhow::Result<EncoderOptions> {
        sketch_model::inference::runtime::init(&self.onnxruntime)?;
        Ok(EncoderOptions::new(self.device, self.threads))
    }
}

/// Reads a precision that needs no calibration.
fn storage() -> impl TypedValueParser<Value = Precision> {
    EnumValueParser::<Precision>::new().try_map(|precision| match precision {
        Precision::Int8 => Err("int8 arithmetic comes after training: sketch-trainer export --model"),
        other => Ok(other),
    })
}

/// Writes a network and names its files.
fn save(folder: &Path, model: &ModelProto, manifest: &Manifest, options: &EncoderOptions) -> anyhow::Result<()> {
    for (path, bytes) in store::write(folder, model, manifest, options)? {
        eprintln!("{}: {:.1} MB", path.display(), bytes as f64 / 1e6);
    }
    Ok(())
}
