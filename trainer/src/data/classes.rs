//! `classes.tsv`: the split, and one class by its names in three collections.

use std::collections::HashMap;
use std::path::Path;

use super::{Collection, DataError};

/// What a class is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    Train,
    /// Unseen in training.
    Val,
}

/// Classes by their names.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    sketchy: HashMap<String, Split>,
    /// Sketchy's name of a class, by the name in QuickDraw and in Caltech-101.
    quickdraw: HashMap<String, String>,
    caltech101: HashMap<String, String>,
}

impl Classes {
    /// Reads the text of the file at `path`; the names of one collection are separated by commas.
    ///
    /// # Errors
    /// [`DataError::Classes`] with the first line that is malformed or names a class twice.
    pub fn parse(text: &str, path: &Path) -> Result<Self, DataError> {
        let mut classes = Self::default();
        for (i, line) in text.lines().enumerate() {
            let malformed = || DataError::Classes { path: path.to_owned(), line: i + 1 };
            let fields: Vec<&str> = line.split('\t').collect();
            let [class, split, quickdraw, caltech101] = fields.as_slice() else { return Err(malformed()) };
            let split = match (i, *split) {
                (0, "split") => continue,
                (_, "train") => Split::Train,
                (_, "val") => Split::Val,
                _ => return Err(malformed()),
            };
            if classes.sketchy.insert((*class).to_owned(), split).is_some() {
                return Err(malformed());
            }
            for (names, map) in [(quickdraw, &mut classes.quickdraw), (caltech101, &mut classes.caltech101)] {
                let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
                map.extend(names.map(|name| (name.to_owned(), (*class).to_owned())));
            }
        }
        Ok(classes)
    }

    /// The class of a folder or file called `name`, and its split; `None` for a class of Sketchy that has no split.
    ///
    /// A class of QuickDraw or Caltech-101 that is none of Sketchy's is for training under its own name.
    pub fn find(&self, collection: Collection, name: &str) -> Option<(String, Split)> {
        let names = match collection {
            Collection::SketchySketch | Collection::SketchyPhoto => {
                return self.sketchy.get(name).map(|&split| (name.to_owned(), split));
            }
            Collection::QuickDraw => &self.quickdraw,
            Collection::Caltech101 => &self.caltech101,
            Collection::Unlabelled => return Some((String::new(), Split::Train)),
        };
        // A class may go by Sketchy's own name without the file saying so.
        let plain = name.replace(' ', "_");
        let class = names.get(name).cloned().unwrap_or(plain);
        let split = self.sketchy.get(&class).copied().unwrap_or(Split::Train);
        Some((class, split))
    }
}
