//! The file format of codebooks, which the trainer writes and SQL takes as `jsonb`.

use super::{Codebook, CodebookError, Hubs, Length, check_sizes, check_weight};
use ndarray::Array3;
use serde::{Deserialize, Serialize};

const FORMAT: u32 = 1;

/// A codebook as JSON. Floats are written as the shortest decimals that give back the same bits,
/// so they survive `jsonb`, which keeps decimals as they are.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    model: u32,
    subspaces: usize,
    prototypes: usize,
    dimension: usize,
    weight: f32,
    /// Whether fused embeddings are brought to unit length: by one more channel, or else by scaling.
    unit_length: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    channel: bool,
    /// Shape `(m, k, d / m)`, row-major. One flat list costs a reader no more memory than a small multiple of the
    /// text's length, whatever the text says.
    centroids: Vec<f32>,
    /// Absent, as `channel`, where earlier versions have nothing of the kind: they read such a codebook.
    #[serde(default, skip_serializing_if = "is_zero")]
    hubs: f32,
    #[serde(default, skip_serializing_if = "is_zero")]
    bank: u32,
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What every format has.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl Codebook {
    /// Writes the codebook as JSON.
    pub fn to_json(&self) -> String {
        let file = File {
            format: FORMAT,
            model: self.model,
            subspaces: self.subspaces(),
            prototypes: self.prototypes(),
            dimension: self.dimension(),
            weight: self.weight,
            unit_length: self.length != Length::Own,
            channel: self.length == Length::Completed,
            centroids: self.centroids.iter().copied().collect(),
            hubs: self.hubs.strength,
            bank: self.hubs.bank,
        };
        // Numbers and lists of numbers always have a JSON form.
        serde_json::to_string(&file).unwrap_or_default()
    }

    /// Reads a codebook from JSON; the very one that [`Codebook::to_json`] wrote, to the bit.
    ///
    /// # Errors
    /// [`CodebookError::Json`] for a text of another form, [`CodebookError::Format`] for another version's,
    /// [`CodebookError::ValueCount`] if sizes and values do not fit, and as [`Codebook::new`].
    pub fn from_json(text: &str) -> Result<Self, CodebookError> {
        let file: File = serde_json::from_str(text).map_err(|error| other_format(text).unwrap_or(error.into()))?;
        if file.format != FORMAT {
            return Err(CodebookError::Format { format: file.format, expected: FORMAT });
        }
        check_sizes(file.subspaces, file.prototypes, file.dimension)?;
        check_weight(file.weight)?;
        let shape = (file.subspaces, file.prototypes, file.dimension / file.subspaces);
        let actual = file.centroids.len();
        let centroids = Array3::from_shape_vec(shape, file.centroids)
            .map_err(|_| CodebookError::ValueCount { actual, expected: file.prototypes * file.dimension })?;
        let length = match (file.unit_length, file.channel) {
            (false, _) => Length::Own,
            (true, false) => Length::Scaled,
            (true, true) => Length::Completed,
        };
        let codebook = Self::new(centroids, file.weight, file.model)?.with_length(length);
        codebook.with_hubs(Hubs { bank: file.bank, strength: file.hubs })
    }
}

/// Whether a text that could not be read has another format.
fn other_format(text: &str) -> Option<CodebookError> {
    let Version { format } = serde_json::from_str(text).ok()?;
    (format != FORMAT).then_some(CodebookError::Format { format, expected: FORMAT })
}
