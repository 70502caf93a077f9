//! `sketch-trainer eval`

mod files;
mod means;
mod sql;

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};
use image::RgbImage;
use ndarray::Array2;

use sketch_trainer::data::{DataSet, Item};
use sketch_trainer::evaluation::{MAIN, Metric, OWN, Search, Summary, plane};
use sketch_trainer::metrics::Scores;
use sketch_trainer::report::{Example, Hit, Map, Report, Section};
use sketch_trainer::thumbnail::{self, SIDE};

use super::RuntimeArguments;

/// How many of the best and of the worst queries a report shows, and how many photos for each.
const SHOWN: usize = 6;
const PHOTOS: usize = 10;

#[derive(clap::Args)]
#[group(id = "ranked", required = true, multiple = false, args = ["model", "url"])]
pub struct Arguments {
    /// Folder of the data sets; the drawings of the split "val" are the queries
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Network to evaluate on the photos of the split "val"
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Database to evaluate instead, as a connection URI; its own operator ranks its stored embeddings
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    files: files::Arguments,
    #[command(flatten)]
    sql: sql::Arguments,
    /// Show all metrics
    #[arg(long)]
    metrics: bool,
    /// Write all metrics, curves and classes as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write an HTML report: curves, classes, a map, the best and the worst queries
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Seed that breaks ties between photos at equal distance
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    runtime: RuntimeArguments,
}

/// A codebook, as on the command line.
#[derive(Clone, Copy, Debug)]
struct CodebookArgument {
    subspaces: usize,
    prototypes: usize,
    weight: f32,
    /// Strength of the hub correction.
    hubs: f32,
}

impl FromStr for CodebookArgument {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let parts: Vec<&str> = text.split(',').collect();
        let (sizes, hubs) = match parts.as_slice() {
            [sizes @ .., hubs] if sizes.len() == 3 => (sizes, hubs.parse()?),
            sizes => (sizes, 0.0),
        };
        let [subspaces, prototypes, weight] = sizes else { bail!("expected M,K,W or M,K,W,H") };
        Ok(Self { subspaces: subspaces.parse()?, prototypes: prototypes.parse()?, weight: weight.parse()?, hubs })
    }
}

impl std::fmt::Display for CodebookArgument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{},{},{},{}", self.subspaces, self.prototypes, self.weight, self.hubs)
    }
}

/// The rankings of one set of queries.
struct Ranked<'a> {
    items: Vec<&'a Item>,
    /// By what the queries were compared with: embeddings, or embeddings fused with a codebook, one search per run.
    searches: Vec<(String, Vec<Search>)>,
    /// Shape `(q, d)`, if known.
    embeddings: Option<Array2<f32>>,
}

/// The photos that are searched.
trait Gallery {
    /// Names and values for the head of a report.
    fn facts(&self) -> Vec<(String, String)>;
    fn classes(&self) -> &[String];
    /// Shape `(g, d)`.
    fn embeddings(&mut self) -> anyhow::Result<Array2<f32>>;
    /// The bytes of a photo.
    fn photo(&mut self, position: usize) -> anyhow::Result<Vec<u8>>;
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let data = DataSet::open(&arguments.data)?;
    let output = match (&arguments.model, &arguments.url) {
        (Some(model), _) => files::evaluate(arguments, model, &data)?,
        (None, Some(url)) => sql::evaluate(arguments, url, &data)?,
        (None, None) => bail!("either --model or --url is required"),
    };
    if let Some(path) = &arguments.json {
        let json = serde_json::to_string_pretty(&output.summaries)?;
        fs::write(path, json + "\n").with_context(|| format!("could not write \"{}\"", path.display()))?;
    }
    if let (Some(path), Some(report)) = (&arguments.report, &output.report) {
        fs::write(path, report.to_html()).with_context(|| format!("could not write \"{}\"", path.display()))?;
        eprintln!("{}", path.display());
    }
    Ok(())
}

/// What goes to files.
#[derive(Default)]
struct Written {
    summaries: Vec<Summary>,
    report: Option<Report>,
}

/// Prints the results of each set when it is done, and collects what goes to files.
struct Printer<'a> {
    arguments: &'a Arguments,
    written: Written,
}

impl<'a> Printer<'a> {
    fn new(arguments: &'a Arguments, facts: Vec<(String, String)>) -> Self {
        let title = "Retrieval of photos by drawings".to_owned();
        let report = arguments.report.as_ref().map(|_| Report { title, facts, sections: Vec::new() });
        Self { arguments, written: Written { summaries: Vec::new(), report } }
    }

    /// Prints a line for each way to store the photos.
    fn set(&mut self, name: &str, ranked: &Ranked, gallery: &mut dyn Gallery) -> anyhow::Result<()> {
        let summarised = |(how, runs): &(String, Vec<Search>)| Some((how.clone(), summary(how, runs)?));
        let summaries: Vec<(String, Summary)> = ranked.searches.iter().filter_map(summarised).collect();
        if let Some((_, first)) = summaries.first() {
            let title = format!("{name}: {} drawings, {} photos", first.queries, first.photos);
            let shown = self.shown(first);
            println!("{title:44}{}", shown.iter().map(|metric| format!("{:>18}", metric.name)).collect::<String>());
        }
        for (how, summary) in &summaries {
            println!("    {how:40}{}", self.shown(summary).into_iter().map(interval).collect::<String>());
        }
        if let Some(report) = &mut self.written.report {
            report.sections.push(section(&summaries, ranked, gallery)?);
        }
        self.written.summaries.extend(summaries.into_iter().map(|(_, summary)| summary));
        Ok(())
    }

    fn shown<'s>(&self, summary: &'s Summary) -> Vec<&'s Metric> {
        let is_main = |(i, metric): &(usize, &Metric)| *i < MAIN || OWN.contains(&metric.name);
        let shown = summary.metrics.iter().enumerate().filter(|metric| self.arguments.metrics || is_main(metric));
        shown.map(|(_, metric)| metric).collect()
    }
}

/// The summary of the first run, with the metrics averaged over all runs.
fn summary(how: &str, runs: &[Search]) -> Option<Summary> {
    let all: Vec<Summary> = runs.iter().map(Search::summary).collect();
    let mean = |i: usize, part: fn(&Metric) -> f64| {
        all.iter().map(|summary| part(&summary.metrics[i])).sum::<f64>() / all.len() as f64
    };
    let mut summary = all.first()?.clone();
    for (i, metric) in summary.metrics.iter_mut().enumerate() {
        let [low, high] = [mean(i, |metric| metric.low), mean(i, |metric| metric.high)];
        *metric = Metric { mean: mean(i, |metric| metric.mean), low, high, ..*metric };
    }
    summary.name = format!("{}, {how}", summary.name);
    Some(summary)
}

fn interval(metric: &Metric) -> String {
    format!("{:6.1} {:>11}", metric.mean, format!("{:.1}-{:.1}", metric.low, metric.high))
}

fn show(scores: &Scores) -> String {
    format!("{:4.1} / {:4.1}", scores.map, scores.precision)
}

fn section(summaries: &[(String, Summary)], ranked: &Ranked, gallery: &mut dyn Gallery) -> anyhow::Result<Section> {
    let (_, runs) = ranked.searches.last().context("nothing was searched")?;
    let search = runs.first().context("nothing was searched")?;
    let map = match &ranked.embeddings {
        Some(queries) => {
            let photos = gallery.embeddings()?;
            let [photos, queries] = plane(photos.view(), queries.view());
            Some(Map { photos: (photos, search.gallery.clone()), queries: (queries, search.queries.clone()) })
        }
        None => None,
    };
    let [best, worst] = search.extremes(SHOWN);
    let mut shown = |queries: Vec<usize>| -> anyhow::Result<Vec<Example>> {
        queries.into_iter().map(|query| show_query(search, query, ranked.items[query], gallery)).collect()
    };
    Ok(Section { summaries: summaries.to_vec(), map, best: shown(best)?, worst: shown(worst)? })
}

fn show_query(search: &Search, query: usize, item: &Item, gallery: &mut dyn Gallery) -> anyhow::Result<Example> {
    let small = |picture: image::DynamicImage| -> RgbImage { thumbnail::fit(&picture, SIDE) };
    let mut photos = Vec::new();
    for photo in search.ranking(query).into_iter().take(PHOTOS) {
        let label = gallery.classes()[photo].clone();
        let picture = thumbnail::photo(&gallery.photo(photo)?).ok().map(small);
        photos.push(Hit { is_right: label == search.queries[query], label, picture });
    }
    let drawing = thumbnail::drawing(&item.bytes()?, SIDE).ok().map(small);
    Ok(Example { label: search.queries[query].clone(), drawing, photos })
}
