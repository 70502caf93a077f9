//! `sketch-trainer soup`

use std::path::PathBuf;

use anyhow::{Context, ensure};
use sketch_model::manifest::Manifest;
use sketch_trainer::precision::{Precision, narrow};
use sketch_trainer::soup::mean;
use sketch_trainer::store;

use super::{RuntimeArguments, save, storage};

#[derive(clap::Args)]
pub struct Arguments {
    /// Networks in full precision of trainings with the same start, from `ablate --keep` or `train --precision fp32`, with
    /// their manifests beside them
    #[arg(required = true, value_name = "FILE")]
    networks: Vec<PathBuf>,
    /// Name of the averaged network
    #[arg(long)]
    name: String,
    /// Folder for the network and its manifest
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
    let (mut models, mut manifests) = (Vec::new(), Vec::new());
    for path in &arguments.networks {
        let (model, manifest) = store::read(path)?;
        models.push(model);
        manifests.push(Manifest { name: arguments.name.clone(), ..manifest });
    }
    let manifest = manifests.swap_remove(0);
    let unlike = manifests.iter().position(|other| *other != manifest);
    ensure!(unlike.is_none(), "the manifests of the networks differ");
    let mut model = mean(&models).context("could not average the networks")?;
    if let Some(graph) = model.graph.as_mut() {
        graph.name = Some(arguments.name.clone());
    }
    narrow(&mut model, arguments.precision)?;
    let origin = match models.len() {
        1 => manifest.origin.clone(),
        count => format!("{}; mean of {count} trainings", manifest.origin),
    };
    save(&arguments.output, &model, &Manifest { origin, ..manifest }, &options)
}
