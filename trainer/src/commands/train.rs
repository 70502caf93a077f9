//! `sketch-trainer train`

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, ensure};
use clap::Args;
use sketch_model::digest::{Sha256Digest, sha256};
use sketch_model::inference::encoder::{Domain, Encoder, EncoderOptions};
use sketch_model::inference::onnx::messages::StringStringEntryProto;
use sketch_model::inference::onnx::{self, ModelProto};
use sketch_model::manifest::Manifest;

use sketch_trainer::data::DataSet;
use sketch_trainer::graph::{Precision, narrow};
use sketch_trainer::train::Config;
use sketch_trainer::train::assemble::{Empty, assemble};
use sketch_trainer::train::material::{Collected, Start};
use sketch_trainer::train::run::{Setting, hexadecimal, run};
use sketch_trainer::train::validation::Weights;

use super::progress::Bar;
use super::{RuntimeArguments, write_file};

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

    let bar = Bar::new();
    let start = Start { model: &model, manifest: &manifest, options: &options, progress: &bar };
    let collected = Collected::new(std::slice::from_ref(&config), &data, start)?;
    eprintln!("{}", collected.summary());
    let material = collected.material(&config)?;
    let plan = collected.plan(&config, &material, start)?;
    stop_on_interrupt()?;
    let digests = digests(&data.digest()?, &model, &config)?;
    let origin = format!("{} {}", digests[0].1, digests[1].1);
    let folder = arguments.output.clone();
    let setting = Setting { config: &config, options, folder, origin, progress: &bar, stop: &STOP };
    let weights = run(plan, &material, &setting)?;
    let target = Target { folder: &arguments.output, name: &config.name, precision: arguments.precision };
    write_network(&target, &config, start, &weights, digests)
}

/// Where a network goes, and how its weights are stored.
pub struct Target<'a> {
    pub folder: &'a Path,
    pub name: &'a str,
    pub precision: Precision,
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

/// Writes the network that came out of a training, and its manifest.
pub fn write_network(
    target: &Target,
    config: &Config,
    start: Start,
    weights: &Weights,
    digests: [(&str, String); 3],
) -> anyhow::Result<()> {
    let origin = format!(
        "{}; trained by {} {}, configuration \"{}\"",
        start.manifest.origin,
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_VERSION"),
        config.name
    );
    let manifest = Manifest { name: target.name.to_owned(), origin, ..start.manifest.clone() };
    let (mut model, manifest) = assembled(&manifest, config, start, weights)?;
    narrow(&mut model, target.precision)?;
    let entry = |(key, value): (&str, String)| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
    model.metadata_props.extend(digests.into_iter().map(entry));
    write_checked(target.folder, &model, &manifest, start.options)
}

/// The network, in the form in which it runs on batches of one domain.
fn assembled(
    manifest: &Manifest,
    config: &Config,
    start: Start,
    weights: &Weights,
) -> anyhow::Result<(ModelProto, Manifest)> {
    let (model, described) = assemble(start.model, manifest, config, weights, Empty::Nothing)?;
    let mut encoder = Encoder::load(&onnx::write(&model), &described, start.options)?;
    let mut runs = |domain| encoder.encode(domain, &vec![0.0; described.input_len()], 1).is_ok();
    if runs(Domain::Sketch) && runs(Domain::Photo) {
        return Ok((model, described));
    }
    Ok(assemble(start.model, manifest, config, weights, Empty::One)?)
}

/// Writes a network and its manifest; what is written has been loaded once.
pub fn write_checked(
    folder: &Path,
    model: &ModelProto,
    manifest: &Manifest,
    options: &EncoderOptions,
) -> anyhow::Result<()> {
    onnx::check_self_contained(model)?;
    let bytes = onnx::write(model);
    Encoder::load(&bytes, manifest, options)?;
    write_file(folder, &format!("{}.onnx", manifest.name), &bytes)?;
    write_file(folder, &format!("{}.json", manifest.name), (manifest.to_json() + "\n").as_bytes())
}
