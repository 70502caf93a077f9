//! Builds the graph: trunk, features, classifier, embedding.

use sketch_model::inference::onnx::build::{Size, attribute_int, value_info};
use sketch_model::inference::onnx::messages::{DataType, ModelProto};

use super::architecture::{Architecture, Block, Convolution, STEM, same_convolution};
use super::fold::{find, fold_normalisation};
use super::{CLASSES, FEATURES, LiteError};
use crate::engine::Tape;
use crate::head::Head;
use crate::weights::StateDict;

/// Builds the graph of `architecture` with the weights in `state`.
///
/// Inputs: `image`, float32 `(n, 3, size, size)`; `domain`, int64 `(n,)`, 0 for a sketch and 1 for a photo.
/// Outputs: `embedding`, float32 `(n, d)`, each row of unit length; `features` `(n, 1280)`; `logits` `(n, 1000)`.
///
/// # Errors
/// [`LiteError::Missing`] and [`LiteError::Shape`] if `state` does not match the architecture, [`LiteError::Projection`] if the
/// head expects features of another width.
pub fn build_graph(architecture: &Architecture, state: &StateDict, head: &Head) -> Result<ModelProto, LiteError> {
    if head.projection.nrows() != FEATURES {
        return Err(LiteError::Projection { rows: head.projection.nrows() });
    }
    let mut net = Network { state, tape: Tape::default() };
    let map = net.trunk(architecture)?;
    net.features(&map)?;
    net.logits()?;
    head.add_to(&mut net.tape)?;

    let name = format!("efficientnet-{}", architecture.variant.name());
    let (batch, size) = (Size::Named("n"), Size::Fixed(architecture.size));
    let inputs = vec![
        value_info("image", DataType::Float, &[batch, Size::Fixed(3), size, size]),
        value_info("domain", DataType::Int64, &[batch]),
    ];
    let output = |name, width| value_info(name, DataType::Float, &[batch, Size::Fixed(width)]);
    let outputs =
        vec![output("embedding", head.projection.ncols()), output("features", FEATURES), output("logits", CLASSES)];
    Ok(net.tape.network(&name, inputs, outputs))
}

struct Network<'a> {
    state: &'a StateDict,
    tape: Tape,
}

impl Network<'_> {
    /// All convolutions; returns the name of the last feature map.
    fn trunk(&mut self, architecture: &Architecture) -> Result<String, LiteError> {
        let stem = self.convolution(["_conv_stem", "_bn0", "stem"], "image", 3, STEM, &architecture.stem)?;
        let mut map = self.relu6(&stem);
        for (i, block) in architecture.blocks.iter().enumerate() {
            map = self.block(i, block, &map)?;
        }
        let inputs = architecture.blocks.last().map_or(STEM, |block| block.outputs);
        let top = self.pointwise(["_conv_head", "_bn1", "top"], &map, inputs, FEATURES)?;
        Ok(self.relu6(&top))
    }

    fn block(&mut self, number: usize, block: &Block, input: &str) -> Result<String, LiteError> {
        let theirs = |part: &str| format!("_blocks.{number}.{part}");
        let ours = |part: &str| format!("block{number}.{part}");
        let mut map = input.to_owned();
        if block.hidden > block.inputs {
            let names = [&*theirs("_expand_conv"), &*theirs("_bn0"), &*ours("expand")];
            let expanded = self.pointwise(names, &map, block.inputs, block.hidden)?;
            map = self.relu6(&expanded);
        }
        let names = [&*theirs("_depthwise_conv"), &*theirs("_bn1"), &*ours("depthwise")];
        let filtered = self.convolution(names, &map, block.hidden, block.hidden, &block.depthwise)?;
        map = self.relu6(&filtered);
        let names = [&*theirs("_project_conv"), &*theirs("_bn2"), &*ours("project")];
        map = self.pointwise(names, &map, block.hidden, block.outputs)?;
        if block.has_skip() {
            map = self.tape.named("Add", &[&map, input], &[&ours("sum")], vec![]);
        }
        Ok(map)
    }

    fn pointwise(&mut self, names: [&str; 3], input: &str, from: usize, to: usize) -> Result<String, LiteError> {
        self.convolution(names, input, from, to, &same_convolution(1, 1, 1, 1))
    }

    /// A convolution with its normalisation folded in; `names`: both in the state dict, then the name in the graph.
    fn convolution(
        &mut self,
        [conv, norm, name]: [&str; 3],
        input: &str,
        from: usize,
        to: usize,
        shape: &Convolution,
    ) -> Result<String, LiteError> {
        let weights = [to, from / shape.groups, shape.kernel, shape.kernel];
        let folded = fold_normalisation(self.state, conv, norm, &weights)?;
        let weight = self.tape.named_constant(&format!("{name}.weight"), &weights, &folded.weight)?;
        let bias = self.tape.named_constant(&format!("{name}.bias"), &[to], &folded.bias)?;
        Ok(self.tape.named("Conv", &[input, &weight, &bias], &[name], shape.attributes()))
    }

    fn relu6(&mut self, input: &str) -> String {
        let (zero, six) = (self.tape.scalar(0.0), self.tape.scalar(6.0));
        self.tape.named("Clip", &[input, &zero, &six], &[&format!("{input}.relu6")], vec![])
    }

    fn features(&mut self, map: &str) -> Result<(), LiteError> {
        let pooled = self.tape.named("GlobalAveragePool", &[map], &["pooled"], vec![]);
        self.tape.named("Flatten", &[&pooled], &["features"], vec![attribute_int("axis", 1)]);
        Ok(())
    }

    fn logits(&mut self) -> Result<(), LiteError> {
        let weight = find(self.state, "_fc.weight", &[CLASSES, FEATURES])?;
        let bias = find(self.state, "_fc.bias", &[CLASSES])?;
        let weight = self.tape.named_constant("classifier.weight", &[CLASSES, FEATURES], &weight.values)?;
        let bias = self.tape.named_constant("classifier.bias", &[CLASSES], &bias.values)?;
        self.tape.named("Gemm", &["features", &weight, &bias], &["logits"], vec![attribute_int("transB", 1)]);
        Ok(())
    }
}
