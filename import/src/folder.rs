//! Lists photos: those in a folder, recursively, or those in a CSV file.

use std::fs;
use std::path::{Path, PathBuf};

/// File name extensions of photos.
const ENDS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// Why photos could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("could not read \"{}\"", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("could not use \"{}\"", path.display())]
    Csv { path: PathBuf, source: csv::Error },
    #[error("\"{}\" has no column \"path\"", path.display())]
    Header { path: PathBuf },
    #[error("line {line} of \"{}\" has no path", path.display())]
    Row { path: PathBuf, line: u64 },
}

/// A file that is a photo by its extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhotoFile {
    pub path: PathBuf,
    /// The path relative to the folder, with slashes; or the CSV file's `name`.
    pub name: String,
    /// The name of its folder, empty at the top; or the CSV file's `label`.
    pub label: String,
}

/// Lists the photos of `source`, a folder or a CSV file.
///
/// # Errors
/// As [`list_photos`] and [`read_csv`].
pub fn find_photos(source: &Path) -> Result<Vec<PhotoFile>, FolderError> {
    if source.is_dir() { list_photos(source) } else { read_csv(source) }
}

/// Reads a CSV file with a header. Column `path` is a photo's file, relative to the CSV file; optional columns are `name`, by
/// default the path, and `label`, by default empty.
///
/// # Errors
/// [`FolderError::Csv`], [`FolderError::Header`], [`FolderError::Row`] for a malformed file.
pub fn read_csv(path: &Path) -> Result<Vec<PhotoFile>, FolderError> {
    let failed = |source| FolderError::Csv { path: path.to_owned(), source };
    let mut reader = csv::Reader::from_path(path).map_err(failed)?;
    let header = reader.headers().map_err(failed)?.clone();
    let column = |name: &str| header.iter().position(|field| field == name);
    let file = column("path").ok_or_else(|| FolderError::Header { path: path.to_owned() })?;
    let (name, label) = (column("name"), column("label"));
    let folder = path.parent().unwrap_or(path);
    let photo = |record: csv::StringRecord| {
        let field = |column: Option<usize>| column.and_then(|column| record.get(column)).unwrap_or_default();
        let line = record.position().map_or(0, csv::Position::line);
        match (field(Some(file)), field(name)) {
            ("", _) => Err(FolderError::Row { path: path.to_owned(), line }),
            (file, "") => {
                Ok(PhotoFile { path: folder.join(file), name: file.to_owned(), label: field(label).to_owned() })
            }
            (file, name) => {
                Ok(PhotoFile { path: folder.join(file), name: name.to_owned(), label: field(label).to_owned() })
            }
        }
    };
    reader.records().map(|record| photo(record.map_err(failed)?)).collect()
}

/// Lists the photos in `root`, recursively, sorted by name. Links to folders are not followed.
///
/// # Errors
/// [`FolderError::Read`] for the first folder that cannot be read.
pub fn list_photos(root: &Path) -> Result<Vec<PhotoFile>, FolderError> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |source| FolderError::Read { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            if entry.file_type().map_err(failed)?.is_dir() {
                folders.push(path);
            } else if is_photo(&path) && path.is_file() {
                found.push(describe(root, path));
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn is_photo(path: &Path) -> bool {
    let end = path.extension().map(|end| end.to_string_lossy().to_ascii_lowercase());
    end.is_some_and(|end| ENDS.contains(&&*end))
}

fn describe(root: &Path, path: PathBuf) -> PhotoFile {
    let below = path.strip_prefix(root).unwrap_or(&path);
    let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
    let name = parts.join("/");
    let label = parts.len().checked_sub(2).map(|i| parts[i].to_string()).unwrap_or_default();
    PhotoFile { name, label, path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_are_found_by_name_below_the_folder() {
        let root = std::env::temp_dir().join(format!("sketch-import-folder-{}", std::process::id()));
        for file in ["b.PNG", "animals/cats/tom.jpg", "animals/a.webp", "animals/notes.txt", "c.jpeg", "png"] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        let photos = list_photos(&root).unwrap();
        fs::remove_dir_all(&root).unwrap();
        let found: Vec<_> = photos.iter().map(|photo| (&*photo.name, &*photo.label)).collect();
        assert_eq!(
            found,
            [("animals/a.webp", "animals"), ("animals/cats/tom.jpg", "cats"), ("b.PNG", ""), ("c.jpeg", "")]
        );
        assert!(matches!(list_photos(&root), Err(FolderError::Read { path, .. }) if path == root));
    }

    #[test]
    fn photos_are_read_from_csv() {
        let path = std::env::temp_dir().join(format!("sketch-import-list-{}.csv", std::process::id()));
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            read_csv(&path)
        };
        let photos = read("label,path,name\ncup,\"a,b.jpg\",first\n,/c.png,\n").unwrap();
        let missing = read("file\na.jpg\n");
        let empty = read("path,label\na.jpg,x\n,y\n");
        let ragged = read("path,label\na.jpg\n");
        fs::remove_file(&path).unwrap();
        let found: Vec<_> = photos.iter().map(|photo| (&*photo.name, &*photo.label)).collect();
        assert_eq!(found, [("first", "cup"), ("/c.png", "")]);
        assert!(photos[0].path.ends_with("a,b.jpg") && photos[1].path == Path::new("/c.png"));
        assert!(matches!(missing, Err(FolderError::Header { .. })));
        assert!(matches!(empty, Err(FolderError::Row { line: 3, .. })));
        assert!(matches!(ragged, Err(FolderError::Csv { .. })));
    }
}
