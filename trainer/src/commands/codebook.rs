//! `sketch-trainer codebook`

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use sketch_model::codebook::{Codebook, CodebookOptions};
use sketch_model::inference::encoder::{Domain, Encoder};

use sketch_import::folder::list_photos;
use sketch_import::table::connect;
use sketch_trainer::features::{Image, Network, Output};
use sketch_trainer::store;

use super::RuntimeArguments;
use super::progress::Bar;

#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of PNG, JPEG and WebP files, searched recursively
    photos: PathBuf,
    /// Network that embeds the photos, with its manifest beside it
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Subspaces: blocks of channels, each with its own prototypes
    #[arg(long, default_value_t = 2)]
    subspaces: usize,
    /// Prototypes of each subspace
    #[arg(long, default_value_t = 32)]
    prototypes: usize,
    /// Weight of a photo's own embedding; its prototypes get the rest
    #[arg(long, default_value_t = 0.2)]
    weight: f32,
    /// Seed of k-means
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File to write, in the format of `sketch_load_codebook`
    #[arg(long, value_name = "FILE", required_unless_present = "url")]
    output: Option<PathBuf>,
    /// Database to load it into, as a connection URI
    #[arg(long, requires = "name")]
    url: Option<String>,
    /// Name of the codebook in the database
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    runtime: RuntimeArguments,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let options = arguments.runtime.start()?;
    let onnx = store::read_bytes(&arguments.model)?;
    let manifest = store::read_manifest(&arguments.model.with_extension("json"))?;
    let tag = sketch_model::digest::tag(&manifest.digest(&onnx));
    let encoder = Encoder::load(&onnx, &manifest, &options)?;

    let photos = list_photos(&arguments.photos)?;
    ensure!(!photos.is_empty(), "no PNG, JPEG or WebP files in \"{}\"", arguments.photos.display());
    let bar = Bar::of("photos", photos.len());
    let images = photos.iter().map(|photo| {
        let source = |source| sketch_trainer::data::DataError::Io { path: photo.path.clone(), source };
        Ok(Image { label: photo.path.display().to_string(), bytes: fs::read(&photo.path).map_err(source)? })
    });
    let embeddings = Network { encoder, manifest }.extract(images, Domain::Photo, Output::Embedding, &bar)?;
    drop(bar);

    let Arguments { subspaces, prototypes, weight, seed, .. } = *arguments;
    let options = CodebookOptions { subspaces, prototypes, weight, seed, ..CodebookOptions::default() };
    let json = Codebook::train(embeddings.view(), tag, &options)?.to_json();
    if let Some(path) = &arguments.output {
        fs::write(path, &json).with_context(|| format!("could not write \"{}\"", path.display()))?;
        eprintln!("{}: {subspaces} x {prototypes} prototypes of {} photos", path.display(), photos.len());
    }
    if let (Some(url), Some(name)) = (&arguments.url, &arguments.name) {
        let row = connect(url)?.query_one("SELECT sketch_load_codebook($1, $2::text::jsonb)", &[name, &json])?;
        eprintln!("codebook \"{name}\" loaded, codebook_id {}", row.get::<_, i64>(0));
    }
    Ok(())
}
