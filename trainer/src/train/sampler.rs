//! Samples the images of a step from seed and step alone, so that a resumed training sees the same images.

use std::collections::BTreeMap;

use super::bank::Classes;
use super::config::Config;
use super::views::View;
use crate::augment::{Kind, Rng};
use crate::data::Item;

/// One image of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub view: View,
    pub class: Option<usize>,
}

/// Views by collection and class. Collections are sampled by their shares, the classes of each with equal probability.
#[derive(Clone, Debug, Default)]
struct Pool {
    kind: Option<Kind>,
    /// The sum of the shares up to each collection, and its views.
    collections: Vec<(f32, Vec<Vec<Row>>)>,
}

impl Pool {
    fn new(
        views: &[View],
        items: &[&Item],
        classes: &Classes,
        kind: Kind,
        share: impl Fn(&str) -> f32,
        wanted: impl Fn(&Item, Option<usize>) -> bool,
    ) -> Self {
        let mut collections: BTreeMap<String, BTreeMap<Option<usize>, Vec<Row>>> = BTreeMap::new();
        for &view in views {
            let item = items[view.item];
            let class = classes.number(&item.class);
            if view.kind == kind && wanted(item, class) {
                let collection = item.collection.name.clone();
                let of_class = collections.entry(collection).or_default().entry(class).or_default();
                of_class.push(Row { view, class });
            }
        }
        let mut sum = 0.0;
        let collections = collections.into_iter().map(|(name, classes)| {
            sum += share(&name);
            (sum, classes.into_values().collect())
        });
        Self { kind: Some(kind), collections: collections.collect() }
    }

    fn is_empty(&self) -> bool {
        self.collections.is_empty()
    }

    fn draw(&self, rng: &mut Rng) -> Row {
        let sum = self.collections.last().map_or(0.0, |(sum, _)| *sum);
        let place = rng.uniform(0.0, sum);
        let first = self.collections.iter().position(|(sum, _)| place < *sum).unwrap_or(0);
        let classes = &self.collections[first].1;
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

/// Views, and the images that they show.
pub type Views<'a> = (&'a [View], &'a [&'a Item]);

impl Sampler {
    /// Samples of these views of sketches, pseudo-sketches and photos. Only `wanted` images are sampled, and only photos with a
    /// class.
    pub fn new(
        config: &Config,
        sketches: Views,
        pseudo: Views,
        photos: Views,
        classes: &Classes,
        wanted: impl Fn(Kind, &Item) -> bool,
    ) -> Self {
        let share = |name: &str| config.shares.get(name).copied().unwrap_or(1.0);
        let pool = |kind, (views, items): Views| {
            Pool::new(views, items, classes, kind, share, |item, class| {
                wanted(kind, item) && (kind != Kind::Photo || class.is_some())
            })
        };
        let pools = [pool(Kind::Sketch, sketches), pool(Kind::PseudoSketch, pseudo), pool(Kind::Photo, photos)];
        let counts = [config.batch.sketches, config.batch.pseudo_sketches, config.batch.photos];
        Self { seed: config.seed, parts: counts.into_iter().zip(pools).collect() }
    }

    /// The first kind that a batch needs and that has no images.
    pub fn missing(&self) -> Option<Kind> {
        self.parts.iter().find(|(count, pool)| *count > 0 && pool.is_empty()).and_then(|(_, pool)| pool.kind)
    }

    /// The images of step `step`.
    pub fn batch(&self, step: u64) -> Vec<Row> {
        self.draw(step, self.parts.len())
    }

    /// The sketches among them.
    pub fn sketches(&self, step: u64) -> Vec<Row> {
        self.draw(step, 1)
    }

    fn draw(&self, step: u64, parts: usize) -> Vec<Row> {
        let mut rng = Rng::new(&[self.seed, step, 0x62_6174_6368]);
        self.parts[..parts]
            .iter()
            .flat_map(|(count, pool)| (0..*count).map(|_| pool.draw(&mut rng)).collect::<Vec<Row>>())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sketch_model::inference::encoder::Domain;

    use super::*;
    use crate::data::DataSet;

    const DESCRIPTION: &str = "
        [[collection]]
        name = \"pens\"
        domain = \"sketch\"
        layout = \"folders\"
        path = \"pens\"
        [[collection]]
        name = \"pencils\"
        domain = \"sketch\"
        layout = \"folders\"
        path = \"pencils\"";

    #[test]
    fn collections_are_drawn_by_their_shares() {
        let root = std::env::temp_dir().join(format!("sketch-sampler-{}", std::process::id()));
        // Many pens and one pencil: numbers of images do not matter.
        for file in ["pens/cat/1.png", "pens/cat/2.png", "pens/cat/3.png", "pens/dog/4.png", "pencils/cat/5.png"] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), b"").unwrap();
        }
        fs::write(root.join("data.toml"), DESCRIPTION).unwrap();
        let data = DataSet::open(&root).unwrap();
        let items: Vec<&Item> =
            data.of_domain(Domain::Sketch).flat_map(|collection| data.training(&collection.name)).collect();
        let classes = Classes::of(items.iter().copied());
        let views: Vec<View> = (0..items.len()).map(|item| View { item, number: 0, kind: Kind::Sketch }).collect();
        let settings = ["batch.sketches=100", "leave_out=[]", "shares={pencils=0.25}"].map(str::to_owned);
        let config = Config::parse(Config::preset("best").unwrap(), &settings).unwrap();
        let sampler = Sampler::new(&config, (&views, &items), (&[], &[]), (&[], &[]), &classes, |_, _| true);

        let rows: Vec<Row> = (0..100).flat_map(|step| sampler.batch(step)).collect();
        let share = |of: &dyn Fn(&Item) -> bool| {
            rows.iter().filter(|row| of(items[row.view.item])).count() as f32 / rows.len() as f32
        };
        let (pencils, dogs) = (share(&|item| item.collection.name == "pencils"), share(&|item| item.class == "dog"));
        // Four standard deviations of 10,000 draws are 0.016 and 0.02.
        assert!((pencils - 0.2).abs() < 0.016, "{pencils}");
        assert!((dogs - 0.4).abs() < 0.02, "{dogs}");
        assert_eq!(sampler.sketches(7), sampler.batch(7));
        fs::remove_dir_all(root).unwrap();
    }
}
