//! A table in a live database, ranked by its own operator.

use anyhow::{Context, ensure};
use ndarray::Array2;
use postgres::{Client, IsolationLevel, Transaction};
use sketch_model::inference::encoder::Domain;

use sketch_import::table::{Columns, Labelled, Table, connect};
use sketch_trainer::data::{DataSet, Item};
use sketch_trainer::evaluation::{Search, own_photos};
use sketch_trainer::progress::Progress;

use super::{Gallery, Printer, Ranked, Written};
use crate::commands::progress::Bar;

/// Most distances that are held in memory: 1 GB.
const MOST_DISTANCES: usize = 250_000_000;

#[derive(clap::Args)]
pub struct Arguments {
    /// Table of photos that sketch_enable prepared
    #[arg(long, requires = "url", required_unless_present = "model")]
    table: Option<String>,
    /// Columns of embeddings to compare with, one after the other
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', default_value = "embedding,fused")]
    embedding_column: Vec<String>,
    /// Column of a photo's file name, which tells the photo that a sketch was drawn after
    #[arg(long)]
    name_column: Option<String>,
    /// Column of a photo's bytes
    #[arg(long, default_value = "image")]
    image_column: String,
    /// Column of a photo's class, with the class names of the drawings
    #[arg(long, default_value = "label")]
    label_column: String,
}

pub fn evaluate(arguments: &super::Arguments, url: &str, data: &DataSet) -> anyhow::Result<Written> {
    let own = &arguments.sql;
    let name = own.table.as_deref().context("--table is required")?;
    let mut client = connect(url)?;
    // All queries must see the same rows.
    let mut transaction = snapshot(&mut client)?;
    let (image, label) = (own.image_column.clone(), Some(own.label_column.clone()));
    let name_column = own.name_column.as_ref().unwrap_or(&own.label_column).clone();
    let table = Table::open(&mut transaction, name, Columns { name: name_column, image, label })?;
    let columns = own.embedding_column.clone();
    let mut photos: Vec<Vec<Labelled>> = Vec::new();
    for column in &columns {
        photos.push(table.labelled(&mut transaction, column)?);
    }
    let photos = same_rows(photos).with_context(|| format!("columns {} differ", columns.join(" and ")))?;
    ensure!(!photos.is_empty(), "no photo of table \"{name}\" has both a class and an embedding");
    let facts = [("table", name.to_owned()), ("embeddings", columns.join(", "))];
    let facts = facts.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let mut printer = Printer::new(arguments, facts.clone());
    let classes = photos.iter().map(|photo| photo.class.clone()).collect();
    let mut gallery = Rows { transaction, table, columns, photos, classes, facts };
    for collection in data.of_domain(Domain::Sketch) {
        let items = data.validation(&collection.name);
        if !items.is_empty() {
            let ranked = gallery.rank(&collection.title, items, arguments)?;
            printer.set(&collection.title, &ranked, &mut gallery)?;
        }
    }
    Ok(printer.written)
}

fn snapshot(client: &mut Client) -> anyhow::Result<Transaction<'_>> {
    let transaction = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    transaction.start().context("could not begin a transaction")
}

/// The rows that have an embedding in each column, if they are the same rows.
fn same_rows(columns: Vec<Vec<Labelled>>) -> anyhow::Result<Vec<Labelled>> {
    let mut columns = columns.into_iter();
    let first = columns.next().unwrap_or_default();
    ensure!(columns.all(|other| other.len() == first.len()), "some photos lack one of the embeddings");
    Ok(first)
}

/// The rows of the table that have a class and an embedding.
struct Rows<'a> {
    transaction: Transaction<'a>,
    table: Table,
    columns: Vec<String>,
    photos: Vec<Labelled>,
    classes: Vec<String>,
    facts: Vec<(String, String)>,
}

impl Rows<'_> {
    fn rank<'b>(
        &mut self,
        name: &str,
        items: Vec<&'b Item>,
        arguments: &super::Arguments,
    ) -> anyhow::Result<Ranked<'b>> {
        let (count, photos) = (items.len(), self.photos.len());
        ensure!(
            count * photos * self.columns.len() <= MOST_DISTANCES,
            "{count} drawings and {photos} photos are too many to hold in memory"
        );
        let bar = Bar::of(name, count);
        let (mut values, mut embeddings) = (vec![Vec::new(); self.columns.len()], Vec::new());
        for item in &items {
            let bytes = item.bytes()?;
            for (column, values) in self.columns.iter().zip(&mut values) {
                let distances = self.table.distances(&mut self.transaction, column, &bytes);
                values.extend(distances.with_context(|| format!("could not rank photos by \"{}\"", item.label()))?);
            }
            if arguments.report.is_some() {
                embeddings.extend(self.table.embed(&mut self.transaction, &bytes)?);
            }
            bar.advance(1);
        }
        drop(bar);
        let labels: Vec<String> = items.iter().map(|item| item.label()).collect();
        let names: Vec<String> = self.photos.iter().map(|photo| photo.name.clone()).collect();
        let own = own_photos(&labels, &names);
        let mut searches = Vec::new();
        for (column, values) in self.columns.iter().zip(values) {
            let search = Search {
                name: name.to_owned(),
                distances: Array2::from_shape_vec((count, photos), values)?,
                queries: items.iter().map(|item| item.class.clone()).collect(),
                gallery: self.classes.clone(),
                own: own.clone(),
                seed: arguments.seed,
            };
            searches.push((column.clone(), vec![search]));
        }
        let embeddings = match embeddings.len() / count {
            0 => None,
            width => Some(Array2::from_shape_vec((count, width), embeddings)?),
        };
        Ok(Ranked { items, searches, embeddings })
    }
}

impl Gallery for Rows<'_> {
    fn facts(&self) -> Vec<(String, String)> {
        self.facts.clone()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn embeddings(&mut self) -> anyhow::Result<Array2<f32>> {
        let values = self.table.embeddings(&mut self.transaction, &self.columns[0])?;
        let width = values.len() / self.photos.len().max(1);
        Ok(Array2::from_shape_vec((self.photos.len(), width), values)?)
    }

    fn photo(&mut self, position: usize) -> anyhow::Result<Vec<u8>> {
        Ok(self.table.image(&mut self.transaction, &self.photos[position].key)?)
    }
}
