//! Embeddings on disk, so that experiments which only rank need not run the network again.

use std::fs;
use std::path::Path;

use ndarray::Array2;
use sketch_model::digest::{Sha256Digest, sha256};
use sketch_model::inference::encoder::Domain;

use crate::data::Item;
use crate::features::{FeatureError, Image, Network, Output};
use crate::progress::Progress;

/// Embeds images of one domain, or reads what an earlier call has left in `folder` for the same network and bytes.
///
/// `model`: digest of the network. Returns one row for each image.
///
/// # Errors
/// As [`Network::extract`]. A file that cannot be read or written only costs time.
pub fn embed(
    network: &mut Network,
    model: &Sha256Digest,
    items: &[&Item],
    domain: Domain,
    folder: Option<&Path>,
    progress: &dyn Progress,
) -> Result<Array2<f32>, FeatureError> {
    let images = || items.iter().map(|item| Ok(Image::of(item)?));
    let Some(folder) = folder else { return network.extract(images(), domain, Output::Embedding, progress) };
    let mut digests = vec![sha256([model.as_slice(), &[domain as u8]])];
    for image in images() {
        digests.push(sha256([image?.bytes.as_slice()]));
    }
    let name: String =
        sha256(digests.iter().map(|digest| digest.as_slice())).iter().map(|byte| format!("{byte:02x}")).collect();
    let path = folder.join(name).with_extension("f32");
    let width = network.manifest.dimension;
    let known = fs::read(&path).ok().filter(|bytes| bytes.len() == 4 * width * items.len());
    if let Some(bytes) = known {
        let values = bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        return Array2::from_shape_vec((items.len(), width), values).map_err(|_| FeatureError::NoImages);
    }
    let rows = network.extract(images(), domain, Output::Embedding, progress)?;
    let bytes: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
    let _ = fs::create_dir_all(folder).and_then(|()| fs::write(&path, bytes));
    Ok(rows)
}
