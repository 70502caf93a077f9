//! The data sets for training and validation.
//!
//! A folder lists its collections in `data.toml` ([`Description`]). Without that file, this layout is assumed:
//!
//! | path | content |
//! | --- | --- |
//! | `sketchy-mini/sketch/<class>/`, `sketchy-mini/photo/<class>/` | sketches and photos |
//! | `quickdraw/<class>.ndjson` | drawings, one JSON object with strokes per line |
//! | `caltech101/<class>/` | photos |
//! | `unlabelled/` | photos without a class |
//! | `classes.tsv` | the classes of Sketchy, their split, and their names in QuickDraw and Caltech-101 |
//!
//! Classes of the split `val` are unseen: [`DataSet::training`] returns none of their images from any collection.

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

/// Layout of the collections behind this project's measurements.
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
    #[error("line {line} of \"{}\" is not a class, \"train\" or \"val\", and the header's columns, separated by tabs", path.display())]
    Classes { path: PathBuf, line: usize },
    #[error("class \"{class}\" of \"{}\" is not listed in classes.tsv", path.display())]
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
    #[error("\"{}\" contains no images of a data set", path.display())]
    Empty { path: PathBuf },
}

/// The origin of images. Images of one collection share a look that is unrelated to their content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Collection {
    pub name: String,
    /// Its name in evaluations.
    pub title: String,
    pub domain: Domain,
}

/// An image, read on demand.
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
    /// A drawing as text, with its file and line (from 1).
    Line {
        path: Arc<Path>,
        line: usize,
        text: String,
    },
}

impl Item {
    /// The bytes as a user would send them: an image file, or strokes as JSON.
    ///
    /// # Errors
    /// [`DataError::Io`] if the file cannot be read.
    pub fn bytes(&self) -> Result<Vec<u8>, DataError> {
        match &self.source {
            Source::File(path) => fs::read(path).map_err(|source| DataError::Io { path: path.clone(), source }),
            Source::Line { text, .. } => Ok(text.clone().into_bytes()),
        }
    }

    /// Name of the image in messages.
    pub fn label(&self) -> String {
        match &self.source {
            Source::File(path) => path.display().to_string(),
            Source::Line { path, line, .. } => format!("{}:{line}", path.display()),
        }
    }
}

/// All images below one folder, in an order determined by their names.
#[derive(Clone, Debug)]
pub struct DataSet {
    collections: Vec<Arc<Collection>>,
    items: Vec<Item>,
    empty: Vec<PathBuf>,
}

impl DataSet {
    /// Lists the images below `root`, as its `data.toml` describes, if there is one.
    ///
    /// # Errors
    /// [`DataError::Io`] if `root`, its file of classes or a collection cannot be read, [`DataError::Description`],
    /// [`DataError::TwoCollections`], [`DataError::Classes`] and [`DataError::List`] for malformed files,
    /// [`DataError::UnknownClass`] for an unlisted class where classes must be listed, [`DataError::Empty`] without images.
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
            let (images, folders) = list::images(root, described, &collection, &classes)?;
            items.extend(images);
            empty.extend(folders);
            collections.push(collection);
        }
        if items.is_empty() {
            return Err(DataError::Empty { path: root.to_owned() });
        }
        Ok(Self { collections, items, empty })
    }

    /// Digest of all training images: content, class, collection and order.
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

    /// Empty class folders.
    pub fn empty(&self) -> &[PathBuf] {
        &self.empty
    }

    /// Collections of one domain.
    pub fn of_domain(&self, domain: Domain) -> impl Iterator<Item = &Collection> {
        self.collections.iter().map(Arc::as_ref).filter(move |collection| collection.domain == domain)
    }

    /// Training images of the collection of that name.
    pub fn training(&self, collection: &str) -> Vec<&Item> {
        self.select(collection, Split::Train)
    }

    /// Validation images of the collection of that name: their classes are unseen in training.
    pub fn validation(&self, collection: &str) -> Vec<&Item> {
        self.select(collection, Split::Val)
    }

    /// At most `count` photos that show no class of the split `val`: unlabelled ones first, then those of training classes,
    /// evenly spread over each collection.
    pub fn distractors(&self, count: usize) -> Vec<&Item> {
        let mut found: Vec<&Item> = Vec::new();
        for labelled in [false, true] {
            let is_one = |item: &&Item| {
                item.collection.domain == Domain::Photo
                    && item.split == Split::Train
                    && item.class.is_empty() != labelled
            };
            let items: Vec<&Item> = self.items.iter().filter(is_one).collect();
            let wanted = (count - found.len()).min(items.len());
            found.extend((0..wanted).map(|i| items[i * items.len() / wanted]));
        }
        found
    }

    fn select(&self, collection: &str, split: Split) -> Vec<&Item> {
        self.items.iter().filter(|item| item.collection.name == collection && item.split == split).collect()
    }
}

fn read_text(path: &Path) -> Result<String, DataError> {
    fs::read_to_string(path).map_err(|source| DataError::Io { path: path.to_owned(), source })
}
