//! Runs images through a network in batches.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use ndarray::{Array2, ArrayView2, Axis, concatenate};
use sketch_model::inference::encoder::{Domain, Encoder, EncoderError};
use sketch_model::limits::Limits;
use sketch_model::manifest::{Manifest, PrepareError};

use crate::data::{DataError, Item};
use crate::progress::Progress;
use crate::variants::VariantError;

/// Batch size: larger batches are no faster on a CPU.
const BATCH: usize = 16;
/// Batches that are decoded ahead of the network.
const AHEAD: usize = 2;

/// Why features could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("could not prepare \"{label}\"")]
    Prepare { label: String, source: PrepareError },
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    #[error(transparent)]
    Variant(#[from] VariantError),
    #[error("there are no images")]
    NoImages,
}

impl From<(String, PrepareError)> for FeatureError {
    fn from((label, source): (String, PrepareError)) -> Self {
        Self::Prepare { label, source }
    }
}

/// One of the network's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Embedding,
    Features,
}

impl Output {
    fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Features => "features",
        }
    }
}

/// An image in memory, as a user would send it.
#[derive(Clone, Debug)]
pub struct Image {
    pub label: String,
    pub bytes: Vec<u8>,
}

impl Image {
    /// Reads an item of a data set.
    ///
    /// # Errors
    /// [`DataError::Io`] if its file cannot be read.
    pub fn of(item: &Item) -> Result<Self, DataError> {
        Ok(Self { label: item.label(), bytes: item.bytes()? })
    }
}

/// A network with its manifest.
pub struct Network {
    pub encoder: Encoder,
    pub manifest: Manifest,
}

impl Network {
    /// Runs images of one domain through the network while the next batches are read and decoded.
    ///
    /// Returns one row per image, in their order. `progress` advances by one for each.
    ///
    /// # Errors
    /// The first [`FeatureError`], after which no further image is read.
    pub fn extract<I>(
        &mut self,
        images: I,
        domain: Domain,
        output: Output,
        progress: &dyn Progress,
    ) -> Result<Array2<f32>, FeatureError>
    where
        I: Iterator<Item = Result<Image, FeatureError>> + Send,
    {
        let manifest = &self.manifest;
        let encoder = &mut self.encoder;
        let (sender, receiver) = sync_channel(AHEAD);
        thread::scope(|scope| {
            scope.spawn(move || prepare_batches(images, manifest, domain, &sender));
            run_batches(encoder, domain, output, receiver, progress)
        })
    }
}

/// Inputs of the network, concatenated, and their number.
type Batch = Result<(Vec<f32>, usize), FeatureError>;

fn prepare_batches<I>(images: I, manifest: &Manifest, domain: Domain, sender: &SyncSender<Batch>)
where
    I: Iterator<Item = Result<Image, FeatureError>>,
{
    let (mut values, mut count) = (Vec::new(), 0);
    for image in images {
        match image.and_then(|image| prepare(&image, manifest, domain)) {
            Ok(input) => values.extend(input),
            Err(error) => {
                let _ = sender.send(Err(error));
                return;
            }
        }
        count += 1;
        // The receiver is gone if the network failed.
        if count == BATCH && sender.send(Ok((std::mem::take(&mut values), std::mem::take(&mut count)))).is_err() {
            return;
        }
    }
    if count > 0 {
        let _ = sender.send(Ok((values, count)));
    }
}

/// The network's input of an image.
///
/// # Errors
/// [`FeatureError::Prepare`] if it cannot be decoded, or shows nothing.
pub fn prepare(image: &Image, manifest: &Manifest, domain: Domain) -> Result<Vec<f32>, FeatureError> {
    let limits = Limits::default();
    let input = match domain {
        Domain::Sketch => manifest.prepare_sketch(&image.bytes, &limits),
        Domain::Photo => manifest.prepare_photo(&image.bytes, &limits),
    };
    input.map_err(|error| (image.label.clone(), error).into())
}

fn run_batches(
    encoder: &mut Encoder,
    domain: Domain,
    output: Output,
    receiver: Receiver<Batch>,
    progress: &dyn Progress,
) -> Result<Array2<f32>, FeatureError> {
    let mut rows = Vec::new();
    for batch in receiver {
        let (values, count) = batch?;
        rows.push(encoder.run(output.name(), domain, &values, count)?);
        progress.advance(count as u64);
    }
    let views: Vec<ArrayView2<f32>> = rows.iter().map(Array2::view).collect();
    concatenate(Axis(0), &views).map_err(|_| FeatureError::NoImages)
}
