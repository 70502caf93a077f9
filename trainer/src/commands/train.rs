//! `sketch-trainer train`

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use sketch_trainer::data::DataSet;
use sketch_trainer::precision::Precision;
use sketch_trainer::store;
use sketch_trainer::train::Config;
use sketch_trainer::train::assemble::package;
use sketch_trainer::train::material::{Collected, Start};
use sketch_trainer::train::run::{RunOptions, digests, run as train};

use super::progress::Bar;
use super::{RuntimeArguments, interrupt, save, storage};

#[derive(clap::Args)]
pub struct Arguments {
    /// Configuration: a TOML file, or a preset (best, seed)
    #[arg(long, value_name = "FILE|PRESET", default_value = "best")]
    config: String,
    /// Override an option of the configuration; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Network to start from, also the teacher: an .onnx file from `export --precision fp32` with its manifest beside it
    #[arg(long, value_name = "FILE")]
    start: PathBuf,
    /// Folder of the data sets; training does not see the classes of the split "val"
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Folder for checkpoints, metrics and the network; a training found there is resumed
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    /// How weights are stored
    #[arg(long, value_parser = storage(), default_value = "int8-weights")]
    precision: Precision,
    #[command(flatten)]
    runtime: RuntimeArguments,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let options = arguments.runtime.start()?;
    let config = read_config(&arguments.config, &arguments.settings)?;
    let (model, manifest) = store::read(&arguments.start)?;
    let data = DataSet::open(&arguments.data)?;
    fs::create_dir_all(&arguments.output)
        .with_context(|| format!("could not create \"{}\"", arguments.output.display()))?;
    fs::write(arguments.output.join("config.toml"), config.to_toml()?)?;

    let bar = Bar::new();
    let start = Start { model: &model, manifest: &manifest, options: &options, progress: &bar };
    let collected = Collected::new(std::slice::from_ref(&config), &data, start)?;
    eprintln!("{}", collected.summary());
    let material = collected.material(&config)?;
    let plan = collected.plan(&config, &material, start)?;
    interrupt::listen()?;
    let digests = digests(&data.digest()?, &model, &config)?;
    let origin = format!("{} {}", digests[0].1, digests[1].1);
    let folder = arguments.output.clone();
    let setting = RunOptions { config: &config, options, folder, origin, progress: &bar, stop: &interrupt::STOP };
    let weights = train(plan, &material, &setting)?;
    let (model, manifest) = package(&config, start, &weights, &config.name, &digests, arguments.precision)?;
    save(&arguments.output, &model, &manifest, &options)
}

fn read_config(name: &str, settings: &[String]) -> anyhow::Result<Config> {
    let text = match Config::preset(name) {
        Ok(text) => text.to_owned(),
        Err(_) => fs::read_to_string(name).with_context(|| format!("could not read \"{name}\""))?,
    };
    Config::parse(&text, settings).with_context(|| format!("could not use \"{name}\""))
}
