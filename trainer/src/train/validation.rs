//! Validation: how well the current weights retrieve unseen classes.

use std::collections::HashMap;

use ndarray::{Array1, Array2, Axis};
use ort::session::Session;
use sketch_model::codebook::{Codebook, CodebookOptions, Length};
use sketch_model::inference::encoder::{Domain, EncoderOptions, open_session};
use sketch_model::inference::onnx;

use super::config::Branch;
use super::cut::{DOMAIN, EMBEDDING};
use super::views::Maps;
use super::{Plan, TrainError};
use crate::engine::session::run;
use crate::engine::{EngineError, Feed};
use crate::metrics::{Scores, distances, score};

/// Weights by name: shape and values.
pub type Weights = HashMap<String, (Vec<usize>, Vec<f32>)>;

/// Sketches of unseen classes, with the trunk's output.
#[derive(Clone, Debug)]
pub struct Queries {
    pub name: String,
    pub maps: Maps,
    pub classes: Vec<String>,
}

/// Photos of unseen classes.
#[derive(Clone, Debug)]
pub struct Gallery {
    /// Suffix of the outcomes' names; empty for the first gallery.
    pub name: String,
    /// Of the starting network. Shape `(n, d)`.
    pub embeddings: Array2<f32>,
    /// Empty if no training has layers that photos share.
    pub maps: Maps,
    pub classes: Vec<String>,
}

/// What validation needs.
#[derive(Clone, Debug)]
pub struct Validation {
    pub queries: Vec<Queries>,
    pub galleries: Vec<Gallery>,
    pub branch: Branch,
}

/// Scores of one set of queries.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub name: String,
    pub embedding: Scores,
    pub fused: Scores,
}

/// The tail alone, without losses.
pub struct Forward {
    session: Session,
    tensor: String,
    batch: usize,
}

impl Forward {
    /// Loads the forward part of a plan.
    ///
    /// # Errors
    /// [`TrainError::Encoder`] if ONNX Runtime refuses it.
    pub fn open(plan: &Plan, options: &EncoderOptions) -> Result<Self, TrainError> {
        let model = plan.tape.model(&[EMBEDDING.to_owned()]);
        let (session, _, _) = open_session(&onnx::write(&model), options)?;
        Ok(Self { session, tensor: plan.cut.tensor.clone(), batch: plan.batch })
    }

    /// Embeds images of one domain: shape `(n, d)`.
    ///
    /// # Errors
    /// [`TrainError::Engine`] if a run fails.
    pub fn embed(
        &mut self,
        maps: &Maps,
        count: usize,
        domain: Domain,
        weights: &Weights,
    ) -> Result<Array2<f32>, TrainError> {
        let (length, mut rows) = (maps.length(), Vec::new());
        for start in (0..count).step_by(self.batch) {
            // The graph has a fixed batch size; the last image fills up the last batch.
            let mut values = vec![0.0; self.batch * length];
            for (i, to) in values.chunks_exact_mut(length).enumerate() {
                maps.read((start + i).min(count - 1), to);
            }
            let shape = [self.batch].iter().chain(&maps.shape).copied().collect();
            let domains = vec![domain as i64; self.batch];
            let mut feeds = vec![(self.tensor.clone(), Feed::Floats(shape, values))];
            feeds.push((DOMAIN.to_owned(), Feed::Integers(vec![self.batch], domains)));
            let names: Vec<String> = self.session.inputs().iter().map(|input| input.name().to_owned()).collect();
            feeds.retain(|(name, _)| names.contains(name));
            for (name, (shape, values)) in weights.iter().filter(|(name, _)| names.contains(name)) {
                feeds.push((name.clone(), Feed::Floats(shape.clone(), values.clone())));
            }
            let results = run(&mut self.session, feeds, &[EMBEDDING.to_owned()])?;
            let (_, values) = results[0].1.try_extract_tensor::<f32>().map_err(EngineError::Run)?;
            let width = values.len() / self.batch;
            rows.extend_from_slice(&values[..width * self.batch.min(count - start)]);
        }
        let width = rows.len() / count.max(1);
        Ok(Array2::from_shape_vec((count, width), rows).unwrap_or_default())
    }
}

impl Validation {
    /// Ranks every gallery by every query, with and without a codebook trained on the gallery.
    ///
    /// # Errors
    /// [`TrainError::Engine`] if a run fails, [`TrainError::Codebook`] if a gallery is too small for one.
    pub fn run(&self, forward: &mut Forward, weights: &Weights) -> Result<Vec<Outcome>, TrainError> {
        let embed = |queries: &Queries| forward.embed(&queries.maps, queries.classes.len(), Domain::Sketch, weights);
        let embedded = self.queries.iter().map(embed).collect::<Result<Vec<_>, _>>()?;
        let mut outcomes = Vec::new();
        for gallery in &self.galleries {
            let photos = match self.branch {
                Branch::Sketch => gallery.embeddings.clone(),
                Branch::Shared => forward.embed(&gallery.maps, gallery.classes.len(), Domain::Photo, weights)?,
            };
            let fused = fused(&photos)?;
            for (queries, embedded) in self.queries.iter().zip(&embedded) {
                let scored = |photos: &Array2<f32>| {
                    let distances = distances(embedded.view(), photos.view());
                    score(distances.view(), &names(&queries.classes), &names(&gallery.classes), 0)
                };
                let name = format!("{}{}", queries.name, gallery.name);
                outcomes.push(Outcome { name, embedding: scored(&photos), fused: scored(&fused) });
            }
        }
        Ok(outcomes)
    }
}

fn names(classes: &[String]) -> Vec<&str> {
    classes.iter().map(String::as_str).collect()
}

/// The gallery fused with a codebook trained on it.
fn fused(gallery: &Array2<f32>) -> Result<Array2<f32>, TrainError> {
    let prototypes = 32.min(gallery.len_of(Axis(0)));
    // As in all earlier trainings, so that their figures compare.
    let length = Length::Scaled;
    let options = CodebookOptions { subspaces: 2, prototypes, weight: 0.2, length, ..CodebookOptions::default() };
    let codebook = Codebook::train(gallery.view(), 0, &options)?;
    let mut fused = gallery.clone();
    for mut row in fused.rows_mut() {
        row.assign(&Array1::from(codebook.fuse(&row.to_vec())?));
    }
    Ok(fused)
}
