//! What a training does, as TOML. Unknown keys are refused.

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
    /// Name of the network that comes out.
    pub name: String,
    /// Decides all that is random.
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
    /// Collections that are left out, by their names.
    #[serde(default)]
    pub leave_out: Vec<String>,
}

/// What of the network trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// First layer that trains, by its name; what comes before is run once over every view. Empty trains all.
    pub train_from: String,
    pub branch: Branch,
    #[serde(default)]
    pub head: HeadConfig,
    /// Share of the trained weights in the network that comes out; the rest is of those it started from.
    ///
    /// Source: Wortsman et al., "Robust fine-tuning of zero-shot models", 2022.
    #[serde(default = "one")]
    pub blend: f32,
    /// Whether BatchNormalization takes the statistics of the batch, and the network those that run along.
    #[serde(default)]
    pub live_normalisation: bool,
}

/// Which images the trained layers are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Branch {
    /// Sketches get layers of their own; photos keep those of the network that training starts from.
    Sketch,
    /// One set of layers for both.
    Shared,
}

/// What turns features into an embedding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadConfig {
    /// The network's own; of it the mean of each domain trains.
    #[default]
    Keep,
    /// A linear layer that starts at random, as the patent has it.
    Fresh,
}

/// How many images of each kind a step sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// Drawings, from all collections of sketches alike.
    pub sketches: usize,
    /// Edge maps of photos.
    #[serde(default)]
    pub pseudo_sketches: usize,
    #[serde(default)]
    pub photos: usize,
    /// Views of each sketch, the first of them plain.
    pub sketch_views: u64,
    #[serde(default = "one_view")]
    pub pseudo_views: u64,
    pub photo_views: u64,
    /// Whether what the trunk returns is kept in half precision.
    #[serde(default = "yes")]
    pub half: bool,
}

/// How long, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    pub steps: u64,
    /// Learning rate at its highest.
    pub rate: f32,
    /// Steps in which the rate rises from 0.
    #[serde(default)]
    pub warm_up: u64,
    pub decay: Decay,
    /// How much of the average of weights stays at every step; 0 for no average.
    #[serde(default)]
    pub average: f32,
    /// Steps between checkpoints; validation goes with them.
    pub checkpoint: u64,
    /// Stop after this many checkpoints without a better validation; 0 never does.
    #[serde(default)]
    pub patience: u64,
}

/// How the learning rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    Cosine,
    /// To a hundredth, by the same factor each step.
    Exponential,
}

/// Weights of the losses, 0 for none, and what belongs to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// CE: cross-entropy of a linear classifier over the training classes.
    pub classify: f32,
    /// KD: cross-entropy between the teacher's classes of ImageNet and the student's.
    pub distill: f32,
    /// KD of pseudo-sketches: the teacher has seen their own photo.
    pub distill_pseudo: f32,
    pub distill_head: DistillHead,
    /// DA: Kullback-Leibler divergence of the embedding's channels from normal noise.
    pub align: f32,
    /// Contrast of sketches with all photos: those of the class against those of others.
    pub contrast: f32,
    /// Contrast of pseudo-sketches with all photos: their own against all others.
    pub contrast_pseudo: f32,
    /// Temperature of the contrast.
    pub temperature: f32,
    /// Whether classes without photos are taught by the teacher's classes that mean the same.
    pub anchors: bool,
}

/// Which layer gives the student's classes of ImageNet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DistillHead {
    /// The teacher's own classifier, on the student's features: they have to mean what the teacher's mean.
    #[default]
    Teacher,
    /// A second linear head on the embedding, as the paper's code has it.
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
    /// [`TrainError::Preset`] if there is none of that name.
    pub fn preset(name: &str) -> Result<&'static str, TrainError> {
        match name {
            "best" => Ok(BEST),
            "seed" => Ok(SEED),
            _ => Err(TrainError::Preset { name: name.to_owned() }),
        }
    }

    /// Reads a configuration and changes it by `settings`, each `key=value` with dots in the key: `loss.align=0`.
    ///
    /// # Errors
    /// [`TrainError::Config`] for what is no configuration, [`TrainError::Setting`] for a setting that is none,
    /// [`TrainError::Range`] for numbers that make no sense.
    pub fn parse(text: &str, settings: &[String]) -> Result<Self, TrainError> {
        let mut table: toml::Table = toml::from_str(text)?;
        for setting in settings {
            apply(&mut table, setting)?;
        }
        let config: Self = toml::Value::Table(table).try_into()?;
        config.check()?;
        Ok(config)
    }

    /// Whether views of images that were collected for one are those that the other asks for, but for their seed.
    pub fn shares_views(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.network.train_from, &other.network.train_from);
        ours == theirs && self.augment == other.augment && self.batch.half == other.batch.half
    }

    /// The configuration as TOML, every option spelt out.
    ///
    /// # Errors
    /// None in practice: every field has a form in TOML.
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

    /// How much of the average stays at step `step`, from 1: little at first, so that the start is forgotten.
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
