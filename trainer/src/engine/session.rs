//! Runs a training graph step by step.

use std::collections::HashMap;

use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor};
use sketch_model::inference::encoder::{Device, EncoderOptions, open_session};
use sketch_model::inference::onnx;

use super::{EngineError, Tape};

/// A value for an input: its shape, and its numbers row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Feed {
    Floats(Vec<usize>, Vec<f32>),
    Integers(Vec<usize>, Vec<i64>),
}

impl Feed {
    /// One number.
    pub fn number(value: f32) -> Self {
        Self::Floats(vec![], vec![value])
    }

    fn into_value(self) -> Result<DynValue, EngineError> {
        Ok(match self {
            Self::Floats(shape, values) => Tensor::from_array((shape, values))?.into_dyn(),
            Self::Integers(shape, values) => Tensor::from_array((shape, values))?.into_dyn(),
        })
    }
}

/// Runs a session once and returns its outputs by their names.
///
/// # Errors
/// [`EngineError::Run`] if the run fails.
pub fn run(
    session: &mut Session,
    feeds: Vec<(String, Feed)>,
    outputs: &[String],
) -> Result<Vec<(String, DynValue)>, EngineError> {
    let mut inputs: Vec<(String, SessionInputValue)> = Vec::new();
    for (name, feed) in feeds {
        inputs.push((name, feed.into_value()?.into()));
    }
    let mut results = session.run(inputs)?;
    Ok(outputs.iter().filter_map(|name| Some((name.clone(), results.remove(name)?))).collect())
}

/// A tensor that persists across steps: the `output` of a step is the `input` of the next.
#[derive(Clone, Debug)]
pub struct State {
    pub input: String,
    pub output: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// A loaded training graph with its state: weights, moments, averages.
pub struct TrainingSession {
    session: Session,
    device: Device,
    links: Vec<(String, String)>,
    state: HashMap<String, DynValue>,
    reports: Vec<String>,
}

impl TrainingSession {
    /// Loads the graph of `tape`; each step returns the tensors `reports`.
    ///
    /// # Errors
    /// [`EngineError::Encoder`] if ONNX Runtime rejects the graph, or the device is not available.
    pub fn open(
        tape: &Tape,
        state: Vec<State>,
        reports: &[String],
        options: &EncoderOptions,
    ) -> Result<Self, EngineError> {
        let outputs: Vec<String> =
            state.iter().map(|state| state.output.clone()).chain(reports.iter().cloned()).collect();
        let model = tape.model(&outputs);
        let (session, device, _) = open_session(&onnx::write(&model), options)?;
        let mut links = Vec::new();
        let mut values = HashMap::new();
        for State { input, output, shape, values: numbers } in state {
            values.insert(input.clone(), Feed::Floats(shape, numbers).into_value()?);
            links.push((input, output));
        }
        Ok(Self { session, device, links, state: values, reports: reports.to_vec() })
    }

    /// The device that steps run on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Runs one step on `feeds` and returns the reports. Feeds that no node reads are ignored.
    ///
    /// # Errors
    /// [`EngineError::Run`] if the run fails; the state then stays as before the step.
    pub fn step(&mut self, feeds: Vec<(String, Feed)>) -> Result<Vec<Vec<f32>>, EngineError> {
        let mut inputs: Vec<(String, SessionInputValue)> = Vec::new();
        let takes = |name: &str| self.session.inputs().iter().any(|input| input.name() == name);
        for (name, feed) in feeds.into_iter().filter(|(name, _)| takes(name)) {
            inputs.push((name, feed.into_value()?.into()));
        }
        inputs.extend(self.state.iter().map(|(name, value)| (name.clone(), value.into())));
        let mut results = self.session.run(inputs)?;
        let mut reports = Vec::new();
        for name in &self.reports {
            let value = results.get(name).ok_or_else(|| EngineError::MissingTensor { name: name.clone() })?;
            reports.push(value.try_extract_tensor::<f32>()?.1.to_vec());
        }
        let mut next = HashMap::new();
        for (input, output) in &self.links {
            let value = results.remove(output).ok_or_else(|| EngineError::MissingTensor { name: output.clone() })?;
            next.insert(input.clone(), value);
        }
        drop(results);
        self.state = next;
        Ok(reports)
    }

    /// Shape and values of a tensor of the state, by the name of its input.
    ///
    /// # Errors
    /// [`EngineError::MissingTensor`] if the state has no tensor of that name.
    pub fn state(&self, input: &str) -> Result<(Vec<usize>, Vec<f32>), EngineError> {
        let value = self.state.get(input).ok_or_else(|| EngineError::MissingTensor { name: input.to_owned() })?;
        let (shape, values) = value.try_extract_tensor::<f32>()?;
        Ok((shape.iter().map(|&size| size as usize).collect(), values.to_vec()))
    }

    /// Names of the state's tensors, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.state.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}
