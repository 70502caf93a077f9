//! `sketch-trainer query`

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sketch_import::table::{Columns, Ranked, Table, connect};
use sketch_trainer::board::{Board, Cell, DRAWING_SIDE};
use sketch_trainer::thumbnail;

#[derive(clap::Args)]
pub struct Arguments {
    /// Drawings: PNG, JPEG, WebP, SVG, or strokes as JSON
    #[arg(required = true)]
    drawings: Vec<PathBuf>,
    /// Database to query, as a connection URI
    #[arg(long)]
    url: String,
    /// Table of photos that sketch_enable prepared
    #[arg(long)]
    table: String,
    /// Number of photos per drawing
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=50))]
    limit: u32,
    /// Picture to write, with a row per drawing and its photos beside it
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Column of a photo's bytes
    #[arg(long, default_value = "image")]
    image_column: String,
    /// Column of a photo's name
    #[arg(long, default_value = "name")]
    name_column: String,
    /// Column of embeddings to compare with
    #[arg(long, default_value = "fused")]
    embedding_column: String,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut client = connect(&arguments.url)?;
    let columns = Columns { name: arguments.name_column.clone(), image: arguments.image_column.clone(), label: None };
    let table = Table::open(&mut client, &arguments.table, columns)?;
    let mut board = Board::new(arguments.limit as usize);
    for path in &arguments.drawings {
        let bytes = fs::read(path).with_context(|| format!("could not read \"{}\"", path.display()))?;
        let ranked = table
            .rank(&mut client, &arguments.embedding_column, &bytes, arguments.limit)
            .with_context(|| format!("could not rank photos by \"{}\"", path.display()))?;
        if ranked.is_empty() {
            bail!("no photo of table \"{}\" has an embedding in \"{}\"", arguments.table, arguments.embedding_column);
        }
        print(path, &ranked);
        if arguments.output.is_some() {
            board.add_row(drawing_cell(path, &bytes)?, ranked.iter().map(photo_cell).collect());
        }
    }
    if let Some(output) = &arguments.output {
        board.render().save(output).with_context(|| format!("could not write \"{}\"", output.display()))?;
    }
    Ok(())
}

fn print(drawing: &Path, ranked: &[Ranked]) {
    println!("{}", drawing.display());
    for (i, photo) in ranked.iter().enumerate() {
        println!("  {:2}  {:.4}  {}", i + 1, photo.distance, photo.name);
    }
}

fn drawing_cell(path: &Path, bytes: &[u8]) -> anyhow::Result<Cell> {
    let picture = thumbnail::drawing(bytes, DRAWING_SIDE)?;
    Ok(Cell { label: readable(&path.to_string_lossy()), picture: Some(picture) })
}

fn photo_cell(photo: &Ranked) -> Cell {
    // The database could decode the photo; if it has changed since, only its name is shown.
    let picture = thumbnail::photo(&photo.image).ok();
    Cell { label: readable(&photo.name), picture }
}

/// The last part of a path as words.
fn readable(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let name = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    name.replace(['_', '-'], " ")
}
