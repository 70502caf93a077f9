//! What values the tensors of a network take.

use std::collections::HashMap;

use sketch_model::inference::encoder::{Domain, EncoderOptions, open_session};
use sketch_model::inference::onnx;
use sketch_model::inference::onnx::OnnxError;
use sketch_model::inference::onnx::messages::{ModelProto, ValueInfoProto};
use sketch_model::manifest::Manifest;

use super::{QuantiseError, Step, points};
use crate::engine::EngineError;
use crate::engine::session::{Feed, run};
use crate::progress::Progress;

/// Values of a tensor that are kept of each image, evenly spread.
const KEPT: usize = 500;

/// The values of each tensor to be quantised, by its name.
#[derive(Clone, Debug, Default)]
pub struct Ranges(HashMap<String, Values>);

#[derive(Clone, Debug, Default)]
struct Values {
    least: f32,
    most: f32,
    sample: Vec<f32>,
    /// Of each channel: sums over all images of the mean and of the mean square.
    means: Vec<f32>,
    squares: Vec<f32>,
    images: f32,
}

/// What the channels of a tensor hold on average.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Channels {
    pub means: Vec<f32>,
    pub squares: Vec<f32>,
}

/// Images as a network takes them, with their domains.
pub type Images<'a, E> = &'a mut dyn Iterator<Item = Result<(Domain, Vec<f32>), E>>;

/// Runs `model` on images of both domains, one after the other.
///
/// `model`: in single precision, with inputs as `manifest` describes them.
///
/// # Errors
/// [`QuantiseError::Nothing`] as [`quantise`](super::quantise); [`QuantiseError::Encoder`] and [`QuantiseError::Engine`] if
/// the network does not load or run; those of `images`.
pub fn calibrate<E: From<QuantiseError>>(
    model: &ModelProto,
    manifest: &Manifest,
    images: Images<E>,
    options: &EncoderOptions,
    progress: &dyn Progress,
) -> Result<Ranges, E> {
    let graph = model.graph.as_ref().ok_or(QuantiseError::from(OnnxError::NoGraph))?;
    let mut names: Vec<String> = points(graph)?.into_keys().collect();
    names.sort_unstable();
    let mut ranges = Ranges::default();
    observe(model, manifest, images, options, &names, &mut |_, name, shape, values| {
        ranges.note(name, shape, values);
        progress.advance(1 - u64::from(name != names[0]));
    })?;
    Ok(ranges)
}

/// Takes domain, name, shape and values of a tensor.
type See<'a> = &'a mut dyn FnMut(Domain, &str, &[i64], &[f32]);

/// Runs `model` on images, and shows domain, name, shape and values of the tensors `names` for each.
pub(super) fn observe<E: From<QuantiseError>>(
    model: &ModelProto,
    manifest: &Manifest,
    images: Images<E>,
    options: &EncoderOptions,
    names: &[String],
    see: See,
) -> Result<(), E> {
    let refused = |error: EngineError| E::from(error.into());
    let mut model = model.clone();
    if let Some(graph) = model.graph.as_mut() {
        // ONNX Runtime infers type and shape.
        let output = |name: &String| ValueInfoProto { name: Some(name.clone()), ..ValueInfoProto::default() };
        graph.output = names.iter().map(output).collect();
    }
    let (mut session, ..) = open_session(&onnx::write(&model), options).map_err(QuantiseError::from)?;
    let side = manifest.input.size as usize;
    for image in images {
        let (domain, pixels) = image?;
        let mut feeds = vec![("image".to_owned(), Feed::Floats(vec![1, 3, side, side], pixels))];
        if manifest.domain_input {
            feeds.push(("domain".to_owned(), Feed::Integers(vec![1], vec![domain as i64])));
        }
        for (name, value) in run(&mut session, feeds, names).map_err(refused)? {
            let (shape, values) = value.try_extract_tensor::<f32>().map_err(|error| refused(error.into()))?;
            see(domain, &name, shape, values);
        }
    }
    Ok(())
}

impl Ranges {
    fn note(&mut self, name: &str, shape: &[i64], values: &[f32]) {
        let known = self.0.entry(name.to_owned()).or_default();
        let channels = shape.get(1).map_or(1, |&channels| channels.max(1) as usize);
        if !values.is_empty() {
            known.means.resize(channels, 0.0);
            known.squares.resize(channels, 0.0);
            let length = (values.len() / channels).max(1);
            let sums = known.means.iter_mut().zip(&mut known.squares);
            for ((mean, square), map) in sums.zip(values.chunks_exact(length)) {
                *mean += map.iter().sum::<f32>() / length as f32;
                *square += map.iter().map(|x| x * x).sum::<f32>() / length as f32;
            }
            known.images += 1.0;
        }
        known.least = values.iter().copied().fold(known.least, f32::min);
        known.most = values.iter().copied().fold(known.most, f32::max);
        known.sample.extend(values.iter().step_by((values.len() / KEPT).max(1)));
    }

    /// What the channels of a tensor hold; `None` if it was never seen.
    pub(super) fn channels(&self, name: &str) -> Option<Channels> {
        let Values { means, squares, images, .. } = self.0.get(name).filter(|values| values.images > 0.0)?;
        let mean = |sums: &[f32]| sums.iter().map(|sum| sum / images).collect();
        Some(Channels { means: mean(means), squares: mean(squares) })
    }

    /// The step that changes the values of a tensor least; `None` if it was never seen.
    ///
    /// Values at the ends may be cut off if all others gain by it. Zero is kept exactly: convolutions pad with it.
    pub(super) fn step(&self, name: &str) -> Option<Step> {
        const TRIES: u16 = 14;
        let Values { least, most, sample, .. } = self.0.get(name).filter(|values| values.images > 0.0)?;
        let tries = (0..=TRIES).map(|i| {
            let share = 1.0 - 0.05 * f32::from(i);
            let step = Step::of(least * share, most * share);
            let error = |value: &f32| f64::from(value - step.rounded(*value)).powi(2);
            (sample.iter().map(error).sum::<f64>(), step)
        });
        tries.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, step)| step)
    }
}

impl Step {
    /// For values from `least`, at most 0, to `most`, at least 0.
    fn of(least: f32, most: f32) -> Self {
        let scale = ((most - least) / 255.0).max(f32::MIN_POSITIVE);
        Self { scale, zero: (-least / scale).round() as u8 }
    }

    fn rounded(self, value: f32) -> f32 {
        let byte = ((value / self.scale).round_ties_even() + f32::from(self.zero)).clamp(0.0, 255.0);
        self.scale * (byte - f32::from(self.zero))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_exact_and_outliers_give_way() {
        for (least, most) in [(-1.0, 3.0), (0.0, 6.0), (-0.3, 0.0), (0.0, 0.0)] {
            assert_eq!(Step::of(least, most).rounded(0.0), 0.0);
        }
        let mut sample: Vec<f32> = (0..100_000).map(|i| i as f32 / 100_000.0).collect();
        let step = |sample: Vec<f32>, most| {
            let values = Values { most, sample, images: 1.0, ..Values::default() };
            Ranges([("x".to_owned(), values)].into()).step("x").unwrap()
        };
        let even = step(sample.clone(), 1.0);
        assert_eq!(even, Step::of(0.0, 1.0));
        sample.push(1.1);
        let cut = step(sample, 1.1);
        assert!(cut.scale < 1.1 / 255.0 && cut.scale >= 0.99 / 255.0, "{cut:?}");
        assert!(Ranges::default().step("x").is_none());
    }
}
