//! An ONNX classifier as the network to start from: finds its features and adds a head.
//!
//! The result has the names that the trainer expects: inputs `image` and `domain`, outputs `embedding`, `features` and, with a
//! classifier, `logits`.

use std::collections::HashSet;

use sketch_model::inference::onnx::build::{Size, value_info};
use sketch_model::inference::onnx::messages::{
    DataType, GraphProto, ModelProto, NodeProto, ValueInfoProto, type_proto,
};
use sketch_model::inference::onnx::messages::{tensor_shape_proto::dimension, type_proto::Value};

use crate::engine::{EngineError, Feed, Tape, normalisation};
use crate::head::Head;
use crate::train::cut::{DOMAIN, EMBEDDING, FEATURES, IMAGE, LOGITS};

/// Images in the run that shows the shapes: more than one, to check that the graph takes batches.
const PROBED: usize = 2;

/// Prefix that keeps the network's names apart from the head's.
const PREFIX: &str = "backbone.";

/// Why a network cannot be the one to start from.
#[derive(Debug, thiserror::Error)]
pub enum BackboneError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("network has {count} inputs, expected one input of images")]
    Inputs { count: usize },
    #[error("network does not state the size of its images")]
    Size,
    #[error("network has no tensor \"{tensor}\"")]
    Tensor { tensor: String },
    #[error("network does not run on a batch of {PROBED} images of {size} pixels")]
    Batch { size: usize, source: EngineError },
    #[error("tensor \"{tensor}\" has shape {found:?}, expected one row for each image")]
    Shape { tensor: String, found: Vec<usize> },
    #[error("cannot project {width} features to {dimension} dimensions")]
    Dimension { dimension: usize, width: usize },
}

/// A network without a head.
#[derive(Clone, Debug)]
pub struct Backbone {
    tape: Tape,
    /// Side of its images, in pixels.
    pub size: usize,
    /// Number of its features, `c`.
    pub width: usize,
    /// Number of its classes, 0 if it has no classifier.
    pub classes: usize,
}

impl Backbone {
    /// Reads a network.
    ///
    /// `features`: the tensor of its features, shape `(n, c)`; by default the input of its last linear layer, or its output
    /// if it does not end in one. `size`: side of its images; by default the file's.
    ///
    /// # Errors
    /// [`BackboneError::Engine`] for operators in a form that the trainer does not support, [`BackboneError::Inputs`],
    /// [`BackboneError::Size`], [`BackboneError::Tensor`], [`BackboneError::Shape`] if it does not take images,
    /// [`BackboneError::Batch`] if it does not take several at a time.
    pub fn open(model: &ModelProto, features: Option<&str>, size: Option<usize>) -> Result<Self, BackboneError> {
        let mut model = model.clone();
        let graph = model.graph.get_or_insert_default();
        normalisation::freeze(&mut graph.node);
        let image = image_input(graph)?;
        let size = size.or_else(|| side(&image)).ok_or(BackboneError::Size)?;
        let output = graph.output.first().map(|output| output.name().to_owned()).unwrap_or_default();
        let found = match features {
            Some(tensor) => tensor.to_owned(),
            None => classifier(graph, &output).unwrap_or_else(|| output.clone()),
        };
        let mut names = vec![(image.name().to_owned(), IMAGE), (found.clone(), FEATURES)];
        if found != output {
            names.push((output, LOGITS));
        }
        if let Some((name, _)) = names.iter().find(|(name, _)| !has(graph, name)) {
            return Err(BackboneError::Tensor { tensor: name.clone() });
        }
        rename(graph, &names);

        let mut tape = Tape::read(&model)?;
        let shape = [PROBED, 3, size, size];
        tape.input(IMAGE, DataType::Float, &shape);
        let feed = Feed::Floats(shape.to_vec(), vec![0.1; shape.iter().product()]);
        let probed = tape.probe(vec![(IMAGE.to_owned(), feed)]);
        probed.map_err(|source| BackboneError::Batch { size, source })?;
        let width = row_width(&tape, FEATURES, &found)?;
        let classes = if tape.has(LOGITS) { row_width(&tape, LOGITS, LOGITS)? } else { 0 };
        Ok(Self { tape, size, width, classes })
    }

    /// The network with a head.
    ///
    /// # Errors
    /// [`BackboneError::Dimension`] if the head is for features of another width.
    pub fn with_head(&self, name: &str, head: &Head) -> Result<ModelProto, BackboneError> {
        let (width, dimension) = head.projection.dim();
        if width != self.width || dimension > width {
            return Err(BackboneError::Dimension { dimension, width: self.width });
        }
        let (batch, size) = (Size::Named("n"), Size::Fixed(self.size));
        let output = |name, width| value_info(name, DataType::Float, &[batch, Size::Fixed(width)]);
        let mut outputs = vec![output(EMBEDDING, dimension), output(FEATURES, width)];
        if self.classes > 0 {
            outputs.push(output(LOGITS, self.classes));
        }
        let mut alone = Tape::default();
        head.add_to(&mut alone)?;
        let mut tape = self.tape.clone();
        // Nodes keep their names, because training starts at one of them by its name; but names must be unique.
        let of_head = |name: &str| alone.nodes().iter().any(|node| node.name() == name);
        let nodes = tape.nodes_mut().iter_mut();
        nodes.filter(|node| of_head(node.name())).for_each(|node| node.name = Some(format!("{PREFIX}{}", node.name())));
        head.add_to(&mut tape)?;
        let inputs = vec![
            value_info(IMAGE, DataType::Float, &[batch, Size::Fixed(3), size, size]),
            value_info(DOMAIN, DataType::Int64, &[batch]),
        ];
        Ok(tape.network(name, inputs, outputs))
    }
}

/// The one input that is not a constant.
fn image_input(graph: &GraphProto) -> Result<ValueInfoProto, BackboneError> {
    let constants: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
    let inputs: Vec<&ValueInfoProto> = graph.input.iter().filter(|input| !constants.contains(input.name())).collect();
    match inputs.as_slice() {
        [input] => Ok((*input).clone()),
        inputs => Err(BackboneError::Inputs { count: inputs.len() }),
    }
}

/// The last size of an input, if it is fixed.
fn side(input: &ValueInfoProto) -> Option<usize> {
    let Some(Value::TensorType(type_proto::Tensor { shape: Some(shape), .. })) = input.r#type.as_ref()?.value.as_ref()
    else {
        return None;
    };
    match shape.dim.last()?.value {
        Some(dimension::Value::DimValue(size)) => usize::try_from(size).ok().filter(|&size| size > 0),
        _ => None,
    }
}

/// The input of the linear layer that computes `output`, if one does.
fn classifier(graph: &GraphProto, output: &str) -> Option<String> {
    let node = graph.node.iter().find(|node| node.output.iter().any(|made| made == output))?;
    match node.op_type() {
        "Gemm" | "MatMul" => node.input.first().cloned(),
        // A bias that is added separately, and operators without effect.
        "Add" | "Identity" | "Dropout" => node.input.iter().find_map(|input| classifier(graph, input)),
        _ => None,
    }
}

fn has(graph: &GraphProto, tensor: &str) -> bool {
    graph.input.iter().any(|input| input.name() == tensor)
        || graph.node.iter().any(|node| node.output.iter().any(|output| output == tensor))
}

/// Gives tensors the names that the trainer expects, and all others a prefix that keeps them apart from the head's.
fn rename(graph: &mut GraphProto, names: &[(String, &str)]) {
    let change = |name: &mut String| match names.iter().find(|(old, _)| old == name) {
        Some((_, new)) => *name = (*new).to_owned(),
        // An omitted optional input has an empty name.
        None if name.is_empty() => {}
        None => name.insert_str(0, PREFIX),
    };
    let change_optional = |name: &mut Option<String>| name.iter_mut().for_each(change);
    let of_node = |node: &mut NodeProto| node.input.iter_mut().chain(&mut node.output).for_each(change);
    graph.node.iter_mut().for_each(of_node);
    graph.initializer.iter_mut().for_each(|tensor| change_optional(&mut tensor.name));
    graph.input.iter_mut().chain(&mut graph.output).for_each(|info| change_optional(&mut info.name));
}

fn row_width(tape: &Tape, tensor: &str, called: &str) -> Result<usize, BackboneError> {
    match tape.shape(tensor)?.as_slice() {
        &[PROBED, width] if width > 0 => Ok(width),
        found => Err(BackboneError::Shape { tensor: called.to_owned(), found: found.to_vec() }),
    }
}
