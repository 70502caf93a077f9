//! How a model reaches the inference worker, which reads no database: in a file that its digest names.
//!
//! A connection writes the file before it sends the first image; it stays until the server starts again. Its folder and
//! prefix are those of the server's temporary files, so that the server removes it then, and backups leave it out.
//!
//! Layout: length of the manifest (u64, little-endian), manifest as JSON, graph.

use crate::error::{Result, SqlError};
use pgrx::PgSqlErrorCode;
use sketch_model::digest::Sha256Digest;
use sketch_model::manifest::Manifest;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Below the data directory, which is the working directory of every process of the server.
const FOLDER: &str = "base/pgsql_tmp";

fn path(digest: &Sha256Digest) -> PathBuf {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Path::new(FOLDER).join(format!("pgsql_tmp_sketch_{hex}"))
}

/// Writes the model of this digest, unless its file is there already; `read` returns its graph and manifest.
///
/// # Errors
/// Those of `read`; if graph and manifest are not those of the digest, or the file cannot be written.
pub fn publish(digest: &Sha256Digest, read: impl FnOnce() -> Result<(Vec<u8>, Manifest)>) -> Result<()> {
    let path = path(digest);
    if path.exists() {
        return Ok(());
    }
    let (onnx, manifest) = read()?;
    if manifest.digest(&onnx) != *digest {
        let id = sketch_model::digest::tag(digest);
        return Err(SqlError::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "model is damaged")
            .detail(format!("Graph and manifest of model_id {id} do not match their digest.")));
    }
    let part = path.with_extension(std::process::id().to_string());
    write(&part, &onnx, &manifest.to_json()).and_then(|()| fs::rename(&part, &path)).map_err(|error| {
        // Nothing reads a file that is not complete.
        let _ = fs::remove_file(&part);
        failed("write", &path, &error)
    })
}

fn write(path: &Path, onnx: &[u8], manifest: &str) -> io::Result<()> {
    if !Path::new(FOLDER).exists() {
        // Two connections may create it at the same time.
        DirBuilder::new().recursive(true).mode(0o700).create(FOLDER)?;
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&(manifest.len() as u64).to_le_bytes())?;
    file.write_all(manifest.as_bytes())?;
    file.write_all(onnx)
}

/// Reads the model of this digest: graph and manifest.
///
/// # Errors
/// If there is no file, or its content is not that of the digest. A damaged file is removed, so that the next connection
/// writes it anew.
pub fn read(digest: &Sha256Digest) -> Result<(Vec<u8>, Manifest)> {
    let path = path(digest);
    let mut bytes = fs::read(&path).map_err(|error| failed("read", &path, &error))?;
    parse(&mut bytes, digest).ok_or_else(|| {
        // If it cannot be removed, the next connection meets it again.
        let _ = fs::remove_file(&path);
        SqlError::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, format!("file \"{}\" is damaged", path.display()))
            .detail("It holds a copy of a model for the inference worker, and was removed.")
            .hint("Try again in some seconds: the next connection writes it anew.")
    })
}

fn parse(bytes: &mut Vec<u8>, digest: &Sha256Digest) -> Option<(Vec<u8>, Manifest)> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (manifest, _) = rest.split_at_checked(length)?;
    let manifest = Manifest::from_json(&String::from_utf8_lossy(manifest)).ok()?;
    let onnx = bytes.split_off(size_of::<u64>() + length);
    (manifest.digest(&onnx) == *digest).then_some((onnx, manifest))
}

fn failed(action: &str, path: &Path, error: &io::Error) -> SqlError {
    let code = match error.kind() {
        io::ErrorKind::StorageFull => PgSqlErrorCode::ERRCODE_DISK_FULL,
        _ => PgSqlErrorCode::ERRCODE_IO_ERROR,
    };
    SqlError::new(code, format!("could not {action} file \"{}\"", path.display())).detail(format!("{error}."))
}
