//! What values the tensors of a network take.

use std::collections::{HashMap, HashSet};

use ndarray::{Array1, Array2, ArrayView2, Axis};
use sketch_model::inference::encoder::{Domain, EncoderOptions, open_session};
use sketch_model::inference::onnx;
use sketch_model::inference::onnx::OnnxError;
use sketch_model::inference::onnx::messages::{GraphProto, ModelProto, TensorProto, ValueInfoProto};
use sketch_model::manifest::Manifest;

use super::{QuantiseError, Step, points};
use crate::engine::EngineError;
use crate::engine::session::{Feed, run};
use crate::progress::Progress;

/// Places of a map at which the channels are compared with each other; more change no measure of quality.
const PLACES: usize = 48;

/// The values of each tensor to be quantised, by its name.
#[derive(Clone, Debug, Default)]
pub struct Ranges(HashMap<String, Values>);

#[derive(Clone, Debug, Default)]
struct Values {
    /// Of each channel.
    least: Vec<f32>,
    most: Vec<f32>,
    /// Of each channel: sums over all images of the mean and of the mean square.
    means: Vec<f32>,
    squares: Vec<f32>,
    images: f32,
    /// Sums over places: of the channels, and of their products, shape `(channels, channels)`. Only of what a convolution
    /// over single places reads.
    sums: Array1<f32>,
    products: Array2<f32>,
    places: f32,
}

/// What the channels of a tensor hold on average.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Channels {
    pub means: Vec<f32>,
    pub squares: Vec<f32>,
    /// Of the channels at one place, shape `(channels, channels)`; empty if it was not observed.
    pub covariance: Array2<f32>,
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
    let compared = read_by_places(graph);
    let mut ranges = Ranges::default();
    observe(model, manifest, images, options, &names, &mut |_, name, shape, values| {
        ranges.note(name, shape, values, compared.contains(name));
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

/// Inputs of convolutions over single places.
fn read_by_places(graph: &GraphProto) -> HashSet<&str> {
    let is_single = |tensor: &TensorProto| {
        tensor.dims.len() == 4 && tensor.dims[1] > 1 && tensor.dims[2..].iter().all(|&side| side == 1)
    };
    let kernels: HashSet<&str> =
        graph.initializer.iter().filter(|tensor| is_single(tensor)).map(TensorProto::name).collect();
    let convolutions = graph.node.iter().filter(|node| node.op_type() == "Conv" && node.input.len() > 1);
    convolutions.filter(|node| kernels.contains(&*node.input[1])).map(|node| &*node.input[0]).collect()
}

impl Ranges {
    fn note(&mut self, name: &str, shape: &[i64], values: &[f32], is_compared: bool) {
        let known = self.0.entry(name.to_owned()).or_default();
        let channels = shape.get(1).map_or(1, |&channels| channels.max(1) as usize);
        if values.is_empty() {
            return;
        }
        for of_channels in [&mut known.least, &mut known.most, &mut known.means, &mut known.squares] {
            of_channels.resize(channels, 0.0);
        }
        let length = (values.len() / channels).max(1);
        for (channel, map) in values.chunks_exact(length).take(channels).enumerate() {
            known.means[channel] += map.iter().sum::<f32>() / length as f32;
            known.squares[channel] += map.iter().map(|x| x * x).sum::<f32>() / length as f32;
            known.least[channel] = map.iter().copied().fold(known.least[channel], f32::min);
            known.most[channel] = map.iter().copied().fold(known.most[channel], f32::max);
        }
        known.images += 1.0;
        if let Some(maps) = ArrayView2::from_shape((channels, length), values).ok().filter(|_| is_compared) {
            known.compare(maps);
        }
    }

    /// What the channels of a tensor hold; `None` if it was never seen.
    pub(super) fn channels(&self, name: &str) -> Option<Channels> {
        let Values { means, squares, images, .. } = self.seen(name)?;
        let mean = |sums: &[f32]| sums.iter().map(|sum| sum / images).collect();
        Some(Channels { means: mean(means), squares: mean(squares), covariance: self.0[name].covariance() })
    }

    /// The step of a tensor, for all values that it was seen to take; `None` if it was never seen.
    ///
    /// What leaves a range is cut off, and that costs more than the finer step brings: with ranges chosen for the least square
    /// error of their own tensor, the embeddings of photos moved by a third more. Zero is kept exactly: convolutions pad with
    /// it.
    pub(super) fn step(&self, name: &str) -> Option<Step> {
        let Values { least, most, .. } = self.seen(name)?;
        let end = |of_channels: &[f32], further: fn(f32, f32) -> f32| of_channels.iter().copied().fold(0.0, further);
        Some(Step::of(end(least, f32::min), end(most, f32::max)))
    }

    /// The greatest magnitude of each channel of a tensor; `None` if it was never seen.
    pub(super) fn reach(&self, name: &str) -> Option<Vec<f32>> {
        let Values { least, most, .. } = self.seen(name)?;
        Some(least.iter().zip(most).map(|(least, most)| most.max(-least)).collect())
    }

    /// The channels of a tensor take values so many times as large.
    pub(super) fn scale(&mut self, name: &str, by: &[f32]) {
        let Some(values) = self.0.get_mut(name).filter(|values| values.least.len() == by.len()) else { return };
        for (channel, by) in by.iter().enumerate() {
            for of_channels in [&mut values.least, &mut values.most, &mut values.means] {
                of_channels[channel] *= by;
            }
            values.squares[channel] *= by * by;
        }
        if values.places > 0.0 {
            let by = Array1::from(by.to_vec());
            values.sums *= &by;
            values.products *= &by;
            values.products *= &by.insert_axis(Axis(1));
        }
    }

    fn seen(&self, name: &str) -> Option<&Values> {
        self.0.get(name).filter(|values| values.images > 0.0)
    }
}

impl Values {
    /// Adds places of an image's maps, shape `(channels, places)`.
    fn compare(&mut self, maps: ArrayView2<f32>) {
        let (channels, length) = maps.dim();
        if self.places == 0.0 {
            (self.sums, self.products) = (Array1::zeros(channels), Array2::zeros((channels, channels)));
        }
        let count = PLACES.min(length);
        // Steps of the golden ratio: even ones may meet the same column of every row.
        let place = |i: usize| ((i as f64 * 0.618_033_988_75).fract() * length as f64) as usize;
        let places: Vec<usize> = if count == length { (0..length).collect() } else { (0..count).map(place).collect() };
        let seen = maps.select(Axis(1), &places);
        self.sums += &seen.sum_axis(Axis(1));
        self.products += &seen.dot(&seen.t());
        self.places += count as f32;
    }

    fn covariance(&self) -> Array2<f32> {
        if self.places == 0.0 {
            return Array2::default((0, 0));
        }
        let mean = &self.sums / self.places;
        let column = mean.view().insert_axis(Axis(1));
        &self.products / self.places - column.dot(&mean.view().insert_axis(Axis(0)))
    }
}

impl Step {
    /// For values from `least`, at most 0, to `most`, at least 0.
    fn of(least: f32, most: f32) -> Self {
        let scale = ((most - least) / 255.0).max(f32::MIN_POSITIVE);
        Self { scale, zero: (-least / scale).round() as u8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two channels of four places.
    fn seen() -> Ranges {
        let mut ranges = Ranges::default();
        ranges.note("x", &[1, 2, 2, 2], &[1.0, 2.0, 3.0, 4.0, -1.0, -2.0, -3.0, -2.0], true);
        ranges
    }

    #[test]
    fn zero_is_exact_and_nothing_is_cut_off() {
        for (least, most) in [(-1.0, 3.0), (0.0, 6.0), (-0.3, 0.0), (0.0, 0.0)] {
            let Step { scale, zero } = Step::of(least, most);
            let ends = [0, 255].map(|byte: i32| scale * (byte - i32::from(zero)) as f32);
            assert!(ends[0] <= least + scale && ends[1] >= most - scale, "{least} {most}");
        }
        assert_eq!(seen().step("x"), Some(Step::of(-3.0, 4.0)));
        assert!(Ranges::default().step("x").is_none());
    }

    #[test]
    fn channels_are_compared_at_the_same_places() {
        let Channels { means, squares, covariance } = seen().channels("x").unwrap();
        assert_eq!((means, squares), (vec![2.5, -2.0], vec![7.5, 4.5]));
        assert_eq!(covariance, ndarray::array![[1.25, -0.5], [-0.5, 0.5]]);
    }

    #[test]
    fn ranges_are_scaled_with_their_tensor() {
        let (mut ranges, mut other) = (seen(), Ranges::default());
        ranges.scale("x", &[2.0, 0.5]);
        other.note("x", &[1, 2, 2, 2], &[2.0, 4.0, 6.0, 8.0, -0.5, -1.0, -1.5, -1.0], true);
        assert_eq!(ranges.channels("x"), other.channels("x"));
        assert_eq!((ranges.step("x"), ranges.reach("x")), (other.step("x"), Some(vec![8.0, 1.5])));
    }

    #[test]
    fn places_are_spread() {
        let mut ranges = Ranges::default();
        let mut map = vec![0.0; 81 * 9];
        map.iter_mut().step_by(9).for_each(|value| *value = 1.0);
        ranges.note("x", &[1, 9, 9, 9], &map, true);
        let mean = ranges.0["x"].sums[0] / ranges.0["x"].places;
        assert!((mean - 1.0 / 9.0).abs() < 0.03, "{mean}");
    }
}
