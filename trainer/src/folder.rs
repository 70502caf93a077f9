//! Photos in a folder and the folders below it.

use std::fs;
use std::path::{Path, PathBuf};

/// Ends of file names that are taken for photos.
const ENDS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// Why a folder could not be listed.
#[derive(Debug, thiserror::Error)]
#[error("could not read \"{}\"", path.display())]
pub struct FolderError {
    pub path: PathBuf,
    pub source: std::io::Error,
}

/// A file that is probably a photo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhotoFile {
    pub path: PathBuf,
    /// The path below the folder that was searched, with slashes.
    pub name: String,
    /// The folder that it lies in; empty for the folder that was searched.
    pub label: String,
}

/// Lists the photos in `root` and all folders below it, by name. Links to folders are not followed.
///
/// # Errors
/// [`FolderError`] for the first folder that cannot be read.
pub fn list_photos(root: &Path) -> Result<Vec<PhotoFile>, FolderError> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |source| FolderError { path: folder.clone(), source };
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
        let root = std::env::temp_dir().join(format!("sketch-trainer-folder-{}", std::process::id()));
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
        assert_eq!(list_photos(&root).unwrap_err().path, root);
    }
}
