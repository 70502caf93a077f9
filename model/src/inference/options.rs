//! How to run a network.

use crate::inference::device::Device;

/// Which kind of image the network sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    Sketch = 0,
    Photo = 1,
}

/// Where a network runs, and what it may use there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EncoderOptions {
    pub device: Device,
    /// Threads inside one run on the CPU; 0 takes one for each core.
    pub threads: usize,
    /// Most bytes of the device's own memory that a network may take; 0 for no limit. CUDA, TensorRT and ROCm obey it.
    pub memory_limit: usize,
    /// Largest batch that will be run: a GPU is warmed up for each size.
    pub max_batch: usize,
    /// Whether other sessions on the CPU will share this one's weights.
    pub share_weights: bool,
}

impl EncoderOptions {
    /// Images one by one, without a limit of memory.
    pub const fn new(device: Device, threads: usize) -> Self {
        Self { device, threads, memory_limit: 0, max_batch: 1, share_weights: false }
    }
}

impl Default for EncoderOptions {
    fn default() -> Self {
        Self::new(Device::Auto, 0)
    }
}
