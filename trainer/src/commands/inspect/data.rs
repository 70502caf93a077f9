//! What a folder of data sets contains, and its gaps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::bail;
use rayon::prelude::*;
use sketch_model::inference::encoder::Domain;
use sketch_trainer::data::{Collection, DataSet, Item};
use sketch_trainer::progress::Progress;
use sketch_trainer::thumbnail;

use crate::commands::progress::Bar;

/// Most names in one line.
const NAMED: usize = 8;

pub fn inspect(folder: &Path, decode: bool) -> anyhow::Result<()> {
    let data = DataSet::open(folder)?;
    println!("{:24} {:8} {:>16} {:>16}", "collection", "domain", "train", "val");
    for collection in data.collections() {
        let parts = [data.training(&collection.name), data.validation(&collection.name)];
        let [train, val] = parts.map(|items| format!("{} in {}", items.len(), by_class(&items).len()));
        let domain = if collection.domain == Domain::Sketch { "sketch" } else { "photo" };
        println!("{:24} {domain:8} {train:>16} {val:>16}", collection.name);
    }
    println!("images in classes\n");
    let empty = data.empty().iter().map(|path| path.display().to_string());
    note("empty class folders", empty);
    for collection in data.collections() {
        let classes = by_class(&items(&data, collection));
        let single = classes.into_iter().filter(|(_, count)| *count == 1).map(|(class, _)| class.to_owned());
        note(&format!("classes with one image in \"{}\"", collection.name), single);
    }
    let [drawn, shown] = [Domain::Sketch, Domain::Photo].map(|domain| training_classes(&data, domain));
    note("training classes with drawings but no photos", drawn.difference(&shown).cloned());
    note("training classes with photos but no drawings", shown.difference(&drawn).cloned());
    if decode { decode_all(&data) } else { Ok(()) }
}

fn items<'a>(data: &'a DataSet, collection: &Collection) -> Vec<&'a Item> {
    [data.training(&collection.name), data.validation(&collection.name)].concat()
}

fn by_class<'a>(items: &[&'a Item]) -> BTreeMap<&'a str, usize> {
    let mut classes = BTreeMap::new();
    for item in items.iter().filter(|item| !item.class.is_empty()) {
        *classes.entry(item.class.as_str()).or_default() += 1;
    }
    classes
}

fn training_classes(data: &DataSet, domain: Domain) -> BTreeSet<String> {
    let items = data.of_domain(domain).flat_map(|collection| data.training(&collection.name));
    items.filter(|item| !item.class.is_empty()).map(|item| item.class.clone()).collect()
}

fn note(what: &str, names: impl Iterator<Item = String>) {
    let names: Vec<String> = names.collect();
    if !names.is_empty() {
        let more = if names.len() > NAMED { ", …" } else { "" };
        println!("{what}: {} ({}{more})", names.len(), names[..names.len().min(NAMED)].join(", "));
    }
}

fn decode_all(data: &DataSet) -> anyhow::Result<()> {
    let all: Vec<&Item> = data.collections().iter().flat_map(|collection| items(data, collection)).collect();
    let bar = Bar::of("decoding", all.len());
    let fault = |item: &&Item| -> Option<String> {
        bar.advance(1);
        let bytes = match item.bytes() {
            Ok(bytes) => bytes,
            Err(error) => return Some(format!("{}: {error}", item.label())),
        };
        let fault = match item.collection.domain {
            Domain::Sketch => thumbnail::drawing(&bytes, thumbnail::SIDE).err().map(|error| error.to_string()),
            Domain::Photo => thumbnail::photo(&bytes).err().map(|error| error.to_string()),
        };
        fault.map(|fault| format!("{}: {fault}", item.label()))
    };
    let faults: Vec<String> = all.par_iter().filter_map(fault).collect();
    drop(bar);
    faults.iter().for_each(|fault| println!("{fault}"));
    if !faults.is_empty() {
        bail!("{} of {} images cannot be used", faults.len(), all.len());
    }
    println!("all {} images can be used", all.len());
    Ok(())
}
