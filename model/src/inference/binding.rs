//! Input and output buffers beside a device, reused from run to run.
//!
//! For NVIDIA's devices they are page-locked, so that copies between them and the device need no buffer between; others
//! take plain memory.

use crate::inference::device::Device;
use crate::inference::error::EncoderError;
use ndarray::Array2;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, NoSelectedOutputs, RunOptions, Session};
use ort::value::Tensor;

/// The buffers of one session.
pub struct Bindings {
    /// Where inputs are written; `None` leaves them in plain memory.
    pinned: Option<Allocator>,
    output: MemoryInfo<'static>,
    /// One for each size of batch that was run, of which there are few: see [`Device::padded`].
    bound: Vec<Bound>,
}

struct Bound {
    name: String,
    images: usize,
    binding: IoBinding,
    image: Tensor<f32>,
}

impl Bindings {
    /// Buffers that suit the device, `None` for the CPU.
    ///
    /// # Errors
    /// [`EncoderError::Load`] if the device does not give page-locked memory.
    pub fn for_device(session: &Session, device: Device) -> Result<Option<Self>, EncoderError> {
        match device {
            Device::Auto | Device::Cpu => Ok(None),
            Device::Cuda(number) | Device::TensorRt(number) => {
                Self::pinned(session, number).map(Some).map_err(EncoderError::Load)
            }
            _ => Self::plain().map(Some).map_err(EncoderError::Load),
        }
    }

    fn plain() -> ort::Result<Self> {
        let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Arena, MemoryType::Default)?;
        Ok(Self { pinned: None, output: memory, bound: Vec::new() })
    }

    fn pinned(session: &Session, number: u16) -> ort::Result<Self> {
        let memory = |kind| MemoryInfo::new(AllocationDevice::CUDA_PINNED, number.into(), AllocatorType::Device, kind);
        let inputs = Allocator::new(session, memory(MemoryType::CPUInput)?)?;
        Ok(Self { pinned: Some(inputs), output: memory(MemoryType::CPUOutput)?, bound: Vec::new() })
    }

    /// Runs the graph over `batch`, shape `shape`, and returns its output `name`, shape `(images, width)`.
    ///
    /// # Errors
    /// Those of ONNX Runtime; an output of another shape.
    pub fn run(
        &mut self,
        session: &mut Session,
        name: &str,
        shape: [usize; 4],
        batch: &[f32],
        domains: Option<Vec<i64>>,
        options: &RunOptions<NoSelectedOutputs>,
    ) -> ort::Result<Array2<f32>> {
        let images = shape[0];
        let known = self.bound.iter().position(|bound| bound.images == images && bound.name == name);
        let index = match known {
            Some(index) => index,
            None => {
                let image = match &self.pinned {
                    Some(allocator) => Tensor::<f32>::new(allocator, shape)?,
                    None => Tensor::from_array((shape, vec![0.0; batch.len()]))?,
                };
                let mut binding = session.create_binding()?;
                binding.bind_output_to_device(name, &self.output)?;
                self.bound.push(Bound { name: name.to_owned(), images, binding, image });
                self.bound.len() - 1
            }
        };
        let bound = &mut self.bound[index];
        bound.image.extract_tensor_mut().1.copy_from_slice(batch);
        // Inputs are copied to the device when they are bound, so that they are bound anew for each run.
        bound.binding.bind_input("image", &bound.image)?;
        if let Some(domains) = domains {
            bound.binding.bind_input("domain", &Tensor::from_array(([images], domains))?)?;
        }
        let outputs = session.run_binding_with_options(&bound.binding, options)?;
        bound.binding.synchronize_outputs()?;
        rows_of(name, outputs.get(name).ok_or_else(|| no_output(name))?, images)
    }
}

/// The rows of an output, shape `(images, width)`.
pub(crate) fn rows_of(name: &str, output: &ort::value::DynValue, images: usize) -> ort::Result<Array2<f32>> {
    let (_, values) = output.try_extract_tensor::<f32>()?;
    Array2::from_shape_vec((images, values.len() / images), values.to_vec()).map_err(|_| no_output(name))
}

pub(crate) fn no_output(name: &str) -> ort::Error {
    ort::Error::new(format!("no output \"{name}\" of shape (n, d)"))
}

#[cfg(test)]
mod tests;
