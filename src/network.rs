//! The networks that this backend has loaded, and what they did.

use crate::catalog;
use crate::error::Result;
use crate::settings;
use half::f16;
use sketch_model::encoder::{Domain, Encoder, EncoderOptions};
use sketch_model::manifest::{Manifest, PrepareError};
use sketch_model::{distance, runtime};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Loaded networks that a backend keeps; each costs its weights and some 30 MB of working memory.
const KEPT: usize = 2;

thread_local! {
    /// The networks in use, the last one used last.
    static NETWORKS: RefCell<Vec<Rc<Network>>> = const { RefCell::new(Vec::new()) };
    static COUNTERS: Cell<Counters> = const { Cell::new(Counters { sketches: 0, photos: 0, reused: 0 }) };
}

/// What this backend has done so far.
#[derive(Clone, Copy, Default)]
pub struct Counters {
    /// Drawings that went through the network.
    pub sketches: u64,
    /// Photos that went through the network.
    pub photos: u64,
    /// Images whose embedding was at hand from an earlier call.
    pub reused: u64,
}

/// The counters of this backend.
pub fn counters() -> Counters {
    COUNTERS.get()
}

/// Counts an embedding that was at hand.
pub fn count_reused() {
    count(|counters| counters.reused += 1);
}

fn count(change: impl FnOnce(&mut Counters)) {
    let mut counters = COUNTERS.get();
    change(&mut counters);
    COUNTERS.set(counters);
}

/// One model of `sketch.model`, loaded.
pub struct Network {
    pub id: u32,
    pub options: EncoderOptions,
    pub manifest: Manifest,
    encoder: RefCell<Encoder>,
}

impl Network {
    /// Turns a user's bytes into an input of the network.
    ///
    /// # Errors
    /// If the image cannot be decoded or shows nothing: whatever is wrong with the bytes, and nothing else.
    pub fn prepare(&self, domain: Domain, bytes: &[u8]) -> Result<Vec<f32>, PrepareError> {
        pgrx::check_for_interrupts!();
        let limits = settings::limits();
        match domain {
            Domain::Sketch => self.manifest.prepare_sketch(bytes, &limits),
            Domain::Photo => self.manifest.prepare_photo(bytes, &limits),
        }
    }

    /// Embeds one prepared image. Returns shape `(d,)` in half precision.
    ///
    /// # Errors
    /// If the network fails.
    pub fn embed(&self, domain: Domain, input: Vec<f32>) -> Result<Vec<f16>> {
        pgrx::check_for_interrupts!();
        let embedding = self.encoder.borrow_mut().encode(domain, input, 1)?;
        count(|counters| match domain {
            Domain::Sketch => counters.sketches += 1,
            Domain::Photo => counters.photos += 1,
        });
        Ok(distance::to_f16(embedding.as_slice().expect("row-major")))
    }

    /// Where the network runs and, for a fallback, why.
    pub fn device(&self) -> (String, Option<String>) {
        let encoder = self.encoder.borrow();
        (encoder.device().to_string(), encoder.fallback().map(str::to_owned))
    }
}

/// The loaded networks, the last one used last.
pub fn loaded() -> Vec<Rc<Network>> {
    NETWORKS.with_borrow(Clone::clone)
}

/// The network of this id on the device of the settings; loaded at first use.
///
/// # Errors
/// If there is no such model, ONNX Runtime or the device is missing, or the graph does not load.
pub fn network(id: u32) -> Result<Rc<Network>> {
    let options = settings::encoder_options()?;
    let found = NETWORKS.with_borrow_mut(|networks| {
        let position = networks.iter().position(|network| network.id == id && network.options == options)?;
        let network = networks.remove(position);
        networks.push(network.clone());
        Some(network)
    });
    if let Some(network) = found {
        return Ok(network);
    }
    let (onnx, manifest) = catalog::read_model(id)?;
    let encoder = load(&onnx, &manifest, &options)?;
    let network = Rc::new(Network { id, options, manifest, encoder: RefCell::new(encoder) });
    NETWORKS.with_borrow_mut(|networks| {
        if networks.len() == KEPT {
            networks.remove(0);
        }
        networks.push(network.clone());
    });
    Ok(network)
}

/// Loads a graph, after the ONNX Runtime library if that is not there yet.
///
/// # Errors
/// If the library or the device is missing, or the graph does not load.
pub fn load(onnx: &[u8], manifest: &Manifest, options: &EncoderOptions) -> Result<Encoder> {
    let _signals = SignalsBlocked::new();
    if runtime::loaded().is_none() {
        // SAFETY: a backend has one thread until ONNX Runtime starts its own.
        unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
        runtime::init(&settings::onnxruntime())?;
    }
    Ok(Encoder::load(onnx, manifest, options)?)
}

/// Blocks all signals while it lives: threads inherit the mask, and the server's handlers must run on its own thread.
struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    fn new() -> Self {
        // SAFETY: both sets are initialised before they are read.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Self(before)
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the mask is the one that was in force before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}
