//! Precomputes what trainings need: the trunk's output for views of all images, the bank of photos, validation.

use std::collections::{BTreeSet, HashMap, HashSet};

use ndarray::Array1;
use sketch_model::inference::encoder::{Domain, EncoderOptions};
use sketch_model::inference::onnx::ModelProto;
use sketch_model::manifest::Manifest;

use super::anchors::built_in;
use super::bank::{Bank, Classes};
use super::config::{BatchConfig, Branch, Config};
use super::cut::{EMBEDDING, LOGITS};
use super::plan::PlanInputs;
use super::run::Material;
use super::sampler::{Sampler, Views};
use super::validation::{Gallery, Queries, Validation};
use super::views::{View, ViewOutputs, ViewRunner};
use super::{Cut, Plan, TrainError};
use crate::augment::Kind;
use crate::data::{Collection, DataSet, Item};
use crate::engine::Tape;
use crate::progress::Progress;

/// Outputs of trunk and teacher for images of the training classes.
pub struct Collected<'a> {
    sketch_items: Vec<&'a Item>,
    /// Of which `sketches` holds those that some step draws.
    sketch_views: Vec<View>,
    photo_items: Vec<&'a Item>,
    sketches: ViewOutputs,
    pseudo: ViewOutputs,
    photos: ViewOutputs,
    classes: Classes,
    validation: Option<Validation>,
}

/// The network to start from.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    pub model: &'a ModelProto,
    pub manifest: &'a Manifest,
    pub options: &'a EncoderOptions,
    pub progress: &'a dyn Progress,
}

impl<'a> Collected<'a> {
    /// Runs every view that a step needs through the network once, for trainings by any of `configs`.
    ///
    /// The first configuration decides seed, augmentation, precision and cut.
    ///
    /// # Errors
    /// [`TrainError::NoImages`] if there are no sketches or no photos of training classes, [`TrainError::View`] for an
    /// image that cannot be used, [`TrainError::Layer`] and [`TrainError::Crossing`] if the network cannot be cut,
    /// [`TrainError::Range`] if there is no configuration.
    pub fn new(configs: &[Config], data: &'a DataSet, start: Start) -> Result<Self, TrainError> {
        let wanted = Wanted::of(configs, data)?;
        let first = wanted.first;
        let cut = Cut::before(&Tape::read(start.model)?, &first.network.train_from)?;
        let runner = ViewRunner {
            model: start.model,
            manifest: start.manifest,
            augmentation: &first.augment,
            seed: first.seed,
            half: first.batch.half,
            options: *start.options,
        };
        let run = |what: &'static str, items: &[&Item], views: &[View], cut: Option<&str>, outputs: &[&str]| {
            if views.is_empty() {
                return Err(TrainError::NoImages { what });
            }
            start.progress.begin(what, views.len() as u64);
            let result = runner.run(items, views, cut, outputs, start.progress);
            start.progress.end();
            result
        };
        let cut = Some(cut.tensor.as_str());
        let of_photos = cut.filter(|_| wanted.has_branch(Branch::Shared));
        let pseudo_views = wanted.most(|batch| if batch.pseudo_sketches > 0 { batch.pseudo_views } else { 0 });
        let (sketch_items, mut photo_items) = (wanted.items(data, Domain::Sketch), wanted.items(data, Domain::Photo));
        // Photos without a class are only used as pseudo-sketches.
        photo_items.retain(|item| pseudo_views > 0 || !item.class.is_empty());
        let classes = Classes::of(sketch_items.iter().chain(&photo_items).copied());
        let views = views_of(photo_items.len(), Kind::Photo, wanted.most(|batch| batch.photo_views));
        let photos = run("photos", &photo_items, &views, of_photos, &[EMBEDDING, LOGITS])?;
        let sketch_views = views_of(sketch_items.len(), Kind::Sketch, wanted.most(|batch| batch.sketch_views));
        let mut drawn = BTreeSet::new();
        for config in configs {
            let taught = Known::of(config, &photos, &photo_items, &classes)?.taught;
            let sketches = (sketch_views.as_slice(), sketch_items.as_slice());
            let sampler = sampler(config, sketches, (&[], &[]), (&[], &[]), &classes, &taught);
            if sampler.missing() == Some(Kind::Sketch) {
                return Err(TrainError::NoImages { what: "sketches" });
            }
            drawn.extend((0..config.schedule.steps).flat_map(|step| sampler.sketches(step)).map(|row| row.view));
        }
        let sketches = run("sketches", &sketch_items, &Vec::from_iter(drawn), cut, &[])?;
        let pseudo = match pseudo_views {
            0 => ViewOutputs::default(),
            count => {
                let views = views_of(photo_items.len(), Kind::PseudoSketch, count);
                run("pseudo-sketches", &photo_items, &views, cut, &[])?
            }
        };
        let validation = validate(&wanted, data, &runner, cut, start.progress)?;
        Ok(Self { sketch_items, sketch_views, photo_items, sketches, pseudo, photos, classes, validation })
    }

    /// Counts in one line.
    pub fn summary(&self) -> String {
        let sketches: HashSet<usize> = self.sketches.views.iter().map(|view| view.item).collect();
        let bytes = self.sketches.maps.bytes() + self.pseudo.maps.bytes() + self.photos.maps.bytes();
        format!(
            "{} views of {} sketches, {} pseudo-sketches, {} views of {} photos, {} classes; {:.1} GB",
            self.sketches.views.len(),
            sketches.len(),
            self.pseudo.views.len(),
            self.photos.views.len(),
            self.photo_items.len(),
            self.classes.len(),
            bytes as f64 / 1e9
        )
    }

    /// The graph of a training on `material`.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn plan(&self, config: &Config, material: &Material, start: Start) -> Result<Plan, TrainError> {
        Plan::new(&PlanInputs {
            model: start.model,
            manifest: start.manifest,
            config,
            map: &self.sketches.maps.shape,
            classes: self.classes.len(),
            bank: material.bank.embeddings.view(),
        })
    }

    /// The data of one training.
    ///
    /// # Errors
    /// [`TrainError::NoImages`] if a batch needs images of a kind that there are none of.
    pub fn material(&self, config: &Config) -> Result<Material<'_>, TrainError> {
        let Known { bank, targets, taught } = Known::of(config, &self.photos, &self.photo_items, &self.classes)?;
        let sampler = sampler(
            config,
            (&self.sketch_views, &self.sketch_items),
            (&self.pseudo.views, &self.photo_items),
            (&self.photos.views, &self.photo_items),
            &self.classes,
            &taught,
        );
        if let Some(kind) = sampler.missing() {
            let what = match kind {
                Kind::Sketch => "sketches",
                Kind::PseudoSketch => "pseudo-sketches",
                Kind::Photo => "photos",
            };
            return Err(TrainError::NoImages { what });
        }
        Ok(Material {
            sketches: &self.sketches,
            pseudo: &self.pseudo,
            photos: &self.photos,
            bank,
            classes: &self.classes,
            targets,
            sampler,
            validation: self.validation.clone().map(|all| Validation { branch: config.network.branch, ..all }),
        })
    }
}

/// What is known of the classes from photos and anchors.
struct Known {
    bank: Bank,
    /// The teacher's probabilities, by class.
    targets: HashMap<usize, Array1<f32>>,
    /// Classes that some loss on sketches has a target for.
    taught: HashSet<usize>,
}

impl Known {
    fn of(config: &Config, photos: &ViewOutputs, items: &[&Item], classes: &Classes) -> Result<Self, TrainError> {
        let bank = Bank::new(photos, items, classes, |item| !leaves_out(config, &item.collection));
        let anchors = if config.loss.anchors { built_in(bank.probabilities.ncols())? } else { HashMap::new() };
        let targets = bank.targets(classes, &anchors);
        let mut taught = HashSet::new();
        if config.loss.classify > 0.0 {
            taught.extend(0..classes.len());
        }
        if config.loss.contrast > 0.0 {
            taught.extend(bank.classes.iter().flatten());
        }
        if config.loss.distill > 0.0 {
            taught.extend(targets.keys());
        }
        Ok(Self { bank, targets, taught })
    }
}

/// Samples of all but the collections that are left out; of sketches, only those that some loss has a target for.
fn sampler(
    config: &Config,
    sketches: Views,
    pseudo: Views,
    photos: Views,
    classes: &Classes,
    taught: &HashSet<usize>,
) -> Sampler {
    let is_taught = |item: &Item| classes.number(&item.class).is_some_and(|class| taught.contains(&class));
    Sampler::new(config, sketches, pseudo, photos, classes, |kind, item| {
        !leaves_out(config, &item.collection) && (kind != Kind::Sketch || is_taught(item))
    })
}

/// The combined requirements of several configurations.
struct Wanted<'a> {
    first: &'a Config,
    configs: &'a [Config],
}

impl<'a> Wanted<'a> {
    fn of(configs: &'a [Config], data: &DataSet) -> Result<Self, TrainError> {
        for name in configs.iter().flat_map(|config| config.leave_out.iter().chain(config.shares.keys())) {
            data.collection(name)?;
        }
        let first = configs.first().ok_or(TrainError::Range { key: "configuration" })?;
        Ok(Self { first, configs })
    }

    fn most(&self, views: impl Fn(&BatchConfig) -> u64) -> u64 {
        self.configs.iter().map(|config| views(&config.batch)).max().unwrap_or_default()
    }

    fn has_branch(&self, branch: Branch) -> bool {
        self.configs.iter().any(|config| config.network.branch == branch)
    }

    /// Training images of all collections that some configuration uses.
    fn items<'b>(&self, data: &'b DataSet, domain: Domain) -> Vec<&'b Item> {
        let is_taken = |collection: &&Collection| self.configs.iter().any(|config| !leaves_out(config, collection));
        data.of_domain(domain).filter(is_taken).flat_map(|collection| data.training(&collection.name)).collect()
    }
}

fn leaves_out(config: &Config, collection: &Collection) -> bool {
    config.leave_out.contains(&collection.name)
}

fn views_of(items: usize, kind: Kind, count: u64) -> Vec<View> {
    (0..items).flat_map(|item| (0..count).map(move |number| View { item, number, kind })).collect()
}

fn validate(
    wanted: &Wanted,
    data: &DataSet,
    runner: &ViewRunner,
    cut: Option<&str>,
    progress: &dyn Progress,
) -> Result<Option<Validation>, TrainError> {
    let classes = |items: &[&Item]| items.iter().map(|item| item.class.clone()).collect::<Vec<String>>();
    let run = |items: &[&Item], kind, cut: Option<&str>, outputs: &[&str]| {
        progress.begin("validation", items.len() as u64);
        let result = runner.run(items, &views_of(items.len(), kind, 1), cut, outputs, progress);
        progress.end();
        result
    };
    let mut galleries = Vec::new();
    for collection in data.of_domain(Domain::Photo) {
        let items = data.validation(&collection.name);
        if items.is_empty() {
            continue;
        }
        let of_photos = cut.filter(|_| wanted.has_branch(Branch::Shared));
        let ViewOutputs { embeddings, maps, .. } = run(&items, Kind::Photo, of_photos, &[EMBEDDING])?;
        let name = if galleries.is_empty() { String::new() } else { format!(", {}", collection.title) };
        galleries.push(Gallery { name, embeddings, maps, classes: classes(&items) });
    }
    let mut queries = Vec::new();
    for collection in data.of_domain(Domain::Sketch) {
        let items = data.validation(&collection.name);
        if !items.is_empty() {
            let maps = run(&items, Kind::Sketch, cut, &[])?.maps;
            queries.push(Queries { name: collection.title.clone(), maps, classes: classes(&items) });
        }
    }
    let is_empty = galleries.is_empty() || queries.is_empty();
    Ok(if is_empty { None } else { Some(Validation { queries, galleries, branch: wanted.first.network.branch }) })
}
