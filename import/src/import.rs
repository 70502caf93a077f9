//! `pg-sketch import`

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::thread;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use postgres::Client;
use rayon::prelude::*;

use sketch_import::folder::{PhotoFile, find_photos};
use sketch_import::table::{Columns, Photo, Table, connect};
use sketch_model::limits::Limits;
use sketch_model::render::decode::decode_image;

/// Most photos and bytes in a transaction: what an interrupted import has to repeat.
const BATCH: usize = 256;
const BATCH_BYTES: u64 = 32 << 20;
/// Largest photo that is sent; a value in PostgreSQL is limited to 1 GB.
const MOST_BYTES: u64 = 256 << 20;

#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of PNG, JPEG and WebP files, searched recursively; or a CSV file with a column "path"
    #[arg(value_name = "FOLDER|CSV")]
    source: PathBuf,
    /// Database to fill, as a connection URI
    #[arg(long, env = "DATABASE_URL")]
    url: String,
    /// Table to fill; photos whose names are already there are skipped
    #[arg(long)]
    table: String,
    /// Column for a photo's bytes
    #[arg(long, default_value = "image")]
    image_column: String,
    /// Column for a photo's path relative to the folder, or for "name" of the CSV file
    #[arg(long, default_value = "name")]
    name_column: String,
    /// Column for the name of a photo's folder, or for "label" of the CSV file
    #[arg(long)]
    label_column: Option<String>,
    /// Create the table if it does not exist
    #[arg(long)]
    create: bool,
    /// What to do with a file that is not an image
    #[arg(long, value_enum, default_value_t = Broken::Keep)]
    broken: Broken,
}

/// What to do with a file that is not an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Broken {
    /// Import it; the database reports the rows that it could not use.
    Keep,
    /// Skip it and report its name.
    Skip,
    /// Stop before its batch.
    Refuse,
}

/// Counts of files by outcome.
#[derive(Default)]
struct Count {
    added: usize,
    broken: usize,
    left_out: usize,
}

/// One file after reading and decoding.
enum Read {
    Photo(Photo),
    Broken(Photo, String),
    TooLarge,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let photos = find_photos(&arguments.source)?;
    if photos.is_empty() {
        bail!("no PNG, JPEG or WebP files in \"{}\"", arguments.source.display());
    }
    let mut client = connect(&arguments.url)?;
    let columns = Columns {
        name: arguments.name_column.clone(),
        image: arguments.image_column.clone(),
        label: arguments.label_column.clone(),
    };
    let open = if arguments.create { Table::create } else { Table::open };
    let table = open(&mut client, &arguments.table, columns)?;

    let known = table.names(&mut client)?;
    let found = photos.len();
    let missing: Vec<PhotoFile> = photos.into_iter().filter(|photo| !known.contains(&photo.name)).collect();
    let count = add_all(&mut client, &table, &missing, arguments.broken)?;
    println!("{} photos added, {} were there already", count.added, found - missing.len());
    if count.broken > 0 {
        let fate = if arguments.broken == Broken::Keep { "added anyway" } else { "skipped" };
        println!("{} files are not images, {fate}", count.broken);
    }
    if count.left_out > 0 {
        println!("{} files larger than {} MB skipped", count.left_out, MOST_BYTES >> 20);
    }
    Ok(())
}

/// A bar that shows how many photos are done, how fast, and how long the rest takes, if standard error is a terminal.
fn bar(photos: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("importing photos {wide_bar} {pos}/{len} {per_sec:>12} {eta:>5}");
    ProgressBar::new(photos as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Adds the photos in batches, each in its own transaction. While one is sent, the next is read and decoded.
fn add_all(client: &mut Client, table: &Table, photos: &[PhotoFile], broken: Broken) -> anyhow::Result<Count> {
    let bar = bar(photos.len());
    let mut count = Count::default();
    let (sender, receiver) = sync_channel(1);
    thread::scope(|scope| -> anyhow::Result<()> {
        scope.spawn(move || {
            // The receiver is gone once the database has refused a batch.
            for batch in batches(photos) {
                let read: anyhow::Result<Vec<Read>> = batch.par_iter().map(read).collect();
                if sender.send(read).is_err() {
                    break;
                }
            }
        });
        for batch in receiver {
            let batch = batch?;
            let files = batch.len() as u64;
            let chosen = choose(batch, broken, &mut count, &bar)?;
            table.add(client, &chosen)?;
            count.added += chosen.len();
            bar.inc(files);
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    Ok(count)
}

/// Splits the files into batches, limited in count and in bytes.
fn batches(photos: &[PhotoFile]) -> impl Iterator<Item = &[PhotoFile]> {
    let mut rest = photos;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |photo: &&PhotoFile| {
            bytes += fs::metadata(&photo.path).map_or(0, |data| data.len()).min(MOST_BYTES);
            bytes <= BATCH_BYTES
        };
        let count = rest.iter().take(BATCH).take_while(fits).count().max(1).min(rest.len());
        let (batch, later) = rest.split_at(count);
        rest = later;
        (count > 0).then_some(batch)
    })
}

fn choose(batch: Vec<Read>, broken: Broken, count: &mut Count, bar: &ProgressBar) -> anyhow::Result<Vec<Photo>> {
    let mut chosen = Vec::new();
    for read in batch {
        match read {
            Read::Photo(photo) => chosen.push(photo),
            Read::TooLarge => count.left_out += 1,
            Read::Broken(photo, reason) => {
                count.broken += 1;
                match broken {
                    Broken::Keep => chosen.push(photo),
                    Broken::Skip => bar.suspend(|| eprintln!("\"{}\" left out: {reason}", photo.name)),
                    Broken::Refuse => {
                        bail!("\"{}\" is not an image: {reason}; {} photos added", photo.name, count.added)
                    }
                }
            }
        }
    }
    Ok(chosen)
}

/// Reads a file and decodes it as the database will.
fn read(photo: &PhotoFile) -> anyhow::Result<Read> {
    let failed = || format!("could not read \"{}\"", photo.path.display());
    if fs::metadata(&photo.path).with_context(failed)?.len() > MOST_BYTES {
        return Ok(Read::TooLarge);
    }
    let image = fs::read(&photo.path).with_context(failed)?;
    let found = decode_image(&image, &Limits::default()).err();
    let photo = Photo { name: photo.name.clone(), image, label: photo.label.clone() };
    Ok(match found {
        None => Read::Photo(photo),
        Some(error) => Read::Broken(photo, error.to_string()),
    })
}
