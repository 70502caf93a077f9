//! The names of the devices that may run a network.

use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Where the network runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// A GPU where there is one, else the CPU.
    #[default]
    Auto,
    Cpu,
    /// The CUDA device of this number.
    Cuda(u16),
    /// The CUDA device of this number, by TensorRT, which builds an engine for it when the network is loaded.
    TensorRt(u16),
    /// The ROCm device of this number.
    Rocm(u16),
    /// Apple's accelerators.
    CoreMl,
    /// Intel's CPUs, GPUs and NPUs.
    OpenVino(OpenVinoTarget),
}

/// Which of Intel's devices OpenVINO runs the network on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OpenVinoTarget {
    /// OpenVINO chooses.
    #[default]
    Auto,
    Cpu,
    Gpu,
    Npu,
}

/// What [`Device::from_str`] takes, for messages.
pub const DEVICE_NAMES: &str = "auto, cpu, cuda[:N], tensorrt[:N], rocm[:N], coreml or openvino[:cpu|:gpu|:npu]";

/// A device name that is none of [`DEVICE_NAMES`].
#[derive(Debug, Error)]
#[error("device \"{0}\" is unknown")]
pub struct UnknownDevice(String);

impl OpenVinoTarget {
    const ALL: [(Self, &'static str); 3] = [(Self::Cpu, "cpu"), (Self::Gpu, "gpu"), (Self::Npu, "npu")];

    /// OpenVINO's own name of it.
    pub fn openvino_name(self) -> &'static str {
        match self {
            Self::Auto => "AUTO",
            Self::Cpu => "CPU",
            Self::Gpu => "GPU",
            Self::Npu => "NPU",
        }
    }
}

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(name: &str) -> Result<Self, UnknownDevice> {
        let unknown = || UnknownDevice(name.to_owned());
        let (kind, detail) = name.split_once(':').map_or((name, None), |(kind, detail)| (kind, Some(detail)));
        let number = || detail.map_or(Ok(0), |detail| detail.parse().map_err(|_| unknown()));
        match (kind, detail) {
            ("auto", None) => Ok(Self::Auto),
            ("cpu", None) => Ok(Self::Cpu),
            ("coreml", None) => Ok(Self::CoreMl),
            ("cuda", _) => number().map(Self::Cuda),
            ("tensorrt", _) => number().map(Self::TensorRt),
            ("rocm", _) => number().map(Self::Rocm),
            ("openvino", None) => Ok(Self::OpenVino(OpenVinoTarget::Auto)),
            ("openvino", Some(detail)) => {
                let found = OpenVinoTarget::ALL.into_iter().find(|(_, name)| *name == detail);
                found.map(|(target, _)| Self::OpenVino(target)).ok_or_else(unknown)
            }
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::TensorRt(number) => write!(f, "tensorrt:{number}"),
            Self::Rocm(number) => write!(f, "rocm:{number}"),
            Self::CoreMl => f.write_str("coreml"),
            Self::OpenVino(target) => match OpenVinoTarget::ALL.iter().find(|(known, _)| known == target) {
                Some((_, name)) => write!(f, "openvino:{name}"),
                None => f.write_str("openvino"),
            },
        }
    }
}

impl Device {
    /// The device as a number, to be shared between processes: its kind above, its own number in the lower 16 bits.
    pub fn code(self) -> u32 {
        let (kind, number) = match self {
            Self::Auto => (0, 0),
            Self::Cpu => (1, 0),
            Self::Cuda(number) => (2, number),
            Self::TensorRt(number) => (3, number),
            Self::Rocm(number) => (4, number),
            Self::CoreMl => (5, 0),
            Self::OpenVino(target) => (6, target as u16),
        };
        kind << 16 | u32::from(number)
    }

    /// The device of a [`code`](Self::code); `None` for a number that is none.
    pub fn from_code(code: u32) -> Option<Self> {
        let number = code as u16;
        match (code >> 16, number) {
            (0, 0) => Some(Self::Auto),
            (1, 0) => Some(Self::Cpu),
            (2, _) => Some(Self::Cuda(number)),
            (3, _) => Some(Self::TensorRt(number)),
            (4, _) => Some(Self::Rocm(number)),
            (5, 0) => Some(Self::CoreMl),
            (6, _) => [OpenVinoTarget::Auto, OpenVinoTarget::Cpu, OpenVinoTarget::Gpu, OpenVinoTarget::Npu]
                .into_iter()
                .find(|target| *target as u16 == number)
                .map(Self::OpenVino),
            _ => None,
        }
    }

    /// Whether the device has memory of its own that NVIDIA's runtime manages.
    pub fn is_cuda(self) -> bool {
        matches!(self, Self::Cuda(_) | Self::TensorRt(_))
    }

    /// How many images the device is to run for a batch of `images`, of at most `max_batch`.
    ///
    /// GPUs are tuned for each size of batch that they meet, so that they meet powers of two and `max_batch` only; the CPU takes each size as it is.
    pub fn padded(self, images: usize, max_batch: usize) -> usize {
        match self {
            Self::Auto | Self::Cpu => images,
            _ => images.next_power_of_two().min(max_batch.max(images)),
        }
    }

    /// The sizes of batch that [`padded`](Self::padded) returns: what to warm up with.
    pub fn batch_sizes(self, max_batch: usize) -> Vec<usize> {
        let mut sizes: Vec<usize> = (1..=max_batch).map(|images| self.padded(images, max_batch)).collect();
        sizes.dedup();
        sizes
    }
}
