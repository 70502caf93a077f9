//! Runs the steps of a training.

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ndarray::Array1;
use serde_json::json;
use sketch_model::digest::{Sha256Digest, sha256};
use sketch_model::inference::encoder::EncoderOptions;
use sketch_model::inference::onnx::{self, ModelProto};

use super::bank::{Bank, Classes};
use super::checkpoint::{Checkpoint, EarlyStopping};
use super::config::{Branch, Config};
use super::cut::DOMAIN;
use super::sampler::{Row, Sampler};
use super::validation::{Forward, Outcome, Validation, Weights};
use super::views::{ViewOutputs, domain};
use super::{Plan, TrainError, loss};
use crate::augment::{Kind, Rng};
use crate::engine::optimizer::{average_feed, average_of};
use crate::engine::{Feed, TrainingSession};
use crate::progress::Progress;

/// The data of a training.
pub struct Material<'a> {
    pub sketches: &'a ViewOutputs,
    pub pseudo: &'a ViewOutputs,
    pub photos: &'a ViewOutputs,
    pub bank: Bank,
    pub classes: &'a Classes,
    /// The teacher's probabilities, by class.
    pub targets: HashMap<usize, Array1<f32>>,
    pub sampler: Sampler,
    pub validation: Option<Validation>,
}

/// Options of a run.
pub struct RunOptions<'a> {
    pub config: &'a Config,
    pub options: EncoderOptions,
    pub folder: PathBuf,
    /// Digest of data and network; with the configuration, it identifies checkpoints.
    pub origin: String,
    pub progress: &'a dyn Progress,
    /// When set, the training stops after the current step.
    pub stop: &'a AtomicBool,
}

/// Trains from the last checkpoint of the folder, or from the start, and returns the weights, averaged if configured.
///
/// Every `checkpoint` steps, it writes the state, and losses and validation results to `metrics.jsonl`. A training that was
/// stopped and resumed ends in bit-identical weights, given the same number of threads.
///
/// # Errors
/// [`TrainError::Stopped`] if it was stopped, [`TrainError::NotFinite`] if a loss is NaN or infinite,
/// [`TrainError::Checkpoint`] if the folder has the checkpoint of another training, [`TrainError::File`],
/// [`TrainError::Engine`].
pub fn run(mut plan: Plan, material: &Material, setting: &RunOptions) -> Result<Weights, TrainError> {
    let config = setting.config;
    let training = digest(setting)?;
    let (resumed, mut patience) = resume(&mut plan, setting, &training)?;
    let names: Vec<String> = plan.losses.iter().map(|(_, name)| name.clone()).collect();
    let state = std::mem::take(&mut plan.state);
    let mut session = TrainingSession::open(&plan.tape, state, &names, &setting.options)?;
    let mut forward = Forward::open(&plan, &setting.options)?;
    let mut log = Log::new(setting, &plan);
    if resumed == 0 {
        log.record(0, &validate(material, &mut forward, &averages(&plan, &session, config)?)?)?;
    }
    setting.progress.begin("training", config.schedule.steps);
    setting.progress.advance(resumed);
    let steps = if is_exhausted(patience, config) { 0 } else { config.schedule.steps };
    for step in resumed + 1..=steps {
        let reports = session.step(feeds(&plan, material, config, step))?;
        let losses: Vec<f32> = reports.iter().map(|values| values.first().copied().unwrap_or(f32::NAN)).collect();
        if !losses.iter().all(|loss| loss.is_finite()) {
            let checkpoint = step - 1 - (step - 1) % config.schedule.checkpoint;
            return Err(TrainError::NotFinite { step, checkpoint });
        }
        log.add(&losses);
        let is_last = step == config.schedule.steps;
        if step % config.schedule.checkpoint == 0 || is_last {
            let outcomes = validate(material, &mut forward, &averages(&plan, &session, config)?)?;
            log.record(step, &outcomes)?;
            patience.record(outcomes.iter().map(|outcome| outcome.fused.map).sum());
            Checkpoint::of(&session, step, &training, patience)?.write(&setting.folder)?;
        }
        if is_exhausted(patience, config) {
            break;
        }
        if setting.stop.load(Ordering::Relaxed) && !is_last {
            Checkpoint::of(&session, step, &training, patience)?.write(&setting.folder)?;
            return Err(TrainError::Stopped { step });
        }
    }
    setting.progress.end();
    averages(&plan, &session, config)
}

fn is_exhausted(patience: EarlyStopping, config: &Config) -> bool {
    config.schedule.patience > 0 && patience.stale >= config.schedule.patience
}

/// Identifies a training; its checkpoints carry the same digest.
fn digest(setting: &RunOptions) -> Result<String, TrainError> {
    let text = setting.config.to_toml()?;
    Ok(hexadecimal(&sha256([text.as_bytes(), setting.origin.as_bytes()])))
}

/// Names and SHA-256 digests of all that decides the outcome of a training: data, starting network, configuration.
pub type Digests = [(&'static str, String); 3];

/// The digests of a training of `model` by `config` on images whose digest is `data`.
///
/// # Errors
/// As [`Config::to_toml`].
pub fn digests(data: &Sha256Digest, model: &ModelProto, config: &Config) -> Result<Digests, TrainError> {
    Ok([
        ("data_sha256", hexadecimal(data)),
        ("start_sha256", hexadecimal(&sha256([onnx::write(model).as_slice()]))),
        ("config_sha256", hexadecimal(&sha256([config.to_toml()?.as_bytes()]))),
    ])
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn resume(plan: &mut Plan, setting: &RunOptions, training: &str) -> Result<(u64, EarlyStopping), TrainError> {
    let Some(checkpoint) = Checkpoint::read(&setting.folder)? else { return Ok((0, EarlyStopping::default())) };
    if checkpoint.training != training {
        let path = setting.folder.join(super::checkpoint::FILE);
        let reason = "configuration, data or network have changed".to_owned();
        return Err(TrainError::Checkpoint { path, reason });
    }
    let (step, patience) = (checkpoint.step, checkpoint.patience);
    checkpoint.restore(&mut plan.state, &setting.folder)?;
    Ok((step, patience))
}

fn validate(material: &Material, forward: &mut Forward, weights: &Weights) -> Result<Vec<Outcome>, TrainError> {
    material.validation.as_ref().map_or_else(|| Ok(Vec::new()), |validation| validation.run(forward, weights))
}

/// The weights by name, averaged if configured.
fn averages(plan: &Plan, session: &TrainingSession, config: &Config) -> Result<Weights, TrainError> {
    let mut weights = Weights::new();
    for name in session.names() {
        if name.ends_with("_moment") || name.ends_with("~average") {
            continue;
        }
        let averaged = config.schedule.average > 0.0 && plan.weights.iter().any(|weight| weight == name);
        let source = if averaged { average_of(name) } else { name.to_owned() };
        weights.insert(name.to_owned(), session.state(&source)?);
    }
    Ok(weights)
}

/// All inputs of one step.
fn feeds(plan: &Plan, material: &Material, config: &Config, step: u64) -> Vec<(String, Feed)> {
    let rows = material.sampler.batch(step);
    let mut feeds = config.optimizer.feeds(config.schedule.rate(step), step);
    if config.schedule.average > 0.0 {
        feeds.push(average_feed(config.schedule.average(step)));
    }
    feeds.push((plan.cut.tensor.clone(), images(material, &rows)));
    let domains: Vec<i64> = rows.iter().map(|row| domain(row.view.kind) as i64).collect();
    feeds.push((DOMAIN.to_owned(), Feed::Integers(vec![rows.len()], domains)));
    feeds.extend(classification(material, config, &rows));
    feeds.extend(distillation(material, config, &rows));
    feeds.extend(alignment(plan, config, &rows, step));
    feeds.extend(contrast(material, config, &rows));
    // A disabled loss has no inputs.
    feeds.retain(|(name, _)| plan.tape.has(name));
    feeds
}

fn images(material: &Material, rows: &[Row]) -> Feed {
    let outputs = |kind| match kind {
        Kind::Sketch => material.sketches,
        Kind::PseudoSketch => material.pseudo,
        Kind::Photo => material.photos,
    };
    let first = &outputs(rows[0].view.kind).maps;
    let length = first.length();
    let mut values = vec![0.0; rows.len() * length];
    for (row, to) in rows.iter().zip(values.chunks_exact_mut(length)) {
        outputs(row.view.kind).read_map(row.view, to);
    }
    Feed::Floats([rows.len()].iter().chain(&first.shape).copied().collect(), values)
}

/// Weights of the images in a loss: `weight`, divided by the number of images of the kind that have one.
fn shares(rows: &[Row], weight: impl Fn(&Row) -> f32) -> Vec<f32> {
    let count = |kind| rows.iter().filter(|row| row.view.kind == kind && weight(row) > 0.0).count().max(1) as f32;
    let counts = [Kind::Sketch, Kind::PseudoSketch, Kind::Photo].map(|kind| (kind, count(kind)));
    let count = |row: &Row| counts.iter().find(|(kind, _)| *kind == row.view.kind).map_or(1.0, |(_, count)| *count);
    rows.iter().map(|row| weight(row) / count(row)).collect()
}

fn classification(material: &Material, config: &Config, rows: &[Row]) -> [(String, Feed); 2] {
    let (n, classes) = (rows.len(), material.classes.len());
    let mut labels = vec![0.0; n * classes];
    for (row, labels) in rows.iter().zip(labels.chunks_exact_mut(classes.max(1))) {
        row.class.into_iter().for_each(|class| labels[class] = 1.0);
    }
    // One mean over both domains, as in the patent.
    let count = rows.iter().filter(|row| row.class.is_some()).count().max(1) as f32;
    let weights = rows.iter().map(|row| if row.class.is_some() { config.loss.classify / count } else { 0.0 }).collect();
    [
        (loss::LABELS.to_owned(), Feed::Floats(vec![n, classes], labels)),
        (loss::CLASSIFY_ROWS.to_owned(), Feed::Floats(vec![n], weights)),
    ]
}

fn distillation(material: &Material, config: &Config, rows: &[Row]) -> [(String, Feed); 2] {
    let (n, width) = (rows.len(), material.bank.probabilities.ncols());
    let of_items = |item: usize| material.bank.items.iter().position(|&found| found == item);
    let target = |row: &Row| match row.view.kind {
        Kind::Photo => material.bank.of_view(row.view).map(|target| target.to_owned()),
        Kind::PseudoSketch => of_items(row.view.item).map(|found| material.bank.probabilities.row(found).to_owned()),
        Kind::Sketch => row.class.and_then(|class| material.targets.get(&class).cloned()),
    };
    let targets: Vec<Option<Array1<f32>>> = rows.iter().map(target).collect();
    let mut values = vec![0.0; n * width];
    for (target, values) in targets.iter().zip(values.chunks_exact_mut(width.max(1))) {
        target.iter().for_each(|target| values.iter_mut().zip(target).for_each(|(to, from)| *to = *from));
    }
    let shared = config.network.branch == Branch::Shared;
    let weight = |row: &Row| match row.view.kind {
        Kind::PseudoSketch => config.loss.distill_pseudo,
        // The paper's code distills photos only; a sketch branch has no photos.
        Kind::Photo => config.loss.distill,
        Kind::Sketch if shared => 0.0,
        Kind::Sketch => {
            row.class.filter(|class| material.targets.contains_key(class)).map_or(0.0, |_| config.loss.distill)
        }
    };
    [
        (loss::TEACHER.to_owned(), Feed::Floats(vec![n, width], values)),
        (loss::DISTILL_ROWS.to_owned(), Feed::Floats(vec![n], shares(rows, weight))),
    ]
}

fn alignment(plan: &Plan, config: &Config, rows: &[Row], step: u64) -> Vec<(String, Feed)> {
    let Ok(shape) = plan.tape.shape(loss::NOISE) else { return Vec::new() };
    let mut rng = Rng::new(&[config.seed, step, 0x6e_6f69_7365]);
    let noise = (0..shape.iter().product()).map(|_| rng.normal()).collect();
    let weights = vec![config.loss.align / rows.len() as f32; rows.len()];
    vec![
        (loss::NOISE.to_owned(), Feed::Floats(shape, noise)),
        (loss::ALIGN_ROWS.to_owned(), Feed::Floats(vec![rows.len()], weights)),
    ]
}

/// The positives of a sketch are the photos of its class, its negatives those of other classes; photos without a class are
/// ignored. A pseudo-sketch's positive is its own photo; all photos that do not share its class are negatives.
fn contrast(material: &Material, config: &Config, rows: &[Row]) -> [(String, Feed); 3] {
    let bank = &material.bank;
    let (n, photos) = (rows.len(), bank.classes.len());
    let (mut near, mut all) = (vec![0.0; n * photos], vec![0.0; n * photos]);
    let with_photos: HashSet<usize> = bank.classes.iter().flatten().copied().collect();
    for (i, row) in rows.iter().enumerate() {
        for (j, (&item, &class)) in bank.items.iter().zip(&bank.classes).enumerate() {
            let (is_near, counts) = match row.view.kind {
                Kind::PseudoSketch => {
                    (item == row.view.item, item == row.view.item || class.is_none() || class != row.class)
                }
                _ => (class.is_some() && class == row.class, class.is_some()),
            };
            near[i * photos + j] = f32::from(u8::from(is_near));
            all[i * photos + j] = f32::from(u8::from(counts));
        }
    }
    let weight = |row: &Row| match row.view.kind {
        Kind::PseudoSketch => config.loss.contrast_pseudo,
        Kind::Photo => 0.0,
        Kind::Sketch => row.class.filter(|class| with_photos.contains(class)).map_or(0.0, |_| config.loss.contrast),
    };
    [
        (loss::POSITIVES.to_owned(), Feed::Floats(vec![n, photos], near)),
        (loss::CANDIDATES.to_owned(), Feed::Floats(vec![n, photos], all)),
        (loss::CONTRAST_ROWS.to_owned(), Feed::Floats(vec![n], shares(rows, weight))),
    ]
}

/// Reports progress, and writes a line of JSON at every checkpoint.
struct Log<'a> {
    setting: &'a RunOptions<'a>,
    names: Vec<&'static str>,
    batch: usize,
    sums: Vec<f64>,
    steps: u64,
    since: Instant,
}

impl<'a> Log<'a> {
    fn new(setting: &'a RunOptions<'a>, plan: &Plan) -> Self {
        let names: Vec<&'static str> = plan.losses.iter().map(|(name, _)| *name).collect();
        let sums = vec![0.0; names.len()];
        Self { setting, names, batch: plan.batch, sums, steps: 0, since: Instant::now() }
    }

    fn add(&mut self, losses: &[f32]) {
        self.steps += 1;
        self.sums.iter_mut().zip(losses).for_each(|(sum, loss)| *sum += f64::from(*loss));
        self.setting.progress.advance(1);
        self.setting.progress.status(&format!("loss {:.3}, {:.0} images/s", losses[0], self.speed()));
    }

    fn speed(&self) -> f64 {
        self.steps as f64 * self.batch as f64 / self.since.elapsed().as_secs_f64().max(1e-9)
    }

    fn record(&mut self, step: u64, outcomes: &[Outcome]) -> Result<(), TrainError> {
        let mut line = json!({ "step": step, "images_per_second": (10.0 * self.speed()).round() / 10.0 });
        for (name, sum) in self.names.iter().zip(&self.sums) {
            line[name] = json!(sum / self.steps.max(1) as f64);
        }
        for outcome in outcomes {
            line[&outcome.name] = json!({
                "mAP": outcome.embedding.map, "P@25": outcome.embedding.precision,
                "fused mAP": outcome.fused.map, "fused P@25": outcome.fused.precision,
            });
        }
        let quality: Vec<String> = outcomes
            .iter()
            .map(|outcome| format!("{} {:.1}, fused {:.1}", outcome.name, outcome.embedding.map, outcome.fused.map))
            .collect();
        let loss = self.sums.first().map_or(0.0, |sum| sum / self.steps.max(1) as f64);
        let message = format!("step {step}: loss {loss:.3}, {:.0} images/s; {}", self.speed(), quality.join("; "));
        self.setting.progress.log(&message);
        let path = self.setting.folder.join("metrics.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| writeln!(file, "{line}"));
        self.sums.iter_mut().for_each(|sum| *sum = 0.0);
        (self.steps, self.since) = (0, Instant::now());
        written.map_err(|source| TrainError::File { path, source })
    }
}
