//! Configuration of a training, as TOML. Unknown keys are refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TrainError;
use crate::augment::Augmentation;
use crate::engine::optimizer::Adam;

const BEST: &str = include_str!("../../presets/best.toml");
const SEED: &str = include_str!("../../presets/seed.toml");

/// A training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the trained network.
    pub name: String,
    /// Seed of all randomness.
    #[serde(default)]
    pub seed: u64,
    pub network: NetworkConfig,
    pub batch: BatchConfig,
    pub schedule: Schedule,
    #[serde(default)]
    pub optimizer: Adam,
    pub loss: LossConfig,
    #[serde(default)]
    pub augment: Augmentation,
    /// Names of collections to leave out.
    #[serde(default)]
    pub leave_out: Vec<String>,
    /// How often a collection is drawn from, beside the others of its kind: 1 unless it is named here.
    #[serde(default)]
    pub shares: BTreeMap<String, f32>,
}

/// Which part of the network trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Name of the first layer that trains; the layers before it run once over every view. Empty trains all layers.
    pub train_from: String,
    pub branch: Branch,
    #[serde(default)]
    pub head: HeadConfig,
    /// Share of the trained weights in the final weights; the starting weights get the rest.
    ///
    /// Source: Wortsman et al., "Robust fine-tuning of zero-shot models", 2022.
    #[serde(default = "one")]
    pub blend: f32,
    /// Whether BatchNormalization uses the statistics of the batch in training, and running statistics when serving.
    #[serde(default)]
    pub live_normalisation: bool,
}

/// Which images go through the trained layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Branch {
    /// Only sketches; photos keep the layers of the starting network.
    Sketch,
    /// Sketches and photos.
    Shared,
}

/// Which head turns features into an embedding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadConfig {
    /// The network's own, of which the domain means train.
    #[default]
    Keep,
    /// A randomly initialised linear layer, as in the patent.
    Fresh,
}

/// Images of each kind per step, and views per image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// Drawings, of all collections of sketches by their shares.
    pub sketches: usize,
    /// Edge maps of photos.
    #[serde(default)]
    pub pseudo_sketches: usize,
    #[serde(default)]
    pub photos: usize,
    /// Views of each sketch; the first is not augmented.
    pub sketch_views: u64,
    #[serde(default = "one_view")]
    pub pseudo_views: u64,
    pub photo_views: u64,
    /// Whether the trunk's output is kept in half precision.
    #[serde(default = "yes")]
    pub half: bool,
}

/// Steps and learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    pub steps: u64,
    /// Learning rate at its highest.
    pub rate: f32,
    /// Warm-up: steps in which the rate rises from 0.
    #[serde(default)]
    pub warm_up: u64,
    pub decay: Decay,
    /// Decay per step of the moving average of weights; 0 for no average.
    #[serde(default)]
    pub average: f32,
    /// Steps between checkpoints; validation goes with them.
    pub checkpoint: u64,
    /// Stop after this many checkpoints without improvement; 0 never stops early.
    #[serde(default)]
    pub patience: u64,
}

/// How the learning rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    Cosine,
    /// To a hundredth over the training, by a constant factor per step.
    Exponential,
}

/// Weights of the losses, 0 for none, and their options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// CE: cross-entropy of a linear classifier over the training classes.
    pub classify: f32,
    /// KD: cross-entropy between the teacher's and the student's predictions of ImageNet classes.
    pub distill: f32,
    /// KD of pseudo-sketches, with the teacher's prediction for their photo.
    pub distill_pseudo: f32,
    pub distill_head: DistillHead,
    /// DA: Kullback-Leibler divergence of the embedding's channels from normal noise.
    pub align: f32,
    /// Contrast of sketches with all photos: same class against other classes.
    pub contrast: f32,
    /// Contrast of pseudo-sketches with all photos: own photo against all others.
    pub contrast_pseudo: f32,
    /// Temperature of the contrast.
    pub temperature: f32,
    /// Whether classes without photos learn from the teacher's classes of the same meaning.
    pub anchors: bool,
}

/// Which layer predicts the student's ImageNet classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DistillHead {
    /// The teacher's classifier on the student's features, so that both feature spaces stay compatible.
    #[default]
    Teacher,
    /// A second linear head on the embedding, as in the paper's code.
    Fresh,
}

fn one() -> f32 {
    1.0
}

fn yes() -> bool {
    true
}

fn one_view() -> u64 {
    1
}

impl Config {
    /// The text of a preset.
    ///
    /// # Errors
    /// [`TrainError::Preset`] if there is no preset of that name.
    pub fn preset(name: &str) -> Result<&'static str, TrainError> {
        match name {
            "best" => Ok(BEST),
            "seed" => Ok(SEED),
            _ => Err(TrainError::Preset { name: name.to_owned() }),
        }
    }

    /// Parses a configuration and overrides options by `settings`, each a dotted `key=value` such as `loss.align=0`.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a malformed configuration, [`TrainError::Setting`] for a malformed setting,
    /// [`TrainError::Range`] for a value out of range.
    pub fn parse(text: &str, settings: &[String]) -> Result<Self, TrainError> {
        let mut table: toml::Table = toml::from_str(text)?;
        for setting in settings {
            apply(&mut table, setting)?;
        }
        let config: Self = toml::Value::Table(table).try_into()?;
        config.check()?;
        Ok(config)
    }

    /// Whether both configurations can share views of images; seeds aside.
    pub fn shares_views(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.network.train_from, &other.network.train_from);
        ours == theirs && self.augment == other.augment && self.batch.half == other.batch.half
    }

    /// The configuration as TOML, with every option.
    ///
    /// # Errors
    /// None in practice: every field can be written as TOML.
    pub fn to_toml(&self) -> Result<String, TrainError> {
        toml::to_string(self).map_err(|_| TrainError::Range { key: "configuration" })
    }

    fn check(&self) -> Result<(), TrainError> {
        let in_range = |ok: bool, key| if ok { Ok(()) } else { Err(TrainError::Range { key }) };
        let (batch, schedule, loss) = (&self.batch, &self.schedule, &self.loss);
        in_range(!self.name.is_empty() && self.name.len() < 64, "name")?;
        in_range((1..=4096).contains(&(batch.sketches + batch.pseudo_sketches + batch.photos)), "batch")?;
        in_range((1..=64).contains(&batch.sketch_views), "batch.sketch_views")?;
        in_range((1..=64).contains(&batch.pseudo_views), "batch.pseudo_views")?;
        in_range((1..=64).contains(&batch.photo_views), "batch.photo_views")?;
        in_range(schedule.steps > 0 && schedule.checkpoint > 0, "schedule")?;
        in_range(schedule.rate.is_finite() && schedule.rate > 0.0, "schedule.rate")?;
        in_range((0.0..1.0).contains(&schedule.average), "schedule.average")?;
        in_range((0.0..=1.0).contains(&self.network.blend), "network.blend")?;
        let contrasts = loss.contrast > 0.0 || loss.contrast_pseudo > 0.0;
        // Sums of exponentials of 1 / temperature must stay within single precision.
        in_range(!contrasts || loss.temperature >= 0.02, "loss.temperature")?;
        let photos_for_shared = self.network.branch == Branch::Sketch || batch.photos > 0;
        in_range(photos_for_shared && (batch.photos == 0 || self.network.branch == Branch::Shared), "batch.photos")?;
        in_range(!contrasts || self.network.branch == Branch::Sketch, "loss.contrast")?;
        in_range(self.shares.values().all(|share| share.is_finite() && *share > 0.0), "shares")?;
        in_range(self.augment.is_in_range(), "augment")
    }
}

fn apply(table: &mut toml::Table, setting: &str) -> Result<(), TrainError> {
    let malformed = || TrainError::Setting { text: setting.to_owned() };
    let (key, value) = setting.split_once('=').ok_or_else(malformed)?;
    let value: toml::Table = toml::from_str(&format!("value = {value}"))?;
    let (path, last) = key.rsplit_once('.').map_or((None, key), |(path, last)| (Some(path), last));
    let mut table = table;
    for part in path.into_iter().flat_map(|path| path.split('.')) {
        let entry = table.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = entry.as_table_mut().ok_or_else(malformed)?;
    }
    table.insert(last.to_owned(), value["value"].clone());
    Ok(())
}

impl Schedule {
    /// The learning rate of step `step`, from 1.
    pub fn rate(&self, step: u64) -> f32 {
        let rise = if self.warm_up > 0 { (step as f64 / self.warm_up as f64).min(1.0) } else { 1.0 };
        let done = step as f64 / self.steps as f64;
        let fall = match self.decay {
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            Decay::Exponential => 0.01f64.powf(done),
        };
        (f64::from(self.rate) * rise * fall) as f32
    }

    /// Decay of the moving average at step `step`, from 1: low at first, so that the start is forgotten.
    pub fn average(&self, step: u64) -> f32 {
        let early = (1.0 + step as f64) / (10.0 + step as f64);
        f64::from(self.average).min(early) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_read_and_written() {
        for name in ["best", "seed"] {
            let config = Config::parse(Config::preset(name).unwrap(), &[]).unwrap();
            assert_eq!(Config::parse(&config.to_toml().unwrap(), &[]).unwrap(), config, "{name}");
        }
        assert!(matches!(Config::preset("worst"), Err(TrainError::Preset { .. })));
    }

    #[test]
    fn settings_change_what_the_file_says() {
        let text = Config::preset("best").unwrap();
        let parse = |setting: &str| Config::parse(text, &[setting.to_owned()]);
        assert_eq!(parse("loss.distill=0.25").unwrap().loss.distill, 0.25);
        assert_eq!(parse("leave_out=[\"QuickDraw\"]").unwrap().leave_out, ["QuickDraw"]);
        assert_eq!(parse("shares={QuickDraw=0.5}").unwrap().shares["QuickDraw"], 0.5);
        assert!(matches!(parse("shares={QuickDraw=0.0}"), Err(TrainError::Range { key: "shares" })));
        assert!(matches!(parse("loss.distil=1.0"), Err(TrainError::Config(_))));
        assert!(matches!(parse("loss"), Err(TrainError::Setting { .. })));
        assert!(matches!(parse("loss.temperature=0.001"), Err(TrainError::Range { key: "loss.temperature" })));
        assert!(matches!(parse("schedule.rate=0.0"), Err(TrainError::Range { key: "schedule.rate" })));
    }

    #[test]
    fn trainings_share_views_that_come_out_the_same() {
        let with = |setting: &str| Config::parse(Config::preset("best").unwrap(), &[setting.to_owned()]).unwrap();
        let best = with("seed=7");
        for setting in ["seed=8", "network.blend=0.1", "leave_out=[]", "batch.sketch_views=9"] {
            assert!(best.shares_views(&with(setting)), "{setting}");
        }
        for setting in ["network.train_from=\"top\"", "augment.sketch.dropout=0.5", "batch.half=false"] {
            assert!(!best.shares_views(&with(setting)), "{setting}");
        }
    }

    #[test]
    fn rates_rise_and_fall() {
        let schedule =
            |decay| Schedule { steps: 100, rate: 0.5, warm_up: 10, decay, average: 0.9, checkpoint: 10, patience: 0 };
        let cosine = schedule(Decay::Cosine);
        assert!(cosine.rate(5) < cosine.rate(10) && cosine.rate(10) > cosine.rate(50));
        assert!(cosine.rate(100).abs() < 1e-6 && (cosine.rate(50) - 0.25).abs() < 1e-6);
        let exponential = schedule(Decay::Exponential);
        assert!((exponential.rate(100) / exponential.rate(50) - 0.1).abs() < 1e-4);
        assert_eq!(cosine.average(1), 2.0 / 11.0);
        assert_eq!(cosine.average(1000), 0.9);
    }
}
