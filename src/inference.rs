//! Inference: pixels in, embedding out. The one door is [`Embedder`].
//!
//! An embedder runs its network in this connection ([`local`]) or leaves that to the inference worker ([`remote`]), one
//! process that runs the networks of all connections. The embeddings are the same.
//!
//! | look in | for |
//! | --- | --- |
//! | [`local`] | a network on a thread of this connection |
//! | [`remote`] | the connection's side of the worker: images into slots, embeddings out of them |
//! | [`worker`] | the worker: its process, its batches, its models |
//! | [`model_file`] | how a model reaches the worker |
//! | [`shared`] | the memory that connections and the worker share |
//! | [`stat`] | counters, `sketch_stat` |
//! | [`wait`] | waiting for a thread or a process, and what `pg_stat_activity` says meanwhile |
//!
//! The parts that need no Postgres are in `sketch_model::inference`.

mod local;
mod model_file;
mod remote;
pub mod shared;
pub mod stat;
mod wait;
mod worker;

pub use wait::{WaitEvent, wait_for_latch};

use crate::catalog;
use crate::error::{Result, SqlError};
use crate::settings;
use half::f16;
use local::Local;
use remote::Remote;
use sketch_model::inference::encoder::{Domain, EncoderOptions};
use sketch_model::manifest::{Manifest, PrepareError};
use std::cell::RefCell;
use std::rc::Rc;

/// Embedders that a connection keeps; a local one costs its weights and some 30 MB of working memory.
const KEPT: usize = 2;

thread_local! {
    /// The last one used last.
    static EMBEDDERS: RefCell<Vec<Rc<Embedder>>> = const { RefCell::new(Vec::new()) };
}

/// Requests shared memory and the worker, while the postmaster loads its libraries; does nothing at any other time.
pub fn init() {
    if settings::is_preloading() && settings::worker() {
        shared::request();
        worker::register();
    }
}

/// One model of `sketch.model`, ready to embed images.
pub struct Embedder {
    pub id: u32,
    pub manifest: Manifest,
    options: EncoderOptions,
    engine: Engine,
}

/// What runs the network.
enum Engine {
    Local(Box<RefCell<Local>>),
    Worker(Remote),
}

impl Embedder {
    /// Renders a user's bytes into the pixels of one input of the network.
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
        self.embed_all(domain, &mut || Ok(pixels.take()), &mut |row| {
            embedding = row;
            Ok(())
        })?;
        Ok(embedding)
    }

    /// Embeds images in batches: `next` returns the pixels of each, or `None` at the end; `done` takes their embeddings,
    /// shape `(d,)` in half precision, in the same order.
    ///
    /// # Errors
    /// Those of `next` and `done`; if the network fails.
    pub fn embed_all(
        &self,
        domain: Domain,
        next: &mut dyn FnMut() -> Result<Option<Vec<u8>>>,
        done: &mut dyn FnMut(Vec<f16>) -> Result<()>,
    ) -> Result<()> {
        pgrx::check_for_interrupts!();
        let mut counted = |embedding| {
            stat::count(|counters| match domain {
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

    /// Where this connection runs the network and, for a fallback, why; `None` if the worker runs it.
    pub fn device(&self) -> Option<(String, Option<String>)> {
        match &self.engine {
            Engine::Local(local) => {
                let loaded = local.borrow().loaded();
                Some((loaded.device.to_string(), loaded.fallback))
            }
            Engine::Worker(_) => None,
        }
    }

    /// Whether the settings still ask for this one.
    fn serves(&self, id: u32, options: &EncoderOptions) -> bool {
        self.id == id
            && match self.engine {
                // The worker has threads of its own.
                Engine::Worker(_) => settings::worker() && self.options.device == options.device,
                // What the worker cannot take runs here, whatever the setting.
                Engine::Local(_) => self.options == *options && !(settings::worker() && Remote::takes(&self.manifest)),
            }
    }
}

/// The embedders in use, the last one used last.
pub fn loaded() -> Vec<Rc<Embedder>> {
    EMBEDDERS.with_borrow(Clone::clone)
}

/// The embedder for a model on the device of the settings; loaded at first use, here or by the worker.
///
/// # Errors
/// If there is no such model; in this connection, if ONNX Runtime or the device is missing, or the graph does not load.
pub fn embedder(id: u32) -> Result<Rc<Embedder>> {
    let options = settings::encoder_options()?;
    let known = EMBEDDERS.with_borrow_mut(|embedders| {
        let position = embedders.iter().position(|embedder| embedder.serves(id, &options))?;
        let embedder = embedders.remove(position);
        embedders.push(embedder.clone());
        Some(embedder)
    });
    if let Some(embedder) = known {
        return Ok(embedder);
    }
    let embedder = Rc::new(open(id, options)?);
    EMBEDDERS.with_borrow_mut(|embedders| {
        // A remote one takes no memory here, but a connection that changes its settings ends up with both kinds.
        if embedders.len() == KEPT {
            embedders.remove(0);
        }
        embedders.push(embedder.clone());
    });
    Ok(embedder)
}

fn open(id: u32, options: EncoderOptions) -> Result<Embedder> {
    if let Some((remote, manifest)) = Remote::find(id, options.device)? {
        return Ok(Embedder { id, manifest, options, engine: Engine::Worker(remote) });
    }
    let (onnx, manifest) = catalog::read_model(id)?;
    let local = Local::load(id, onnx, &manifest, options)?;
    Ok(Embedder { id, manifest, options, engine: Engine::Local(Box::new(RefCell::new(local))) })
}

/// Loads a network in this connection and embeds one grey image, to see whether it works.
///
/// # Errors
/// If the library or the device is missing, or the graph does not load or run.
pub fn try_out(id: u32, onnx: &[u8], manifest: &Manifest) -> Result<()> {
    let mut local = Local::load(id, onnx.to_vec(), manifest, settings::encoder_options()?)?;
    let mut image = Some(vec![127; manifest.input_len()]);
    local.embed_all(Domain::Photo, &mut || Ok(image.take()), &mut |_| Ok::<(), SqlError>(()))
}
