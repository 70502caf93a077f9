//! Checkpoints: step, weights, moments and averages as safetensors.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};

use super::TrainError;
use crate::engine::TrainingSession;
use crate::engine::session::State;
use crate::weights::floats;

/// File of the last checkpoint, in the folder of the training.
pub const FILE: &str = "checkpoint.safetensors";
const STEP: &str = "step";
const TRAINING: &str = "training";
const BEST: &str = "best";
const STALE: &str = "stale";

/// The state of a training after a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    pub step: u64,
    /// Digest of configuration, data and network: only the same training may resume.
    pub training: String,
    pub patience: EarlyStopping,
    /// Shape and values by the name of the state's input.
    pub tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
}

/// Early stopping: the best validation so far and how long ago it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EarlyStopping {
    pub best: f64,
    /// Checkpoints since the best.
    pub stale: u64,
}

impl Default for EarlyStopping {
    fn default() -> Self {
        Self { best: f64::NEG_INFINITY, stale: 0 }
    }
}

impl EarlyStopping {
    /// Records a validation.
    pub fn record(&mut self, quality: f64) {
        self.stale = if quality > self.best { 0 } else { self.stale + 1 };
        self.best = self.best.max(quality);
    }
}

impl Checkpoint {
    /// Copies the state of a running session.
    ///
    /// # Errors
    /// [`TrainError::Engine`] if the state cannot be read.
    pub fn of(
        session: &TrainingSession,
        step: u64,
        training: &str,
        patience: EarlyStopping,
    ) -> Result<Self, TrainError> {
        let names: Vec<String> = session.names().into_iter().map(str::to_owned).collect();
        let tensor = |name: String| session.state(&name).map(|tensor| (name, tensor));
        let tensors = names.into_iter().map(tensor).collect::<Result<_, _>>()?;
        Ok(Self { step, training: training.to_owned(), patience, tensors })
    }

    /// Writes the checkpoint atomically: the previous one stays until this one is complete.
    ///
    /// # Errors
    /// [`TrainError::File`] if it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), TrainError> {
        let path = folder.join(FILE);
        let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect()))
            .collect();
        let refused = |error: safetensors::SafeTensorError| damaged(&path, &error.to_string());
        let mut views = Vec::new();
        for (name, shape, bytes) in &bytes {
            views.push((name.as_str(), TensorView::new(Dtype::F32, (*shape).clone(), bytes).map_err(refused)?));
        }
        let facts = [
            (STEP, self.step.to_string()),
            (TRAINING, self.training.clone()),
            (BEST, self.patience.best.to_string()),
            (STALE, self.patience.stale.to_string()),
        ];
        let facts = facts.map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
        let content = serialize(views, Some(facts)).map_err(refused)?;
        let partial = path.with_extension("partial");
        let failed = |source| TrainError::File { path: path.clone(), source };
        fs::write(&partial, content).and_then(|()| fs::rename(&partial, &path)).map_err(failed)
    }

    /// Reads the checkpoint of a folder, if there is one.
    ///
    /// # Errors
    /// [`TrainError::File`] if it cannot be read, [`TrainError::Checkpoint`] if it is damaged.
    pub fn read(folder: &Path) -> Result<Option<Self>, TrainError> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let content = fs::read(&path).map_err(|source| TrainError::File { path: path.clone(), source })?;
        let refused = |error: safetensors::SafeTensorError| damaged(&path, &error.to_string());
        let (_, metadata) = SafeTensors::read_metadata(&content).map_err(refused)?;
        let facts = metadata.metadata().clone().unwrap_or_default();
        let step = number(&facts, STEP).ok_or_else(|| damaged(&path, "it has no step"))?;
        let lacking = || damaged(&path, "it has no validation results");
        let patience = EarlyStopping {
            best: number(&facts, BEST).ok_or_else(lacking)?,
            stale: number(&facts, STALE).ok_or_else(lacking)?,
        };
        let training = facts.get(TRAINING).cloned().unwrap_or_default();
        let file = SafeTensors::deserialize(&content).map_err(refused)?;
        let tensors =
            file.tensors().into_iter().map(|(name, view)| (name, (view.shape().to_vec(), floats(&view)))).collect();
        Ok(Some(Self { step, training, patience, tensors }))
    }

    /// Copies the checkpoint's values into the state of a plan.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] if a tensor is missing or has a different shape.
    pub fn restore(mut self, state: &mut [State], folder: &Path) -> Result<(), TrainError> {
        for part in state {
            let found = self.tensors.remove(&part.input).filter(|(shape, _)| *shape == part.shape);
            let missing = || damaged(&folder.join(FILE), &format!("it has no \"{}\" of the same shape", part.input));
            part.values = found.ok_or_else(missing)?.1;
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(facts: &HashMap<String, String>, key: &str) -> Option<T> {
    facts.get(key)?.parse().ok()
}

fn damaged(path: &Path, reason: &str) -> TrainError {
    TrainError::Checkpoint { path: PathBuf::from(path), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = std::env::temp_dir().join(format!("sketch-checkpoint-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(Checkpoint::read(&folder).unwrap(), None);
        let values = vec![1.0, -0.0, f32::MIN_POSITIVE, 3.25e38];
        let tensors = HashMap::from([("a".to_owned(), (vec![2, 2], values)), ("b".to_owned(), (vec![], vec![7.0]))]);
        let patience = EarlyStopping { best: 12.5, stale: 2 };
        let checkpoint = Checkpoint { step: 12, training: "x".to_owned(), patience, tensors };
        checkpoint.write(&folder).unwrap();
        assert_eq!(Checkpoint::read(&folder).unwrap().as_ref(), Some(&checkpoint));

        let part = |input: &str, shape| State { input: input.to_owned(), output: String::new(), shape, values: vec![] };
        let mut state = vec![part("a", vec![2, 2])];
        checkpoint.clone().restore(&mut state, &folder).unwrap();
        assert_eq!(state[0].values[3], 3.25e38);
        assert!(matches!(checkpoint.restore(&mut [part("a", vec![4])], &folder), Err(TrainError::Checkpoint { .. })));
        let content = fs::read(folder.join(FILE)).unwrap();
        fs::write(folder.join(FILE), &content[..content.len() / 2]).unwrap();
        assert!(matches!(Checkpoint::read(&folder), Err(TrainError::Checkpoint { .. })));
        fs::remove_dir_all(&folder).unwrap();
    }
}
