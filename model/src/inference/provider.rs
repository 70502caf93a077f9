//! Execution providers: the parts of ONNX Runtime that run a network on a device.

use crate::inference::device::Device;
use crate::inference::error::EncoderError;
use crate::inference::options::EncoderOptions;
use crate::inference::runtime;
use ort::ep::{
    ArenaExtendStrategy, CUDA, CoreML, ExecutionProvider, ExecutionProviderDispatch, OpenVINO, ROCm, TensorRT,
};
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use std::borrow::Cow;
use std::path::Path;

/// The devices that [`Device::Auto`] tries before the CPU. TensorRT, which builds engines for minutes, is not among
/// them, nor is OpenVINO, whose CPU is no other than the one that is there anyway.
const AUTOMATIC: [Device; 3] = [Device::Cuda(0), Device::Rocm(0), Device::CoreMl];

/// Opens a session on the device asked for. Returns it with the device in use and, for a fallback, its reason.
///
/// `graph` returns the network for a device: some take it in single or half precision. `half`: whether others may compute in it.
/// `save`: where the graph goes as it was optimised for the CPU.
///
/// # Errors
/// [`EncoderError::Load`] if ONNX Runtime refuses the graph, [`EncoderError::Device`] if a device named outright is not
/// there; those of `graph`.
pub(crate) fn open<'g>(
    graph: impl Fn(Device) -> Result<Cow<'g, [u8]>, EncoderError>,
    options: &EncoderOptions,
    half: bool,
    save: Option<&Path>,
) -> Result<(Session, Device, Option<String>), EncoderError> {
    let on_cpu = || {
        let builder = match save {
            Some(path) => saving(builder(options)?, path).map_err(EncoderError::Load)?,
            None => builder(options)?,
        };
        commit(builder, &graph(Device::Cpu)?).map_err(EncoderError::Load)
    };
    match options.device {
        Device::Cpu => Ok((on_cpu()?, Device::Cpu, None)),
        Device::Auto => {
            let mut reason = None;
            for device in AUTOMATIC {
                match open_on(device, &graph, options, half) {
                    Ok(session) => return Ok((session, device, None)),
                    // What is built in but does not start says more than what is not built in.
                    Err(EncoderError::Device { reason: found, .. }) => {
                        if reason.is_none() || is_built_in(device) {
                            reason = Some(found);
                        }
                    }
                    Err(other) => return Err(other),
                }
            }
            Ok((on_cpu()?, Device::Cpu, reason))
        }
        device => Ok((open_on(device, &graph, options, half)?, device, None)),
    }
}

fn open_on<'g>(
    device: Device,
    graph: impl Fn(Device) -> Result<Cow<'g, [u8]>, EncoderError>,
    options: &EncoderOptions,
    half: bool,
) -> Result<Session, EncoderError> {
    let unavailable = |reason: String| EncoderError::Device { device, reason };
    if !is_built_in(device) {
        return Err(unavailable(format!("This build of ONNX Runtime has no {} support.", provider_name(device))));
    }
    let builder = builder(options)?
        .with_execution_providers(providers(device, options, half))
        .map_err(|error| unavailable(error.to_string()))?;
    commit(builder, &graph(device)?).map_err(|error| unavailable(error.to_string()))
}

fn saving(builder: SessionBuilder, path: &Path) -> ort::Result<SessionBuilder> {
    Ok(builder.with_optimized_model_path(path)?.with_config_entry("session.save_model_format", "ORT")?)
}

/// Opens a session of a graph that [`open`] has saved, on the CPU. Weights are not copied: the session reads them in
/// `saved` for as long as it lives.
pub(crate) fn open_saved(saved: &[u8], options: &EncoderOptions) -> Result<Session, EncoderError> {
    let builder = builder(options)?;
    let configure = || -> ort::Result<SessionBuilder> {
        Ok(builder
            // All was done before it was saved.
            .with_optimization_level(GraphOptimizationLevel::Disable)?
            .with_config_entry("session.use_ort_model_bytes_directly", "1")?
            .with_config_entry("session.use_ort_model_bytes_for_initializers", "1")?)
    };
    commit(configure().map_err(EncoderError::Load)?, saved).map_err(EncoderError::Load)
}

fn provider_name(device: Device) -> &'static str {
    match device {
        Device::Auto | Device::Cpu => "CPU",
        Device::Cuda(_) => "CUDA",
        Device::TensorRt(_) => "TensorRT",
        Device::Rocm(_) => "ROCm",
        Device::CoreMl => "CoreML",
        Device::OpenVino(_) => "OpenVINO",
    }
}

/// Whether the loaded library was built with the device's provider; that says nothing of the device itself.
pub(crate) fn is_built_in(device: Device) -> bool {
    let available = match device {
        Device::Auto | Device::Cpu => Ok(true),
        Device::Cuda(_) => CUDA::is_available(),
        Device::TensorRt(_) => TensorRT::is_available(),
        Device::Rocm(_) => ROCm::is_available(),
        Device::CoreMl => CoreML::is_available(),
        Device::OpenVino(_) => OpenVINO::is_available(),
    };
    available.unwrap_or(false)
}

/// The providers of a device, first choice first; what none of them can run is left to the CPU.
///
/// Without `error_on_failure` a provider that does not start is replaced by the CPU in silence.
fn providers(device: Device, options: &EncoderOptions, half: bool) -> Vec<ExecutionProviderDispatch> {
    let cuda = |number: u16| {
        let cuda = CUDA::default()
            .with_device_id(number.into())
            // Not by powers of two, as is the default: memory is shared with other users of the GPU.
            .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested);
        match options.memory_limit {
            0 => cuda.build().error_on_failure(),
            limit => cuda.with_memory_limit(limit).build().error_on_failure(),
        }
    };
    match device {
        Device::Auto | Device::Cpu => Vec::new(),
        Device::Cuda(number) => vec![cuda(number)],
        Device::TensorRt(number) => {
            let engine = TensorRT::default().with_device_id(number.into()).with_fp16(half);
            let engine = match options.memory_limit {
                0 => engine,
                limit => engine.with_max_workspace_size(limit),
            };
            vec![engine.build().error_on_failure(), cuda(number)]
        }
        Device::Rocm(number) => {
            let rocm = ROCm::default()
                .with_device_id(number.into())
                .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested);
            vec![match options.memory_limit {
                0 => rocm.build().error_on_failure(),
                limit => rocm.with_mem_limit(limit).build().error_on_failure(),
            }]
        }
        Device::CoreMl => {
            vec![CoreML::default().with_low_precision_accumulation_on_gpu(half).build().error_on_failure()]
        }
        Device::OpenVino(target) => {
            let openvino = OpenVINO::default().with_device_type(target.openvino_name()).with_precision(if half {
                "FP16"
            } else {
                "ACCURACY"
            });
            vec![match options.threads {
                0 => openvino.build().error_on_failure(),
                threads => openvino.with_num_threads(threads).build().error_on_failure(),
            }]
        }
    }
}

fn builder(options: &EncoderOptions) -> Result<SessionBuilder, EncoderError> {
    let environment = runtime::environment()?;
    let configure = || -> ort::Result<SessionBuilder> {
        Ok(Session::builder(environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(options.threads)?
            // Threads that spin between runs would take whole cores from the database.
            .with_intra_op_spinning(false)?)
    };
    configure().map_err(EncoderError::Load)
}

fn commit(mut builder: SessionBuilder, onnx: &[u8]) -> ort::Result<Session> {
    builder.commit_from_memory(onnx)
}

#[cfg(test)]
mod tests;
