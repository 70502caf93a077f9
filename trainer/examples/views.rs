//! Draws a sheet of augmented views, and measures the throughput of augmentation on one core.
//!
//! Each row has an image, at the left without augmentation (for pseudo-sketches, the photo), then its views.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use image::{RgbImage, imageops};
use sketch_model::manifest::Manifest;
use sketch_trainer::augment::{AugmentError, Augmentation, Kind, Rng, plain_view};
use sketch_trainer::data::{CALTECH, DataSet, Item, QUICKDRAW, SKETCHY_PHOTOS, SKETCHY_SKETCHES, UNLABELLED};

/// Pixels between pictures.
const GAP: u32 = 4;

/// Draws augmented views of training images.
#[derive(Parser)]
struct Arguments {
    /// Folder of the data sets
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Picture to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Manifest of a network
    #[arg(long, value_name = "FILE", default_value = "model/weights/lite0.json")]
    manifest: PathBuf,
    /// Options as TOML, without the heading `[augment]`
    #[arg(long, value_name = "FILE")]
    options: Option<PathBuf>,
    /// Images of each kind
    #[arg(long, default_value_t = 3)]
    rows: usize,
    /// Views of each image
    #[arg(long, default_value_t = 7)]
    views: u64,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Views of each kind to time
    #[arg(long, default_value_t = 300)]
    timed: usize,
}

/// Rows of the sheet: a collection and the kind of its views.
const SHOWN: [(&str, Kind); 6] = [
    (QUICKDRAW, Kind::Sketch),
    (SKETCHY_SKETCHES, Kind::Sketch),
    (CALTECH, Kind::Photo),
    (SKETCHY_PHOTOS, Kind::PseudoSketch),
    (CALTECH, Kind::PseudoSketch),
    (UNLABELLED, Kind::PseudoSketch),
];

struct Studio {
    manifest: Manifest,
    augmentation: Augmentation,
    arguments: Arguments,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| path.display().to_string());
    let manifest = Manifest::from_json(&read(&arguments.manifest)?)?;
    let augmentation = arguments.options.as_ref().map(|path| anyhow::Ok(toml::from_str(&read(path)?)?)).transpose()?;
    let data = DataSet::open(&arguments.data)?;
    let studio = Studio { manifest, augmentation: augmentation.unwrap_or_default(), arguments };
    anyhow::ensure!(studio.augmentation.is_in_range(), "options have a number out of range");
    let mut rows = Vec::new();
    for (collection, kind) in SHOWN {
        let items = data.training(collection);
        if !items.is_empty() {
            rows.extend(studio.rows(&items, kind)?);
            studio.time(&items, collection, kind)?;
        }
    }
    sheet(&rows).save(&studio.arguments.output)?;
    Ok(())
}

impl Studio {
    /// Views of images at even distances in `items`.
    fn rows(&self, items: &[&Item], kind: Kind) -> anyhow::Result<Vec<Vec<RgbImage>>> {
        let positions = (0..self.arguments.rows).map(|row| (2 * row + 1) * items.len() / (2 * self.arguments.rows));
        positions.map(|at| self.row(items[at], at as u64, kind)).collect()
    }

    fn row(&self, item: &Item, number: u64, kind: Kind) -> anyhow::Result<Vec<RgbImage>> {
        let bytes = item.bytes()?;
        let shown = if kind == Kind::PseudoSketch { Kind::Photo } else { kind };
        let mut row = vec![plain_view(&bytes, shown, &self.manifest)?];
        for view in 0..self.arguments.views {
            match self.view(&bytes, kind, number, view) {
                Ok(view) => row.push(view),
                Err(AugmentError::NoEdges) => {}
                Err(error) => return Err(error).with_context(|| item.label()),
            }
        }
        Ok(row)
    }

    fn view(&self, bytes: &[u8], kind: Kind, item: u64, view: u64) -> Result<RgbImage, AugmentError> {
        self.augmentation.view(bytes, kind, &self.manifest, &mut Rng::new(&[self.arguments.seed, item, view]))
    }

    /// Prints the throughput of one core in views per second, including decoding.
    fn time(&self, items: &[&Item], collection: &str, kind: Kind) -> anyhow::Result<()> {
        let step = (items.len() / self.arguments.timed.max(1)).max(1);
        let chosen = items.iter().step_by(step).take(self.arguments.timed);
        let images = chosen.map(|item| item.bytes()).collect::<Result<Vec<_>, _>>()?;
        let start = on_core()?;
        let made = (0..).zip(&images).filter(|(i, bytes)| self.view(bytes, kind, *i, 0).is_ok()).count();
        let rate = images.len() as f64 / (on_core()? - start).as_secs_f64();
        println!("{}, {kind:?}: {rate:.0} views/s, {made} of {} have one", collection, images.len());
        Ok(())
    }
}

/// CPU time of this thread.
///
/// Source: proc_pid_schedstat(5), of Linux.
fn on_core() -> anyhow::Result<Duration> {
    let path = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(path).context(path)?;
    let nanoseconds = text.split_whitespace().next().unwrap_or_default().parse().context(path)?;
    Ok(Duration::from_nanos(nanoseconds))
}

fn sheet(rows: &[Vec<RgbImage>]) -> RgbImage {
    let side = rows.iter().flatten().map(RgbImage::width).max().unwrap_or_default() + GAP;
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default() as u32;
    let mut sheet = RgbImage::from_pixel(columns * side, rows.len() as u32 * side, image::Rgb([200; 3]));
    for (y, row) in rows.iter().enumerate() {
        for (x, picture) in row.iter().enumerate() {
            imageops::replace(&mut sheet, picture, (x as u32 * side).into(), (y as u32 * side).into());
        }
    }
    sheet
}
