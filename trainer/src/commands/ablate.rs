//! `sketch-trainer ablate`

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use sketch_trainer::data::DataSet;
use sketch_trainer::engine::Tape;
use sketch_trainer::precision::Precision;
use sketch_trainer::store;
use sketch_trainer::train::Config;
use sketch_trainer::train::ablation::{Ablation, Row, Trial, table};
use sketch_trainer::train::assemble::{blended, package};
use sketch_trainer::train::checkpoint;
use sketch_trainer::train::material::{Collected, Start};
use sketch_trainer::train::run::{RunOptions, digests, run as train};
use sketch_trainer::train::validation::{Forward, Weights};

use super::progress::Bar;
use super::{RuntimeArguments, interrupt, save};

#[derive(clap::Args)]
pub struct Arguments {
    /// Trainings to compare, as TOML; trainer/presets/ablation.toml is an example
    #[arg(long, value_name = "FILE")]
    rows: PathBuf,
    /// Network to start from, as `train` takes it
    #[arg(long, value_name = "FILE")]
    start: PathBuf,
    /// Folder of the data sets
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Folder for the results; trainings whose results are there are skipped
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    /// Keep the network of every training in full precision, as "<row>-<seed>.onnx"; rows count from 1
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    runtime: RuntimeArguments,
}

const RESULTS: &str = "results.jsonl";

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let options = arguments.runtime.start()?;
    let text = fs::read_to_string(&arguments.rows)
        .with_context(|| format!("could not read \"{}\"", arguments.rows.display()))?;
    let ablation = Ablation::parse(&text).with_context(|| format!("could not use \"{}\"", arguments.rows.display()))?;
    let mut configs = Vec::new();
    for seed in &ablation.seeds {
        for (i, row) in ablation.rows.iter().enumerate() {
            configs.push((i, row, ablation.config(row, *seed).with_context(|| format!("row \"{}\"", row.name))?));
        }
    }
    ensure!(!configs.is_empty(), "there are no trainings to compare");
    let (model, manifest) = store::read(&arguments.start)?;
    let data = DataSet::open(&arguments.data)?;
    let images = data.digest()?;
    fs::create_dir_all(&arguments.output)
        .with_context(|| format!("could not create \"{}\"", arguments.output.display()))?;
    interrupt::listen()?;

    let bar = Bar::new();
    let start = Start { model: &model, manifest: &manifest, options: &options, progress: &bar };
    let mut trials = read_trials(&arguments.output.join(RESULTS))?;
    for group in grouped(configs) {
        let mut collected = None;
        for (i, row, config) in &group {
            let digests = digests(&images, &model, config)?;
            let training = digests.each_ref().map(|(_, digest)| digest.as_str()).join(" ");
            if trials.iter().any(|trial| trial.training == training) {
                continue;
            }
            eprintln!("{}, seed {}", row.name, config.seed);
            let collected = match &mut collected {
                Some(collected) => collected,
                none => {
                    let all: Vec<Config> = group.iter().map(|(_, _, config)| config.clone()).collect();
                    none.insert(Collected::new(&all, &data, start)?)
                }
            };
            let (map, weights) = try_one(config, collected, start, &training, &arguments.output)?;
            if arguments.keep {
                let name = format!("{}-{}", i + 1, config.seed);
                let (model, manifest) = package(config, start, &weights, &name, &digests, Precision::Fp32)?;
                save(&arguments.output, &model, &manifest, &options)?;
            }
            let trial = Trial { row: row.name.clone(), seed: config.seed, training, map };
            append(&arguments.output.join(RESULTS), &serde_json::to_string(&trial)?)?;
            trials.push(trial);
        }
    }
    println!("{}", table(&ablation.rows, &trials));
    Ok(())
}

/// A training: index of its row, the row, the configuration.
type Training<'a> = (usize, &'a Row, Config);

/// Groups trainings that share their views of images; groups are in the order of their first training.
fn grouped(trainings: Vec<Training>) -> Vec<Vec<Training>> {
    let mut groups: Vec<Vec<Training>> = Vec::new();
    for training in trainings {
        match groups.iter_mut().find(|group| group[0].2.shares_views(&training.2)) {
            Some(group) => group.push(training),
            None => groups.push(vec![training]),
        }
    }
    groups
}

fn try_one(
    config: &Config,
    collected: &Collected,
    start: Start,
    training: &str,
    output: &Path,
) -> anyhow::Result<(BTreeMap<String, [f64; 2]>, Weights)> {
    let material = collected.material(config)?;
    let validation = material.validation.clone().context("there are no images of the split \"val\"")?;
    let plan = collected.plan(config, &material, start)?;
    let mut forward = Forward::open(&plan, start.options)?;
    let setting = RunOptions {
        config,
        options: *start.options,
        folder: output.to_owned(),
        origin: training.to_owned(),
        progress: start.progress,
        stop: &interrupt::STOP,
    };
    let weights = train(plan, &material, &setting)?;
    let served = blended(&Tape::read(start.model)?, &weights, config.network.blend)?;
    let outcomes = validation.run(&mut forward, &served)?;
    // The next training must not resume this one.
    fs::remove_file(output.join(checkpoint::FILE))?;
    let map = outcomes.into_iter().map(|outcome| (outcome.name, [outcome.embedding.map, outcome.fused.map])).collect();
    Ok((map, weights))
}

/// The trials of an earlier run; none if there is no file.
fn read_trials(path: &Path) -> anyhow::Result<Vec<Trial>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.with_context(|| format!("could not read \"{}\"", path.display()))?,
    };
    let trials = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
    trials.with_context(|| format!("could not use \"{}\"", path.display()))
}

fn append(path: &Path, line: &str) -> anyhow::Result<()> {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
    Ok(writeln!(file, "{line}")?)
}
