//! A table in a live database, ranked by its own operator.

use anyhow::{Context, ensure};
use ndarray::Array2;
use postgres::{Client, IsolationLevel, Transaction};
use sketch_model::inference::encoder::Domain;

use sketch_import::table::{Columns, Key, Table, connect};
use sketch_trainer::data::{DataSet, Item};
use sketch_trainer::evaluation::Search;
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
    /// Column of embeddings to compare with
    #[arg(long, default_value = "fused")]
    embedding_column: String,
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
    let columns = Columns { name: own.label_column.clone(), image, label };
    let table = Table::open(&mut transaction, name, columns)?;
    let (keys, classes): (Vec<Key>, Vec<String>) =
        table.labelled(&mut transaction, &own.embedding_column)?.into_iter().unzip();
    ensure!(
        !keys.is_empty(),
        "no photo of table \"{name}\" has both a class and an embedding in \"{}\"",
        own.embedding_column
    );
    let column = own.embedding_column.clone();
    let facts = [("table", name), ("embeddings", &column)].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut printer = Printer::new(arguments, facts.to_vec());
    Printer::head(std::slice::from_ref(&column));
    let mut gallery = Rows { transaction, table, column, keys, classes, facts: facts.to_vec() };
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

/// The rows of the table that have a class and an embedding.
struct Rows<'a> {
    transaction: Transaction<'a>,
    table: Table,
    column: String,
    keys: Vec<Key>,
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
        let (count, photos) = (items.len(), self.keys.len());
        ensure!(
            count * photos <= MOST_DISTANCES,
            "{count} drawings and {photos} photos are too many to hold in memory"
        );
        let bar = Bar::of(name, count);
        let (mut values, mut embeddings) = (Vec::with_capacity(count * photos), Vec::new());
        for item in &items {
            let bytes = item.bytes()?;
            let distances = self.table.distances(&mut self.transaction, &self.column, &bytes);
            values.extend(distances.with_context(|| format!("could not rank photos by \"{}\"", item.label()))?);
            if arguments.report.is_some() {
                embeddings.extend(self.table.embed(&mut self.transaction, &bytes)?);
            }
            bar.advance(1);
        }
        drop(bar);
        let search = Search {
            name: name.to_owned(),
            distances: Array2::from_shape_vec((count, photos), values)?,
            queries: items.iter().map(|item| item.class.clone()).collect(),
            gallery: self.classes.clone(),
            seed: arguments.seed,
        };
        let embeddings = match embeddings.len() / count {
            0 => None,
            width => Some(Array2::from_shape_vec((count, width), embeddings)?),
        };
        Ok(Ranked { items, searches: vec![(self.column.clone(), vec![search])], embeddings })
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
        let values = self.table.embeddings(&mut self.transaction, &self.column)?;
        let width = values.len() / self.keys.len().max(1);
        Ok(Array2::from_shape_vec((self.keys.len(), width), values)?)
    }

    fn photo(&mut self, position: usize) -> anyhow::Result<Vec<u8>> {
        Ok(self.table.image(&mut self.transaction, &self.keys[position])?)
    }
}
