//! `data.toml`: the collections and the layout of their images.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sketch_model::inference::encoder::Domain;

use super::DataError;

/// The collections of one folder. Unknown keys are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// File of classes, with their splits and their names in the collections.
    pub classes: Option<PathBuf>,
    /// Classes that training does not see, if there is no file of classes.
    #[serde(default)]
    pub unseen: Vec<String>,
    #[serde(rename = "collection")]
    pub collections: Vec<CollectionDescription>,
}

/// One collection.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectionDescription {
    pub name: String,
    /// Its name in evaluations; by default `name`.
    pub title: Option<String>,
    pub domain: DomainName,
    pub layout: Layout,
    /// Folder or file, relative to the folder of the description.
    pub path: PathBuf,
    /// Column of the file of classes with the collection's own class names.
    pub names: Option<String>,
    /// Whether the file of classes must list every class.
    #[serde(default)]
    pub listed: bool,
    /// Whether it may be missing.
    #[serde(default)]
    pub optional: bool,
}

/// Layout of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// One folder per class.
    Folders,
    /// One `.ndjson` file per class, with a drawing per line.
    Drawings,
    /// A CSV file with a header and the columns `path` and `class`.
    List,
    /// One folder, no classes.
    Unlabelled,
}

/// A domain by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DomainName {
    Sketch,
    Photo,
}

impl From<DomainName> for Domain {
    fn from(name: DomainName) -> Self {
        match name {
            DomainName::Sketch => Self::Sketch,
            DomainName::Photo => Self::Photo,
        }
    }
}

impl Description {
    /// Parses the text of the file at `path`.
    ///
    /// # Errors
    /// [`DataError::Description`] if it is malformed, [`DataError::TwoCollections`] if two collections have the same name.
    pub fn parse(text: &str, path: &Path) -> Result<Self, DataError> {
        let failed = |source| DataError::Description { path: path.to_owned(), source: Box::new(source) };
        let description: Self = toml::from_str(text).map_err(failed)?;
        let names: Vec<&String> = description.collections.iter().map(|collection| &collection.name).collect();
        match names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
            Some((_, name)) => Err(DataError::TwoCollections { name: (*name).clone() }),
            None => Ok(description),
        }
    }
}
