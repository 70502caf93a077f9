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
    check(digest, &onnx, &manifest)?;
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
    parse(&mut bytes, digest).inspect_err(|_| drop(fs::remove_file(&path)))
}

fn parse(bytes: &mut Vec<u8>, digest: &Sha256Digest) -> Result<(Vec<u8>, Manifest)> {
    let (length, rest) = bytes.split_first_chunk().ok_or_else(|| damaged(digest))?;
    let length = u64::from_le_bytes(*length) as usize;
    let (manifest, _) = rest.split_at_checked(length).ok_or_else(|| damaged(digest))?;
    let manifest = Manifest::from_json(&String::from_utf8_lossy(manifest))?;
    let onnx = bytes.split_off(size_of::<u64>() + length);
    check(digest, &onnx, &manifest)?;
    Ok((onnx, manifest))
}

fn check(digest: &Sha256Digest, onnx: &[u8], manifest: &Manifest) -> Result<()> {
    if manifest.digest(onnx) == *digest { Ok(()) } else { Err(damaged(digest)) }
}

fn damaged(digest: &Sha256Digest) -> SqlError {
    let id = sketch_model::digest::tag(digest);
    SqlError::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "model is damaged")
        .detail(format!("Graph and manifest of model_id {id} do not match their digest."))
}

fn failed(action: &str, path: &Path, error: &io::Error) -> SqlError {
    let code = match error.kind() {
        io::ErrorKind::StorageFull => PgSqlErrorCode::ERRCODE_DISK_FULL,
        _ => PgSqlErrorCode::ERRCODE_IO_ERROR,
    };
    SqlError::new(code, format!("could not {action} file \"{}\"", path.display())).detail(format!("{error}."))
}
