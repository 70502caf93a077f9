//! A network that runs in this connection, on threads of its own: meanwhile the connection prepares the next images, and
//! handles cancels.

use super::stat;
use super::wait::{Bell, WaitEvent, wait_for_bell};
use crate::catalog;
use crate::error::Result;
use crate::process::{self, SignalsBlocked};
use crate::settings;
use half::f16;
use pgrx::pg_guard;
use pgrx::pg_sys;
use sketch_model::inference::encoder::{Device, Domain, EncoderError, EncoderOptions};
use sketch_model::inference::pool::Pool;
use sketch_model::inference::runner::{self, Event, Graph, Job, Loaded, Source};
use sketch_model::inference::stat::{Entry, Key, Place};
use sketch_model::manifest::Manifest;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Longest wait between two polls of the runners, which ring for every event.
const POLL: Duration = Duration::from_secs(10);
/// So many images that have come several at a time give a network several runners, which take time to load.
const MANY: usize = 32;
/// How long a connection that ends waits for its networks to stop.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// What the process ends with.
static EXIT_CODE: AtomicI32 = AtomicI32::new(0);

thread_local! {
    /// All networks of this process, so that none runs when it ends.
    static POOLS: RefCell<Vec<Weak<RefCell<Pool>>>> = const { RefCell::new(Vec::new()) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// A loaded network.
pub struct Local {
    id: u32,
    pool: Rc<RefCell<Pool>>,
    bell: Bell,
    manifest: Manifest,
    options: EncoderOptions,
    loaded: Loaded,
    /// Images that have come several at a time.
    together: Cell<usize>,
}

/// Stops what runs when its connection no longer waits for it.
struct Running<'a>(&'a RefCell<Pool>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Ok(pool) = self.0.try_borrow() {
            pool.stop_if(|_| true);
        }
    }
}

impl Local {
    /// Loads a graph, after the ONNX Runtime library if that is not there yet.
    ///
    /// # Errors
    /// If the library or the device is missing, or the graph does not load.
    pub fn load(id: u32, onnx: Vec<u8>, manifest: &Manifest, options: EncoderOptions) -> Result<Self> {
        let bell = Bell::new()?;
        process::disable_telemetry();
        let pool = {
            let _signals = SignalsBlocked::new();
            Rc::new(RefCell::new(Pool::start_alone(source(onnx, manifest, options), bell.ringer())?))
        };
        register(&pool);
        match wait(&pool, &bell)? {
            Event::Loaded(outcome, _) => {
                process::release_free_memory();
                Ok(Self {
                    id,
                    loaded: outcome?,
                    manifest: manifest.clone(),
                    options,
                    pool,
                    bell,
                    together: Cell::new(0),
                })
            }
            Event::Done { .. } => unreachable!("a runner loads first"),
        }
    }

    pub fn loaded(&self) -> Loaded {
        self.loaded.clone()
    }

    /// As [`super::Embedder::embed_all`].
    ///
    /// # Errors
    /// As there.
    pub fn embed_all(
        &mut self,
        domain: Domain,
        next: &mut dyn FnMut() -> Result<Option<Vec<u8>>>,
        done: &mut dyn FnMut(Vec<f16>) -> Result<()>,
    ) -> Result<()> {
        // An abandoned run has not ended yet.
        while self.pool.borrow().has_jobs() {
            wait(&self.pool, &self.bell)?;
        }
        let key = Key { model: self.id, device: self.loaded.device, place: Place::Connection };
        let entry = stat::table().entry(key);
        Entry::add(&entry.requests, 1);
        let max_batch = settings::batch_policy().max_batch;
        let mut prepared = 0;
        let mut fill = || -> Result<Job> {
            let mut job = Job::new()?;
            while job.len() < max_batch
                && let Some(pixels) = next()?
            {
                job.push(prepared, domain, &self.manifest, &pixels)?;
                prepared += 1;
            }
            Ok(job)
        };
        // Runners overtake each other; embeddings come out in the order of the images.
        let (mut known, mut embedded) = (BTreeMap::new(), 0);
        let mut handle = |event| -> Result<()> {
            let Event::Done { embeddings, took } = event else {
                // Whether the network has grown or could not, it goes on.
                process::release_free_memory();
                return Ok(());
            };
            Entry::add(&entry.batches, 1);
            Entry::add(&entry.run, took.as_micros() as u64);
            known.extend(embeddings);
            while let Some(embedding) = known.remove(&embedded) {
                let counter = if embedding.is_ok() { &entry.images } else { &entry.errors };
                Entry::add(counter, 1);
                embedded += 1;
                done(embedding?)?;
            }
            Ok(())
        };
        let pool = &self.pool;
        let _running = Running(pool);
        let mut job = fill()?;
        while !job.is_empty() {
            let room = pool.borrow().room(job.len());
            match room {
                Some(room) if !room.is_ahead => {
                    self.grow_with(job.len());
                    pool.borrow_mut().run(room, job)?;
                    // While batches run, the next is prepared.
                    job = fill()?;
                }
                _ => handle(wait(pool, &self.bell)?)?,
            }
        }
        while pool.borrow().has_jobs() {
            handle(wait(pool, &self.bell)?)?;
        }
        Ok(())
    }

    /// Gives the network several runners once many images have come several at a time, if it is the CPU's: together they do
    /// more than one with all threads. Where there is no thread to be had, or the model is gone from its table, the network
    /// goes on as it is.
    fn grow_with(&self, images: usize) {
        let before = self.together.get();
        if images == 1 || before >= MANY || self.loaded.device != Device::Cpu {
            return;
        }
        self.together.set(before + images);
        if before + images >= MANY
            && let Ok((onnx, manifest)) = catalog::read_model(self.id)
        {
            let _signals = SignalsBlocked::new();
            let _ = self.pool.borrow_mut().grow(source(onnx, &manifest, self.options), self.bell.ringer());
        }
    }
}

fn source(onnx: Vec<u8>, manifest: &Manifest, options: EncoderOptions) -> Source {
    Source { runtime: settings::onnxruntime(), graph: Graph::Onnx(onnx.into()), manifest: manifest.clone(), options }
}

/// Waits for the next event of a runner; handles cancels and terminations.
fn wait(pool: &RefCell<Pool>, bell: &Bell) -> Result<Event> {
    // Runners may be added, which start threads.
    let poll = || {
        let _signals = SignalsBlocked::new();
        pool.borrow_mut().poll()
    };
    loop {
        if let Some(event) = poll().map_err(|_| EncoderError::Stopped)? {
            return Ok(event);
        }
        wait_for_bell(bell, POLL, WaitEvent::Network);
    }
}

/// Makes sure that the network ends before the process does.
fn register(pool: &Rc<RefCell<Pool>>) {
    POOLS.with_borrow_mut(|pools| {
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Rc::downgrade(pool));
    });
    if !REGISTERED.replace(true) {
        // SAFETY: the callback matches, and takes no argument.
        unsafe { pg_sys::on_proc_exit(Some(stop_pools), pg_sys::Datum::null()) };
    }
}

/// Stops all networks. The process holds no lock any more, and waits for them last of all.
#[pg_guard]
unsafe extern "C-unwind" fn stop_pools(code: i32, _arg: pg_sys::Datum) {
    for pool in POOLS.take().iter().filter_map(Weak::upgrade) {
        if let Ok(mut pool) = pool.try_borrow_mut() {
            pool.end(Duration::ZERO);
        }
    }
    EXIT_CODE.store(code, Relaxed);
    // SAFETY: the callback matches. It runs before those that libraries registered when they were loaded.
    unsafe { libc::atexit(exit_without_handlers) };
}

/// Ends the process at once if a network does not stop in time: exit handlers of ONNX Runtime would free what its threads
/// still use.
extern "C" fn exit_without_handlers() {
    let deadline = Instant::now() + SHUTDOWN;
    while runner::live_threads() > 0 {
        if Instant::now() >= deadline {
            // SAFETY: ends the process; the server has done all that it does at exit.
            unsafe { libc::_exit(EXIT_CODE.load(Relaxed)) };
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
