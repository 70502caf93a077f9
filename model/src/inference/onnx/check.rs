//! Whether a model is complete in itself.

use super::OnnxError;
use super::messages::{
    AttributeProto, DataLocation, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto,
};

/// Operator domains that every ONNX Runtime has; the empty one is `ai.onnx` by its short name.
const DOMAINS: [&str; 3] = ["", "ai.onnx", "ai.onnx.ml"];

/// Refuses a model that needs more than its own bytes and the standard operators.
///
/// A model in the database is loaded by a server process: a tensor that names a file would read that file, and an
/// operator of another domain would need a library of its maker. Looks into every graph: the main one, those for
/// training, and those in attributes of control-flow nodes.
///
/// # Errors
/// [`OnnxError::NoGraph`], [`OnnxError::ExternalData`], [`OnnxError::OperatorDomain`], [`OnnxError::LocalFunction`].
pub fn check_self_contained(model: &ModelProto) -> Result<(), OnnxError> {
    if let Some(function) = model.functions.first() {
        return Err(OnnxError::LocalFunction { function: function.name().to_owned() });
    }
    check_graph(model.graph.as_ref().ok_or(OnnxError::NoGraph)?)?;
    for info in &model.training_info {
        info.initialization.iter().chain(&info.algorithm).try_for_each(check_graph)?;
    }
    Ok(())
}

fn check_graph(graph: &GraphProto) -> Result<(), OnnxError> {
    graph.initializer.iter().try_for_each(check_tensor)?;
    graph.sparse_initializer.iter().try_for_each(check_sparse)?;
    graph.node.iter().try_for_each(check_node)
}

fn check_node(node: &NodeProto) -> Result<(), OnnxError> {
    if !DOMAINS.contains(&node.domain()) {
        return Err(OnnxError::OperatorDomain {
            node: node_label(node),
            operator: node.op_type().to_owned(),
            domain: node.domain().to_owned(),
        });
    }
    node.attribute.iter().try_for_each(check_attribute)
}

fn check_attribute(attribute: &AttributeProto) -> Result<(), OnnxError> {
    attribute.t.iter().chain(&attribute.tensors).try_for_each(check_tensor)?;
    attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors).try_for_each(check_sparse)?;
    attribute.g.iter().chain(&attribute.graphs).try_for_each(check_graph)
}

fn check_sparse(sparse: &SparseTensorProto) -> Result<(), OnnxError> {
    sparse.values.iter().chain(&sparse.indices).try_for_each(check_tensor)
}

fn check_tensor(tensor: &TensorProto) -> Result<(), OnnxError> {
    // The raw number, not the enum: a location of a future version is not inside the model either.
    let inside = tensor.data_location.unwrap_or(0) == DataLocation::Default as i32;
    if inside && tensor.external_data.is_empty() {
        return Ok(());
    }
    Err(OnnxError::ExternalData { tensor: tensor.name().to_owned() })
}

/// The node's name, or its first output where an exporter left the name empty.
fn node_label(node: &NodeProto) -> String {
    match node.name() {
        "" => node.output.first().cloned().unwrap_or_default(),
        name => name.to_owned(),
    }
}
