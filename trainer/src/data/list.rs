//! Lists the images of a collection.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::description::{CollectionDescription, Layout};
use super::{Classes, Collection, DataError, Item, Source, Split, read_text};

/// Lists the images and the empty class folders of the collection `described` below `root`; a missing optional collection
/// has neither.
///
/// # Errors
/// [`DataError::Io`] if a folder or file cannot be read, [`DataError::List`] and [`DataError::Row`] for a malformed list,
/// [`DataError::UnknownClass`] for an unlisted class where classes must be listed.
pub fn images(
    root: &Path,
    described: &CollectionDescription,
    collection: &Arc<Collection>,
    classes: &Classes,
) -> Result<(Vec<Item>, Vec<PathBuf>), DataError> {
    let mut list = List { described, collection, classes, items: Vec::new(), empty: Vec::new() };
    let path = root.join(&described.path);
    if described.optional && !path.exists() {
        return Ok((list.items, list.empty));
    }
    match described.layout {
        Layout::Folders => list.folders(&path)?,
        Layout::Drawings => list.drawings(&path)?,
        Layout::List => list.rows(&path)?,
        Layout::Unlabelled => list.unlabelled(&path)?,
    }
    Ok((list.items, list.empty))
}

struct List<'a> {
    described: &'a CollectionDescription,
    collection: &'a Arc<Collection>,
    classes: &'a Classes,
    items: Vec<Item>,
    empty: Vec<PathBuf>,
}

impl List<'_> {
    fn folders(&mut self, path: &Path) -> Result<(), DataError> {
        for folder in list_folder(path)?.into_iter().filter(|path| path.is_dir()) {
            let class = self.class(&folder)?;
            let files = list_folder(&folder)?;
            if files.is_empty() {
                self.empty.push(folder);
            }
            files.into_iter().for_each(|file| self.add(&class, Source::File(file)));
        }
        Ok(())
    }

    fn drawings(&mut self, path: &Path) -> Result<(), DataError> {
        for file in list_folder(path)?.into_iter().filter(|path| path.extension().is_some_and(|end| end == "ndjson")) {
            let class = self.class(&file)?;
            let text = read_text(&file)?;
            let path: Arc<Path> = file.into();
            for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                self.add(&class, Source::Line { path: Arc::clone(&path), line: i + 1, text: line.to_owned() });
            }
        }
        Ok(())
    }

    fn rows(&mut self, path: &Path) -> Result<(), DataError> {
        let failed = |source| DataError::List { path: path.to_owned(), source };
        let folder = path.parent().unwrap_or(path);
        let mut reader = csv::Reader::from_path(path).map_err(failed)?;
        let header = reader.headers().map_err(failed)?.clone();
        let column = |name: &str| header.iter().position(|field| field == name);
        let (file, class) = (column("path"), column("class"));
        for record in reader.records() {
            let record = record.map_err(failed)?;
            let field = |column: Option<usize>| column.and_then(|column| record.get(column)).unwrap_or_default();
            if field(file).is_empty() {
                let line = record.position().map_or(0, csv::Position::line);
                return Err(DataError::Row { path: path.to_owned(), line });
            }
            let found = match field(class) {
                "" => (String::new(), Split::Train),
                class => self.named(class, path)?,
            };
            self.add(&found, Source::File(folder.join(field(file))));
        }
        Ok(())
    }

    fn unlabelled(&mut self, path: &Path) -> Result<(), DataError> {
        let class = (String::new(), Split::Train);
        list_folder(path)?
            .into_iter()
            .filter(|path| path.is_file())
            .for_each(|file| self.add(&class, Source::File(file)));
        Ok(())
    }

    /// The class that a folder or a file of drawings is named after.
    fn class(&self, path: &Path) -> Result<(String, Split), DataError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.named(name.strip_suffix(".ndjson").unwrap_or(&name), path)
    }

    fn named(&self, name: &str, path: &Path) -> Result<(String, Split), DataError> {
        let (class, split) = self.classes.find(self.described.names.as_deref(), name);
        if self.described.listed && !self.classes.has(&class) {
            return Err(DataError::UnknownClass { class, path: path.to_owned() });
        }
        Ok((class, split))
    }

    fn add(&mut self, (class, split): &(String, Split), source: Source) {
        let collection = Arc::clone(self.collection);
        self.items.push(Item { collection, class: class.clone(), split: *split, source });
    }
}

/// The entries of a folder, sorted by name.
fn list_folder(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let failed = |source| DataError::Io { path: folder.to_owned(), source };
    let entries = fs::read_dir(folder).map_err(failed)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.sort();
    Ok(paths)
}
