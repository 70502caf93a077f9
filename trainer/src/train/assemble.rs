//! Builds the network to serve from trained weights.

use std::collections::HashSet;

use sketch_model::inference::encoder::{Domain, Encoder, EncoderOptions};
use sketch_model::inference::onnx;
use sketch_model::inference::onnx::build::{Size, attribute_int, value_info};
use sketch_model::inference::onnx::messages::{DataType, ModelProto, NodeProto, StringStringEntryProto};
use sketch_model::manifest::Manifest;

use super::TrainError;
use super::config::{Branch, Config, HeadConfig};
use super::cut::{Cut, DOMAIN, EMBEDDING, FEATURES, IMAGE, ancestors};
use super::material::Start;
use super::plan::{HEAD, add_head};
use super::run::Digests;
use super::validation::Weights;
use crate::engine::{Tape, normalisation};
use crate::precision::{Precision, narrow};

/// Prefix of tensors in the sketches' own layers.
const SKETCH: &str = "sketch.";
/// Suffix of tensors at the ends of the photos' layers.
const PHOTO: &str = ".photo";

/// What the layers of a domain receive if a batch has no images of that domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// An empty batch: fast, but not every network accepts one.
    Nothing,
    /// One image, whose features are discarded.
    One,
}

/// Puts trained weights into the network that training started from, for batches of any size.
///
/// `weights`: by the names of the network, blended with the network's own as configured. With [`Branch::Sketch`], each image
/// goes only through the layers of its domain; a batch may mix both. Inputs are `image` and, if the head takes it, `domain`;
/// outputs are `embedding` and `features`; the teacher's classifier is dropped. Returns the matching manifest, too.
///
/// # Errors
/// [`TrainError::Layer`], [`TrainError::Crossing`] as [`Cut::before`]; [`TrainError::Engine`] if a weight does not fit.
pub fn assemble(
    model: &ModelProto,
    manifest: &Manifest,
    config: &Config,
    weights: &Weights,
    empty: Empty,
) -> Result<(ModelProto, Manifest), TrainError> {
    let mut model = model.clone();
    if let Some(graph) = model.graph.as_mut() {
        normalisation::freeze(&mut graph.node);
    }
    let mut tape = Tape::read(&model)?;
    let weights = blended(&tape, weights, config.network.blend)?;
    if config.network.head == HeadConfig::Fresh {
        let (shape, values) = &weights[HEAD];
        tape.named_constant(HEAD, shape, values)?;
        add_head(&mut tape, HEAD);
    }
    match config.network.branch {
        Branch::Shared => replace(&mut tape, &weights, "")?,
        Branch::Sketch => branch(&mut tape, &weights, &config.network.train_from, empty)?,
    }
    let model = finish(&tape, manifest);
    let domain_input = model.graph.iter().flat_map(|graph| &graph.input).any(|input| input.name() == DOMAIN);
    Ok((model, Manifest { domain_input, ..manifest.clone() }))
}

/// The network that a training ends in, called `name`: assembled, stored as `precision` says, with the digests of what it
/// was made from in its metadata.
///
/// # Errors
/// As [`assemble`]; [`TrainError::Encoder`] if the network does not load, [`TrainError::Onnx`] if a tensor is malformed.
pub fn package(
    config: &Config,
    start: Start,
    weights: &Weights,
    name: &str,
    digests: &Digests,
    precision: Precision,
) -> Result<(ModelProto, Manifest), TrainError> {
    let (tool, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let origin = format!("{}; trained by {tool} {version}, configuration \"{}\"", start.manifest.origin, config.name);
    let manifest = Manifest { name: name.to_owned(), origin, ..start.manifest.clone() };
    let (mut model, mut manifest) = assemble(start.model, &manifest, config, weights, Empty::Nothing)?;
    if !takes_one_domain(&model, &manifest, start.options)? {
        (model, manifest) = assemble(start.model, &manifest, config, weights, Empty::One)?;
    }
    narrow(&mut model, precision)?;
    model.metadata_props.extend(
        digests
            .iter()
            .map(|(key, value)| StringStringEntryProto { key: Some((*key).to_owned()), value: Some(value.clone()) }),
    );
    Ok((model, manifest))
}

/// Whether the network runs on batches of one domain alone.
fn takes_one_domain(model: &ModelProto, manifest: &Manifest, options: &EncoderOptions) -> Result<bool, TrainError> {
    let mut encoder = Encoder::load(&onnx::write(model), manifest, options)?;
    let mut runs = |domain| encoder.encode(domain, &vec![0.0; manifest.input_len()], 1).is_ok();
    Ok(runs(Domain::Sketch) && runs(Domain::Photo))
}

/// `blend · trained + (1 - blend) · start` for weights that the starting network has; others stay as trained.
///
/// # Errors
/// [`TrainError::Engine`] if a weight of the starting network cannot be read.
pub fn blended(tape: &Tape, weights: &Weights, blend: f32) -> Result<Weights, TrainError> {
    let mut result = Weights::new();
    for (name, (shape, trained)) in weights {
        let mut values = trained.clone();
        if let Some(start) = tape.constant_values(name)? {
            values.iter_mut().zip(start).for_each(|(value, start)| *value = blend * *value + (1.0 - blend) * start);
        }
        result.insert(name.clone(), (shape.clone(), values));
    }
    Ok(result)
}

/// Replaces constants of the network by weights, with `prefix` before their names.
fn replace(tape: &mut Tape, weights: &Weights, prefix: &str) -> Result<(), TrainError> {
    for (name, (shape, values)) in weights {
        tape.named_constant(&format!("{prefix}{name}"), shape, values)?;
    }
    Ok(())
}

/// Doubles the tail: the network's own layers for photos, trained ones for sketches.
fn branch(tape: &mut Tape, weights: &Weights, train_from: &str, empty: Empty) -> Result<(), TrainError> {
    let cut = Cut::before(tape, train_from)?;
    let below = ancestors(tape.nodes(), FEATURES);
    let nodes = tape.nodes().to_vec();
    let (trunk, after) = nodes.split_at(cut.first);
    let is_tail = |node: &&NodeProto| node.output.iter().any(|output| below.contains(output));
    let (tail, rest): (Vec<&NodeProto>, Vec<&NodeProto>) = after.iter().partition(is_tail);
    let made: HashSet<&str> = tail.iter().flat_map(|node| &node.output).map(String::as_str).collect();
    // Weights of the tail get a copy for sketches; the domain means come after the tail, in one tensor for both domains.
    let used: HashSet<&str> = tail.iter().flat_map(|node| &node.input).map(String::as_str).collect();
    let of_tail = |name: &String| used.contains(name.as_str());
    let (own, common): (Weights, Weights) = weights.clone().into_iter().partition(|(name, _)| of_tail(name));

    let sketch_name = |name: &str| {
        let renamed = name == cut.tensor || made.contains(name) || own.contains_key(name);
        if renamed { format!("{SKETCH}{name}") } else { name.to_owned() }
    };
    let photo_name = |name: &str| {
        if name == cut.tensor || name == FEATURES { format!("{name}{PHOTO}") } else { name.to_owned() }
    };
    tape.retain(|_| false);
    tape.extend(trunk.iter().cloned());
    let rows = route(tape, &cut.tensor, [&sketch_name(&cut.tensor), &photo_name(&cut.tensor)], empty);
    tape.extend(tail.iter().map(|node| renamed(node, &photo_name)));
    tape.extend(tail.iter().map(|node| renamed(node, &sketch_name)));
    join(tape, rows, [&sketch_name(FEATURES), &photo_name(FEATURES)], empty);
    tape.extend(rest.into_iter().cloned());
    replace(tape, &own, SKETCH)?;
    replace(tape, &common, "")
}

fn renamed(node: &NodeProto, name: &impl Fn(&str) -> String) -> NodeProto {
    let rename = |names: &[String]| names.iter().map(|old| name(old)).collect();
    let (input, output): (Vec<String>, Vec<String>) = (rename(&node.input), rename(&node.output));
    NodeProto { name: output.first().cloned(), input, output, ..node.clone() }
}

/// Splits the rows of `tensor` by domain, sketches first. Returns the row indices of each part.
fn route(tape: &mut Tape, tensor: &str, parts: [&str; 2], empty: Empty) -> [String; 2] {
    let (zero, all) = (tape.integers(&[0]), tape.integers(&[-1]));
    let is_sketch = tape.op("Equal", &[DOMAIN, &zero], vec![]);
    let is_photo = tape.op("Not", &[&is_sketch], vec![]);
    [(is_sketch, parts[0]), (is_photo, parts[1])].map(|(mask, part)| {
        let rows = tape.op("NonZero", &[&mask], vec![]);
        let rows = tape.op("Reshape", &[&rows, &all], vec![]);
        let taken = if empty == Empty::One { first_if_none(tape, &rows) } else { rows.clone() };
        tape.named("Gather", &[tensor, &taken], &[part], vec![attribute_int("axis", 0)]);
        rows
    })
}

/// `rows`, or the first row of the batch if there are none.
fn first_if_none(tape: &mut Tape, rows: &str) -> String {
    let [zero, one] = [0, 1].map(|number| tape.integers(&[number]));
    let count = tape.op("Shape", &[rows], vec![]);
    // The slice ends at 1 without rows, and at 0 or before, and so is empty, with some.
    let end = tape.op("Sub", &[&one, &count], vec![]);
    let spare = tape.op("Slice", &[&zero, &zero, &end], vec![]);
    tape.op("Concat", &[rows, &spare], vec![attribute_int("axis", 0)])
}

/// Restores the batch's order of the features of both parts; features beyond the `rows` of a part are dropped.
fn join(tape: &mut Tape, rows: [String; 2], parts: [&str; 2], empty: Empty) {
    let axis = || vec![attribute_int("axis", 0)];
    let zero = tape.integers(&[0]);
    let mut own = |part: &str, rows: &str| {
        let count = tape.op("Shape", &[rows], vec![]);
        tape.op("Slice", &[part, &zero, &count, &zero], vec![])
    };
    let parts = match empty {
        Empty::Nothing => parts.map(str::to_owned),
        Empty::One => [own(parts[0], &rows[0]), own(parts[1], &rows[1])],
    };
    let order = tape.op("Concat", &[&rows[0], &rows[1]], axis());
    let last = tape.integers(&[-1]);
    let order = tape.op("Unsqueeze", &[&order, &last], vec![]);
    let features = tape.op("Concat", &[&parts[0], &parts[1]], axis());
    // Every row is overwritten exactly once, so the initial values do not matter.
    tape.named("ScatterND", &[&features, &order, &features], &[FEATURES], vec![]);
}

fn finish(tape: &Tape, manifest: &Manifest) -> ModelProto {
    let (batch, size) = (Size::Named("n"), Size::Fixed(manifest.input.size as usize));
    let mut inputs = vec![value_info(IMAGE, DataType::Float, &[batch, Size::Fixed(3), size, size])];
    if ancestors(tape.nodes(), EMBEDDING).contains(DOMAIN) {
        inputs.push(value_info(DOMAIN, DataType::Int64, &[batch]));
    }
    let output = |name, width| value_info(name, DataType::Float, &[batch, width]);
    let outputs = vec![output(EMBEDDING, Size::Fixed(manifest.dimension)), output(FEATURES, Size::Named("c"))];
    tape.network(&manifest.name, inputs, outputs)
}
