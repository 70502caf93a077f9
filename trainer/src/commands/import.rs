//! `sketch-trainer import`

use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

use anyhow::{Context, bail};
use image::ImageReader;

use sketch_trainer::folder::{PhotoFile, list_photos};
use sketch_trainer::table::{Columns, Photo, Table, connect};

use super::progress;

/// Photos that are added in one go, and at most so many bytes: what an interrupted import has to do again.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 32 << 20;
/// The largest photo that is sent: PostgreSQL's values end at 1 GB, and no photo comes near.
const MOST_BYTES: u64 = 256 << 20;

#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of PNG, JPEG and WebP files, with folders below it
    folder: PathBuf,
    /// Database to fill, as a connection URI
    #[arg(long)]
    url: String,
    /// Table to fill; photos whose names it has are skipped
    #[arg(long)]
    table: String,
    /// Column for a photo's bytes
    #[arg(long, default_value = "image")]
    image_column: String,
    /// Column for a photo's path below the folder
    #[arg(long, default_value = "name")]
    name_column: String,
    /// Column for the name of the folder that a photo lies in
    #[arg(long)]
    label_column: Option<String>,
    /// Make the table if it is not there
    #[arg(long)]
    create: bool,
}

/// What became of the files.
#[derive(Default)]
struct Count {
    added: usize,
    broken: usize,
    left_out: usize,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let photos = list_photos(&arguments.folder)?;
    if photos.is_empty() {
        bail!("no PNG, JPEG or WebP files in \"{}\"", arguments.folder.display());
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
    let count = add_all(&mut client, &table, &missing)?;
    println!("{} photos added, {} were there already", count.added, found - missing.len());
    if count.broken > 0 {
        println!("{} of them do not look like images", count.broken);
    }
    if count.left_out > 0 {
        println!("{} files of more than {} MB left out", count.left_out, MOST_BYTES >> 20);
    }
    Ok(())
}

fn add_all(client: &mut postgres::Client, table: &Table, photos: &[PhotoFile]) -> anyhow::Result<Count> {
    let bar = progress::bar(photos.len() as u64, "importing photos");
    let mut count = Count::default();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for (i, photo) in photos.iter().enumerate() {
        match read(photo)? {
            Some(photo) => {
                count.broken += usize::from(!looks_like_image(&photo.image));
                bytes += photo.image.len();
                batch.push(photo);
            }
            None => count.left_out += 1,
        }
        if batch.len() == BATCH || bytes >= BATCH_BYTES || i + 1 == photos.len() {
            table.add(client, &batch)?;
            count.added += batch.len();
            bar.set_position(i as u64 + 1);
            (batch, bytes) = (Vec::new(), 0);
        }
    }
    bar.finish_and_clear();
    Ok(count)
}

/// Reads a file; `None` if it is too large to be a photo.
fn read(photo: &PhotoFile) -> anyhow::Result<Option<Photo>> {
    let failed = || format!("could not read \"{}\"", photo.path.display());
    if fs::metadata(&photo.path).with_context(failed)?.len() > MOST_BYTES {
        return Ok(None);
    }
    let image = fs::read(&photo.path).with_context(failed)?;
    Ok(Some(Photo { name: photo.name.clone(), image, label: photo.label.clone() }))
}

/// Whether the file's head is that of an image. The database decodes all of it and says which rows it could not use.
fn looks_like_image(bytes: &[u8]) -> bool {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    reader.is_ok_and(|reader| reader.into_dimensions().is_ok())
}
