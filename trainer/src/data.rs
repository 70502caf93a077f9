//! The data sets for training and validation.
//!
//! A folder says in `data.toml` which collections it has ([`Description`]). Without that file it is taken for one of
//!
//! | folder | what |
//! | --- | --- |
//! | `sketchy-mini/sketch/<class>/`, `sketchy-mini/photo/<class>/` | sketches and photos |
//! | `quickdraw/<class>.ndjson` | drawings, one JSON object with strokes a line |
//! | `caltech101/<class>/` | photos |
//! | `unlabelled/` | photos without a class |
//! | `classes.tsv` | the classes of Sketchy, their split, and their names in QuickDraw and Caltech-101 |
//!
//! A class of the split `val` is unseen: [`DataSet::training`] gives no image of it, from any of the collections.

mod classes;
mod description;
mod list;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sketch_model::digest::{Sha256Digest, sha256};
use sketch_model::inference::encoder::Domain;

pub use classes::{Classes, Split};
pub use description::{Description, Layout};

/// How the collections lie that come with this project's measurements.
const SKETCHY: &str = include_str!("../presets/sketchy.toml");
/// Names of those collections.
pub const SKETCHY_SKETCHES: &str = "Sketchy sketches";
pub const SKETCHY_PHOTOS: &str = "Sketchy photos";
pub const QUICKDRAW: &str = "QuickDraw drawings";
pub const CALTECH: &str = "Caltech-101 photos";
pub const UNLABELLED: &str = "unlabelled photos";

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("could not read \"{}\"", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("line {line} of \"{}\" is not a class and \"train\" or \"val\", with tabs between, and the header's columns", path.display())]
    Classes { path: PathBuf, line: usize },
    #[error("class \"{class}\" of \"{}\" is not named in classes.tsv", path.display())]
    UnknownClass { class: String, path: PathBuf },
    #[error("could not use \"{}\"", path.display())]
    Description { path: PathBuf, source: Box<toml::de::Error> },
    #[error("two collections are called \"{name}\"")]
    TwoCollections { name: String },
    #[error("could not use \"{}\"", path.display())]
    List { path: PathBuf, source: csv::Error },
    #[error("line {line} of \"{}\" has no path", path.display())]
    Row { path: PathBuf, line: u64 },
    #[error("there is no collection \"{name}\"")]
    Collection { name: String },
    #[error("\"{}\" holds none of the data sets", path.display())]
    Empty { path: PathBuf },
}

/// Where an image comes from: images of one collection have a look in common that says nothing about what they show.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Collection {
    pub name: String,
    /// What it is called in evaluations.
    pub title: String,
    pub domain: Domain,
}

/// An image that is read when it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub collection: Arc<Collection>,
    /// The class, by its common name if it has one; empty for unlabelled photos.
    pub class: String,
    pub split: Split,
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    /// A drawing as text, with the file and the line (from 1) that it stood in.
    Line {
        path: Arc<Path>,
        line: usize,
        text: String,
    },
}

impl Item {
    /// The bytes that a user would send: a picture file, or strokes as JSON.
    ///
    /// # Errors
    /// [`DataError::Io`] if the file cannot be read.
    pub fn bytes(&self) -> Result<Vec<u8>, DataError> {
        match &self.source {
            Source::File(path) => fs::read(path).map_err(|source| DataError::Io { path: path.clone(), source }),
            Source::Line { text, .. } => Ok(text.clone().into_bytes()),
        }
    }

    /// What to call the image in a message.
    pub fn label(&self) -> String {
        match &self.source {
            Source::File(path) => path.display().to_string(),
            Source::Line { path, line, .. } => format!("{}:{line}", path.display()),
        }
    }
}

/// All images below one folder, in an order that depends on their names alone.
#[derive(Clone, Debug)]
pub struct DataSet {
    collections: Vec<Arc<Collection>>,
    items: Vec<Item>,
    empty: Vec<PathBuf>,
}

impl DataSet {
    /// Lists the images below `root`, by its `data.toml` if it has one.
    ///
    /// # Errors
    /// [`DataError::Io`] if `root`, its file of classes or a collection cannot be read, [`DataError::Description`],
    /// [`DataError::TwoCollections`], [`DataError::Classes`] and [`DataError::List`] for files that are malformed,
    /// [`DataError::UnknownClass`] for a class without a split where it needs one, [`DataError::Empty`] if there is no image.
    pub fn open(root: &Path) -> Result<Self, DataError> {
        let path = root.join("data.toml");
        let text = if path.exists() { read_text(&path)? } else { SKETCHY.to_owned() };
        let description = Description::parse(&text, &path)?;
        let classes = match &description.classes {
            Some(file) => Classes::parse(&read_text(&root.join(file))?, &root.join(file))?,
            None => Classes::unseen(&description.unseen),
        };
        let (mut collections, mut items, mut empty) = (Vec::new(), Vec::new(), Vec::new());
        for described in &description.collections {
            let collection = Arc::new(Collection {
                name: described.name.clone(),
                title: described.title.clone().unwrap_or_else(|| described.name.clone()),
                domain: described.domain.into(),
            });
            let (found, of_nothing) = list::images(root, described, &collection, &classes)?;
            items.extend(found);
            empty.extend(of_nothing);
            collections.push(collection);
        }
        if items.is_empty() {
            return Err(DataError::Empty { path: root.to_owned() });
        }
        Ok(Self { collections, items, empty })
    }

    /// Digest of all images that training may use: of what they show, where they come from and in which order.
    ///
    /// # Errors
    /// [`DataError::Io`] if one cannot be read.
    pub fn digest(&self) -> Result<Sha256Digest, DataError> {
        let mut digests: Vec<Sha256Digest> = Vec::new();
        for item in self.items.iter().filter(|item| item.split == Split::Train) {
            digests.push(sha256([item.collection.name.as_bytes(), item.class.as_bytes(), &item.bytes()?]));
        }
        Ok(sha256(digests.iter().map(|digest| digest.as_slice())))
    }

    /// All collections, in the order of the description.
    pub fn collections(&self) -> &[Arc<Collection>] {
        &self.collections
    }

    /// The collection of that name.
    ///
    /// # Errors
    /// [`DataError::Collection`] if there is none.
    pub fn collection(&self, name: &str) -> Result<&Arc<Collection>, DataError> {
        let found = self.collections.iter().find(|collection| collection.name == name);
        found.ok_or_else(|| DataError::Collection { name: name.to_owned() })
    }

    /// Class folders with nothing in them.
    pub fn empty(&self) -> &[PathBuf] {
        &self.empty
    }

    /// Collections of one domain.
    pub fn of_domain(&self, domain: Domain) -> impl Iterator<Item = &Collection> {
        self.collections.iter().map(Arc::as_ref).filter(move |collection| collection.domain == domain)
    }

    /// Images of the collection of that name that training may use.
    pub fn training(&self, collection: &str) -> Vec<&Item> {
        self.select(collection, Split::Train)
    }

    /// Images of the collection of that name whose classes are unseen in training.
    pub fn validation(&self, collection: &str) -> Vec<&Item> {
        self.select(collection, Split::Val)
    }

    fn select(&self, collection: &str, split: Split) -> Vec<&Item> {
        self.items.iter().filter(|item| item.collection.name == collection && item.split == split).collect()
    }
}

fn read_text(path: &Path) -> Result<String, DataError> {
    fs::read_to_string(path).map_err(|source| DataError::Io { path: path.to_owned(), source })
}
