//! `sketch-trainer train`

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, ensure};
use clap::Args;
use sketch_model::digest::{Sha256Digest, sha256};
use sketch_model::encoder::Encoder;
use sketch_model::manifest::Manifest;
use sketch_model::onnx::messages::StringStringEntryProto;
use sketch_model::onnx::{self, ModelProto};

use sketch_trainer::data::DataSet;
use sketch_trainer::graph::{Precision, narrow};
use sketch_trainer::train::Config;
use sketch_trainer::train::assemble::assemble;
use sketch_trainer::train::material::{Collected, Start};
use sketch_trainer::train::run::{Setting, hexadecimal, run};
use sketch_trainer::train::validation::Weights;

use super::{RuntimeArguments, progress, write_file};

#[derive(Args)]
pub struct Arguments {
    /// What to do: a TOML file, or the name of a preset, best or seed
    #[arg(long, value_name = "FILE|PRESET", default_value = "best")]
    config: String,
    /// Change an option of the configuration; can be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Network to start from, which is also the teacher: an .onnx file of `export --precision fp32`, its manifest beside it
    #[arg(long, value_name = "FILE")]
    start: PathBuf,
    /// Folder of the data sets; the classes of the split "val" are left out
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Folder for checkpoints, metrics and the network; what is there is resumed
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    /// How weights are stored
    #[arg(long, value_enum, default_value_t = Precision::Int8)]
    precision: Precision,
    #[command(flatten)]
    runtime: RuntimeArguments,
}

/// Set by the first Ctrl-C; the second ends the program at once.
pub static STOP: AtomicBool = AtomicBool::new(false);

pub fn run_command(arguments: &Arguments) -> anyhow::Result<()> {
    let options = arguments.runtime.start()?;
    let config = read_config(&arguments.config, &arguments.settings)?;
    let (model, manifest) = read_network(&arguments.start)?;
    let data = DataSet::open(&arguments.data)?;
    fs::create_dir_all(&arguments.output)
        .with_context(|| format!("could not create \"{}\"", arguments.output.display()))?;
    fs::write(arguments.output.join("config.toml"), config.to_toml()?)?;

    let bar = |count, what: &str| progress::bar(count, what);
    let start = Start { model: &model, manifest: &manifest, options: &options, bar: &bar };
    let collected = Collected::new(std::slice::from_ref(&config), &data, start)?;
    eprintln!("{}", collected.summary());
    let material = collected.material(&config)?;
    let plan = collected.plan(&config, &material, start)?;
    stop_on_interrupt()?;
    let digests = digests(&data.digest()?, &model, &config)?;
    let progress = progress::bar(config.schedule.steps, "training");
    let origin = format!("{} {}", digests[0].1, digests[1].1);
    let setting = Setting { config: &config, options, folder: arguments.output.clone(), origin, progress, stop: &STOP };
    let weights = run(plan, &material, &setting)?;
    setting.progress.finish_and_clear();
    write_network(arguments, &config, &model, &manifest, &weights, digests)
}

/// The step that a training is at is finished and kept.
pub fn stop_on_interrupt() -> anyhow::Result<()> {
    let handler = || {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(handler).context("could not listen for interrupts")
}

/// Digests of all that decides what comes out.
///
/// `data`: that of the images.
pub fn digests(
    data: &Sha256Digest,
    model: &ModelProto,
    config: &Config,
) -> anyhow::Result<[(&'static str, String); 3]> {
    Ok([
        ("data_sha256", hexadecimal(data)),
        ("start_sha256", hexadecimal(&sha256([onnx::write(model).as_slice()]))),
        ("config_sha256", hexadecimal(&sha256([config.to_toml()?.as_bytes()]))),
    ])
}

fn read_config(name: &str, settings: &[String]) -> anyhow::Result<Config> {
    let text = match Config::preset(name) {
        Ok(text) => text.to_owned(),
        Err(_) => fs::read_to_string(name).with_context(|| format!("could not read \"{name}\""))?,
    };
    Config::parse(&text, settings).with_context(|| format!("could not use \"{name}\""))
}

pub fn read_network(path: &Path) -> anyhow::Result<(ModelProto, Manifest)> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("could not read \"{}\"", path.display()));
    let manifest = Manifest::from_json(&String::from_utf8(read(&path.with_extension("json"))?)?)
        .with_context(|| format!("could not use the manifest of \"{}\"", path.display()))?;
    let model = onnx::parse(&read(path)?).with_context(|| format!("could not use \"{}\"", path.display()))?;
    ensure!(manifest.domain_input, "the network to start from does not take the domain");
    Ok((model, manifest))
}

fn write_network(
    arguments: &Arguments,
    config: &Config,
    start: &ModelProto,
    manifest: &Manifest,
    weights: &Weights,
    digests: [(&str, String); 3],
) -> anyhow::Result<()> {
    let origin = format!(
        "{}; trained by {} {}, configuration \"{}\"",
        manifest.origin,
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_VERSION"),
        config.name
    );
    let manifest = Manifest { name: config.name.clone(), origin, ..manifest.clone() };
    let (mut model, manifest) = assemble(start, &manifest, config, weights)?;
    narrow(&mut model, arguments.precision)?;
    let entry = |(key, value): (&str, String)| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
    model.metadata_props.extend(digests.into_iter().map(entry));
    onnx::check_self_contained(&model)?;
    let bytes = onnx::write(&model);
    // What is written has been loaded once.
    Encoder::load(&bytes, &manifest, &arguments.runtime.start()?)?;
    write_file(&arguments.output, &format!("{}.onnx", manifest.name), &bytes)?;
    write_file(&arguments.output, &format!("{}.json", manifest.name), (manifest.to_json() + "\n").as_bytes())
}
