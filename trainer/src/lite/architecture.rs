//! The architecture of EfficientNet-Lite: a table of stages, scaled in width and depth.

use sketch_model::inference::onnx::build::{attribute_int, attribute_ints};
use sketch_model::inference::onnx::messages::AttributeProto;

use crate::weights::StateDict;

/// Channels after the first convolution, in every variant.
pub const STEM: usize = 32;
/// Channel counts are multiples of this.
const DIVISOR: f64 = 8.0;

/// A variant of the family; larger variants are wider and deeper and take larger images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Variant {
    Lite0,
    Lite1,
    Lite2,
    Lite3,
    Lite4,
}

impl Variant {
    pub const ALL: [Self; 5] = [Self::Lite0, Self::Lite1, Self::Lite2, Self::Lite3, Self::Lite4];

    /// Width and depth relative to Lite0, and the side of the input image in pixels.
    fn scale(self) -> (f64, f64, usize) {
        match self {
            Self::Lite0 => (1.0, 1.0, 224),
            Self::Lite1 => (1.0, 1.1, 240),
            Self::Lite2 => (1.1, 1.2, 260),
            Self::Lite3 => (1.2, 1.4, 280),
            Self::Lite4 => (1.4, 1.8, 300),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Lite0 => "lite0",
            Self::Lite1 => "lite1",
            Self::Lite2 => "lite2",
            Self::Lite3 => "lite3",
            Self::Lite4 => "lite4",
        }
    }

    /// The variant of a state dict, by the number of blocks and the width of the last.
    pub fn of_weights(state: &StateDict) -> Option<Self> {
        Self::ALL.into_iter().find(|variant| {
            let blocks = Architecture::of(*variant).blocks;
            let (last, width) = (blocks.len() - 1, blocks[blocks.len() - 1].outputs);
            let next = format!("_blocks.{}._project_conv.weight", last + 1);
            let found = state.get(&format!("_blocks.{last}._project_conv.weight"));
            found.is_some_and(|tensor| tensor.shape.first() == Some(&width)) && !state.contains_key(&next)
        })
    }
}

/// The geometry of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    pub kernel: usize,
    pub stride: usize,
    pub groups: usize,
    /// Zeros before the first row and column.
    pub pad_begin: usize,
    /// Zeros after the last row and column.
    pub pad_end: usize,
}

impl Convolution {
    /// Attributes of its node.
    pub fn attributes(&self) -> Vec<AttributeProto> {
        let pair = |size: usize| [size as i64; 2];
        let (begin, end) = (self.pad_begin as i64, self.pad_end as i64);
        vec![
            attribute_int("group", self.groups as i64),
            attribute_ints("kernel_shape", &pair(self.kernel)),
            attribute_ints("pads", &[begin, begin, end, end]),
            attribute_ints("strides", &pair(self.stride)),
        ]
    }
}

/// A stage: repeated blocks, of which only the first changes width and resolution.
struct Stage {
    repeats: usize,
    kernel: usize,
    stride: usize,
    expansion: usize,
    inputs: usize,
    outputs: usize,
}

#[rustfmt::skip]
const STAGES: [Stage; 7] = [
    Stage { repeats: 1, kernel: 3, stride: 1, expansion: 1, inputs: 32,  outputs: 16 },
    Stage { repeats: 2, kernel: 3, stride: 2, expansion: 6, inputs: 16,  outputs: 24 },
    Stage { repeats: 2, kernel: 5, stride: 2, expansion: 6, inputs: 24,  outputs: 40 },
    Stage { repeats: 3, kernel: 3, stride: 2, expansion: 6, inputs: 40,  outputs: 80 },
    Stage { repeats: 3, kernel: 5, stride: 1, expansion: 6, inputs: 80,  outputs: 112 },
    Stage { repeats: 4, kernel: 5, stride: 2, expansion: 6, inputs: 112, outputs: 192 },
    Stage { repeats: 1, kernel: 3, stride: 1, expansion: 6, inputs: 192, outputs: 320 },
];

/// An inverted bottleneck: 1×1 expansion, depthwise convolution, 1×1 projection, and a skip connection where shapes match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub inputs: usize,
    /// Channels of the depthwise convolution; without expansion, the same as `inputs`.
    pub hidden: usize,
    pub outputs: usize,
    pub depthwise: Convolution,
}

impl Block {
    /// Whether the block's input is added to its output.
    pub fn has_skip(&self) -> bool {
        self.depthwise.stride == 1 && self.inputs == self.outputs
    }
}

/// All layers of a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Architecture {
    pub variant: Variant,
    /// Side of the input image, in pixels.
    pub size: usize,
    pub stem: Convolution,
    pub blocks: Vec<Block>,
}

impl Architecture {
    pub fn of(variant: Variant) -> Self {
        let (width, depth, size) = variant.scale();
        let stem = same_convolution(size, 3, 2, 1);
        let mut side = size.div_ceil(2);
        let mut blocks: Vec<Block> = Vec::new();
        for (i, stage) in STAGES.iter().enumerate() {
            // Depth scaling skips the first and last stage, width scaling the stem.
            let ends = i == 0 || i == STAGES.len() - 1;
            let repeats = if ends { stage.repeats } else { (depth * stage.repeats as f64).ceil() as usize };
            let first = if i == 0 { STEM } else { scale_channels(stage.inputs, width) };
            let outputs = scale_channels(stage.outputs, width);
            for repeat in 0..repeats {
                let (inputs, stride) = if repeat == 0 { (first, stage.stride) } else { (outputs, 1) };
                let hidden = inputs * stage.expansion;
                let depthwise = same_convolution(side, stage.kernel, stride, hidden);
                blocks.push(Block { inputs, hidden, outputs, depthwise });
                side = side.div_ceil(stride);
            }
        }
        Self { variant, size, stem, blocks }
    }
}

/// A convolution with "same" padding: its output has `ceil(side / stride)` rows; an odd zero goes after the last row.
pub fn same_convolution(side: usize, kernel: usize, stride: usize, groups: usize) -> Convolution {
    let needed = (side.div_ceil(stride) - 1) * stride + kernel;
    let padding = needed.saturating_sub(side);
    Convolution { kernel, stride, groups, pad_begin: padding / 2, pad_end: padding - padding / 2 }
}

/// Channels of a wider variant: the nearest multiple of eight that is at most a tenth below the exact number.
fn scale_channels(channels: usize, width: f64) -> usize {
    let exact = channels as f64 * width;
    let rounded = ((exact + DIVISOR / 2.0) / DIVISOR).floor() * DIVISOR;
    let rounded = rounded.max(DIVISOR);
    (if rounded < 0.9 * exact { rounded + DIVISOR } else { rounded }) as usize
}
