//! The network: one ONNX graph run by ONNX Runtime.

use crate::inference::binding::{Bindings, no_output, rows_of};
use crate::inference::onnx::{self, half, single};
use crate::inference::{provider, runtime};
use crate::manifest::Manifest;
use memmap2::Mmap;
use ndarray::Array2;
use ort::session::{NoSelectedOutputs, RunOptions, Session};
use ort::value::{Outlet, Tensor, TensorElementType, TensorRef, ValueType};
use std::borrow::Cow;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};

pub use crate::inference::device::{Device, UnknownDevice};
pub use crate::inference::error::EncoderError;
pub use crate::inference::options::{Domain, EncoderOptions};

/// Stops a run from another thread, between two nodes of the graph.
#[derive(Clone)]
pub struct Stop(Arc<StopInner>);

struct StopInner {
    options: RunOptions<NoSelectedOutputs>,
    stopped: AtomicBool,
}

impl Stop {
    /// # Errors
    /// [`EncoderError::Run`] if ONNX Runtime is out of memory.
    pub fn new() -> Result<Self, EncoderError> {
        let options = RunOptions::new().map_err(EncoderError::Run)?;
        Ok(Self(Arc::new(StopInner { options, stopped: AtomicBool::new(false) })))
    }

    /// Stops the run that was given this, and those that will be.
    pub fn stop(&self) {
        self.0.stopped.store(true, Release);
        // Setting a flag does not fail; if it did, the run would end by itself.
        let _ = self.0.options.terminate();
    }

    fn is_stopped(&self) -> bool {
        self.0.stopped.load(Acquire)
    }
}

/// A network's graph as it was optimised for this machine's CPU, in a file without a name: sessions that are loaded from
/// it share its weights.
///
/// ONNX Runtime's container of prepacked weights would not do: it shares only tensors that the caller hands over one by one. Five
/// sessions of the network that ships took 318 MB without it, and 325 MB with it.
#[derive(Clone)]
pub struct Optimised(Arc<Mmap>);

/// A loaded network.
pub struct Encoder {
    session: Session,
    /// Where the session has its weights, if they are not its own. Dropped after it, as fields are in their order.
    optimised: Option<Optimised>,
    device: Device,
    fallback: Option<String>,
    dimension: usize,
    size: usize,
    domain_input: bool,
    max_batch: usize,
    /// Buffers beside the device; none for the CPU, which computes where the images are.
    bindings: Option<Bindings>,
}

impl Encoder {
    /// Loads the graph `onnx` as `manifest` describes it. A GPU is warmed up with the sizes of batch that it will meet.
    ///
    /// [`runtime::init`] comes first. ONNX Runtime starts its threads here, and they inherit the
    /// caller's signal mask.
    ///
    /// # Errors
    /// [`EncoderError::Onnx`] for a graph that is corrupt, reaches for external data or custom operators;
    /// [`EncoderError::Signature`] if its inputs and outputs are not the manifest's;
    /// [`EncoderError::Device`] if the named device is not there; [`EncoderError::Run`] if the warm-up fails.
    pub fn load(onnx: &[u8], manifest: &Manifest, options: &EncoderOptions) -> Result<Self, EncoderError> {
        if options.share_weights
            && let Some(encoder) = Self::load_shared(onnx, manifest, options)?
        {
            return Ok(encoder);
        }
        Self::load_own(onnx, manifest, options, None)
    }

    /// Loads a network on the CPU that shares the weights of one that was loaded with
    /// [`share_weights`](EncoderOptions::share_weights).
    ///
    /// # Errors
    /// [`EncoderError::Load`] if ONNX Runtime is out of memory, [`EncoderError::Signature`] as [`Encoder::load`].
    pub fn load_optimised(
        optimised: &Optimised,
        manifest: &Manifest,
        options: &EncoderOptions,
    ) -> Result<Self, EncoderError> {
        let session = provider::open_saved(&optimised.0, options)?;
        let encoder = Self::of(session, Device::Cpu, manifest)?;
        Ok(Self { optimised: Some(optimised.clone()), ..encoder })
    }

    /// Loads a network whose weights other sessions can share; `None` if there is no place for the optimised graph.
    fn load_shared(onnx: &[u8], manifest: &Manifest, options: &EncoderOptions) -> Result<Option<Self>, EncoderError> {
        let Ok(file) = tempfile::tempfile() else { return Ok(None) };
        let path = format!("/dev/fd/{}", file.as_raw_fd());
        let encoder = match Self::load_own(onnx, manifest, options, Some(Path::new(&path))) {
            Err(EncoderError::Load(_)) => return Ok(None),
            encoder => encoder?,
        };
        #[allow(unsafe_code)]
        // SAFETY: nobody else can open the file, and nothing writes it any more.
        let saved = unsafe { Mmap::map(&file) };
        let Some(saved) = saved.ok().filter(|saved| encoder.device == Device::Cpu && !saved.is_empty()) else {
            return Ok(Some(encoder));
        };
        let fallback = encoder.fallback.clone();
        drop(encoder);
        let shared = Self::load_optimised(&Optimised(Arc::new(saved)), manifest, options)?;
        Ok(Some(Self { fallback, ..shared }))
    }

    /// A session on `device`, if its inputs and outputs are the manifest's.
    fn of(session: Session, device: Device, manifest: &Manifest) -> Result<Self, EncoderError> {
        let encoder = Self {
            session,
            optimised: None,
            device,
            fallback: None,
            dimension: manifest.dimension,
            size: manifest.input.size as usize,
            domain_input: manifest.domain_input,
            max_batch: 1,
            bindings: None,
        };
        encoder.check_signature()?;
        Ok(encoder)
    }

    /// Loads a network with weights of its own; `save`: where its graph goes as it was optimised for the CPU.
    fn load_own(
        onnx: &[u8],
        manifest: &Manifest,
        options: &EncoderOptions,
        save: Option<&Path>,
    ) -> Result<Self, EncoderError> {
        let model = onnx::parse(onnx)?;
        onnx::check_self_contained(&model)?;
        let half = manifest.half_precision;
        let is_quantised = onnx::is_quantised(&model);
        // Only the CPU computes in integers. Providers with a compiler of their own are told to compute in half precision, and take a
        // graph in single precision.
        let graph = |device| {
            Ok(match device {
                Device::Cpu => Cow::Borrowed(onnx),
                Device::Cuda(_) | Device::Rocm(_) if half => {
                    Cow::Owned(onnx::write(&half::to_half(&single::to_single(&model)?)))
                }
                _ if is_quantised => Cow::Owned(onnx::write(&single::to_single(&model)?)),
                _ => Cow::Borrowed(onnx),
            })
        };
        let (session, device, fallback) = provider::open(graph, options, half, save)?;
        let encoder = Self::of(session, device, manifest)?;
        let bindings = Bindings::for_device(&encoder.session, device)?;
        let mut encoder = Self { fallback, max_batch: options.max_batch, bindings, ..encoder };
        if device != Device::Cpu {
            encoder.warm_up()?;
        }
        Ok(encoder)
    }

    /// The graph that other sessions can be made of, if it is shared.
    pub fn optimised(&self) -> Option<&Optimised> {
        self.optimised.as_ref()
    }

    /// Runs every size of batch once, for each domain.
    fn warm_up(&mut self) -> Result<(), EncoderError> {
        let stop = Stop::new()?;
        for images in self.device.batch_sizes(self.max_batch) {
            for domain in [Domain::Photo, Domain::Sketch] {
                self.run_stoppable("embedding", &vec![domain; images], &vec![0.5; images * self.image_len()], &stop)?;
            }
        }
        Ok(())
    }

    /// Number of values of one image.
    fn image_len(&self) -> usize {
        3 * self.size * self.size
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
    pub fn encode(&mut self, domain: Domain, batch: &[f32], images: usize) -> Result<Array2<f32>, EncoderError> {
        let rows = self.encode_stoppable(&vec![domain; images], batch, &Stop::new()?)?;
        if rows.iter().all(|x| x.is_finite()) { Ok(rows) } else { Err(EncoderError::NotFinite) }
    }

    /// The same for images of several domains, until `stop` is stopped, and with values that may not be finite.
    ///
    /// # Errors
    /// [`EncoderError::Batch`] for a batch of another size, [`EncoderError::Run`] if the run fails,
    /// [`EncoderError::Stopped`] if it was stopped.
    pub fn encode_stoppable(
        &mut self,
        domains: &[Domain],
        batch: &[f32],
        stop: &Stop,
    ) -> Result<Array2<f32>, EncoderError> {
        let images = domains.len();
        let expected = images * self.image_len();
        if images == 0 || batch.len() != expected {
            return Err(EncoderError::Batch { images, found: batch.len(), expected });
        }
        let padded = self.device.padded(images, self.max_batch);
        if padded == images {
            return self.run_stoppable("embedding", domains, batch, stop);
        }
        let (mut domains, mut batch) = (domains.to_vec(), batch.to_vec());
        domains.resize(padded, Domain::Photo);
        batch.resize(padded * self.image_len(), 0.0);
        let rows = self.run_stoppable("embedding", &domains, &batch, stop)?;
        Ok(rows.slice_move(ndarray::s![..images, ..]))
    }

    /// Runs the graph and returns its output `name`, shape `(images, width)`.
    ///
    /// # Errors
    /// [`EncoderError::Run`] if the run fails or the output has another shape.
    pub fn run(
        &mut self,
        name: &str,
        domain: Domain,
        batch: &[f32],
        images: usize,
    ) -> Result<Array2<f32>, EncoderError> {
        self.run_stoppable(name, &vec![domain; images], batch, &Stop::new()?)
    }

    fn run_stoppable(
        &mut self,
        name: &str,
        domains: &[Domain],
        batch: &[f32],
        stop: &Stop,
    ) -> Result<Array2<f32>, EncoderError> {
        let images = domains.len();
        let domains = self.domain_input.then(|| domains.iter().map(|domain| *domain as i64).collect::<Vec<i64>>());
        let shape = [images, 3, self.size, self.size];
        let failed = |error| if stop.is_stopped() { EncoderError::Stopped } else { EncoderError::Run(error) };
        if let Some(bindings) = &mut self.bindings {
            return bindings.run(&mut self.session, name, shape, batch, domains, &stop.0.options).map_err(failed);
        }
        let image = TensorRef::from_array_view((shape, batch)).map_err(EncoderError::Run)?;
        let mut inputs = ort::inputs!["image" => image];
        if let Some(domains) = domains {
            let domain = Tensor::from_array(([images], domains)).map_err(EncoderError::Run)?;
            inputs.push(("domain".into(), domain.into()));
        }
        let outputs = self.session.run_with_options(inputs, &stop.0.options).map_err(failed)?;
        let output = outputs.get(name).ok_or_else(|| EncoderError::Run(no_output(name)))?;
        rows_of(name, output, images).map_err(EncoderError::Run)
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
/// [`runtime::init`] comes first. The graph is taken as it is: [`Encoder::load`] checks what it
/// needs.
///
/// # Errors
/// [`EncoderError::Load`] if ONNX Runtime refuses the graph, [`EncoderError::Device`] if a device named outright is not
/// there.
pub fn open_session(onnx: &[u8], options: &EncoderOptions) -> Result<(Session, Device, Option<String>), EncoderError> {
    provider::open(|_| Ok(onnx.into()), options, false, None)
}

/// Whether the loaded ONNX Runtime was built for a device, or no library is loaded yet; says nothing of the device itself.
pub fn is_supported(device: Device) -> bool {
    runtime::loaded().is_none() || provider::is_built_in(device)
}
