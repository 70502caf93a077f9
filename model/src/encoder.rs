//! The network: one ONNX graph run by ONNX Runtime.

use crate::manifest::Manifest;
use crate::onnx::{self, OnnxError};
use crate::runtime::{self, RuntimeError};
use ndarray::Array2;
use ort::ep::{CUDA, ExecutionProvider};
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{Outlet, Tensor, TensorElementType, ValueType};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Which kind of image the network sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    Sketch = 0,
    Photo = 1,
}

/// Where the network runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// A GPU where there is one, else the CPU.
    #[default]
    Auto,
    Cpu,
    /// The CUDA device of this number.
    Cuda(u16),
}

/// A device name that is none of `auto`, `cpu`, `cuda`, `cuda:N`.
#[derive(Debug, Error)]
#[error("device \"{0}\" is unknown")]
pub struct UnknownDevice(String);

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(name: &str) -> Result<Self, UnknownDevice> {
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => name
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| UnknownDevice(name.to_owned())),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// How to run a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EncoderOptions {
    pub device: Device,
    /// Threads inside one run; 0 takes one for each core.
    pub threads: usize,
}

/// Why a network did not load or run.
#[derive(Debug, Error)]
pub enum EncoderError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error("could not load the network")]
    Load(#[source] ort::Error),
    #[error("network has no {kind} \"{name}\" of {expected}")]
    Signature { kind: &'static str, name: &'static str, expected: String, found: String },
    #[error("device \"{device}\" is not available")]
    Device { device: Device, reason: String },
    #[error("could not run the network")]
    Run(#[source] ort::Error),
    #[error("batch of {images} images has {found} values, expected {expected}")]
    Batch { images: usize, found: usize, expected: usize },
    #[error("network returned a value that is not finite")]
    NotFinite,
}

/// A loaded network.
pub struct Encoder {
    session: Session,
    device: Device,
    fallback: Option<String>,
    dimension: usize,
    size: usize,
    domain_input: bool,
}

impl Encoder {
    /// Loads the graph `onnx` as `manifest` describes it.
    ///
    /// [`runtime::init`] comes first. ONNX Runtime starts its threads here, and they inherit the caller's signal mask.
    ///
    /// # Errors
    /// [`EncoderError::Onnx`] for a graph that is corrupt, reaches for external data or custom operators;
    /// [`EncoderError::Signature`] if its inputs and outputs are not the manifest's;
    /// [`EncoderError::Device`] if a device named outright is not there.
    pub fn load(onnx: &[u8], manifest: &Manifest, options: &EncoderOptions) -> Result<Self, EncoderError> {
        onnx::check_self_contained(&onnx::parse(onnx)?)?;
        let (session, device, fallback) = open_session(onnx, options)?;
        let encoder = Self {
            session,
            device,
            fallback,
            dimension: manifest.dimension,
            size: manifest.input.size as usize,
            domain_input: manifest.domain_input,
        };
        encoder.check_signature()?;
        Ok(encoder)
    }

    /// The device that the network runs on; never [`Device::Auto`].
    pub fn device(&self) -> Device {
        self.device
    }

    /// Why `auto` fell back to the CPU, if it did.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Embeds `images` images of one domain.
    ///
    /// `batch`: shape `(images, 3, size, size)`, row-major. Returns shape `(images, d)`, each row of unit length.
    ///
    /// # Errors
    /// [`EncoderError::Batch`] for a batch of another size, [`EncoderError::Run`] if the run fails,
    /// [`EncoderError::NotFinite`] if the network returns NaN or infinity.
    pub fn encode(&mut self, domain: Domain, batch: Vec<f32>, images: usize) -> Result<Array2<f32>, EncoderError> {
        let expected = images * 3 * self.size * self.size;
        if images == 0 || batch.len() != expected {
            return Err(EncoderError::Batch { images, found: batch.len(), expected });
        }
        let rows = self.run("embedding", domain, batch, images)?;
        if rows.iter().all(|x| x.is_finite()) { Ok(rows) } else { Err(EncoderError::NotFinite) }
    }

    /// Runs the graph and returns its output `name`, shape `(images, width)`.
    ///
    /// # Errors
    /// [`EncoderError::Run`] if the run fails or the output has another shape.
    pub fn run(
        &mut self,
        name: &str,
        domain: Domain,
        batch: Vec<f32>,
        images: usize,
    ) -> Result<Array2<f32>, EncoderError> {
        let image = Tensor::from_array(([images, 3, self.size, self.size], batch)).map_err(EncoderError::Run)?;
        let mut inputs = ort::inputs!["image" => image];
        if self.domain_input {
            let domains = vec![domain as i64; images];
            let domain = Tensor::from_array(([images], domains)).map_err(EncoderError::Run)?;
            inputs.push(("domain".into(), domain.into()));
        }
        let outputs = self.session.run(inputs).map_err(EncoderError::Run)?;
        let missing = || EncoderError::Run(ort::Error::new(format!("no output \"{name}\" of shape (n, d)")));
        let (_, values) = outputs.get(name).ok_or_else(missing)?.try_extract_tensor().map_err(EncoderError::Run)?;
        Array2::from_shape_vec((images, values.len() / images), values.to_vec()).map_err(|_| missing())
    }

    fn check_signature(&self) -> Result<(), EncoderError> {
        let (size, dimension) = (self.size as i64, self.dimension as i64);
        let (inputs, outputs) = (self.session.inputs(), self.session.outputs());
        check_tensor("input", inputs, "image", TensorElementType::Float32, &[-1, 3, size, size])?;
        if self.domain_input {
            check_tensor("input", inputs, "domain", TensorElementType::Int64, &[-1])?;
        }
        check_tensor("output", outputs, "embedding", TensorElementType::Float32, &[-1, dimension])
    }
}

fn check_tensor(
    kind: &'static str,
    outlets: &[Outlet],
    name: &'static str,
    element: TensorElementType,
    shape: &[i64],
) -> Result<(), EncoderError> {
    let dtype = outlets.iter().find(|outlet| outlet.name() == name).map(Outlet::dtype);
    let fits = |found: &[i64]| {
        found.len() == shape.len() && found[0] == -1 && found.iter().zip(shape).all(|(f, s)| *f == -1 || f == s)
    };
    match dtype {
        Some(ValueType::Tensor { ty, shape: found, .. }) if *ty == element && fits(found) => Ok(()),
        _ => Err(EncoderError::Signature {
            kind,
            name,
            expected: format!("{element} {shape:?}"),
            found: dtype.map_or_else(|| "none".to_owned(), ToString::to_string),
        }),
    }
}

/// Opens a session on the device asked for. Returns it with the device in use and, for a fallback, its reason.
///
/// [`runtime::init`] comes first. The graph is taken as it is: [`Encoder::load`] checks what it needs.
///
/// # Errors
/// [`EncoderError::Load`] if ONNX Runtime refuses the graph, [`EncoderError::Device`] if a device named outright is not
/// there.
pub fn open_session(onnx: &[u8], options: &EncoderOptions) -> Result<(Session, Device, Option<String>), EncoderError> {
    let on_cpu = || commit(builder(options)?, onnx).map_err(EncoderError::Load);
    match options.device {
        Device::Cpu => Ok((on_cpu()?, Device::Cpu, None)),
        Device::Cuda(number) => {
            let session = open_cuda(onnx, options, number)?;
            Ok((session, options.device, None))
        }
        Device::Auto => match open_cuda(onnx, options, 0) {
            Ok(session) => Ok((session, Device::Cuda(0), None)),
            Err(EncoderError::Device { reason, .. }) => Ok((on_cpu()?, Device::Cpu, Some(reason))),
            Err(other) => Err(other),
        },
    }
}

fn open_cuda(onnx: &[u8], options: &EncoderOptions, number: u16) -> Result<Session, EncoderError> {
    let unavailable = |reason: String| EncoderError::Device { device: Device::Cuda(number), reason };
    let provider = CUDA::default().with_device_id(number.into());
    if !CUDA::is_available().unwrap_or(false) {
        return Err(unavailable("This build of ONNX Runtime has no CUDA support.".to_owned()));
    }
    // Without error_on_failure a provider that does not start is replaced by the CPU in silence.
    let builder = builder(options)?
        .with_execution_providers([provider.build().error_on_failure()])
        .map_err(|error| unavailable(error.to_string()))?;
    commit(builder, onnx).map_err(|error| unavailable(error.to_string()))
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
