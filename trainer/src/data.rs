//! The data sets for training and validation, as folders.
//!
//! | folder | what |
//! | --- | --- |
//! | `sketchy-mini/sketch/<class>/`, `sketchy-mini/photo/<class>/` | sketches and photos |
//! | `quickdraw/<class>.ndjson` | drawings, one JSON object with strokes a line |
//! | `caltech101/<class>/` | photos |
//! | `unlabelled/` | photos without a class |
//! | `classes.tsv` | the classes of Sketchy, their split, and their names in QuickDraw and Caltech-101 |
//!
//! A class of the split `val` is unseen: [`DataSet::training`] gives no image of it, from any of the folders.

mod classes;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sketch_model::digest::{Sha256Digest, sha256};
use sketch_model::encoder::Domain;

pub use classes::{Classes, Split};

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("could not read \"{}\"", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("line {line} of \"{}\" is not \"class, split, quickdraw, caltech101\" with tabs between", path.display())]
    Classes { path: PathBuf, line: usize },
    #[error("class \"{class}\" of \"{}\" is not named in classes.tsv", path.display())]
    UnknownClass { class: String, path: PathBuf },
    #[error("\"{}\" holds none of the data sets", path.display())]
    Empty { path: PathBuf },
}

/// Where an image comes from: images of one collection have a look in common that says nothing about what they show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Collection {
    SketchySketch,
    QuickDraw,
    SketchyPhoto,
    Caltech101,
    Unlabelled,
}

impl Collection {
    pub const ALL: [Self; 5] =
        [Self::SketchySketch, Self::QuickDraw, Self::SketchyPhoto, Self::Caltech101, Self::Unlabelled];

    pub fn domain(self) -> Domain {
        match self {
            Self::SketchySketch | Self::QuickDraw => Domain::Sketch,
            Self::SketchyPhoto | Self::Caltech101 | Self::Unlabelled => Domain::Photo,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::SketchySketch => "Sketchy sketches",
            Self::QuickDraw => "QuickDraw drawings",
            Self::SketchyPhoto => "Sketchy photos",
            Self::Caltech101 => "Caltech-101 photos",
            Self::Unlabelled => "unlabelled photos",
        }
    }
}

/// An image that is read when it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub collection: Collection,
    /// The class, by its name in Sketchy if it has one there; empty for unlabelled photos.
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
    items: Vec<Item>,
}

impl DataSet {
    /// Lists the images below `root`.
    ///
    /// # Errors
    /// [`DataError::Io`] if `root` or its `classes.tsv` cannot be read, [`DataError::Classes`] if that is malformed,
    /// [`DataError::UnknownClass`] for a Sketchy class without a split, [`DataError::Empty`] if there is no image.
    pub fn open(root: &Path) -> Result<Self, DataError> {
        let path = root.join("classes.tsv");
        let classes = Classes::parse(&read_text(&path)?, &path)?;
        let mut items = Vec::new();
        list_classes(&root.join("sketchy-mini/sketch"), Collection::SketchySketch, &classes, &mut items)?;
        list_drawings(&root.join("quickdraw"), &classes, &mut items)?;
        list_classes(&root.join("sketchy-mini/photo"), Collection::SketchyPhoto, &classes, &mut items)?;
        list_classes(&root.join("caltech101"), Collection::Caltech101, &classes, &mut items)?;
        for path in list_folder(&root.join("unlabelled"))? {
            let (collection, split) = (Collection::Unlabelled, Split::Train);
            items.push(Item { collection, class: String::new(), split, source: Source::File(path) });
        }
        if items.is_empty() {
            return Err(DataError::Empty { path: root.to_owned() });
        }
        Ok(Self { items })
    }

    /// Digest of all images that training may use: of what they show, where they come from and in which order.
    ///
    /// # Errors
    /// [`DataError::Io`] if one cannot be read.
    pub fn digest(&self) -> Result<Sha256Digest, DataError> {
        let mut digests: Vec<Sha256Digest> = Vec::new();
        for item in self.items.iter().filter(|item| item.split == Split::Train) {
            digests.push(sha256([item.collection.name().as_bytes(), item.class.as_bytes(), &item.bytes()?]));
        }
        Ok(sha256(digests.iter().map(|digest| digest.as_slice())))
    }

    /// Images of one collection that training may use.
    pub fn training(&self, collection: Collection) -> Vec<&Item> {
        self.select(collection, Split::Train)
    }

    /// Images of one collection whose classes are unseen in training.
    pub fn validation(&self, collection: Collection) -> Vec<&Item> {
        self.select(collection, Split::Val)
    }

    fn select(&self, collection: Collection, split: Split) -> Vec<&Item> {
        self.items.iter().filter(|item| item.collection == collection && item.split == split).collect()
    }
}

/// Adds the files of every class folder below `folder`.
fn list_classes(
    folder: &Path,
    collection: Collection,
    classes: &Classes,
    items: &mut Vec<Item>,
) -> Result<(), DataError> {
    for path in list_folder(folder)?.into_iter().filter(|path| path.is_dir()) {
        let (class, split) = classes.find(collection, &stem(&path)).ok_or_else(|| unknown_class(&path))?;
        for file in list_folder(&path)? {
            items.push(Item { collection, class: class.clone(), split, source: Source::File(file) });
        }
    }
    Ok(())
}

/// Adds the drawings in every `.ndjson` file of `folder`.
fn list_drawings(folder: &Path, classes: &Classes, items: &mut Vec<Item>) -> Result<(), DataError> {
    let collection = Collection::QuickDraw;
    for path in list_folder(folder)?.into_iter().filter(|path| path.extension().is_some_and(|end| end == "ndjson")) {
        let (class, split) = classes.find(collection, &stem(&path)).ok_or_else(|| unknown_class(&path))?;
        let text = read_text(&path)?;
        let path: Arc<Path> = path.into();
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let source = Source::Line { path: Arc::clone(&path), line: i + 1, text: line.to_owned() };
            items.push(Item { collection, class: class.clone(), split, source });
        }
    }
    Ok(())
}

fn unknown_class(path: &Path) -> DataError {
    DataError::UnknownClass { class: stem(path), path: path.to_owned() }
}

/// The class that a folder, or a file of drawings, is named after.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(".ndjson").unwrap_or(&name).to_owned()
}

fn read_text(path: &Path) -> Result<String, DataError> {
    fs::read_to_string(path).map_err(|source| DataError::Io { path: path.to_owned(), source })
}

/// What is in a folder, by name; nothing if there is no such folder.
fn list_folder(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let failed = |source| DataError::Io { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.sort();
    Ok(paths)
}
