//! `sketch-trainer codebook`

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use sketch_model::codebook::{Codebook, CodebookOptions, Hubs};
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
    /// Network that embeds the photos, with its manifest, and maybe its bank, beside it
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Subspaces: blocks of channels, each with its own prototypes; by default what suits the network
    #[arg(long)]
    subspaces: Option<usize>,
    /// Prototypes of each subspace; by default what suits the number of photos
    #[arg(long)]
    prototypes: Option<usize>,
    /// Weight of a photo's own embedding; its prototypes get the rest
    #[arg(long, default_value_t = CodebookOptions::default().weight)]
    weight: f32,
    /// Strength of the hub correction; by default the bank's, or 0 without a bank
    #[arg(long)]
    hubs: Option<f32>,
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

    let fitting = CodebookOptions::of_gallery(embeddings.dim());
    let (subspaces, prototypes) =
        (arguments.subspaces.unwrap_or(fitting.subspaces), arguments.prototypes.unwrap_or(fitting.prototypes));
    let hubs = match (store::read_bank(&arguments.model)?, arguments.hubs) {
        (_, Some(0.0)) | (None, None) => Hubs::default(),
        (Some(bank), strength) => Hubs { bank: bank.tag(), strength: strength.unwrap_or(bank.correction().strength) },
        (None, Some(_)) => bail!("there is no bank beside \"{}\"", arguments.model.display()),
    };
    let Arguments { weight, seed, .. } = *arguments;
    let options = CodebookOptions { subspaces, prototypes, weight, hubs, seed, ..fitting };
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
