//! What a training sees, collected once: views of all images, the bank of photos, validation.

use std::collections::{HashMap, HashSet};

use indicatif::ProgressBar;
use ndarray::Array1;
use sketch_model::encoder::{Domain, EncoderOptions};
use sketch_model::manifest::Manifest;
use sketch_model::onnx::ModelProto;

use super::anchors::built_in;
use super::bank::{Bank, Classes};
use super::config::{Branch, Config};
use super::cut::{EMBEDDING, LOGITS};
use super::plan::Given;
use super::run::Material;
use super::sampler::Sampler;
use super::validation::{Gallery, Queries, Validation};
use super::views::{Seen, View, Viewer};
use super::{Cut, Plan, TrainError};
use crate::augment::Kind;
use crate::data::{Collection, DataSet, Item};
use crate::engine::Tape;

/// Images of the training classes as the trunk and the teacher see them.
pub struct Collected<'a> {
    sketch_items: Vec<&'a Item>,
    photo_items: Vec<&'a Item>,
    sketches: Seen,
    pseudo: Seen,
    photos: Seen,
    classes: Classes,
    bank: Bank,
    targets: HashMap<usize, Array1<f32>>,
    validation: Option<Validation>,
}

impl<'a> Collected<'a> {
    /// Looks at every view of every image once.
    ///
    /// `bar`: makes the progress line for a number of views of some kind.
    ///
    /// # Errors
    /// [`TrainError::NoImages`] if there are no sketches or no photos of training classes, [`TrainError::View`] for an
    /// image that cannot be used, [`TrainError::Layer`] and [`TrainError::Crossing`] if the network cannot be cut.
    pub fn new(
        config: &Config,
        model: &ModelProto,
        manifest: &Manifest,
        data: &'a DataSet,
        options: &EncoderOptions,
        bar: &dyn Fn(u64, &str) -> ProgressBar,
    ) -> Result<Self, TrainError> {
        let is_unknown = |name: &&String| Collection::ALL.iter().all(|known| known.name() != *name);
        if let Some(name) = config.leave_out.iter().find(is_unknown) {
            return Err(TrainError::Collection { name: name.clone() });
        }
        let cut = Cut::before(&Tape::read(model)?, &config.network.train_from)?;
        let (augmentation, half) = (&config.augment, config.batch.half);
        let viewer = Viewer { model, manifest, augmentation, seed: config.seed, half, options: *options };
        let sketch_items = items(config, data, Domain::Sketch);
        let photo_items = items(config, data, Domain::Photo);
        let look = |what: &'static str, items: &[&Item], kind, views, cut: Option<&str>, outputs: &[&str]| {
            if items.is_empty() {
                return Err(TrainError::NoImages { what });
            }
            let views = views_of(items.len(), kind, views);
            let bar = bar(views.len() as u64, what);
            let seen = viewer.look(items, &views, cut, outputs, &bar);
            bar.finish_and_clear();
            seen
        };
        let cut = Some(cut.tensor.as_str());
        let of_photos = cut.filter(|_| config.network.branch == Branch::Shared);
        let batch = &config.batch;
        let photos = look("photos", &photo_items, Kind::Photo, batch.photo_views, of_photos, &[EMBEDDING, LOGITS])?;
        let sketches = look("sketches", &sketch_items, Kind::Sketch, batch.sketch_views, cut, &[])?;
        let pseudo = match batch.pseudo_sketches {
            0 => Seen::default(),
            _ => look("pseudo-sketches", &photo_items, Kind::PseudoSketch, batch.pseudo_views, cut, &[])?,
        };
        let classes = Classes::of(sketch_items.iter().chain(&photo_items).copied());
        let bank = Bank::new(&photos, &photo_items, &classes);
        let anchors = if config.loss.anchors { built_in(bank.probabilities.ncols())? } else { HashMap::new() };
        let targets = bank.targets(&classes, &anchors);
        let validation = validate(config, data, &viewer, cut, bar)?;
        Ok(Self { sketch_items, photo_items, sketches, pseudo, photos, classes, bank, targets, validation })
    }

    /// One line: how many of what.
    pub fn summary(&self) -> String {
        let bytes = self.sketches.maps.bytes() + self.pseudo.maps.bytes() + self.photos.maps.bytes();
        format!(
            "{} views of {} sketches, {} pseudo-sketches, {} views of {} photos, {} classes; {:.1} GB",
            self.sketches.views.len(),
            self.sketch_items.len(),
            self.pseudo.views.len(),
            self.photos.views.len(),
            self.photo_items.len(),
            self.classes.len(),
            bytes as f64 / 1e9
        )
    }

    /// The graph of the training.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn plan(&self, config: &Config, model: &ModelProto, manifest: &Manifest) -> Result<Plan, TrainError> {
        Plan::new(&Given {
            model,
            manifest,
            config,
            map: &self.sketches.maps.shape,
            classes: self.classes.len(),
            bank: self.bank.embeddings.view(),
        })
    }

    /// What the steps draw from.
    ///
    /// # Errors
    /// [`TrainError::NoImages`] if a batch wants images that there are none of.
    pub fn material(&self, config: &Config) -> Result<Material<'_>, TrainError> {
        let sampler = Sampler::new(
            config.seed,
            &config.batch,
            (&self.sketches, &self.sketch_items),
            (&self.pseudo, &self.photo_items),
            (&self.photos, &self.photo_items),
            &self.classes,
            &self.taught(config),
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
            bank: &self.bank,
            classes: &self.classes,
            targets: self.targets.clone(),
            sampler,
            validation: self.validation.clone(),
        })
    }

    /// Classes that some loss of sketches knows a target of.
    fn taught(&self, config: &Config) -> HashSet<usize> {
        if config.loss.classify > 0.0 {
            return (0..self.classes.len()).collect();
        }
        let mut taught = HashSet::new();
        if config.loss.contrast > 0.0 {
            taught.extend(self.bank.classes.iter().flatten());
        }
        if config.loss.distill > 0.0 {
            taught.extend(self.targets.keys());
        }
        taught
    }
}

fn items<'a>(config: &Config, data: &'a DataSet, domain: Domain) -> Vec<&'a Item> {
    let wanted = |collection: &Collection| {
        collection.domain() == domain && !config.leave_out.iter().any(|name| name == collection.name())
    };
    Collection::ALL.into_iter().filter(wanted).flat_map(|collection| data.training(collection)).collect()
}

fn views_of(items: usize, kind: Kind, count: u64) -> Vec<View> {
    (0..items).flat_map(|item| (0..count).map(move |number| View { item, number, kind })).collect()
}

fn validate(
    config: &Config,
    data: &DataSet,
    viewer: &Viewer,
    cut: Option<&str>,
    bar: &dyn Fn(u64, &str) -> ProgressBar,
) -> Result<Option<Validation>, TrainError> {
    let photos = data.validation(Collection::SketchyPhoto);
    if photos.is_empty() {
        return Ok(None);
    }
    let classes = |items: &[&Item]| items.iter().map(|item| item.class.clone()).collect::<Vec<String>>();
    let look = |items: &[&Item], kind, cut: Option<&str>, outputs: &[&str]| {
        let bar = bar(items.len() as u64, "validation");
        let seen = viewer.look(items, &views_of(items.len(), kind, 1), cut, outputs, &bar);
        bar.finish_and_clear();
        seen
    };
    let gallery = match config.network.branch {
        Branch::Sketch => Gallery::Fixed(look(&photos, Kind::Photo, None, &[EMBEDDING])?.embeddings),
        Branch::Shared => Gallery::Maps(look(&photos, Kind::Photo, cut, &[])?.maps),
    };
    let mut queries = Vec::new();
    for (name, collection) in [("val", Collection::SketchySketch), ("val-doodle", Collection::QuickDraw)] {
        let items = data.validation(collection);
        if !items.is_empty() {
            let maps = look(&items, Kind::Sketch, cut, &[])?.maps;
            queries.push(Queries { name: name.to_owned(), maps, classes: classes(&items) });
        }
    }
    Ok(Some(Validation { queries, gallery, classes: classes(&photos) }))
}
