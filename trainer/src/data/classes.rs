//! `classes.tsv`: the split of each class, and its names in several collections.

use std::collections::HashMap;
use std::path::Path;

use super::DataError;

/// The part of the data that a class belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    Train,
    /// Unseen in training.
    Val,
}

/// Classes by their names.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    splits: HashMap<String, Split>,
    /// Class names by column and by the name in that column's collection.
    names: HashMap<String, HashMap<String, String>>,
}

impl Classes {
    /// Parses the text of the file at `path`: tab-separated columns `class`, `split`, and one column per collection with its
    /// comma-separated names of the class.
    ///
    /// # Errors
    /// [`DataError::Classes`] with the first line that is malformed or repeats a class.
    pub fn parse(text: &str, path: &Path) -> Result<Self, DataError> {
        let malformed = |line: usize| DataError::Classes { path: path.to_owned(), line };
        let mut lines = text.lines().enumerate();
        let header: Vec<&str> = lines.next().map(|(_, line)| line.split('\t').collect()).unwrap_or_default();
        let ["class", "split", columns @ ..] = header.as_slice() else { return Err(malformed(1)) };
        let mut classes = Self::default();
        for (i, line) in lines {
            let fields: Vec<&str> = line.split('\t').collect();
            let [class, split, names @ ..] = fields.as_slice() else { return Err(malformed(i + 1)) };
            let split = match *split {
                "train" => Split::Train,
                "val" => Split::Val,
                _ => return Err(malformed(i + 1)),
            };
            let is_new = classes.splits.insert((*class).to_owned(), split).is_none();
            if !is_new || names.len() != columns.len() {
                return Err(malformed(i + 1));
            }
            for (column, names) in columns.iter().zip(names) {
                let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
                let of_column = classes.names.entry((*column).to_owned()).or_default();
                of_column.extend(names.map(|name| (name.to_owned(), (*class).to_owned())));
            }
        }
        Ok(classes)
    }

    /// Only the named classes are known; they are unseen.
    pub fn unseen(names: &[String]) -> Self {
        Self { splits: names.iter().map(|name| (plain(name), Split::Val)).collect(), names: HashMap::new() }
    }

    /// The class that a collection calls `name`, and its split.
    ///
    /// `column`: the column of the collection's own names, if there is one. An unknown class keeps its name and belongs to the
    /// training split.
    pub fn find(&self, column: Option<&str>, name: &str) -> (String, Split) {
        let own = column.and_then(|column| self.names.get(column)).and_then(|names| names.get(name));
        // A collection may use the common name without an entry in its column.
        let class = own.cloned().unwrap_or_else(|| plain(name));
        let split = self.splits.get(&class).copied().unwrap_or(Split::Train);
        (class, split)
    }

    /// Whether a class is known under its common name.
    pub fn has(&self, class: &str) -> bool {
        self.splits.contains_key(class)
    }
}

/// A name with underscores, as in folder names.
fn plain(name: &str) -> String {
    name.replace(' ', "_")
}
