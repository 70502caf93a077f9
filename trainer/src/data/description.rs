//! `data.toml`: which collections there are, and how their images lie.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sketch_model::inference::encoder::Domain;

use super::DataError;

/// The collections of one folder. Unknown keys are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// File that says which classes are unseen, and what collections call them.
    pub classes: Option<PathBuf>,
    /// Classes that training does not see, if there is no such file.
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
    /// What it is called in evaluations; its name by default.
    pub title: Option<String>,
    pub domain: DomainName,
    pub layout: Layout,
    /// Folder or file, below the folder of the description.
    pub path: PathBuf,
    /// Column of the file of classes that has the collection's own names of them.
    pub names: Option<String>,
    /// Whether the file of classes has to name every class.
    #[serde(default)]
    pub listed: bool,
    /// Whether it may be missing.
    #[serde(default)]
    pub optional: bool,
}

/// How images lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// A folder for each class.
    Folders,
    /// An `.ndjson` file for each class, a drawing a line.
    Drawings,
    /// A CSV file with a header, of which the columns `path` and `class` count.
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
    /// Reads the text of the file at `path`.
    ///
    /// # Errors
    /// [`DataError::Description`] if it is none, [`DataError::TwoCollections`] if two have one name.
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
