//! Samples the images of a step from seed and step alone, so that a resumed training sees the same images.

use std::collections::BTreeMap;

use super::bank::Classes;
use super::config::BatchConfig;
use super::views::{View, ViewOutputs};
use crate::augment::{Kind, Rng};
use crate::data::Item;

/// One image of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub kind: Kind,
    /// Index among the views of its kind.
    pub view: usize,
    /// Index of the image that it is a view of.
    pub item: usize,
    pub class: Option<usize>,
}

/// Views by collection and class. Collections are sampled with equal probability, and so are the classes of each.
#[derive(Clone, Debug, Default)]
struct Pool {
    kind: Option<Kind>,
    collections: Vec<Vec<Vec<Row>>>,
}

impl Pool {
    fn new(
        seen: &ViewOutputs,
        items: &[&Item],
        classes: &Classes,
        kind: Kind,
        wanted: impl Fn(&Item, Option<usize>) -> bool,
    ) -> Self {
        let mut collections: BTreeMap<String, BTreeMap<Option<usize>, Vec<Row>>> = BTreeMap::new();
        for (view, &View { item, kind: seen_as, .. }) in seen.views.iter().enumerate() {
            let class = classes.number(&items[item].class);
            if seen_as == kind && wanted(items[item], class) {
                let collection = items[item].collection.name.clone();
                let of_class = collections.entry(collection).or_default().entry(class).or_default();
                of_class.push(Row { kind, view, item, class });
            }
        }
        let collections = collections.into_values().map(|classes| classes.into_values().collect()).collect();
        Self { kind: Some(kind), collections }
    }

    fn is_empty(&self) -> bool {
        self.collections.is_empty()
    }

    fn draw(&self, rng: &mut Rng) -> Row {
        let classes = &self.collections[rng.index(self.collections.len())];
        let rows = &classes[rng.index(classes.len())];
        rows[rng.index(rows.len())]
    }
}

/// Samples batches.
#[derive(Clone, Debug)]
pub struct Sampler {
    seed: u64,
    parts: Vec<(usize, Pool)>,
}

impl Sampler {
    /// `sketches`, `pseudo`, `photos`: views with the images that they show. Only `wanted` images are sampled, and only photos
    /// with a class.
    pub fn new(
        seed: u64,
        batch: &BatchConfig,
        sketches: (&ViewOutputs, &[&Item]),
        pseudo: (&ViewOutputs, &[&Item]),
        photos: (&ViewOutputs, &[&Item]),
        classes: &Classes,
        wanted: impl Fn(Kind, &Item) -> bool,
    ) -> Self {
        let pool = |kind, (seen, items): (&ViewOutputs, &[&Item])| {
            Pool::new(seen, items, classes, kind, |item, class| {
                wanted(kind, item) && (kind != Kind::Photo || class.is_some())
            })
        };
        let pools = [pool(Kind::Sketch, sketches), pool(Kind::PseudoSketch, pseudo), pool(Kind::Photo, photos)];
        let counts = [batch.sketches, batch.pseudo_sketches, batch.photos];
        Self { seed, parts: counts.into_iter().zip(pools).collect() }
    }

    /// The first kind that a batch needs and that has no images.
    pub fn missing(&self) -> Option<Kind> {
        self.parts.iter().find(|(count, pool)| *count > 0 && pool.is_empty()).and_then(|(_, pool)| pool.kind)
    }

    /// The images of step `step`.
    pub fn batch(&self, step: u64) -> Vec<Row> {
        let mut rng = Rng::new(&[self.seed, step, 0x62_6174_6368]);
        self.parts
            .iter()
            .flat_map(|(count, pool)| (0..*count).map(|_| pool.draw(&mut rng)).collect::<Vec<Row>>())
            .collect()
    }
}
