//! One file for each command.

mod ablate;
mod codebook;
mod eval;
mod export;
mod import;
mod inspect;
mod progress;
mod query;
mod soup;
mod train;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sketch_model::inference::encoder::{Device, EncoderOptions};

#[derive(clap::Subcommand)]
pub enum Command {
    /// Turn EfficientNet-Lite weights into a network file and its manifest
    Export(export::Arguments),
    /// Train a network on sketches and photos
    Train(train::Arguments),
    /// Compare trainings: mean and spread over seeds
    Ablate(ablate::Arguments),
    /// Take the mean of the weights of several trainings
    Soup(soup::Arguments),
    /// Tell what a network consists of
    Inspect(inspect::Arguments),
    /// Build a codebook from a folder of photos
    Codebook(codebook::Arguments),
    /// Measure retrieval over classes unseen in training
    Eval(eval::Arguments),
    /// Load a folder of photos into a table
    Import(import::Arguments),
    /// Rank the photos of a table by drawings
    Query(query::Arguments),
}

impl Command {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Export(arguments) => export::run(&arguments),
            Self::Train(arguments) => train::run_command(&arguments),
            Self::Ablate(arguments) => ablate::run(&arguments),
            Self::Soup(arguments) => soup::run(&arguments),
            Self::Inspect(arguments) => inspect::run(&arguments),
            Self::Codebook(arguments) => codebook::run(&arguments),
            Self::Eval(arguments) => eval::run(&arguments),
            Self::Import(arguments) => import::run(&arguments),
            Self::Query(arguments) => query::run(&arguments),
        }
    }
}

/// Where ONNX Runtime is, and how much of the machine it may take.
#[derive(clap::Args)]
pub struct RuntimeArguments {
    /// ONNX Runtime's shared library
    #[arg(long, value_name = "FILE", env = "ONNXRUNTIME_LIB")]
    onnxruntime: PathBuf,
    /// Threads of one run of the network; 0 takes one for each core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Where networks run: auto, cpu, cuda, cuda:N; auto takes a GPU where there is one
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

fn write_file(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let path = folder.join(name);
    fs::create_dir_all(folder).with_context(|| format!("could not create \"{}\"", folder.display()))?;
    fs::write(&path, bytes).with_context(|| format!("could not write \"{}\"", path.display()))?;
    eprintln!("{}: {:.1} MB", path.display(), bytes.len() as f64 / 1e6);
    Ok(())
}
