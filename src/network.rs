//! The networks that this backend has in use, and what they did: its own, or those of the inference worker.

mod local;

use crate::catalog;
use crate::error::{Result, SqlError};
use crate::serve::client::Remote;
use crate::settings;
use half::f16;
use local::Local;
use sketch_model::inference::encoder::{Domain, EncoderOptions};
use sketch_model::manifest::{Manifest, PrepareError};
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

/// Sets the counters of this backend to 0.
pub fn reset_counters() {
    COUNTERS.set(Counters::default());
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

/// One model of `sketch.model`, in use.
pub struct Network {
    pub id: u32,
    pub options: EncoderOptions,
    pub manifest: Manifest,
    engine: Engine,
}

/// What runs the network.
enum Engine {
    Local(Box<RefCell<Local>>),
    Worker(Remote),
}

impl Network {
    /// Draws what the network sees of a user's bytes: the pixels of one input.
    ///
    /// # Errors
    /// If the image cannot be decoded or shows nothing: whatever is wrong with the bytes, and nothing else.
    pub fn render(&self, domain: Domain, bytes: &[u8]) -> Result<Vec<u8>, PrepareError> {
        pgrx::check_for_interrupts!();
        let limits = settings::limits();
        let picture = match domain {
            Domain::Sketch => self.manifest.render_sketch(bytes, &limits),
            Domain::Photo => self.manifest.render_photo(bytes, &limits),
        };
        picture.map(|picture| picture.into_raw())
    }

    /// Embeds one image. Returns shape `(d,)` in half precision.
    ///
    /// # Errors
    /// If the network fails.
    pub fn embed(&self, domain: Domain, pixels: Vec<u8>) -> Result<Vec<f16>> {
        let mut pixels = Some(pixels);
        let mut embedding = Vec::new();
        self.embed_all(domain, &mut || Ok(pixels.take()), &mut |found| {
            embedding = found;
            Ok(())
        })?;
        Ok(embedding)
    }

    /// Embeds images, several at a time: `next` gives the pixels of each, or `None` at the end; `done` takes their
    /// embeddings, shape `(d,)` in half precision, in the same order.
    ///
    /// # Errors
    /// Those of `next`; if the network fails.
    pub fn embed_all(
        &self,
        domain: Domain,
        next: &mut dyn FnMut() -> Result<Option<Vec<u8>>>,
        done: &mut dyn FnMut(Vec<f16>) -> Result<()>,
    ) -> Result<()> {
        pgrx::check_for_interrupts!();
        let mut counted = |embedding| {
            count(|counters| match domain {
                Domain::Sketch => counters.sketches += 1,
                Domain::Photo => counters.photos += 1,
            });
            done(embedding)
        };
        match &self.engine {
            Engine::Local(local) => local.borrow_mut().embed_all(domain, next, &mut counted),
            Engine::Worker(remote) => remote.embed_all(domain, next, &mut counted),
        }
    }

    /// Where this backend runs the network and, for a fallback, why; `None` if the worker runs it.
    pub fn device(&self) -> Option<(String, Option<String>)> {
        match &self.engine {
            Engine::Local(local) => {
                let loaded = local.borrow().loaded();
                Some((loaded.device.to_string(), loaded.fallback))
            }
            Engine::Worker(_) => None,
        }
    }

    fn is_of(&self, id: u32, options: &EncoderOptions) -> bool {
        let by_worker = matches!(self.engine, Engine::Worker(_));
        // Threads are the worker's affair; what the worker does not take, this backend runs whatever the setting.
        self.id == id
            && if by_worker {
                settings::worker() && self.options.device == options.device
            } else {
                self.options == *options && !(settings::worker() && self.fits_worker())
            }
    }

    fn fits_worker(&self) -> bool {
        Remote::takes(&self.manifest)
    }
}

/// The networks in use, the last one used last.
pub fn loaded() -> Vec<Rc<Network>> {
    NETWORKS.with_borrow(Clone::clone)
}

/// The network of this id on the device of the settings; loaded at first use, here or by the worker.
///
/// # Errors
/// If there is no such model; in this backend, if ONNX Runtime or the device is missing, or the graph does not load.
pub fn network(id: u32) -> Result<Rc<Network>> {
    let options = settings::encoder_options()?;
    let found = NETWORKS.with_borrow_mut(|networks| {
        let position = networks.iter().position(|network| network.is_of(id, &options))?;
        let network = networks.remove(position);
        networks.push(network.clone());
        Some(network)
    });
    if let Some(network) = found {
        return Ok(network);
    }
    let network = Rc::new(open(id, options)?);
    NETWORKS.with_borrow_mut(|networks| {
        // What the worker has is not in this backend's memory, but a backend that changes its settings ends with both.
        if networks.len() == KEPT {
            networks.remove(0);
        }
        networks.push(network.clone());
    });
    Ok(network)
}

fn open(id: u32, options: EncoderOptions) -> Result<Network> {
    if let Some((remote, manifest)) = Remote::find(id, options.device)? {
        return Ok(Network { id, options, manifest, engine: Engine::Worker(remote) });
    }
    let (onnx, manifest) = catalog::read_model(id)?;
    let local = Local::load(id, onnx, &manifest, options)?;
    Ok(Network { id, options, manifest, engine: Engine::Local(Box::new(RefCell::new(local))) })
}

/// Loads a network and embeds one grey image, to see whether it works.
///
/// # Errors
/// If the library or the device is missing, or the graph does not load or run.
pub fn try_out(id: u32, onnx: &[u8], manifest: &Manifest) -> Result<()> {
    let mut local = Local::load(id, onnx.to_vec(), manifest, settings::encoder_options()?)?;
    let mut image = Some(vec![127; manifest.input_len()]);
    local.embed_all(Domain::Photo, &mut || Ok(image.take()), &mut |_| Ok::<(), SqlError>(()))
}
