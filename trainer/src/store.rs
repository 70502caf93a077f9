//! A network on disk: its graph, `NAME.onnx`, with the manifest beside it, `NAME.json`, and maybe a bank of drawings,
//! `NAME.bank`.

use std::fs;
use std::path::{Path, PathBuf};

use sketch_model::hubs::{Bank, BankError};
use sketch_model::inference::encoder::{Encoder, EncoderError, EncoderOptions};
use sketch_model::inference::onnx::{self, ModelProto, OnnxError};
use sketch_model::manifest::{Manifest, ManifestError};

/// Why a network was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("could not read \"{}\"", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("could not write \"{}\"", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("could not use \"{}\"", path.display())]
    Manifest { path: PathBuf, source: ManifestError },
    #[error("could not use \"{}\"", path.display())]
    Graph { path: PathBuf, source: OnnxError },
    #[error("could not use \"{}\"", path.display())]
    Bank { path: PathBuf, source: BankError },
    #[error("network \"{}\" has no input \"domain\"", path.display())]
    NoDomain { path: PathBuf },
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error(transparent)]
    Encoder(#[from] EncoderError),
}

/// Reads a file.
///
/// # Errors
/// [`StoreError::Read`].
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(|source| StoreError::Read { path: path.to_owned(), source })
}

/// Reads a manifest.
///
/// # Errors
/// [`StoreError::Read`], [`StoreError::Manifest`].
pub fn read_manifest(path: &Path) -> Result<Manifest, StoreError> {
    let text = fs::read_to_string(path).map_err(|source| StoreError::Read { path: path.to_owned(), source })?;
    Manifest::from_json(&text).map_err(|source| StoreError::Manifest { path: path.to_owned(), source })
}

/// Reads the bank beside a network; `None` if there is none.
///
/// # Errors
/// [`StoreError::Read`], [`StoreError::Bank`].
pub fn read_bank(network: &Path) -> Result<Option<Bank>, StoreError> {
    let path = network.with_extension("bank");
    if !path.exists() {
        return Ok(None);
    }
    let bank = Bank::from_bytes(&read_bytes(&path)?);
    bank.map(Some).map_err(|source| StoreError::Bank { path, source })
}

/// Reads a graph without its manifest.
///
/// # Errors
/// [`StoreError::Read`], [`StoreError::Graph`].
pub fn read_graph(path: &Path) -> Result<ModelProto, StoreError> {
    onnx::parse(&read_bytes(path)?).map_err(|source| StoreError::Graph { path: path.to_owned(), source })
}

/// Reads a network that takes images of both domains.
///
/// # Errors
/// As [`read_manifest`] and [`read_graph`]; [`StoreError::NoDomain`] if it does not distinguish domains.
pub fn read(path: &Path) -> Result<(ModelProto, Manifest), StoreError> {
    let manifest = read_manifest(&path.with_extension("json"))?;
    let model = read_graph(path)?;
    if manifest.domain_input { Ok((model, manifest)) } else { Err(StoreError::NoDomain { path: path.to_owned() }) }
}

/// Writes a network and its manifest, after loading it once as a check. Returns the files and their sizes in bytes.
///
/// # Errors
/// [`StoreError::Onnx`] and [`StoreError::Encoder`] if the network does not load, [`StoreError::Write`].
pub fn write(
    folder: &Path,
    model: &ModelProto,
    manifest: &Manifest,
    options: &EncoderOptions,
) -> Result<[(PathBuf, usize); 2], StoreError> {
    onnx::check_self_contained(model)?;
    let bytes = onnx::write(model);
    Encoder::load(&bytes, manifest, options)?;
    let json = (manifest.to_json() + "\n").into_bytes();
    fs::create_dir_all(folder).map_err(|source| StoreError::Write { path: folder.to_owned(), source })?;
    let [onnx, json] = [("onnx", bytes), ("json", json)].map(|(extension, bytes)| {
        let path = folder.join(format!("{}.{extension}", manifest.name));
        match fs::write(&path, &bytes) {
            Ok(()) => Ok((path, bytes.len())),
            Err(source) => Err(StoreError::Write { path, source }),
        }
    });
    Ok([onnx?, json?])
}
