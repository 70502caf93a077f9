//! Runs views through the trunk and keeps its output.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use half::f16;
use half::slice::HalfFloatSliceExt;
use ndarray::Array2;
use ort::session::Session;
use rayon::prelude::*;
use sketch_model::inference::encoder::{Domain, EncoderOptions, open_session};
use sketch_model::inference::onnx;
use sketch_model::inference::onnx::messages::ModelProto;
use sketch_model::manifest::Manifest;

use super::TrainError;
use super::cut::{DOMAIN, IMAGE, with_outputs};
use crate::augment::{AugmentError, Augmentation, Kind, Rng, plain_view};
use crate::data::Item;
use crate::engine::session::run;
use crate::engine::{EngineError, Feed};
use crate::progress::Progress;

/// Batch size: larger batches are no faster on a CPU.
const BATCH: usize = 32;
/// Batches that are prepared ahead of the network.
const AHEAD: usize = 2;

/// One view of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct View {
    /// Index of the image in its list.
    pub item: usize,
    /// View 0 is not augmented, except for pseudo-sketches.
    pub number: u64,
    pub kind: Kind,
}

/// Feature maps of views, in order.
#[derive(Clone, Debug, Default)]
pub struct Maps {
    /// Shape of one map.
    pub shape: Vec<usize>,
    values: Values,
}

/// Half precision halves the memory, and its error is small beside augmentation.
#[derive(Clone, Debug)]
enum Values {
    Half(Vec<f16>),
    Single(Vec<f32>),
}

impl Default for Values {
    fn default() -> Self {
        Self::Half(Vec::new())
    }
}

impl Maps {
    fn new(half: bool) -> Self {
        let values = if half { Values::default() } else { Values::Single(Vec::new()) };
        Self { shape: Vec::new(), values }
    }

    fn extend(&mut self, shape: &[usize], more: &[f32]) {
        self.shape = shape.to_vec();
        match &mut self.values {
            Values::Single(values) => values.extend_from_slice(more),
            Values::Half(values) => {
                let start = values.len();
                values.resize(start + more.len(), f16::ZERO);
                values[start..].convert_from_f32_slice(more);
            }
        }
    }

    /// Copies the map of view `row` to `to`, which has the length of one map.
    pub fn read(&self, row: usize, to: &mut [f32]) {
        let range = row * to.len()..(row + 1) * to.len();
        match &self.values {
            Values::Single(values) => to.copy_from_slice(&values[range]),
            Values::Half(values) => values[range].convert_to_f32_slice(to),
        }
    }

    /// Values of one map.
    pub fn length(&self) -> usize {
        self.shape.iter().product()
    }

    /// Memory in bytes.
    pub fn bytes(&self) -> usize {
        match &self.values {
            Values::Single(values) => size_of_val(values.as_slice()),
            Values::Half(values) => size_of_val(values.as_slice()),
        }
    }
}

/// Views of images in their order, with the network's outputs for them.
#[derive(Clone, Debug, Default)]
pub struct ViewOutputs {
    pub views: Vec<View>,
    pub maps: Maps,
    /// One row per view; without columns if not requested.
    pub embeddings: Array2<f32>,
    pub logits: Array2<f32>,
}

impl ViewOutputs {
    /// Copies the map of `view`, one of `views`, to `to`, which has the length of one map.
    pub fn read_map(&self, view: View, to: &mut [f32]) {
        let row = self.views.binary_search(&view);
        debug_assert!(row.is_ok(), "a step draws what was not run");
        self.maps.read(row.unwrap_or_else(|place| place), to);
    }
}

/// Runs views through a network.
pub struct ViewRunner<'a> {
    pub model: &'a ModelProto,
    pub manifest: &'a Manifest,
    pub augmentation: &'a Augmentation,
    pub seed: u64,
    /// Whether maps are kept in half precision.
    pub half: bool,
    pub options: EncoderOptions,
}

impl ViewRunner<'_> {
    /// Runs `views` of `items` and keeps `cut`, if given, and `outputs`: embedding and logits by their names.
    ///
    /// Pseudo-sketches of photos without edges are skipped.
    ///
    /// # Errors
    /// [`TrainError::View`] for the first image that cannot be used, [`TrainError::Engine`] if a run fails.
    pub fn run(
        &self,
        items: &[&Item],
        views: &[View],
        cut: Option<&str>,
        outputs: &[&str],
        progress: &dyn Progress,
    ) -> Result<ViewOutputs, TrainError> {
        let all: Vec<&str> = cut.into_iter().filter(|cut| *cut != IMAGE).chain(outputs.iter().copied()).collect();
        let mut network = LoadedNetwork::open(self, &all)?;
        let (sender, receiver) = sync_channel(AHEAD);
        let mut result = ViewOutputs { maps: Maps::new(self.half), ..ViewOutputs::default() };
        let mut tables: Vec<Vec<f32>> = vec![Vec::new(); outputs.len()];
        thread::scope(|scope| -> Result<(), TrainError> {
            scope.spawn(move || self.prepare(items, views, &sender));
            for batch in receiver {
                let (views, images) = batch?;
                let offered = views.len();
                let mut results = network.run(&views, &images)?;
                if cut == Some(IMAGE) {
                    let size = self.manifest.input.size as usize;
                    result.maps.extend(&[3, size, size], &images);
                } else if cut.is_some() {
                    let (shape, values) = results.remove(0);
                    result.maps.extend(&shape[1..], &values);
                }
                for (table, (_, values)) in tables.iter_mut().zip(results) {
                    table.extend(values);
                }
                result.views.extend(views);
                progress.advance(offered as u64);
            }
            Ok(())
        })?;
        let rows = result.views.len();
        for (name, values) in outputs.iter().zip(tables) {
            let width = values.len() / rows.max(1);
            let table = Array2::from_shape_vec((rows, width), values).unwrap_or_default();
            if *name == super::cut::EMBEDDING { result.embeddings = table } else { result.logits = table }
        }
        Ok(result)
    }

    fn prepare(&self, items: &[&Item], views: &[View], sender: &SyncSender<Batch>) {
        for chunk in views.chunks(BATCH) {
            let prepared: Vec<_> = chunk.par_iter().map(|view| (*view, self.image(items[view.item], view))).collect();
            let mut batch = (Vec::new(), Vec::new());
            for (view, image) in prepared {
                match image {
                    Ok(image) => {
                        batch.0.push(view);
                        batch.1.extend(image);
                    }
                    Err(TrainError::View { source: AugmentError::NoEdges, .. }) => {}
                    Err(error) => {
                        let _ = sender.send(Err(error));
                        return;
                    }
                }
            }
            // The receiver is gone if the network failed.
            if !batch.0.is_empty() && sender.send(Ok(batch)).is_err() {
                return;
            }
        }
    }

    /// The network's input for one view.
    fn image(&self, item: &Item, view: &View) -> Result<Vec<f32>, TrainError> {
        let bytes = item.bytes()?;
        let kind = view.kind as u64;
        let mut rng = Rng::new(&[self.seed, view.item as u64, view.number, kind]);
        let picture = if view.number == 0 && view.kind != Kind::PseudoSketch {
            plain_view(&bytes, view.kind, self.manifest)
        } else {
            self.augmentation.view(&bytes, view.kind, self.manifest, &mut rng)
        };
        let picture = picture.map_err(|source| TrainError::View { label: item.label(), source })?;
        Ok(self.manifest.normalise(&picture))
    }
}

/// Views with their inputs to the network, concatenated.
type Batch = Result<(Vec<View>, Vec<f32>), TrainError>;

/// Shape and values of an output.
type Table = (Vec<usize>, Vec<f32>);

/// The loaded network, if any of its outputs is needed.
struct LoadedNetwork {
    session: Option<Session>,
    outputs: Vec<String>,
    size: usize,
    has_domain: bool,
}

impl LoadedNetwork {
    fn open(runner: &ViewRunner, outputs: &[&str]) -> Result<Self, TrainError> {
        let model = with_outputs(runner.model, outputs);
        let has_domain = model.graph.iter().flat_map(|graph| &graph.input).any(|input| input.name() == DOMAIN);
        let session = match outputs {
            [] => None,
            _ => Some(open_session(&onnx::write(&model), &runner.options)?.0),
        };
        let outputs = outputs.iter().map(|&name| name.to_owned()).collect();
        Ok(Self { session, outputs, size: runner.manifest.input.size as usize, has_domain })
    }

    fn run(&mut self, views: &[View], images: &[f32]) -> Result<Vec<Table>, TrainError> {
        let Some(session) = &mut self.session else { return Ok(Vec::new()) };
        let count = views.len();
        let image = Feed::Floats(vec![count, 3, self.size, self.size], images.to_vec());
        let mut feeds = vec![(IMAGE.to_owned(), image)];
        if self.has_domain {
            let domains = views.iter().map(|view| domain(view.kind) as i64).collect();
            feeds.push((DOMAIN.to_owned(), Feed::Integers(vec![count], domains)));
        }
        let extract = |(_, value): (String, ort::value::DynValue)| {
            let (shape, values) = value.try_extract_tensor::<f32>().map_err(EngineError::Run)?;
            Ok((shape.iter().map(|&size| size as usize).collect(), values.to_vec()))
        };
        run(session, feeds, &self.outputs)?.into_iter().map(extract).collect()
    }
}

/// The domain of a view.
pub fn domain(kind: Kind) -> Domain {
    match kind {
        Kind::Photo => Domain::Photo,
        Kind::Sketch | Kind::PseudoSketch => Domain::Sketch,
    }
}
